"""The verbs that publish results: tables, figures and reports."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from brainsegnet.cli.app import Paths, app, complain, say
from brainsegnet.cli.flags import Names

Folders = Annotated[list[Path], Parameter(negative_iterable=(), consume_multiple=True)]


@Parameter(name="*")
@dataclass(frozen=True)
class FigureFlags:
    """What a figure shows."""

    labels: Names = ()
    "Names of the models, as 'without focal' 'with focal'; by default those of the folders."
    slices: Names = ()
    "case:index, counted from 0 at the feet; by default the slice with most lesion of each case."
    sequences: Names = ()
    "Sequences to show; by default FLAIR, T1c and T2, or the task's first."
    most: int = 4
    "Cases shown where no slice is named."


@app.command
def table(scores: Paths, /, *, paper: Literal[1, 2], out: Folders | None = None, labels: Names = ()) -> None:
    """Put our scores beside the rows of the paper's Table 1 (BRATS 2015) or Table 2 (ISLES 2017).

    Example: brainsegnet table scores/plain scores/focal --paper 1 --out table.md table.tex

    Parameters
    ----------
    scores
        scores.json of evaluate, or folders that hold one; a row each.
    paper
        Which table.
    out
        Files to write, in the format of their endings: .md, .csv, .tex.
    labels
        Names of our rows; by default those of the folders.
    """
    from brainsegnet.paper.tables import table as run

    say(run(scores, paper, out or [], labels).rstrip("\n"))


@app.command
def figure(
    data: Paths,
    /,
    *,
    paper: Literal[4, 5] = 4,
    predictions: Folders,
    task: str,
    out: Folders,
    what: FigureFlags | None = None,
) -> None:
    """SampleSpec the paper's Figure 4 (models beside the truth) or Figure 5 (probability as colours).

    Example: brainsegnet figure BRATS/ --predictions plain/ focal/ --task brats2015 --out figure4.png

    Parameters
    ----------
    data
        Folders of cases, or tables.
    paper
        Which figure.
    predictions
        What segment wrote: a folder for each model; for Figure 5 one, segmented with --probabilities.
    task
        In whose label convention the predictions are.
    out
        Files to write: .png, .svg.
    """
    from brainsegnet.paper.figure_cases import FigureOptions
    from brainsegnet.paper.figure_cases import figure as run

    options = FigureOptions(**vars(what or FigureFlags()))
    for strip in run(data, predictions, task, out, paper, options):
        say(f"{strip.case}: slice {strip.index}, {strip.why}")


@app.command
def report(
    source: Path,
    truth: Paths | None = None,
    /,
    *,
    out: Path,
    task: str | None = None,
    worst: int = 4,
    tolerance_mm: float = 1.0,
    lesions: Literal["overlap", "brats2023"] = "overlap",
) -> None:
    """Write one HTML page that holds all it shows: scores, distributions, worst cases, curves, card, how to repeat.

    Example: brainsegnet report predictions/ BRATS/ --task brats2015 --out report.html

    Parameters
    ----------
    source
        Output folder of train, model folder, or folder of predictions.
    truth
        For predictions: folders or tables of cases, which are drawn too, or a folder of label maps.
    out
        Page to write, .html.
    task
        For predictions: in whose label convention they are.
    worst
        How many of the worst cases to show.
    tolerance_mm, lesions
        As of evaluate.
    """
    from brainsegnet.metrics.lesions import LESION_RULES
    from brainsegnet.metrics.scores import ScoreRules
    from brainsegnet.reporting.report import report as run

    failures = run(source, out, truth or [], task, worst, ScoreRules(tolerance_mm, LESION_RULES[lesions]))
    say(f"done; open {out}")
    for sentence in failures.values():
        complain(sentence)
    if failures:
        sys.exit(1)
