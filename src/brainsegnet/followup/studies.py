"""Studies of one patient: results on disk with their images, when they were acquired, and whether they fit together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from brainsegnet.errors import DatasetError, ImageError, ModelError
from brainsegnet.io.patients import patient_of
from brainsegnet.io.results import NAME_THEM, find_result
from brainsegnet.plotting.result import open_result
from brainsegnet.plotting.viewer import Shown

SAME_PATIENT = "--same-patient follows them all the same"


@dataclass(frozen=True, eq=False)
class Study:
    """One study of a patient: a result of `segment` with its images.

    Attributes:
        result: File of the label map.
        shown: Label map, images, task, and the content of its JSON.
        day: When it was acquired; None if no header tells it.
        patient: What identifies the patient in the headers, as a hash; empty if nothing does.
    """

    result: Path
    shown: Shown
    day: date | None = None
    patient: str = ""

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.shown.name

    @property
    def model(self) -> Mapping[str, Any]:
        """Name and SHA-256 of the model that made it; empty if the JSON does not tell."""
        found = self.shown.note.get("model")
        return found if isinstance(found, dict) else {}

    @property
    def ruled_out(self) -> tuple[str, float] | None:
        """The tissue of which it was decided that the scan has none, and the volume in ml that had been marked."""
        found = self.shown.note.get("presence")
        if not isinstance(found, dict) or found.get("kept") is not False:
            return None
        return str(found.get("tissue")), float(found.get("marked_ml") or 0)

    @property
    def sequences(self) -> tuple[str, ...]:
        """Sequences that the model saw."""
        found = self.shown.note.get("sequences")
        used = found.get("used") if isinstance(found, dict) else None
        return tuple(map(str, used)) if isinstance(used, list) else ()


def read_study(result: Path) -> Study:
    """A result on disk as a study.

    Raises:
        ImageError: the label map or an image cannot be read, or none is where it was.
        DatasetError: no JSON of `segment` is beside the label map.
    """
    try:
        found, shown = find_result(result), open_result(result)
    except ImageError as error:
        said = str(error).replace(f"; {NAME_THEM}", "")
        raise type(error)(f"{said}; give follow the study itself, so that it is segmented again") from error
    if not shown.note.get("model"):
        raise DatasetError(f"{result} has no JSON of segment beside it; give follow the study itself")
    headers = [series.header for series in found.series.values()]
    days = sorted(header.study_date for header in headers if header.study_date)
    patients = {series.hash_patient() for series in found.series.values()} - {""}
    return Study(result, shown, _to_day(days[0]) if days else None, min(patients, default=""))


def order(studies: Sequence[Study]) -> tuple[list[Study], str]:
    """The studies by the day of acquisition, or as given where a day is unknown; and a sentence on the order."""
    if all(study.day for study in studies):
        ordered = sorted(studies, key=lambda study: study.day or date.min)
        return ordered, "Studies are in the order of their acquisition dates."
    return list(studies), "Studies are in the order given, because not every one has a date of acquisition."


def require_one_patient(studies: Sequence[Study]) -> None:
    """Check that no header or name of a case tells that there are two patients.

    Raises:
        DatasetError: one does.
    """
    first = studies[0]
    for other in studies[1:]:
        if first.patient and other.patient and first.patient != other.patient:
            raise DatasetError(
                f"the headers of {first.name} and {other.name} name two patients; give the studies of one, or "
                f"if their names were replaced: {SAME_PATIENT}"
            )
        one, two = (patient_of(study.name) for study in (first, other))
        if one != two and one != first.name and two != other.name:
            raise DatasetError(
                f"{first.name} and {other.name} are two patients by their names; give the studies of one, or: "
                f"{SAME_PATIENT}"
            )


def require_one_model(studies: Sequence[Study]) -> None:
    """Check that one model made all results, in one label convention.

    Raises:
        ModelError: several models did.
        DatasetError: one result is given twice, or there is only one.
    """
    if len(studies) < 2:
        raise DatasetError(f"there is one study, {studies[0].name}; a follow-up needs two or more of one patient")
    first = studies[0]
    for other in studies[1:]:
        if first.model.get("sha256") != other.model.get("sha256") or first.shown.task != other.shown.task:
            names = " and ".join(f"{study.name} by {study.model.get('name')}" for study in (first, other))
            raise ModelError(f"two models made the results, {names}; segment both studies with one, with --model")
    places = [study.result.resolve() for study in studies]
    if twice := next((place for place in places if places.count(place) > 1), None):
        raise DatasetError(f"{twice} is given twice; name each study once")


def _to_day(written: str) -> date | None:
    """A date of DICOM, YYYYMMDD; None if it is none."""
    try:
        return date.fromisoformat(written.replace(".", ""))
    except ValueError:
        return None
