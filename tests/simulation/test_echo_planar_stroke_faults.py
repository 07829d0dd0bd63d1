"""Faults of echo-planar scans: a jolt moves later slices alone, ghosts come in bands, a cut keeps the lesion."""

import numpy as np
import pytest

from brainsegnet.simulation.echo_planar import (
    FLAWLESS,
    Ghost,
    Jolt,
    add_ghost,
    cut_slices,
    darken_slices,
    draw_faults,
    fullest_slice,
    shift_slices,
)


@pytest.fixture
def image():
    return np.pad(np.random.default_rng(0).random((9, 20, 22), np.float32) + 0.5, ((0, 0), (4, 4), (4, 4)))


def test_most_scans_are_flawless_and_every_fault_is_drawn():
    drawn = [draw_faults(np.random.default_rng(seed)) for seed in range(600)]
    jolts, ghosts, cuts = (sum(map(bool, found)) for found in (
        [f.jolt for f in drawn], [f.ghost for f in drawn], [any(f.cut) for f in drawn]
    ))  # fmt: skip
    assert 20 < jolts < 75 and 30 < ghosts < 95 and 30 < cuts < 95
    assert sum(f == FLAWLESS for f in drawn) > 400


@pytest.mark.parametrize("moment", [0.0, 0.3, 0.7, 1.0])
def test_a_jolt_moves_the_slices_that_come_later_and_no_other(image, moment):
    """Every other slice is taken first, so that after half of the time the odd ones alone lie otherwise."""
    order = [0, 2, 4, 6, 8, 1, 3, 5, 7]
    late = order[round(moment * 9) :]
    moved = shift_slices(image, Jolt(moment, 2, -3, 0))
    for k in range(9):
        expected = np.roll(image[k], (2, -3), axis=(0, 1)) if k in late else image[k]
        assert moved[k] == pytest.approx(expected, abs=1e-5)
    assert np.array_equal(shift_slices(image, None), image)


def test_a_jolt_of_a_part_of_a_voxel_blurs_no_slice_into_another(image):
    image[3] = 0
    moved = shift_slices(image, Jolt(0, 0.5, 0.5, 0))
    assert not moved[3].any() and moved.sum() == pytest.approx(image.sum(), rel=1e-5)


def test_two_slices_at_most_are_dark_and_in_a_third_of_their_signal_at_most(image):
    for moment in np.linspace(0, 1, 21):
        darker = darken_slices(image, Jolt(float(moment), 1, 1, 0.3)) / np.maximum(image, 1e-6)
        levels = darker.max(axis=(1, 2))
        assert 1 <= (levels < 1).sum() <= 2 and levels.min() == pytest.approx(0.7)
    assert darken_slices(image, None) is image
    assert max(jolt.dark for jolt in (draw_faults(np.random.default_rng(s)).jolt for s in range(600)) if jolt) < 1 / 3


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
    head = np.diag([2.0, 1.5, 1.0, 1.0])
    centre = head[:3, :3] @ (12, 6.5, 18)
    assert abs(fullest_slice(mask, head, scan) - (np.linalg.inv(scan) @ (*centre, 1))[0]) < 1
    assert fullest_slice(mask & False, head, scan) is None
