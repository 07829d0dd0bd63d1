"""Echo-planar distortion: signal moves along one axis, none is made or lost, and piles up above the petrous bones."""

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.anatomy.territories import standard_points
from brainsegnet.simulation.echo_planar import FAINTEST, SOLID, Distortion, distort, move
from brainsegnet.simulation.stroke_appearance import measure_adc
from brainsegnet.volume import LabelMap

STRENGTH_MM = 8.0


def scan(head: LabelMap, seed: int, strength_mm: float = STRENGTH_MM) -> Distortion:
    return distort(np.random.default_rng(seed), head, standard_points(head), strength_mm)


@pytest.fixture(scope="module")
def roomy(small_head):
    """The small head with so much room before and behind it that nothing leaves."""
    affine = small_head.affine.copy()
    affine[:3, 3] -= 12 * affine[:3, 1]
    return LabelMap(np.pad(small_head.array, ((0, 0), (12, 12), (0, 0))), affine)


@pytest.mark.parametrize("seed", range(4))
def test_signal_is_moved_and_neither_made_nor_lost(roomy, seed):
    field = np.random.default_rng(seed).random(roomy.shape, np.float32) * (roomy.array > 0)
    moved = scan(roomy, seed).distort_jacobian(field)
    assert moved.sum(dtype=np.float64) == pytest.approx(field.sum(dtype=np.float64), rel=1e-5)
    assert moved.sum(axis=1) == pytest.approx(field.sum(axis=1), rel=1e-3, abs=1e-3)
    assert moved.min() >= 0 and np.abs(moved - field).max() > 0.3


def test_what_leaves_the_box_of_the_head_is_gone(small_head):
    ones = np.ones(small_head.shape, np.float32)
    assert 0.9 * ones.sum() < scan(small_head, 0, 60.0).distort_jacobian(ones).sum() < ones.sum()


def test_far_from_air_nothing_moves_and_without_any_nowhere(small_head, small_ground):
    field = np.random.default_rng(0).random(small_head.shape, np.float32)
    high = small_ground.points[0] > 40
    assert np.array_equal(scan(small_head, 1).distort_jacobian(field)[high], field[high])
    assert np.array_equal(scan(small_head, 1, 0.0).distort_jacobian(field), field)
    assert np.array_equal(scan(small_head, 1, 0.05).distort_jacobian(field), field), "what moves so little is left out"


def test_beside_air_signal_moves_less_than_above_it_and_the_other_way(small_head):
    """A ball would move it half as far; air lies spread along the skull base."""
    ratios = []
    for seed in range(6):
        distortion = scan(small_head, seed)
        voxels = np.arange(distortion.lower.shape[1]) // 3
        moved = distortion.lower + distortion.upper - voxels
        there, back = sorted((moved.max(), -moved.min()), reverse=True)
        ratios.append(back / there)
    assert np.median(ratios) < 0.4


def test_in_a_line_of_which_only_a_part_moves_the_rest_stays_as_it_was():
    """Neither blurred nor brighter."""
    field = np.random.default_rng(0).random((4, 40, 5), np.float32)
    shift = np.zeros(field.shape, np.float32)
    shift[:, 20:24] = 3.4
    moved = move(shift, 1).distort_jacobian(field)
    assert moved[:, :19] == pytest.approx(field[:, :19], rel=1e-6)
    assert moved[:, 29:] == pytest.approx(field[:, 29:], rel=1e-6)
    assert np.abs(moved - field)[:, 19:29].min(axis=(0, 2)).max() > 0.01


@pytest.mark.parametrize("voxels", [-2.0, 0.25, 1.0, 3.5])
def test_a_shift_that_is_the_same_everywhere_is_a_translation(voxels):
    field = np.pad(np.random.default_rng(0).random((3, 20, 4), np.float32), ((0, 0), (8, 8), (0, 0)))
    moved = move(np.full(field.shape, voxels, np.float32), 1).distort_jacobian(field)
    assert moved == pytest.approx(ndimage.shift(field, (0, voxels, 0), order=1), abs=1e-5)


def test_what_is_squeezed_to_half_its_width_is_twice_as_bright():
    field = np.ones((2, 60, 2), np.float32)
    squeezed = move(
        np.broadcast_to(-np.arange(60)[None, :, None] / 2, field.shape).astype(np.float32), 1
    ).distort_jacobian(field)
    assert squeezed[:, 1:28] == pytest.approx(2, rel=1e-3) and squeezed[:, 32:].max() == 0


def test_what_piles_up_keeps_its_adc(small_head):
    """As in real scans, where the ADC is what tells a bright sheet from an infarct."""
    b0 = (small_head.array > 0).astype(np.float32)
    distortion = scan(small_head, 2)
    first, second = distortion.distort_jacobian(b0), distortion.distort_jacobian(b0 * np.float32(np.exp(-0.75)))
    seen = first > 0.05
    assert first.max() > 2
    assert measure_adc(first[seen], second[seen], 1000) == pytest.approx(750, abs=1)


