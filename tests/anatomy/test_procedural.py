"""Heads: repeatable, whole, of any shape, and with the proportions of a brain."""

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.anatomy.procedural import (
    Tissue,
    axes_mm,
    ellipsoid_depth,
    simulate_anatomy,
    smooth_noise,
    spacing_for,
    tube_depth,
)
from brainsegnet.errors import ImageError

SHAPE = (48, 80, 66)


@pytest.fixture(scope="module")
def head():
    return simulate_anatomy(np.random.default_rng(1), SHAPE).array


def millilitres(mask):
    return np.count_nonzero(mask) * np.prod(spacing_for(mask.shape)) / 1000


def test_same_seed_same_head_and_another_seed_another():
    first, again, other = (simulate_anatomy(np.random.default_rng(seed), (24, 40, 33)).array for seed in (5, 5, 6))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_head_holds_every_tissue_and_is_one_piece(head):
    assert head.dtype == np.uint8
    assert set(np.unique(head)) == set(Tissue)
    assert ndimage.label(head)[1] == 1


def test_volumes_are_those_of_an_adult(head):
    assert 1200 < millilitres(head > 0) < 1800
    grey, white = millilitres(head == Tissue.GREY), millilitres(head == Tissue.WHITE)
    assert 350 < grey < 800
    assert 350 < white < 800
    assert 8 < millilitres(head == Tissue.VENTRICLE) < 60


@pytest.mark.parametrize("shape", [(25, 33, 35), (31, 97, 40), (64, 32, 51)])
def test_any_shape_keeps_the_size_of_the_head(shape):
    assert 1100 < millilitres(simulate_anatomy(np.random.default_rng(2), shape).array > 0) < 1900


def test_head_stays_clear_of_the_sides_of_the_field():
    for seed in range(8):
        head = simulate_anatomy(np.random.default_rng(seed), (24, 36, 34)).array
        assert not head[-1].any()
        assert not head[:, [0, -1]].any()
        assert not head[:, :, [0, -1]].any()


def test_a_fissure_parts_the_hemispheres_above_the_callosum(head):
    z, _, x = np.broadcast_arrays(*axes_mm(SHAPE, spacing_for(SHAPE)))
    top = (z > 40) & (head > 0)
    middle, aside = top & (np.abs(x) < 3), top & (np.abs(np.abs(x) - 15) < 3)
    assert (head[middle] == Tissue.CSF).mean() > 2 * (head[aside] == Tissue.CSF).mean()
    assert (head[middle] == Tissue.WHITE).mean() < 0.5 * (head[aside] == Tissue.WHITE).mean()


def test_cortex_is_folded_and_white_matter_lies_beneath_it(head):
    depth = ndimage.distance_transform_edt(head > 0, sampling=spacing_for(SHAPE))
    z, _, _ = np.broadcast_arrays(*axes_mm(SHAPE, spacing_for(SHAPE)))
    shell = (np.abs(depth - 9) < 2) & (z > 10)
    assert {Tissue.CSF, Tissue.GREY, Tissue.WHITE} <= set(np.unique(head[shell]))
    assert np.mean(head[shell] == Tissue.CSF) > 0.02
    assert np.median(depth[head == Tissue.WHITE]) > 1.3 * np.median(depth[head == Tissue.GREY])


def test_grey_parts_white_matter_from_fluid_in_the_sulci(head):
    near_white = ndimage.binary_dilation(head == Tissue.WHITE)
    assert np.mean(near_white[head == Tissue.CSF]) < np.mean(near_white[head == Tissue.GREY]) / 2


def test_too_coarse_a_shape_is_refused_with_the_remedy():
    with pytest.raises(ImageError, match=r"\(8, 8, 8\).*at least \(24, 32, 32\)"):
        simulate_anatomy(np.random.default_rng(0), (8, 8, 8))


def test_depths_are_positive_inside_and_zero_on_the_surface():
    points = np.array([[0, 0, 0], [0, 0, 0], [0.1, 4, 9]], np.float32)
    assert ellipsoid_depth(points, (0, 0, 0), (2, 3, 4))[1] == pytest.approx(0)
    assert tube_depth(points, [(0, 0, 0, 1), (0, 0, 8, 3)]) == pytest.approx([1.025, 2, 2], abs=1e-5)


def test_noise_has_unit_variance_and_is_smooth(rng):
    noise = smooth_noise(rng, (40, 50, 60), (2.0, 1.0, 1.0), 3.0)
    assert noise.shape == (40, 50, 60)
    assert noise.std() == pytest.approx(1, abs=0.15)
    step = np.diff(noise, axis=2).std()
    assert step == pytest.approx(1 / (3 * np.sqrt(2)), rel=0.15)


def test_the_grid_is_that_of_the_spacing():
    anatomy = simulate_anatomy(np.random.default_rng(0), (25, 40, 33))
    assert anatomy.spacing_mm == spacing_for((25, 40, 33))
