"""The sections of a report as data, those on the scores of predictions, and the page of HTML that they become.

`report.html.j2` writes the page: well-formed XML too, with its pictures and styles inside, and neither scripts nor
addresses of anything outside.
"""

import base64
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from brainsegnet.errors import BrainSegNetError, DatasetError
from brainsegnet.io.cases import CaseFiles, load_case, read_prediction, search_cases
from brainsegnet.metrics.evaluation import Evaluation
from brainsegnet.metrics.pairs import search_label_files
from brainsegnet.metrics.score_tables import (
    COLUMNS,
    count_headline,
    describe_all,
    describe_convention,
    describe_empty,
    describe_unpredicted,
    mark_seen,
)
from brainsegnet.metrics.scores import EMPTY_RULE, METRICS, CaseScores, RegionScore
from brainsegnet.metrics.statistics import INTERVAL_RULE, Summary, summarise
from brainsegnet.metrics.table import Cell, Column, Estimate, Table, number_columns, text_columns
from brainsegnet.plotting.charts import distribution_figure, point_titles
from brainsegnet.plotting.overlays import overlay_figure
from brainsegnet.plotting.slices import inline_svg, render
from brainsegnet.plotting.viewer import Shown, show
from brainsegnet.preprocessing.alignment import Aligner
from brainsegnet.task import Task
from brainsegnet.volume import Case, LabelMap

_NAMES: Mapping[str, str] = {
    "hd95_mm": "HD95, mm",
    "assd_mm": "Mean surface distance, mm",
    "surface_dice": "Surface Dice",
    "lesion_dice": "Dice by lesion",
    "lesion_f1": "F1 by lesion",
    "volume_error_ml": "Volume error, ml",
    "predicted_volume_ml": "Predicted, ml",
    "true_volume_ml": "True, ml",
}
"""Metric to what it is called, where that is not its name in the code."""
_RATIOS = {"dice", "sensitivity", "specificity", "precision", "surface_dice", "lesion_dice", "lesion_f1"}
_DRAWN = ("dice", "sensitivity", "precision", "hd95_mm", "surface_dice", "lesion_f1", "volume_error_ml")
_LISTED = ("dice", "sensitivity", "precision", "hd95_mm", "lesion_f1", "predicted_volume_ml", "true_volume_ml")
_CHART_NOTE = (
    "Each dot is a case; its name shows under the pointer. Box: quartiles and median, from five cases up. "
    "Diamond: mean; the line through it is the 95 % interval of the mean, where there are enough cases for one."
)


@dataclass(frozen=True)
class Tiles:
    """Large numbers side by side, each with a name above and a line below."""

    rows: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Facts:
    """Names and values, below a heading if there is one."""

    rows: Sequence[tuple[str, str]]
    heading: str = ""


@dataclass(frozen=True)
class Listing:
    """Commands as they are typed."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Charts:
    """Drawings of `inline_svg` side by side, each with a heading that may be empty."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Picture:
    """A PNG, if there is one, what it shows for readers who do not see it, and a name and a line below."""

    png: bytes | None
    alternative: str
    name: str
    line: str

    @property
    def source(self) -> str:
        """The PNG as an address that holds it."""
        return f"data:image/png;base64,{base64.b64encode(self.png or b'').decode('ascii')}"


@dataclass(frozen=True)
class Scrolled:
    """A page to scroll through a case, which opens on a click: its name, and the page as HTML."""

    name: str
    html: str


SectionPart = Table | Tiles | Facts | Listing | Charts | Picture | Scrolled


@dataclass(frozen=True)
class Section:
    """A titled part of the page, with fainter sentences below."""

    title: str
    parts: Sequence[SectionPart] = ()
    notes: Sequence[str] = ()


def score_sections(
    evaluation: Evaluation, predicted: Path, truth: Sequence[Path], worst: int, viewer: bool = False
) -> list[Section]:
    """All that is known of the scores, and the `worst` cases, drawn if their scans lie beside the truths.

    With `viewer`, these can be scrolled through too.
    """
    first, *others = summary_sections(evaluation)
    lone = describe_unpredicted(evaluation.unpredicted)
    failed = Table(text_columns("Case", "Why"), list(evaluation.failures.items()))
    return [
        first,
        *([Section("Cases without a prediction", notes=lone)] if lone else []),
        *([Section("Cases that could not be scored", [failed])] if evaluation.failures else []),
        *others,
        _worst_section(evaluation, predicted, truth, worst, viewer),
        case_section(evaluation),
    ]


def summary_sections(evaluation: Evaluation) -> list[Section]:
    """Mean Dice at a glance, all means, and the distributions. Cases that the model was trained on stand apart."""
    scores, remarks = evaluation.headline, evaluation.familiarity.remarks
    summary = summarise(scores)
    over = f"Mean Dice ± standard deviation over {count_headline(evaluation)}."
    every = [_tell_all(evaluation)] if evaluation.is_mixed else []
    drawn = ["Training cases of the model are not drawn."] if evaluation.is_mixed else []
    rules = [EMPTY_RULE, INTERVAL_RULE, *evaluation.rules.describe().values()]
    notes = [describe_convention(evaluation.task), *rules, describe_empty(summary)]
    return [
        Section(
            "Dice at a glance", [Tiles([_tile(summary, region) for region in summary.mean])], [over, *every, *remarks]
        ),
        Section("Scores", [_means(summary)], notes),
        Section(
            "Distributions", [Charts([_chart(summary, scores, metric) for metric in _DRAWN])], [_CHART_NOTE, *drawn]
        ),
    ]


