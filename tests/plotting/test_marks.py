"""Laws of what is written on slices: true letters and positions on any grid, and bars of an exact length."""

import io
from itertools import permutations

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from brainsegnet.plotting import DrawingOptions
from brainsegnet.plotting.marks import BAR, Marks, choose_bar, describe_length, draw_marks, name_direction
from brainsegnet.plotting.overlays import overlay_figure
from brainsegnet.plotting.slices import arrange, save_figure
from brainsegnet.task import ISLES2022
from brainsegnet.volume import Case, Volume

SPACING = (2.5, 1.0, 0.8)
ORIGIN = (-31.0, 12.0, -7.5)


def head(rotation=None) -> Volume:
    image = np.zeros((16, 20, 18))
    image[3:-3, 4:-4, 5:-5] = np.random.default_rng(5).uniform(1, 2, size=(10, 12, 8))
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, ::-1] * SPACING
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation) @ affine[:3, :3]
    affine[:3, 3] = ORIGIN
    return Volume(image, affine)


def stored_otherwise(volume: Volume, order, flips) -> Volume:
    affine = volume.affine.copy()
    for axis in flips:
        affine[:, 3] += affine[:, axis] * (volume.shape[axis] - 1)
        affine[:, axis] *= -1
    return Volume(np.flip(volume.array, flips).transpose(order), affine[:, [*order, 3]])


def tilt(degrees: float, axis: int):
    """A rotation about an axis of the world."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.eye(3)
    one, two = {0, 1, 2} - {axis}
    matrix[np.ix_((one, two), (one, two))] = [[cosine, -sine], [sine, cosine]]
    return matrix


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
def test_marks_do_not_depend_on_how_the_file_is_stored(order, flips):
    scene = arrange(stored_otherwise(head(), order, flips), [], "planes")
    found = [scene.mark(view) for view in scene.views]
    edges = [(marks.left, marks.right, marks.top, marks.bottom) for marks in found]
    assert edges == [("R", "L", "A", "P"), ("R", "L", "S", "I"), ("A", "P", "S", "I")]
    assert [marks.position for marks in found] == [mark.position for mark in marks_of(head())]


def marks_of(volume):
    scene = arrange(volume, [], "planes")
    return [scene.mark(view) for view in scene.views]


def test_a_position_is_that_of_the_voxel_in_the_world():
    """A marked voxel is in the slice that the guide chooses, and its place is what the affine says."""
    volume, guide = head(), np.zeros((16, 20, 18))
    guide[6, 9, 11] = 1
    scene = arrange(volume, [guide], "planes")
    x, y, z = (volume.affine @ (6, 9, 11, 1))[:3]
    assert (x, y, z) == pytest.approx((-31 + 11 * 0.8, 12 + 9, -7.5 + 6 * 2.5))
    assert [scene.mark(view).position for view in scene.views] == ["S 7.5 mm", "P 21.0 mm", "R 22.2 mm"]


@pytest.mark.parametrize("degrees", [-40, -20, -10, 10, 20, 40])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_letters_of_oblique_slices_name_what_lies_there(degrees, axis):
    """The first letter is the nearest direction of the patient; a second one tells of more than 15 degrees."""
    volume = head(tilt(degrees, axis))
    scene = arrange(volume, [], "planes")
    for view, marks in zip(scene.views, [scene.mark(view) for view in scene.views], strict=True):
        indices = np.stack([view.cut(index) for index in np.indices(scene.box.shape)], axis=-1)
        rows, columns, _ = indices.shape
        places = indices @ scene.affine[:3, :3].T + scene.affine[:3, 3]
        for letters, step in (
            (marks.right, places[rows // 2, -1] - places[rows // 2, 0]),
            (marks.left, places[rows // 2, 0] - places[rows // 2, -1]),
            (marks.top, places[0, columns // 2] - places[-1, columns // 2]),
            (marks.bottom, places[-1, columns // 2] - places[0, columns // 2]),
        ):
            step = step / np.linalg.norm(step)
            shares = {"LR"[int(step[0] < 0)]: abs(step[0]), "PA"[int(step[1] < 0)]: abs(step[1])}
            shares |= {"SI"[int(step[2] < 0)]: abs(step[2])}
            expected = sorted((name for name in shares if shares[name] > 0.2589), key=lambda name: -shares[name])
            assert letters == "".join(expected)
        centre = places[[0, -1], [0, -1]].mean(axis=0)
        along = 2 - view.plane
        letter = ("LR", "PA", "SI")[along][int(round(centre[along], 1) < 0)]
        assert marks.position == f"{letter} {abs(centre[along]):.1f} mm"


def test_a_direction_of_no_length_in_an_axis_has_no_letter_of_it():
    assert name_direction((0, 0, 1)) == "S"


@pytest.mark.parametrize("width_mm", [3.0, 34.0, 60.0, 149.9, 166.7, 180.0, 250.0])
def test_a_bar_is_the_longest_round_length_below_a_third(width_mm):
    length_mm = choose_bar(width_mm)
    assert length_mm <= 0.3 * width_mm < 2.5 * length_mm * 1.01
    unit = 10 if describe_length(length_mm).endswith("cm") else 1
    assert float(describe_length(length_mm).split()[0]) * unit == pytest.approx(length_mm)


@pytest.mark.parametrize("dpi", [100, 150, 400])
def test_a_bar_is_as_long_in_the_file_as_it_says(dpi):
    figure = Figure(figsize=(3, 2), dpi=dpi, facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-5, 145)
    axes.set_ylim(95, -5)
    axes.set_axis_off()
    draw_marks(axes, Marks("", "", "", "", ""), 7)
    for text in list(axes.texts):
        text.remove()
    memory = io.BytesIO()
    figure.savefig(memory, format="png", facecolor="black")
    bright = matplotlib.image.imread(io.BytesIO(memory.getvalue()))[..., 0] > 0.5
    assert bright.any(axis=0).sum() == pytest.approx(20 * 3 * dpi / 150, abs=1)


def test_every_panel_has_letters_position_and_bar(tmp_path):
    volume = head()
    labels = np.zeros(volume.shape, np.uint8)
    labels[6:9, 8:11, 9:11] = 1
    figure = overlay_figure(Case("a", {"dwi": volume, "adc": volume}), labels, ISLES2022, views="planes")
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 9
    for axes, marks in zip(panels, [marks for marks in marks_at(volume, labels) for _ in range(3)], strict=True):
        written = [text.get_text() for text in axes.texts]
        assert written[:5] == [marks.left, marks.right, marks.top, marks.bottom, marks.position]
        (bar,) = [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_gid() == BAR]
        assert describe_length(bar.get_width()) == written[5]
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        assert left < bar.get_x() and bar.get_x() + bar.get_width() < right
        box = axes.get_position()
        wide, tall = figure.get_size_inches()
        assert box.width * wide / (right - left) == pytest.approx(box.height * tall / (low - high)), "one scale"
    save_figure(figure, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().count(f'id="{BAR}"') == 9


def marks_at(volume, labels):
    scene = arrange(volume, [labels], "planes")
    return [scene.mark(view) for view in scene.views]


def test_resolution_is_that_of_the_options():
    volume = head()
    labels = np.zeros(volume.shape, np.uint8)
    sizes = {}
    for dpi in (60, 120):
        figure = overlay_figure(Case("a", {"dwi": volume}), labels, ISLES2022, drawing=DrawingOptions(dpi=dpi))
        sizes[dpi] = figure.axes[0].images[0].get_array().shape
    assert sizes[120][1] == pytest.approx(2 * sizes[60][1], abs=1)
