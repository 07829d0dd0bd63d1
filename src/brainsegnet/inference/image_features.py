"""What a prepared scan looks like in a few dozen numbers: each sequence, each pair of them, and the head's shape.

All of it is measured on every fourth millimetre, and with medians and quantiles, so that it costs milliseconds and a
large lesion moves it little.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainsegnet._types import Doubles, Millimetres
from brainsegnet.model.card import BLOCKS
from brainsegnet.preprocessing.prepare import Prepared

STEP_MM = 4.0
"""Distance between the voxels that are looked at, where the scan is at least as fine."""
RIM_MM, RING_MM, DEEP_MM = 6.0, 14.0, 25.0
"""Depth below the mask's surface of the outermost layer, of the one beneath it, and from which the inside begins."""
DARK_RING = -0.5
"""Standard deviations below which the skull lies.

The fluid around a shrunken brain can be as bright in T2 and ADC as scalp, but what lies beneath it is not dark.
"""
BLOCK_MM = 24.0
"""The shape is how much of each of 8 x 8 x 8 blocks of 24 mm around the mask's centre the mask fills."""

FEATURES = ("even", "even75", "uneven", "q02", "q10", "q25", "q75", "q90", "q98", "deep05", "deep95", "rim", "texture")
"""Of a sequence, in standard deviations from its median: the median and upper quartile of its evenest fifth (white
matter, mostly), the median of its most uneven fifth (cortex and fluid), quantiles, quantiles deep inside, the median of
the outermost layer; and the correlation of brightness with unevenness."""
PAIR_FEATURES = ("detail", "tails", "shoulders")
"""Of two sequences: correlation of their detail, and how much further the first rises above the second than it falls
below, at the 0.3 % and 3 % ends, as a logarithm."""
MIRROR = np.array([1.0, -1.0, -1.0])
"""What the features of a pair are multiplied by when the two change places."""


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """What a scan looks like.

    Attributes:
        single: Sequence to its `FEATURES`.
        pairs: Two sequences, in the order of the alphabet, to their `PAIR_FEATURES`.
        alike: The same two to the correlation of the images.
        rings: Sequence to the medians of the outermost layer of the mask and of the one beneath.
        volume_ml: Of the mask.
        filled: Share of its box that the mask fills.
        shape: Share (8, 8, 8) of each block that the mask fills.
    """

    single: Mapping[str, Doubles]
    pairs: Mapping[tuple[str, str], Doubles]
    alike: Mapping[tuple[str, str], float]
    rings: Mapping[str, tuple[float, float]]
    volume_ml: float
    filled: float
    shape: Doubles

    @property
    def rims(self) -> dict[str, float]:
        """The sequences with a dark ring beneath the rim, and by how much the rim outshines it."""
        return {name: rim - ring for name, (rim, ring) in self.rings.items() if ring < DARK_RING}


@dataclass(frozen=True, eq=False)
class _Sample:
    """Every few voxels of a scan: images (C, d, h, w), mask and depth in millimetres (d, h, w)."""

    image: NDArray[np.float32]
    mask: NDArray[np.bool_]
    depth_mm: Doubles
    spacing_mm: Millimetres


def measure_features(prepared: Prepared, spacing_mm: Millimetres) -> ImageFeatures:
    """Look at a prepared scan.

    Args:
        prepared: Upright, cropped and normalised.
        spacing_mm: Of the scan as it is stored, (D, H, W) before it was turned: `case.reference.spacing_mm`.
    """
    sample = _take_sample(prepared, spacing_mm)
    mask, names = sample.mask, prepared.sequences
    weight = ndimage.uniform_filter(mask.astype(np.float32), 3)
    blurs = [_blur(channel, mask, weight) for channel in sample.image]
    values = np.clip(sample.image[:, mask], -3, 3)
    detail = values - np.array([mean[mask] for mean, _ in blurs])
    single, rings = {}, {}
    for name, channel, (mean, variance) in zip(names, sample.image, blurs, strict=True):
        single[name] = _measure_single(channel, mean, variance, mask & (weight > 0.99), sample)
        rings[name] = _measure_rings(channel, sample)
    pairs, alike = {}, {}
    for one, other in combinations(sorted(names), 2):
        i, j = names.index(one), names.index(other)
        pairs[one, other] = np.array([_correlate(detail[i], detail[j]), *_compare_tails(values[i], values[j])])
        alike[one, other] = _correlate(values[i], values[j])
    volume_ml = float(np.count_nonzero(prepared.mask) * np.prod(spacing_mm) / 1000)
    filled = float(np.count_nonzero(prepared.mask) / prepared.mask.size)
    return ImageFeatures(single, pairs, alike, rings, volume_ml, filled, _measure_shape(sample))


