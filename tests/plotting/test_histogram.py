"""Histograms as SVG."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from brainsegnet.plotting.histogram import BINS, HIGH, WIDE, draw_histogram


def bars(svg):
    """Kind of each bar to its count, and the heights."""
    root = ElementTree.fromstring(svg)
    found = [
        (bar.get("class"), int(bar[0].text.rpartition(": ")[2]), float(bar.get("height"))) for bar in root.iter("rect")
    ]
    for bar in root.iter("rect"):
        assert 0 <= float(bar.get("x")) and float(bar.get("x")) + float(bar.get("width")) <= WIDE + 1
        assert 0 <= float(bar.get("y")) and float(bar.get("y")) + float(bar.get("height")) <= HIGH
    return found


@pytest.mark.parametrize("values", [[], [0.0], [3.0], [3.0, 3.0, 0.0], [0.001, 1500.0], [5.0, 5.1]])
def test_each_value_is_in_one_bar(values):
    found = bars(draw_histogram(values, "volumes", "ml"))
    assert sum(count for kind, count, _ in found if kind == "bar") == sum(value > 0 for value in values)
    assert [count for kind, count, _ in found if kind == "none"] == [sum(value == 0 for value in values)]


def test_many_values_fill_the_bars_and_the_largest_is_the_highest(rng):
    found = bars(draw_histogram([*rng.lognormal(3, 1, 5000), *np.zeros(10)], "volumes", "ml"))
    assert len(found) == BINS + 1
    assert sum(count for _, count, _ in found) == 5010
    assert max(found, key=lambda bar: bar[1]) == max(found, key=lambda bar: bar[2])


def test_ticks_are_round_and_the_label_is_escaped():
    svg = draw_histogram([0.2, 3.0, 400.0], 'volume of "x" <b>', "ml")
    assert re.findall(r">([\d.]+)</text>", svg) == ["0", "1", "10", "100"]
    assert ElementTree.fromstring(svg).get("aria-label") == 'volume of "x" <b>'
