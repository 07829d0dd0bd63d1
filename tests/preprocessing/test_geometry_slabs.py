from itertools import pairwise

import numpy as np
import pytest

from brainsegnet.preprocessing.geometry import cut, slab_starts, stitch


@pytest.mark.parametrize("depth", [1, 6, 7, 8, 20, 21])
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_stitch_undoes_cut(rng, depth, lead):
    x = rng.random((*lead, depth, 4, 5))
    np.testing.assert_array_equal(stitch(cut(x, 7), depth), x)


@pytest.mark.parametrize("depth", range(1, 40))
@pytest.mark.parametrize("thickness", [1, 7, 12])
def test_slabs_cover_every_slice_and_only_the_last_overlaps(depth, thickness):
    starts = slab_starts(depth, thickness)
    thickness = min(thickness, depth)
    assert starts[0] == 0 and starts[-1] + thickness == depth
    *steps, last = (b - a for a, b in pairwise((*starts, depth)))
    assert last == thickness and all(step == thickness for step in steps[:-1])
    assert all(0 < step <= thickness for step in steps)


def test_where_slabs_overlap_the_last_one_wins():
    slabs = [np.full((3, 1, 1), k) for k in range(2)]
    assert stitch(slabs, 5).ravel().tolist() == [0, 0, 1, 1, 1]


def test_cut_copies_nothing(rng):
    x = rng.random((20, 4, 5))
    assert all(np.shares_memory(slab, x) for slab in cut(x, 7))


def test_impossible_slabs_are_refused():
    for depth, thickness in ((0, 3), (3, 0)):
        with pytest.raises(ValueError, match="at least one slice"):
            slab_starts(depth, thickness)
    with pytest.raises(ValueError, match="20 slices make 3 slabs of 7, not 2"):
        stitch([np.zeros((7, 1, 1))] * 2, 20)
