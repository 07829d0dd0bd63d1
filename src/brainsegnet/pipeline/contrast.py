"""What an image itself says about its sequence: a small network reads how bright fluid, tissue, fat and vessels are.

The network has three convolutions and was trained on simulated heads alone (`tools/release/sequences.py`). It sees the
upper part of the head in voxels of 4 mm: their mean, and the largest value in each, which shows vessels with contrast
agent. NumPy computes it in a few milliseconds.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
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
    logits = run_network(prepare_input(volume), _load())
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


def run_network(image: Floats, weights: Mapping[str, Floats]) -> Doubles:
    """Logits by class, from (2, D, H, W): convolutions of stride 2, then their mean and maximum over space."""
    for number in range(3):
        image = np.maximum(convolve(image, weights[f"conv{number}"], weights[f"bias{number}"]), 0)
    flat = image.reshape(len(image), -1)
    pooled = np.concatenate([flat.mean(axis=1), flat.max(axis=1)])
    return np.asarray(weights["linear"] @ pooled + weights["offset"], np.float64)


def convolve(image: Floats, kernel: Floats, bias: Floats) -> Floats:
    """A convolution (O, C, 3, 3, 3) of stride 2 and padding 1 over an image (C, D, H, W)."""
    padded = np.pad(image, [(0, 0), (1, 1), (1, 1), (1, 1)])
    windows = sliding_window_view(padded, (3, 3, 3), axis=(1, 2, 3))[:, ::2, ::2, ::2]
    return np.asarray(np.einsum("cdhwijk,ocijk->odhw", windows, kernel, optimize=True) + bias[:, None, None, None])


@cache
def _load() -> Mapping[str, Floats]:
    with np.load(WEIGHTS, allow_pickle=False) as entries:
        return {name: entries[name].astype(np.float32) for name in entries.files}
