"""A page that holds all it shows: HTML with its pictures and styles inside, to read offline, mail or print.

It is XHTML as well, so an XML parser reads it; it holds no script and no address of anything outside.

The parts of a report that show scores, from what `evaluate` writes into `scores.json`.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

from brainsegnet.metrics.evaluate import find_interval
from brainsegnet.plotting.charts import scale_for, strip_plot

Cell = str | tuple[str, str]
"""A figure, or a figure and a fainter line below it."""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Its heading.
        body: HTML.
        notes: Fainter sentences below.
    """

    title: str
    body: str
    notes: Sequence[str] = ()


def page(title: str, subtitle: str, sections: Sequence[Section], footer: str) -> str:
    """The whole page.

    Args:
        title: Heading, and title of the window.
        subtitle: A line below it.
        sections: What it shows, in this order.
        footer: Last line.

    >>> page("Run 1", "", [Section("Scores", "<p>0.86</p>")], "").count("<section")
    1
    """
    style = files("brainsegnet.reporting").joinpath("report.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#part{number}">{escape(part.title)}</a>\n' for number, part in enumerate(sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
<p>{escape(subtitle)}</p>
<nav>
{links}</nav>
</header>
{"".join(_section(number, part) for number, part in enumerate(sections))}<footer>{escape(footer)}</footer>
</main>
</body>
</html>
"""


def tiles(figures: Sequence[tuple[str, str, str]]) -> str:
    """Large figures side by side, each with a name above and a line below."""
    parts = (
        f'<div class="tile"><span class="name">{escape(name)}</span><b>{escape(figure)}</b>'
        f"<span>{escape(line)}</span></div>\n"
        for name, figure, line in figures
    )
    return f'<div class="tiles">\n{"".join(parts)}</div>\n'


def table(headings: Sequence[str], rows: Sequence[Sequence[Cell]], words: int = 1) -> str:
    """A table whose first columns hold words and are flush left; figures are flush right.

    >>> print(table(["Region", "Dice"], [["whole", ("0.86", "0.80 to 0.90")]]).splitlines()[-3])
    <tr><td class="word">whole</td><td>0.86<br/><small>0.80 to 0.90</small></td></tr>
    """
    heads = "".join(f"<th{_word(place < words)}>{escape(heading)}</th>" for place, heading in enumerate(headings))
    lines = ["".join(f"<td{_word(place < words)}>{_cell(c)}</td>" for place, c in enumerate(row)) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>\n'


def facts(rows: Sequence[Sequence[str]]) -> str:
    """Names and what is known under them."""
    body = "\n".join(f'<tr><td class="word">{escape(n)}</td><td class="word">{escape(v)}</td></tr>' for n, v in rows)
    return f'<table class="facts">\n<tbody>\n{body}\n</tbody>\n</table>\n'


def picture(data: bytes, kind: str, alternative: str, caption: str = "", style: str = "") -> str:
    """A PNG or SVG inside the page.

    Args:
        data: Bytes of the file.
        kind: `png` or `svg`.
        alternative: What it shows, for those who do not see it.
        caption: HTML below it.
        style: Class of the figure.
    """
    media = {"png": "image/png", "svg": "image/svg+xml"}[kind]
    source = f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"
    below = f"\n<figcaption>{caption}</figcaption>" if caption else ""
    start = f'<figure class="{style}">' if style else "<figure>"
    return f'{start}<img alt="{escape(alternative)}" src="{source}"/>{below}</figure>\n'


def listing(lines: Sequence[str]) -> str:
    """Commands as they are typed."""
    return f"<pre>{escape(chr(10).join(lines), quote=False)}</pre>\n"


def _section(number: int, part: Section) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in part.notes)
    below = f'<ul class="notes">{notes}</ul>\n' if notes else ""
    return f'<section id="part{number}">\n<h2>{escape(part.title)}</h2>\n{part.body}{below}</section>\n'


def _word(is_word: bool) -> str:
    return ' class="word"' if is_word else ""


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return escape(cell)
    figure, line = cell
    return f"{escape(figure)}<br/><small>{escape(line)}</small>" if line else escape(figure)


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
