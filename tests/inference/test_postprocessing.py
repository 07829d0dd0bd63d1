"""Connected components of low confidence are dropped, and nothing else changes."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.inference.postprocessing import (
    filter_components,
    filter_probabilities,
    segment_filtered,
    suppress_dropped,
)
from brainsegnet.inference.tiling import CONFIDENCE_STEPS
from release.calibration import MARGINS, choose_margin


@pytest.fixture
def scene(rng):
    """Classes with components of all sizes, and a confidence for each voxel."""
    smooth = ndimage.gaussian_filter(rng.normal(size=(20, 30, 30)), 1.5)
    classes = np.where(smooth > 0.12, rng.integers(1, 4, smooth.shape), 0).astype(np.uint8)
    confidence = np.clip(150 + 900 * ndimage.gaussian_filter(rng.normal(size=smooth.shape), 3), 128, 255)
    assert ndimage.label(classes, np.ones((3, 3, 3)))[1] > 10
    return classes, confidence.astype(np.uint8)


def component_means(classes, confidence):
    components, count = ndimage.label(classes, np.ones((3, 3, 3)))
    return components, ndimage.mean(confidence / CONFIDENCE_STEPS, components, range(1, count + 1))


@pytest.mark.parametrize("margin", [0.02, 0.1, 0.3])
def test_only_components_below_the_margin_are_dropped_and_each_as_a_whole(scene, margin):
    classes, confidence = scene
    components, means = component_means(classes, confidence)
    sizes = np.bincount(components.ravel())[1:]
    highest = means[sizes >= 0.1 * sizes.max()].max()
    expected = classes.copy()
    dropped = np.flatnonzero((means < highest - margin) & (sizes < sizes.max())) + 1
    expected[np.isin(components, dropped)] = 0
    before = classes.copy()
    filtered = filter_components(classes, confidence, margin)
    np.testing.assert_array_equal(filtered.classes, expected)
    assert (filtered.dropped_components, filtered.dropped_voxels) == (len(dropped), np.isin(components, dropped).sum())
    np.testing.assert_array_equal(classes, before)


def test_a_smaller_margin_drops_more_and_something_is_always_kept(scene):
    dropped = [filter_components(*scene, margin=margin).dropped_voxels for margin in (*MARGINS, 0.999)]
    assert dropped == sorted(dropped, reverse=True) and dropped[0] > 0 == dropped[-1]
    assert filter_components(*scene, margin=0.0001).classes.any()


def test_without_a_margin_or_with_one_component_or_none_all_is_kept(scene):
    classes, confidence = scene
    assert filter_components(classes, confidence, None).classes is classes
    one = np.zeros((4, 5, 6), np.uint8)
    one[0, 0, 0] = one[1, 1, 1] = 2
    assert filter_components(one, one, 0.01)[1:] == (0, 0), "voxels that touch in a corner are of one component"
    assert filter_components(one * 0, one, 0.01)[1:] == (0, 0)


def test_a_small_component_is_not_the_measure_for_the_others():
    classes, confidence = np.zeros((1, 1, 40), np.uint8), np.full((1, 1, 40), 200, np.uint8)
    classes[..., :20], classes[..., 30] = 1, 1
    confidence[..., 30] = 255
    assert filter_components(classes, confidence, 0.1).dropped_voxels == 0


def test_the_largest_component_is_kept_whatever_the_confidence_of_the_others():
    classes, confidence = np.zeros((1, 1, 40), np.uint8), np.full((1, 1, 40), 150, np.uint8)
    classes[..., :20], classes[..., 25:30], classes[..., 35] = 1, 1, 1
    confidence[..., 25:30] = 255
    left = filter_components(classes, confidence, 0.1)
    assert (left.dropped_components, left.dropped_voxels) == (1, 1) and left.classes[..., :30].sum() == 25


def test_probabilities_and_classes_with_confidence_give_the_same(rng):
    probabilities = ndimage.gaussian_filter(rng.normal(size=(3, 12, 20, 20)), (0, 1.5, 1.5, 1.5))
    probabilities[0] += 0.1
    probabilities = np.exp(12 * probabilities).astype(np.float32)
    probabilities /= probabilities.sum(0)
    labelled = (
        probabilities.argmax(0).astype(np.uint8),
        np.rint((1 - probabilities[0]) * CONFIDENCE_STEPS).astype(np.uint8),
    )
    predictor = SimpleNamespace(
        classify=lambda image, slabs: labelled[0], classify_with_confidence=lambda image, slabs: labelled
    )
    whole, short = filter_probabilities(probabilities, 0.1), segment_filtered(predictor, None, 0.1)
    assert whole.dropped_components == short.dropped_components > 0
    np.testing.assert_array_equal(whole.classes, short.classes)
    assert segment_filtered(predictor, None, None).classes is labelled[0]
    suppressed = suppress_dropped(probabilities, whole.classes)
    np.testing.assert_array_equal(suppressed.argmax(0), whole.classes)
    same = (whole.classes > 0) | (labelled[0] == 0)
    np.testing.assert_array_equal(suppressed[:, same], probabilities[:, same])
    assert (suppressed[0, ~same] == 1).all() and suppress_dropped(probabilities, labelled[0]) is probabilities


def test_the_middle_of_the_good_margins_is_chosen_and_none_where_nothing_is_gained():
    scores = {None: 0.70, **dict.fromkeys(MARGINS, 0.72), **dict.fromkeys(MARGINS[3:8], 0.75), MARGINS[8]: 0.7485}
    assert choose_margin([scores]) == MARGINS[6], "of the six good ones, the upper of the two in the middle"
    assert choose_margin([scores | {MARGINS[8]: 0.7}]) == MARGINS[5]
    assert choose_margin([scores | {None: 0.749}]) is None
    worse = {margin: 1 - score for margin, score in scores.items()}
    assert choose_margin([scores, worse]) is None
