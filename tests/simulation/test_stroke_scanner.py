"""Scans of strokes: voxels average what they cover, noise is as strong as asked, faults appear where they should."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.simulation.echo_planar import Faults, Ghost, HeadMotion
from brainsegnet.simulation.stroke_appearance import draw_diffusion
from brainsegnet.simulation.stroke_scanner import (
    acquire_diffusion,
    add_noise,
    draw_scan,
    extract_brain,
    outline,
    place_grid,
    remnants,
    resample,
    shade,
)
from brainsegnet.volume import LabelMap, Volume


def make_grid(shape, affine):
    return Volume(np.zeros(shape), affine)


def test_an_anatomy_lies_within_its_grid_on_any_seed(small_anatomy):
    for seed in range(5):
        grid = place_grid(np.random.default_rng(seed), small_anatomy, (73, 112, 112), (2.0, 2.0, 2.0))
        assert grid.spacing_mm == pytest.approx((2, 2, 2))
        columns = grid.affine[:3, :3]
        assert columns.T @ columns == pytest.approx(4 * np.eye(3), abs=1e-9)
        seen = resample(small_anatomy.array > 0, small_anatomy, grid).sum() * 8
        assert seen == pytest.approx(
            np.count_nonzero(small_anatomy.array) * np.prod(small_anatomy.spacing_mm), rel=0.06
        )


def test_resampling_onto_the_same_grid_keeps_a_smooth_field_where_it_is():
    anatomy = LabelMap(np.ones((20, 22, 24), np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))
    ramp = np.indices(anatomy.shape)[1].astype(np.float32)
    out = resample(ramp, anatomy, make_grid(anatomy.shape, anatomy.affine))
    assert out[4:-4, 4:-4, 4:-4] == pytest.approx(ramp[4:-4, 4:-4, 4:-4], abs=1e-3)
    affine = anatomy.affine.copy()
    affine[1, 3] += 0.5 * affine[1, 1]
    ahead = resample(ramp, anatomy, make_grid(anatomy.shape, affine))
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
    grid = make_grid((12, 40, 40), np.diag([6.0, 5.0, 5.0, 1.0]))
    params = draw_scan(np.random.default_rng(0))
    factor = shade(np.random.default_rng(0), grid, params, np.ones(grid.shape, np.float32))
    assert 0.5 < factor.min() < 1 < factor.max() < 2
    assert np.abs(np.diff(factor, axis=2)).max() < 0.1


def test_the_surface_is_nearer_to_the_coils_and_has_remnants_in_places():
    """As in real scans, where bright flecks along the skull are no infarcts."""
    grid = make_grid((50, 60, 60), np.diag([2.0, 2.0, 2.0, 1.0]))
    inside = ndimage.distance_transform_edt(np.pad(np.ones((40, 50, 50)), 5))
    weight = np.clip(ndimage.gaussian_filter((inside > 0).astype(np.float32), 0.8), 0, 1)
    still = replace(draw_scan(np.random.default_rng(0)), bias=0.0, slice_variation=0.0, coil=0.0, meninges=0.0)
    assert shade(np.random.default_rng(0), grid, still, weight) == pytest.approx(1)
    heard = shade(np.random.default_rng(0), grid, replace(still, coil=0.4), weight)
    assert heard[25, 30, 30] < 1.05 and heard[inside == 1].mean() > 1.15 and heard.max() <= np.exp(0.4) + 1e-6
    left = shade(np.random.default_rng(0), grid, replace(still, meninges=0.5), weight)
    assert left[weight > 0.9] == pytest.approx(1) and left.min() >= 1
    assert 0.1 < (left[np.abs(weight - 0.5) < 0.2] > 1.1).mean() < 0.6


def test_remnants_lie_on_the_rim_of_the_brain_alone():
    grid = make_grid((50, 60, 60), np.diag([2.0, 2.0, 2.0, 1.0]))
    inside = np.pad(np.ones((40, 50, 50), np.float32), 5)
    weight = np.clip(ndimage.gaussian_filter(inside, 0.8), 0, 1)
    left = remnants(np.random.default_rng(0), grid, weight)
    assert left[np.abs(weight - 0.5) > 0.36].max() == 0 and 0.2 < left.max() <= 2
    assert 0.1 < (left[np.abs(weight - 0.5) < 0.2] > 0.1).mean() < 0.7


def test_an_extraction_cuts_where_the_brain_ends():
    weight = np.broadcast_to(np.linspace(0, 1, 40, dtype=np.float32), (10, 40, 40))
    brain = extract_brain(np.random.default_rng(0), weight, make_grid((10, 40, 40), np.eye(4)), 0.5)
    assert not brain[..., :5].any() and brain[..., -3:].all()


def test_scalp_left_on_the_brain_is_bright_in_dwi_and_dark_in_adc(small_anatomy, small_ground):
    """As on real scans: at the rim alone, and a network must not take it for an infarct."""
    grid = place_grid(np.random.default_rng(0), small_anatomy, (36, 56, 56), (4.0, 4.0, 4.0))
    still = replace(draw_scan(np.random.default_rng(0)), noise=1e-4, scalp=0.0, faults=Faults())
    nothing = np.zeros(small_anatomy.shape, np.uint8)
    clean, scalp = (
        acquire_diffusion(
            np.random.default_rng(0), small_anatomy, small_ground, (nothing > 0, nothing),
            (grid, replace(still, scalp=share), draw_diffusion(np.random.default_rng(1), 0)),
        )
        for share in (0.0, 1.0)
    )  # fmt: skip
    brighter = scalp.dwi / np.maximum(clean.dwi, 1e-6) > 1.3
    rim = clean.brain & ~ndimage.binary_erosion(clean.brain, iterations=2)
    assert 0.03 < brighter[rim].mean() < 0.6 and not (brighter & clean.brain & ~rim).any()
    assert np.median(scalp.adc[brighter & rim]) < np.median(clean.adc[brighter & rim]) - 200
    assert scalp.b0[clean.brain] == pytest.approx(clean.b0[clean.brain], rel=0.05)


@pytest.fixture
def scanned(small_anatomy, small_ground):
    """Scans the small anatomy, with other parameters than those drawn."""
    grid = place_grid(np.random.default_rng(0), small_anatomy, (36, 56, 56), (4.0, 4.0, 4.0))
    drawn = draw_scan(np.random.default_rng(0))
    still = replace(drawn, noise=1e-4, scalp=0.0, drift=0.0, grain=0.0, faults=Faults())
    nothing = np.zeros(small_anatomy.shape, np.uint8)

    def scan(**changes):
        scanner = grid, replace(still, **changes), draw_diffusion(np.random.default_rng(1), 0)
        return acquire_diffusion(np.random.default_rng(0), small_anatomy, small_ground, (nothing > 0, nothing), scanner)

    return scan


def test_the_image_with_diffusion_weighting_is_a_mean_and_has_less_noise(scanned):
    clean, noisy = scanned(), scanned(noise=0.1)
    added = [float((after - before)[clean.brain].std()) for before, after in
             ((clean.b0, noisy.b0), (clean.dwi, noisy.dwi))]  # fmt: skip
    assert 0.5 < added[1] / added[0] < 0.75


def test_drift_moves_the_image_without_diffusion_weighting_against_the_other(scanned):
    still, moved = scanned(), scanned(drift=1.0)
    assert moved.dwi == pytest.approx(still.dwi, rel=1e-3)
    assert np.abs(moved.b0 - still.b0)[still.brain].mean() > 0.05 * still.b0[still.brain].mean()


def test_motion_distorts_adc_where_tissues_meet_and_displaces_the_extracted_brain(scanned):
    still, moved = scanned(), scanned(faults=Faults(motion=HeadMotion(0.5, 2.0, 0.0, 0.0)))
    assert moved.b0 == pytest.approx(still.b0, rel=1e-3, abs=1e-3), "it is taken before"
    changed = [k for k in range(36) if np.abs(moved.dwi[k] - still.dwi[k]).max() > 0.1]
    assert changed and all(k % 2 for k in changed)
    both = still.brain & moved.brain
    wrong = np.abs(moved.adc - still.adc) / np.maximum(still.adc, 1)
    assert np.percentile(wrong[1::2][both[1::2]], 90) > 0.2 and np.percentile(wrong[::2][both[::2]], 99) < 0.01
    assert (moved.brain != still.brain)[1::2].sum() > 10 > (moved.brain != still.brain)[::2].sum()


def test_slices_acquired_during_motion_are_dark_with_diffusion_weighting_alone(scanned):
    still, moved = scanned(), scanned(faults=Faults(motion=HeadMotion(0.25, 0.0, 0.0, 0.3)))
    ratio = [float(np.median((moved.dwi / np.maximum(still.dwi, 1e-6))[k][still.brain[k]])) for k in range(12, 24)]
    assert sorted(ratio)[:2] == pytest.approx([0.7, 0.7], abs=0.01) and sorted(ratio)[2:] == pytest.approx(
        [1] * 10, abs=0.01
    )
    assert moved.b0 == pytest.approx(still.b0, rel=1e-2, abs=1e-3)
    assert np.median((moved.adc - still.adc)[12 + int(np.argmin(ratio))][still.brain[12 + int(np.argmin(ratio))]]) > 200


def test_a_ghost_shows_in_both_images_within_the_brain(scanned):
    still, ghostly = scanned(), scanned(faults=Faults(ghost=Ghost(0.12, 0.5, (1.0, 2.0, 0.0))))
    for name in ("b0", "dwi"):
        change = np.abs(getattr(ghostly, name) / np.maximum(getattr(still, name), 1e-6) - 1)[still.brain]
        assert 0.03 < np.percentile(change, 95) < 0.25 and np.median(change) < 0.12


def test_the_outline_goes_with_the_slices_that_moved():
    anatomy = LabelMap(np.ones((8, 20, 20), np.uint8), np.diag([3.0, 2.0, 2.0, 1.0]))
    grid, brain, core = (
        make_grid(anatomy.shape, anatomy.affine),
        np.ones(anatomy.shape, bool),
        np.zeros(anatomy.shape, bool),
    )
    core[2:6, 6:13, 6:13] = True
    still, moved = (
        outline(np.random.default_rng(0), core, anatomy, (grid, brain), motion).array
        for motion in (None, HeadMotion(0.5, 0.0, 3.0, 0.0))
    )
    columns = [[np.argwhere(drawn[k])[:, 1].mean() for k in (3, 4)] for drawn in (still, moved)]
    assert columns[0][0] == columns[0][1] and columns[1][0] > columns[0][0] + 2 > columns[1][1] + 1


def test_an_infarct_of_the_first_slice_is_outlined_within_the_brain():
    anatomy = LabelMap(np.ones((6, 20, 20), np.uint8), np.diag([5.0, 2.0, 2.0, 1.0]))
    grid, core, brain = (
        make_grid(anatomy.shape, anatomy.affine),
        np.zeros(anatomy.shape, bool),
        np.ones(anatomy.shape, bool),
    )
    core[0, 5:12, 5:12] = True
    brain[:, 11:] = False
    drawn = outline(np.random.default_rng(0), core, anatomy, (grid, brain)).array > 0
    assert drawn[0, 6:11, 6:11].all() and not drawn[:, 11:].any() and not drawn[2:].any()
    core[:] = False
    core[2, 11:15, 5:9] = True
    assert outline(np.random.default_rng(0), core, anatomy, (grid, brain)).array.any(), "what shows of it is outlined"
