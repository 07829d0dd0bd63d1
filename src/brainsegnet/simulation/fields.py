"""Fields in torch: separable filters, noise, interpolation, diffeomorphisms and the Fisher-KPP equation.

Fields are (..., D, H, W) on any device. A separable linear operation, a blur as well as a change of grid, is one matrix
for each axis. A displacement (3, D, H, W), in voxels along (D, H, W), tells where the value of each voxel comes from. A
velocity is integrated to a displacement that cannot fold, however large it is.

Tumour cells follow du/dt = div(D grad u) + rho u (1 - u), where u is the share of a voxel that they fill (Swanson et
al. 2000). Explicit steps apply diffusion, then growth, so that u stays within 0 and 1. There is no flux through a face
with D = 0 on either side.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from brainsegnet._types import Millimetres, Shape
from brainsegnet.anatomy.procedural import GYRI_MM, HALVINGS, LOBES_MM, Tissue

LARGEST = 1 / 6
"""Largest diffusivity, in voxels squared a step, at which the explicit scheme is stable in three dimensions."""
NEVER = 9.0
"""A level that noise of unit variance does not reach."""


@dataclass(frozen=True, eq=False)
class RandomStreams:
    """Two streams of random numbers from one seed: `numpy_rng` for parameters, `torch_rng` for fields on a device."""

    numpy_rng: np.random.Generator
    torch_rng: torch.Generator

    @classmethod
    def of(cls, rng: np.random.Generator, device: torch.device | str = "cpu") -> Self:
        """The generator itself, and one on `device` with a seed drawn from it."""
        return cls(rng, torch.Generator(device).manual_seed(int(rng.integers(2**62))))

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """White noise of unit variance."""
        return torch.randn(shape, generator=self.torch_rng, device=self.torch_rng.device)


def along(field: Tensor, matrices: tuple[Tensor | None, Tensor | None, Tensor | None]) -> Tensor:
    """A field (..., D, H, W) times a matrix (new, old) along each axis; None leaves an axis unchanged.

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
    """Gaussian blur (n, n) of `sigma` voxels; rows add up to 1, so a constant field is unchanged at the borders."""
    if sigma <= 0.05:
        return None
    at = torch.arange(n, device=device, dtype=torch.float32)
    weights = torch.exp(-0.5 * ((at[:, None] - at[None]) / sigma) ** 2)
    return weights / weights.sum(dim=1, keepdim=True)


