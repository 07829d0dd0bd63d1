"""Growth and spread of a tumour: the reaction-diffusion equation of Fisher and KPP.

du/dt = div(D grad u) + rho u (1 - u), with u the share of a voxel that tumour cells fill (Swanson et al. 2000). The
steps are explicit and split: diffusion first, then growth, so that u stays within 0 and 1. Nothing flows through a face
where either side has D = 0. Batched over the leading axes, on any device.
"""

import torch
from torch import Tensor

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


def grow(u: Tensor, diffusivity: Tensor, rho: Tensor, volume: Tensor, longest: int = 240) -> Tensor:
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
