"""What a report says of the scores of predictions: means, distributions, the worst cases, and every case."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainsegnet.errors import BrainSegNetError, DatasetError
from brainsegnet.io.cases import CaseFiles, find_cases, load_case
from brainsegnet.io.predictions import read_prediction
from brainsegnet.metrics.evaluate import Evaluation, label_files
from brainsegnet.metrics.tables import describe_unpredicted, find_interval, to_json
from brainsegnet.plotting.charts import distribution_figure, point_titles
from brainsegnet.plotting.overlays import overlay_figure
from brainsegnet.plotting.render import inline_svg, render
from brainsegnet.preprocessing.alignment import Aligner
from brainsegnet.reporting.page import Cell, Charts, Picture, Section, Table, Tiles
from brainsegnet.task import Task

Scores = Mapping[str, Any]
"""What `evaluate` writes into `scores.json`."""

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
_PICTURE_DPI = 96
_CHART_NOTE = (
    "Each dot is a case; its name shows under the pointer. Box: quartiles and median, from five cases up. "
    "Diamond: mean; the line through it is the 95 % interval of the mean, where there are enough cases for one."
)


def score_sections(evaluation: Evaluation, predicted: Path, truth: Sequence[Path], worst: int) -> list[Section]:
    """All that is known of the scores, and `worst` pictures of the worst cases.

    Args:
        evaluation: Scores of the predictions.
        predicted: Where these lie.
        truth: Where the truths lie; the worst cases are drawn if their scans lie there too.
        worst: How many cases to show.
    """
    scores = json.loads(to_json(evaluation.scores, evaluation.task, evaluation.rules))
    first, *others = summary_sections(scores)
    lone = describe_unpredicted(evaluation.unpredicted)
    failed = Table(["Case", "Why"], [[name, why] for name, why in evaluation.failures.items()], words=2)
    return [
        first,
        *([Section("Cases without a prediction", notes=lone)] if lone else []),
        *([Section("Cases that could not be scored", [failed])] if failed.rows else []),
        *others,
        _worst_section(predicted, truth, evaluation.task, scores, worst),
        case_section(scores),
    ]


def summary_sections(scores: Scores) -> list[Section]:
    """Mean Dice at a glance, all means, and the distributions."""
    count = len(scores["cases"])
    over = f"Mean Dice ± standard deviation over {count} {'case' if count == 1 else 'cases'}."
    drawn = [metric for metric in _DRAWN if metric in next(iter(scores["mean"].values()))]
    return [
        Section("Dice at a glance", [Tiles([_tile(scores, region) for region in scores["mean"]])], [over]),
        Section("Scores", [_means(scores)], _notes(scores)),
        Section("Distributions", [Charts([_chart(scores, metric) for metric in drawn])], [_CHART_NOTE]),
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
    return Section("Case by case", [Table(["Case", "Region", *map(heading, metrics)], rows, words=2)])


def worst_cases(scores: Scores, count: int) -> list[str]:
    """The cases of the lowest mean Dice over the regions, worst first; those of one score by name.

    >>> document = {"cases": {"a": {"whole": {"dice": 0.9}}, "b": {"whole": {"dice": 0.2}}}}
    >>> worst_cases(document, 1)
    ['b']
    """
    means = {name: _mean_dice(regions) for name, regions in scores["cases"].items()}
    return sorted(means, key=lambda name: (means[name], name))[: max(0, count)]


def heading(metric: str) -> str:
    """The name of a metric in words."""
    return HEADINGS.get(metric, (metric.replace("_", " ").capitalize(), 3))[0]


def _figure(metric: str, value: float) -> str:
    return f"{value:.{HEADINGS.get(metric, (metric, 3))[1]}f}"


def _mean_dice(regions: Mapping[str, Mapping[str, float]]) -> float:
    return sum(score["dice"] for score in regions.values()) / len(regions)


def _tile(scores: Scores, region: str) -> tuple[str, str, str]:
    mean, sd = scores["mean"][region]["dice"], scores["sd"][region]["dice"]
    ends = find_interval(scores, region, "dice")
    spread = f"± {sd:.3f}" if len(scores["cases"]) > 1 else "one case"
    return region, f"{mean:.3f}", spread + (f", 95 % interval {ends[0]:.3f} to {ends[1]:.3f}" if ends else "")


def _means(scores: Scores) -> Table:
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
    return Table([f"Mean ± standard deviation{', 95 % interval' if known else ''}", *regions], rows)


def _notes(scores: Scores) -> list[str]:
    labels = ", ".join(f"{value} {tissue}" for value, tissue in scores["convention"].items())
    regions = "; ".join(f"{region} = {' + '.join(map(str, v))}" for region, v in scores["regions"].items())
    empty = "; ".join(f"{r}: {', '.join(f'{k} {n}' for k, n in kinds.items())}" for r, kinds in scores["empty"].items())
    rules = [str(scores[key]) for key in scores if key.endswith("_rule")]
    return [f"Labels of {scores['task']}: {labels}. Regions: {regions}.", *rules, f"Empty masks: {empty}."]


def _chart(scores: Scores, metric: str) -> tuple[str, str]:
    """Heading and drawing of the distribution of a metric, a row for each region."""
    regions, cases = list(scores["mean"]), scores["cases"]
    values = {region: {name: float(case[region][metric]) for name, case in cases.items()} for region in regions}
    intervals = {region: find_interval(scores, region, metric) for region in regions}
    figure = distribution_figure(values, metric in _RATIOS, intervals)
    return heading(metric), inline_svg(figure, metric, f"Distribution of {heading(metric)}", point_titles(values))


def _worst_section(predicted: Path, truth: Sequence[Path], task: Task, scores: Scores, count: int) -> Section:
    """The worst cases, drawn where the truth is given with its scans."""
    scans, files = _find_scans(truth), label_files(predicted)
    parts, rank = [], worst_cases(scores, count)
    for name in rank:
        regions = scores["cases"][name]
        dices = ", ".join(f"{region} {score['dice']:.3f}" for region, score in regions.items())
        drawn = _draw(scans[name], files[name], task) if name in scans and name in files else None
        line = f"mean Dice {_mean_dice(regions):.3f} ({dices})"
        parts.append(Picture(drawn, f"Prediction and truth of {name}", name, line))
    why = f"The {len(rank)} of {len(scores['cases'])} cases with the lowest mean Dice over the regions, worst first."
    undrawn = ["Pictures need the scans: name folders of cases as the truth."] if not scans else []
    return Section("Worst cases", parts, [why, *undrawn])


def _find_scans(truth: Sequence[Path]) -> dict[str, CaseFiles]:
    try:
        return {case.name: case for case in find_cases(truth) if case.lesion}
    except DatasetError:
        return {}


def _draw(files: CaseFiles, predicted: Path, task: Task) -> bytes | None:
    """A case as a PNG, or None where its scans do not fit its prediction."""
    try:
        case = load_case(files, task.sequences, task, lesion=True, allow_missing=True, align=Aligner(files.name))
        names = [name for name in ("flair", "t1c", "t2") if name in case.images] or list(case.images)[:3]
        labels = read_prediction(predicted, task, files.name).array
        return render(overlay_figure(case, labels, task, names, "slice"), "png", _PICTURE_DPI)
    except BrainSegNetError:
        return None
