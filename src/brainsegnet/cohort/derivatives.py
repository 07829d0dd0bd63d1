"""Names and files of results as BIDS derivatives: label map, table of labels, brain mask, probabilities, sidecars.

The names follow "Imaging data types" in the part on derivatives of the BIDS specification: `_dseg` for the label map,
`_probseg` for probabilities, `_mask` for the brain, all with `space-orig`, because no result leaves the space of its
scan. `SpatialReference` names the image whose grid it has.
"""

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from brainsegnet._atomic import replacing, write_text
from brainsegnet._documents import load_json, read_text
from brainsegnet.errors import BrainSegNetError, DatasetError, OutputError
from brainsegnet.inference.segmentation import ENTROPY, Segmentation
from brainsegnet.io.images import write_image
from brainsegnet.io.results import describe_place
from brainsegnet.preprocessing.grids import bring
from brainsegnet.reporting import ReportOptions
from brainsegnet.task import Task

DESCRIPTION, LABEL_MAP, RAW = "dataset_description.json", "dseg", "raw"
IGNORED = ("*.html", "*_entropy.nii.gz", "group_*")
"""Files that BIDS does not know."""
BIDS_VERSION = "1.10.0"
_SOFTWARE = "brainsegnet"
_MADE = ("GeneratedBy", "SourceDatasets", "DatasetLinks")
"""What a description says of this run; the user may add or change the rest."""
_BACKGROUND, _BACKGROUND_LABEL = "background", "BG"
_README = """# Lesions found by Brain SegNet

Label maps of brain lesions, as BIDS derivatives. Research software, not a medical device.

- `*_dseg.nii.gz`: label map on the grid of the image that `SpatialReference` in its JSON names.
- `*_dseg.tsv`: name and colour of each label.
- `*_dseg.json`: volumes in ml, warnings, model, options and inputs.
- `*_desc-brain_mask.nii.gz`: the brain in which lesions were looked for, on the same grid.
- `*_probseg.nii.gz`: probability of each tissue, if it was asked for.
- `*.html`: a report on each participant and session, if it was asked for.
- `group_*_volumes.tsv`: volumes of all participants, made by the analysis level `group`.
"""


@dataclass(frozen=True)
class Visit:
    """One participant at one session.

    Attributes:
        folder: Its folder in the raw data set.
        participant: Name of the participant, with `sub-`.
        session: Name of the session, with `ses-`; empty in a data set without sessions.
    """

    folder: Path
    participant: str
    session: str = ""

    @property
    def name(self) -> str:
        """How names of its files begin, as in `sub-01_ses-2`."""
        return "_".join(filter(None, (self.participant, self.session)))

    def locate(self, out: Path, task: Task) -> Path:
        """The label map of the visit in a folder of derivatives."""
        home = out / self.participant / self.session / "anat"
        return home / f"{self.name}_space-orig_seg-{name_segmentation(task)}_{LABEL_MAP}.nii.gz"


def name_segmentation(task: Task) -> str:
    """The label of the entity `seg`, after the disease.

    Examples:
        >>> from brainsegnet.task import TASKS
        >>> [name_segmentation(TASKS[name]) for name in ("brats2021", "isles2022", "white-matter-lesions")]
        ['tumour', 'stroke', 'multipleSclerosis']
    """
    label = _join_words(task.disease) or "Lesion"
    return label[0].lower() + label[1:]


def name_labels(task: Task) -> dict[str, str]:
    """Each tissue and the background to its label in file names: letters and digits only, no two the same.

    Examples:
        >>> from brainsegnet.task import BRATS2021
        >>> list(name_labels(BRATS2021).values())
        ['BG', 'NecrosisNonEnhancing', 'Oedema', 'Enhancing']
    """
    labels = {_BACKGROUND: _BACKGROUND_LABEL}
    for value, tissue in task.labels.items():
        label = _join_words(tissue)
        taken = {other.casefold() for other in labels.values()}
        labels[tissue] = label if label and label.casefold() not in taken else f"{label}{value}"
    return labels


