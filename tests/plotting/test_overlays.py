"""Laws of the overlays: the paper's colours, the right panels, and what does not belong to the case is refused."""

import io

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from brainsegnet.errors import GridMismatch, LabelError, MissingSequence
from brainsegnet.plotting import DrawingOptions
from brainsegnet.plotting.overlays import draw_outlines, heat_over, overlay, overlay_figure
from brainsegnet.plotting.palettes import colours
from brainsegnet.plotting.slices import arrange
from brainsegnet.task import BRATS2015, BRATS2021, BRATS2023, ISLES2017, ISLES2022, TASKS, Task
from brainsegnet.volume import Case, LabelMap, Volume

SHAPE = (30, 36, 34)
PAPER = DrawingOptions(palette="paper")


def ball(radius: float, centre=(15, 18, 20)) -> np.ndarray:
    z, y, x = np.ogrid[tuple(slice(n) for n in SHAPE)]
    return (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2


def patient(names=("flair", "t1", "t1c", "t2"), truth: bool = True) -> tuple[Case, np.ndarray]:
    affine = np.eye(4)[[2, 1, 0, 3]]
    labels = np.zeros(SHAPE, np.uint8)
    for value, radius in ((2, 9), (3, 7), (4, 6), (1, 4)):
        labels[ball(radius)] = value
    brain = ball(14, (15, 18, 17))
    images = {n: Volume(np.where(brain, 90 + 9 * labels + k, 0).astype(np.int16), affine) for k, n in enumerate(names)}
    return Case("pat$1$", images, LabelMap(labels, affine) if truth else None), labels


def pictures(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def hue(rgb: tuple[float, ...]) -> str:
    red, green, blue = rgb
    if min(rgb) > 0.9:
        return "white"
    return max((red, "red"), (green, "green"), (blue, "blue"))[1]


def test_tissues_have_the_colours_of_the_paper():
    names = {task.name: [hue(rgb) for rgb in colours(task).values()] for task in (BRATS2015, BRATS2021, ISLES2017)}
    assert names["brats2015"] == ["red", "green", "blue", "white"]
    assert names["brats2021"] == ["red", "green", "white"]
    assert names["isles2017"] == ["red"]
    assert colours(BRATS2023)[3] == colours(BRATS2021)[4] == colours(BRATS2015)[4]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_label_of_a_task_has_a_colour_of_its_own(task):
    assert list(colours(task)) == list(task.labels)
    assert len(set(colours(task).values())) == len(task.labels)


def test_unknown_tissues_take_distinct_colours_beside_the_known():
    labels = {1: "oedema", 3: "cavity", 5: "bleeding", 9: "cyst", 17: "scar", 30: "pus", 31: "air"}
    task = Task(name="mine", sequences=("t1",), labels=labels, regions={"all": (1, 3)})
    assert len(set(colours(task).values())) == 7
    assert colours(task)[1] == colours(BRATS2015)[2]


def test_a_task_may_bring_its_own_colours_and_lacks_none():
    labels = {1: "oedema", 2: "cyst", 3: "enhancing"}
    task = Task(name="mine", sequences=("t1",), labels=labels, colours={2: "#0A0B0C"}, regions={"all": (1,)})
    assert task.colours == {1: BRATS2015.colours[2], 2: "#0a0b0c", 3: "#ffffff"}
    assert Task.model_validate_json(task.model_dump_json()) == task
    assert colours(task)[2] == (10 / 255, 11 / 255, 12 / 255)
    for wrong, words in (({7: "#000000"}, r"labels \[7\] that are not in"), ({1: "red"}, "pattern")):
        with pytest.raises(ValueError, match=words):
            Task(name="mine", sequences=("t1",), labels=labels, colours=wrong, regions={"all": (1,)})


def test_a_label_is_its_colour_at_the_outline_and_a_blend_inside():
    grey, labels = np.full((9, 9), 0.5), np.zeros((9, 9), np.uint8)
    labels[2:7, 2:7] = 4
    picture = overlay(grey, labels, {4: (0.2, 0.4, 1.0)}, opacity=0.5)
    assert picture[2, 4].tolist() == [0.2, 0.4, 1.0]
    under = picture[0, 0]
    assert under[0] == under[1] == under[2] < 0.5
    assert picture[4, 4] == pytest.approx((under + np.array([0.2, 0.4, 1.0])) / 2)


def test_no_voxel_without_a_label_looks_white():
    picture = overlay(np.ones((4, 4)), np.zeros((4, 4), np.uint8), colours(BRATS2015))
    assert picture.max() < 0.8


@pytest.mark.parametrize(("names", "truth", "columns"), [("abcd", True, 6), ("abcdef", False, 5), ("a", True, 3)])
def test_a_row_for_each_plane_and_a_column_for_each_sequence_and_layer(names, truth, columns):
    case, labels = patient(tuple(names), truth)
    assert len(pictures(overlay_figure(case, labels, BRATS2015))) == 3 * columns
    assert len(pictures(overlay_figure(case, labels, BRATS2015, views="slice"))) == columns


BLACK = (0.0, 0.0, 0.0)


def lines_of(axes) -> dict[tuple[float, ...], np.ndarray]:
    """Colour to the points of the outlines in it, in the order in which they are drawn."""
    found = {}
    for lines in axes.collections:
        colour = tuple(float(part) for part in lines.get_edgecolor()[0][:3])
        found[colour] = np.concatenate([path.vertices for path in lines.get_paths()])
    return found


def test_prediction_and_truth_are_drawn_where_they_are():
    case, labels = patient()
    predicted = np.where(labels == 1, 4, 0).astype(np.uint8)
    figure = overlay_figure(case, predicted, BRATS2015, ["t1c"], "slice", PAPER)
    scan, drawn, truth = [lines_of(axes) for axes in figure.axes if axes.images]
    palette = colours(BRATS2015)
    assert (scan, {*drawn}, {*truth}) == ({}, {BLACK, palette[4]}, {BLACK, *palette.values()})
    assert np.ptp(drawn[palette[4]], axis=0) == pytest.approx((6.5, 6.5)), "7 voxels of 1 mm, and a quarter inside"
    middle_mm = figure.axes[0].images[0].get_extent()[1] / 2
    assert drawn[palette[4]][:, 0].mean() > middle_mm, "a lesion of the patient's left is at the right of the picture"
    under = pictures(figure)[0]
    blend = 0.4 * 0.7 * under + 0.6
    painted = np.isclose(pictures(figure)[1], blend).all(axis=-1) | (pictures(figure)[1] == palette[4]).all(axis=-1)
    inside = painted & (under[..., 0] > 0)
    assert inside.sum() / inside.size == pytest.approx((predicted[15] > 0).sum() / area_mm2(figure), rel=0.05)


def area_mm2(figure: Figure) -> float:
    left, right, lower, upper = figure.axes[0].images[0].get_extent()
    return abs((right - left) * (lower - upper))


def test_outlines_alone_leave_the_scan_as_it_is():
    case, labels = patient()
    scan, drawn, truth = pictures(
        overlay_figure(case, labels, BRATS2015, ["t1c"], "slice", DrawingOptions(outline=True))
    )
    assert np.array_equal(scan, drawn) and np.array_equal(scan, truth)


@pytest.mark.parametrize("palette", ["safe", "paper"])
def test_every_outline_has_a_black_edge_on_either_side(palette):
    """On white, where white lines would be lost: a line through the outline meets black, the colour and black."""
    found = colours(BRATS2015, palette)
    for value, colour in found.items():
        figure = Figure(figsize=(2, 2), dpi=300)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.imshow(np.ones((20, 20, 3)))
        labels = np.zeros((20, 20), np.uint8)
        labels[5:15, 5:15] = value
        draw_outlines(axes, labels, (-0.5, 19.5, 19.5, -0.5), found)
        memory = io.BytesIO()
        figure.savefig(memory, format="png")
        row = matplotlib.image.imread(io.BytesIO(memory.getvalue()))[300, :300, :3]
        is_black, is_colour = (np.abs(row - tone).max(axis=1) < 0.02 for tone in (BLACK, colour))
        assert is_colour.any() and is_black[: is_colour.argmax()].any() and is_black[is_colour.argmax() :].any()


def test_pictures_keep_the_proportions_of_the_patient():
    case, labels = patient()
    affine = case.reference.affine @ np.diag([3.0, 1.0, 2.0, 1.0])
    stretched = Case("wide", {n: Volume(v.array, affine) for n, v in case.images.items()})
    figure = overlay_figure(stretched, labels, BRATS2015, views="planes")
    panels = [axes for axes in figure.axes if axes.images]
    scene = arrange(stretched.images["flair"], [labels], "planes")
    for axes, view in zip(panels[:: len(panels) // 3], scene.views, strict=True):
        rows, columns, _ = axes.images[0].get_array().shape
        left, right, bottom, top = axes.images[0].get_extent()
        assert (bottom - top, right - left) == view.size_mm((3.0, 1.0, 2.0), scene.box.shape)
        assert (bottom - top) / (right - left) == pytest.approx(rows / columns, rel=0.01)
        assert axes.get_aspect() == 1


def test_the_title_tells_case_and_dice_or_volume():
    case, labels = patient()
    text = [t.get_text() for t in overlay_figure(case, labels, BRATS2015).texts]
    assert any("whole 1.00, " in t and "enhancing 1.00, " in t for t in text)
    unknown, _ = patient(truth=False)
    text = [t.get_text() for t in overlay_figure(unknown, labels, BRATS2015).texts]
    millilitres = np.count_nonzero(labels) / 1000
    assert any(f"whole {millilitres:.1f} ml" in t and "Dice" not in t for t in text)


def test_the_key_names_every_tissue_in_its_colour():
    case, labels = patient()
    (key,) = overlay_figure(case, labels, BRATS2015).legends
    drawn = {t.get_text(): p.get_facecolor()[:3] for t, p in zip(key.get_texts(), key.get_patches(), strict=True)}
    assert drawn == {tissue: colours(BRATS2015, "safe")[value] for value, tissue in BRATS2015.labels.items()}


def test_nothing_found_still_makes_a_picture():
    case, labels = patient(truth=False)
    assert len(pictures(overlay_figure(case, np.zeros_like(labels), BRATS2015))) == 15


def test_results_that_do_not_belong_to_the_case_are_refused():
    case, labels = patient()
    with pytest.raises(GridMismatch, match=r"case pat\$1\$: the result is \(29, 36, 34\)"):
        overlay_figure(case, labels[1:], BRATS2015)
    with pytest.raises(LabelError, match="label values"):
        overlay_figure(case, labels + 5, BRATS2015)
    with pytest.raises(LabelError, match="label values"):
        overlay_figure(case, np.zeros_like(labels), ISLES2022)
    with pytest.raises(MissingSequence, match="no dwi to show; choose from flair, t1, t1c, t2"):
        overlay_figure(case, labels, BRATS2015, ["dwi"])


def test_probability_is_clear_at_zero_and_coloured_above():
    grey = np.full((2, 3), 0.3)
    heat = heat_over(grey, np.array([[0.0, 0.2, 0.4], [0.6, 0.8, 1.0]]), "inferno")
    assert heat[0, 0] == pytest.approx([0.3, 0.3, 0.3])
    assert heat[1, 2].sum() > heat[1, 1].sum() > heat[1, 0].sum() > heat[0, 2].sum()
    assert np.ptp(heat[0, 1]) > 0.1