def linear_matrix(new: int, old: int, device: torch.device | str = "cpu") -> Tensor:
    """Linear interpolation (new, old) that keeps the first and the last voxel in place.

    >>> linear_matrix(3, 2).tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    at = torch.arange(new, device=device, dtype=torch.float32)[:, None] * ((old - 1) / max(new - 1, 1))
    return (1 - (at - torch.arange(old, device=device, dtype=torch.float32)[None]).abs()).clamp(min=0)


def blur(field: Tensor, sigma: float | tuple[float, float, float]) -> Tensor:
    """A field (..., D, H, W) blurred with a Gaussian of `sigma` voxels, one for all axes or one for each."""
    sigmas = (sigma,) * 3 if isinstance(sigma, float | int) else sigma
    d, h, w = (blur_matrix(n, s, field.device) for n, s in zip(shape_of(field), sigmas, strict=True))
    return along(field, (d, h, w))


def resize(field: Tensor, shape: Shape) -> Tensor:
    """A field (..., D, H, W) interpolated linearly to another shape; corners stay in place."""
    pairs = zip(shape, shape_of(field), strict=True)
    d, h, w = (None if new == old else linear_matrix(new, old, field.device) for new, old in pairs)
    return along(field, (d, h, w))


def noise(streams: RandomStreams, shape: Shape, spacing_mm: Millimetres, grain_mm: float, count: int = 1) -> Tensor:
    """White noise blurred with a Gaussian of `grain_mm`: (count, D, H, W), zero mean, unit variance.

    The white noise is drawn on a lattice of `grain_mm`, or of voxels where these are larger.
    """
    steps = [min(step / grain_mm, 1.0) for step in spacing_mm]
    lattice = [int(np.ceil(n * step)) + 7 for n, step in zip(shape, steps, strict=True)]
    field = streams.normal((count, *lattice))
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
    """Values (C, D', H', W') of a field (C, D, H, W) at positions (3, D', H', W') in voxels; borders are repeated."""
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


def column(triple: tuple[float, float, float], device: torch.device | str = "cpu") -> Tensor:
    """Three numbers as (3, 1, 1, 1), to scale the components of a field (3, D, H, W)."""
    return torch.tensor(triple, device=device).view(3, 1, 1, 1)


def shape_of(field: Tensor) -> Shape:
    """The last three extents (D, H, W) of a field."""
    d, h, w = field.shape[-3:]
    return d, h, w


@dataclass(frozen=True)
class Pose:
    """How a head differs from its template."""

    mirrored: bool  # left and right exchanged
    angles_rad: tuple[float, float, float]  # rotation in the axial, coronal and sagittal plane
    scales: tuple[float, float, float]  # factors on the size along (D, H, W)
    lobes_mm: float  # standard deviation of the deformation of lobes, in the range of `LOBES_MM`
    gyri_mm: float  # the same of gyri
    ventricles_mm: float  # how far the walls of the ventricles move outwards; negative is inwards


def draw_pose(rng: np.random.Generator) -> Pose:
    """Draw how a head differs from its template."""
    axial, coronal, sagittal = rng.normal(0, (0.05, 0.04, 0.07)).tolist()
    deep, high, wide = (rng.uniform(0.955, 1.095) * rng.uniform(0.95, 1.05, 3)).tolist()
    return Pose(
        mirrored=bool(rng.random() < 0.5),
        angles_rad=(axial, coronal, sagittal),
        scales=(deep, high, wide),
        lobes_mm=float(rng.uniform(*LOBES_MM[1:])),
        gyri_mm=float(rng.uniform(*GYRI_MM[1:])),
        ventricles_mm=float(rng.choice([rng.uniform(-1.5, 1), rng.uniform(0, 4)])),
    )


def integrate(velocity: Tensor) -> Tensor:
    """Displacement (3, D, H, W) at time 1 of a steady velocity (3, D, H, W): scaling and squaring (Arsigny 2006)."""
    here = grid(shape_of(velocity), velocity.device)
    moved: Tensor = velocity / 2**HALVINGS
    for _ in range(HALVINGS):
        moved = moved + sample(moved, here + moved)
    return moved


def pose_velocity(streams: RandomStreams, pose: Pose, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Velocity (3, D, H, W) that deforms an anatomy (D, H, W) with its ventricles."""
    lobes, gyri = (noise(streams, shape_of(tissue), spacing_mm, grain_mm, 3) for grain_mm, *_ in (LOBES_MM, GYRI_MM))
    moved_mm = pose.lobes_mm * lobes + pose.gyri_mm * gyri
    return moved_mm / column(spacing_mm, tissue.device) + swell(tissue, pose.ventricles_mm, spacing_mm)


def swell(tissue: Tensor, by_mm: float, spacing_mm: Millimetres) -> Tensor:
    """Velocity (3, D, H, W) that moves the walls of the ventricles of an anatomy (D, H, W) outwards."""
    inside = blur((tissue == Tissue.VENTRICLE).float(), voxels(3.0, spacing_mm))
    return outwards(inside, spacing_mm, by_mm, floor=0.05)


