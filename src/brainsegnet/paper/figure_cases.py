"""`figure`: choose the slices of the paper's figures, read what the models found there, and draw them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from brainsegnet._types import Array
from brainsegnet.errors import DatasetError, GridMismatch, TaskError
from brainsegnet.io.cases import CaseFiles, find_cases, load_case, read_prediction
from brainsegnet.io.images import read_image
from brainsegnet.io.layouts import read_note
from brainsegnet.metrics.pairs import label_files
from brainsegnet.paper import FigureOptions
from brainsegnet.paper.figures import DPI, SEQUENCES, TRUTH, Strip, comparison_figure, probability_row_figure
from brainsegnet.paper.tables import check_targets, name_rows
from brainsegnet.plotting.slices import Scene, View, arrange, fullest, save_figure
from brainsegnet.preprocessing.alignment import Aligner
from brainsegnet.task import Task, load_task
from brainsegnet.volume import Case, Volume, describe_mismatch

PICTURES = (".png", ".svg")
_PREDICTION = "prediction"


def figure(
    data: Sequence[Path],
    predictions: Sequence[Path],
    task: Task | str,
    out: Path | Sequence[Path],
    paper: Literal[4, 5] = 4,
    options: FigureOptions | None = None,
) -> list[Strip]:
    """Draw the paper's Figure 4 (models beside the truth) or Figure 5 (probabilities as colours).

    Args:
        data: Folders of cases, or tables.
        predictions: Figure 4: one folder of label maps from `segment` for each model. Figure 5: one folder with the
            probability maps of `segment --probabilities`.
        task: Label convention of the predictions.
        out: Files to write, .png or .svg.
        paper: Number of the figure.
        options: Which slices, sequences and models it shows.

    Returns:
        The slices shown, each with the reason for it.

    Raises:
        DatasetError: a case or a prediction is absent, or a slice is named that does not exist.
        GridMismatch: a prediction is not on the grid of its case.
        OutputError: a file cannot be written.
    """
    options, task = options or FigureOptions(), task if isinstance(task, Task) else load_task(task)
    if paper not in (4, 5):
        raise TaskError(f"figures 4 and 5 of the paper can be drawn, not {paper}")
    if paper == 5 and len(predictions) != 1:
        raise DatasetError(f"Figure 5 shows one model, not {len(predictions)}; name one folder of predictions")
    targets = check_targets(out, PICTURES)
    names = name_rows(predictions, options.labels, "predictions") if paper == 4 else [_PREDICTION]
    models = dict(zip(names, predictions, strict=True))
    usual = tuple(name for name in SEQUENCES if name in task.sequences) or task.sequences[:3]
    sequences = options.sequences or (usual if paper == 4 else task.sequences)
    read = _read_labels if paper == 4 else _read_probability
    strips = []
    for files, index in choose_slices(find_cases(data), models, options):
        lesion = files.lesion is not None
        case = load_case(files, sequences, task, lesion=lesion, allow_missing=True, align=Aligner(files.name))
        strips.append(cut_strip(case, {name: read(folder, case, task) for name, folder in models.items()}, index))
    drawing = options.drawing
    if paper == 4:
        drawn = comparison_figure(strips, task, sequences, drawing)
    else:
        drawn = probability_row_figure(strips, _PREDICTION, drawing)
    for target in targets:
        save_figure(drawn, target, drawing.dpi or DPI)
    return strips


def choose_slices(
    found: Sequence[CaseFiles], models: Mapping[str, Path], options: FigureOptions
) -> list[tuple[CaseFiles, int | None]]:
    """The cases and slices of the figure: those named, or the first cases that every model has segmented.

    Raises:
        DatasetError: no case was segmented, or a slice is not of the form `case:index` or of no case.
    """
    cases = {files.name: files for files in found}
    if not options.slices:
        done = [set(label_files(folder)) for folder in models.values()]
        there = [files for files in found if len(found) == 1 or all(files.name in names for names in done)]
        if not there:
            folders = ", ".join(map(str, models.values()))
            raise DatasetError(f"no case has a prediction in {folders}; segment {', '.join(list(cases)[:3])} first")
        return [(files, None) for files in there[: options.most]]
    chosen: list[tuple[CaseFiles, int | None]] = []
    for text in options.slices:
        name, _, index = text.rpartition(":")
        if not index.isdigit():
            raise DatasetError(f"slice {text!r} is not of the form case:index, as in {next(iter(cases))}:40")
        if name not in cases:
            raise DatasetError(f"slice {text!r}: there is no case {name}; choose from {', '.join(cases)}")
        chosen.append((cases[name], int(index)))
    return chosen


def cut_strip(case: Case, layers: Mapping[str, Array], index: int | None = None) -> Strip:
    """The axial slice of a case that holds most lesion, or the one of an index, counted from 0 at the feet.

    The lesion is the truth where it is known, else the last layer (a probability counts from a half). Layers map a
    heading to labels, or to a probability as floats, each (D, H, W).

    Raises:
        DatasetError: there is no such slice.
        GridMismatch: a layer differs from the case in shape.
    """
    known = {**layers, **({TRUTH: case.lesion.array} if case.lesion else {})}
    for name, layer in known.items():
        if layer.shape != case.reference.shape:
            raise GridMismatch(f"case {case.name}: {name} is {layer.shape} but the scan is {case.reference.shape}")
    floats = {name for name, layer in known.items() if np.issubdtype(layer.dtype, np.floating)}
    guides = {name: layer >= 0.5 if name in floats else layer > 0 for name, layer in reversed(known.items())}
    scene = arrange(case.reference, [*guides.values()], "slice")
    view, why = _choose_view(case.name, scene, guides, index)
    greys = {name: view.cut(scene.grey(image)) for name, image in case.images.items()}
    cuts = {name: view.cut(scene.turn(layer)) for name, layer in known.items()}
    _, down, across = scene.spacing_mm
    return Strip(case.name, view.index + scene.box.start[0], why, (down, across), greys, cuts, scene.mark(view))


def _choose_view(case: str, scene: Scene, guides: Mapping[str, Array], index: int | None) -> tuple[View, str]:
    first, count = scene.box.start[0], scene.box.shape[0]
    if index is not None:
        if not first <= index < first + count:
            last = first + count - 1
            raise DatasetError(f"case {case}: slice {index} shows no brain; choose one from {first} to {last}")
        return View(0, index - first), "as named"
    for name, guide in guides.items():
        if guide.any():
            where = f"the {name}" if name == TRUTH else f"the prediction “{name}”"
            return View(0, fullest(scene.turn(guide).sum((1, 2)))), f"with most lesion in {where}"
    return View(0, count // 2), "in the middle of the brain, for there is no lesion"


def _read_labels(folder: Path, case: Case, task: Task) -> Array:
    """Labels (D, H, W) of a case."""
    path = folder if folder.is_file() else label_files(folder).get(case.name)
    if path is None:
        raise DatasetError(f"{folder} holds no label map of case {case.name}; segment it first")
    return _on_grid(read_prediction(path, task, case.name), case)


def _read_probability(folder: Path, case: Case, task: Task) -> Array:
    """Probability (D, H, W) that a voxel is of any tissue: the maps of `segment --probabilities`, or the one named."""
    paths = [folder]
    if not folder.is_file():
        written = read_note(folder / f"{case.name}.json").get("probabilities")
        named = written if isinstance(written, dict) else {}
        paths = [folder / Path(str(name)).name for tissue, name in named.items() if tissue in task.labels.values()]
    if not paths:
        raise DatasetError(f"{folder} holds no probability map of case {case.name}; segment it with --probabilities")
    maps = [_on_grid(read_image(path), case) for path in paths]
    return np.asarray(np.clip(np.sum(maps, axis=0), 0, 1))


def _on_grid(volume: Volume, case: Case) -> Array:
    if not volume.on_grid_of(case.reference):
        fact = describe_mismatch("the prediction", volume, "the scan", case.reference)
        raise GridMismatch(f"case {case.name}: {fact}")
    return volume.array
