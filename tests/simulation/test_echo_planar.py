"""Echo-planar imaging: distortion keeps the signal, motion displaces later slices alone, cuts keep the lesion."""

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.anatomy.territories import standard_points
from brainsegnet.simulation.echo_planar import (
    LEAST_BRAIN,
    LEAST_SIGNAL,
    Distortion,
    Faults,
    Ghost,
    HeadMotion,
    add_ghost,
    cut_slices,
    darken_slices,
    distort,
    draw_distortion,
    draw_faults,
    fullest_slice,
    shift_slices,
)
from brainsegnet.simulation.stroke_appearance import measure_adc
from brainsegnet.volume import LabelMap

STRENGTH_MM = 8.0


def scan(anatomy: LabelMap, seed: int, strength_mm: float = STRENGTH_MM) -> Distortion:
    return draw_distortion(np.random.default_rng(seed), anatomy, standard_points(anatomy), strength_mm)


@pytest.fixture(scope="module")
def roomy(small_anatomy):
    """The small anatomy with so much room before and behind it that nothing leaves."""
    affine = small_anatomy.affine.copy()
    affine[:3, 3] -= 12 * affine[:3, 1]
    return LabelMap(np.pad(small_anatomy.array, ((0, 0), (12, 12), (0, 0))), affine)


@pytest.mark.parametrize("seed", range(4))
def test_signal_is_moved_and_neither_made_nor_lost(roomy, seed):
    field = np.random.default_rng(seed).random(roomy.shape, np.float32) * (roomy.array > 0)
    moved = scan(roomy, seed).distort_jacobian(field)
    assert moved.sum(dtype=np.float64) == pytest.approx(field.sum(dtype=np.float64), rel=1e-5)
    assert moved.sum(axis=1) == pytest.approx(field.sum(axis=1), rel=1e-3, abs=1e-3)
    assert moved.min() >= 0 and np.abs(moved - field).max() > 0.3


def test_what_leaves_the_array_is_gone(small_anatomy):
    ones = np.ones(small_anatomy.shape, np.float32)
    assert 0.9 * ones.sum() < scan(small_anatomy, 0, 60.0).distort_jacobian(ones).sum() < ones.sum()


def test_far_from_air_nothing_moves_and_without_air_nowhere(small_anatomy, small_ground):
    field = np.random.default_rng(0).random(small_anatomy.shape, np.float32)
    high = small_ground.points[0] > 40
    assert np.array_equal(scan(small_anatomy, 1).distort_jacobian(field)[high], field[high])
    assert np.array_equal(scan(small_anatomy, 1, 0.0).distort_jacobian(field), field)
    assert np.array_equal(scan(small_anatomy, 1, 0.05).distort_jacobian(field), field), "a shift so small is left out"


def test_beside_air_signal_moves_less_than_above_it_and_the_other_way(small_anatomy):
    """A ball would move it half as far; air is spread along the skull base."""
    ratios = []
    for seed in range(6):
        distortion = scan(small_anatomy, seed)
        voxels = np.arange(distortion.lower.shape[1]) // 3
        moved = distortion.lower + distortion.upper - voxels
        there, back = sorted((moved.max(), -moved.min()), reverse=True)
        ratios.append(back / there)
    assert np.median(ratios) < 0.4


def test_the_rest_of_a_line_of_which_a_part_moves_is_unchanged():
    """Neither blurred nor brighter."""
    field = np.random.default_rng(0).random((4, 40, 5), np.float32)
    shift = np.zeros(field.shape, np.float32)
    shift[:, 20:24] = 3.4
    moved = distort(shift, 1).distort_jacobian(field)
    assert moved[:, :19] == pytest.approx(field[:, :19], rel=1e-6)
    assert moved[:, 29:] == pytest.approx(field[:, 29:], rel=1e-6)
    assert np.abs(moved - field)[:, 19:29].min(axis=(0, 2)).max() > 0.01


