"""Laws of the cuts: one anatomy gives one picture, in whatever order and direction the file stores it.

Figures are whole files of equal bytes, and nothing leaves a drawing inside HTML.
"""

import io
import re
from itertools import permutations
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from brainsegnet.errors import OutputError
from brainsegnet.plotting.slices import MARGIN_VOXELS, arrange, inline_svg, literal, save_figure
from brainsegnet.preprocessing.geometry import Turn
from brainsegnet.volume import Volume

NASTY = "<b>&\"'pat$1$</b>"


def head(shape=(16, 20, 18), spacing_mm=(1.0, 1.0, 1.0)) -> Volume:
    image = np.zeros(shape)
    image[3:-3, 4:-4, 5:-5] = np.random.default_rng(5).uniform(1, 2, size=[n - 6 - 2 * a for a, n in enumerate(shape)])
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]], affine[3, 3] = spacing_mm, 1
    return Volume(image, affine)


def stored_otherwise(volume: Volume, order: tuple[int, ...], flips: tuple[int, ...]) -> Volume:
    """The same anatomy with axes in another order and direction, and an affine that says so."""
    affine = volume.affine.copy()
    for axis in flips:
        affine[:, 3] += affine[:, axis] * (volume.shape[axis] - 1)
        affine[:, axis] *= -1
    array = np.flip(volume.array, flips).transpose(order)
    return Volume(array, affine[:, [*order, 3]])


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
def test_pictures_do_not_depend_on_how_the_file_is_stored(order, flips):
    volume = head(spacing_mm=(1.5, 1.0, 0.8))
    stored = stored_otherwise(volume, order, flips)
    expected, scene = arrange(volume, [], "planes"), arrange(stored, [], "planes")
    assert scene.spacing_mm == pytest.approx((1.5, 1.0, 0.8))
    for a, b in zip(expected.views, scene.views, strict=True):
        assert (a.plane, b.plane) in {(0, 0), (1, 1), (2, 2)}
        assert np.array_equal(a.cut(expected.turn(volume.array)), a.cut(scene.turn(stored.array)))


def test_axial_slices_have_right_at_left_and_the_others_the_head_up():
    volume = head()
    scene = arrange(volume, [], "planes")
    corners = np.zeros(scene.box.shape)
    corners[-1, 0, 0] = 1  # head, nose, right
    axial, coronal, sagittal = scene.views
    for view, index in ((axial, scene.box.shape[0] - 1), (coronal, 0), (sagittal, 0)):
        picture = type(view)(view.plane, index).cut(corners)
        assert picture[0, 0] == 1, view


def test_an_oblique_scan_is_turned_to_the_nearest_planes():
    volume = head()
    tilt = np.deg2rad(20)
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    affine = volume.affine.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    scene = arrange(Volume(volume.array, affine), [], "slice")
    assert scene.how == Turn()


def test_slices_go_through_the_most_of_the_first_guide_that_is_not_empty():
    volume = head()
    empty, guide = np.zeros((2, *volume.shape), np.uint8)
    guide[7, 8:12, 9], guide[9, 10, 8:12], guide[8, 8:12, 8:12] = 1, 2, 4
    (view,) = arrange(volume, [empty, guide, np.ones_like(guide)], "slice").views
    assert view.cut(arrange(volume, [guide], "slice").turn(guide)).sum() == 16 * 4


def test_the_box_holds_brain_and_lesion():
    volume = head((40, 40, 40))
    lesion = np.zeros(volume.shape, np.uint8)
    lesion[5, 5, 1] = 1
    scene = arrange(volume, [lesion], "auto")
    assert scene.box.start == (0, 0, 0)
    assert scene.box.stop == tuple(min(40, 40 - edge + MARGIN_VOXELS) for edge in (3, 4, 5))
    assert scene.turn(lesion).sum() == 1
    assert np.count_nonzero(scene.turn(volume.array)) == np.count_nonzero(volume.array)


@pytest.mark.parametrize("place", [0, 1, 9, 18, 19])
def test_thick_slices_are_shown_side_by_side(place):
    volume = head((20, 24, 24), (6.5, 1.2, 1.2))
    lesion = np.zeros(volume.shape, np.uint8)
    lesion[place, 8:12, 8:12] = 1
    scene = arrange(volume, [lesion], "auto")
    assert [view.plane for view in scene.views] == [0, 0, 0]
    assert [a.index - b.index for a, b in zip(scene.views, scene.views[1:], strict=False)] == [1, 1]
    assert sum(view.cut(scene.turn(lesion)).any() for view in scene.views) == 1


def test_sizes_are_in_millimetres():
    scene = arrange(head((20, 24, 26), (3.0, 1.0, 2.0)), [], "planes")
    d, h, w = scene.box.shape
    sizes_mm = [view.size_mm(scene.spacing_mm, scene.box.shape) for view in scene.views]
    assert sizes_mm == [(h * 1.0, w * 2.0), (d * 3.0, w * 2.0), (d * 3.0, h * 1.0)]


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (300.0, 0.0), (1.0, -3.2)])
def test_grey_fills_the_range_and_the_surroundings_are_black(scale, offset):
    volume = head()
    image = Volume(volume.array * scale + offset, volume.affine)
    scene = arrange(image, [], "slice")
    grey, brain = scene.grey(image), scene.turn(volume.array) > 0
    assert (grey.min(), grey.max()) == (0, 1)
    assert not grey[~brain].any()
    assert 0.4 < grey[brain].mean() < 0.6


def test_a_constant_image_is_black_and_whole():
    image = Volume(np.full((4, 5, 6), 7.0), head().affine)
    scene = arrange(image, [], "planes")
    assert scene.box.shape == (4, 5, 6)
    assert not scene.grey(image).any()


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
