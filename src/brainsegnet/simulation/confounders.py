"""The veins that drain a brain: where the dural sinuses run in a head that is upright.

The cerebellum is finer than a scan resolves: folia, cortex that mingles with white matter, uneven brightness.

What is bright or dark in a scan and no tumour: vessels, sinuses, meninges, plexus, white matter, old infarcts.

They are laid over the anatomy and have no label, so that a network learns to leave them alone.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from brainsegnet._types import Millimetres
from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.simulation.fields import RandomStreams, blur, grid, noise, shape_of, voxels


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


REACH_MM = 30.0
"""From the middle of the hindbrain to where its cortex is."""


def fold_cerebellum(rng: RandomStreams, folia_mm: float, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Sheets (D, H, W), 1 in their midst and 0 between, `folia_mm` from each other, that bend around the brain stem."""
    away = _from_stem_mm(tissue, spacing_mm) + 3.0 * noise(rng, shape_of(tissue), spacing_mm, 12.0)[0]
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


class Extra(IntEnum):
    """Values of a map of extras; they go on where `Tissue` ends."""

    NONE = 0
    MENINGES = 8
    VESSEL = 9
    CHOROID = 10
    HYPERINTENSITY = 11
    CAVITY = 12
    SCAR = 13
    SINUS = 14


@dataclass(frozen=True)
class Confounders:
    """The random part, its fields of noise excepted.

    Attributes:
        sulci: Share of fluid below which a voxel counts as grey matter; large makes sulci narrow.
        vessels: Half the thickness of vessels, in units of noise; 0 for none to be seen.
        meninges: Level of noise above which the surface enhances; 9 is nowhere.
        choroid: Level of noise above which the ventricles hold plexus.
        hyperintensities: Load of spots in the white matter, 0 to 1.
        caps: Opacity of the caps around the ventricles.
        infarct_mm: Radius of an old infarct, 0 for none.
        folia_mm: Distance between the folia of the cerebellum.
        folia: Largest share of fluid between them.
        slope: Whether the cerebellum's own brightness is even (0) or rises from the brain stem outwards (1).
        rind_mm: How far cortex and white matter of the cerebellum mingle: both are finer than what a scan resolves.
        sinus_mm: Radius of the venous sinuses, 0 for none to be seen.
        bath: Level of a blur below which no fluid is left around the brain; small leaves much.
        stripping_mm: How far the extraction of the brain errs, standard deviation.
        stripping: Bias of that error; positive leaves skin of the brain on.
    """

    sulci: float
    vessels: float
    meninges: float
    choroid: float
    hyperintensities: float
    caps: float
    infarct_mm: float
    folia_mm: float
    folia: float
    slope: float
    rind_mm: float
    sinus_mm: float
    bath: float
    stripping_mm: float
    stripping: float


def draw_confounders(rng: np.random.Generator) -> Confounders:
    """Vessels, plexus and caps nearly always, the rest in a share of heads."""
    return Confounders(
        sulci=float(rng.uniform(0.55, 0.92)),
        vessels=float(rng.uniform(0.04, 0.16)),
        meninges=float(rng.uniform(0.3, 1.8)) if rng.random() < 0.6 else 9.0,
        choroid=float(rng.uniform(0.2, 1.2)),
        hyperintensities=float(rng.uniform(0, 1)) if rng.random() < 0.4 else 0.0,
        caps=float(rng.uniform(0, 0.7)),
        infarct_mm=float(rng.uniform(3, 12)) if rng.random() < 0.06 else 0.0,
        folia_mm=float(rng.uniform(2.2, 4.5)),
        folia=float(rng.uniform(0, 0.25)),
        slope=float(rng.uniform(0, 1)),
        rind_mm=float(rng.uniform(0.5, 3)),
        sinus_mm=float(rng.uniform(1.5, 4)) if rng.random() < 0.9 else 0.0,
        bath=float(rng.uniform(0.42, 0.6)),
        stripping_mm=float(rng.uniform(0.5, 2.5)) if rng.random() < 0.3 else 0.0,
        stripping=float(rng.normal(0.3, 0.8)),
    )


