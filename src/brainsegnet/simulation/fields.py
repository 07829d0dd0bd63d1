"""Fields in torch: separable filters, noise, interpolation, diffeomorphisms and the Fisher-KPP equation.

Fields are (..., D, H, W) on any device. A separable linear operation, such as a blur, is one matrix for each axis. A
displacement (3, D, H, W) in voxels tells where the value of each voxel comes from. A velocity is integrated to a
displacement that cannot fold, however large it is.

Tumour cells follow du/dt = div(D grad u) + rho u (1 - u), where u is the share of a voxel that they fill (Swanson et
al. 2000). Explicit steps apply diffusion, then growth, so that u stays within 0 and 1. There is no flux through a face
with D = 0 on either side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from brainsegnet._types import Millimetres
from brainsegnet.anatomy.procedural import DEFORMATION_MM, HALVINGS, Tissue, rotation

LARGEST = 1 / 6
"""Largest diffusivity, in voxels squared a step, at which the explicit scheme is stable in three dimensions."""


@dataclass(frozen=True, eq=False)
class RandomStreams:
    """Two streams of random numbers from one seed: `numpy_rng` for parameters, `torch_rng` for fields on a device."""

    numpy_rng: np.random.Generator
    torch_rng: torch.Generator

    @classmethod
    def of(cls, rng: np.random.Generator, device: torch.device | str = "cpu") -> Self:
        """The generator itself, and one on `device` with a seed drawn from it."""
        return cls(rng, torch.Generator(device).manual_seed(int(rng.integers(2**62))))

    def normal(self, shape: Sequence[int]) -> Tensor:
        """White noise of unit variance."""
        return torch.randn(shape, generator=self.torch_rng, device=self.torch_rng.device)


def along(field: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    """A field (..., D, H, W) times a matrix (new, old) along each axis; None leaves an axis unchanged."""
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
    """Gaussian blur (n, n) of `sigma` voxels; rows add up to 1, so a constant field is unchanged at the borders."""
    if sigma <= 0.05:
        return None
    at = torch.arange(n, device=device, dtype=torch.float32)
    weights = torch.exp(-0.5 * ((at[:, None] - at[None]) / sigma) ** 2)
    return weights / weights.sum(dim=1, keepdim=True)


def linear_matrix(new: int, old: int, device: torch.device | str = "cpu") -> Tensor:
    """Linear interpolation (new, old) that keeps the first and the last voxel in place.

    Examples:
        >>> linear_matrix(3, 2).tolist()
        [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    at = torch.arange(new, device=device, dtype=torch.float32)[:, None] * ((old - 1) / max(new - 1, 1))
    return (1 - (at - torch.arange(old, device=device, dtype=torch.float32)[None]).abs()).clamp(min=0)


def blur(field: Tensor, sigma_mm: float, spacing_mm: Millimetres) -> Tensor:
    """A field or a mask (..., D, H, W) blurred with a Gaussian, as floats."""
    pairs = zip(field.shape[-3:], spacing_mm, strict=True)
    return along(field.float(), [blur_matrix(n, sigma_mm / step, field.device) for n, step in pairs])


def resize(field: Tensor, shape: Sequence[int]) -> Tensor:
    """A field (..., D, H, W) interpolated linearly to another shape; corners stay in place."""
    pairs = zip(shape, field.shape[-3:], strict=True)
    return along(field, [None if new == old else linear_matrix(new, old, field.device) for new, old in pairs])


def noise(
    streams: RandomStreams, shape: Sequence[int], spacing_mm: Millimetres, grain_mm: float, count: int = 1
) -> Tensor:
    """White noise, at `grain_mm` or in voxels if larger, blurred by as much: (count, D, H, W), mean 0, variance 1."""
    steps = [min(step / grain_mm, 1.0) for step in spacing_mm]
    lattice = [int(np.ceil(n * step)) + 7 for n, step in zip(shape, steps, strict=True)]
    field = streams.normal((count, *lattice))
    matrices = []
    for n, step, nodes in zip(shape, steps, lattice, strict=True):
        at = torch.arange(n, device=field.device)[:, None] * step + 3 - torch.arange(nodes, device=field.device)[None]
        weights = torch.exp(-0.5 * at.float() ** 2)
        matrices.append(weights / weights.square().sum(dim=1, keepdim=True).sqrt())
    return along(field, matrices)


def grid(shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """The index (3, D, H, W) of every voxel, as floats."""
    return torch.stack(torch.meshgrid(*(torch.arange(n, device=device).float() for n in shape), indexing="ij"))


def sample(field: Tensor, at: Tensor, mode: str = "bilinear") -> Tensor:
    """Values (C, D', H', W') of a field (C, D, H, W) at positions (3, D', H', W') in voxels; borders are repeated."""
    sizes = torch.tensor(field.shape[-3:], device=at.device).sub(1).clamp(min=1).view(3, 1, 1, 1)
    places = (2 * at / sizes - 1).flip(0).permute(1, 2, 3, 0)
    found = functional.grid_sample(field[None], places[None], mode=mode, padding_mode="border", align_corners=True)
    return found[0]


def column(triple: Sequence[float], device: torch.device | str = "cpu") -> Tensor:
    """Three numbers as (3, 1, 1, 1), to scale the components of a field (3, D, H, W)."""
    return torch.tensor(triple, device=device).view(3, 1, 1, 1)


@dataclass(frozen=True)
class Pose:
    """How a head differs from its template."""

    mirrored: bool  # left and right exchanged
    angles_rad: tuple[float, float, float]  # rotation in the axial, coronal and sagittal plane
    scales: tuple[float, float, float]  # factors on the size along (D, H, W)
    deformation_mm: tuple[float, ...]  # standard deviations of the deformation, one for each of `DEFORMATION_MM`
    ventricles_mm: float  # how far the walls of the ventricles move outwards; negative is inwards


def draw_pose(rng: np.random.Generator) -> Pose:
    """Draw how a head differs from its template."""
    angles_rad = tuple(rng.normal(0, (0.05, 0.04, 0.07)).tolist())
    scales = tuple((rng.uniform(0.955, 1.095) * rng.uniform(0.95, 1.05, 3)).tolist())
    return Pose(
        mirrored=rng.random() < 0.5,
        angles_rad=angles_rad,
        scales=scales,
        deformation_mm=tuple(rng.uniform(low, high) for _, low, high in DEFORMATION_MM),
        ventricles_mm=float(rng.choice([rng.uniform(-1.5, 1), rng.uniform(0, 4)])),
    )


def integrate(velocity: Tensor) -> Tensor:
    """Displacement (3, D, H, W) at time 1 of a steady velocity (3, D, H, W): scaling and squaring (Arsigny 2006)."""
    here = grid(velocity.shape[1:], velocity.device)
    moved: Tensor = velocity / 2**HALVINGS
    for _ in range(HALVINGS):
        moved = moved + sample(moved, here + moved)
    return moved


def displace(at: Tensor, velocity: Tensor) -> Tensor:
    """Positions (3, D, H, W) where the values come from that a velocity moves, which then come from `at`."""
    return sample(at, grid(at.shape[1:], at.device) + integrate(velocity))


def pose_velocity(streams: RandomStreams, pose: Pose, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Velocity (3, D, H, W) that deforms an anatomy (D, H, W) with its ventricles."""
    lobes, gyri = (noise(streams, tissue.shape, spacing_mm, grain_mm, 3) for grain_mm, *_ in DEFORMATION_MM)
    moved_mm = pose.deformation_mm[0] * lobes + pose.deformation_mm[1] * gyri
    ventricles = blur(tissue == Tissue.VENTRICLE, 3.0, spacing_mm)
    swelling = outwards(ventricles, spacing_mm, pose.ventricles_mm, floor=0.05)
    return moved_mm / column(spacing_mm, tissue.device) + swelling


def outwards(density: Tensor, spacing_mm: Millimetres, by_mm: float, floor: float = 0.0) -> Tensor:
    """Velocity (3, D, H, W) away from high `density` (D, H, W), at most `by_mm` where its slope is over `floor` a mm.

    A displacement points to where values come from, so tissue moves outwards where it points up the slope.
    """
    step = column(spacing_mm, density.device)
    slope = torch.stack(torch.gradient(density)) / step
    steepest = slope.square().sum(dim=0).sqrt().max().clamp(min=1e-6)
    return by_mm * slope / torch.clamp(steepest, min=max(floor, 1e-6)) / step


def place(
    pose: Pose, shape: Sequence[int], spacing_mm: Millimetres, template: Sequence[int], nodes: Sequence[int]
) -> Tensor:
    """Position in a template, in voxels, of each node of a coarse grid over a head (D, H, W): (3, d, h, w).

    Rotation, scaling and mirroring are about the middle; head and template have the same spacing.
    """
    halves = [(n - 1) / 2 * s for n, s in zip(shape, spacing_mm, strict=True)]
    lines = [torch.linspace(-half, half, k) for half, k in zip(halves, nodes, strict=True)]
    at = torch.stack(torch.meshgrid(*lines, indexing="ij"))
    matrix = rotation(pose.angles_rad, ((1, 2), (0, 2), (0, 1)))
    turned: Tensor = torch.tensordot(torch.tensor(matrix, dtype=torch.float32), at, 1)
    turned = turned / column(pose.scales)
    if pose.mirrored:
        turned[2] = -turned[2]
    return turned / column(spacing_mm) + column([(n - 1) / 2 for n in template])


def solve_fisher_kpp(u: Tensor, diffusivity: Tensor, rho: Tensor, volume: float, longest: int = 240) -> Tensor:
    """Solve the Fisher-KPP equation until `volume` voxels are over half full, or for `longest` steps; all (D, H, W).

    `u` is the initial share of cells, 0 to 1. `diffusivity` is in voxels squared a step, at most `LARGEST`. `rho` is
    the growth rate a step, 0 to 1. The volume is looked at every four steps.
    """
    faces = conductances(diffusivity)
    for count in range(longest):
        if count % 4 == 0 and int((u > 0.5).sum()) >= volume:
            break
        u = advance(u, faces, rho)
    return u


def advance(u: Tensor, faces: Sequence[Tensor], rho: Tensor) -> Tensor:
    """One step of u (D, H, W), from the `conductances` of the faces and the growth rate `rho`."""
    spread = u.clone()
    for axis, face in zip((-3, -2, -1), faces, strict=True):
        n = u.shape[axis]
        flux = face * (u.narrow(axis, 1, n - 1) - u.narrow(axis, 0, n - 1))
        spread.narrow(axis, 0, n - 1).add_(flux)
        spread.narrow(axis, 1, n - 1).sub_(flux)
    return spread.addcmul_(rho * spread, 1 - spread)


def conductances(diffusivity: Tensor) -> list[Tensor]:
    """Conductance of the faces between voxels along D, H and W: the harmonic mean of both sides."""
    limited, faces = diffusivity.clamp(min=0, max=LARGEST), []
    for axis in (-3, -2, -1):
        n = limited.shape[axis] - 1
        one, other = limited.narrow(axis, 1, n), limited.narrow(axis, 0, n)
        faces.append(2 * one * other / (one + other).clamp(min=1e-9))
    return faces
