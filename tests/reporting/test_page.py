"""Laws of the page: it is whole by itself, well formed, and every figure of the scores is found in it."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from brainsegnet.metrics.evaluate import Evaluation, to_json
from brainsegnet.metrics.scores import METRICS, score_case
from brainsegnet.plotting.charts import scale_for, strip_plot, ticks
from brainsegnet.reporting.page import (
    HEADINGS,
    Section,
    case_section,
    facts,
    listing,
    page,
    picture,
    summary_sections,
    table,
    tiles,
    worst_cases,
)
from brainsegnet.task import BRATS2015

NASTY = "<b>&\"'pat$1$</b>"


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(5)
    masks = {name: rng.integers(0, 5, (2, 6, 10, 10)) for name in (NASTY, "pat2", "pat3", "pat4", "pat5", "pat6")}
    cases = {n: score_case(p, t, BRATS2015, (1.0, 1.0, 1.0), n) for n, (p, t) in masks.items()}
    return {**json.loads(to_json(Evaluation(BRATS2015, cases))), "interval": {}}


def read(text):
    return ET.fromstring(text.split("\n", 1)[1])


def words(root):
    return [text.strip() for element in root.iter() for text in (element.text, element.alpha) if text and text.strip()]


def test_a_page_of_everything_is_well_formed_and_stands_alone(scores):
    parts = [
        *summary_sections(scores),
        case_section(scores),
        Section("Pictures", picture(b"\x89PNG", "png", NASTY, "<b>a</b>", "curve")),
        Section(NASTY, tiles([(NASTY, "1", NASTY)]) + facts([(NASTY, NASTY)]) + listing([NASTY]), [NASTY]),
    ]
    text = page(NASTY, NASTY, parts, NASTY)
    root = read(text)
    assert not re.search(r"https?:|//[a-z]|<script|<link|@import|url\(", text)
    assert NASTY in words(root) and not [e for e in root.iter("b") if e.text and "pat" in e.text]
    targets = {e.get("id") for e in root.iter("section")}
    assert {e.get("href") for e in root.iter("a")} == {f"#{target}" for target in targets} and len(targets) == len(
        parts
    )
    assert all(e.get("src", "").startswith("data:image/png;base64,") for e in root.iter("img"))


def test_every_figure_of_the_scores_is_in_the_page(scores):
    found = words(read(page("t", "", [*summary_sections(scores), case_section(scores)], "")))
    for region, mean in scores["mean"].items():
        for metric in METRICS:
            places = HEADINGS.get(metric, (metric, 3))[1]
            assert f"{mean[metric]:.{places}f} ± {scores['sd'][region][metric]:.{places}f}" in found
    listed = ("dice", "sensitivity", "precision", "hd95_mm", "true_volume_ml")
    for regions in scores["cases"].values():
        for score in regions.values():
            assert all(f"{score[metric]:.{HEADINGS[metric][1]}f}" in found for metric in listed)


def test_intervals_are_shown_and_drawn_where_there_are_any(scores):
    ends = {region: {"dice": [0.1234, 0.5678]} for region in scores["mean"]}
    without, with_them = (page("t", "", summary_sections({**scores, "interval": i}), "") for i in ({}, ends))
    assert "0.123 to 0.568" in with_them and "95 % interval 0.123 to 0.568" in with_them
    assert "0.123 to 0.568" not in without
    assert with_them.count('stroke="#d1495b"') == 3 and 'stroke="#d1495b"' not in without


def test_metrics_of_later_versions_are_shown_under_their_own_names(scores):
    later = json.loads(json.dumps(scores))
    for part in ("mean", "sd"):
        for region in later[part].values():
            region["novel_score"] = 0.4242
    assert "Novel score" in page("t", "", summary_sections(later), "")


def test_the_worst_come_first(scores):
    order = worst_cases(scores, 99)
    means = [np.mean([s["dice"] for s in scores["cases"][name].values()]) for name in order]
    assert means == sorted(means) and len(order) == 6
    assert worst_cases(scores, 2) == order[:2]


def test_a_dot_stands_at_its_figure():
    values = {"whole": {"a": 0.0, "b": 0.25, "c": 1.0}}
    root = ET.fromstring(strip_plot(values, (0.0, 1.0)))
    dots = {e.find("title").text: float(e.get("cx")) for e in root.iter("circle")}
    left, right = dots["a: 0"], dots["c: 1"]
    assert dots["b: 0.25"] == pytest.approx(left + (right - left) / 4, abs=0.1)
    assert not list(root.iter("rect")), "three cases make no quartiles"
    many = {"whole": {f"p{n}": n / 10 for n in range(11)}}
    (box,) = ET.fromstring(strip_plot(many, (0.0, 1.0))).iter("rect")
    assert float(box.get("width")) == pytest.approx((right - left) / 2, abs=0.2)


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [3e-4], [-5.0, 2.0], [373.13], [1e5, 2.0]])
def test_every_scale_holds_its_values_and_zero(values):
    low, high = scale_for(values, ratio=False)
    assert low <= min(0, *values) and high >= max(0, *values) and high > low
    marks = ticks((low, high))
    assert 3 <= len(marks) <= 12 and marks == sorted(marks) and low <= marks[0] + 1e-9 and marks[-1] <= high + 1e-9


def test_a_table_has_as_many_cells_in_each_row():
    root = ET.fromstring(table(["Case", "Dice"], [["a", "1"], ["b", ("2", "0 to 3")]]))
    assert {len(list(row)) for row in root.iter("tr")} == {2}
    assert [e.text for e in root.iter("small")] == ["0 to 3"]
