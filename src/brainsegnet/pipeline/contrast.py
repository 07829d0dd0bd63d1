"""What an image itself says about its sequence: how bright fluid, grey and white matter are in the middle of the brain.

Twelve numbers, measured in voxels of 4 mm, go through a network with one hidden layer, which was trained on simulated
heads alone (`tools/release/sequences.py`). It tells T1, T2 and FLAIR apart, and says nothing in doubt. It cannot see
whether a contrast agent was given. A diffusion scan looks like FLAIR to it, and an ADC map like T2, unless the values
are in mm2/s.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from brainsegnet._types import Array, Doubles, Floats, Mask
from brainsegnet.io.diffusion import find_middle
from brainsegnet.pipeline.headers import Evidence
from brainsegnet.preprocessing.geometry import find_turn, turn
from brainsegnet.volume import Volume

CLASSES = ("t1", "t2", "flair", "other")
"""What the network tells apart; "other" is proton density, T2* and what is no head."""
WEIGHTS = Path(__file__).with_name("contrast.npz")
FINE_MM = 2.0
COARSE = 2
"""Voxels of `FINE_MM` along each side of one that is measured."""
INPUT = (36, 48, 40)
"""Voxels (D, H, W) of 4 mm, from the top of the head."""
MIDDLE = (19.0, 24.0, 20.0)
"""Middle of the brain in the input, about 65 mm below the top of the head."""
LOWEST = 0.08
"""Tissue is brighter than this share of bright tissue."""
FEWEST = 200
"""With fewer voxels in the middle, it is no head."""
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.75, 0.9, 0.95, 0.99)
COUNT = len(QUANTILES) + 4
"""Number of features."""
LEAST = {"t1": 0.7, "t2": 0.7, "flair": 0.85}
"""With a smaller probability, the image says nothing. For T1 and T2, set at a precision of 95 % on 197 simulated heads
from three label maps outside training. For FLAIR it was raised, because real T1 images were taken for it."""
TRUST = 0.44
"""What is said counts as much as its probability times this, so that the image alone never decides (`choose.LEAST`)."""
FEW_VALUES = 32
"""An image of no more whole values is a label map."""
MM2_S = (2e-4, 3e-3)
"""Between these, the median of a map in mm2/s lies, and that of no other image does."""
_LOOKS: Mapping[str, str] = {
    "t1": "fluid dark, white matter brighter than grey",
    "t2": "fluid bright, grey matter brighter than white",
    "flair": "fluid dark, grey matter no darker than white",
}


def read_contrast(volume: Volume) -> list[Evidence]:
    """What the voxels say; nothing where they leave doubt.

    Args:
        volume: (D, H, W), the skull on or stripped.
    """
    if _is_label_map(volume.array):
        return [Evidence("mask", 0.9, "the image has few values, all whole")]
    if _is_in_mm2_s(volume.array):
        return [Evidence("adc", 0.8, "the values are those of an ADC in mm2/s")]
    chances = classify(volume)
    best = max(chances, key=lambda name: chances[name])
    if chances[best] < LEAST.get(best, 2):
        return []
    return [Evidence(best, round(TRUST * chances[best], 2), f"the image shows {_LOOKS[best]}")]


def classify(volume: Volume) -> dict[str, float]:
    """The probability of each of `CLASSES`; "other" is certain where no head is found."""
    features = measure_features(prepare_input(volume))
    if not features.any():
        return {name: float(name == "other") for name in CLASSES}
    logits = run_network(features, _load())
    shares = np.exp(logits - logits.max())
    return dict(zip(CLASSES, (shares / shares.sum()).tolist(), strict=True))


def _is_in_mm2_s(array: Array) -> bool:
    return np.issubdtype(array.dtype, np.floating) and MM2_S[0] <= find_middle(array) <= MM2_S[1]


def _is_label_map(array: Array) -> bool:
    some = array[:: max(1, array.shape[0] // 40)]
    if not np.issubdtype(array.dtype, np.integer) and not np.equal(some, np.rint(some)).all():
        return False
    return len(np.unique(some)) <= FEW_VALUES


def prepare_input(volume: Volume) -> Floats:
    """The upper part of the head (D, H, W) in voxels of 4 mm, between 0 for air and 2, about 1 in bright tissue."""
    image = _average_blocks(resample(volume))
    air, head = find_head(image)
    if not head.any():
        return np.zeros(INPUT, np.float32)
    inside = np.clip(image[head] - air, 0, None)
    scale = max(float(inside[inside >= inside.mean()].mean()), 1e-12)
    top = int(np.flatnonzero(head.any(axis=(1, 2)))[-1]) + 1
    middle = [round(float(at)) for at in ndimage.center_of_mass(head[max(0, top - INPUT[0]) : top])[1:]]
    starts = (top - INPUT[0] + 1, middle[0] - INPUT[1] // 2, middle[1] - INPUT[2] // 2)
    cut = _cut(np.clip(image - np.float32(air), 0, None), starts)
    return np.asarray(2 * cut / (cut + np.float32(scale)), np.float32)


def resample(volume: Volume) -> Floats:
    """The volume (D, H, W) upright, in voxels of `FINE_MM`: finer ones are averaged first, then interpolated."""
    upright = turn(volume, find_turn(volume.affine))
    array = np.nan_to_num(np.asarray(upright.array, np.float32), posinf=0, neginf=0)
    spacing = np.array(upright.spacing_mm)
    factors = [max(1, min(round(FINE_MM / step), n)) for step, n in zip(spacing, array.shape, strict=True)]
    d, h, w = (n // f for n, f in zip(array.shape, factors, strict=True))
    fd, fh, fw = factors
    array = array[: d * fd, : h * fh, : w * fw].reshape(d, fd, h, fh, w, fw).mean(axis=(1, 3, 5))
    zoom = spacing * factors / FINE_MM
    if np.abs(zoom - 1).max() < 0.05:
        return np.asarray(array, np.float32)
    return np.asarray(ndimage.zoom(array, zoom, order=1, grid_mode=True, mode="nearest"), np.float32)


def _average_blocks(fine: Floats) -> Floats:
    """The mean over blocks of `COARSE` voxels along each axis."""
    padded = np.pad(fine, [(0, -n % COARSE) for n in fine.shape], mode="edge")
    d, h, w = (n // COARSE for n in padded.shape)
    blocks = padded.reshape(d, COARSE, h, COARSE, w, COARSE)
    return np.asarray(blocks.mean(axis=(1, 3, 5)), np.float32)


def find_head(image: Floats) -> tuple[float, Mask]:
    """The level of air, and the largest component (D, H, W) above it, its holes filled."""
    edges = [image[:, rows, columns] for rows in (slice(2), slice(-2, None)) for columns in (slice(2), slice(-2, None))]
    air = float(np.median(np.concatenate([edge.ravel() for edge in edges])))
    high = float(np.quantile(image, 0.99))
    above = np.clip(image - air, 0, max(high - air, 0))
    if not above.any():
        return air, np.zeros(image.shape, np.bool_)
    level = 0.12 * float(above[above > above.mean()].mean())
    parts, count = ndimage.label(ndimage.gaussian_filter(above, 0.7) > level)
    if not count:
        return air, np.zeros(image.shape, np.bool_)
    head = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    head = ndimage.binary_closing(np.pad(head, 4), iterations=3)[4:-4, 4:-4, 4:-4]
    return air, np.stack([ndimage.binary_fill_holes(piece) for piece in head])


def _cut(image: Floats, starts: tuple[int, int, int]) -> Floats:
    """A box of size `INPUT`, with 0 beyond the image."""
    before = [max(0, -start) for start in starts]
    after = [max(0, start + n - m) for start, n, m in zip(starts, INPUT, image.shape, strict=True)]
    padded = np.pad(image, list(zip(before, after, strict=True)))
    inside = tuple(slice(start + b, start + b + n) for start, b, n in zip(starts, before, INPUT, strict=True))
    return np.asarray(padded[inside])


def measure_features(image: Floats) -> Doubles:
    """Quantiles in the middle of the brain and around its ventricles, and the skewness of tissue, as logarithms.

    All are shares of the median of the middle, of the input (D, H, W) of `prepare_input`. They are 0 where there is no
    head.
    """
    image = np.asarray(image / np.maximum(2 - image, 0.05), np.float32)
    head = image > LOWEST
    z, y, x = (np.arange(n) - middle for n, middle in zip(INPUT, MIDDLE, strict=True))
    parts = (z[:, None, None] / 8, y[:, None] / 12, x / 9.5)
    core = head & (parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2 < 1)
    inner = head & (np.abs(parts[0]) < 0.6) & (np.abs(parts[1]) < 0.6) & (np.abs(parts[2]) < 0.5)
    if min(core.sum(), inner.sum()) < FEWEST:
        return np.zeros(COUNT)
    image = image / max(float(np.median(image[core])), 1e-3)
    tissue = image[core & (image > 0.6) & (image < 1.5)]
    low, half, high = np.quantile(tissue, (0.1, 0.5, 0.9)) if tissue.size else (1, 1, 1)
    skewness = (low + high - 2 * half) / max(high - low, 1e-3)
    quantiles = [*np.quantile(image[core], QUANTILES), *np.quantile(image[inner], (0.1, 0.5, 0.9))]
    return np.append(np.clip(np.log1p(quantiles), 0, 2), skewness)


def run_network(features: Doubles, weights: Mapping[str, Floats]) -> Doubles:
    """Logits by class, from the features: one hidden layer."""
    scaled = np.clip((features - weights["mean"]) / weights["deviation"], -4, 4)
    hidden = np.maximum(weights["first"] @ scaled + weights["bias"], 0)
    return np.asarray(weights["last"] @ hidden + weights["offset"], np.float64)


@cache
def _load() -> Mapping[str, Floats]:
    with np.load(WEIGHTS, allow_pickle=False) as entries:
        return {name: entries[name].astype(np.float32) for name in entries.files}
