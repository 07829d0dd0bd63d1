"""Laws of the page: whole by itself and well formed, text is text, and every figure of the scores is found in it."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from brainsegnet.metrics.evaluation import Evaluation
from brainsegnet.metrics.scores import METRICS, score_case
from brainsegnet.metrics.statistics import summarise
from brainsegnet.metrics.table import Column, Table, text_columns
from brainsegnet.reporting.sections import (
    Charts,
    Facts,
    Listing,
    Picture,
    Section,
    Tiles,
    case_section,
    column,
    render_page,
    summary_sections,
    worst_cases,
)
from brainsegnet.task import BRATS2015

NASTY = "<b>&\"'pat$1$</b>"
PARTS = {
    "tiles": Tiles([(NASTY, NASTY, NASTY)]),
    "table": Table([*text_columns(NASTY), Column(NASTY)], [[NASTY, NASTY]], notes=[NASTY]),
    "facts": Facts([(NASTY, NASTY)], NASTY),
    "listing": Listing([NASTY, NASTY]),
    "charts": Charts([(NASTY, '<svg viewBox="0 0 1 1"/>'), ("", '<svg viewBox="0 0 1 1"/>')]),
    "picture": Picture(b"\x89PNG", NASTY, NASTY, NASTY),
    "undrawn": Picture(None, NASTY, NASTY, NASTY),
}


def read(text):
    assert text.startswith("<!DOCTYPE html>\n")
    return ET.fromstring(text.split("\n", 1)[1])


def test_a_page_of_everything_is_well_formed_and_stands_alone():
    sections = [Section(NASTY, [part], [NASTY, NASTY]) for part in PARTS.values()]
    text = render_page(NASTY, NASTY, [*sections, Section("Empty")], NASTY)
    root = read(text)
    assert not re.search(r"https?:|//[a-z]|<script|<link|@import|url\(", text)
    targets = [e.get("id") for e in root.iter("section")]
    assert [e.get("href") for e in root.iter("a")] == [f"#{target}" for target in targets]
    assert len({*targets}) == len(PARTS) + 1 and len(list(root.iter("svg"))) == 2
    (image,) = root.iter("img")
    assert image.get("src") == "data:image/png;base64,iVBORw==" and image.get("alt") == NASTY


@pytest.mark.parametrize("kind", PARTS)
def test_text_is_never_taken_for_html(kind):
    body = read(render_page("t", "", [Section("s", [PARTS[kind]])], "")).find("body/main/section")
    found = "".join(body.itertext()).count(NASTY)
    assert found == {"tiles": 3, "table": 5, "facts": 3, "listing": 2, "charts": 1}.get(kind, 2)
    bold = [e.text for e in body.iter("b")]
    assert bold == ([NASTY] if kind in ("tiles", "picture", "undrawn") else [])


def test_notes_stand_below_their_section():
    section = read(render_page("t", "", [Section("s", [PARTS["facts"]], ["one", "two"])], "")).find(".//section")
    assert [e.tag for e in section] == ["h2", "h3", "table", "ul"]
    assert [e.text for e in section.iter("li")] == ["one", "two"]


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
