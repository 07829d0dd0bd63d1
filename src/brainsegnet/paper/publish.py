"""`table` and `figure`: the paper's tables and figures, with results of ours."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from brainsegnet._atomic import check_suffix, writable, write_text
from brainsegnet.errors import DatasetError, TaskError
from brainsegnet.io.cases import find_cases
from brainsegnet.paper.figure_cases import FigureOptions, choose_slices, load_shown, read_layer, usual_sequences
from brainsegnet.paper.figures import Strip, comparison_figure, cut_strip, probability_row_figure
from brainsegnet.paper.tables import TABLES, Number, run_of, to_csv, to_latex, to_markdown
from brainsegnet.plotting.overlays import save_figure
from brainsegnet.plotting.tiles import DPI
from brainsegnet.task import Task, load_task

TEXTS, PICTURES = (".md", ".csv", ".tex"), (".png", ".svg")
PREDICTION = "prediction"


def table(scores: Sequence[Path], paper: Number, out: Path | Sequence[Path] = (), labels: Sequence[str] = ()) -> str:
    """The paper's Table 1 or 2, a row of ours for each of `scores` below the paper's own.

    Args:
        scores: `scores.json` of `evaluate`, or the folders that hold one.
        paper: 1 is BRATS 2015, 2 is ISLES 2017.
        out: Files to write, each in the format of its ending: .md, .csv or .tex.
        labels: Names of our rows; none takes the names of the folders.

    Returns:
        The table in Markdown.

    Raises:
        DatasetError: a file holds no scores, or scores of other regions.
        OutputError: a file cannot be written.
    """
    if paper not in TABLES:
        raise TaskError(f"the paper has a Table 1 and a Table 2, not {paper}")
    targets = _targets(out, TEXTS)
    names = _names(scores, labels, "scores")
    chosen = TABLES[paper]
    runs = [run_of(name, _read_scores(path), chosen) for name, path in zip(names, scores, strict=True)]
    text = to_markdown(chosen, paper, runs)
    forms = {".md": text, ".csv": to_csv(chosen, runs), ".tex": to_latex(chosen, paper, runs)}
    for target in targets:
        write_text(forms[check_suffix(target, TEXTS)], target)
    return text


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
    targets = _targets(out, PICTURES)
    names = _names(predictions, options.labels, "predictions") if paper == 4 else [PREDICTION]
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


def _targets(out: Path | Sequence[Path], suffixes: tuple[str, ...]) -> list[Path]:
    targets = [out] if isinstance(out, Path) else list(out)
    for target in targets:
        writable(target, suffixes)
    return targets


def _names(paths: Sequence[Path], labels: Sequence[str], what: str) -> list[str]:
    """The labels, or the names of the folders; no two alike.

    Raises:
        DatasetError: not one label for each, or two of one name.
    """
    if not paths:
        raise DatasetError(f"no {what} are named")
    if labels and len(labels) != len(paths):
        raise DatasetError(f"{len(labels)} labels are given for {len(paths)} {what}; give one for each")
    names = list(labels) or [(p.parent if p.suffix == ".json" else p).resolve().name for p in paths]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DatasetError(f"two of the {what} are called {twice[0]}; tell them apart with --labels")
    return names


def _read_scores(path: Path) -> Mapping[str, Any]:
    file = path / "scores.json" if path.is_dir() else path
    try:
        scores = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error.strerror}; make it with: brainsegnet evaluate") from error
    except ValueError as error:
        raise DatasetError(f"{file} is no JSON; name the scores.json that brainsegnet evaluate wrote") from error
    if not isinstance(scores, dict) or not isinstance(scores.get("mean"), dict):
        raise DatasetError(f"{file} holds no scores; name the scores.json that brainsegnet evaluate wrote")
    return scores
