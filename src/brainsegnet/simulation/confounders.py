"""Confounders: structures that are bright or dark in a scan without being tumour.

Vessels, dural sinuses, meninges, choroid plexus, white matter hyperintensities and old infarcts are added to the
anatomy without a label, so that a network learns to ignore them. Fluid of thin sulci and the cortex of the cerebellum
are shares of a voxel, because a scan does not resolve them. Anatomies are upright tensors (D, H, W) of `Tissue`.
"""

from dataclasses import dataclass
from enum import IntEnum
from math import inf

import numpy as np
import torch
from torch import Tensor

from brainsegnet._types import Millimetres
from brainsegnet.anatomy.procedural import CEREBELLUM_MM, Tissue
from brainsegnet.simulation.fields import RandomStreams, blur, column, grid, noise


class Extra(IntEnum):
    """Values of a map of confounders; they continue those of `Tissue`."""

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
    """Parameters of the confounders of a head. A level is one of noise with unit variance."""

    sulci: float  # share of fluid below which a voxel counts as grey matter; a large one makes sulci narrow
    vessels: float  # half the thickness of vessels, in units of noise; 0 for none
    meninges: float  # level above which the surface enhances; infinite for nowhere
    choroid: float  # level above which the ventricles hold choroid plexus
    hyperintensities: float  # load of hyperintensities in the white matter, 0 to 1
    caps: float  # opacity of the caps around the ventricles
    infarct_mm: float  # radius of an old infarct, 0 for none
    folia_mm: float  # distance between the folia of the cerebellum
    folia: float  # largest share of fluid between them
    slope: float  # whether the brightness of the cerebellum is even (0) or rises from the brain stem outwards (1)
    mixing_mm: float  # blur with which cortex and white matter of the cerebellum mix
    sinus_mm: float  # radius of the dural sinuses, 0 for none
    csf_level: float  # level of a blurred brain mask above which fluid is left around it; a small one leaves much
    stripping_mm: float  # error of brain extraction, standard deviation; 0 for none
    stripping_bias: float  # mean of that error; a positive one leaves meninges on the brain

    def add_csf(self, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
        """The anatomy with the fluid around the brain that an extraction leaves."""
        inside = tissue != Tissue.BACKGROUND
        outside = ~inside & (blur(inside, 4.0, spacing_mm) > self.csf_level)
        return torch.where(outside, int(Tissue.CSF), tissue).to(tissue.dtype)

    def strip(self, streams: RandomStreams, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
        """The brain mask (D, H, W) of an imperfect extraction."""
        inside = tissue != Tissue.BACKGROUND
        if not self.stripping_mm:
            return inside
        share = blur(inside, 3.0, spacing_mm)
        error_mm = self.stripping_mm * (noise(streams, tissue.shape, spacing_mm, 12.0)[0] + self.stripping_bias)
        brain: Tensor = torch.special.ndtri(share.clamp(0.02, 0.98)) * 3.0 + error_mm.clamp(-2.5, 4) > 0
        return brain

    def fill_sulci(self, streams: RandomStreams, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
        """Share of fluid (D, H, W) in each voxel: most sulci are thinner than a voxel."""
        fluid = (tissue == Tissue.CSF) | (tissue == Tissue.VENTRICLE) | (tissue == Tissue.BACKGROUND)
        share = blur(fluid, 0.9, spacing_mm)
        between = self.folia * fold_cerebellum(streams, self.folia_mm, tissue, spacing_mm)
        steep = min(0.45, 1 - self.sulci)
        return torch.where(tissue == Tissue.CEREBELLAR_GREY, between, ((share - self.sulci) / steep).clamp(0, 1))

    def scatter(
        self, streams: RandomStreams, tissue: Tensor, brain: Tensor, spacing_mm: Millimetres
    ) -> tuple[Tensor, Tensor]:
        """Place confounders within a brain mask: a map (D, H, W) of `Extra`, uint8, and its opacity, 0 to 1."""
        sheet, other, patches = noise(streams, tissue.shape, spacing_mm, 4.0, 3)
        extras, opacity = self._add_hyperintensities(streams, tissue, spacing_mm)
        thin, thick = other.abs() < self.vessels, other.abs() < 4 * self.vessels
        vessels = (sheet.abs() < self.vessels) & (((tissue == Tissue.CSF) & thick) | ((tissue == Tissue.GREY) & thin))
        plexus = (tissue == Tissue.VENTRICLE) & (sheet.abs() < 0.35) & (patches > self.choroid)
        edge = brain & (blur(brain, 1.0, spacing_mm) < 0.85) & (patches + 0.5 * other > self.meninges)
        meninges = edge | (brain & (tissue == Tissue.BACKGROUND))
        sinuses = brain & find_sinuses(tissue, self.sinus_mm, spacing_mm)
        places = [(vessels, Extra.VESSEL), (plexus, Extra.CHOROID), (meninges, Extra.MENINGES), (sinuses, Extra.SINUS)]
        if self.infarct_mm:
            ground = (tissue == Tissue.GREY) | (tissue == Tissue.WHITE) | (tissue == Tissue.DEEP_GREY)
            candidates = torch.nonzero(ground)
            centre = candidates[int(streams.numpy_rng.integers(len(candidates)))].view(3, 1, 1, 1)
            offset_mm = (grid(tissue.shape, tissue.device) - centre) * column(spacing_mm, tissue.device)
            rough_mm = self.infarct_mm * (1 + 0.3 * patches).clamp(min=0.3)
            away = offset_mm.square().sum(0).sqrt() / rough_mm
            places += [((away < 1.3) & ground, Extra.SCAR), ((away < 1.0) & ground, Extra.CAVITY)]
        for where, kind in places:
            extras = torch.where(where, int(kind), extras)
            opacity = torch.where(where, 1.0, opacity)
        return extras.to(torch.uint8), opacity

    def _add_hyperintensities(
        self, streams: RandomStreams, tissue: Tensor, spacing_mm: Millimetres
    ) -> tuple[Tensor, Tensor]:
        """Caps around the ventricles and spots in the white matter: a map of `Extra` and its opacity."""
        white = tissue == Tissue.WHITE
        near = 2 * blur(tissue == Tissue.VENTRICLE, 2.5, spacing_mm)
        opacity = (self.caps * near).clamp(0, 1) * white
        if self.hyperintensities:
            deep = blur(white, 3.0, spacing_mm)
            field = noise(streams, tissue.shape, spacing_mm, 3.0)[0] + 1.6 * near + 1.5 * deep
            level = 5.2 - 1.6 * self.hyperintensities
            opacity = torch.maximum(opacity, ((field - level) * 1.5).clamp(0, 1) * white)
        return torch.where(opacity > 0.02, int(Extra.HYPERINTENSITY), int(Extra.NONE)), opacity


def draw_confounders(rng: np.random.Generator) -> Confounders:
    """Draw confounders: vessels, plexus and caps in nearly all heads, the others in a share of them."""
    return Confounders(
        sulci=rng.uniform(0.55, 0.92),
        vessels=rng.uniform(0.04, 0.16),
        meninges=rng.uniform(0.3, 1.8) if rng.random() < 0.6 else inf,
        choroid=rng.uniform(0.2, 1.2),
        hyperintensities=rng.uniform(0, 1) if rng.random() < 0.4 else 0.0,
        caps=rng.uniform(0, 0.7),
        infarct_mm=rng.uniform(3, 12) if rng.random() < 0.06 else 0.0,
        folia_mm=rng.uniform(2.2, 4.5),
        folia=rng.uniform(0, 0.25),
        slope=rng.uniform(0, 1),
        mixing_mm=rng.uniform(0.5, 3),
        sinus_mm=rng.uniform(1.5, 4) if rng.random() < 0.9 else 0.0,
        csf_level=rng.uniform(0.42, 0.6),
        stripping_mm=rng.uniform(0.5, 2.5) if rng.random() < 0.3 else 0.0,
        stripping_bias=rng.normal(0.3, 0.8),
    )


def find_sinuses(tissue: Tensor, radius_mm: float, spacing_mm: Millimetres) -> Tensor:
    """Mask (D, H, W) of the dural sinuses of an upright head: superior sagittal, transverse and straight sinus.

    They follow the tentorium, which is taken to be the top of the cerebellum; without one there are none.
    """
    cerebellum = torch.nonzero((tissue == Tissue.CEREBELLAR_GREY).flatten(1).sum(1)).ravel()
    if not radius_mm or not len(cerebellum):
        return torch.zeros_like(tissue, dtype=torch.bool)
    inside = tissue != Tissue.BACKGROUND
    up, back, left = grid(tissue.shape, tissue.device)
    beside = (left - middle_of(inside)).abs() * spacing_mm[2]
    rows = torch.nonzero(inside.any(2).any(0)).ravel()
    behind = (2 * back - rows[0] - rows[-1]) / (rows[-1] - rows[0])
    tentorium = cerebellum[0] + 0.8 * (cerebellum[-1] - cerebellum[0])
    over = (up - tentorium) * spacing_mm[0]
    outer = blur(inside, 4.0, spacing_mm) < 0.88
    sagittal = outer & (beside < radius_mm) & (over > -radius_mm)
    transverse = outer & (over.abs() < radius_mm) & (behind > 0.1)
    rising = (over - 22 * (1 - behind)).abs() < 0.8 * radius_mm
    straight = rising & (beside < 0.7 * radius_mm) & (behind > 0.2)
    near = (tissue == Tissue.CSF) | outer
    found: Tensor = inside & near & (sagittal | transverse | straight)
    return found


def middle_of(inside: Tensor) -> Tensor:
    """Column (D, H, 1) of the plane that best halves an upright, slightly rotated head (D, H, W)."""
    up, back, left = grid(inside.shape, inside.device)
    width = inside.sum(2).float()
    centre = (left * inside).sum(2) / width.clamp(min=1)
    plane = torch.stack([torch.ones_like(centre), up[..., 0], back[..., 0]])
    weights = torch.linalg.solve(
        torch.einsum("idh,jdh,dh->ij", plane, plane, width), torch.einsum("idh,dh->i", plane, centre * width)
    )
    middle: Tensor = torch.einsum("i,idh->dh", weights, plane)[..., None]
    return middle


def fold_cerebellum(streams: RandomStreams, folia_mm: float, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Fissures (D, H, W) around the brain stem, `folia_mm` apart: 1 in the middle of each, 0 between them."""
    away = _from_stem_mm(tissue, spacing_mm) + 3.0 * noise(streams, tissue.shape, spacing_mm, 12.0)[0]
    return ((torch.cos(2 * torch.pi * away / folia_mm) - 0.4) / 0.6).clamp(0, 1)


def tilt_cerebellum(slope: float, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Weight (D, H, W) of the brightness of the hindbrain, about 1 in the mean; 0 elsewhere."""
    hindbrain = (tissue == Tissue.CEREBELLAR_GREY) | (tissue == Tissue.HINDBRAIN_WHITE)
    rise = (_from_stem_mm(tissue, spacing_mm) / CEREBELLUM_MM).clamp(0, 1.6)
    return (1 + slope * (rise - 1)) * hindbrain


def _from_stem_mm(tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Distance (D, H, W) from the middle of the white matter of the hindbrain, in mm."""
    stem = tissue == Tissue.HINDBRAIN_WHITE
    where = grid(tissue.shape, tissue.device) * column(spacing_mm, tissue.device)
    middle = (where * stem).sum((1, 2, 3), keepdim=True) / stem.sum().clamp(min=1)
    return (where - middle).square().sum(0).sqrt()


def mix_cerebellum(mixing_mm: float, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Share of cortex (D, H, W) in each voxel of the hindbrain, whose folia a scan does not resolve."""
    cortex = tissue == Tissue.CEREBELLAR_GREY
    both = cortex | (tissue == Tissue.HINDBRAIN_WHITE)
    return blur(cortex, mixing_mm, spacing_mm) / blur(both, mixing_mm, spacing_mm).clamp(min=1e-3)
