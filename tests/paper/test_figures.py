"""Laws of the paper's figures: the colours of the task, the slice that was meant, and upright whatever the file."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

from brainsegnet.errors import DatasetError, GridMismatch, ImageError
from brainsegnet.paper.figure_cases import cut_strip
from brainsegnet.paper.figures import comparison_figure, describe, probability_row_figure
from brainsegnet.plotting.palettes import colours
from brainsegnet.plotting.slices import save_figure
from brainsegnet.task import BRATS2015, Task
from brainsegnet.volume import Case, LabelMap, Volume

SHAPE = (20, 36, 30)
AFFINE = np.eye(4)[[2, 1, 0, 3]]


def patient(names=("flair", "t1c", "t2"), name="pat1"):
    z, y, x = np.ogrid[tuple(slice(n) for n in SHAPE)]
    brain = (z - 10) ** 2 / 60 + (y - 18) ** 2 / 200 + (x - 15) ** 2 / 150 < 1
    labels = np.zeros(SHAPE, np.uint8)
    labels[9:13, 14:22, 17:23] = 2
    labels[11, 13:24, 16:24] = 2
    labels[10:12, 16:20, 18:20] = 4
    labels[11, 17, 18] = 1
    labels[11, 17, 21] = 3
    images = {n: Volume(np.where(brain, 100 + k, 0).astype(np.int16), AFFINE) for k, n in enumerate(names)}
    return Case(name, images, LabelMap(labels, AFFINE))


def turned(case, flips):
    """The same patient stored along other directions."""
    step = tuple(slice(None, None, -1 if f else 1) for f in flips)
    change = np.eye(4)
    for axis, flip in enumerate(flips):
        if flip:
            change[axis, axis], change[axis, 3] = -1, SHAPE[axis] - 1
    affine = AFFINE @ change
    images = {n: Volume(v.array[step], affine) for n, v in case.images.items()}
    return Case(case.name, images, LabelMap(case.lesion.array[step], affine))


def tiles(figure):
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def texts(figure):
    return [t.get_text() for axes in figure.axes for t in (*axes.texts, axes.title)] + [
        t.get_text() for t in figure.texts
    ]


def test_the_slice_with_most_lesion_is_chosen_and_named():
    strip = cut_strip(patient(), {"a": np.zeros(SHAPE, np.uint8)})
    assert (strip.index, strip.why) == (11, "with most lesion in the truth")
    assert "pat1: 11" in describe([strip])
    assert set(np.unique(strip.layers["truth"])) == {0, 1, 2, 3, 4}
    unknown = Case("pat1", patient().images)
    found = np.zeros(SHAPE, np.uint8)
    found[7, 15:20, 15:20] = 4
    assert cut_strip(unknown, {"a": found}).why == "with most lesion in the prediction “a”"
    assert cut_strip(unknown, {"a": found}).index == 7
    assert "no lesion" in cut_strip(unknown, {"a": found * 0}).why
    assert cut_strip(patient(), {}, index=9).why == "as named"


@pytest.mark.parametrize("flips", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])
def test_how_the_file_is_stored_changes_nothing(flips):
    case = patient()
    other = turned(case, flips)
    one, two = (cut_strip(c, {"a": c.lesion.array}) for c in (case, other))
    assert one.index == two.index
    assert all(np.array_equal(one.layers[n], two.layers[n]) for n in one.layers)
    assert all(np.array_equal(one.greys[n], two.greys[n]) for n in one.greys)


def test_lesion_voxels_have_the_colours_of_the_task_in_the_png(tmp_path):
    mine = BRATS2015.model_copy(update={"colours": {1: "#102030", 2: "#a0b0c0", 3: "#ff00aa", 4: "#00ffaa"}})
    for task in (BRATS2015, mine):
        case = patient()
        figure = comparison_figure([cut_strip(case, {"model": case.lesion.array})], task)
        found, truth = tiles(figure)[-2:]
        assert np.array_equal(found, truth)
        save_figure(figure, tmp_path / "four.png", 300)
        drawn = (matplotlib.image.imread(tmp_path / "four.png")[..., :3] * 255).round().astype(int).reshape(-1, 3)
        for value, colour in colours(task).items():
            area = (case.lesion.array[11] == value).sum() * 9
            assert (np.abs(truth - colour).max(axis=-1) < 1e-9).sum() == area > 0, "nine pixels a voxel, inside too"
            wanted = np.round(np.array(colour) * 255).astype(int)
            assert (np.abs(drawn - wanted).max(axis=-1) <= 1).sum() > 20, (task.colours[value], value)


def test_a_left_lesion_is_at_the_right_of_every_tile():
    strip = cut_strip(patient(), {"model": patient().lesion.array})
    figure = comparison_figure([strip], BRATS2015)
    green = (np.abs(tiles(figure)[-1] - colours(BRATS2015)[2]).max(axis=-1) < 1e-9).nonzero()
    assert green[1].mean() > tiles(figure)[-1].shape[1] / 2


def test_columns_are_the_papers_and_what_is_missing_is_not_invented():
    cases = [patient(), patient(("flair", "t1c"), "pat2")]
    strips = [cut_strip(c, {"without focal": c.lesion.array, "with focal": c.lesion.array}) for c in cases]
    figure = comparison_figure(strips, BRATS2015)
    named = texts(figure)
    for heading in ("(a) FLAIR", "(b) T1c", "(c) T2", "(d) without focal", "(e) with focal", "(f) truth", "no T2"):
        assert heading in named
    assert len(tiles(figure)) == 12 and len({tile.shape for tile in tiles(figure)}) == 1
    assert tiles(figure)[8].max() == 0
    lone = comparison_figure(strips[1:], BRATS2015)
    assert len(tiles(lone)) == 5 and "(c) without focal" in texts(lone) and "no T2" not in texts(lone)


def test_tiles_of_all_cases_have_one_scale_and_stand_in_line():
    thick = replace(patient(name="thick"))
    stretched = {n: Volume(v.array, AFFINE @ np.diag([1, 2, 2, 1])) for n, v in thick.images.items()}
    cases = [patient(), Case("thick", stretched, LabelMap(thick.lesion.array, AFFINE @ np.diag([1, 2, 2, 1])))]
    figure = comparison_figure([cut_strip(c, {"m": c.lesion.array}) for c in cases], BRATS2015)
    boxes = [axes.get_position() for axes in figure.axes if axes.images]
    assert len({(round(b.width, 6), round(b.height, 6)) for b in boxes}) == 1
    assert len({round(b.x0, 6) for b in boxes}) == 5 and len({round(b.y0, 6) for b in boxes}) == 2
    small, large = ((tile != tile[..., :1]).any(axis=-1).sum() for tile in (tiles(figure)[4], tiles(figure)[9]))
    assert large == pytest.approx(4 * small, rel=0.05)


def test_svg_is_well_formed_and_the_same_twice(tmp_path):
    strip = cut_strip(patient(name="a<b>&$c$"), {"m": patient().lesion.array})
    for name in ("one.svg", "two.svg"):
        save_figure(comparison_figure([strip], BRATS2015), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    root = ET.parse(tmp_path / "one.svg").getroot()
    assert root.tag.endswith("svg") and len([e for e in root.iter() if e.tag.endswith("}image")]) == 5


def test_probability_is_a_colour_map_with_a_bar_under_the_truth():
    case = patient(("adc",))
    certain = (case.lesion.array > 0).astype(np.float32)
    figure = probability_row_figure([cut_strip(case, {"prediction": certain})], "prediction")
    truth, heat = tiles(figure)
    assert np.ptp(heat, axis=-1).max() > 0.5 and truth.shape == heat.shape
    assert len(tiles(probability_row_figure([cut_strip(case, {"p": certain})] * 3, "p"))) == 6
    ticks = [t.get_text() for axes in figure.axes if not axes.images for t in axes.get_yticklabels()]
    assert ticks == ["0", "0.25", "0.5", "0.75", "1"] and "probability" in texts(figure)
    blank = probability_row_figure([cut_strip(case, {"p": certain * 0})], "p")
    assert np.ptp(tiles(blank)[1], axis=-1).max() == 0, "where the probability is 0 the scan stays grey"


def test_what_cannot_be_shown_is_refused():
    case = patient()
    with pytest.raises(DatasetError, match=r"case pat1: slice 99 shows no brain; choose one from \d+ to \d+"):
        cut_strip(case, {}, index=99)
    with pytest.raises(GridMismatch, match="case pat1: m is"):
        cut_strip(case, {"m": case.lesion.array[1:]})
    with pytest.raises(ImageError, match="between 0 and 1, not 0 and 2"):
        probability_row_figure([cut_strip(case, {"p": 2.0 * (case.lesion.array > 0)})], "p")
    for draw in (lambda: comparison_figure([], BRATS2015), lambda: probability_row_figure([], "p")):
        with pytest.raises(DatasetError, match="no slice to show"):
            draw()


def test_a_task_of_other_sequences_shows_its_own():
    task = Task(name="ms", sequences=("pd", "t1"), labels={1: "plaque"}, regions={"all": (1,)})
    case = patient(("pd", "t1"))
    strip = cut_strip(Case("p", case.images, LabelMap((case.lesion.array > 0).astype(np.uint8), AFFINE)), {})
    assert "(a) PD" in texts(comparison_figure([strip], task))