@pytest.mark.parametrize("voxels", [-2.0, 0.25, 1.0, 3.5])
def test_a_shift_that_is_the_same_everywhere_is_a_translation(voxels):
    field = np.pad(np.random.default_rng(0).random((3, 20, 4), np.float32), ((0, 0), (8, 8), (0, 0)))
    moved = distort(np.full(field.shape, voxels, np.float32), 1).distort_jacobian(field)
    assert moved == pytest.approx(ndimage.shift(field, (0, voxels, 0), order=1), abs=1e-5)


def test_what_is_squeezed_to_half_its_width_is_twice_as_bright():
    field = np.ones((2, 60, 2), np.float32)
    squeezed = distort(
        np.broadcast_to(-np.arange(60)[None, :, None] / 2, field.shape).astype(np.float32), 1
    ).distort_jacobian(field)
    assert squeezed[:, 1:28] == pytest.approx(2, rel=1e-3) and squeezed[:, 32:].max() == 0


def test_what_piles_up_keeps_its_adc(small_anatomy):
    """As in real scans, where the ADC is what tells a bright sheet from an infarct."""
    b0 = (small_anatomy.array > 0).astype(np.float32)
    distortion = scan(small_anatomy, 2)
    first, second = distortion.distort_jacobian(b0), distortion.distort_jacobian(b0 * np.float32(np.exp(-0.75)))
    seen = first > 0.05
    assert first.max() > 2
    assert measure_adc(first[seen], second[seen], 1000) == pytest.approx(750, abs=1)


def test_what_is_stretched_is_hardly_darker_and_what_piles_up_is_brighter(small_anatomy):
    """As in real scans, which have bright sheets and no black holes beside them."""
    signal = (small_anatomy.array > 0).astype(np.float32)
    distortion = scan(small_anatomy, 2, 20.0)
    share = distortion.distort_jacobian(signal)
    seen = distortion.acquire(signal, share)
    full, thin = share >= LEAST_SIGNAL, (share > LEAST_BRAIN) & (share < LEAST_SIGNAL)
    assert np.array_equal(seen[full], share[full]) and seen.max() > 2
    assert thin.any() and seen[thin] == pytest.approx(LEAST_SIGNAL, rel=1e-5)
    assert seen[share <= LEAST_BRAIN].max() == 0


def test_an_anatomy_with_other_axes_is_distorted_alike(small_anatomy):
    array, affine = small_anatomy.array, small_anatomy.affine
    turned = LabelMap(np.ascontiguousarray(array.transpose(1, 2, 0)), affine[:, [1, 2, 0, 3]])
    assert (scan(small_anatomy, 3).axis, scan(turned, 3).axis) == (1, 0)
    thick = affine @ np.diag([4.0, 1.0, 1.0, 1.0])
    tilt = np.deg2rad(20)
    lean = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    thick[:3, :3] = lean @ thick[:3, :3]
    assert scan(LabelMap(array[::4].copy(), thick), 3).axis == 1, "thick slices that lean are no rows"
    back = LabelMap(np.ascontiguousarray(array[:, ::-1]), affine @ mirror(array.shape[1]))
    assert standard_points(back)[1][:, ::-1] == pytest.approx(standard_points(small_anatomy)[1], abs=1.5)
    shares = [scan(anatomy, 3).distort_jacobian(anatomy.array > 0) for anatomy in (small_anatomy, back)]
    middle = [np.average(np.indices(s.shape)[1] * (1 if k == 0 else -1), weights=s) for k, s in enumerate(shares)]
    still = [np.average(np.indices(h.shape)[1] * k, weights=h.array > 0) for h, k in ((small_anatomy, 1), (back, -1))]
    assert np.sign(middle[0] - still[0]) == np.sign(middle[1] - still[1]) != 0


def mirror(rows: int) -> np.ndarray:
    flip = np.diag([1.0, -1.0, 1.0, 1.0])
    flip[1, 3] = rows - 1
    return flip


