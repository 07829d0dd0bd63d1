"""`view`: a label map on disk, with its images and all that its JSON tells, as one HTML page to scroll through."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from brainsegnet._atomic import writable
from brainsegnet.errors import ImageError, UsageError
from brainsegnet.io.images import read_image, read_labels
from brainsegnet.io.results import find_result
from brainsegnet.model.store import find_task
from brainsegnet.plotting import ViewerName
from brainsegnet.plotting.viewer import Shown, Viewer, show
from brainsegnet.task import Task, load_task, present
from brainsegnet.volume import LabelMap, Volume

ENTROPY = "entropy"


def view(
    result: Path,
    out: Path,
    images: Sequence[Path] = (),
    truth: Path | None = None,
    task: Task | str | None = None,
    viewer: ViewerName = "canvas",
) -> Viewer:
    """Write one HTML page that shows a label map over its images, and everything that its JSON tells.

    Args:
        result: Label map, as `segment` wrote it, or any other. The JSON beside it tells the images.
        out: Page to write, .html.
        images: Images, or folders that hold them, where the JSON does not tell them, or where they were moved.
        truth: True label map in the same label convention, on any grid.
        task: Label convention of a label map without a JSON.
        viewer: What draws: the package's own script, or NiiVue, which needs WebGL 2 and nilearn.

    Returns:
        The page.

    Raises:
        ImageError: a file cannot be read, no image is found, or one has changed since it was segmented.
        LabelError: a label map holds values that the task does not have.
        OutputError: the page cannot be written.
        MissingExtra: NiiVue is asked for, and nilearn is not installed.
        UsageError: NiiVue is asked for with a truth, which its page does not show.
    """
    writable(out, (".html",))
    if viewer == "niivue" and truth:
        raise UsageError("the page of NiiVue shows no truth; leave out --viewer or --truth")
    shown = open_result(result, images, truth, task)
    if viewer == "niivue":
        from brainsegnet.plotting.niivue import show_niivue

        page = show_niivue(shown)
    else:
        page = show(shown)
    page.save(out)
    return page


def open_result(
    result: Path, images: Sequence[Path] = (), truth: Path | None = None, task: Task | str | None = None
) -> Shown:
    """A label map on disk, with its images and all that its JSON tells. Arguments and errors are those of `view`."""
    labels, found = read_labels(result), find_result(result, images)
    maps, absent = _read_maps(found.note, result.parent)
    return Shown(
        name=found.case.name,
        labels=labels,
        task=load_task(task) if isinstance(task, str) else task or find_shown_task(found.note, labels),
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


def find_shown_task(note: Mapping[str, Any], labels: LabelMap) -> Task:
    """The task of a result, or one made of the names of its labels alone."""
    if task := find_task(note):
        return task
    convention = note.get("convention")
    listed = convention.items() if isinstance(convention, dict) else ()
    named = {int(value): str(tissue) for value, tissue in listed if value.isdecimal()}
    found = {value: f"label {value}" for value in present(labels.array) if value} or {1: "label 1"}
    try:
        return _make_task(named or found)
    except ValidationError:
        return _make_task(found)


def _make_task(labels: Mapping[int, str]) -> Task:
    return Task(name="labels", sequences=("image",), labels=labels, regions={"all": (*labels,)})
