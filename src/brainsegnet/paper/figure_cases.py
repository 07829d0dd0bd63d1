"""What a figure of the paper is made of: which slices of which cases, and what the models found there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from brainsegnet._types import Array
from brainsegnet.errors import DatasetError, GridMismatch, TaskError
from brainsegnet.io.cases import CaseFiles, find_cases, load_case, read_prediction
from brainsegnet.io.images import read_image
from brainsegnet.metrics.evaluate import label_files
from brainsegnet.paper.figures import SEQUENCES, Strip, comparison_figure, cut_strip, probability_row_figure
from brainsegnet.paper.tables import check_targets, name_rows
from brainsegnet.plotting.overlays import save_figure
from brainsegnet.plotting.tiles import DPI
from brainsegnet.preprocessing.alignment import Aligner
from brainsegnet.task import Task, load_task
from brainsegnet.volume import Case, Volume, describe_mismatch


@dataclass(frozen=True)
class FigureOptions:
    """What a figure shows.

    Attributes:
        labels: Headings of the models, one for each folder of predictions; none takes the names of the folders.
        slices: `case:index`, in the order of the figure, the index counted from 0 at the feet; a case may come twice.
            None is the slice with most lesion of each case.
        sequences: Columns before the models (Figure 4), or the one below the colours (Figure 5); none takes the
            paper's, or the task's first.
        most: Cases shown where no slice is named.

    Raises:
        DatasetError: fewer than one case.
    """

    labels: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    sequences: tuple[str, ...] = ()
    most: int = 4

    def __post_init__(self) -> None:
        if self.most < 1:
            raise DatasetError(f"a figure shows at least one case, not {self.most}")


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


def usual_sequences(task: Task, paper: int) -> tuple[str, ...]:
    """The paper's columns, or the first sequences of a task that has none of them."""
    if paper == 5:
        return task.sequences
    return tuple(name for name in SEQUENCES if name in task.sequences) or task.sequences[:3]


def load_shown(files: CaseFiles, task: Task, sequences: Sequence[str]) -> Case:
    """What a figure shows of a case, on the grid of the first sequence it has; the lesion too, if known."""
    lesion = files.lesion is not None
    return load_case(files, sequences, task, lesion=lesion, allow_missing=True, align=Aligner(files.name))


def read_layer(folder: Path, case: Case, task: Task, paper: int) -> Array:
    """Labels (D, H, W) of a case, or the probability that a voxel is of any tissue.

    Raises:
        DatasetError: there is none.
        GridMismatch: it is not on the grid of the case.
    """
    if paper == 5:
        maps = [read_image(path) for path in _probability_files(folder, case.name, task)]
        volume: Volume = maps[0].with_array(np.clip(np.sum([m.array for m in maps], axis=0), 0, 1))
    else:
        files = label_files(folder)
        path = folder if folder.is_file() else files.get(case.name)
        if path is None:
            raise DatasetError(f"{folder} holds no label map of case {case.name}; segment it first")
        volume = read_prediction(path, task, case.name)
    if not volume.on_grid_of(case.reference):
        raise GridMismatch(
            f"case {case.name}: {describe_mismatch('the prediction', volume, 'the scan', case.reference)}"
        )
    return volume.array


def _probability_files(folder: Path, case: str, task: Task) -> list[Path]:
    """The maps of all tissues that `segment --probabilities` wrote of a case, or the one map that is named."""
    if folder.is_file():
        return [folder]
    try:
        report = json.loads((folder / f"{case}.json").read_text(encoding="utf-8"))
        names = [name for tissue, name in report["probabilities"].items() if tissue in task.labels.values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        names = []
    if not names:
        raise DatasetError(f"{folder} holds no probability map of case {case}; segment it with --probabilities")
    return [folder / str(name) for name in names]


PICTURES = (".png", ".svg")
PREDICTION = "prediction"


def figure(
    data: Sequence[Path],
    predictions: Sequence[Path],
    task: Task | str,
    out: Path | Sequence[Path],
    paper: Literal[4, 5] = 4,
    options: FigureOptions | None = None,
) -> list[Strip]:
    """The paper's Figure 4 or 5.

    Args:
        data: Folders of cases, or tables.
        predictions: Figure 4: for each model, the folder of label maps that `segment` wrote. Figure 5: one folder, with
            the probability maps of `segment --probabilities`.
        task: In whose label convention the predictions are.
        out: Files to write, .png or .svg.
        paper: Which figure.
        options: What it shows.

    Returns:
        The slices shown, each with the reason why.

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
    names = name_rows(predictions, options.labels, "predictions") if paper == 4 else [PREDICTION]
    models = dict(zip(names, predictions, strict=True))
    strips = []
    for files, index in choose_slices(find_cases(data), models, options):
        case = load_shown(files, task, options.sequences or usual_sequences(task, paper))
        layers = {name: read_layer(folder, case, task, paper) for name, folder in models.items()}
        strips.append(cut_strip(case, layers, index))
    if paper == 4:
        drawn = comparison_figure(strips, task, options.sequences or usual_sequences(task, paper))
    else:
        drawn = probability_row_figure(strips, PREDICTION)
    for target in targets:
        save_figure(drawn, target, DPI)
    return strips
