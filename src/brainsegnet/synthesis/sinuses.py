"""The veins that drain a brain: where the dural sinuses run in a head that is upright."""

import torch
from torch import Tensor

from brainsegnet.synthesis.anatomy import Tissue
from brainsegnet.synthesis.fields import Millimetres, blur, grid, shape_of, voxels


def find_sinuses(tissue: Tensor, radius_mm: float, spacing_mm: Millimetres) -> Tensor:
    """Where the dural sinuses run in an upright head (D, H, W): on the midline beneath the skull, around, and straight.

    The tentorium, which they follow, is taken to be where the cerebellum ends; without a cerebellum there are none.
    """
    cerebellum = torch.nonzero((tissue == Tissue.CEREBELLAR_GREY).flatten(1).sum(1)).ravel()
    if not radius_mm or not len(cerebellum):
        return torch.zeros_like(tissue, dtype=torch.bool)
    inside = tissue != Tissue.BACKGROUND
    up, back, left = grid(shape_of(tissue), tissue.device)
    beside = (left - middle_of(inside)).abs() * spacing_mm[2]
    rows = torch.nonzero(inside.any(2).any(0)).ravel()
    behind = (2 * back - rows[0] - rows[-1]) / (rows[-1] - rows[0])
    tentorium = cerebellum[0] + 0.8 * (cerebellum[-1] - cerebellum[0])
    over = (up - tentorium) * spacing_mm[0]
    outer = blur(inside.float(), voxels(4.0, spacing_mm)) < 0.88
    sagittal = outer & (beside < radius_mm) & (over > -radius_mm)
    transverse = outer & (over.abs() < radius_mm) & (behind > 0.1)
    rising = (over - 22 * (1 - behind)).abs() < 0.8 * radius_mm
    straight = rising & (beside < 0.7 * radius_mm) & (behind > 0.2)
    near = (tissue == Tissue.CSF) | outer
    found: Tensor = inside & near & (sagittal | transverse | straight)
    return found


def middle_of(inside: Tensor) -> Tensor:
    """Column (D, H, 1) of the plane that halves an upright head (D, H, W) best, which may lean and turn a little."""
    up, back, left = grid(shape_of(inside), inside.device)
    width = inside.sum(2).float()
    centre = (left * inside).sum(2) / width.clamp(min=1)
    plane = torch.stack([torch.ones_like(centre), up[..., 0], back[..., 0]])
    weights = torch.linalg.solve(
        torch.einsum("idh,jdh,dh->ij", plane, plane, width), torch.einsum("idh,dh->i", plane, centre * width)
    )
    middle: Tensor = torch.einsum("i,idh->dh", weights, plane)[..., None]
    return middle
