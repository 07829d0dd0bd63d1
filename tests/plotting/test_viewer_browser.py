"""The page in a browser, without WebGL: what is shown is what is in the files, and keys and pointer do what they say.

A picture is read from the canvases, so these tests see pixels change, not only that the page loads.
"""

import base64
import gzip
import time

import nibabel
import numpy as np
import pytest

from brainsegnet.io.images import write_image
from brainsegnet.plotting.result import view
from brainsegnet.plotting.viewer import Shown, show
from brainsegnet.preprocessing.geometry import Turn, turn
from brainsegnet.task import BRATS2021
from brainsegnet.volume import LabelMap, Volume
from browser import Browser, find_browser

SHAPE = (16, 40, 32)
AFFINE = np.array([[0, 0, 0.9, -11], [0, 1.1, 0, -20], [2.5, 0, 0, 7], [0, 0, 0, 1.0]])
SPOT = (12, 8, 6)
"""A bright place high up, at the front and at the right of the patient; index (D, H, W) of an upright grid."""
AXIAL, CORONAL, SAGITTAL = range(3)


@pytest.fixture(scope="module")
def program():
    found = find_browser()
    if found is None:
        pytest.skip("no Chromium is installed; the page is not driven")
    return found


@pytest.fixture(scope="module")
def scans():
    """Two images: one of few values, one of many; and a label map and a truth with two lesions of different size."""
    rng = np.random.default_rng(4)
    few, many = np.zeros(SHAPE, np.int16), np.zeros(SHAPE, np.float32)
    few[1:-1, 3:-3, 3:-3] = rng.integers(1, 150, (14, 34, 26))
    many[1:-1, 3:-3, 3:-3] = rng.normal(900, 120, (14, 34, 26))
    few[SPOT[0] - 1 : SPOT[0] + 2, SPOT[1] - 2 : SPOT[1] + 3, SPOT[2] - 2 : SPOT[2] + 3] = 1000
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:10, 20:30, 18:26], labels[6:8, 23:27, 20:23] = 2, 4
    labels[12, 30:32, 6] = 1
    truth = np.roll(labels, 3, axis=1)
    names = {"flair": few, "t1c": many}
    images = {name: Volume(array, AFFINE) for name, array in names.items()}
    share = Volume(np.where(labels > 0, 0.8, 0.0).astype(np.float32), AFFINE)
    return images, LabelMap(labels, AFFINE), LabelMap(truth, AFFINE), share


@pytest.fixture(scope="module")
def folder(scans, tmp_path_factory):
    """The files, stored with other axes than upright, and the page."""
    images, labels, truth, share = scans
    how = Turn((1, 2, 0), (True, False, True))
    home = tmp_path_factory.mktemp("viewer")
    for name, volume in {**images, "labels": labels, "truth": truth}.items():
        write_image(turn(volume, how), home / f"{name}.nii.gz")
    given = [home / f"{name}.nii.gz" for name in images]
    view(home / "labels.nii.gz", home / "files.html", given, home / "truth.nii.gz", "brats2021")
    maps = {"background": share.with_array(1 - share.array), "entropy": share}
    show(Shown("pat1", labels, BRATS2021, images, maps, truth)).save(home / "v.html")
    show(Shown("pat1", labels.with_labels(0 * labels.array), BRATS2021, images)).save(home / "empty.html")
    return home


@pytest.fixture(scope="module")
def opened(program, tmp_path_factory):
    with Browser(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(opened, folder):
    """The page of the results in memory, freshly opened at 1280 pixels. At the end, nothing went wrong in it."""
    opened.resize(1280, 900)
    return_to(opened, folder / "v.html")
    yield opened
    assert opened.errors == [] and opened.requests == []


def return_to(browser, path):
    browser.open(path)
    browser.wait("window.viewer && viewer.loaded && document.readyState === 'complete'")
    browser.settle()


def picture(page, plane):
    """Pixels (H, W, 4) of a canvas."""
    script = (
        f"(c => [c.width, c.height, btoa(Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data, "
        f"b => String.fromCharCode(b)).join(''))])(document.querySelectorAll('canvas')[{plane}])"
    )
    width, height, text = page.run(script)
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)


def place(page):
    return page.run("viewer.state.place")


