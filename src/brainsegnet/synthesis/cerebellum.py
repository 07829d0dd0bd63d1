"""The cerebellum is finer than a scan resolves: folia, cortex that mingles with white matter, uneven brightness."""

import torch
from torch import Tensor

from brainsegnet.synthesis.anatomy import Tissue
from brainsegnet.synthesis.fields import Luck, Millimetres, blur, grid, noise, shape_of, voxels

REACH_MM = 30.0
"""From the middle of the hindbrain to where its cortex is."""


def fold_cerebellum(luck: Luck, folia_mm: float, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Sheets (D, H, W), 1 in their midst and 0 between, `folia_mm` from each other, that bend around the brain stem."""
    away = _from_stem_mm(tissue, spacing_mm) + 3.0 * noise(luck, shape_of(tissue), spacing_mm, 12.0)[0]
    return ((torch.cos(2 * torch.pi * away / folia_mm) - 0.4) / 0.6).clamp(0, 1)


def tilt_cerebellum(slope: float, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """How much of the hindbrain's own brightness each voxel (D, H, W) has, about 1 in the mean; 0 elsewhere."""
    behind = (tissue == Tissue.CEREBELLAR_GREY) | (tissue == Tissue.HINDBRAIN_WHITE)
    rise = (_from_stem_mm(tissue, spacing_mm) / REACH_MM).clamp(0, 1.6)
    return (1 + slope * (rise - 1)) * behind


def _from_stem_mm(tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Distance (D, H, W) from the middle of the hindbrain's white matter."""
    stem = tissue == Tissue.HINDBRAIN_WHITE
    step = torch.tensor(spacing_mm, device=tissue.device).view(3, 1, 1, 1)
    where = grid(shape_of(tissue), tissue.device) * step
    middle = (where * stem).sum((1, 2, 3), keepdim=True) / stem.sum().clamp(min=1)
    return (where - middle).square().sum(0).sqrt()


def peel_cerebellum(rind_mm: float, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Share of cortex (D, H, W) in each voxel of the hindbrain; elsewhere it means nothing."""
    cortex = tissue == Tissue.CEREBELLAR_GREY
    both, width = cortex | (tissue == Tissue.HINDBRAIN_WHITE), voxels(rind_mm, spacing_mm)
    return blur(cortex.float(), width) / blur(both.float(), width).clamp(min=1e-3)
