"""`measure`: a label map that a person has corrected, measured and written like the result that it was made from."""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from brainsegnet._atomic import hash_file, replacing, stem_of, writable, write_text
from brainsegnet.errors import ImageError, OutputError, TaskError
from brainsegnet.inference.postprocessing import measure_volumes
from brainsegnet.inference.segmentation import DICOM_ENDINGS, beside, save_label_files
from brainsegnet.io.images import READERS, read_labels, write_image
from brainsegnet.io.label_files import read_corrected
from brainsegnet.io.layouts import read_note
from brainsegnet.io.results import describe_place, find_result
from brainsegnet.model.store import find_task
from brainsegnet.pipeline import MeasureOptions
from brainsegnet.pipeline.batch import SavedCase
from brainsegnet.pipeline.inputs import Note
from brainsegnet.preprocessing.grids import paste
from brainsegnet.task import Task, load_task
from brainsegnet.volume import LabelMap, Volume

_OF_THE_MODEL = ("uncertainty", "preprocessed", "picture", "dicom", "label_files", "report", "original")
"""Entries of a JSON that tell of files or numbers which the correction does not have."""


@dataclass(frozen=True, eq=False)
class Original:
    """The result that was corrected.

    Attributes:
        json: Its JSON.
        note: Content of the JSON.
        path: Its label map.
        labels: The labels.
        task: What they mean.
    """

    json: Path
    note: Note
    path: Path
    labels: LabelMap
    task: Task

    @property
    def case(self) -> str:
        """Name of the case."""
        return str(self.note.get("case") or stem_of(self.path))


def name_corrected(like: Path) -> Path:
    """Where the correction of a result goes if no place is named.

    Examples:
        >>> name_corrected(Path("out/pat1.json")).as_posix()
        'out/pat1_corrected.nii.gz'
    """
    return like.with_name(f"{stem_of(like, (*READERS, '.json'))}_corrected.nii.gz")


def measure(mask: Path, like: Path, out: Path | None = None, options: MeasureOptions | None = None) -> SavedCase:
    """Measure a label map that was corrected in another program, and write it like a result of `segment`.

    Args:
        mask: The corrected label map, on the voxels of the result; a part of them suffices.
        like: JSON or label map of the result that was corrected.
        out: Label map to write; by default it is named by `name_corrected`. Its JSON is marked as corrected, and holds
            the hashes of the original.
        options: What else is written.

    Returns:
        The label map, and the content of its JSON.

    Raises:
        ImageError: a file cannot be read, or `like` is no result.
        LabelError: the mask holds values that the result cannot have.
        GridMismatch: the mask is on other voxels.
        TaskError: the label convention is not known.
        OutputError: a file cannot be written, or is one of those that are read.
    """
    options, out = options or MeasureOptions(), out or name_corrected(like)
    original = read_original(like, options.task)
    for file in (mask, original.path):
        if file.resolve() == out.resolve():
            raise OutputError(f"{out} is the file that is measured or was corrected; name another with --out")
    writable(out)
    labels = paste(read_corrected(mask, original.task, original.case), original.labels, f"case {original.case}: {mask}")
    volumes_ml = measure_volumes(labels, original.task)
    with ExitStack() as stack:  # files get their names where it ends, the JSON last

        def begin(file: Path) -> Path:
            return stack.enter_context(replacing(file))

        done = beside(out, ".json")
        new_json = begin(done)
        write_image(labels, begin(out))
        more = {
            **save_label_files(options.label_files, original.task, out, begin),
            **(_save_dicom(original, labels, volumes_ml, out, begin, options) if options.dicom else {}),
        }
        note = {**_describe(original, mask, labels, out), "volumes_ml": volumes_ml, **more}
        write_text(json.dumps(note, indent=2) + "\n", new_json)
        done.unlink(missing_ok=True)
    return SavedCase(original.case, out, note)


