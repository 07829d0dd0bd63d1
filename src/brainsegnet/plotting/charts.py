"""The training curve: loss and validation Dice over the steps, with the stages of the curriculum marked.

Distributions as SVG to stand inside a page: every case a dot, the quartiles a box, the mean and its interval.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from brainsegnet.errors import DatasetError

Rows = Sequence[Mapping[str, Any]]
Series = tuple[NDArray[np.float64], NDArray[np.float64]]

_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_INK = "0.25"
OUTLYING = 10
"""A loss so many times lower than the running mean ever is, as of samples without lesion, does not set the scale."""


def training_curve_figure(rows: Rows) -> Figure:
    """Loss and, where it was measured, validation Dice over the steps.

    Args:
        rows: In the order of the steps, each with `step`, `stage` and any of `loss`, `dice` and `dice_<region>`; what
            a row lacks or holds as None was not measured then.

    Raises:
        DatasetError: there is no row.
    """
    if not rows:
        raise DatasetError("the training log has no rows, so there is no curve; train for at least one step")
    scores = list(dict.fromkeys(key for row in rows for key in row if key.startswith("dice")))
    figure = Figure(figsize=(9, 6.0 if scores else 3.6), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    panels: list[Axes] = figure.subplots(2 if scores else 1, 1, sharex=True, squeeze=False)[:, 0].tolist()
    _draw_loss(panels[0], rows)
    for number, key in enumerate(scores):
        colour = _LINES[(number + 1) % len(_LINES)]
        label = key.removeprefix("dice").strip("_") or "dice"
        panels[1].plot(*_series(rows, key), "o-", color=colour, markersize=3.5, linewidth=1.8, label=label)
    if scores:
        panels[1].set(ylabel="Validation Dice", ylim=(0, 1))
        panels[1].legend(edgecolor="none", loc="lower right", ncols=min(4, len(scores)), labelcolor=_INK)
    _mark_stages(panels, rows)
    for panel in panels:
        _quiet(panel)
    panels[-1].set_xlabel("Step", color=_INK)
    return figure


def smooth(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean over a centred window of an odd number of values, shorter at the ends.

    >>> smooth(np.array([0.0, 3.0, 0.0, 3.0]), 3).tolist()
    [1.5, 1.0, 2.0, 1.5]
    """
    if not len(values):
        return values
    ones = np.ones(min(window, len(values)))
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def _series(rows: Rows, key: str) -> Series:
    known = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    steps, values = np.array(known, np.float64).reshape(-1, 2).T
    return steps, values


def _draw_loss(panel: Axes, rows: Rows) -> None:
    """The loss as it was, and its running mean within each stage; what lies far below the mean leaves the panel."""
    steps, loss = _series(rows, "loss")
    window = len(loss) // 30 // 2 * 2 + 1
    panel.set_ylabel("Loss")
    panel.plot(steps, loss, color=_LINES[0], linewidth=0.8 if window > 1 else 1.8, alpha=0.3 if window > 1 else 1)
    for _, group in groupby(rows, key=_stage) if window > 1 else ():
        steps_of_stage, loss_of_stage = _series(list(group), "loss")
        panel.plot(steps_of_stage, smooth(loss_of_stage, window), color=_LINES[0], linewidth=1.8)
    if len(loss) and loss.min() > 0 and loss.max() > 20 * loss.min():
        panel.set_yscale("log")
        if loss.min() < (floor := smooth(loss, window).min() / OUTLYING):
            panel.set_ylim(bottom=floor)


def _stage(row: Mapping[str, Any]) -> object:
    return row.get("stage")


def _mark_stages(panels: Sequence[Axes], rows: Rows) -> None:
    """A line where each stage begins, its name above; every second stage is shaded."""
    last = float(rows[-1]["step"])
    starts = [(stage, float(next(group)["step"])) for stage, group in groupby(rows, key=_stage)]
    ends = [start for _, start in starts[1:]] + [last]
    for number, ((stage, start), end) in enumerate(zip(starts, ends, strict=True)):
        for panel in panels:
            if number % 2:
                panel.axvspan(start, end, color="0.5", alpha=0.08, linewidth=0)
            if number:
                panel.axvline(start, color="0.5", linewidth=1, linestyle=(0, (4, 3)))
        if stage is not None:
            name = f"stage {stage}" if str(stage).isdigit() else str(stage)
            across = panels[0].get_xaxis_transform()
            panels[0].text((start + end) / 2, 1.03, name, transform=across, ha="center", color=_INK, fontsize=10)
    panels[0].set_xlim(float(rows[0]["step"]), last if last > rows[0]["step"] else last + 1)


