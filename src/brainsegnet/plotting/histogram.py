"""Histograms as SVG for a page: on a log scale, in the colours of the page, without a script."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from brainsegnet._types import Doubles

BINS, WIDE, HIGH = 24, 340, 110
"""Number of bars, and width and height in pixels; the axis is below."""
_AXIS, _ZERO = 18, 30
"""Pixels: height of the axis, and the place of the bar for zero."""


def draw_histogram(values: Sequence[float], label: str, unit: str) -> str:
    """A histogram of numbers of 0 or more as an SVG element. Zeros have a bar of their own at the left.

    A bar tells its range and count under the pointer. The page colours `.bar`, `.none` and text.

    Args:
        values: The numbers.
        label: What the histogram shows, for readers who do not see it.
        unit: Unit of the numbers.
    """
    positive = np.array([value for value in values if value > 0])
    zeros, parts = len(values) - len(positive), list[str]()
    edges = _choose_edges(positive) if len(positive) else np.array([1.0, 10.0])
    counts = np.histogram(positive, edges)[0].tolist() if len(positive) else []
    tall, wide = HIGH - _AXIS, (WIDE - _ZERO) / max(len(counts), 1)
    most = max([zeros, *counts, 1])
    for number, count in enumerate(counts):
        told = f"{_spell(edges[number])} to {_spell(edges[number + 1])} {unit}: {count}"
        parts.append(_draw_bar("bar", _ZERO + number * wide, wide - 1, count * tall / most, told))
    parts.append(_draw_bar("none", 0, _ZERO - 12, zeros * tall / most, f"0 {unit}: {zeros}"))
    parts.append(f'<text x="{(_ZERO - 12) / 2}" y="{HIGH - 4}" text-anchor="middle">0</text>')
    low, high = math.log10(edges[0]), math.log10(edges[-1])
    for tick in _choose_ticks(edges[0], edges[-1]) if counts else ():
        x = _ZERO + (math.log10(tick) - low) / (high - low) * (WIDE - _ZERO)
        anchor = "end" if x > WIDE - 20 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{HIGH - 4}" text-anchor="{anchor}">{_spell(tick)}</text>')
    said = f'role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDE} {HIGH}"'
    return f'<svg class="histogram" {said}>{"".join(parts)}</svg>'


def _choose_edges(values: Doubles) -> Doubles:
    low, high = float(values.min()), float(values.max())
    middle = math.sqrt(low * high)
    low, high = min(low, middle / 1.5), max(high, middle * 1.5)
    edges = np.geomspace(low, high, BINS + 1)
    edges[0], edges[-1] = low, high
    return edges


def _choose_ticks(low: float, high: float) -> list[float]:
    """Powers of ten in a range; with fewer than three, also their double and fivefold."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
        if len(ticks) >= 3:
            break
    return ticks[:: -(-len(ticks) // 6)] if ticks else [low]


def _draw_bar(kind: str, x: float, wide: float, high: float, told: str) -> str:
    base = HIGH - _AXIS
    shown = f'y="{base - max(high, 1 if high else 0):.1f}" height="{max(high, 1 if high else 0):.1f}"'
    return f'<rect class="{kind}" x="{x:.1f}" width="{max(wide, 1):.1f}" {shown}><title>{escape(told)}</title></rect>'


def _spell(value: float) -> str:
    """Two digits, without an exponent.

    Examples:
        >>> _spell(1234.0), _spell(0.0123), _spell(3.0)
        ('1200', '0.012', '3')
    """
    digits = max(1 - math.floor(math.log10(value)), 0) if value > 0 else 0
    rounded = round(value, 1 - math.floor(math.log10(value))) if value > 0 else 0.0
    text = f"{rounded:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
