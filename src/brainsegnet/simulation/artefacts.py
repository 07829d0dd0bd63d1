"""What a scanner does to an image: bias field, thick slices, noise, motion, ghosts, a field of view that ends early.

Drawn, then applied: `draw_artefacts` makes a record, each function is pure. Images are (..., D, H, W) in torch, on any
device, brightness relative to white matter at 1.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brainsegnet._types import Millimetres
from brainsegnet.simulation.fields import RandomStreams, along, blur, blur_matrix, linear_matrix, noise, voxels


@dataclass(frozen=True)
class Artefacts:
    """What befalls one image.

    Attributes:
        bias: Amplitude of the logarithm of the bias field.
        bias_mm: Grain of that field.
        coil: Logarithm of how much brighter the surface is than the midst of the head, for coils hear what is near.
        blur_mm: Standard deviation of the point spread.
        axis: Along which the slices were taken: 0, 1 or 2 for D, H, W.
        thick_mm: Thickness of the slices.
        noise: Standard deviation of the noise of either channel.
        shift_mm: How far the head moved during the scan along the phase axis, 0 for not at all.
        moved: Share of the lines of k-space that were taken after the move.
        ghost: Strength of a ghost image, 0 for none.
        ghosts: How many ghosts there are over the field of view.
        phase: Axis of the phase: 1 or 2.
        cut: Share of the slices lost at either end.
    """

    bias: float
    bias_mm: float
    coil: float
    blur_mm: float
    axis: int
    thick_mm: float
    noise: float
    shift_mm: float
    moved: float
    ghost: float
    ghosts: int
    phase: int
    cut: tuple[float, float]


def draw_artefacts(rng: np.random.Generator, coil: float = 0.0, calm: float = 1.0) -> Artefacts:
    """Mostly a good scan; thick slices in half of the cases, motion, ghosts and a short field of view in few.

    Args:
        rng: What is drawn from.
        coil: How much brighter the coil makes the surface; some sequences are corrected for it.
        calm: Factor on the noise.
    """
    axis = int(rng.choice([0, 1, 2], p=[0.8, 0.1, 0.1]))
    bottom, top = (float(rng.uniform(0.03, 0.15)) if rng.random() < 0.05 else 0.0 for _ in range(2))
    return Artefacts(
        bias=float(np.abs(rng.normal(0, 0.07))),
        bias_mm=float(rng.uniform(35, 80)),
        coil=coil * float(rng.uniform(0.2, 1.1)),
        blur_mm=float(rng.uniform(0.3, 0.75)),
        axis=axis,
        thick_mm=float(rng.uniform(1.5, 6.0)) if rng.random() < 0.5 else 0.0,
        noise=calm * float(np.exp(rng.uniform(np.log(0.007), np.log(0.045)))),
        shift_mm=float(rng.uniform(1, 5)) if rng.random() < 0.07 else 0.0,
        moved=float(rng.uniform(0.1, 0.45)),
        ghost=float(rng.uniform(0.03, 0.12)) if rng.random() < 0.06 else 0.0,
        ghosts=int(rng.integers(2, 6)),
        phase=[other for other in range(3) if other != axis][int(rng.integers(0, 2))],
        cut=(bottom, top),
    )


def add_bias(image: Tensor, rng: RandomStreams, strength: float, grain_mm: float, spacing_mm: Millimetres) -> Tensor:
    """An image (D, H, W) times a slow field: the coil hears one side better than the other."""
    d, h, w = image.shape
    return image * torch.exp(strength * noise(rng, (d, h, w), spacing_mm, grain_mm)[0])


def add_noise(image: Tensor, rng: RandomStreams, strength: float) -> Tensor:
    """The magnitude of an image (..., D, H, W) with Gaussian noise on both channels: Rician, never negative."""
    one, other = strength * rng.normal((2, *image.shape))
    return torch.hypot(image + one, other)


def slice_matrices(n: int, spacing_mm: float, thick_mm: float, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Matrices from n voxels to m slices of `thick_mm` (m, n) and back (n, m); None where slices are thin as voxels."""
    few = round(n * spacing_mm / thick_mm) if thick_mm > spacing_mm else n
    profile = blur_matrix(n, 0.36 * thick_mm / spacing_mm, device) if few < n else None
    if profile is None or few < 2:
        return None
    return linear_matrix(few, n, device) @ profile, linear_matrix(n, few, device)


