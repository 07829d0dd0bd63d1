"""`view`: a label map on disk, with its images and all that its JSON tells, as one HTML page to scroll through."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from brainsegnet._atomic import writable
from brainsegnet.errors import BrainSegNetError, ImageError
from brainsegnet.io.images import read_image, read_labels
from brainsegnet.io.results import find_result
from brainsegnet.model.store import open_model
from brainsegnet.plotting.viewer import Shown, Viewer, show
from brainsegnet.task import TASKS, Task, load_task, present
from brainsegnet.volume import LabelMap, Volume

ENTROPY = "entropy"


def view(
    result: Path,
    out: Path,
    images: Sequence[Path] = (),
    truth: Path | None = None,
    task: Task | str | None = None,
) -> Viewer:
    """Write one HTML page that shows a label map over its images, and everything that its JSON tells.

    Args:
        result: Label map, as `segment` wrote it, or any other. The JSON beside it tells the images.
        out: Page to write, .html.
        images: Images, or folders that hold them, where the JSON does not tell them, or where they were moved.
        truth: True label map in the same label convention, on any grid.
        task: Label convention of a label map without a JSON.

    Returns:
        The page.

    Raises:
        ImageError: a file cannot be read, no image is found, or one has changed since it was segmented.
        LabelError: a label map holds values that the task does not have.
        OutputError: the page cannot be written.
    """
    writable(out, (".html",))
    viewer = show(open_result(result, images, truth, task))
    viewer.save(out)
    return viewer


def open_result(
    result: Path, images: Sequence[Path] = (), truth: Path | None = None, task: Task | str | None = None
) -> Shown:
    """A label map on disk, with its images and all that its JSON tells. Arguments and errors are those of `view`."""
    labels, found = read_labels(result), find_result(result, images)
    maps, absent = _read_maps(found.note, result.parent)
    return Shown(
        name=found.case.name,
        labels=labels,
        task=load_task(task) if isinstance(task, str) else task or _find_task(found.note, labels),
        images=found.read(),
        maps=maps,
        truth=read_labels(truth) if truth else None,
        note=found.note,
        motions=_find_motions(found.note),
        file=(result.name, result.read_bytes()),
        warnings=(*found.warnings, *absent),
    )


def _read_maps(note: Mapping[str, Any], folder: Path) -> tuple[dict[str, Volume], list[str]]:
    """Probability and entropy maps that a JSON lists, and a sentence on each that cannot be read."""
    listed, uncertainty = note.get("probabilities"), note.get("uncertainty")
    named = dict(listed) if isinstance(listed, dict) else {}
    if isinstance(uncertainty, dict):
        named[ENTROPY] = uncertainty.get(ENTROPY)
    maps, sentences = {}, []
    for name, file in named.items():
        if not (isinstance(file, str) and file):
            continue
        try:
            maps[name] = read_image(folder / Path(file).name)
        except ImageError as error:
            sentences.append(f"the map of {name} is not shown: {error}")
    return maps, sentences


def _find_motions(note: Mapping[str, Any]) -> Mapping[str, Any]:
    geometry = note.get("geometry")
    moved = geometry.get("moved") if isinstance(geometry, dict) else None
    return moved if isinstance(moved, dict) else {}


def _find_task(note: Mapping[str, Any], labels: LabelMap) -> Task:
    """The task of a result: by its name, by the card of its model, or made of the names of its labels alone."""
    convention = note.get("convention")
    listed = convention.items() if isinstance(convention, dict) else ()
    named = {int(value): str(tissue) for value, tissue in listed if value.isdecimal()}
    model = note.get("model")
    folder = model.get("folder") if isinstance(model, dict) else None
    candidates = [TASKS.get(str(note.get("task")))]
    if isinstance(folder, str) and folder:
        try:
            candidates.append(open_model(Path(folder)).card.task)
        except BrainSegNetError:  # it was moved, which is no reason not to look at its result
            candidates.append(None)
    for task in candidates:
        if task and named and dict(task.labels) == named:
            return task
    found = {value: f"label {value}" for value in present(labels.array) if value} or {1: "label 1"}
    try:
        return _make_task(named or found)
    except ValidationError:
        return _make_task(found)


def _make_task(labels: Mapping[int, str]) -> Task:
    return Task(name="labels", sequences=("image",), labels=labels, regions={"all": (*labels,)})
