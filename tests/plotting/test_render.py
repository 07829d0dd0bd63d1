"""Laws of files and of drawings inside HTML: whole, equal bytes, and nothing that leaves the element."""

import io
import re
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from brainsegnet.errors import OutputError
from brainsegnet.plotting.render import inline_svg, literal, save_figure

NASTY = "<b>&\"'pat$1$</b>"


def drawing() -> Figure:
    """Text, an image, and a line whose markers are to have titles."""
    figure = Figure(figsize=(4, 3))
    panel = figure.add_subplot(title=literal(NASTY))
    panel.imshow(np.arange(12).reshape(3, 4))
    panel.plot([0, 1, 2], [0, 2, 1], "o", gid="dots")
    return figure


def test_a_saved_picture_has_its_size_and_the_same_bytes_twice(tmp_path):
    for name in ("a.png", "b.png", "a.svg", "b.svg"):
        save_figure(drawing(), tmp_path / name, dpi=80)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    first = (tmp_path / "a.png").read_bytes()
    assert first == (tmp_path / "b.png").read_bytes()
    assert b"Software" not in first and b"<dc:date>" not in (tmp_path / "a.svg").read_bytes()
    assert matplotlib.image.imread(io.BytesIO(first), format="png").shape[:2] == (240, 320)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]


def test_a_picture_that_cannot_be_written_leaves_the_old_one_and_no_crumbs(tmp_path):
    figure = Figure(figsize=(1, 1))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/a\.png cannot be written"):
        save_figure(figure, tmp_path / "file" / "a.png")
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        save_figure(figure, tmp_path / "a.png")
    with pytest.raises(OutputError, match=r"call it a\.png"):
        save_figure(figure, tmp_path / "a.jpg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "file"]


def test_a_drawing_in_a_page_is_whole_by_itself_and_as_wide_as_its_place():
    texts = [NASTY, "second", "third"]
    svg = inline_svg(drawing(), "one", NASTY, {"dots": texts})
    assert svg == inline_svg(drawing(), "one", NASTY, {"dots": texts}), "the same figure gives the same bytes"
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg" and root.get("viewBox") == "0 0 288 216" and root.get("aria-label") == NASTY
    assert not {*root.keys()} & {"width", "height", "xmlns"} and not list(root.iter("style"))
    assert not re.search(r"https?:|<script|@import|url\((?!#one-)", svg)
    assert [e.text for e in root.iter("text")][-1] == NASTY
    assert [e.find("title").text for e in root.iter("use") if e.find("title") is not None] == texts


def test_several_drawings_share_no_id_and_find_what_they_refer_to():
    drawings = [inline_svg(drawing(), name, "") for name in ("one", "two")]
    ids = [re.findall(r'\bid="([^"]*)"', svg) for svg in drawings]
    assert len({*ids[0], *ids[1]}) == len(ids[0]) + len(ids[1]) > 0
    for svg, known in zip(drawings, ids, strict=True):
        assert {*re.findall(r'(?:href="|url\()#([^")]+)', svg)} <= {*known}
