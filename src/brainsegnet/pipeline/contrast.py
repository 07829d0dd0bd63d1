"""What an image itself says about its sequence: how bright fluid, tissue, fat and vessels are, read by a small network.

The features are measured in the upper part of the head, in voxels of 4 mm: their mean, and the largest value in each,
which shows vessels with contrast agent. The network has one hidden layer, and was trained on simulated heads alone
(`tools/release/sequences.py`).
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from brainsegnet._types import Array, Doubles, Floats, Mask
from brainsegnet.pipeline.headers import Evidence
from brainsegnet.preprocessing.geometry import find_turn, turn
from brainsegnet.volume import Volume

CLASSES = ("t1", "t1c", "t2", "flair", "pd", "t2star", "dwi", "adc", "none")
"""What the network tells apart; "none" is no head."""
WEIGHTS = Path(__file__).with_name("contrast.npz")
FINE_MM = 2.0
COARSE = 2
"""Voxels of `FINE_MM` along each side of one that the network sees."""
INPUT = (36, 48, 40)
"""Voxels (D, H, W) of 4 mm, from the top of the head."""
MIDDLE = (19.0, 24.0, 20.0)
"""Middle of the brain in the input, about 65 mm below the top of the head."""
LOWEST = 0.08
"""Tissue is brighter than this share of bright tissue."""
FEWEST = 200
"""With fewer voxels in the middle, it is no head."""
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.75, 0.9, 0.95, 0.99, 0.999)
COUNT = 2 * len(QUANTILES) + 45
"""Number of features."""
DEEPEST = 0.9
"""The image alone is never surer than this."""
LEAST = 0.5
"""With less confidence, the image says nothing."""
FEW_VALUES = 32
"""An image of no more whole values is a label map."""
_LOOKS: Mapping[str, str] = {
    "t1": "fluid dark, white matter brighter than grey",
    "t1c": "fluid dark, white matter brighter than grey, vessels or lesions bright",
    "t2": "fluid bright, grey matter brighter than white",
    "flair": "fluid dark, grey matter brighter than white",
    "pd": "fluid and tissue alike",
    "t2star": "fluid bright, veins dark",
    "dwi": "fluid and fat dark, grey matter brighter than white",
    "adc": "fluid bright, grey and white matter alike",
}


def read_contrast(volume: Volume) -> list[Evidence]:
    """What the voxels say; nothing where they leave doubt.

    Args:
        volume: (D, H, W), the skull on or stripped.
    """
    if _is_label_map(volume.array):
        return [Evidence("mask", 0.9, "the image has few values, all whole")]
    chances = classify(volume)
    t1 = chances["t1"] + chances["t1c"]
    family = {**chances, "t1": t1}
    family.pop("t1c")
    best = max(family, key=lambda name: family[name])
    sure = min(family[best], DEEPEST)
    if best == "none" or sure < LEAST:
        return []
    if best != "t1":
        return [Evidence(best, round(sure, 2), f"the image shows {_LOOKS[best]}")]
    given = chances["t1c"] > chances["t1"]
    clear = max(chances["t1"], chances["t1c"]) > 0.7 * t1
    look = _LOOKS["t1c" if given and clear else "t1"]
    return [Evidence("t1", round(sure, 2), f"the image shows {look}", given if clear else None)]


def classify(volume: Volume) -> dict[str, float]:
    """The probability of each of `CLASSES`."""
    logits = run_network(measure_features(prepare_input(volume)), _load())
    shares = np.exp(logits - logits.max())
    return dict(zip(CLASSES, (shares / shares.sum()).tolist(), strict=True))


def _is_label_map(array: Array) -> bool:
    some = array[:: max(1, array.shape[0] // 40)]
    if not np.issubdtype(array.dtype, np.integer) and not np.equal(some, np.rint(some)).all():
        return False
    return len(np.unique(some)) <= FEW_VALUES


def prepare_input(volume: Volume) -> Floats:
    """The head as the network sees it, (2, D, H, W): mean and largest value of voxels of 4 mm, between 0 and 2."""
    fine = resample(volume)
    blocks = _to_blocks(fine)
    mean, largest = blocks.mean(axis=(1, 3, 5)), blocks.max(axis=(1, 3, 5))
    low, head = find_head(mean)
    if not head.any():
        return np.zeros((2, *INPUT), np.float32)
    inside = np.clip(mean[head] - low, 0, None)
    scale = max(float(inside[inside >= inside.mean()].mean()), 1e-6)
    top = int(np.flatnonzero(head.any(axis=(1, 2)))[-1]) + 1
    upper = head[max(0, top - INPUT[0]) : top]
    middle = [round(float(at)) for at in ndimage.center_of_mass(upper)[1:]]
    starts = (top - INPUT[0] + 1, middle[0] - INPUT[1] // 2, middle[1] - INPUT[2] // 2)
    both = [_cut(np.clip(part - np.float32(low), 0, None), starts) for part in (mean, largest)]
    cut = np.stack(both)
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


def _to_blocks(fine: Floats) -> Floats:
    """Blocks of `COARSE` voxels along each axis, as axes 1, 3 and 5."""
    pad = [(0, -n % COARSE) for n in fine.shape]
    padded = np.pad(fine, pad, mode="edge")
    d, h, w = (n // COARSE for n in padded.shape)
    return np.asarray(padded.reshape(d, COARSE, h, COARSE, w, COARSE), np.float32)


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
    """Numbers that tell sequences apart, from the input (2, D, H, W) of `prepare_input`.

    All are shares of the median of the middle of the brain: quantiles there, around the ventricles and in the whole
    head, layers from the skin inwards and shells around the middle, and how much finer structures stand out.
    """
    mean, largest = (np.asarray(part / np.maximum(2 - part, 0.05), np.float32) for part in image)
    head = mean > LOWEST
    z, y, x = (np.arange(n) - middle for n, middle in zip(INPUT, MIDDLE, strict=True))
    parts = (z[:, None, None] / 8, y[:, None] / 12, x / 9.5)
    radius = np.sqrt(parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2)
    core, upper = head & (radius < 1), head & (np.broadcast_to(z[:, None, None], INPUT) > -4)
    inner = head & (np.abs(parts[0]) < 0.6) & (np.abs(parts[1]) < 0.6) & (np.abs(parts[2]) < 0.5)
    if min(core.sum(), inner.sum()) < FEWEST:
        return np.zeros(COUNT)
    middle = max(float(np.median(mean[core])), 1e-3)
    mean, largest = mean / middle, (largest - mean) / middle
    depth = ndimage.distance_transform_edt(np.pad(head, ((0, 1), (1, 1), (1, 1))))[:-1, 1:-1, 1:-1]
    fine = mean - ndimage.gaussian_filter(mean, 1.5)
    layers = [_median(mean, upper & (depth > low) & (depth <= low + 1)) for low in range(6)]
    shells = [
        _median(mean, head & (radius >= low) & (radius < low + 0.3) & (z[:, None, None] > floor) & (mean > bound))
        for low in (0.0, 0.3, 0.6, 0.9, 1.2, 1.5)
        for floor in (-6, 3)
        for bound in (0.0, 0.6)
    ]
    tissue = mean[core & (mean > 0.6) & (mean < 1.5)]
    low, half, high = np.quantile(tissue, (0.1, 0.5, 0.9)) if tissue.size else (1, 1, 1)
    found = [
        *np.quantile(mean[core], QUANTILES),
        *np.quantile(mean[inner], (0.1, 0.5, 0.9)),
        *np.quantile(mean[upper], QUANTILES),
        *np.quantile(largest[core], (0.5, 0.9, 0.99)),
        *np.quantile(largest[upper], (0.5, 0.9, 0.99)),
        *np.quantile(fine[core], (0.01, 0.1, 0.9, 0.99)),
        *layers,
        *shells,
        (low + high - 2 * half) / max(high - low, 1e-3),
        middle,
    ]
    return np.asarray(np.clip(np.sign(found) * np.log1p(np.abs(found)), -2, 2), np.float64)


def _median(image: Floats, where: Mask) -> float:
    values = image[where]
    return float(np.median(values)) if values.size else 0.0


def run_network(features: Doubles, weights: Mapping[str, Floats]) -> Doubles:
    """Logits by class, from the features: one hidden layer."""
    scaled = np.clip((features - weights["mean"]) / weights["deviation"], -4, 4)
    hidden = np.maximum(weights["first"] @ scaled + weights["bias"], 0)
    return np.asarray(weights["last"] @ hidden + weights["offset"], np.float64)


@cache
def _load() -> Mapping[str, Floats]:
    with np.load(WEIGHTS, allow_pickle=False) as entries:
        return {name: entries[name].astype(np.float32) for name in entries.files}
