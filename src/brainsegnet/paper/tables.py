"""What the paper reports in its Tables 1 and 2, as far as its text states it.

The tables themselves are no part of the text that these rows were taken from. So a figure that the text does not state
is left open, never filled in from elsewhere; who has the printed page before them adds it to `cells`.

The paper's Tables 1 and 2, its rows beside ours, as Markdown, CSV and LaTeX.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from brainsegnet._atomic import check_suffix, writable, write_text
from brainsegnet.errors import DatasetError, TaskError
from brainsegnet.metrics.tables import find_interval

SOURCE = "Hu et al., Brain SegNet, BMC Medical Imaging 20:17, 2020"
Key = tuple[str, str]
"""Metric and region."""


@dataclass(frozen=True)
class PublishedRow:
    """A row of the paper.

    Attributes:
        method: As it is called.
        cells: (Metric, region) to what is stated, mean over the test set; none where the text compares in words alone.
    """

    method: str
    cells: Mapping[Key, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        caption: What it shows.
        metrics: Of its columns, each with its heading.
        regions: Of its columns; an empty one is the only region of a task.
        rows: What the paper reports.
        cohort: The cases its rows are means over.
        section: Of the paper, where the figures stand.
    """

    caption: str
    metrics: Mapping[str, str]
    regions: tuple[str, ...]
    rows: tuple[PublishedRow, ...]
    cohort: str
    section: str

    @property
    def keys(self) -> list[Key]:
        """Metric and region of each column."""
        return [(metric, region) for metric in self.metrics for region in self.regions]


TABLE_1 = PaperTable(
    caption="Brain tumours, BRATS 2015",
    metrics={"dice": "Dice", "specificity": "Specificity", "sensitivity": "Sensitivity"},
    regions=("whole", "core", "enhancing"),
    rows=(
        PublishedRow("FCNN + CRF (Zhao et al. 2018)"),
        PublishedRow("DeepMedic + CRF (Kamnitsas et al. 2017)"),
        PublishedRow("Brain SegNet without focal loss", {("dice", "whole"): 0.85, ("dice", "enhancing"): 0.69}),
        PublishedRow("Brain SegNet with focal loss", {("dice", "whole"): 0.86, ("dice", "enhancing"): 0.72}),
    ),
    cohort="the 110 test cases of BRATS 2015, scored by the organisers",
    section="Results on Brain Tumor Segmentation",
)
TABLE_2 = PaperTable(
    caption="Stroke, ISLES 2017",
    metrics={"dice": "Dice", "precision": "Precision", "sensitivity": "Recall"},
    regions=("",),
    rows=(
        PublishedRow("Pinto et al. 2018, standard maps", {("dice", ""): 0.20}),
        PublishedRow("Pinto et al. 2018, with 4-D PWI", {("dice", ""): 0.26}),
        PublishedRow("Pinto et al. 2018, two models", {("dice", ""): 0.29}),
        PublishedRow("Brain SegNet without focal loss", {("dice", ""): 0.26}),
        PublishedRow("Brain SegNet with focal loss", {("dice", ""): 0.30}),
    ),
    cohort="the 32 test cases of ISLES 2017, scored by the organisers",
    section="Results on Stroke Lesion Outcome Prediction",
)
TABLES: Mapping[int, PaperTable] = {1: TABLE_1, 2: TABLE_2}


Number = Literal[1, 2]

OPEN, OURS = "\u2013", "ours"
_LISTED = 8
"""Cases that a note names; of more it names the first, and how many follow."""


@dataclass(frozen=True)
class Run:
    """A row of ours: means over cases with a known truth.

    Attributes:
        label: What the row is called.
        task: Name of the task the cases were scored in.
        cases: Their names.
        mean, sd: (Metric, region) to mean and standard deviation.
        interval: (Metric, region) to the 95 % interval of the mean, where it was computed.
    """

    label: str
    task: str
    cases: Sequence[str]
    mean: Mapping[Key, float]
    sd: Mapping[Key, float] = field(default_factory=dict)
    interval: Mapping[Key, tuple[float, float]] = field(default_factory=dict)