def _join_words(text: str) -> str:
    return "".join(word[0].upper() + word[1:] for word in re.findall(r"[A-Za-z0-9]+", text))


@dataclass(frozen=True)
class Derivatives:
    """Where results go, and the data set that they are made from.

    Attributes:
        raw: Folder of the BIDS data set.
        out: Folder of the derivatives.
        pages: Whether there is a report on each participant and session.
    """

    raw: Path
    out: Path
    pages: ReportOptions = field(default_factory=ReportOptions)

    def begin(self) -> None:
        """Write what describes the data set: description, README, ignored files. What a user changed in them stays.

        Raises:
            OutputError: the folder holds a data set of other software, or cannot be written.
        """
        path = self.out / DESCRIPTION
        if path.exists() and not _is_own(path):
            raise OutputError(f"{self.out} holds a data set that other software made; name another folder")
        known, made = read_description(self.out), self._describe()
        merged = {**made, **known, **{key: made[key] for key in _MADE}}
        if merged != known:
            write_text(json.dumps(merged, indent=2) + "\n", path)
        for name, text in {"README.md": _README, ".bidsignore": "".join(f"{one}\n" for one in IGNORED)}.items():
            if not (self.out / name).exists():
                write_text(text, self.out / name)

    def _describe(self) -> dict[str, Any]:
        known, place = read_description(self.raw), describe_place(str(self.raw), self.out)
        about = {
            key: known[source] for key, source in (("DOI", "DatasetDOI"), ("Version", "Version")) if known.get(source)
        }
        return {
            "Name": f"Lesions found by Brain SegNet in {known.get('Name') or self.raw.name}",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": _SOFTWARE, "Version": version(_SOFTWARE)}],
            "SourceDatasets": [{"URL": place, **about}],
            "DatasetLinks": {RAW: place},
        }

    def save(self, result: Segmentation, path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
        """Write a result. As of `Segmentation.save`, all files get their names together, and the JSON is the last.

        Args:
            result: The result, with its brain mask.
            path: File of the label map, of `Visit.locate`.
            record: What is added to its JSON.

        Returns:
            The content of the JSON.

        Raises:
            OutputError: a file cannot be written.
        """
        started, stem = time.perf_counter(), path.name.removesuffix(f"_{LABEL_MAP}.nii.gz")
        about = self._describe_sources(result, path.parent)
        done = path.with_name(f"{stem}_{LABEL_MAP}.json")
        with ExitStack() as stack:  # files get their names where it ends, the last one first
            files: list[str] = []

            def begin(name: str) -> Path:
                files.append(name)
                return stack.enter_context(replacing(path.with_name(name)))

            new_json = stack.enter_context(replacing(done))
            write_image(result.labels, begin(path.name))
            write_text(_tabulate(result.card.task), begin(f"{stem}_{LABEL_MAP}.tsv"))
            _write_mask(result, stem.partition("_seg-")[0], about, begin)
            maps = _write_maps(result, stem, about, begin)
            note = {
                **{"Description": "Tissues of the lesion; the table beside it names the labels", "Manual": False},
                **about,
                **result.report(path.name, maps, {"write": time.perf_counter() - started}),
                "derivatives": files,
                **record,
            }
            write_text(json.dumps(note, indent=2) + "\n", new_json)
            done.unlink(missing_ok=True)
        return note

    def report(self, name: str, path: Path) -> Exception | None:
        """Write the report on a result, if there are to be reports and it is older than the result or absent.

        Args:
            name: Name of the visit.
            path: Label map.

        Returns:
            Why it could not be written.
        """
        segmentation = path.name.partition("_seg-")[2].partition("_")[0]
        page = self.out / f"{name}_seg-{segmentation}.html"
        if not self.pages.report or (page.exists() and page.stat().st_mtime >= path.stat().st_mtime):
            return None
        from brainsegnet.reporting.patient import write_patient_report

        try:
            write_patient_report(path, page, self.pages)
        except (BrainSegNetError, OSError, MemoryError) as error:
            return error
        return None

    def _describe_sources(self, result: Segmentation, home: Path) -> dict[str, Any]:
        """The images of a result as addresses in the raw data set."""
        places = {name: os.path.abspath(home / facts["path"]) for name, facts in result.inputs.items()}
        addresses = {
            name: f"bids:{RAW}:{Path(place).relative_to(self.raw).as_posix()}"
            for name, place in places.items()
            if Path(place).is_relative_to(self.raw)
        }
        return {
            "Sources": list(dict.fromkeys(addresses.values())),
            "SpatialReference": addresses.get(result.reference, "orig"),
        }


def _write_mask(result: Segmentation, stem: str, about: Mapping[str, Any], begin: Callable[[str], Path]) -> None:
    if result.brain_mask is None:
        return
    sidecar = {"Description": "The brain in which lesions were looked for", "Type": "Brain", **about}
    write_image(bring(result.brain_mask, result.labels), begin(f"{stem}_desc-brain_mask.nii.gz"))
    write_text(json.dumps(sidecar, indent=2) + "\n", begin(f"{stem}_desc-brain_mask.json"))


def _write_maps(
    result: Segmentation, stem: str, about: Mapping[str, Any], begin: Callable[[str], Path]
) -> dict[str, str]:
    """Write probabilities and entropy, if there are any. Returns the name of the file of each."""
    names, labels = {}, name_labels(result.card.task)
    for tissue, probability in (result.probabilities or {}).items():
        name = names[tissue] = f"{stem}_label-{labels[tissue]}_probseg.nii.gz"
        write_image(probability, begin(name))
        sidecar = json.dumps({"Description": f"Probability of {tissue}", **about}, indent=2)
        write_text(f"{sidecar}\n", begin(name.replace(".nii.gz", ".json")))
    if result.entropy:
        names[ENTROPY] = f"{stem}_{ENTROPY}.nii.gz"
        write_image(result.entropy, begin(names[ENTROPY]))
    return names


def _tabulate(task: Task) -> str:
    """The table of labels, tab-separated."""
    labels = name_labels(task)
    rows = [("index", "name", "abbreviation", "color"), ("0", _BACKGROUND, labels[_BACKGROUND], "#000000")]
    rows += [(str(value), tissue, labels[tissue], task.colours[value]) for value, tissue in task.labels.items()]
    return "".join("\t".join(row) + "\n" for row in rows)


def read_description(folder: Path) -> Mapping[str, Any]:
    """The `dataset_description.json` of a data set; empty if there is none that can be read."""
    try:
        return check_description(folder)
    except DatasetError:
        return {}


def check_description(folder: Path) -> Mapping[str, Any]:
    """The `dataset_description.json` of a data set.

    Raises:
        DatasetError: it is absent or damaged, or lacks what BIDS requires.
    """
    path, remedy = folder / DESCRIPTION, "mend it, or add --skip-bids-validation"
    if not path.is_file():
        raise DatasetError(f"{folder} has no {DESCRIPTION}, which every BIDS data set has; {remedy}")
    try:
        content = load_json(read_text(path, "utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as JSON: {error}; {remedy}") from error
    if absent := [key for key in ("Name", "BIDSVersion") if not (isinstance(content, dict) and content.get(key))]:
        raise DatasetError(f"{path} has no {absent[0]}, which BIDS requires; {remedy}")
    return dict(content)


def _is_own(path: Path) -> bool:
    """Whether a description is of a data set that this software made."""
    makers = read_description(path.parent).get("GeneratedBy")
    return isinstance(makers, list) and any(isinstance(one, dict) and one.get("Name") == _SOFTWARE for one in makers)
