"""Distributions as SVG to stand inside a page: every case a dot, the quartiles a box, the mean and its interval."""

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

Ends = tuple[float, float]

WIDTH, LEFT, RIGHT, TOP, ROW, BOTTOM = 460, 92, 14, 8, 46, 26
"""Pixels: of the plot, its margins, and a row."""
_BOXED = 5
"""From this many cases on quartiles are drawn."""
_GOLDEN = (math.sqrt(5) - 1) / 2
_INK, _FAINT, _DOT, _MEAN = "#1d2733", "#5d6b7a", "#0b62a4", "#d1495b"


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
        parts.append(_text(LEFT - 10, middle + 4, group, "end", _INK, 13))
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