def case_section(evaluation: Evaluation) -> Section:
    """The scores of every case and region."""
    rows = [
        [mark_seen(name, evaluation), region, *(getattr(score, metric) for metric in _LISTED)]
        for name, regions in evaluation.scores.items()
        for region, score in regions.items()
    ]
    columns = [*text_columns("Case", "Region"), *map(column, _LISTED)]
    return Section("Case by case", [Table(columns, rows, grouped=True)])


def worst_cases(scores: CaseScores, count: int) -> list[str]:
    """The cases with the lowest mean Dice over the regions, the worst first; equal ones by name."""
    means = {name: _mean_dice(regions) for name, regions in scores.items()}
    return sorted(means, key=lambda name: (means[name], name))[: max(0, count)]


def column(metric: str) -> Column:
    """Name of a metric in words, and format of its figures."""
    form = COLUMNS[metric].form if metric in COLUMNS else ".3f"
    return Column(_NAMES.get(metric, metric.replace("_", " ").capitalize()), form)


def _mean_dice(regions: Mapping[str, RegionScore]) -> float:
    return sum(score.dice for score in regions.values()) / len(regions)


def _tell_all(evaluation: Evaluation) -> str:
    """A sentence with the mean Dice over all cases, training cases too."""
    summary = summarise(evaluation.scores)
    dices = ", ".join(
        f"{region} {row['dice']:.3f} ± {summary.sd[region]['dice']:.3f}" for region, row in summary.mean.items()
    )
    return f"{describe_all(evaluation)}: {dices}."


def _tile(summary: Summary, region: str) -> tuple[str, str, str]:
    ends = summary.interval(region, "dice")
    spread = f"± {summary.sd[region]['dice']:.3f}" if summary.cases > 1 else "one case"
    interval = f", 95 % interval {ends[0]:.3f} to {ends[1]:.3f}" if ends else ""
    return region, f"{summary.mean[region]['dice']:.3f}", spread + interval


def _means(summary: Summary) -> Table:
    """A row for each metric, a column for each region."""
    rows: list[list[Cell]] = []
    for metric in METRICS:
        form = column(metric).form
        means = (
            Estimate(mean[metric], summary.sd[region][metric], summary.interval(region, metric), form=form)
            for region, mean in summary.mean.items()
        )
        rows.append([column(metric).heading, *means])
    heading = f"Mean ± standard deviation{', 95 % interval' if summary.low else ''}"
    return Table([*text_columns(heading), *number_columns(*summary.mean)], rows)


def _chart(summary: Summary, scores: CaseScores, metric: str) -> tuple[str, str]:
    """Heading and drawing of the distribution of a metric, a row for each region."""
    values = {r: {name: float(getattr(case[r], metric)) for name, case in scores.items()} for r in summary.mean}
    intervals = {region: summary.interval(region, metric) for region in summary.mean}
    figure, name = distribution_figure(values, metric in _RATIOS, intervals), column(metric).heading
    return name, inline_svg(figure, metric, f"Distribution of {name}", point_titles(values))


def _worst_section(evaluation: Evaluation, predicted: Path, truth: Sequence[Path], count: int, viewer: bool) -> Section:
    """The worst cases, drawn where the truth is given with its scans."""
    scans: dict[str, CaseFiles] = {}
    with suppress(DatasetError):
        scans = {case.name: case for case in search_cases(truth).cases if case.lesion}
    maps, rank = search_label_files(predicted)[0], worst_cases(evaluation.scores, count)
    parts: list[SectionPart] = []
    for name in rank:
        regions = evaluation.scores[name]
        dices = ", ".join(f"{region} {score.dice:.3f}" for region, score in regions.items())
        found = _load(scans[name], maps[name], evaluation.task) if name in scans and name in maps else None
        drawn = _draw(*found, evaluation.task) if found else None
        line = f"mean Dice {_mean_dice(regions):.3f} ({dices})"
        parts.append(Picture(drawn, f"Prediction and truth of {name}", mark_seen(name, evaluation), line))
        parts += [_scroll(*found, evaluation.task)] if found and viewer else []
    why = f"The {len(rank)} of {len(evaluation.scores)} cases with the lowest mean Dice over the regions, worst first."
    undrawn = ["Pictures need the scans: name folders of cases as the truth."] if not scans else []
    return Section("Worst cases", parts, [why, *undrawn])


def _load(files: CaseFiles, predicted: Path, task: Task) -> tuple[Case, LabelMap] | None:
    """A case and its prediction on one grid, or None where the scans do not fit the prediction."""
    try:
        case = load_case(files, task.sequences, task, lesion=True, allow_missing=True, align=Aligner(files.name))
        labels = read_prediction(predicted, task, files.name)
    except BrainSegNetError:
        return None
    return (case, labels) if labels.shape == case.reference.shape else None


def _draw(case: Case, labels: LabelMap, task: Task) -> bytes:
    """A case as a PNG."""
    names = [name for name in ("flair", "t1c", "t2") if name in case.images] or list(case.images)[:3]
    return render(overlay_figure(case, labels.array, task, names, "slice"), "png", dpi=96)


def _scroll(case: Case, labels: LabelMap, task: Task) -> Scrolled:
    """A case with its truth to scroll through."""
    return Scrolled(case.name, show(Shown(case.name, labels, task, case.images, truth=case.lesion)).html)


def render_page(title: str, subtitle: str, sections: Sequence[Section], footer: str) -> str:
    """The whole page as HTML; text is escaped."""
    from jinja2 import Environment, StrictUndefined

    home = files("brainsegnet.reporting")
    writer = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = writer.from_string(home.joinpath("report.html.j2").read_text(encoding="utf-8"))
    style = home.joinpath("report.css").read_text(encoding="utf-8")
    content = {"title": title, "subtitle": subtitle, "sections": sections, "footer": footer, "style": style}
    return template.render(content, kind=lambda part: type(part).__name__)
