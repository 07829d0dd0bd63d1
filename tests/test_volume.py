import numpy as np
import pytest

from brainsegnet.errors import GridMismatch
from brainsegnet.volume import Case, Volume, measure_gap

HEAD = np.array([[0, 0, 1, -120], [0, 1, 0, -120], [1, 0, 0, -70], [0, 0, 0, 1.0]])


def head(affine, shape=(155, 240, 240)):
    return Volume(np.broadcast_to(np.uint8(0), shape), affine)


def nudged(rng, size):
    """Every entry of the affine off by `size`, up or down."""
    affine = HEAD.copy()
    affine[:3] += size * rng.choice([-1, 1], (3, 4))
    return head(affine)


@pytest.mark.parametrize("size", [1e-8, 1e-7, 1e-6, 1e-5, 1e-4])
def test_headers_that_differ_by_rounding_are_one_grid(rng, size):
    for _ in range(20):
        assert nudged(rng, size).on_grid_of(head(HEAD)) and head(HEAD).on_grid_of(nudged(rng, size))


def test_the_worst_rounding_of_1e_4_parts_the_corners_by_less_than_a_tenth_of_a_millimetre():
    worst = HEAD.copy()
    worst[:3] += 1e-4
    assert measure_gap(head(worst), head(HEAD)) == pytest.approx(1e-4 * (154 + 239 + 239 + 1))
    assert head(worst).on_grid_of(head(HEAD))


@pytest.mark.parametrize("degrees", [0.1, 1, 90])
def test_a_turned_head_is_another_grid(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert not head(turn @ HEAD).on_grid_of(head(HEAD))


def test_a_shifted_or_mirrored_head_and_another_shape_are_other_grids():
    shifted, mirrored = HEAD.copy(), HEAD @ np.diag([1, 1, -1, 1])
    shifted[0, 3] += 0.5
    assert not head(shifted).on_grid_of(head(HEAD)) and not head(mirrored).on_grid_of(head(HEAD))
    assert not head(HEAD, (154, 240, 240)).on_grid_of(head(HEAD))


def test_where_voxels_are_small_so_is_the_tolerance():
    fine = HEAD @ np.diag([0.05, 0.05, 0.05, 1])
    shifted = fine.copy()
    shifted[0, 3] += 0.05
    assert not head(shifted).on_grid_of(head(fine)), "a whole voxel of 50 micrometres"


def test_a_case_refuses_another_grid_with_its_size():
    shifted = HEAD.copy()
    shifted[1, 3] += 2
    with pytest.raises(GridMismatch, match=r"case pat1: t2 and flair have the same shape, .* differ by up to 2 mm"):
        Case("pat1", {"flair": head(HEAD), "t2": head(shifted)})


def test_a_case_of_two_shapes_is_refused_with_both():
    with pytest.raises(GridMismatch, match=r"t1c is \(160, .*\) but flair is \(155, .*; bring t1c onto flair's grid"):
        Case("pat1", {"flair": head(HEAD), "t1c": head(HEAD, (160, 240, 240))})