def run_of(label: str, scores: Mapping[str, Any], table: PaperTable) -> Run:
    """A row from what `evaluate` wrote into `scores.json`.

    Raises:
        DatasetError: it has not the regions or metrics of the table.
    """
    regions = _match(label, list(scores.get("mean", {})), table)
    try:
        mean = {(m, r): float(scores["mean"][regions[r]][m]) for m, r in table.keys}
        sd = {(m, r): float(scores["sd"][regions[r]][m]) for m, r in table.keys}
        cases, task = list(scores["cases"]), str(scores["task"])
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"scores {label} lack {error}; write them anew with: brainsegnet evaluate --out") from error
    intervals = {(m, r): find_interval(scores, regions[r], m) for m, r in table.keys}
    return Run(label, task, cases, mean, sd, {key: ends for key, ends in intervals.items() if ends})


def to_markdown(table: PaperTable, number: Number, runs: Sequence[Run]) -> str:
    """The table in Markdown, its notes below."""
    headings = ["Method", "Source", *(_heading(table, key) for key in table.keys)]
    rows = [[_plain_markdown(cell) for cell in row] for row in _rows(table, runs)]
    rule = ["---", "---", *["---:"] * len(table.keys)]
    lines = [f"| {' | '.join(row)} |" for row in (headings, rule, *rows)]
    notes = [f"- {_plain_markdown(note)}" for note in notes_of(table, runs)]
    return "\n".join([f"**Table {number}. {table.caption}**", "", *lines, "", *notes]) + "\n"


def to_csv(table: PaperTable, runs: Sequence[Run]) -> str:
    """A row for each method and column of the table in full precision; empty where the paper's text states nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "source", "cases", "metric", "region", "mean", "sd", "low_95", "high_95"])
    for row in table.rows:
        for key in table.keys:
            writer.writerow([row.method, SOURCE, table.cohort, *key, row.cells.get(key, ""), "", "", ""])
    for run in runs:
        for key in table.keys:
            ends = run.interval.get(key, ("", ""))
            writer.writerow([run.label, OURS, " ".join(run.cases), *key, run.mean[key], run.sd.get(key, ""), *ends])
    return text.getvalue()


def to_latex(table: PaperTable, number: Number, runs: Sequence[Run]) -> str:
    """A table for LaTeX with the package booktabs, its notes below."""
    span = len(table.regions)
    groups = [rf"\multicolumn{{{span}}}{{c}}{{{heading}}}" for heading in table.metrics.values()]
    starts = [3 + span * place for place in range(len(table.metrics))]
    rules = "".join(rf"\cmidrule(lr){{{start}-{start + span - 1}}}" for start in starts)
    rows = [[_plain_latex(cell) for cell in row] for row in _rows(table, runs)]
    regions = ["Method", "Source", *[_plain_latex(region) for _, region in table.keys]]
    single = [["Method", "Source", *table.metrics.values()]]
    top = single if span == 1 else [["", "", *groups], regions]
    heads = [f"{' & '.join(row)} \\\\" for row in top]
    body = [f"{' & '.join(row)} \\\\" for row in rows]
    body.insert(len(table.rows), r"\midrule")
    notes = " ".join(_plain_latex(note) for note in notes_of(table, runs))
    middle = [heads[0], *([rules] if span > 1 else []), *heads[1:], r"\midrule", *body]
    caption = f"{table.caption}. The paper's Table {number} and ours."
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table*}",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{_plain_latex(caption)}}}",
            rf"\begin{{tabular}}{{ll{'r' * len(table.keys)}}}",
            r"\toprule",
            *middle,
            r"\bottomrule",
            r"\end{tabular}",
            r"",
            rf"\par\smallskip {notes}",
            r"\end{table*}",
            "",
        ]
    )


def notes_of(table: PaperTable, runs: Sequence[Run]) -> list[str]:
    """What the rows are means over, and what they must not be taken for."""
    notes = [
        f"Paper: {SOURCE}, section {table.section}; means over {table.cohort}. "
        f"{OPEN}: not stated in the text of the paper, from which its rows are taken."
    ]
    for run in runs:
        count = "1 case" if len(run.cases) == 1 else f"{len(run.cases)} cases"
        more = f" and {len(run.cases) - _LISTED} more" if len(run.cases) > _LISTED else ""
        notes.append(
            f"{run.label} (ours): mean ± standard deviation over {count} of task {run.task} whose truth is known, not "
            f"the test set of the challenge: {', '.join(run.cases[:_LISTED])}{more}."
        )
    return notes


def _rows(table: PaperTable, runs: Sequence[Run]) -> Iterable[list[str]]:
    for row in table.rows:
        yield [row.method, "paper", *(f"{row.cells[key]:.2f}" if key in row.cells else OPEN for key in table.keys)]
    for run in runs:
        yield [run.label, OURS, *(_cell(run, key) for key in table.keys)]
        if run.interval:
            yield [f"{run.label}, 95 % interval", OURS, *(_ends(run, key) for key in table.keys)]


def _cell(run: Run, key: Key) -> str:
    spread = f" ± {_figure(key, run.sd[key])}" if key in run.sd and len(run.cases) > 1 else ""
    return _figure(key, run.mean[key]) + spread


def _ends(run: Run, key: Key) -> str:
    return " to ".join(_figure(key, end) for end in run.interval[key]) if key in run.interval else OPEN


def _figure(key: Key, value: float) -> str:
    """The paper's two decimals, but three for a specificity, which is all but 1."""
    return f"{value:.{3 if key[0] == 'specificity' else 2}f}"


