"""Components: connected components of what was found, of which a model may be much less sure than of the others.

A network that is wrong far from the lesion is wrong in components of their own, and mostly less sure of them. An
component whose mean lesion probability is lower than that of the surest by more than a margin is dropped; the margin is
found on cases that the model has not seen, and a model for which dropping does no good drops none. The paper takes the
arg-max alone ("Testing"), which is what is left where nothing is dropped.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from brainsegnet._types import Floats
from brainsegnet.inference.tiling import Classes, TiledPredictor

NOTEWORTHY = 0.1
"""The surest component is found among those with at least this share of the largest one's voxels."""
CERTAIN = 255
"""Confidence is counted in so many steps, so that a voxel takes a byte."""


class FilteredLabels(NamedTuple):
    """What is left: classes (D, H, W), and how many components of how many voxels were dropped."""

    classes: Classes
    components: int
    voxels: int


def filter_components(classes: Classes, confidence: Classes, margin: float | None) -> FilteredLabels:
    """Put the background in place of components that are less sure than the surest one by more than a margin.

    The largest component always stays: a large faint lesion beside a small bright one is not to be lost.

    Args:
        classes: (D, H, W), 0 is the background. Voxels that touch in a corner are of one component.
        confidence: Probability (D, H, W) of not being background, in `CERTAIN` steps.
        margin: Of the mean probability of an component; None drops none.

    >>> classes = np.array([[[1, 2, 0, 1, 0, 1]]], np.uint8)
    >>> filter_components(classes, np.array([[[255, 245, 0, 200, 0, 240]]], np.uint8), 0.1)
    FilteredLabels(classes=array([[[1, 2, 0, 0, 0, 1]]], dtype=uint8), components=1, voxels=1)
    """
    if margin is None:
        return FilteredLabels(classes, 0, 0)
    components, count = ndimage.label(classes, np.ones((3, 3, 3)))
    if count < 2:
        return FilteredLabels(classes, 0, 0)
    found = np.flatnonzero(components)
    owner = components.ravel()[found]
    sizes = np.bincount(owner, minlength=count + 1)
    total = np.bincount(owner, confidence.ravel()[found], minlength=count + 1)
    mean = total / np.maximum(sizes, 1) / CERTAIN
    surest = mean[sizes >= NOTEWORTHY * sizes.max()].max()
    dropped = (mean < surest - margin) & (sizes > 0)
    dropped[sizes.argmax()] = False
    if not dropped.any():
        return FilteredLabels(classes, 0, 0)
    left = classes.copy()
    left.ravel()[found[dropped[owner]]] = 0
    return FilteredLabels(left, int(np.count_nonzero(dropped)), int(sizes[dropped].sum()))


def segment_filtered(
    predictor: TiledPredictor, image: Floats, margin: float | None, slabs: int | None = None
) -> FilteredLabels:
    """The likeliest class of each voxel of an image (C, D, H, W), without the components that a margin drops."""
    if margin is None:
        return FilteredLabels(predictor.classify(image, slabs), 0, 0)
    return filter_components(*predictor.classify_with_confidence(image, slabs), margin)


def filter_probabilities(probabilities: Floats, margin: float | None) -> FilteredLabels:
    """The same from probabilities (K, D, H, W)."""
    return filter_components(*labels_and_confidence(probabilities), margin)


def labels_and_confidence(probabilities: Floats) -> tuple[Classes, Classes]:
    """Classes and confidence (D, H, W), as `filter_components` wants them, of probabilities (K, D, H, W)."""
    return np.argmax(probabilities, 0).astype(np.uint8), np.rint((1 - probabilities[0]) * CERTAIN).astype(np.uint8)


def suppress_dropped(probabilities: Floats, classes: Classes) -> Floats:
    """Probabilities (K, d, h, w) with the background certain where components were dropped from `classes` (d, h, w)."""
    dropped = (classes == 0) & (probabilities[1:].max(0) > probabilities[0])
    if not dropped.any():
        return probabilities
    sure = np.zeros((len(probabilities), 1), np.float32)
    sure[0] = 1
    kept = probabilities.copy()
    kept[:, dropped] = sure
    return kept