def outwards(density: Tensor, spacing_mm: Millimetres, by_mm: float, floor: float = 0.0) -> Tensor:
    """Velocity (3, D, H, W) away from high `density` (D, H, W), at most `by_mm` where its slope is over `floor` a mm.

    A displacement points to where values come from, so tissue moves outwards where it points up the slope.
    """
    step = column(spacing_mm, density.device)
    slope = torch.stack(torch.gradient(density)) / step
    steepest = slope.square().sum(dim=0).sqrt().max().clamp(min=1e-6)
    return by_mm * slope / torch.clamp(steepest, min=max(floor, 1e-6)) / step


def place(pose: Pose, shape: Shape, spacing_mm: Millimetres, template: Shape, nodes: Shape) -> Tensor:
    """Position in a template, in voxels, of each node of a coarse grid over a head (D, H, W): (3, d, h, w).

    Rotation, scaling and mirroring are about the middle; head and template have the same spacing.
    """
    halves = [(n - 1) / 2 * s for n, s in zip(shape, spacing_mm, strict=True)]
    lines = [torch.linspace(-half, half, k) for half, k in zip(halves, nodes, strict=True)]
    at = torch.stack(torch.meshgrid(*lines, indexing="ij"))
    turned: Tensor = torch.tensordot(torch.tensor(_rotation(pose.angles_rad), dtype=torch.float32), at, 1)
    turned = turned / column(pose.scales)
    if pose.mirrored:
        turned[2] = -turned[2]
    d, h, w = ((n - 1) / 2 for n in template)
    return turned / column(spacing_mm) + column((d, h, w))


def _rotation(angles_rad: tuple[float, float, float]) -> list[list[float]]:
    """Matrix (3, 3) of rotations in the axial, coronal and sagittal plane."""
    turn = np.eye(3)
    for angle, (a, b) in zip(angles_rad, ((1, 2), (0, 2), (0, 1)), strict=True):
        one = np.eye(3)
        one[a, a] = one[b, b] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ one
    rows: list[list[float]] = turn.tolist()
    return rows


def solve_fisher_kpp(u: Tensor, diffusivity: Tensor, rho: Tensor, volume: Tensor, longest: int = 240) -> Tensor:
    """Solve the Fisher-KPP equation until more than `volume` voxels are over half full, or for `longest` steps.

    Args:
        u: Initial share of cells (N, D, H, W), 0 to 1.
        diffusivity: D (N, D, H, W) in voxels squared a step, at most `LARGEST`.
        rho: Growth rate a step (N, D, H, W), 0 to 1.
        volume: Number of voxels at which each tumour stops (N,).
        longest: Number of steps after which all stop.
    """
    faces = conductances(diffusivity)
    for count in range(longest):
        if count % 4 == 0:
            growing = (u > 0.5).sum(dim=(1, 2, 3)) < volume
            if not growing.any():
                break
        u = torch.where(growing[:, None, None, None], advance(u, faces, rho), u)
    return u


def advance(u: Tensor, faces: tuple[Tensor, Tensor, Tensor], rho: Tensor) -> Tensor:
    """One step of u (..., D, H, W), from the `conductances` of the faces and the growth rate `rho`."""
    spread = u.clone()
    for axis, face in zip((-3, -2, -1), faces, strict=True):
        n = u.shape[axis]
        flux = face * (u.narrow(axis, 1, n - 1) - u.narrow(axis, 0, n - 1))
        spread.narrow(axis, 0, n - 1).add_(flux)
        spread.narrow(axis, 1, n - 1).sub_(flux)
    return spread.addcmul_(rho * spread, 1 - spread)


def conductances(diffusivity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Conductance of the faces between voxels along D, H and W: the harmonic mean of both sides (..., D, H, W)."""
    limited = diffusivity.clamp(min=0, max=LARGEST)
    deep, high, wide = (_harmonic(limited, axis) for axis in (-3, -2, -1))
    return deep, high, wide


def _harmonic(d: Tensor, axis: int) -> Tensor:
    one, other = d.narrow(axis, 1, d.shape[axis] - 1), d.narrow(axis, 0, d.shape[axis] - 1)
    return 2 * one * other / (one + other).clamp(min=1e-9)
