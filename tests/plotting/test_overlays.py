"""Laws of the overlays: the paper's colours, the right panels, and what does not belong to the case is refused."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from brainsegnet.errors import GridMismatch, LabelError, MissingSequence
from brainsegnet.plotting.overlays import colours, heat_over, overlay, overlay_figure
from brainsegnet.task import BRATS2015, BRATS2021, BRATS2023, ISLES2017, ISLES2022, TASKS, Task
from brainsegnet.volume import Case, LabelMap, Volume

SHAPE = (30, 36, 34)


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


def test_prediction_and_truth_are_drawn_where_they_are():
    case, labels = patient()
    predicted = np.where(labels == 1, 4, 0).astype(np.uint8)
    *_, under, drawn, truth = pictures(overlay_figure(case, predicted, BRATS2015, ["t1c"], "slice"))
    palette = {value: np.array(rgb) for value, rgb in colours(BRATS2015).items()}
    for value in (1, 2, 3):
        assert (truth == palette[value]).all(axis=-1).any()
        assert not (drawn == palette[value]).all(axis=-1).any()
    rows, columns = np.nonzero((drawn == palette[4]).all(axis=-1))
    assert (np.ptp(rows), np.ptp(columns)) == (6, 6)
    assert columns.mean() > under.shape[1] / 2, "a lesion of the patient's left is at the right of the picture"


def test_pictures_keep_the_proportions_of_the_patient():
    case, labels = patient()
    affine = case.reference.affine @ np.diag([3.0, 1.0, 2.0, 1.0])
    stretched = Case("wide", {n: Volume(v.array, affine) for n, v in case.images.items()})
    figure = overlay_figure(stretched, labels, BRATS2015, views="planes")
    panels = [axes for axes in figure.axes if axes.images]
    for axes, plane in zip(panels[:: len(panels) // 3], ((1.0, 2.0), (3.0, 2.0), (3.0, 1.0)), strict=True):
        rows, columns, _ = axes.images[0].get_array().shape
        left, right, bottom, top = axes.images[0].get_extent()
        assert (bottom - top) / (right - left) == pytest.approx(rows * plane[0] / (columns * plane[1]))
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
    assert drawn == {tissue: colours(BRATS2015)[value] for value, tissue in BRATS2015.labels.items()}


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