def _quiet(panel: Axes) -> None:
    panel.grid(axis="y", color="0.9", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color("0.6")
    panel.tick_params(colors=_INK, length=3)
    panel.yaxis.label.set_color(_INK)


Ends = tuple[float, float]

WIDTH, LEFT, RIGHT, TOP, ROW, BOTTOM = 460, 92, 14, 8, 46, 26
"""Pixels: of the plot, its margins, and a row."""
_BOXED = 5
"""From this many cases on quartiles are drawn."""
_GOLDEN = (math.sqrt(5) - 1) / 2
_PLOT_INK, _FAINT, _DOT, _MEAN = "#1d2733", "#5d6b7a", "#0b62a4", "#d1495b"


def strip_plot(
    values: Mapping[str, Mapping[str, float]], limits: Ends, intervals: Mapping[str, Ends | None] | None = None
) -> str:
    """A row of dots for each group on one scale, as an SVG element.

    Args:
        values: Group to case to figure.
        limits: Ends of the scale.
        intervals: Group to the 95 % interval of its mean, where known.

    >>> drawing = strip_plot({"whole": {"pat1": 0.8, "pat2": 0.9}}, (0.0, 1.0))
    >>> drawing.count("<circle"), "pat2: 0.9" in drawing
    (2, True)
    """
    height = TOP + ROW * len(values) + BOTTOM
    parts = [_axis(limits, height)]
    for number, (group, cases) in enumerate(values.items()):
        middle = TOP + ROW * (number + 0.5)
        parts.append(_text(LEFT - 10, middle + 4, group, "end", _PLOT_INK, 13))
        parts.append(_row(cases, limits, middle, (intervals or {}).get(group)))
    inside = "\n".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="distribution">\n{inside}\n</svg>\n'


def scale_for(values: Sequence[float], ratio: bool) -> Ends:
    """Ends of a scale: 0 to 1 for ratios; else round numbers around 0 and all values.

    >>> scale_for([0.2], ratio=True), scale_for([3.0, 41.0], ratio=False), scale_for([-7.0, 2.0], ratio=False)
    ((0.0, 1.0), (0.0, 50.0), (-8.0, 2.0))
    """
    if ratio:
        return 0.0, 1.0
    low, high = min(0.0, *values), max(0.0, *values)
    step = _step(max(high - low, 1e-9))
    return math.floor(low / step) * step, max(math.ceil(high / step) * step, step)


def ticks(limits: Ends) -> list[float]:
    """Round numbers from one end of a scale to the other.

    >>> ticks((0.0, 1.0)), ticks((0.0, 50.0))
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 10.0, 20.0, 30.0, 40.0, 50.0])
    """
    low, high = limits
    step = _step(high - low)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten that parts a span into about five."""
    raw = span / 5
    power = 10.0 ** math.floor(math.log10(raw))
    return min((1, 2, 5, 10), key=lambda factor: abs(factor * power - raw)) * power


def _axis(limits: Ends, height: int) -> str:
    lines = []
    for tick in ticks(limits):
        x = _at(tick, limits)
        lines.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{height - BOTTOM}" stroke="#e3e8ed"/>')
        lines.append(_text(x, height - BOTTOM + 16, f"{tick:g}", "middle", _FAINT, 11))
    return "\n".join(lines)


def _row(cases: Mapping[str, float], limits: Ends, middle: float, interval: Ends | None) -> str:
    figures = np.array([*cases.values()], np.float64)
    parts = []
    if len(figures) >= _BOXED:
        low, median, high = (_at(q, limits) for q in np.percentile(figures, (25, 50, 75)).tolist())
        top = middle - 13
        parts.append(
            f'<rect x="{low:.1f}" y="{top:.1f}" width="{max(high - low, 0.5):.1f}" height="26" rx="2" fill="#e8eef4"/>'
            f'<line x1="{median:.1f}" y1="{top:.1f}" x2="{median:.1f}" y2="{top + 26:.1f}" stroke="{_FAINT}" '
            'stroke-width="1.5"/>'
        )
    for number, (case, figure) in enumerate(cases.items()):
        y = middle + ((number * _GOLDEN) % 1 - 0.5) * 20
        label = escape(f"{case}: {figure:.4g}")
        parts.append(
            f'<circle cx="{_at(figure, limits):.1f}" cy="{y:.1f}" r="3.2" fill="{_DOT}" fill-opacity="0.6">'
            f"<title>{label}</title></circle>"
        )
    parts.append(_mean(float(figures.mean()), limits, middle + 19, interval))
    return "\n".join(parts)


def _mean(mean: float, limits: Ends, y: float, interval: Ends | None) -> str:
    x = _at(mean, limits)
    mark = f'<path d="M{x:.1f} {y - 4:.1f}l4 4l-4 4l-4 -4z" fill="{_MEAN}"><title>mean {mean:.4g}</title></path>'
    if interval is None:
        return mark
    low, high = (_at(end, limits) for end in interval)
    line = f'<line x1="{low:.1f}" y1="{y:.1f}" x2="{high:.1f}" y2="{y:.1f}" stroke="{_MEAN}" stroke-width="2"/>'
    return line + mark


def _at(value: float, limits: Ends) -> float:
    low, high = limits
    return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def _text(x: float, y: float, text: str, anchor: str, colour: str, size: int) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}" '
        f'font-family="inherit">{escape(text)}</text>'
    )