def _take_sample(prepared: Prepared, spacing_mm: Millimetres) -> _Sample:
    upright_mm = [spacing_mm[axis] for axis in prepared.turn.axes]
    steps = [max(1, round(STEP_MM / mm)) for mm in upright_mm]
    if not prepared.mask[tuple(slice(None, None, step) for step in steps)].any():
        steps = [1, 1, 1]
    sparse = tuple(slice(None, None, step) for step in steps)
    mask = prepared.mask[sparse]
    d, h, w = (step * mm for step, mm in zip(steps, upright_mm, strict=True))
    depth_mm = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=(d, h, w))[1:-1, 1:-1, 1:-1]
    image = np.asarray(prepared.image[(slice(None), *sparse)])
    return _Sample(image, mask, np.asarray(depth_mm), (d, h, w))


def _blur(
    channel: NDArray[np.float32], mask: NDArray[np.bool_], weight: NDArray[np.float32]
) -> tuple[Doubles, Doubles]:
    """Mean and variance (d, h, w) of the brain's voxels among 3 x 3 x 3."""
    clipped, share = np.clip(channel, -3, 3), np.maximum(weight, 1e-3)
    mean = ndimage.uniform_filter(clipped, 3) / share
    return mean, ndimage.uniform_filter(clipped * clipped, 3) / share - mean * mean


def _measure_single(
    channel: NDArray[np.float32], mean: Doubles, variance: Doubles, inner: NDArray[np.bool_], sample: _Sample
) -> Doubles:
    if not inner.any():
        inner = sample.mask
    values, spread = channel[inner], variance[inner]
    low, high = np.quantile(spread, [0.2, 0.8])
    even, uneven = values[spread <= low], values[spread >= high]
    whole = np.quantile(channel[sample.mask], [0.02, 0.10, 0.25, 0.75, 0.90, 0.98])
    whole[-1] = np.log(max(whole[-1], 0.1))
    deep = np.quantile(_or_all(channel, sample.depth_mm > DEEP_MM, sample.mask), [0.05, 0.95])
    rim = np.median(_or_all(channel, sample.depth_mm < RIM_MM, sample.mask))
    ends = [np.median(even), np.quantile(even, 0.75), np.median(uneven)]
    return np.array([*ends, *whole, *deep, rim, _correlate(mean[inner], spread)])


def _measure_rings(channel: NDArray[np.float32], sample: _Sample) -> tuple[float, float]:
    outer = _or_all(channel, sample.depth_mm < RIM_MM, sample.mask)
    inner = _or_all(channel, (sample.depth_mm >= RIM_MM) & (sample.depth_mm < RING_MM), sample.mask)
    return float(np.median(outer)), float(np.median(inner))


def _or_all(channel: NDArray[np.float32], part: NDArray[np.bool_], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Values of a part of the mask; of all of it where the part is empty."""
    chosen = part & mask
    return channel[chosen if chosen.any() else mask]


def _correlate(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    a, b = one - one.mean(), other - other.mean()
    return float((a @ b) / max(float(np.sqrt((a @ a) * (b @ b))), 1e-9))


def _compare_tails(one: NDArray[np.float32], other: NDArray[np.float32]) -> tuple[float, float]:
    difference = one - other
    lowest, low, middle, high, highest = np.quantile(difference, [0.003, 0.03, 0.5, 0.97, 0.997])
    tails = np.log(max(highest - middle, 1e-3) / max(middle - lowest, 1e-3))
    return float(tails), float(np.log(max(high - middle, 1e-3) / max(middle - low, 1e-3)))


def _measure_shape(sample: _Sample) -> Doubles:
    """Share (8, 8, 8) of each block around the mask's centre that the mask fills."""
    blocks = []
    for axis, mm in enumerate(sample.spacing_mm):
        counts = sample.mask.sum(axis=tuple({0, 1, 2} - {axis}))
        places = np.arange(counts.size) * mm
        centred = places - (counts @ places) / counts.sum()
        blocks.append(np.clip(np.floor(centred / BLOCK_MM + BLOCKS / 2), 0, BLOCKS - 1).astype(int))
    index = (blocks[0][:, None, None] * BLOCKS + blocks[1][:, None]) * BLOCKS + blocks[2]
    voxels = np.bincount(index[sample.mask], minlength=BLOCKS**3).reshape(BLOCKS, BLOCKS, BLOCKS)
    return np.minimum(voxels * np.prod(sample.spacing_mm) / BLOCK_MM**3, 1.0)