def _match(label: str, found: Sequence[str], table: PaperTable) -> dict[str, str]:
    """Region of the table to region of the scores; a table of one region takes the only one there is."""
    if table.regions == ("",) and len(found) == 1:
        return {"": found[0]}
    if table.regions != ("",) and set(table.regions) <= set(found):
        return {region: region for region in table.regions}
    wanted = ", ".join(table.regions) if table.regions != ("",) else "a single region"
    raise DatasetError(
        f"scores {label} are of {', '.join(found) or 'no region'}, but this table wants {wanted}; "
        f"choose --paper {2 if table is TABLE_1 else 1}, or scores of another task"
    )


def _heading(table: PaperTable, key: Key) -> str:
    return f"{table.metrics[key[0]]} {key[1]}".rstrip()


def _plain_markdown(text: str) -> str:
    return re.sub(r"([\\|*_`\[\]<>])", r"\\\1", text)


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", OPEN: "--", "±": r"$\pm$"}


def _plain_latex(text: str) -> str:
    r"""Text as itself in LaTeX.

    >>> print(_plain_latex("sub_1 & 50 % ± 2"))
    sub\_1 \& 50 \% $\pm$ 2
    """
    return "".join(_LATEX.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


TEXTS = (".md", ".csv", ".tex")


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
    targets = check_targets(out, TEXTS)
    names = name_rows(scores, labels, "scores")
    chosen = TABLES[paper]
    runs = [run_of(name, _read_scores(path), chosen) for name, path in zip(names, scores, strict=True)]
    text = to_markdown(chosen, paper, runs)
    forms = {".md": text, ".csv": to_csv(chosen, runs), ".tex": to_latex(chosen, paper, runs)}
    for target in targets:
        write_text(forms[check_suffix(target, TEXTS)], target)
    return text


def check_targets(out: Path | Sequence[Path], suffixes: tuple[str, ...]) -> list[Path]:
    """The files to write, each with an ending that is among the suffixes and in a folder that can be written."""
    targets = [out] if isinstance(out, Path) else list(out)
    for target in targets:
        writable(target, suffixes)
    return targets


def name_rows(paths: Sequence[Path], labels: Sequence[str], what: str) -> list[str]:
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