def point_of(page, plane, voxel):
    """Point of the page where a voxel (w, h, d) is drawn."""
    return tuple(
        page.run(
            f"(([x, y], b) => [b.left + x / devicePixelRatio, b.top + y / devicePixelRatio])"
            f"(viewer.toScreen({plane}, {[int(one) for one in voxel]}), "
            f"document.querySelectorAll('canvas')[{plane}].getBoundingClientRect())"
        )
    )


def said(page):
    return page.run("document.getElementById('read').innerText.replaceAll('\\u2212', '-')")


def changed(page, plane, act):
    before = picture(page, plane)
    act()
    page.settle()
    return not np.array_equal(before, picture(page, plane))


def test_value_and_position_are_those_of_nibabel_wherever_the_cross_hair_is(opened, folder):
    return_to(opened, folder / "files.html")
    labels = nibabel.nifti1.load(folder / "labels.nii.gz")
    images = [nibabel.nifti1.load(folder / f"{name}.nii.gz") for name in ("flair", "t1c")]
    names = {0: "no lesion", 1: "necrosis + non-enhancing", 2: "oedema", 4: "enhancing"}
    rng = np.random.default_rng(0)
    for number, image in enumerate(images):
        opened.press(str(number + 1))
        step = opened.run(f"viewer.meta.images[{number}].step || 0")
        for _ in range(6):
            target = [int(rng.integers(n)) for n in opened.run("viewer.meta.shape")]
            opened.run(f"viewer.go({target})")
            opened.settle()
            text, voxel = said(opened), opened.run("viewer.state.place")
            voxel = tuple(np.array(text.split("voxel ")[1].split(", "), int))
            found = text.split("no lesion")[0].split("oedema")[0].split()[1:]
            value, expected = float(found[-1] if len(found) > 1 else found[0].split("\n")[0]), image.get_fdata()[voxel]
            if step and found[0] in "≤≥":
                assert value <= expected if found[0] == "≥" else value >= expected
            else:
                assert abs(value - expected) <= step
            assert names[int(labels.get_fdata()[voxel])] in text
            mm = nibabel.affines.apply_affine(image.affine, voxel)
            assert [float(one) for one in text.split("x, y, z ")[1].split(" mm")[0].split(", ")] == pytest.approx(
                mm, abs=0.0501
            )
    assert opened.errors == [] and opened.requests == []


