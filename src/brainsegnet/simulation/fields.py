"""What the generator computes with in torch: matrices along axes, noise of a chosen grain, and samples between voxels.

Every separable linear operation, a blur as well as a change of grid, is one matrix for each axis; that is exact,
batched and what CPUs and GPUs do best.

Smooth diffeomorphisms: a velocity field is integrated, so nothing folds over however far it moves.

Fields are (3, D, H, W), in voxels along (D, H, W). A map says for every voxel where its value comes from.

Growth and spread of a tumour: the reaction-diffusion equation of Fisher and KPP.

du/dt = div(D grad u) + rho u (1 - u), with u the share of a voxel that tumour cells fill (Swanson et al. 2000). The
steps are explicit and split: diffusion first, then growth, so that u stays within 0 and 1. Nothing flows through a face
where either side has D = 0. Batched over the leading axes, on any device.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from brainsegnet._types import Millimetres, Shape
from brainsegnet.anatomy.procedural import Tissue


@dataclass(frozen=True, eq=False)
class RandomStreams:
    """Two streams of random numbers from one seed: `numpy_rng` for parameters, `torch_rng` for fields on its device."""

    numpy_rng: np.random.Generator
    torch_rng: torch.Generator

    @classmethod
    def of(cls, rng: np.random.Generator, device: torch.device | str = "cpu") -> Self:
        """Streams that follow from `rng`, the fields' on `device`."""
        return cls(rng, torch.Generator(device).manual_seed(int(rng.integers(2**62))))

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """White noise of unit variance."""
        return torch.randn(shape, generator=self.torch_rng, device=self.torch_rng.device)


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


def noise(rng: RandomStreams, shape: Shape, spacing_mm: Millimetres, grain_mm: float, count: int = 1) -> Tensor:
    """Fields (count, D, H, W) of zero mean and unit variance, white noise blurred with a Gaussian of `grain_mm`.

    The white noise lives on a lattice as coarse as the blur allows.
    """
    steps = [min(step / grain_mm, 1.0) for step in spacing_mm]
    lattice = [int(np.ceil(n * step)) + 7 for n, step in zip(shape, steps, strict=True)]
    field = rng.normal((count, *lattice))
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


HALVINGS = 6
"""The velocity is divided by 2 to this power, then the step is doubled as often."""


@dataclass(frozen=True)
class Pose:
    """How a head differs from its template.

    Attributes:
        mirrored: Left and right exchanged.
        angles_rad: Turns in the axial, coronal and sagittal plane.
        scales: Factors on the size along (D, H, W).
        slow_mm: Amplitude of the deformation of lobes, standard deviation.
        fine_mm: Amplitude of the deformation of gyri, standard deviation.
        ventricles_mm: How far the walls of the ventricles move outwards; negative is inwards.
    """

    mirrored: bool
    angles_rad: tuple[float, float, float]
    scales: tuple[float, float, float]
    slow_mm: float
    fine_mm: float
    ventricles_mm: float


def draw_pose(rng: np.random.Generator) -> Pose:
    """The random part of a head's shape, its fields of noise excepted."""
    axial, coronal, sagittal = rng.normal(0, (0.05, 0.04, 0.07)).tolist()
    deep, high, wide = (rng.uniform(0.955, 1.095) * rng.uniform(0.95, 1.05, 3)).tolist()
    return Pose(
        mirrored=bool(rng.random() < 0.5),
        angles_rad=(axial, coronal, sagittal),
        scales=(deep, high, wide),
        slow_mm=float(rng.uniform(1.0, 3.5)),
        fine_mm=float(rng.uniform(0.3, 1.2)),
        ventricles_mm=float(rng.choice([rng.uniform(-1.5, 1), rng.uniform(0, 4)])),
    )


def integrate(velocity: Tensor) -> Tensor:
    """The displacement (3, D, H, W) at time 1 of a steady flow (3, D, H, W): scaling and squaring (Arsigny 2006)."""
    here = grid(shape_of(velocity), velocity.device)
    moved: Tensor = velocity / 2**HALVINGS
    for _ in range(HALVINGS):
        moved = moved + sample(moved, here + moved)
    return moved


def jacobian(displacement: Tensor) -> Tensor:
    """Determinant (D, H, W) of the derivative of x + displacement (3, D, H, W): the local change of volume."""
    rows = torch.stack([torch.stack(torch.gradient(part)) for part in displacement])
    change: Tensor = torch.linalg.det(rows.permute(2, 3, 4, 0, 1) + torch.eye(3, device=rows.device))
    return change


