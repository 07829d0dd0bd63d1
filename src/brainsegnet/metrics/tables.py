"""Tables as Markdown, in columns that line up as plain text too.

Scores as CSV, JSON, Markdown and on the console: case by case, then mean, deviation and interval over all cases.

CSV and JSON hold every score, the console a choice. Every table for reading says which label convention was used, how
often a mask was empty, and by which rules surfaces and lesions were compared.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from brainsegnet.metrics.scores import EMPTY_KINDS, EMPTY_RULE, METRICS, USUAL_RULES, ScoreRules
from brainsegnet.metrics.statistics import INTERVAL_RULE
from brainsegnet.metrics.summary import Cases, Summary, summarise
from brainsegnet.task import Task

if TYPE_CHECKING:
    from rich.table import Table

_LEFT = {"Case", "Region", "Metric", "Model", "Models"}
"""Headings of columns of words; figures stand at the right."""


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns are as wide as their widest cell.

    >>> print(markdown_table(["Region", "Dice"], [["whole", "0.861"], ["core", "0.7"]]))
    | Region |  Dice |
    | ------ | ----: |
    | whole  | 0.861 |
    | core   |   0.7 |
    """
    cells = [[cell.replace("|", r"\|") for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    words = [heading in _LEFT for heading in headings]
    rule = ["-" * width if word else "-" * (width - 1) + ":" for width, word in zip(widths, words, strict=True)]
    lines = [
        [c.ljust(width) if word else c.rjust(width) for c, width, word in zip(row, widths, words, strict=True)]
        for row in cells
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


Groups = Mapping[str, Mapping[str, Mapping[str, float]]]

_COLUMNS = {
    "dice": ("Dice", 3),
    "sensitivity": ("Sens.", 3),
    "specificity": ("Spec.", 4),
    "precision": ("Prec.", 3),
    "hd95_mm": ("HD95", 2),
    "assd_mm": ("ASSD", 2),
    "surface_dice": ("SDice", 3),
    "lesion_dice": ("LDice", 3),
    "lesion_f1": ("LF1", 3),
    "lesions_found": ("Found", 1),
    "lesions_missed": ("Missed", 1),
    "lesions_invented": ("Invented", 1),
    "volume_error_ml": ("Err. ml", 2),
    "predicted_volume_ml": ("Pred. ml", 2),
    "true_volume_ml": ("True ml", 2),
}
"""Metric to heading and decimals, where the table is for reading; Markdown shows them all."""

_ON_CONSOLE = (
    "dice",
    "sensitivity",
    "specificity",
    "precision",
    "hd95_mm",
    "surface_dice",
    "lesion_f1",
    "volume_error_ml",
)
_NAMED = 20
"""Cases that a sentence names; the JSON names all."""
_ABBREVIATIONS = (
    "HD95 and ASSD (average symmetric surface distance) in mm; SDice: surface Dice; LDice, LF1: Dice and F1 by lesion; "
    "Err.: predicted less true volume."
)


def to_csv(cases: Cases, task: Task) -> str:
    """A row for each case and region in full precision, then the rows of all cases together for each region.

    Those are `mean`, `sd` and, from three cases up, `ci95_low` and `ci95_high`. The column `labels` holds the label
    values of the region, `empty` which mask was empty (in the row `mean`: how many cases of each kind).

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
        for name, rows in (("sd", summary.sd), ("ci95_low", summary.low), ("ci95_high", summary.high)):
            if region in rows:
                writer.writerow([name, *_convention(task, region), *_figures(rows[region]), ""])
    return text.getvalue()


def to_json(cases: Cases, task: Task, rules: ScoreRules = USUAL_RULES, unpredicted: Sequence[str] = ()) -> str:
    """All scores in full precision, for scripts.

    Keys: `task`, `convention` (label value to tissue), `regions` (to label values), `cases`, `mean`, `sd`, `interval`
    (region to metric to the ends of the 95 % interval of the mean; empty for fewer than three cases), `empty` (region
    to counts by kind), `lesions` (region to counts over all cases), `rules` (as figures) and the rules in words:
    `empty_rule`, `interval_rule`, `surface_rule`, `lesion_rule`; `unpredicted` (names of cases).

    Args:
        cases: Case name to region to score.
        task: The task they were scored in.
        rules: The rules they were scored by.
        unpredicted: Cases of the truth that have no prediction.

    Raises:
        DatasetError: there is no case, or a case lacks a region.
    """
    summary = summarise(cases)
    surface_rule, lesion_rule = rules.describe()
    document = {
        "task": task.name,
        "convention": {str(value): tissue for value, tissue in task.labels.items()},
        "regions": {region: list(values) for region, values in task.regions.items()},
        "cases": {name: {region: asdict(score) for region, score in scores.items()} for name, scores in cases.items()},
        "mean": summary.mean,
        "sd": summary.sd,
        "interval": {r: {m: [low[m], summary.high[r][m]] for m in METRICS} for r, low in summary.low.items()},
        "empty": summary.empty,
        "lesions": summary.lesions,
        "rules": asdict(rules),
        "empty_rule": EMPTY_RULE,
        "interval_rule": INTERVAL_RULE,
        "surface_rule": surface_rule,
        "lesion_rule": lesion_rule,
        "unpredicted": list(unpredicted),
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(cases: Cases, task: Task, rules: ScoreRules = USUAL_RULES, unpredicted: Sequence[str] = ()) -> str:
    """Tables of means and of their intervals, notes on convention, empty masks and rules, and a table of all cases.

    Args:
        cases: Case name to region to score.
        task: The task they were scored in.
        rules: The rules they were scored by.
        unpredicted: Cases of the truth that have no prediction.

    Raises:
        DatasetError: there is no case, or a case lacks a region.
    """
    summary, lone = summarise(cases), describe_unpredicted(unpredicted)
    headings = _headings(_COLUMNS)
    means = [[r, *_joined(mean, summary.sd[r], " ± ")] for r, mean in summary.mean.items()]
    intervals = [[r, *_joined(low, summary.high[r], " to ")] for r, low in summary.low.items()]
    singles = [[name, r, *_rounded(asdict(s), _COLUMNS)] for name, scores in cases.items() for r, s in scores.items()]
    parts = [
        f"## Mean ± standard deviation over {_number(summary.cases)}",
        markdown_table(["Region", *headings], means),
    ]
    if intervals:
        parts += ["## 95 % intervals of the means", markdown_table(["Region", *headings], intervals)]
    parts += ["\n".join(f"- {note}" for note in (*_notes(summary, task, rules), *lone))]
    parts += ["## Case by case", markdown_table(["Case", "Region", *headings], singles)]
    return "\n\n".join(parts) + "\n"


def describe_unpredicted(names: Sequence[str]) -> list[str]:
    """A sentence on the cases of the truth that have no prediction, if there are any.

    >>> describe_unpredicted(["pat1", "pat2"])
    ['2 cases of the truth have no prediction and are not in these scores: pat1, pat2.']
    """
    if not names:
        return []
    few = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    what = (
        "case of the truth has no prediction and is"
        if len(names) == 1
        else "cases of the truth have no prediction and are"
    )
    return [f"{len(names)} {what} not in these scores: {few}."]


def to_rich(cases: Cases, task: Task, per_case: bool = True, rules: ScoreRules = USUAL_RULES) -> "Table":
    """A table for the console: the cases if wanted, then mean, deviation and interval; 80 columns are enough.

    Args:
        cases: Case name to region to score.
        task: The task they were scored in.
        per_case: Whether to list the cases or the means alone.
        rules: The rules they were scored by.

    Raises:
        DatasetError: there is no case, or a case lacks a region.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    summary = summarise(cases)
    notes = "\n".join(map(escape, _notes(summary, task, rules)))
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, caption=notes, caption_justify="left")
    table.add_column("Case, region", overflow="fold")
    for heading in _headings(_ON_CONSOLE):
        table.add_column(heading, justify="right", no_wrap=True)
    means: Groups = {f"Mean of {_number(summary.cases)}": summary.mean, "Standard deviation": summary.sd}
    if summary.low:
        means = {**means, "Mean, 95 % from": summary.low, "Mean, 95 % to": summary.high}
    singles: Groups = {name: {r: asdict(s) for r, s in scores.items()} for name, scores in cases.items()}
    for groups, style in ((singles if per_case else {}, ""), (means, "bold")):
        for name, regions in groups.items():
            table.add_row(escape(name), style=style)
            for region, row in regions.items():
                last = region == list(regions)[-1]
                table.add_row(f"  {escape(region)}", *_rounded(row, _ON_CONSOLE), style=style, end_section=last)
    return table


def find_interval(scores: Mapping[str, Any], region: str, metric: str) -> tuple[float, float] | None:
    """The 95 % interval of a mean in a `scores.json`, where it holds one.

    >>> find_interval({"interval": {"whole": {"dice": [0.8, 0.9]}}}, "whole", "dice")
    (0.8, 0.9)
    """
    ends = scores.get("interval", {}).get(region, {}).get(metric)
    return (float(ends[0]), float(ends[1])) if ends else None


def _figures(row: Mapping[str, float]) -> list[float]:
    return [row[metric] for metric in METRICS]


def _convention(task: Task, region: str) -> tuple[str, str, str]:
    return task.name, region, "+".join(map(str, task.regions[region]))


def _counts(summary: Summary, region: str) -> str:
    return ", ".join(f"{kind} {summary.empty[region][kind]}" for kind in EMPTY_KINDS)


def _lesions(summary: Summary, region: str) -> str:
    return ", ".join(f"{count} {name.removeprefix('lesions_')}" for name, count in summary.lesions[region].items())


def _number(cases: int) -> str:
    return f"{cases} case" if cases == 1 else f"{cases} cases"


def _headings(metrics: Iterable[str]) -> list[str]:
    return [_COLUMNS[metric][0] for metric in metrics]


def _rounded(row: Mapping[str, float], metrics: Iterable[str]) -> list[str]:
    """As text; a count of a single case without decimals, unlike the mean of counts."""
    return [f"{row[m]:d}" if isinstance(row[m], int) else f"{row[m]:.{_COLUMNS[m][1]}f}" for m in metrics]


def _joined(first: Mapping[str, float], second: Mapping[str, float], word: str) -> list[str]:
    return [f"{a}{word}{b}" for a, b in zip(_rounded(first, _COLUMNS), _rounded(second, _COLUMNS), strict=True)]


def _notes(summary: Summary, task: Task, rules: ScoreRules) -> list[str]:
    tissues = ", ".join(f"{value} {tissue}" for value, tissue in task.labels.items())
    regions = "; ".join(f"{region} = {' + '.join(map(str, values))}" for region, values in task.regions.items())
    counts = "; ".join(f"{region}: {_counts(summary, region)}" for region in summary.empty)
    lesions = "; ".join(f"{region}: {_lesions(summary, region)}" for region in summary.lesions)
    return [
        f"Labels of {task.name}: {tissues}. Regions: {regions}.",
        EMPTY_RULE,
        f"Empty masks: {counts}.",
        _ABBREVIATIONS,
        *rules.describe(),
        f"Lesions: {lesions}.",
        *([INTERVAL_RULE] if summary.low else []),
    ]
