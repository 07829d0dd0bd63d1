"""The analysis level `group` of a BIDS App: the volumes of all participants as tables, each with a JSON sidecar.

BIDS has no table with a row for each session of each participant, so `.bidsignore` lists these, as other BIDS Apps do.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainsegnet._atomic import write_text
from brainsegnet.cohort import BidsOptions
from brainsegnet.cohort.bids import list_visits
from brainsegnet.cohort.derivatives import LABEL_MAP, Derivatives, Visit
from brainsegnet.errors import DatasetError, ImageError
from brainsegnet.io.layouts import read_note

ABSENT = "n/a"
_SEGMENTATION = re.compile(rf".*_space-orig_seg-([A-Za-z0-9]+)_{LABEL_MAP}\.json")


@dataclass(frozen=True)
class Table:
    """A table that was written.

    Attributes:
        path: Its file.
        visits: Number of participants and sessions with a result.
        absent: Names of those without.
    """

    path: Path
    visits: int
    absent: Sequence[str]


def write_tables(raw: Path, out: Path, which: BidsOptions | None = None) -> list[Table]:
    """Write the volumes of all participants and sessions, one table for each kind of lesion.

    Those without a result have a row of `n/a`.

    Args:
        raw: The BIDS data set.
        out: Folder of the derivatives.
        which: Participants and sessions.

    Raises:
        DatasetError: there is no result, or none of the participants.
        ImageError: the JSON of a result is damaged.
        OutputError: a table cannot be written.
    """
    raw = Path(os.path.abspath(raw))
    visits = list_visits(raw, which or BidsOptions())
    notes: dict[str, dict[Visit, Mapping[str, Any]]] = {}
    for visit in visits:
        for path in sorted((out / visit.participant / visit.session / "anat").glob(f"*_{LABEL_MAP}.json")):
            if match := _SEGMENTATION.fullmatch(path.name):
                notes.setdefault(match[1], {})[visit] = read_note(path)
    if not notes:
        command = f"brainsegnet bids {raw} {out} participant"
        raise DatasetError(f"{out} holds no result of these participants; make them first: {command}")
    Derivatives(raw, out).begin()
    return [_write(out, name, visits, found) for name, found in sorted(notes.items())]


def _write(out: Path, name: str, visits: Sequence[Visit], notes: Mapping[Visit, Mapping[str, Any]]) -> Table:
    measured = {visit: _measure(visit, note) for visit, note in notes.items()}
    columns = list(dict.fromkeys(column for row in measured.values() for column in row))
    keys = ["participant_id", *(["session_id"] if any(visit.session for visit in visits) else [])]
    lines = ["\t".join([*keys, *columns])]
    for visit in visits:
        row, ids = measured.get(visit, {}), (visit.participant, visit.session or ABSENT)
        lines.append("\t".join([*ids[: len(keys)], *(str(row.get(column, ABSENT)) for column in columns)]))
    path = out / f"group_{name}_volumes.tsv"
    write_text("".join(f"{line}\n" for line in lines), path)
    write_text(json.dumps(_describe(name, keys, columns), indent=2) + "\n", path.with_suffix(".json"))
    return Table(path, len(measured), [visit.name for visit in visits if visit not in measured])


def _measure(visit: Visit, note: Mapping[str, Any]) -> dict[str, object]:
    """The values of a row by column."""
    try:
        volumes = note["volumes_ml"]
        row: dict[str, object] = {_column(name): ml for name, ml in (volumes["regions"] | volumes["labels"]).items()}
        for name, interval in note.get("uncertainty", {}).get("volume_intervals", {}).items():
            row[_column(name, "least")], row[_column(name, "most")] = interval["least_ml"], interval["most_ml"]
        row |= {"sequences": "+".join(note["sequences"]["used"]), "warnings": len(note["warnings"])}
        return row | {"model": note["model"]["name"], "model_sha256": note["model"]["sha256"] or ABSENT}
    except (KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"case {visit.name}: the JSON of its result is damaged ({error}); segment it again") from error


def _column(name: str, end: str = "") -> str:
    """Name of a column of volumes.

    Examples:
        >>> _column("necrosis + non-enhancing"), _column("whole", "least")
        ('necrosis_non_enhancing_ml', 'whole_least_ml')
    """
    return "_".join([*re.findall(r"[a-z0-9]+", name.lower()), *filter(None, [end]), "ml"])


def _describe(name: str, keys: Sequence[str], columns: Iterable[str]) -> dict[str, Any]:
    """The sidecar of a table."""
    told: dict[str, Any] = {"MeasurementToolMetadata": {"Description": f"Volumes measured by Brain SegNet ({name})"}}
    others = {
        "participant_id": "Participant",
        "session_id": "Session",
        "sequences": "Sequences of the scan that the model used",
        "warnings": "Number of warnings in the JSON of the result",
        "model": "Name of the model",
        "model_sha256": "Hash of its weights",
    }
    for column in (*keys, *columns):
        words = column.removesuffix("_ml").replace("_", " ")
        told[column] = (
            {"Description": others[column]} if column in others else {"Description": f"Volume, {words}", "Units": "mL"}
        )
    return told
