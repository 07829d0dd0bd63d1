"""Tables of an `Evaluation`: CSV with every score, Markdown for reading, and a selection for the console.

Tables for reading also name the label convention, the number of empty masks and the rules.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from brainsegnet.metrics.evaluation import Evaluation
from brainsegnet.metrics.scores import EMPTY_RULE, METRICS, to_dicts
from brainsegnet.metrics.statistics import INTERVAL_RULE, Summary, summarise
from brainsegnet.metrics.table import Cell, Column, Estimate, Span, Table, count_cases, number_columns, text_columns
from brainsegnet.task import Task

COLUMNS = {
    "dice": Column("Dice"),
    "sensitivity": Column("Sens."),
    "specificity": Column("Spec.", ".4f"),
    "precision": Column("Prec."),
    "hd95_mm": Column("HD95", ".2f"),
    "assd_mm": Column("ASSD", ".2f"),
    "surface_dice": Column("SDice"),
    "lesion_dice": Column("LDice"),
    "lesion_f1": Column("LF1"),
    "lesions_found": Column("Found", ".1f"),
    "lesions_missed": Column("Missed", ".1f"),
    "lesions_invented": Column("Invented", ".1f"),
    "volume_error_ml": Column("Err. ml", ".2f"),
    "predicted_volume_ml": Column("Pred. ml", ".2f"),
    "true_volume_ml": Column("True ml", ".2f"),
}
"""Metric to its column in tables for reading; Markdown shows all of them."""
_ON_CONSOLE = "dice sensitivity specificity precision hd95_mm surface_dice lesion_f1 volume_error_ml".split()
_NAMED = 20
"""Number of cases that a sentence names; the JSON names all."""
_ABBREVIATIONS = (
    "HD95 and ASSD (average symmetric surface distance) in mm; SDice: surface Dice; LDice, LF1: Dice and F1 by lesion; "
    "Err.: predicted less true volume."
)


def full_table(evaluation: Evaluation) -> Table:
    """All scores of each case and region, then those of all cases together for each region, for CSV.

    The rows of all cases are `mean`, `sd` and, with three or more cases, `ci95_low` and `ci95_high`. If the model was
    trained on some cases, these rows are of the unseen ones, and `mean_all` is of all. The column `labels` holds the
    label values of the region. The column `empty` says which mask was empty; in the row `mean`, how many cases of each
    kind there are. The column `trained_on` is `yes` where the model was trained on the case.

    Raises:
        DatasetError: there is no case, or a case lacks a region. The functions below raise it too.
    """
    summary, task, rows = summarise(evaluation.headline), evaluation.task, list[list[Cell]]()
    seen = evaluation.familiarity.seen

    def add(
        case: str, region: str, row: Mapping[str, Any], empty: str | None = None, trained: str | None = None
    ) -> None:
        labels = "+".join(map(str, task.regions[region]))
        rows.append([case, task.name, region, labels, *(row[metric] for metric in METRICS), empty, trained])

    for name, regions in evaluation.scores.items():
        for region, score in regions.items():
            add(name, region, asdict(score), score.empty, "yes" if name in seen else None)
    for region, mean in summary.mean.items():
        add("mean", region, mean, _list_counts(summary.empty[region]))
        for name, spread in (("sd", summary.sd), ("ci95_low", summary.low), ("ci95_high", summary.high)):
            if region in spread:
                add(name, region, spread[region])
    for region, mean in summarise(evaluation.scores).mean.items() if evaluation.is_mixed else ():
        add("mean_all", region, mean)
    return Table(number_columns("case", "task", "region", "labels", *METRICS, "empty", "trained_on"), rows)


def reading_tables(evaluation: Evaluation) -> list[Table]:
    """Tables for Markdown: means of the headline, their intervals with notes, means of all cases, and all cases."""
    summary = summarise(evaluation.headline)
    intervals: list[list[Cell]] = [
        [region, *(Span(row[metric], summary.high[region][metric]) for metric in COLUMNS)]
        for region, row in summary.low.items()
    ]
    columns = [*text_columns("Region"), *(_column(metric, evaluation) for metric in COLUMNS)]
    tables = [Table(columns, _list_means(summary), f"Mean ± standard deviation over {count_headline(evaluation)}")]
    if intervals:
        tables.append(Table(columns, intervals, "95 % intervals of the means"))
    notes = [*evaluation.familiarity.remarks, *_describe(summary, evaluation)]
    tables[-1] = replace(tables[-1], notes=[*notes, *describe_unpredicted(evaluation.unpredicted)])
    if evaluation.is_mixed:
        every = summarise(evaluation.scores)
        tables.append(Table(columns, _list_means(every), describe_all(evaluation)))
    marked = {mark_seen(name, evaluation): regions for name, regions in to_dicts(evaluation.scores).items()}
    return [*tables, Table([*text_columns("Case"), *columns], _list_rows(marked, COLUMNS), "Case by case")]


def _column(metric: str, evaluation: Evaluation) -> Column:
    """The column of a metric, whose heading says so if HD95 is not the usual one."""
    pooled = metric == "hd95_mm" and evaluation.rules.hd95 == "pooled"
    return replace(COLUMNS[metric], heading="HD95 pooled") if pooled else COLUMNS[metric]


def describe_all(evaluation: Evaluation) -> str:
    """The heading of means over all cases, which says how many of them the model was trained on."""
    seen = len(evaluation.familiarity.seen)
    return f"Mean ± standard deviation over all {count_cases(len(evaluation.scores))}, {seen} of them training cases"


def mark_seen(name: str, evaluation: Evaluation) -> str:
    """The name of a case, with a mark if the model was trained on it and not on all cases."""
    return f"{name} (training)" if evaluation.is_mixed and name in evaluation.familiarity.seen else name


def _list_means(summary: Summary) -> list[list[Cell]]:
    return [
        [region, *(Estimate(row[metric], summary.sd[region][metric]) for metric in COLUMNS)]
        for region, row in summary.mean.items()
    ]


def count_headline(evaluation: Evaluation) -> str:
    """The number of cases of the headline, and what they are."""
    count = len(evaluation.headline)
    return f"{count} {evaluation.kind}{'' if count == 1 else 's'}"


def console_table(evaluation: Evaluation, per_case: bool = True) -> Table:
    """A table of 80 columns: the cases if wanted, then mean, standard deviation and interval."""
    summary = summarise(evaluation.headline)
    groups = {f"Mean of {count_headline(evaluation)}": summary.mean, "Standard deviation": summary.sd}
    if summary.low:
        groups |= {"Mean, 95 % from": summary.low, "Mean, 95 % to": summary.high}
    marked = {mark_seen(name, evaluation): regions for name, regions in to_dicts(evaluation.scores).items()}
    singles = _list_rows(marked if per_case else {}, _ON_CONSOLE)
    rows = singles + _list_rows(groups, _ON_CONSOLE)
    bold = range(len(singles), len(rows))
    if evaluation.is_mixed:
        every = summarise(evaluation.scores)
        rows += _list_rows({f"Mean of all {count_cases(every.cases)}": every.mean}, _ON_CONSOLE)
    columns = [*text_columns("Case", "Region"), *(_column(metric, evaluation) for metric in _ON_CONSOLE)]
    notes = [*evaluation.familiarity.remarks, *_describe(summary, evaluation)]
    return Table(columns, rows, notes=notes, grouped=True, bold_rows=bold)


def describe_unpredicted(names: Sequence[str]) -> list[str]:
    """A sentence about the true cases that have no prediction, if there are any."""
    if not names:
        return []
    few = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    have, are = ("case of the truth has", "is") if len(names) == 1 else ("cases of the truth have", "are")
    return [f"{len(names)} {have} no prediction and {are} not in these scores: {few}."]


def _list_rows(groups: Mapping[str, Mapping[str, Mapping[str, Any]]], metrics: Iterable[str]) -> list[list[Cell]]:
    """A row for each name and region."""
    metrics = list(metrics)
    return [[name, r, *(row[m] for m in metrics)] for name, regions in groups.items() for r, row in regions.items()]


def describe_convention(task: Task) -> str:
    """A sentence that says what the labels of a task mean, and which of them each region combines."""
    tissues = ", ".join(f"{value} {tissue}" for value, tissue in task.labels.items())
    regions = "; ".join(f"{region} = {' + '.join(map(str, values))}" for region, values in task.regions.items())
    return f"Labels of {task.name}: {tissues}. Regions: {regions}."


def describe_empty(summary: Summary) -> str:
    """A sentence that says how many masks of each region were empty."""
    return f"Empty masks: {'; '.join(f'{r}: {_list_counts(counts)}' for r, counts in summary.empty.items())}."


def _list_counts(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in counts.items())


def _describe(summary: Summary, evaluation: Evaluation) -> list[str]:
    lesions = []
    for region, counts in summary.lesions.items():
        found = ", ".join(f"{count} {name.removeprefix('lesions_')}" for name, count in counts.items())
        lesions.append(f"{region}: {found}")
    return [
        describe_convention(evaluation.task),
        EMPTY_RULE,
        describe_empty(summary),
        _ABBREVIATIONS,
        *evaluation.rules.describe().values(),
        f"Lesions: {'; '.join(lesions)}.",
        *([INTERVAL_RULE] if summary.low else []),
    ]
