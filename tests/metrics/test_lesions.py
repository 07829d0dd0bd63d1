"""Diameters of shapes whose diameters are known; grids that are turned, oblique, or of uneven voxels."""

from itertools import permutations, product

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from brainsegnet.errors import LabelError
from brainsegnet.metrics.lesions import ANY_LESION, Site, find_hull, measure_hull, measure_lesions
from brainsegnet.preprocessing.geometry import Turn, turn
from brainsegnet.task import BRATS2021, WHITE_MATTER_LESIONS, Task
from brainsegnet.volume import LabelMap

UPRIGHT = np.eye(4)[[2, 1, 0, 3]]


def draw(shape, spacing, inside, value=4, affine=None):
    """A label map of what is `inside` of x, y, z in millimetres from the middle of the grid."""
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    array = np.where(inside(x, y, z), value, 0).astype(np.uint8)
    return LabelMap(array, UPRIGHT @ np.diag([*spacing, 1.0]) if affine is None else affine)


def ellipse(a, b, degrees, depth=8):
    """A cylinder over an ellipse whose half axes are a and b."""
    angle = np.radians(degrees)

    def inside(x, y, z):
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        return ((along / a) ** 2 + (across / b) ** 2 <= 1) & (abs(z) < depth)

    return inside


@pytest.mark.parametrize("diameter", [10, 20.5, 41])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (3, 0.5, 0.5), (2, 0.9, 1.3)])
def test_a_disc_has_its_diameter_in_every_direction(diameter, spacing):
    labels = draw((20, 120, 120), spacing, ellipse(diameter / 2, diameter / 2, 0))
    (lesion,) = measure_lesions(labels, BRATS2021)
    pixel = max(spacing[1:])
    assert lesion.diameters_mm[0] == pytest.approx(diameter, abs=pixel)
    assert lesion.diameters_mm[1] == pytest.approx(diameter, abs=pixel)
    assert lesion.diameters_mm[0] >= lesion.diameters_mm[1]


@pytest.mark.parametrize("degrees", [0, 17, 45, 90, 120])
def test_an_ellipse_has_its_axes(degrees):
    (lesion,) = measure_lesions(draw((12, 100, 100), (2, 0.7, 0.7), ellipse(22, 9, degrees)), BRATS2021)
    assert lesion.diameters_mm == pytest.approx((44, 18), abs=0.7)


def test_a_row_of_ten_voxels_is_ten_millimetres_long():
    array = np.zeros((3, 5, 20), np.uint8)
    array[1, 2, 4:14] = 4
    (lesion,) = measure_lesions(LabelMap(array, UPRIGHT), BRATS2021)
    assert lesion.diameters_mm == pytest.approx((10, 1))
    assert (lesion.voxels, lesion.slices, lesion.measurable) == (10, 1, False)


def test_one_voxel_is_as_wide_as_it_is():
    array = np.zeros((3, 3, 3), np.uint8)
    array[1, 1, 1] = 4
    (lesion,) = measure_lesions(LabelMap(array, UPRIGHT @ np.diag([3, 0.5, 0.8, 1])), BRATS2021)
    assert lesion.diameters_mm == pytest.approx((0.8, 0.5)) and lesion.voxel == (1, 1, 1)


@pytest.mark.parametrize("seed", range(20))
def test_the_diameters_are_those_that_an_exhaustive_search_finds(seed):
    """The largest distance of all edge middles, and the longest of many chords across it."""
    rng = np.random.default_rng(seed)
    pixels, sizes = rng.random((9, 14)) < 0.2, rng.uniform(0.4, 2, 2)
    pixels[4, 5] = True
    edges = [(0, 0.5), (0, -0.5), (0.5, 0), (-0.5, 0)]
    points = np.concatenate([np.argwhere(pixels) + edge for edge in edges]) * sizes
    longest, across = measure_hull(find_hull(pixels, sizes))
    length = np.linalg.norm(longest[1] - longest[0])
    assert length == pytest.approx(pdist(points).max())
    way = (longest[1] - longest[0]) / length
    assert abs((across[1] - across[0]) @ way) < 1e-9
    assert np.linalg.norm(across[1] - across[0]) == pytest.approx(longest_chord(points, way), abs=0.02)


