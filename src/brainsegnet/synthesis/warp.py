"""Smooth diffeomorphisms: a velocity field is integrated, so nothing folds over however far it moves.

Fields are (3, D, H, W), in voxels along (D, H, W). A map says for every voxel where its value comes from.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brainsegnet.synthesis.anatomy import Tissue
from brainsegnet.synthesis.fields import Luck, Millimetres, Shape, blur, grid, noise, sample, shape_of, voxels

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


def pose_velocity(luck: Luck, pose: Pose, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """The flow (3, D, H, W) that deforms a head whose tissue map (D, H, W) is given, ventricles included."""
    shape = shape_of(tissue)
    slow, fine = noise(luck, shape, spacing_mm, 28.0, 3), noise(luck, shape, spacing_mm, 11.0, 3)
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
