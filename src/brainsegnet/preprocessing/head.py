"""A raw scan as the brain extraction sees it: upright voxels of 2 mm, with intensities that stray voxels cannot upset.

What is computed there comes back to the grid of the scan by linear interpolation of logits, never of a mask. Beyond the
middle of the first and the last slice these are repeated, as thick slices reach further than their middle.
"""

import numpy as np
from scipy import ndimage

from brainsegnet._types import Array, Floats, Mask
from brainsegnet.preprocessing.geometry import find_turn, turn
from brainsegnet.volume import Volume

WORKING_MM = 2.0
"""Spacing of the grid on which the brain is found."""
ANTI_ALIAS = 0.42
"""Standard deviation of the blur before a coarser grid is sampled, in voxels of that grid."""
BOUNDS = (0.01, 0.99)
"""Quantiles of the field of view at which intensities are clipped."""


def scale_intensities(image: Array, seen: Mask | None = None) -> Floats:
    """Intensities (D, H, W) of a raw scan between 0 and 2, about 1 in bright tissue, 0 outside `seen`.

    An intensity v above the lower bound becomes 2 v / (v + s), where s is the mean of those above the mean, so the
    result does not depend on the unit, and the largest values count little.

    >>> scale_intensities(np.array([[[0.0, 10.0, 10.0, 10.0]]])).round(2).tolist()
    [[[0.0, 1.0, 1.0, 1.0]]]
    """
    step = tuple(slice(None, None, 2 if n > 40 else 1) for n in image.shape)
    some = np.asarray(image[step] if seen is None else image[step][seen[step]], np.float32).ravel()
    low, high = np.quantile(some, BOUNDS) if some.size else (0.0, 0.0)
    if not high > low:
        return np.zeros(image.shape, np.float32)
    above = np.clip(some - low, 0, high - low)
    scale = float(above[above >= above.mean()].mean())
    v = np.clip(np.asarray(image, np.float32) - np.float32(low), 0, None)
    scaled = 2 * v / (v + np.float32(scale))
    return np.asarray(scaled if seen is None else scaled * seen, np.float32)


def to_working_grid(scan: Volume, spacing_mm: float = WORKING_MM) -> Volume:
    """A scan as an upright image (D, H, W) of cubic voxels, float32, that covers the same field of view."""
    upright = turn(scan, find_turn(scan.affine))
    array = np.asarray(upright.array, np.float32)
    ratios = [spacing_mm / s for s in upright.spacing_mm]
    for axis in sorted(range(3), key=lambda axis: -ratios[axis]):
        array = _coarsen(array, ratios[axis], axis)
    first = [(r - 1) / 2 + _slack(n, r) for n, r in zip(upright.shape, ratios, strict=True)]
    affine = upright.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ first
    affine[:3, :3] = affine[:3, :3] * ratios
    return Volume(array, affine)


def to_scan_grid(working: Volume, scan: Volume) -> Floats:
    """What was computed on the grid of `to_working_grid`, such as logits, on the grid (D, H, W) of the scan."""
    how = find_turn(scan.affine)
    upright = turn(scan, how)
    array = np.asarray(working.array, np.float32)
    for axis, (n, s, w) in enumerate(zip(upright.shape, upright.spacing_mm, working.spacing_mm, strict=True)):
        ratio = w / s
        at = (np.arange(n) - (ratio - 1) / 2 - _slack(n, ratio)) / ratio
        array = _interpolate(array, at, axis)
    return np.asarray(turn(Volume(array, upright.affine), how.inverse).array)


def _coarsen(array: Floats, ratio: float, axis: int) -> Floats:
    """An array (D, H, W) blurred along an axis and sampled at steps of `ratio` voxels."""
    n = array.shape[axis]
    if ratio > 1.2:
        array = ndimage.gaussian_filter1d(array, ANTI_ALIAS * np.sqrt(ratio**2 - 1), axis, mode="nearest")
    return _interpolate(array, _positions(n, ratio, max(1, round(n / ratio))), axis)


def _positions(n: int, ratio: float, count: int) -> Floats:
    return np.asarray(np.arange(count) * ratio + (ratio - 1) / 2 + _slack(n, ratio), np.float32)


def _slack(n: int, ratio: float) -> float:
    """What centres `round(n / ratio)` voxels within n, in voxels of the latter."""
    return (n - max(1, round(n / ratio)) * ratio) / 2


def _interpolate(array: Floats, at: Array, axis: int) -> Floats:
    """An array interpolated linearly at positions along an axis; its ends are repeated."""
    n = array.shape[axis]
    at = np.clip(at, 0, n - 1)
    low = np.minimum(at.astype(np.intp), max(n - 2, 0))
    share = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    first = array.take(low, axis)
    return np.asarray(first + share * (array.take(np.minimum(low + 1, n - 1), axis) - first), np.float32)