def pose_velocity(rng: RandomStreams, pose: Pose, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """The flow (3, D, H, W) that deforms a head whose tissue map (D, H, W) is given, ventricles included."""
    shape = shape_of(tissue)
    slow, fine = noise(rng, shape, spacing_mm, 28.0, 3), noise(rng, shape, spacing_mm, 11.0, 3)
    step = torch.tensor(spacing_mm, device=tissue.device).view(3, 1, 1, 1)
    return (pose.slow_mm * slow + pose.fine_mm * fine) / step + swell(tissue, pose.ventricles_mm, spacing_mm)


def swell(tissue: Tensor, by_mm: float, spacing_mm: Millimetres) -> Tensor:
    """The flow (3, D, H, W) that moves the walls of the ventricles in a tissue map (D, H, W) outwards by `by_mm`."""
    inside = blur((tissue == Tissue.VENTRICLE).float(), voxels(3.0, spacing_mm))
    return outwards(inside, spacing_mm, by_mm, floor=0.05)


def outwards(density: Tensor, spacing_mm: Millimetres, by_mm: float, floor: float = 0.0) -> Tensor:
    """The flow (3, D, H, W) away from where `density` (D, H, W) is high, at most `by_mm`.

    A map reads its values from where it points, so a flow outwards points inwards: up the slope of the density.
    """
    step = torch.tensor(spacing_mm, device=density.device).view(3, 1, 1, 1)
    slope = torch.stack(torch.gradient(density)) / step
    steepest = slope.square().sum(dim=0).sqrt().max().clamp(min=1e-6)
    return by_mm * slope / torch.clamp(steepest, min=max(floor, 1e-6)) / step


def place(pose: Pose, shape: Shape, spacing_mm: Millimetres, template: Shape, nodes: Shape) -> Tensor:
    """Where in the template each node (3, d, h, w) of a coarse grid over a head (D, H, W) comes from, in its voxels.

    Turns, scales and mirrors about the middle; both grids have the same spacing.
    """
    halves = [(n - 1) / 2 * s for n, s in zip(shape, spacing_mm, strict=True)]
    lines = [torch.linspace(-half, half, k) for half, k in zip(halves, nodes, strict=True)]
    at = torch.stack(torch.meshgrid(*lines, indexing="ij"))
    turned: Tensor = torch.tensordot(torch.tensor(_rotation(pose.angles_rad), dtype=torch.float32), at, 1)
    turned = turned / torch.tensor(pose.scales).view(3, 1, 1, 1)
    if pose.mirrored:
        turned[2] = -turned[2]
    middle = torch.tensor([(n - 1) / 2 for n in template]).view(3, 1, 1, 1)
    where: Tensor = turned / torch.tensor(spacing_mm).view(3, 1, 1, 1) + middle
    return where


def _rotation(angles_rad: tuple[float, float, float]) -> list[list[float]]:
    axial, coronal, sagittal = angles_rad
    turn = np.eye(3)
    for angle, (a, b) in ((axial, (1, 2)), (coronal, (0, 2)), (sagittal, (0, 1))):
        one = np.eye(3)
        one[a, a] = one[b, b] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ one
    rows: list[list[float]] = turn.tolist()
    return rows


LARGEST = 1 / 6
"""Diffusivity, in voxels squared a step, up to which the explicit scheme is stable in three dimensions."""


def step(u: Tensor, faces: tuple[Tensor, Tensor, Tensor], rho: Tensor) -> Tensor:
    """One step of time of u (..., D, H, W), given the conductance of the `faces` (see `conduct`) and `rho` a step."""
    spread = u.clone()
    for axis, face in zip((-3, -2, -1), faces, strict=True):
        n = u.shape[axis]
        flux = face * (u.narrow(axis, 1, n - 1) - u.narrow(axis, 0, n - 1))
        spread.narrow(axis, 0, n - 1).add_(flux)
        spread.narrow(axis, 1, n - 1).sub_(flux)
    return spread.addcmul_(rho * spread, 1 - spread)


def conduct(diffusivity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Conductance of the faces between voxels along D, H and W: the harmonic mean of both sides' (..., D, H, W)."""
    limited = diffusivity.clamp(min=0, max=LARGEST)
    deep, high, wide = (_harmonic(limited, axis) for axis in (-3, -2, -1))
    return deep, high, wide


def _harmonic(d: Tensor, axis: int) -> Tensor:
    one, other = d.narrow(axis, 1, d.shape[axis] - 1), d.narrow(axis, 0, d.shape[axis] - 1)
    return 2 * one * other / (one + other).clamp(min=1e-9)


def simulate(u: Tensor, diffusivity: Tensor, rho: Tensor, volume: Tensor, longest: int = 240) -> Tensor:
    """U (N, D, H, W) once more than `volume` (N,) voxels are over a half full, or after the `longest` number of steps.

    Args:
        u: What is there in the beginning (N, D, H, W), 0 to 1.
        diffusivity: D in voxels squared a step (N, D, H, W), at most `LARGEST`.
        rho: Growth a step (N, D, H, W), 0 to 1.
        volume: Voxels at which a tumour stops (N,).
        longest: Steps after which all stop.
    """
    faces = conduct(diffusivity)
    for count in range(longest):
        if count % 4 == 0:
            growing = (u > 0.5).sum(dim=(1, 2, 3)) < volume
            if not growing.any():
                break
        u = torch.where(growing[:, None, None, None], step(u, faces, rho), u)
    return u
