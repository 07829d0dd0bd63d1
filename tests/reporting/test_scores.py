"""Every figure of the scores is found in the report."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from brainsegnet.metrics.evaluate import Evaluation
from brainsegnet.metrics.scores import METRICS, score_case
from brainsegnet.metrics.statistics import summarise
from brainsegnet.reporting.page import Charts, render_page
from brainsegnet.reporting.scores import case_section, column, summary_sections, worst_cases
from brainsegnet.task import BRATS2015

NASTY = "<b>&\"'pat$1$</b>"


@pytest.fixture(scope="module")
def evaluation():
    rng = np.random.default_rng(5)
    masks = {name: rng.integers(0, 5, (2, 6, 10, 10)) for name in (NASTY, "pat2", "pat3", "pat4", "pat5", "pat6")}
    return Evaluation(BRATS2015, {n: score_case(p, t, BRATS2015, (1.0, 1.0, 1.0), n) for n, (p, t) in masks.items()})


def words(sections):
    root = ET.fromstring(render_page("t", "", sections, "").split("\n", 1)[1])
    return [text.strip() for element in root.iter() for text in (element.text, element.tail) if text and text.strip()]


def test_every_figure_of_the_scores_is_in_the_page(evaluation):
    found = words([*summary_sections(evaluation), case_section(evaluation)])
    summary = summarise(evaluation.scores)
    for region, mean in summary.mean.items():
        for metric in METRICS:
            form = column(metric).form
            assert f"{mean[metric]:{form}} ± {summary.sd[region][metric]:{form}}" in found
            assert f"{summary.low[region][metric]:{form}} to {summary.high[region][metric]:{form}}" in found
    for regions in evaluation.scores.values():
        for score in regions.values():
            assert {f"{score.dice:.3f}", f"{score.hd95_mm:.2f}", f"{score.true_volume_ml:.2f}"} <= {*found}


def test_the_name_of_a_case_is_text_and_stands_at_its_dots(evaluation):
    found = words([*summary_sections(evaluation), case_section(evaluation)])
    assert found.count(NASTY) == 1
    for score in evaluation.scores[NASTY].values():
        assert f"{NASTY}: {score.dice:.4g}" in found


def test_intervals_are_shown_and_drawn_where_there_are_any(evaluation):
    few = Evaluation(BRATS2015, dict([*evaluation.scores.items()][:2]))
    for cases, lines in ((evaluation, 7 * 3), (few, 0)):
        sections = summary_sections(cases)
        assert any("95 % interval" in text and "±" in text for text in words(sections[:2])) == bool(lines)
        (charts,) = (part for section in sections for part in section.parts if isinstance(part, Charts))
        assert sum(svg.count("stroke: #d1495b") for _, svg in charts.rows) == lines


def test_the_worst_come_first(evaluation):
    order = worst_cases(evaluation.scores, 99)
    means = [np.mean([score.dice for score in evaluation.scores[name].values()]) for name in order]
    assert means == sorted(means) and len(order) == 6
    assert worst_cases(evaluation.scores, 2) == order[:2]
