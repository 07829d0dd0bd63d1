"""Islands that a model is much less sure of are dropped, and nothing else changes."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.inference.components import (
    CERTAIN,
    MARGINS,
    choose_margin,
    clear_chances,
    drop_islands,
    find_classes,
    without_dropped,
)


@pytest.fixture
def scene(rng):
    """Classes with islands of all sizes, and a sureness for each voxel."""
    smooth = ndimage.gaussian_filter(rng.normal(size=(20, 30, 30)), 1.5)
    classes = np.where(smooth > 0.12, rng.integers(1, 4, smooth.shape), 0).astype(np.uint8)
    sureness = np.clip(150 + 900 * ndimage.gaussian_filter(rng.normal(size=smooth.shape), 3), 128, 255)
    assert ndimage.label(classes, np.ones((3, 3, 3)))[1] > 10
    return classes, sureness.astype(np.uint8)


def island_means(classes, sureness):
    islands, count = ndimage.label(classes, np.ones((3, 3, 3)))
    return islands, ndimage.mean(sureness / CERTAIN, islands, range(1, count + 1))


@pytest.mark.parametrize("margin", [0.02, 0.1, 0.3])
def test_just_the_islands_below_the_margin_go_and_each_goes_whole(scene, margin):
    classes, sureness = scene
    islands, means = island_means(classes, sureness)
    sizes = np.bincount(islands.ravel())[1:]
    surest = means[sizes >= 0.1 * sizes.max()].max()
    expected = classes.copy()
    gone = np.flatnonzero((means < surest - margin) & (sizes < sizes.max())) + 1
    expected[np.isin(islands, gone)] = 0
    before = classes.copy()
    cleared = drop_islands(classes, sureness, margin)
    np.testing.assert_array_equal(cleared.classes, expected)
    assert (cleared.islands, cleared.voxels) == (len(gone), np.isin(islands, gone).sum())
    np.testing.assert_array_equal(classes, before)


def test_a_smaller_margin_drops_more_and_something_is_always_left(scene):
    dropped = [drop_islands(*scene, margin).voxels for margin in (*MARGINS, 0.999)]
    assert dropped == sorted(dropped, reverse=True) and dropped[0] > 0 == dropped[-1]
    assert drop_islands(*scene, 0.0001).classes.any()


def test_without_a_margin_or_with_one_island_or_none_all_stays(scene):
    classes, sureness = scene
    assert drop_islands(classes, sureness, None).classes is classes
    one = np.zeros((4, 5, 6), np.uint8)
    one[0, 0, 0] = one[1, 1, 1] = 2
    assert drop_islands(one, one, 0.01)[1:] == (0, 0), "voxels that touch in a corner are of one island"
    assert drop_islands(one * 0, one, 0.01)[1:] == (0, 0)


def test_a_speck_does_not_set_the_measure_for_the_rest():
    classes, sureness = np.zeros((1, 1, 40), np.uint8), np.full((1, 1, 40), 200, np.uint8)
    classes[..., :20], classes[..., 30] = 1, 1
    sureness[..., 30] = 255
    assert drop_islands(classes, sureness, 0.1).voxels == 0


def test_the_largest_island_stays_however_sure_the_others_are():
    classes, sureness = np.zeros((1, 1, 40), np.uint8), np.full((1, 1, 40), 150, np.uint8)
    classes[..., :20], classes[..., 25:30], classes[..., 35] = 1, 1, 1
    sureness[..., 25:30] = 255
    left = drop_islands(classes, sureness, 0.1)
    assert (left.islands, left.voxels) == (1, 1) and left.classes[..., :30].sum() == 25


def test_probabilities_and_the_shorter_way_give_the_same(rng):
    chances = ndimage.gaussian_filter(rng.normal(size=(3, 12, 20, 20)), (0, 1.5, 1.5, 1.5))
    chances[0] += 0.1
    chances = np.exp(12 * chances).astype(np.float32)
    chances /= chances.sum(0)
    surely = chances.argmax(0).astype(np.uint8), np.rint((1 - chances[0]) * CERTAIN).astype(np.uint8)
    passes = SimpleNamespace(classify=lambda image, slabs: surely[0], classify_surely=lambda image, slabs: surely)
    whole, short = clear_chances(chances, 0.1), find_classes(passes, None, 0.1)
    assert whole.islands == short.islands > 0
    np.testing.assert_array_equal(whole.classes, short.classes)
    assert find_classes(passes, None, None).classes is surely[0]
    kept = without_dropped(chances, whole.classes)
    np.testing.assert_array_equal(kept.argmax(0), whole.classes)
    same = (whole.classes > 0) | (surely[0] == 0)
    np.testing.assert_array_equal(kept[:, same], chances[:, same])
    assert (kept[0, ~same] == 1).all() and without_dropped(chances, surely[0]) is chances


def test_the_middle_of_the_good_margins_is_chosen_and_none_where_nothing_is_gained():
    scores = {None: 0.70, **dict.fromkeys(MARGINS, 0.72), **dict.fromkeys(MARGINS[3:8], 0.75), MARGINS[8]: 0.7485}
    assert choose_margin([scores]) == MARGINS[6], "of the six good ones, the upper of the two in the middle"
    assert choose_margin([scores | {MARGINS[8]: 0.7}]) == MARGINS[5]
    assert choose_margin([scores | {None: 0.749}]) is None
    worse = {margin: 1 - score for margin, score in scores.items()}
    assert choose_margin([scores, worse]) is None
