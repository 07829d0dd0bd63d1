"""`table`, `figure` and `report`: results in the form in which they are printed, sent and shown."""

import datetime
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from brainsegnet.api.figure_parts import FigureOptions, choose_slices, load_shown, read_layer, usual_sequences
from brainsegnet.api.report_parts import describe_predictions, describe_run, find_card
from brainsegnet.api.scoring import evaluate
from brainsegnet.errors import DatasetError, TaskError
from brainsegnet.evaluation.figures import save_figure
from brainsegnet.evaluation.metrics import USUAL_RULES, ScoreRules
from brainsegnet.evaluation.paper_figures import (
    Strip,
    comparison_figure,
    cut_strip,
    probability_row_figure,
)
from brainsegnet.evaluation.paper_tables import Number, run_of, to_csv, to_latex, to_markdown
from brainsegnet.evaluation.printed import TABLES
from brainsegnet.evaluation.report import page
from brainsegnet.evaluation.tiles import DPI
from brainsegnet.output import check_suffix, writable, write_text
from brainsegnet.scans.datasets import find_cases
from brainsegnet.task import Task, load_task

TEXTS, PICTURES, PAGES = (".md", ".csv", ".tex"), (".png", ".svg"), (".html",)
PREDICTION = "prediction"
_INTENDED = "Research software, not a medical device."


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


def report(
    source: Path,
    out: Path,
    truth: Sequence[Path] = (),
    task: Task | str | None = None,
    worst: int = 4,
    rules: ScoreRules = USUAL_RULES,
) -> Mapping[str, str]:
    """One page of HTML that holds all it shows.

    Args:
        source: Output folder of `train` or a model folder: card, curves, validation scores. Or a folder of predictions:
            scores, distributions, worst cases, and card and curves of the model where they are found.
        out: Page to write, .html.
        truth: For predictions: label maps, or folders or tables of cases; of cases, the worst are drawn.
        task: For predictions: in whose label convention they are.
        worst: How many of the worst cases to show.
        rules: For predictions: as of `evaluate`.

    Returns:
        Cases that could not be scored, each with a sentence; the page holds them too.

    Raises:
        DatasetError: neither a training nor predictions, or no truth for predictions.
        BrainSegNetError: as `evaluate`.
        OutputError: the page cannot be written.
    """
    writable(out, PAGES)
    failures: Mapping[str, str] = {}
    if found := find_card(source):
        if truth:
            raise DatasetError(f"{source} is a model, which is reported without a truth; name predictions, or leave it")
        title, subtitle = f"Model: {source.resolve().name}", f"task {found[1].task.name}, trained {found[1].created}"
        sections = describe_run(source, *found)
    else:
        if not truth or task is None:
            raise DatasetError(f"{source} holds no model; to report on predictions, name their truth too, and --task")
        evaluation = evaluate(source, truth, task, rules=rules)
        title, subtitle = f"Predictions: {source.resolve().name}", f"task {evaluation.task.name}"
        sections, failures = describe_predictions(evaluation, source, truth, worst, out), evaluation.failures
    today, ours = datetime.date.today().isoformat(), f"Made by brainsegnet {version('brainsegnet')}."
    write_text(page(title, f"{subtitle}; report of {today}", sections, f"{ours} {_INTENDED}"), out)
    return failures


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