def add_csf(drawn: Confounders, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """The tissue map (D, H, W) with fluid around the brain and in its sulci, as extraction leaves it."""
    share = blur((tissue != Tissue.BACKGROUND).float(), voxels(4.0, spacing_mm))
    return torch.where((tissue == Tissue.BACKGROUND) & (share > drawn.bath), int(Tissue.CSF), tissue).to(tissue.dtype)


def strip(rng: RandomStreams, drawn: Confounders, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """The brain mask (D, H, W) that an imperfect extraction gives."""
    inside = tissue != Tissue.BACKGROUND
    if not drawn.stripping_mm:
        return inside
    share = blur(inside.float(), voxels(3.0, spacing_mm))
    wave = drawn.stripping_mm * (noise(rng, shape_of(tissue), spacing_mm, 12.0)[0] + drawn.stripping)
    brain: Tensor = torch.special.ndtri(share.clamp(0.02, 0.98)) * 3.0 + wave.clamp(-2.5, 4) > 0
    return brain


def fill_sulci(rng: RandomStreams, drawn: Confounders, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Share of fluid (D, H, W) in each voxel: sulci are thinner than voxels, so few are dark or bright all through."""
    fluid = (tissue == Tissue.CSF) | (tissue == Tissue.VENTRICLE) | (tissue == Tissue.BACKGROUND)
    share = blur(fluid.float(), voxels(0.9, spacing_mm))
    between = drawn.folia * fold_cerebellum(rng, drawn.folia_mm, tissue, spacing_mm)
    steep = min(0.45, 1 - drawn.sulci)
    return torch.where(tissue == Tissue.CEREBELLAR_GREY, between, ((share - drawn.sulci) / steep).clamp(0, 1))


def scatter(
    rng: RandomStreams, drawn: Confounders, tissue: Tensor, brain: Tensor, spacing_mm: Millimetres
) -> tuple[Tensor, Tensor]:
    """The extras (D, H, W) uint8 in a head with this brain mask, and how far they hide the tissue, 0 to 1."""
    shape = shape_of(tissue)
    sheet, other, patches = noise(rng, shape, spacing_mm, 4.0, 3)
    extras, veil = _bright_white_matter(rng, drawn, tissue, spacing_mm)
    fluid, ventricle = tissue == Tissue.CSF, tissue == Tissue.VENTRICLE
    solid_veil = torch.ones_like(veil)
    thin, thick = other.abs() < drawn.vessels, other.abs() < 4 * drawn.vessels
    tubes = (sheet.abs() < drawn.vessels) & ((fluid & thick) | ((tissue == Tissue.GREY) & thin))
    plexus = ventricle & (sheet.abs() < 0.35) & (patches > drawn.choroid)
    edge = brain & (blur(brain.float(), voxels(1.0, spacing_mm)) < 0.85) & (patches + 0.5 * other > drawn.meninges)
    skin = brain & (tissue == Tissue.BACKGROUND)
    veins = brain & find_sinuses(tissue, drawn.sinus_mm, spacing_mm)
    kinds = ((tubes, Extra.VESSEL), (plexus, Extra.CHOROID), (edge | skin, Extra.MENINGES), (veins, Extra.SINUS))
    for where, kind in kinds:
        extras = torch.where(where, int(kind), extras)
        veil = torch.where(where, solid_veil, veil)
    if drawn.infarct_mm:
        extras, veil = _old_infarct(rng, drawn.infarct_mm, tissue, (extras, veil), patches, spacing_mm)
    return extras.to(torch.uint8), veil


def _bright_white_matter(
    rng: RandomStreams, drawn: Confounders, tissue: Tensor, spacing_mm: Millimetres
) -> tuple[Tensor, Tensor]:
    """Caps around the ventricles and spots beyond them."""
    white = tissue == Tissue.WHITE
    near = 2 * blur((tissue == Tissue.VENTRICLE).float(), voxels(2.5, spacing_mm))
    veil = (drawn.caps * near).clamp(0, 1) * white
    if drawn.hyperintensities:
        deep = blur(white.float(), voxels(3.0, spacing_mm))
        field = noise(rng, shape_of(tissue), spacing_mm, 3.0)[0] + 1.6 * near + 1.5 * deep
        level = 5.2 - 1.6 * drawn.hyperintensities
        veil = torch.maximum(veil, ((field - level) * 1.5).clamp(0, 1) * white)
    return torch.where(veil > 0.02, int(Extra.HYPERINTENSITY), int(Extra.NONE)), veil


def _old_infarct(
    rng: RandomStreams,
    radius_mm: float,
    tissue: Tensor,
    so_far: tuple[Tensor, Tensor],
    rough: Tensor,
    spacing_mm: Millimetres,
) -> tuple[Tensor, Tensor]:
    """A cavity full of fluid with a scar around it, anywhere in grey or white matter."""
    ground = (tissue == Tissue.GREY) | (tissue == Tissue.WHITE) | (tissue == Tissue.DEEP_GREY)
    candidates = torch.nonzero(ground)
    centre = candidates[int(rng.numpy_rng.integers(len(candidates)))]
    step = torch.tensor(spacing_mm, device=tissue.device).view(3, 1, 1, 1)
    away = ((grid(shape_of(tissue), tissue.device) - centre.view(3, 1, 1, 1)) * step).square().sum(0).sqrt()
    away = away / (radius_mm * (1 + 0.3 * rough).clamp(min=0.3))
    extras, veil = so_far
    for limit, kind in ((1.3, Extra.SCAR), (1.0, Extra.CAVITY)):
        extras = torch.where((away < limit) & ground, int(kind), extras)
    return extras, torch.where((away < 1.3) & ground, torch.ones_like(veil), veil)