def longest_chord(points, way):
    """Across `way`, through a hull, from the segments between all its points."""
    t = points @ way
    found = 0.0
    for at in np.linspace(t.min() + 1e-6, t.max() - 1e-6, 400):
        left, right = points[t <= at], points[t > at]
        tl, sl, tr, sr = left @ way, left @ (-way[1], way[0]), right @ way, right @ (-way[1], way[0])
        crossing = sl[:, None] + (sr[None] - sl[:, None]) * ((at - tl[:, None]) / (tr[None] - tl[:, None]))
        found = max(found, crossing.max() - crossing.min())
    return found


def some_case():
    labels = draw((9, 40, 50), (3, 1, 0.8), ellipse(15, 7, 30, 6))
    array = labels.array.copy()
    array[2:4, 3:5, 3:6] = 2
    return labels.with_labels(array)


@pytest.mark.parametrize("axes", [*permutations(range(3))])
def test_the_order_of_the_axes_in_the_file_changes_nothing(axes):
    labels = some_case()
    (expected,) = measure_lesions(labels, BRATS2021)
    for flips in product((False, True), repeat=3):
        stored = turn(labels, Turn(axes, flips))
        (lesion,) = measure_lesions(stored, BRATS2021)
        assert lesion.diameters_mm == pytest.approx(expected.diameters_mm)
        assert lesion.centre_mm == pytest.approx(expected.centre_mm)
        assert stored.array[lesion.voxel] == 4
        axis = axes.index(0)
        assert np.moveaxis(stored.array, axis, 0)[lesion.slice_index].any() and lesion.voxel[axis] == lesion.slice_index


def test_an_oblique_grid_is_measured_in_its_own_slices():
    labels = some_case()
    angle = np.radians(15)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    tilt[:3, 3] = 10, -20, 30
    (expected,), (lesion,) = (
        measure_lesions(each, BRATS2021) for each in (labels, LabelMap(labels.array, tilt @ labels.affine))
    )
    assert lesion.diameters_mm == pytest.approx(expected.diameters_mm)
    moved = tilt @ np.array([[*end, 1] for line in expected.lines_mm for end in line]).T
    np.testing.assert_allclose(np.reshape(lesion.lines_mm, (4, 3)).T, moved[:3], atol=1e-9)


def test_the_ends_of_the_diameters_lie_on_the_lesion():
    labels = some_case()
    (lesion,) = measure_lesions(labels, BRATS2021)
    for line, mm in zip(lesion.lines_mm, lesion.diameters_mm, strict=True):
        assert np.linalg.norm(np.subtract(*line)) == pytest.approx(mm)
        indices = np.linalg.inv(labels.affine) @ np.array([[*end, 1] for end in line]).T
        assert indices[0] == pytest.approx(lesion.slice_index)
    for end in lesion.lines_mm[0]:
        h, w = (np.linalg.inv(labels.affine) @ (*end, 1))[1:3]
        rows, columns = (slice(round(at - 0.6), round(at + 0.6) + 1) for at in (h, w))
        assert labels.array[lesion.slice_index, rows, columns].any()