def scan_slices(image: Tensor, rng: RandomStreams, how: Artefacts, spacing_mm: Millimetres) -> Tensor:
    """An image (D, H, W) taken in thick slices with noise, and brought back to its grid."""
    n = image.shape[how.axis]
    pair = slice_matrices(n, spacing_mm[how.axis], how.thick_mm, image.device)
    spread = [blur_matrix(m, how.blur_mm / s, image.device) for m, s in zip(image.shape, spacing_mm, strict=True)]
    if pair is None:
        return add_noise(along(image, (spread[0], spread[1], spread[2])), rng, how.noise)
    spread[how.axis] = pair[0]
    back: list[Tensor | None] = [None, None, None]
    back[how.axis] = pair[1]
    taken = add_noise(along(image, (spread[0], spread[1], spread[2])), rng, how.noise)
    return along(taken, (back[0], back[1], back[2]))


def move(image: Tensor, shift: float, share: float, axis: int) -> Tensor:
    """An image (D, H, W) whose head moved by `shift` voxels along `axis` when `share` of k-space was still to come."""
    spectrum = torch.fft.fft(image, dim=axis)
    frequency = torch.fft.fftfreq(image.shape[axis], device=image.device)
    late = frequency > 0.5 - share
    ramp = torch.where(late, torch.exp(-2j * torch.pi * frequency * shift), torch.ones_like(frequency))
    magnitude: Tensor = torch.fft.ifft(spectrum * _lay(ramp, axis), dim=axis).abs()
    return magnitude


def ghost(image: Tensor, strength: float, count: int, axis: int) -> Tensor:
    """An image (D, H, W) with faint copies along `axis`: every `count`-th line of k-space is weaker."""
    spectrum = torch.fft.fft(image, dim=axis)
    lines = torch.ones(image.shape[axis], device=image.device)
    lines[::count] = 1 - strength * count
    lines[0] = 1
    magnitude: Tensor = torch.fft.ifft(spectrum * _lay(lines, axis), dim=axis).abs()
    return magnitude


def cut_view(mask: Tensor, cut: tuple[float, float], axis: int = 0) -> Tensor:
    """A brain mask (D, H, W) without the share of its slices at either end of `axis` that was not scanned."""
    slices = torch.nonzero(mask.amax(dim=tuple({0, 1, 2} - {axis}))).ravel()
    first, last = int(slices[0]), int(slices[-1]) + 1
    low, high = (round(share * (last - first)) for share in cut)
    seen = torch.zeros_like(mask)
    seen.narrow(axis, first + low, last - first - low - high).fill_(True)
    return mask & seen


def near_coil(mask: Tensor, spacing_mm: Millimetres) -> Tensor:
    """How near each voxel (D, H, W) is to the surface of a brain mask: 0 in its midst, about 1 on the surface."""
    wide, narrow = (blur(mask.float(), voxels(reach_mm, spacing_mm)) for reach_mm in (25.0, 10.0))
    near: Tensor = 2 - wide / wide.max() - narrow / narrow.max()
    return near.clamp(0, 1.2)


def degrade(
    image: Tensor, mask: Tensor, near: Tensor, rng: RandomStreams, how: Artefacts, spacing_mm: Millimetres
) -> Tensor:
    """All of it, in the order of a scan, on one image (D, H, W); exactly 0 outside the brain `mask`.

    `near` is what `near_coil` gives for that mask.
    """
    if how.coil:
        image = image * torch.exp(how.coil * near)
    image = scan_slices(add_bias(image, rng, how.bias, how.bias_mm, spacing_mm), rng, how, spacing_mm)
    if how.shift_mm:
        image = move(image, how.shift_mm / spacing_mm[how.phase], how.moved, how.phase)
    if how.ghost:
        image = ghost(image, how.ghost, how.ghosts, how.phase)
    return image * cut_view(mask, how.cut, how.axis)


def _lay(line: Tensor, axis: int) -> Tensor:
    return line.view(*(-1 if a == axis else 1 for a in range(3)))