def test_what_is_stretched_is_hardly_darker_and_what_piles_up_is_brighter(small_head):
    """As in real scans, which have bright sheets and no black holes beside them."""
    signal = (small_head.array > 0).astype(np.float32)
    distortion = scan(small_head, 2, 20.0)
    share = distortion.distort_jacobian(signal)
    seen = distortion.acquire(signal, share)
    full, thin = share >= FAINTEST, (share > SOLID) & (share < FAINTEST)
    assert np.array_equal(seen[full], share[full]) and seen.max() > 2
    assert thin.any() and seen[thin] == pytest.approx(FAINTEST, rel=1e-5)
    assert seen[share <= SOLID].max() == 0


def test_a_head_that_lies_otherwise_in_memory_is_distorted_alike(small_head):
    turned = LabelMap(np.ascontiguousarray(small_head.array.transpose(1, 2, 0)), small_head.affine[:, [1, 2, 0, 3]])
    assert (scan(small_head, 3).axis, scan(turned, 3).axis) == (1, 0)
    thick = small_head.affine @ np.diag([4.0, 1.0, 1.0, 1.0])
    tilt = np.deg2rad(20)
    lean = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    thick[:3, :3] = lean @ thick[:3, :3]
    assert scan(LabelMap(small_head.array[::4].copy(), thick), 3).axis == 1, "thick slices that lean are no rows"
    back = LabelMap(np.ascontiguousarray(small_head.array[:, ::-1]), small_head.affine @ mirror(small_head.shape[1]))
    assert standard_points(back)[1][:, ::-1] == pytest.approx(standard_points(small_head)[1], abs=1.5)
    shares = [scan(head, 3).distort_jacobian(head.array > 0) for head in (small_head, back)]
    middle = [np.average(np.indices(s.shape)[1] * (1 if k == 0 else -1), weights=s) for k, s in enumerate(shares)]
    still = [np.average(np.indices(h.shape)[1] * k, weights=h.array > 0) for h, k in ((small_head, 1), (back, -1))]
    assert np.sign(middle[0] - still[0]) == np.sign(middle[1] - still[1]) != 0


def mirror(rows: int) -> np.ndarray:
    flip = np.diag([1.0, -1.0, 1.0, 1.0])
    flip[1, 3] = rows - 1
    return flip


def test_nearly_every_scan_has_bright_sheets_in_the_temporal_lobes_above_the_petrous_bones(small_head, small_ground):
    """As in real scans, where a centimetre beneath the surface a network would take them for infarcts."""
    z, y, x = small_ground.points
    depth = ndimage.distance_transform_edt(small_head.array > 0, sampling=small_head.spacing_mm)
    bright = []
    for side in (1, -1):
        near = (z > -45) & (z < -12) & (y > -20) & (y < 25) & (side * x > 36) & (depth > 6)
        assert near.any()
        scans = (scan(small_head, seed).distort_jacobian(small_head.array > 0) for seed in range(12))
        bright.append([float(share[near].max()) > 1.6 for share in scans])
    assert np.mean(bright[0]) > 0.8 and np.mean(bright[1]) > 0.8


def test_a_share_of_the_brain_says_where_the_brain_is_now(small_head):
    share = scan(small_head, 4).distort_jacobian(small_head.array > 0)
    before, after = small_head.array > 0, share > SOLID
    assert 0.85 < np.count_nonzero(after) / np.count_nonzero(before) < 1.1
    assert np.count_nonzero(before != after) > 20


@pytest.mark.parametrize("seed", range(3))
def test_an_outline_follows_what_it_outlines(small_head, seed):
    """A core above the petrous bones appears where its signal does."""
    z, y, x = standard_points(small_head)
    brain = small_head.array > 0
    core = brain & (np.abs(z + 22) < 12) & (np.abs(y) < 20) & (x > 34)
    distortion = scan(small_head, seed)
    seen, signal = distortion.follow(core, brain), distortion.distort_jacobian(core)
    assert np.count_nonzero(seen != core) > 3
    assert signal[seen].sum() > 0.9 * signal.sum()
    assert not (distortion.follow(brain & ~core, brain) & seen).any()
    assert np.array_equal(distortion.follow(brain, brain), distortion.distort_jacobian(brain) > 0.5 * SOLID)


def test_a_small_part_is_seen_somewhere_even_where_it_is_mingled_with_others(small_head, small_ground):
    z, _, x = small_ground.points
    brain = small_head.array > 0
    candidates = np.argwhere(brain & (z < -15) & (np.abs(x) > 35))[::29]
    distortion = scan(small_head, 5)
    for at in candidates:
        part = np.zeros(brain.shape, bool)
        part[tuple(at)] = True
        if distortion.distort_jacobian(part).any():
            assert distortion.follow(part, brain).any()
