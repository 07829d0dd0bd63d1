"""Raw scans as brain extraction sees them: intensities, and the way to 2 mm and back."""

import numpy as np
import pytest

from brainsegnet.preprocessing.head import scale_intensities, to_scan_grid, to_working_grid
from brainsegnet.volume import Volume

GRIDS = [
    ((40, 50, 45), (2.0, 2.0, 2.0), (0, 1, 2)),
    ((26, 90, 80), (5.5, 0.9, 0.9), (0, 1, 2)),
    ((90, 26, 80), (0.9, 5.5, 0.9), (2, 0, 1)),
    ((70, 70, 70), (1.0, 1.0, 1.0), (1, 2, 0)),
]


def make_scan(shape, spacing_mm, axes, flip=(1, -1, 1)):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[[2, 1, 0]][:, list(axes)] * np.array(spacing_mm) * flip
    affine[:3, 3] = (11, -7, 3)
    scan = Volume(np.zeros(shape, np.float32), affine)
    return scan.with_array(points_of(scan)[0].astype(np.float32))


def points_of(volume):
    index = np.stack([*np.indices(volume.shape), np.ones(volume.shape)])
    return np.tensordot(volume.affine, index, axes=1)[:3]


@pytest.mark.parametrize("grid", GRIDS)
def test_the_working_grid_is_upright_cubic_and_lies_where_the_scan_lies(grid):
    scan = make_scan(*grid)
    working = to_working_grid(scan)
    assert working.spacing_mm == pytest.approx((2, 2, 2))
    assert points_of(working).mean(axis=(1, 2, 3)) == pytest.approx(points_of(scan).mean(axis=(1, 2, 3)), abs=1e-6)
    inner = (slice(5, -5),) * 3
    assert working.array[inner] == pytest.approx(points_of(working)[0][inner], abs=0.05)


@pytest.mark.parametrize("grid", GRIDS)
def test_what_goes_to_the_working_grid_comes_back_to_its_place(grid):
    scan = make_scan(*grid)
    working = to_working_grid(scan)
    back = to_scan_grid(working.with_array(points_of(working)[1].astype(np.float32)), scan)
    assert back.shape == scan.shape
    inner = tuple(slice(round(9 / s), -round(9 / s)) for s in scan.spacing_mm)
    assert back[inner] == pytest.approx(points_of(scan)[1][inner], abs=0.05)


def test_a_scan_of_one_slice_has_a_way_there_and_back():
    scan = make_scan((1, 40, 40), (5.0, 1.0, 1.0), (0, 1, 2))
    working = to_working_grid(scan)
    assert to_scan_grid(working, scan).shape == scan.shape


@pytest.fixture
def head(rng):
    image = rng.normal(2, 0.5, (40, 40, 40)).clip(0)
    image[10:30, 10:30, 10:30] += 100
    return image.astype(np.float32)


@pytest.mark.parametrize("change", [lambda x: 37 * x, lambda x: x + 500, lambda x: 0.001 * x - 3])
def test_unit_and_offset_do_not_matter(head, change):
    assert scale_intensities(change(head)) == pytest.approx(scale_intensities(head), abs=2e-3)


def test_two_hundred_outliers_change_nothing_elsewhere(head, rng):
    faulty = head.copy()
    where = rng.choice(head.size, 200, replace=False)
    faulty.flat[where] = 1e6
    difference = np.abs(scale_intensities(faulty) - scale_intensities(head))
    difference.flat[where] = 0
    assert difference.max() < 0.02


def test_intensities_lie_between_0_and_2_and_are_0_where_nothing_is_seen(head):
    seen = np.zeros(head.shape, np.bool_)
    seen[5:35] = True
    scaled = scale_intensities(head, seen)
    assert scaled.min() >= 0 and scaled.max() <= 2 and not scaled[~seen].any()
    assert scaled[12:28, 12:28, 12:28].mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_image_becomes_0(value):
    assert not scale_intensities(np.full((5, 5, 5), value, np.float32)).any()
