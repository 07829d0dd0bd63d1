from itertools import pairwise, permutations, product

import numpy as np
import pytest

from brainsegnet.preprocessing.geometry import Turn, find_turn, slab_starts, turn, turn_array
from brainsegnet.volume import LabelMap, Volume

UPRIGHT = np.array([[0, 0, 1.2, -90], [0, 0.9, 0, -120], [3.0, 0, 0, -60], [0, 0, 0, 1]])
TURNS = [Turn(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]


def tilted(affine, degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]]) @ affine


@pytest.fixture
def scan(rng):
    return Volume(rng.random((3, 4, 5)), tilted(UPRIGHT, 25))


@pytest.mark.parametrize("how", TURNS)
def test_every_way_to_store_a_scan_is_brought_upright(scan, how):
    stored = turn(scan, how)
    found = find_turn(stored.affine)
    assert found == how.inverse
    upright = turn(stored, found)
    np.testing.assert_array_equal(upright.array, scan.array)
    np.testing.assert_allclose(upright.affine, scan.affine, atol=1e-12)


@pytest.mark.parametrize("how", TURNS)
def test_the_inverse_undoes_a_turn(scan, how):
    back = turn(turn(scan, how), how.inverse)
    np.testing.assert_array_equal(back.array, scan.array)
    np.testing.assert_allclose(back.affine, scan.affine, atol=1e-12)
    assert how.inverse.inverse == how


@pytest.mark.parametrize("how", TURNS)
def test_voxels_stay_where_they_are_in_the_patient(scan, how):
    turned = turn(scan, how)
    marked = np.argwhere(turned.array == scan.array[1, 2, 3])[0]
    np.testing.assert_allclose(turned.affine @ (*marked, 1), scan.affine @ (1, 2, 3, 1), atol=1e-12)


@pytest.mark.parametrize("degrees", [-40, 0, 40])
def test_a_nearly_axial_scan_is_left_as_it_is(scan, degrees):
    volume = Volume(scan.array, tilted(UPRIGHT, degrees))
    how = find_turn(volume.affine)
    assert how == Turn() and turn(volume, how) is volume


def test_a_label_map_stays_one_and_leading_axes_stay_put(rng):
    how = Turn((2, 0, 1), (True, False, True))
    assert isinstance(turn(LabelMap(np.zeros((3, 4, 5), np.uint8), UPRIGHT), how), LabelMap)
    x = rng.random((2, 3, 4, 5))
    np.testing.assert_array_equal(turn_array(x, how)[1], turn_array(x[1], how))
    assert np.shares_memory(turn_array(x, how), x)


@pytest.mark.parametrize("depth", range(1, 40))
@pytest.mark.parametrize("thickness", [1, 7, 12])
def test_slabs_cover_every_slice_and_only_the_last_overlaps(depth, thickness):
    starts = slab_starts(depth, thickness)
    thickness = min(thickness, depth)
    assert starts[0] == 0 and starts[-1] + thickness == depth
    *steps, last = (b - a for a, b in pairwise((*starts, depth)))
    assert last == thickness and all(step == thickness for step in steps[:-1])
    assert all(0 < step <= thickness for step in steps)


def test_impossible_slabs_are_refused():
    for depth, thickness in ((0, 3), (3, 0)):
        with pytest.raises(ValueError, match="at least one slice"):
            slab_starts(depth, thickness)
