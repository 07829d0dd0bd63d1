"""The page of a report fits a screen of 400 px: nothing has a fixed width that is wider than its content."""

import re
from pathlib import Path

import pytest

import brainsegnet

CSS = Path(brainsegnet.__file__).with_name("reporting") / "report.css"
WIDEST = 360
PIXELS = {"px": 1, "em": 15, "rem": 15, "pt": 4 / 3, "ch": 8}


def find_wide(css):
    """Declarations of a width that does not give way on a narrow screen, and rules for wider screens left out."""
    found = []
    for name, value in re.findall(
        r"(?<![\w-])(min-width|width|flex|flex-basis|grid-template-columns)\s*:\s*([^;}]+)", css
    ):
        fixed = re.sub(r"min\([^()]*\b100(?:%|vw)[^()]*\)", "", value)
        sizes = [float(n) * PIXELS[unit] for n, unit in re.findall(r"([\d.]+)(px|rem|em|pt|ch)\b", fixed)]
        found += [f"{name}: {value.strip()}"] * any(size > WIDEST for size in sizes)
    return found


def test_the_style_of_a_report_has_no_fixed_width_above_360_px():
    assert not find_wide(re.sub(r"@media[^{]*\{", "{", CSS.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "rule",
    [
        "table { width: 640px }",
        "svg { min-width: 40em; }",
        ".plots { grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); }",
        ".tile { flex: 1 1 400px; }",
    ],
)
def test_a_fixed_width_is_found(rule):
    assert find_wide(rule)


@pytest.mark.parametrize("rule", ["main { max-width: 1040px }", ".p { width: min(430px, 100%) }", "td { width: 11em }"])
def test_a_width_that_gives_way_is_no_fault(rule):
    assert not find_wide(rule)