def test_right_is_at_the_left_and_the_head_is_up(page):
    page.run(f"viewer.go({[*SPOT[::-1]]})")
    page.press("x")
    page.press("l")
    page.press("t")
    where = {AXIAL: (True, True), CORONAL: (True, True), SAGITTAL: (True, True)}
    for plane, (is_left, is_up) in where.items():
        pixels = picture(page, plane)[..., 0]
        height, width = pixels.shape
        inner = pixels[height // 10 : -height // 10, width // 10 : -width // 10]
        low, right = (inner > 250).nonzero()
        assert ((right.mean() < inner.shape[1] / 2), (low.mean() < inner.shape[0] / 2)) == (is_left, is_up)


def test_the_sides_are_written_on_every_picture(page):
    page.run(
        "window.written = []; CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {"
        "written.push([text, x / this.canvas.width, y / this.canvas.height]); }"
    )
    page.press("x")
    written = page.run("written")
    for number, (left, right, top, bottom) in enumerate([[*"RLAP"], [*"RLSI"], [*"APSI"]]):
        at = {text: (x, y) for text, x, y in written[5 * number : 5 * number + 5]}
        assert at[left][0] < 0.1 and at[right][0] > 0.9 and at[top][1] < 0.1 and at[bottom][1] > 0.9
        assert sum(text.endswith(" mm") for text in at) == 1


def test_the_bar_is_as_long_as_it_says(page):
    """Of a large plane, so that a pixel more or less counts little."""
    page.run(
        "window.lines = []; window.texts = []; const lineTo = CanvasRenderingContext2D.prototype.lineTo;"
        "CanvasRenderingContext2D.prototype.moveTo = function (x, y) { this.from = x; };"
        "CanvasRenderingContext2D.prototype.lineTo = function (x, y) { lines.push(x - this.from); };"
        "CanvasRenderingContext2D.prototype.fillText = function (text) { texts.push(text); }"
    )
    page.press("x")
    mm = [float(text.split()[0]) for text in page.run("texts") if text.endswith(" mm")]
    lengths = page.run("lines.slice(0, 1)")
    (x0, _), (x1, _) = (page.run(f"viewer.toScreen(0, [{w}, 0, 0])") for w in (0, 10))
    assert lengths[0] == pytest.approx(mm[0] * (x1 - x0) / (10 * 0.9), rel=0.01)


def test_a_click_moves_the_cross_hair_to_the_voxel_and_the_other_planes_follow(page):
    for plane, voxel in ((AXIAL, [5, 9, None]), (CORONAL, [20, None, 3]), (SAGITTAL, [None, 30, 12])):
        full = [one if one is not None else place(page)[axis] for axis, one in enumerate(voxel)]
        others = [picture(page, other) for other in range(3) if other != plane]
        page.drag(point_of(page, plane, full))
        assert place(page) == full
        after = [picture(page, other) for other in range(3) if other != plane]
        assert not any(np.array_equal(a, b) for a, b in zip(others, after, strict=True))
    page.drag(point_of(page, AXIAL, [5, 9, place(page)[2]]), point_of(page, AXIAL, [11, 15, place(page)[2]]))
    assert place(page)[:2] == [11, 15]


@pytest.mark.parametrize(("plane", "axis"), [(AXIAL, 2), (CORONAL, 1), (SAGITTAL, 0)])
def test_the_wheel_goes_through_the_slices_of_its_plane(page, plane, axis):
    before, point = place(page), point_of(page, plane, place(page))
    assert changed(page, plane, lambda: page.wheel(point, 100))
    after = place(page)
    assert after[axis] == before[axis] - 1 and sum(a != b for a, b in zip(before, after, strict=True)) == 1
    page.wheel(point, -100)
    page.wheel(point, -100)
    assert place(page)[axis] == before[axis] + 1


def test_keys_alone_move_in_the_plane_that_has_the_focus(page):
    start = place(page)
    page.run("document.querySelectorAll('canvas')[0].focus()")
    for key, axis, by in (("ArrowLeft", 0, -1), ("ArrowDown", 1, 1), ("PageUp", 2, 1)):
        before = place(page)
        page.press(key)
        assert [b - a for a, b in zip(before, place(page), strict=True)] == [by if i == axis else 0 for i in range(3)]
    page.run("document.querySelectorAll('canvas')[2].focus()")
    for key, axis, by in (("ArrowRight", 1, 1), ("ArrowUp", 2, 1), ("PageDown", 0, -1)):
        before = place(page)
        page.press(key)
        assert [b - a for a, b in zip(before, place(page), strict=True)] == [by if i == axis else 0 for i in range(3)]
    assert place(page) != start
    page.run("document.activeElement.blur()")
    seen = set()
    for _ in range(40):
        page.press("Tab")
        seen.add(page.run("document.activeElement.id || document.activeElement.tagName"))
    assert {"CANVAS", "BUTTON", "INPUT", "region", "map", "opacity", "download"} <= seen


def test_every_sequence_has_a_key_and_says_that_it_is_shown(page):
    assert changed(page, AXIAL, lambda: page.press("2"))
    assert page.run("document.querySelector('[aria-pressed=true]').innerText").startswith("T1c")
    assert said(page).startswith("T1c")
    assert not changed(page, AXIAL, lambda: page.press("7"))


@pytest.mark.parametrize("key", ["l", "o", "t", "r", "p", "f", "F", "b", "B", "k", "K", "x", "+", "n"])
def test_every_key_changes_the_picture(page, key):
    assert changed(page, AXIAL, lambda: page.press(key))


@pytest.mark.parametrize("key", ["l", "o", "t", "x"])
def test_what_is_switched_off_and_on_is_as_it_was(page, key):
    def twice():
        page.press(key)
        page.press(key)

    assert not changed(page, AXIAL, twice)


def test_tissues_are_switched_off_one_by_one(page):
    assert changed(page, AXIAL, lambda: page.run("document.querySelector('[data-value=\"2\"]').click()"))
    page.run("viewer.go([21, 25, 6])")  # enhancing tissue, which slice 5 of the largest diameter has not
    page.settle()
    white = (picture(page, AXIAL)[..., :3] == (255, 255, 255)).all(-1).sum()
    page.run("document.querySelector('[data-value=\"4\"]').click()")
    page.settle()
    assert (picture(page, AXIAL)[..., :3] == (255, 255, 255)).all(-1).sum() < white


def test_a_region_is_one_colour_and_a_map_has_a_scale(page):
    page.press("r")
    assert page.run("document.getElementById('region').selectedOptions[0].text") == "whole"
    assert ((picture(page, AXIAL)[..., :3] - np.array([255, 196, 0])) ** 2).sum(-1).min() < 100
    assert page.run("document.getElementById('scale').hidden")
    page.press("p")
    page.settle()
    assert not page.run("document.getElementById('scale').hidden")
    assert "any lesion 0.80" in said(page)


def test_a_drag_with_the_right_button_or_w_sets_window_and_level(page):
    at = point_of(page, AXIAL, place(page))
    window = page.run("viewer.state.windows[0]")
    assert changed(page, AXIAL, lambda: page.drag(at, (at[0] + 60, at[1]), "right"))
    wider = page.run("viewer.state.windows[0]")
    assert wider[1] - wider[0] > window[1] - window[0] and sum(wider) == pytest.approx(sum(window))
    page.press("w")
    stayed = place(page)
    page.drag(at, (at[0], at[1] + 60))
    lower = page.run("viewer.state.windows[0]")
    assert lower[1] - lower[0] == pytest.approx(wider[1] - wider[0]) and lower[0] > wider[0] and place(page) == stayed
    page.press("0")
    assert page.run("viewer.state.windows[0]") == window


def test_the_list_leads_to_each_lesion(page):
    values = page.run("[...document.querySelectorAll('[data-place]')].map(one => one.innerText)")
    assert len(values) == 2 and values[0].startswith("1.0 ml")
    places = []
    for number in (1, 0):
        page.run(f"document.querySelectorAll('[data-place]')[{number}].click()")
        page.settle()
        places.append(place(page))
        assert "no lesion" not in said(page).split("truth")[0]
    assert places[0] != places[1]
    page.press("n")
    assert place(page) == places[0]
    page.press("N")
    assert place(page) == places[1]


def test_the_cross_hair_starts_in_the_largest_lesion(page, scans):
    w, h, d = (a + b for a, b in zip(place(page), page.run("viewer.meta.toVoxel.map(r => r[3])"), strict=True))
    assert scans[1].array[d, h, w] in (2, 4)


def test_zoom_keeps_the_cross_hair_in_sight(page):
    for _ in range(8):
        page.press("+")
    page.run("viewer.go([0, 0, 0])")
    page.settle()
    for plane in range(3):
        x, y = page.run(f"viewer.toScreen({plane}, viewer.state.place)")
        width, height = page.run(f"(c => [c.width, c.height])(document.querySelectorAll('canvas')[{plane}])")
        assert 0 <= x <= width and 0 <= y <= height


def test_the_mask_is_downloaded_byte_for_byte(opened, folder, tmp_path):
    return_to(opened, folder / "files.html")
    opened.download_to(tmp_path)
    opened.press("d")
    end = time.monotonic() + 20
    while not (tmp_path / "labels.nii.gz").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert (tmp_path / "labels.nii.gz").read_bytes() == (folder / "labels.nii.gz").read_bytes()
    assert gzip.decompress((tmp_path / "labels.nii.gz").read_bytes())


def test_without_a_lesion_the_middle_is_shown(opened, folder):
    return_to(opened, folder / "empty.html")
    assert place(opened) == [n // 2 for n in opened.run("viewer.meta.shape")]
    opened.press("n")
    opened.press("p")
    assert picture(opened, AXIAL)[..., 0].std() > 10 and opened.errors == []


@pytest.mark.parametrize("width", [1280, 820, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_text_can_be_read(page, width, scheme):
    page.resize(width, 860, 2 if width < 600 else 1)
    page.set_scheme(scheme)
    page.settle()
    assert page.run("document.documentElement.scrollWidth") <= width
    for plane in range(3):
        pixels = picture(page, plane)
        assert min(pixels.shape[:2]) > 100 and pixels[..., 0].std() > 10
    ink, paper = (
        page.run(f"getComputedStyle(document.body).{name}.match(/[0-9]+/g).map(Number)")
        for name in ("color", "backgroundColor")
    )
    assert abs(np.mean(ink) - np.mean(paper)) > 150 and (np.mean(paper) < 60) == (scheme == "dark")


def test_a_change_of_the_plane_that_is_large_keeps_the_place(page):
    before = place(page)
    for key, plane in (("c", CORONAL), ("s", SAGITTAL), ("a", AXIAL)):
        page.press(key)
        page.settle()
        areas = [np.prod(picture(page, one).shape) for one in range(3)]
        assert int(np.argmax(areas)) == plane and place(page) == before
