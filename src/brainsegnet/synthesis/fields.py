"""What the generator computes with in torch: matrices along axes, noise of a chosen grain, and samples between voxels.

Every separable linear operation, a blur as well as a change of grid, is one matrix for each axis; that is exact,
batched and what CPUs and GPUs do best.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Shape = tuple[int, int, int]
Millimetres = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Luck:
    """Two streams of random numbers from one seed: `rng` draws parameters, `generator` fills fields on its device."""

    rng: np.random.Generator
    generator: torch.Generator

    @classmethod
    def of(cls, rng: np.random.Generator, device: torch.device | str = "cpu") -> Self:
        """Streams that follow from `rng`, the fields' on `device`."""
        return cls(rng, torch.Generator(device).manual_seed(int(rng.integers(2**62))))

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """White noise of unit variance."""
        return torch.randn(shape, generator=self.generator, device=self.generator.device)


def along(field: Tensor, matrices: tuple[Tensor | None, Tensor | None, Tensor | None]) -> Tensor:
    """A field (..., D, H, W) times a matrix (new, old) along each axis; None leaves an axis alone.

    >>> along(torch.ones(2, 3, 4), (None, torch.ones(1, 3), None)).shape
    torch.Size([2, 1, 4])
    """
    deep, high, wide = matrices
    if wide is not None:
        field = field @ wide.T
    if high is not None:
        field = high @ field
    if deep is not None:
        *lead, d, h, w = field.shape
        field = (deep @ field.reshape(*lead, d, h * w)).reshape(*lead, deep.shape[0], h, w)
    return field


def blur_matrix(n: int, sigma: float, device: torch.device | str = "cpu") -> Tensor | None:
    """A Gaussian blur (n, n) of `sigma` voxels whose rows add up to 1, so that borders keep their brightness."""
    if sigma <= 0.05:
        return None
    at = torch.arange(n, device=device, dtype=torch.float32)
    weights = torch.exp(-0.5 * ((at[:, None] - at[None]) / sigma) ** 2)
    return weights / weights.sum(dim=1, keepdim=True)


def linear_matrix(new: int, old: int, device: torch.device | str = "cpu") -> Tensor:
    """Linear interpolation (new, old) that keeps the first and the last voxel.

    >>> linear_matrix(3, 2).tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    at = torch.arange(new, device=device, dtype=torch.float32)[:, None] * ((old - 1) / max(new - 1, 1))
    return (1 - (at - torch.arange(old, device=device, dtype=torch.float32)[None]).abs()).clamp(min=0)


def blur(field: Tensor, sigma: float | tuple[float, float, float]) -> Tensor:
    """A field (..., D, H, W) blurred with a Gaussian of `sigma` voxels, one for all axes or one for each."""
    sigmas = (sigma,) * 3 if isinstance(sigma, float | int) else sigma
    d, h, w = field.shape[-3:]
    deep, high, wide = sigmas
    return along(field, tuple(blur_matrix(n, s, field.device) for n, s in ((d, deep), (h, high), (w, wide))))  # type: ignore[arg-type]


def resize(field: Tensor, shape: Shape) -> Tensor:
    """A field (..., D, H, W) on another number of voxels, linearly; corners stay where they are."""
    d, h, w = (
        None if new == old else linear_matrix(new, old, field.device)
        for new, old in zip(shape, field.shape[-3:], strict=True)
    )
    return along(field, (d, h, w))


def noise(luck: Luck, shape: Shape, spacing_mm: Millimetres, grain_mm: float, count: int = 1) -> Tensor:
    """Fields (count, D, H, W) of zero mean and unit variance, white noise blurred with a Gaussian of `grain_mm`.

    The white noise lives on a lattice as coarse as the blur allows.
    """
    steps = [min(step / grain_mm, 1.0) for step in spacing_mm]
    lattice = [int(np.ceil(n * step)) + 7 for n, step in zip(shape, steps, strict=True)]
    field = luck.normal((count, *lattice))
    matrices = []
    for n, step, nodes in zip(shape, steps, lattice, strict=True):
        at = torch.arange(n, device=field.device)[:, None] * step + 3 - torch.arange(nodes, device=field.device)[None]
        weights = torch.exp(-0.5 * at.float() ** 2)
        matrices.append(weights / weights.square().sum(dim=1, keepdim=True).sqrt())
    return along(field, (matrices[0], matrices[1], matrices[2]))


def grid(shape: Shape, device: torch.device | str = "cpu") -> Tensor:
    """The index (3, D, H, W) of every voxel, as floats."""
    return torch.stack(torch.meshgrid(*(torch.arange(n, device=device).float() for n in shape), indexing="ij"))


def sample(field: Tensor, at: Tensor, mode: str = "bilinear") -> Tensor:
    """Values (C, D', H', W') of a field (C, D, H, W) at places (3, D', H', W') given in voxels; the border repeats."""
    sizes = torch.tensor(field.shape[-3:], device=at.device).sub(1).clamp(min=1).view(3, 1, 1, 1)
    places = (2 * at / sizes - 1).flip(0).permute(1, 2, 3, 0)
    found = functional.grid_sample(field[None], places[None], mode=mode, padding_mode="border", align_corners=True)
    return found[0]


def voxels(length_mm: float, spacing_mm: Millimetres) -> Millimetres:
    """A length in voxels along (D, H, W).

    >>> voxels(3.0, (1.5, 1.0, 1.0))
    (2.0, 3.0, 3.0)
    """
    deep, high, wide = (length_mm / s for s in spacing_mm)
    return deep, high, wide


def shape_of(field: Tensor) -> Shape:
    """The last three extents (D, H, W) of a field."""
    d, h, w = field.shape[-3:]
    return d, h, w