def test_nearly_every_scan_has_bright_sheets_in_the_temporal_lobes_above_the_petrous_bones(small_anatomy, small_ground):
    """As in real scans, where a centimetre beneath the surface a network would take them for infarcts."""
    z, y, x = small_ground.points
    depth = ndimage.distance_transform_edt(small_anatomy.array > 0, sampling=small_anatomy.spacing_mm)
    bright = []
    for side in (1, -1):
        near = (z > -45) & (z < -12) & (y > -20) & (y < 25) & (side * x > 36) & (depth > 6)
        assert near.any()
        scans = (scan(small_anatomy, seed).distort_jacobian(small_anatomy.array > 0) for seed in range(12))
        bright.append([float(share[near].max()) > 1.6 for share in scans])
    assert np.mean(bright[0]) > 0.8 and np.mean(bright[1]) > 0.8


def test_the_share_of_brain_shows_where_the_brain_appears(small_anatomy):
    share = scan(small_anatomy, 4).distort_jacobian(small_anatomy.array > 0)
    before, after = small_anatomy.array > 0, share > LEAST_BRAIN
    assert 0.85 < np.count_nonzero(after) / np.count_nonzero(before) < 1.1
    assert np.count_nonzero(before != after) > 20


@pytest.mark.parametrize("seed", range(3))
def test_an_outline_follows_what_it_outlines(small_anatomy, seed):
    """A core above the petrous bones appears where its signal does."""
    z, y, x = standard_points(small_anatomy)
    brain = small_anatomy.array > 0
    core = brain & (np.abs(z + 22) < 12) & (np.abs(y) < 20) & (x > 34)
    distortion = scan(small_anatomy, seed)
    seen, signal = distortion.follow(core, brain), distortion.distort_jacobian(core)
    assert np.count_nonzero(seen != core) > 3
    assert signal[seen].sum() > 0.9 * signal.sum()
    assert not (distortion.follow(brain & ~core, brain) & seen).any()
    assert np.array_equal(distortion.follow(brain, brain), distortion.distort_jacobian(brain) > 0.5 * LEAST_BRAIN)


def test_a_small_part_is_seen_somewhere_even_where_it_is_mixed_with_others(small_anatomy, small_ground):
    z, _, x = small_ground.points
    brain = small_anatomy.array > 0
    candidates = np.argwhere(brain & (z < -15) & (np.abs(x) > 35))[::29]
    distortion = scan(small_anatomy, 5)
    for at in candidates:
        part = np.zeros(brain.shape, bool)
        part[tuple(at)] = True
        if distortion.distort_jacobian(part).any():
            assert distortion.follow(part, brain).any()


@pytest.fixture
def image():
    return np.pad(np.random.default_rng(0).random((9, 20, 22), np.float32) + 0.5, ((0, 0), (4, 4), (4, 4)))


def test_most_scans_are_flawless_and_every_fault_is_drawn():
    drawn = [draw_faults(np.random.default_rng(seed)) for seed in range(600)]
    jolts, ghosts, cuts = (sum(map(bool, found)) for found in (
        [f.motion for f in drawn], [f.ghost for f in drawn], [any(f.cut) for f in drawn]
    ))  # fmt: skip
    assert 20 < jolts < 75 and 30 < ghosts < 95 and 30 < cuts < 95
    assert sum(f == Faults() for f in drawn) > 400


@pytest.mark.parametrize("moment", [0.0, 0.3, 0.7, 1.0])
def test_motion_displaces_later_slices_and_no_other(image, moment):
    """Even slices are acquired first, so only odd ones are displaced by a motion after half of the time."""
    order = [0, 2, 4, 6, 8, 1, 3, 5, 7]
    late = order[round(moment * 9) :]
    moved = shift_slices(image, HeadMotion(moment, 2, -3, 0))
    for k in range(9):
        expected = np.roll(image[k], (2, -3), axis=(0, 1)) if k in late else image[k]
        assert moved[k] == pytest.approx(expected, abs=1e-5)
    assert np.array_equal(shift_slices(image, None), image)


