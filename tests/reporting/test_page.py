"""Laws of the page: it is whole by itself and well formed, and text is text."""

import re
import xml.etree.ElementTree as ET

import pytest

from brainsegnet.metrics.table import Column, Table, text_columns
from brainsegnet.reporting.page import Charts, Facts, Listing, Picture, Section, Tiles, render_page

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
