"""Augmentation in two parts: a small record is drawn for each sample, and pure functions apply it to whole batches.

Source: section "Data Augmentation" of Hu et al. 2020, and the wider ranges of the recipes `quick` and `modern`.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brainsegnet._types import Range
from brainsegnet.training.faults import FaultParams, draw_faults
from brainsegnet.training.recipes import Augmentation


@dataclass(frozen=True)
class AugmentParams:
    """The augmentation of one sample. The defaults change nothing.

    Attributes:
        scale: In-plane magnification.
        angle_deg: In-plane rotation in degrees.
        turns: Number of quarter turns.
        flips: Whether the sample is mirrored along (D, H, W).
        slice_gain: Factor on each slice, or none.
        gain: Factor on each sequence, or none.
        shift: Offset of each sequence, or none.
        gamma: Exponent for each sequence, or none.
        blur: Standard deviation of a blur of each sequence in voxels, or none.
        noise: Standard deviation of Gaussian noise.
        noise_seed: Seed of the noise.
        kept: Whether each sequence is kept, or none if all are.
        faults: The faults of a raw study.
    """

    scale: float = 1.0
    angle_deg: float = 0.0
    turns: int = 0
    flips: tuple[bool, bool, bool] = (False, False, False)
    slice_gain: tuple[float, ...] = ()
    gain: tuple[float, ...] = ()
    shift: tuple[float, ...] = ()
    gamma: tuple[float, ...] = ()
    blur: tuple[float, ...] = ()
    noise: float = 0.0
    noise_seed: int = 0
    kept: tuple[bool, ...] = ()
    faults: FaultParams = field(default_factory=FaultParams)


def draw_params(rng: np.random.Generator, how: Augmentation, sequences: int, slices: int) -> AugmentParams:
    """Draw the augmentation of a sample, for a number of sequences and slices, from the ranges of a recipe."""
    return AugmentParams(
        scale=float(rng.uniform(*how.scale)),
        angle_deg=float(rng.uniform(-how.angle_deg, how.angle_deg)),
        turns=int(rng.integers(4)) if how.quarter_turns else 0,
        flips=(rng.random() < how.flips[0], rng.random() < how.flips[1], rng.random() < how.flips[2]),
        slice_gain=_uniform(rng, how.slice_gain, slices),
        gain=_uniform(rng, how.gain, sequences),
        shift=_uniform(rng, how.shift, sequences),
        gamma=tuple(_symmetric(rng, how.gamma) for _ in range(sequences)),
        blur=tuple((rng.random(sequences) < how.blur) * rng.uniform(0.5, 1.0, sequences)),
        noise=float(rng.uniform(0, how.noise)),
        noise_seed=int(rng.integers(2**31)),
        faults=draw_faults(rng, how.faults, sequences),
    )


def _uniform(rng: np.random.Generator, limits: Range, size: int) -> tuple[float, ...]:
    return tuple(rng.uniform(limits[0], limits[1], size).tolist())


def _symmetric(rng: np.random.Generator, limits: Range) -> float:
    """A factor from a range; where the range holds 1, factors below and above it are equally likely."""
    low, high = limits
    if low < 1 < high:
        low, high = (low, 1.0) if rng.random() < 0.5 else (1.0, high)
    return float(rng.uniform(low, high))


def drop_sequences(
    rng: np.random.Generator, params: AugmentParams, sequences: int, required: Collection[int] = ()
) -> AugmentParams:
    """The same augmentation with a random proper subset of the sequences: at least one, and all that are required.

    Args:
        rng: Source of randomness.
        params: The augmentation.
        sequences: Number of sequences.
        required: Indices of those that every sample keeps.
    """
    free = [k for k in range(sequences) if k not in required]
    order, least = rng.permutation(len(free)), 0 if required else 1
    chosen = order < rng.integers(least, max(len(free), least + 1))
    kept = np.isin(np.arange(sequences), [*required, *np.array(free, int)[chosen]])
    return replace(params, kept=tuple(kept.tolist()))


def reorient(x: Tensor, params: AugmentParams) -> Tensor:
    """Flip (..., D, H, W) and turn it by quarter turns, exactly. With turns, H equals W."""
    axes = [axis for axis, flip in zip((-3, -2, -1), params.flips, strict=True) if flip]
    turned = torch.rot90(x, params.turns, (-2, -1)) if params.turns else x
    return turned.flip(axes) if axes else turned


def window(
    x: Tensor, centre: tuple[float, float], size: tuple[int, int], params: AugmentParams, nearest: bool
) -> Tensor:
    """Cut the in-plane window of `size` (H, W) around `centre` out of (C, H, W), rotated and rescaled.

    Places outside `x` are zero.
    """
    angle, (h, w) = math.radians(params.angle_deg), x.shape[-2:]
    rows, cols = (torch.arange(n, device=x.device, dtype=torch.float32) - (n - 1) / 2 for n in size)
    rows, cols = rows[:, None] / params.scale, cols[None] / params.scale
    source_h = centre[0] + rows * math.cos(angle) - cols * math.sin(angle)
    source_w = centre[1] + rows * math.sin(angle) + cols * math.cos(angle)
    grid = torch.stack([2 * source_w / max(w - 1, 1) - 1, 2 * source_h / max(h - 1, 1) - 1], -1)[None]
    mode = "nearest" if nearest else "bilinear"
    return F.grid_sample(x[None].float(), grid, mode, padding_mode="zeros", align_corners=True)[0]


def augment_intensity(images: Tensor, batch: Sequence[AugmentParams]) -> Tensor:
    """Change the intensities of samples (N, C, D, H, W). Zero, the background, stays zero."""
    slices = _table([params.slice_gain for params in batch], images.shape[2], 1.0, images)[:, None, :, None, None]
    gain = _table([params.gain for params in batch], images.shape[1], 1.0, images)[:, :, None, None, None]
    shift = _table([params.shift for params in batch], images.shape[1], 0.0, images)[:, :, None, None, None]
    brain = (images != 0).to(images)
    out = _power(_blurred(images, batch), batch) * (slices * gain)
    out = (out + shift + _noise(images, batch)) * brain
    kept = _table([[float(k) for k in params.kept] for params in batch], images.shape[1], 1.0, images)
    return out * kept[:, :, None, None, None]


def _table(rows: Sequence[Sequence[float]], width: int, default: float, like: Tensor) -> Tensor:
    """(N, width) on the device of `like`, without waiting for it; an empty row is filled with `default`."""
    table = torch.tensor([list(row) or [default] * width for row in rows], dtype=like.dtype)
    return table.to(like.device, non_blocking=True)


def _power(x: Tensor, batch: Sequence[AugmentParams]) -> Tensor:
    """A power law on each image's range, widened to hold zero, which stays zero; an exponent of 1 changes no bit.

    Sample by sample: vectorised powers round by the place in memory, and no sample may depend on its neighbours.
    """
    bent = [(n, c, g) for n, params in enumerate(batch) for c, g in enumerate(params.gamma) if g != 1]
    if not bent:
        return x
    out = x.clone()
    for n, c, gamma in bent:
        image = x[n, c]
        low, high = image.amin().clamp_max(0), image.amax().clamp_min(0)
        extent = (high - low).clamp_min(1e-6)
        out[n, c] = (((image - low) / extent) ** gamma - (-low / extent) ** gamma) * extent
    return out


def _noise(images: Tensor, batch: Sequence[AugmentParams]) -> Tensor:
    """Gaussian noise (N, C, D, H, W), each sample's from its own seed."""
    out = torch.zeros_like(images)
    for row, params in zip(out, batch, strict=True):
        if params.noise:
            generator = torch.Generator(images.device).manual_seed(params.noise_seed)
            row.normal_(0, params.noise, generator=generator)
    return out


def _blurred(images: Tensor, batch: Sequence[AugmentParams]) -> Tensor:
    """In-plane Gaussian smoothing of the sequences whose blur is above zero."""
    chosen = [(n, c, b) for n, params in enumerate(batch) for c, b in enumerate(params.blur) if b]
    if not chosen:
        return images
    out = images.clone()
    offsets = torch.arange(-2, 3, device=images.device, dtype=images.dtype)
    for n, c, sigma in chosen:
        kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
        kernel = kernel / kernel.sum()
        rows = F.conv2d(images[n, c][:, None], kernel[None, None, :, None], padding=(2, 0))
        out[n, c] = F.conv2d(rows, kernel[None, None, None], padding=(0, 2))[:, 0]
    return out
