"""`table`: the paper's Tables 1 and 2 with your rows below, as Markdown, CSV and LaTeX.

The published rows hold the values that the text of the paper states. The tables themselves are not part of that text. A
value that the text does not state is left open. Add values from the printed page to `cells`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from brainsegnet._atomic import check_suffix, writable, write_text
from brainsegnet.errors import DatasetError, TaskError
from brainsegnet.metrics.score_file import SCORES, ScoreFile, read_scores
from brainsegnet.metrics.table import Cell, Column, Estimate, Span, Table, count_cases, number_columns, text_columns

SOURCE = "Hu et al., Brain SegNet, BMC Medical Imaging 20:17, 2020"
TEXTS = (".md", ".csv", ".tex")
OPEN, OURS = "\u2013", "ours"
_LISTED = 8
"""Cases that a note names; of more it names the first, and how many follow."""

Number = Literal[1, 2]
Key = tuple[str, str]
"""Metric and region of a column."""


@dataclass(frozen=True)
class PublishedRow:
    """A row of a table of the paper: a method, and its means over the test set that the text states, if any."""

    method: str
    cells: Mapping[Key, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        caption: Caption of the table.
        metrics: Metric to the heading of its columns.
        regions: Regions of the columns. An empty name is the only region of a task.
        rows: The published rows.
        cohort: The cases over which the rows are means.
        section: Section of the paper that states the values.
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


@dataclass(frozen=True)
class OurRow:
    """Means over cases with a known truth, shown below the rows of the paper.

    Attributes:
        label: Name of the row.
        task: Name of the task in which the cases were scored.
        cases: Names of the cases.
        estimates: (Metric, region) to mean, standard deviation and, if computed, the 95 % interval.
    """

    label: str
    task: str
    cases: Sequence[str]
    estimates: Mapping[Key, Estimate]


def table(scores: Sequence[Path], paper: Number, out: Path | Sequence[Path] = (), labels: Sequence[str] = ()) -> str:
    """Put scores below the rows of the paper's Table 1 (BRATS 2015) or Table 2 (ISLES 2017).

    Args:
        scores: Each `scores.json` of `evaluate`, or the folder that holds it; one row each.
        paper: Number of the table: 1 is BRATS 2015, 2 is ISLES 2017.
        out: Files to write, in the format of their endings: .md, .csv or .tex.
        labels: Names of the rows; by default those of the folders.

    Returns:
        The table in Markdown.

    Raises:
        DatasetError: a file holds no scores, or scores of other regions.
        TaskError: the paper has no such table.
        OutputError: a file cannot be written.
    """
    if paper not in TABLES:
        raise TaskError(f"the paper has a Table 1 and a Table 2, not {paper}")
    targets = check_targets(out, TEXTS)
    names = name_rows(scores, labels, "scores")
    published = TABLES[paper]
    files = [read_scores(path / SCORES if path.is_dir() else path) for path in scores]
    ours = [make_row(name, file, published) for name, file in zip(names, files, strict=True)]
    made = reading_table(published, ours)
    text = replace(made, title=f"Table {paper}. {published.caption}").to_markdown()
    latex = replace(made, title=f"{published.caption}. The paper's Table {paper} and ours.").to_latex()
    forms = {".md": text, ".csv": full_table(published, ours).to_csv(), ".tex": latex}
    for target in targets:
        write_text(forms[check_suffix(target, TEXTS)], target)
    return text


def make_row(label: str, scores: ScoreFile, published: PaperTable) -> OurRow:
    """A row from what `evaluate` wrote into `scores.json`.

    Raises:
        DatasetError: it has not the regions or metrics of the table.
    """
    regions, estimates = _match_regions(label, list(scores.mean), published), {}
    for metric, region in published.keys:
        name = regions[region]
        try:
            mean, sd = scores.mean[name][metric], scores.sd[name][metric]
        except KeyError as error:
            raise DatasetError(f"scores {label} lack {error}; write them again: brainsegnet evaluate --out") from error
        estimates[metric, region] = Estimate(mean, sd, scores.interval.get(name, {}).get(metric))
    return OurRow(label, scores.task, list(scores.mean_of or scores.cases), estimates)


def reading_table(published: PaperTable, ours: Sequence[OurRow]) -> Table:
    """The rows of the paper and the given rows, with two decimals, and notes that say what the rows are means over."""
    rows: list[list[Cell]] = [
        [row.method, "paper", *(row.cells.get(key) for key in published.keys)] for row in published.rows
    ]
    for row in ours:
        sd = len(row.cases) > 1
        rows.append([row.label, OURS, *(Estimate(e.mean, e.sd if sd else None) for e in row.estimates.values())])
        if any(e.interval for e in row.estimates.values()):
            ends = (e.interval and Span(*e.interval) for e in row.estimates.values())
            rows.append([f"{row.label}, 95 % interval", OURS, *ends])
    columns = [*text_columns("Method", "Source"), *(_make_column(published, *key) for key in published.keys)]
    return Table(columns, rows, notes=_describe(published, ours), missing=OPEN, ruled_rows=[len(published.rows) - 1])


def full_table(published: PaperTable, ours: Sequence[OurRow]) -> Table:
    """A row for each method and column in full precision, for CSV; empty where the paper's text states nothing."""
    rows: list[list[Cell]] = [
        [row.method, SOURCE, published.cohort, *key, row.cells.get(key), None, None, None]
        for row in published.rows
        for key in published.keys
    ]
    for row in ours:
        for key, e in row.estimates.items():
            rows.append([row.label, OURS, " ".join(row.cases), *key, e.mean, e.sd, *(e.interval or (None, None))])
    headings = "method source cases metric region mean sd low_95 high_95"
    return Table(number_columns(*headings.split()), rows)


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


def _make_column(published: PaperTable, metric: str, region: str) -> Column:
    """The paper's two decimals, but three for a specificity, which is nearly 1."""
    name, form = published.metrics[metric], ".3f" if metric == "specificity" else ".2f"
    return Column(region, form, group=name) if region else Column(name, form)


def _describe(published: PaperTable, ours: Sequence[OurRow]) -> list[str]:
    """What the rows are means over, and what they must not be taken for."""
    notes = [
        f"Paper: {SOURCE}, section {published.section}; means over {published.cohort}. "
        f"{OPEN}: not stated in the text of the paper, from which its rows are taken."
    ]
    for row in ours:
        more = f" and {len(row.cases) - _LISTED} more" if len(row.cases) > _LISTED else ""
        over = f"{count_cases(len(row.cases))} of task {row.task}"
        notes.append(
            f"{row.label} (ours): mean ± standard deviation over {over} whose truth is known, not the test set of the "
            f"challenge: {', '.join(row.cases[:_LISTED])}{more}."
        )
    return notes


def _match_regions(label: str, found: Sequence[str], published: PaperTable) -> dict[str, str]:
    """Region of the table to region of the scores; a table of one region takes the only one there is."""
    if published.regions == ("",) and len(found) == 1:
        return {"": found[0]}
    if published.regions != ("",) and set(published.regions) <= set(found):
        return {region: region for region in published.regions}
    wanted = ", ".join(published.regions) if published.regions != ("",) else "a single region"
    raise DatasetError(
        f"scores {label} are of {', '.join(found) or 'no region'}, but this table wants {wanted}; "
        f"choose --number {2 if published is TABLE_1 else 1}, or scores of another task"
    )