def test_what_enhances_is_measured_and_the_whole_where_nothing_does():
    labels = some_case()
    assert [lesion.region for lesion in measure_lesions(labels, BRATS2021)] == ["enhancing"]
    without = labels.with_labels(np.where(labels.array == 4, 2, 0).astype(np.uint8))
    assert [lesion.region for lesion in measure_lesions(without, BRATS2021)] == ["whole"]
    both = measure_lesions(labels, BRATS2021, region=ANY_LESION)
    assert [lesion.number for lesion in both] == [1, 2]
    assert sum(lesion.voxels for lesion in both) == np.count_nonzero(labels.array)
    assert sum(lesion.volume_ml for lesion in both) == pytest.approx(np.count_nonzero(labels.array) * 0.0024)
    assert both[0].volume_ml > both[1].volume_ml
    cyst = Task(name="c", sequences=("t1",), labels={1: "a", 2: "b"}, regions={"first": (1,)})
    ones = labels.with_labels((labels.array > 0).astype(np.uint8))
    assert [lesion.region for lesion in measure_lesions(ones, cyst)] == [ANY_LESION] * 2
    with pytest.raises(LabelError, match="has no region 'core'; choose one of lesion, any lesion"):
        measure_lesions(ones, WHITE_MATTER_LESIONS, region="core")


def test_a_speck_that_enhances_does_not_make_the_whole_lesion_disappear():
    array = np.where(some_case().array == 4, 2, 0).astype(np.uint8)
    array[4, 20, 25:27] = 4
    speck = some_case().with_labels(array)
    assert [lesion.region for lesion in measure_lesions(speck, BRATS2021)] == ["whole"]
    array[4, 20, 25:31] = 4
    assert [lesion.region for lesion in measure_lesions(speck, BRATS2021)] == ["enhancing"]


def test_pieces_of_a_lesion_in_one_slice_are_measured_by_themselves():
    """A horseshoe that is joined one slice below: no diameter runs across the gap."""
    array = np.zeros((4, 30, 40), np.uint8)
    array[2, 5:15, 2:12] = array[2, 5:15, 28:36] = 4
    array[1, 9:11, 11:29] = 4
    (lesion,) = measure_lesions(LabelMap(array, UPRIGHT), BRATS2021)
    assert lesion.slice_index == 1 and lesion.diameters_mm[0] == pytest.approx(18, abs=0.2)
    array[1, 9:11, 11:29] = 0
    array[1, 9:11, 11] = array[1, 9:11, 28] = 4
    found = measure_lesions(LabelMap(array, UPRIGHT), BRATS2021)
    assert [lesion.diameters_mm[0] for lesion in found] == pytest.approx([np.hypot(10, 9), np.hypot(10, 7)])


def test_an_empty_label_map_has_no_lesion():
    assert measure_lesions(LabelMap(np.zeros((4, 4, 4), np.uint8), UPRIGHT), BRATS2021) == []


@pytest.mark.parametrize(
    ("spacing", "size", "measurable"),
    [((1, 1, 1), 11, True), ((1, 1, 1), 9, False), ((6, 1, 1), 11, False), ((6, 1, 1), 13, True)],
)
def test_a_lesion_is_measurable_from_ten_millimetres_or_two_thick_slices(spacing, size, measurable):
    (lesion,) = measure_lesions(draw((14, 30, 30), spacing, ellipse(size / 2, size / 2, 0)), BRATS2021)
    assert lesion.measurable is measurable


def test_voxels_that_touch_by_a_corner_are_one_lesion():
    array = np.zeros((4, 4, 4), np.uint8)
    array[1, 1, 1] = array[2, 2, 2] = 4
    assert len(measure_lesions(LabelMap(array, UPRIGHT), BRATS2021)) == 1


def test_the_atlas_hears_the_place_of_every_voxel():
    class Heard:
        def locate(self, points_mm):
            self.points = points_mm
            return Site("left", "cerebrum, deep", 0.75)

    labels, atlas = some_case(), Heard()
    (lesion,) = measure_lesions(labels, BRATS2021, atlas)
    assert (lesion.side, lesion.place, lesion.share) == ("left", "cerebrum, deep", 0.75)
    np.testing.assert_allclose(atlas.points.mean(axis=0), lesion.centre_mm)
    assert len(atlas.points) == lesion.voxels
