"""Faults of echo-planar scans: a jolt moves later slices alone, a ghost keeps the energy, a cut keeps the lesion."""

import numpy as np
import pytest

from brainsegnet.synthesis.stroke_faults import (
    FLAWLESS,
    Jolt,
    add_ghost,
    cut_slices,
    darken_slices,
    draw_faults,
    middle_slice,
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


def test_a_ghost_lies_half_a_field_of_view_away_and_the_energy_stays(image):
    ghostly = add_ghost(image, 0.1)
    assert np.square(ghostly).sum() == pytest.approx(np.square(image).sum(), rel=1e-5)
    dot = np.zeros((1, 16, 4), np.float32)
    dot[0, 3, 1] = 1
    seen = add_ghost(dot, 0.1)
    assert [tuple(at) for at in np.argwhere(seen)] == [(0, 3, 1), (0, 11, 1)]
    assert seen[0, 11, 1] == pytest.approx(np.sin(0.1)) and seen[0, 3, 1] == pytest.approx(np.cos(0.1))
    assert add_ghost(image, 0.0) is image


def test_slices_are_lost_at_the_ends_of_the_brain_and_never_the_middle_of_the_lesion():
    brain = np.zeros((30, 5, 5), bool)
    brain[5:25] = True
    seen = cut_slices(brain, (0.1, 0.15), 12)
    assert np.flatnonzero(seen.any(axis=(1, 2))).tolist() == list(range(7, 22))
    assert np.array_equal(cut_slices(brain, (0, 0), 12), brain)
    for middle in (5, 24):
        kept = cut_slices(brain, (0.15, 0.15), middle)
        assert kept[middle].all() and kept.sum() < brain.sum()


def test_the_middle_slice_is_found_on_a_tilted_grid():
    tilt = np.deg2rad(10)
    scan = np.eye(4)
    scan[:3, :3] = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]) * [3, 1, 1]
    scan[:3, 3] = (4, -2, 7)
    mask = np.zeros((20, 24, 28), bool)
    mask[11:14, 5:9, 17:20] = True
    head = np.diag([2.0, 1.5, 1.0, 1.0])
    centre = head[:3, :3] @ (12, 6.5, 18)
    assert middle_slice(mask, head, scan) == round((np.linalg.inv(scan) @ (*centre, 1))[0])
