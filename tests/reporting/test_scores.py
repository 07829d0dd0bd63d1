"""Every figure of the scores is found in the report."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from brainsegnet.metrics.scores import METRICS, score_case
from brainsegnet.metrics.tables import to_json
from brainsegnet.reporting.page import Charts, render_page
from brainsegnet.reporting.scores import HEADINGS, case_section, summary_sections, worst_cases
from brainsegnet.task import BRATS2015

NASTY = "<b>&\"'pat$1$</b>"


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(5)
    masks = {name: rng.integers(0, 5, (2, 6, 10, 10)) for name in (NASTY, "pat2", "pat3", "pat4", "pat5", "pat6")}
    cases = {n: score_case(p, t, BRATS2015, (1.0, 1.0, 1.0), n) for n, (p, t) in masks.items()}
    return {**json.loads(to_json(cases, BRATS2015)), "interval": {}}


def words(sections):
    root = ET.fromstring(render_page("t", "", sections, "").split("\n", 1)[1])
    return [text.strip() for element in root.iter() for text in (element.text, element.tail) if text and text.strip()]


def test_every_figure_of_the_scores_is_in_the_page(scores):
    found = words([*summary_sections(scores), case_section(scores)])
    for region, mean in scores["mean"].items():
        for metric in METRICS:
            places = HEADINGS.get(metric, (metric, 3))[1]
            assert f"{mean[metric]:.{places}f} ± {scores['sd'][region][metric]:.{places}f}" in found
    listed = ("dice", "sensitivity", "precision", "hd95_mm", "true_volume_ml")
    for regions in scores["cases"].values():
        for score in regions.values():
            assert all(f"{score[metric]:.{HEADINGS[metric][1]}f}" in found for metric in listed)


def test_the_name_of_a_case_is_text_and_stands_at_its_dots(scores):
    found = words([*summary_sections(scores), case_section(scores)])
    assert found.count(NASTY) == 1
    for region in scores["mean"]:
        assert f"{NASTY}: {scores['cases'][NASTY][region]['dice']:.4g}" in found


def test_intervals_are_shown_and_drawn_where_there_are_any(scores):
    ends = {region: {"dice": [0.1234, 0.5678]} for region in scores["mean"]}
    without, with_them = (summary_sections({**scores, "interval": i}) for i in ({}, ends))
    found = words(with_them)
    assert "0.123 to 0.568" in found and any("95 % interval 0.123 to 0.568" in text for text in found)
    assert "0.123 to 0.568" not in words(without)
    for sections, lines in ((with_them, 3), (without, 0)):
        (charts,) = (part for section in sections for part in section.parts if isinstance(part, Charts))
        assert sum(svg.count("stroke: #d1495b") for _, svg in charts.rows) == lines


def test_metrics_of_later_versions_are_shown_under_their_own_names(scores):
    later = json.loads(json.dumps(scores))
    for part in ("mean", "sd"):
        for region in later[part].values():
            region["novel_score"] = 0.4242
    assert "Novel score" in words(summary_sections(later))


def test_the_worst_come_first(scores):
    order = worst_cases(scores, 99)
    means = [np.mean([s["dice"] for s in scores["cases"][name].values()]) for name in order]
    assert means == sorted(means) and len(order) == 6
    assert worst_cases(scores, 2) == order[:2]
