"""Scans: voxels average what they cover, noise is as strong as was asked, grids go around the head."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.simulation.stroke_scanner import (
    Grid,
    add_noise,
    draw_optics,
    extract_brain,
    place_grid,
    remnants,
    resample,
    shade,
)
from brainsegnet.volume import LabelMap


def test_a_head_lies_within_its_grid_on_any_seed(small_head):
    for seed in range(5):
        grid = place_grid(np.random.default_rng(seed), small_head, (73, 112, 112), (2.0, 2.0, 2.0))
        assert grid.spacing_mm == pytest.approx((2, 2, 2))
        columns = grid.affine[:3, :3]
        assert columns.T @ columns == pytest.approx(4 * np.eye(3), abs=1e-9)
        seen = resample(small_head.array > 0, small_head, grid).sum() * 8
        assert seen == pytest.approx(np.count_nonzero(small_head.array) * np.prod(small_head.spacing_mm), rel=0.06)


def test_resampling_onto_the_same_grid_keeps_a_smooth_field_where_it_is():
    head = LabelMap(np.ones((20, 22, 24), np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))
    ramp = np.indices(head.shape)[1].astype(np.float32)
    out = resample(ramp, head, Grid(head.shape, head.affine))
    assert out[4:-4, 4:-4, 4:-4] == pytest.approx(ramp[4:-4, 4:-4, 4:-4], abs=1e-3)
    ahead = resample(ramp, head, Grid(head.shape, head.affine).moved(0.5))
    assert ahead[4:-4, 4:-4, 4:-4] == pytest.approx(ramp[4:-4, 4:-4, 4:-4] + 0.5, abs=1e-3)


@pytest.mark.parametrize("grain", [0.0, 0.6])
def test_noise_is_rician(grain):
    noisy = add_noise(np.random.default_rng(0), np.full((30, 30, 30), 50, np.float32), 2.0, grain)
    assert noisy.std() == pytest.approx(2, rel=0.05) and noisy.mean() == pytest.approx(50, rel=0.01)
    air = add_noise(np.random.default_rng(0), np.zeros((30, 30, 30), np.float32), 2.0, grain)
    assert air.mean() == pytest.approx(2 * np.sqrt(np.pi / 2), rel=0.03)
    still = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    assert np.array_equal(add_noise(np.random.default_rng(0), still, 0, grain), still)


def test_the_shading_is_smooth_and_about_1():
    grid = Grid((12, 40, 40), np.diag([6.0, 5.0, 5.0, 1.0]))
    optics = draw_optics(np.random.default_rng(0))
    factor = shade(np.random.default_rng(0), grid, optics, np.ones(grid.shape, np.float32))
    assert 0.5 < factor.min() < 1 < factor.max() < 2
    assert np.abs(np.diff(factor, axis=2)).max() < 0.1


def test_the_surface_is_nearer_to_the_coils_and_has_remnants_in_places():
    """As in real scans, where bright flecks along the skull are no infarcts."""
    grid = Grid((50, 60, 60), np.diag([2.0, 2.0, 2.0, 1.0]))
    inside = ndimage.distance_transform_edt(np.pad(np.ones((40, 50, 50)), 5))
    weight = np.clip(ndimage.gaussian_filter((inside > 0).astype(np.float32), 0.8), 0, 1)
    still = replace(draw_optics(np.random.default_rng(0)), bias=0.0, stripes=0.0, coil=0.0, rind=0.0)
    assert shade(np.random.default_rng(0), grid, still, weight) == pytest.approx(1)
    heard = shade(np.random.default_rng(0), grid, replace(still, coil=0.4), weight)
    assert heard[25, 30, 30] < 1.05 and heard[inside == 1].mean() > 1.15 and heard.max() <= np.exp(0.4) + 1e-6
    left = shade(np.random.default_rng(0), grid, replace(still, rind=0.5), weight)
    assert left[weight > 0.9] == pytest.approx(1) and left.min() >= 1
    assert 0.1 < (left[np.abs(weight - 0.5) < 0.2] > 1.1).mean() < 0.6


def test_remnants_lie_on_the_rim_of_the_brain_alone():
    grid = Grid((50, 60, 60), np.diag([2.0, 2.0, 2.0, 1.0]))
    inside = np.pad(np.ones((40, 50, 50), np.float32), 5)
    weight = np.clip(ndimage.gaussian_filter(inside, 0.8), 0, 1)
    left = remnants(np.random.default_rng(0), grid, weight)
    assert left[np.abs(weight - 0.5) > 0.36].max() == 0 and 0.2 < left.max() <= 2
    assert 0.1 < (left[np.abs(weight - 0.5) < 0.2] > 0.1).mean() < 0.7


def test_an_extraction_cuts_where_the_brain_ends():
    weight = np.broadcast_to(np.linspace(0, 1, 40, dtype=np.float32), (10, 40, 40))
    brain = extract_brain(np.random.default_rng(0), weight, Grid((10, 40, 40), np.eye(4)), 0.5)
    assert not brain[..., :5].any() and brain[..., -3:].all()
