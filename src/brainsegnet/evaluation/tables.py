"""Scores as CSV, JSON, Markdown and on the console: case by case, then mean and standard deviation over all cases.

Every table says which label convention was used and how often a mask was empty.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from brainsegnet.evaluation.metrics import EMPTY_KINDS, EMPTY_RULE, METRICS, RegionScore, Summary, summarise
from brainsegnet.task import Task

if TYPE_CHECKING:
    from rich.table import Table

Cases = Mapping[str, Mapping[str, RegionScore]]
Groups = Mapping[str, Mapping[str, Mapping[str, float]]]

_COLUMNS = {
    "dice": ("Dice", 3),
    "sensitivity": ("Sens.", 3),
    "specificity": ("Spec.", 4),
    "precision": ("Prec.", 3),
    "hd95_mm": ("HD95 mm", 2),
    "predicted_volume_ml": ("Pred. ml", 2),
    "true_volume_ml": ("True ml", 2),
}
"""Metric to heading and decimals, where the table is for reading."""


def to_csv(cases: Cases, task: Task) -> str:
    """A row for each case and region in full precision, then the rows `mean` and `sd` of each region.

    The column `labels` holds the label values of the region, `empty` which mask was empty (in the row `mean`: how many
    cases of each kind).

    Args:
        cases: Case name to region to score.
        task: The task they were scored in.

    Raises:
        DatasetError: there is no case, or a case lacks a region.
    """
    summary = summarise(cases)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "task", "region", "labels", *METRICS, "empty"])
    for name, scores in cases.items():
        for region, score in scores.items():
            writer.writerow([name, *_convention(task, region), *_figures(asdict(score)), score.empty or ""])
    for region in summary.mean:
        counts = _counts(summary, region)
        writer.writerow(["mean", *_convention(task, region), *_figures(summary.mean[region]), counts])
        writer.writerow(["sd", *_convention(task, region), *_figures(summary.sd[region]), ""])
    return text.getvalue()


def to_json(cases: Cases, task: Task) -> str:
    """All scores in full precision, for scripts.

    Keys: `task`, `convention` (label value to tissue), `regions` (to label values), `cases`, `mean`, `sd`, `empty`
    (region to counts by kind) and `empty_rule`.

    Args:
        cases: Case name to region to score.
        task: The task they were scored in.

    Raises:
        DatasetError: there is no case, or a case lacks a region.
    """
    summary = summarise(cases)
    document = {
        "task": task.name,
        "convention": {str(value): tissue for value, tissue in task.labels.items()},
        "regions": {region: list(values) for region, values in task.regions.items()},
        "cases": {name: {region: asdict(score) for region, score in scores.items()} for name, scores in cases.items()},
        "mean": summary.mean,
        "sd": summary.sd,
        "empty": summary.empty,
        "empty_rule": EMPTY_RULE,
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(cases: Cases, task: Task) -> str:
    """A table of means, notes on convention and empty masks, and a table of all cases.

    Args:
        cases: Case name to region to score.
        task: The task they were scored in.

    Raises:
        DatasetError: there is no case, or a case lacks a region.
    """
    summary = summarise(cases)
    means = _markdown_table(["Region", *_headings()], _mean_rows(summary))
    scores = _markdown_table(["Case", "Region", *_headings()], _case_rows(cases))
    notes = "\n".join(f"- {note}" for note in _notes(summary, task))
    parts = [f"## Mean ± standard deviation over {_number(summary.cases)}", means, notes, "## Case by case", scores]
    return "\n\n".join(parts) + "\n"


def to_rich(cases: Cases, task: Task, per_case: bool = True) -> "Table":
    """A table for the console: the cases if wanted, then mean and standard deviation; 80 columns are enough.

    Args:
        cases: Case name to region to score.
        task: The task they were scored in.
        per_case: Whether to list the cases or the means alone.

    Raises:
        DatasetError: there is no case, or a case lacks a region.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    summary = summarise(cases)
    notes = "\n".join(map(escape, _notes(summary, task)))
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, caption=notes, caption_justify="left")
    table.add_column("Case, region", overflow="fold")
    for heading in _headings():
        table.add_column(heading, justify="right", no_wrap=True)
    means: Groups = {f"Mean of {_number(summary.cases)}": summary.mean, "Standard deviation": summary.sd}
    singles: Groups = {name: {r: asdict(s) for r, s in scores.items()} for name, scores in cases.items()}
    for groups, style in ((singles if per_case else {}, ""), (means, "bold")):
        for name, regions in groups.items():
            table.add_row(escape(name), style=style)
            for region, row in regions.items():
                last = region == list(regions)[-1]
                table.add_row(f"  {escape(region)}", *_rounded(row), style=style, end_section=last)
    return table


def _figures(row: Mapping[str, float]) -> list[float]:
    return [row[metric] for metric in METRICS]


def _convention(task: Task, region: str) -> tuple[str, str, str]:
    return task.name, region, "+".join(map(str, task.regions[region]))


def _counts(summary: Summary, region: str) -> str:
    return ", ".join(f"{kind} {summary.empty[region][kind]}" for kind in EMPTY_KINDS)


def _number(cases: int) -> str:
    return f"{cases} case" if cases == 1 else f"{cases} cases"


def _headings() -> list[str]:
    return [_COLUMNS[metric][0] for metric in METRICS]


def _rounded(row: Mapping[str, float]) -> list[str]:
    return [f"{row[metric]:.{_COLUMNS[metric][1]}f}" for metric in METRICS]


def _case_rows(cases: Cases) -> list[list[str]]:
    return [
        [name, region, *_rounded(asdict(score))] for name, scores in cases.items() for region, score in scores.items()
    ]


def _mean_rows(summary: Summary) -> list[list[str]]:
    pairs = {
        region: zip(_rounded(mean), _rounded(summary.sd[region]), strict=True) for region, mean in summary.mean.items()
    }
    return [[region, *(f"{mean} ± {sd}" for mean, sd in pair)] for region, pair in pairs.items()]


def _notes(summary: Summary, task: Task) -> list[str]:
    tissues = ", ".join(f"{value} {tissue}" for value, tissue in task.labels.items())
    regions = "; ".join(f"{region} = {' + '.join(map(str, values))}" for region, values in task.regions.items())
    counts = "; ".join(f"{region}: {_counts(summary, region)}" for region in summary.empty)
    return [f"Labels of {task.name}: {tissues}. Regions: {regions}.", EMPTY_RULE, f"Empty masks: {counts}."]


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[cell.replace("|", r"\|") for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    words = [heading in {"Case", "Region"} for heading in headings]
    rule = ["-" * width if word else "-" * (width - 1) + ":" for width, word in zip(widths, words, strict=True)]
    lines = [
        [c.ljust(width) if word else c.rjust(width) for c, width, word in zip(row, widths, words, strict=True)]
        for row in cells
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))