def test_a_motion_of_part_of_a_voxel_blurs_no_slice_into_another(image):
    image[3] = 0
    moved = shift_slices(image, HeadMotion(0, 0.5, 0.5, 0))
    assert not moved[3].any() and moved.sum() == pytest.approx(image.sum(), rel=1e-5)


def test_two_slices_at_most_are_dark_and_in_a_third_of_their_signal_at_most(image):
    for moment in np.linspace(0, 1, 21):
        darker = darken_slices(image, HeadMotion(float(moment), 1, 1, 0.3)) / np.maximum(image, 1e-6)
        levels = darker.max(axis=(1, 2))
        assert 1 <= (levels < 1).sum() <= 2 and levels.min() == pytest.approx(0.7)
    assert darken_slices(image, None) is image
    motions = [draw_faults(np.random.default_rng(seed)).motion for seed in range(600)]
    assert max(motion.dark for motion in motions if motion) < 1 / 3


def test_a_ghost_lies_half_a_field_of_view_away():
    dot = np.zeros((1, 16, 4), np.float32)
    dot[0, 3, 1] = 1
    seen = add_ghost(dot, Ghost(0.1, 2.0, (0.0, 3.0, 1.0)))
    assert [tuple(at) for at in np.argwhere(seen)] == [(0, 3, 1), (0, 11, 1)]
    assert seen[0, 11, 1] == pytest.approx(np.sin(0.1)) and seen[0, 3, 1] == pytest.approx(np.cos(0.1))


def test_a_ghost_adds_in_some_bands_and_cancels_in_others_and_the_energy_stays_in_the_mean():
    even = np.ones((8, 40, 40), np.float32)
    banded = add_ghost(even, Ghost(0.1, 0.0, (0.0, 2.0, 0.0)))
    assert banded.max() == pytest.approx(np.cos(0.1) + np.sin(0.1), rel=1e-2)
    assert banded.min() == pytest.approx(np.cos(0.1) - np.sin(0.1), rel=1e-2)
    energy = [
        np.square(add_ghost(even, Ghost(0.1, phase, (0, 0, 0)))).mean() for phase in np.linspace(0, 2 * np.pi, 13)
    ]
    assert np.mean(energy[:-1]) == pytest.approx(1, rel=1e-5) and np.std(energy) > 0.1
    assert add_ghost(even, None) is even


def test_slices_are_lost_at_the_ends_of_the_brain_and_never_the_one_that_is_to_be_kept():
    brain = np.zeros((30, 5, 5), bool)
    brain[5:25] = True
    seen = cut_slices(brain, (0.1, 0.15), 12)
    assert np.flatnonzero(seen.any(axis=(1, 2))).tolist() == list(range(7, 22))
    assert np.array_equal(cut_slices(brain, (0.1, 0.15), None), seen)
    assert np.array_equal(cut_slices(brain, (0, 0), 12), brain)
    for kept, first, last in ((5, 5, 21), (6, 6, 21), (24, 8, 24), (0, 5, 21), (29, 8, 24)):
        slices = np.flatnonzero(cut_slices(brain, (0.15, 0.15), kept).any(axis=(1, 2)))
        assert (slices[0], slices[-1], slices.size) == (first, last, last - first + 1)
    assert not cut_slices(brain & False, (0.15, 0.15), 3).any()


def test_the_fullest_slice_is_found_on_a_tilted_grid():
    tilt = np.deg2rad(10)
    scan = np.eye(4)
    scan[:3, :3] = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]) * [3, 1, 1]
    scan[:3, 3] = (4, -2, 7)
    mask = np.zeros((20, 24, 28), bool)
    mask[11:14, 5:9, 17:20] = True
    mask[2, 2:4, 2:4] = True
    affine = np.diag([2.0, 1.5, 1.0, 1.0])
    centre = affine[:3, :3] @ (12, 6.5, 18)
    assert abs(fullest_slice(mask, affine, scan) - (np.linalg.inv(scan) @ (*centre, 1))[0]) < 1
    assert fullest_slice(mask & False, affine, scan) is None