def read_original(like: Path, task: str | None = None) -> Original:
    """Read the result that was corrected. Errors are those of `measure`."""
    home = like if like.suffix.lower() == ".json" else like.with_name(f"{stem_of(like, READERS)}.json")
    note = read_note(home)
    name = note.get("labels")
    if not (isinstance(name, str) and name):
        raise ImageError(f"{home} is not the JSON of a result of segment; name the one beside the label map")
    path = home.with_name(Path(name).name)
    if not path.is_file():
        raise ImageError(f"{path}, the label map of {home}, is not there; put it back beside its JSON")
    known = load_task(task) if task else find_task(note)
    if known is None:
        raise TaskError(f"{home} tells no label convention that is known here; name it with --task")
    return Original(home, note, path, read_labels(path), known)


def _describe(original: Original, mask: Path, labels: LabelMap, out: Path) -> dict[str, Any]:
    """The JSON of the original, with what differs in the correction."""
    kept = {key: value for key, value in original.note.items() if key not in _OF_THE_MODEL}
    before = original.labels.array
    changed = {
        "added_ml": (before == 0) & (labels.array != 0),
        "removed_ml": (before != 0) & (labels.array == 0),
        "relabelled_ml": (before != labels.array) & (before != 0) & (labels.array != 0),
    }
    return {
        **kept,
        "labels": out.name,
        "corrected": True,
        "original": {
            **_describe_file(original.json, out, "json", "json_sha256"),
            **_describe_file(original.path, out, "labels", "labels_sha256"),
            "volumes_ml": original.note.get("volumes_ml", {}),
        },
        "mask": _describe_file(mask, out, "path", "sha256"),
        "changed": {
            name: round(float(np.count_nonzero(where)) * labels.voxel_ml, 6) for name, where in changed.items()
        },
        "probabilities": {},
        "grids": {},
        "dropped": {"confidence_margin": None, "components": 0, "ml": 0.0},
        "inputs": _move_inputs(original, out),
        "validation": {},
        "brainsegnet": version("brainsegnet"),
    }


def _describe_file(path: Path, out: Path, name: str, hashed: str) -> dict[str, str]:
    return {
        name: describe_place(str(path), out.parent),
        hashed: hash_file(path),
    }


def _move_inputs(original: Original, out: Path) -> dict[str, Any]:
    """The inputs of the original, with paths relative to where the correction is."""
    inputs = original.note.get("inputs")
    moved = dict(inputs) if isinstance(inputs, dict) else {}
    for name, facts in moved.items():
        if isinstance(facts, dict) and isinstance(facts.get("path"), str):
            path = describe_place(str(original.json.parent / facts["path"]), out.parent)
            moved[name] = {**facts, "path": path}
    return moved


def _save_dicom(
    original: Original,
    labels: LabelMap,
    volumes_ml: Mapping[str, Mapping[str, float]],
    out: Path,
    begin: Callable[[Path], Path],
    options: MeasureOptions,
) -> dict[str, Any]:
    """Write a DICOM segmentation and a report of the correction. Returns a part of the JSON."""
    from brainsegnet.io.dicom_out import Findings, build_dicom

    geometry, model = original.note.get("geometry"), original.note.get("model")
    reference = str(geometry.get("grid")) if isinstance(geometry, dict) else ""
    series = find_result(original.path, options.images).series.get(reference)
    if series is None:
        raise ImageError(
            f"case {original.case}: its reference {reference} is not DICOM, so no DICOM segmentation can refer to it; "
            "leave out --dicom"
        )
    grids = (Volume(np.broadcast_to(np.uint8(0), stack.shape), stack.affine) for stack in series.stacks)
    number = next((number for number, grid in enumerate(grids) if labels.on_grid_of(grid)), 0)
    name = str(model.get("name")) if isinstance(model, dict) else "model"
    findings = Findings(original.task, labels, volumes_ml, name, version("brainsegnet"), number, corrected=True)
    made = build_dicom(series, findings)
    files = [beside(out, ending) for ending in DICOM_ENDINGS]
    made.save(*map(begin, files))
    names = dict(zip(("segmentation", "report"), (file.name for file in files), strict=True))
    return {"dicom": {**names, "notes": list(made.notes)}}
