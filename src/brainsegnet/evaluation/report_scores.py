"""The parts of a report that show scores, from what `evaluate` writes into `scores.json`."""

from collections.abc import Mapping, Sequence
from typing import Any

from brainsegnet.evaluation.paper_tables import find_interval
from brainsegnet.evaluation.report import Cell, Section, table, tiles
from brainsegnet.evaluation.strip_plot import scale_for, strip_plot

Scores = Mapping[str, Any]

HEADINGS: Mapping[str, tuple[str, int]] = {
    "dice": ("Dice", 3),
    "sensitivity": ("Sensitivity", 3),
    "specificity": ("Specificity", 4),
    "precision": ("Precision", 3),
    "hd95_mm": ("HD95, mm", 2),
    "assd_mm": ("Mean surface distance, mm", 2),
    "surface_dice": ("Surface Dice", 3),
    "lesion_dice": ("Dice by lesion", 3),
    "lesion_f1": ("F1 by lesion", 3),
    "lesions_found": ("Lesions found", 1),
    "lesions_missed": ("Lesions missed", 1),
    "lesions_invented": ("Lesions invented", 1),
    "volume_error_ml": ("Volume error, ml", 2),
    "relative_volume_error": ("Relative volume error", 3),
    "predicted_volume_ml": ("Predicted, ml", 2),
    "true_volume_ml": ("True, ml", 2),
}
"""Metric to heading and decimals; one that is not here is shown under its own name."""
_RATIOS = {"dice", "sensitivity", "specificity", "precision", "surface_dice", "lesion_dice", "lesion_f1"}
_DRAWN = ("dice", "sensitivity", "precision", "hd95_mm", "surface_dice", "lesion_f1", "volume_error_ml")
_LISTED = ("dice", "sensitivity", "precision", "hd95_mm", "lesion_f1", "predicted_volume_ml", "true_volume_ml")


def summary_sections(scores: Scores) -> list[Section]:
    """Mean Dice at a glance, all means, and the distributions."""
    return [
        Section("Dice at a glance", tiles([_tile(scores, region) for region in scores["mean"]]), [_count(scores)]),
        Section("Scores", _means(scores), _notes(scores)),
        Section("Distributions", _plots(scores), [_PLOT_NOTE]),
    ]


def case_section(scores: Scores) -> Section:
    """Every case and region."""
    first = next(iter(scores["mean"].values()))
    metrics = [metric for metric in _LISTED if metric in first]
    rows = [
        [name if place == 0 else "", region, *(_figure(metric, score[metric]) for metric in metrics)]
        for name, regions in scores["cases"].items()
        for place, (region, score) in enumerate(regions.items())
    ]
    return Section("Case by case", table(["Case", "Region", *map(heading, metrics)], rows, words=2))


def worst_cases(scores: Scores, count: int) -> list[str]:
    """The cases of the lowest mean Dice over the regions, worst first; those of one score by name.

    >>> document = {"cases": {"a": {"whole": {"dice": 0.9}}, "b": {"whole": {"dice": 0.2}}}}
    >>> worst_cases(document, 1)
    ['b']
    """
    means = {name: mean_dice(regions) for name, regions in scores["cases"].items()}
    return sorted(means, key=lambda name: (means[name], name))[: max(0, count)]


def mean_dice(regions: Mapping[str, Mapping[str, float]]) -> float:
    """Mean Dice of a case over its regions."""
    return sum(score["dice"] for score in regions.values()) / len(regions)


def heading(metric: str) -> str:
    """The name of a metric in words."""
    return HEADINGS.get(metric, (metric.replace("_", " ").capitalize(), 3))[0]


def _figure(metric: str, value: float) -> str:
    return f"{value:.{HEADINGS.get(metric, (metric, 3))[1]}f}"


_PLOT_NOTE = (
    "Each dot is a case; its name shows under the pointer. Box: quartiles and median, from five cases on. "
    "Diamond: mean; the line through it is the 95 % interval of the mean, where there are cases enough for one."
)


def _tile(scores: Scores, region: str) -> tuple[str, str, str]:
    mean, sd = scores["mean"][region]["dice"], scores["sd"][region]["dice"]
    ends = find_interval(scores, region, "dice")
    spread = f"± {sd:.3f}" if len(scores["cases"]) > 1 else "one case"
    return region, f"{mean:.3f}", spread + (f", 95 % interval {ends[0]:.3f} to {ends[1]:.3f}" if ends else "")


def _count(scores: Scores) -> str:
    count = len(scores["cases"])
    return f"Mean Dice ± standard deviation over {count} {'case' if count == 1 else 'cases'}."


def _means(scores: Scores) -> str:
    """A row for each metric, a column for each region."""
    regions = list(scores["mean"])
    rows = []
    for metric in scores["mean"][regions[0]]:
        cells: list[Cell] = [heading(metric)]
        for region in regions:
            mean, sd = (_figure(metric, scores[part][region][metric]) for part in ("mean", "sd"))
            ends = find_interval(scores, region, metric)
            between = f"{_figure(metric, ends[0])} to {_figure(metric, ends[1])}" if ends else ""
            cells.append((f"{mean} ± {sd}", between))
        rows.append(cells)
    known = any(find_interval(scores, region, "dice") for region in regions)
    return table([f"Mean ± standard deviation{', 95 % interval' if known else ''}", *regions], rows)


def _notes(scores: Scores) -> list[str]:
    labels = ", ".join(f"{value} {tissue}" for value, tissue in scores["convention"].items())
    regions = "; ".join(f"{region} = {' + '.join(map(str, v))}" for region, v in scores["regions"].items())
    empty = "; ".join(f"{r}: {', '.join(f'{k} {n}' for k, n in kinds.items())}" for r, kinds in scores["empty"].items())
    rules = [str(scores[key]) for key in scores if key.endswith("_rule")]
    return [f"Labels of {scores['task']}: {labels}. Regions: {regions}.", *rules, f"Empty masks: {empty}."]


def _plots(scores: Scores) -> str:
    regions = list(scores["mean"])
    drawn = [metric for metric in _DRAWN if metric in scores["mean"][regions[0]]]
    return f'<div class="plots">\n{"".join(_plot(scores, regions, metric) for metric in drawn)}</div>\n'


def _plot(scores: Scores, regions: Sequence[str], metric: str) -> str:
    values = {r: {name: float(case[r][metric]) for name, case in scores["cases"].items()} for r in regions}
    limits = scale_for([v for cases in values.values() for v in cases.values()], metric in _RATIOS)
    intervals = {region: find_interval(scores, region, metric) for region in regions}
    return f"<div>\n<h3>{heading(metric)}</h3>\n{strip_plot(values, limits, intervals)}</div>\n"
