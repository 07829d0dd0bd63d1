"""Gliomas: cells spread by reaction and diffusion, push the brain aside, and infiltrate the white matter around.

The course is computed on a coarse grid, by `diffusion`; the inner structure (necrosis, rim, cysts, bleeding) is laid
out on the fine grid of the scan, by depth under the surface of the core and by noise. Labels are those of BRATS 2015.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from brainsegnet._types import Millimetres
from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.simulation.fields import (
    LARGEST,
    RandomStreams,
    blur,
    grid,
    noise,
    outwards,
    shape_of,
    simulate,
    voxels,
)

#                    background csf  grey white ventricle deep cerebellar hindbrain
CELLS_ENTER = (0.0, 0.015, 0.0, 1.0, 0.0, 0.4, 0.05, 0.5)
"""Diffusivity of cells in each `Tissue`, relative to white matter; that of grey matter is drawn."""
WATER_ENTERS = (0.0, 0.0, 0.0, 1.0, 0.0, 0.12, 0.02, 0.4)
"""Diffusivity of water, as above: cortex and nuclei stay nearly dry, unless the tumour itself infiltrates them."""
SEEDS = (0.0, 0.0, 0.25, 1.0, 0.0, 0.3, 0.04, 0.05)
"""How likely a tumour starts in a voxel of each `Tissue`."""


class Part(IntEnum):
    """What a voxel of a tumour holds; the first four are labels of BRATS 2015."""

    NONE = 0
    NECROSIS = 1
    OEDEMA = 2
    NON_ENHANCING = 3
    ENHANCING = 4
    CYST = 5
    BLOOD = 6


@dataclass(frozen=True)
class Glioma:
    """The random part of a tumour, its fields of noise excepted.

    Attributes:
        high_grade: Whether it enhances around necrosis, or is of one piece and does not enhance.
        volume_ml: Core and oedema.
        core: Share of the core in that.
        foci: How many.
        grey: Diffusivity of cells in grey matter relative to white.
        rho: Growth a step; small makes the front wide.
        roughness: Spread of the logarithm of growth from place to place.
        push_mm: Largest displacement of the brain.
        effaced: Share of the fluid that it presses out of the sulci beside it.
        rim_mm: Thickness of the enhancing rim; without high grade 0.
        margin_mm: Thickness of non-enhancing tumour around the rim.
        pockets: Level of noise above which the depth of the core is necrotic.
        gaps: Level of noise below which the rim does not enhance.
        cyst: Level of noise above which the depth of the core is fluid; 9 is never.
        hole_mm: Grain of that noise, which sets the size of cysts and of necrotic pockets.
        spots: Level of noise above which spots enhance or rot.
        bleeds: Level of noise above which blood lies.
        halo: Density of water at which oedema ends, and where it is in full.
        wet_cortex: Diffusivity of water in grey matter relative to white.
        hand_mm: Blur of the outline that is drawn around the oedema, which passes over sulci and small gaps.
    """

    high_grade: bool
    volume_ml: float
    core: float
    foci: int
    grey: float
    rho: float
    roughness: float
    push_mm: float
    effaced: float
    rim_mm: float
    margin_mm: float
    pockets: float
    gaps: float
    cyst: float
    hole_mm: float
    spots: float
    bleeds: float
    halo: tuple[float, float]
    wet_cortex: float
    hand_mm: float


@dataclass(frozen=True, eq=False)
class Lesions:
    """A tumour on the grid of the scan, all (D, H, W).

    Attributes:
        labels: Of BRATS 2015, uint8.
        parts: `Part` of each voxel, uint8: as the labels, with cysts and blood apart.
        opacity: How far the tumour hides the tissue, 0 to 1; it goes on a little beyond the labels.
    """

    labels: Tensor
    parts: Tensor
    opacity: Tensor


def draw_glioma(rng: np.random.Generator) -> Glioma:
    """A tumour of high grade in three cases of five, else of low grade; two in five may hold a cyst.

    A third of those of high grade are small nodules, solid or nearly so, in much oedema.
    """
    high = bool(rng.random() < 0.6)
    cystic = rng.random() < (0.35 if high else 0.5)
    spotted = rng.random() < (0.6 if high else 0.3)
    start = float(rng.uniform(0.2, 0.45))
    volume_ml = float(np.exp(rng.uniform(np.log(10), np.log(260))))
    core = float(rng.uniform(0.12, 0.8) if high else rng.uniform(0.15, 0.95))
    nodule = high and rng.random() < 0.35
    if nodule:
        core = float(np.exp(rng.uniform(np.log(0.015), np.log(0.15))))
    radius_mm = _ball_mm(volume_ml * core)
    return Glioma(
        high_grade=high,
        volume_ml=volume_ml,
        core=core,
        foci=int(rng.choice([1, 2, 3], p=[0.84, 0.12, 0.04])),
        grey=float(np.exp(rng.uniform(np.log(0.08), np.log(0.6)))),
        rho=float(rng.uniform(0.05, 0.2)),
        roughness=float(rng.uniform(0.2, 0.7)),
        push_mm=min(14.0, radius_mm * float(rng.uniform(0.05, 0.7))),
        rim_mm=float(np.exp(rng.uniform(np.log(1.3), np.log(6)))) if high else 0.0,
        margin_mm=float(max(0.0, rng.uniform(-4, min(3, radius_mm / 4)))),
        pockets=float(rng.uniform(-1.0, 2.0) if nodule else rng.uniform(-2.5, 0.4)),
        gaps=float(rng.uniform(-2.5, 0.2)),
        cyst=float(rng.uniform(-2.2, 0.9)) if cystic else 9.0,
        hole_mm=float(rng.uniform(5, 14)),
        spots=float(rng.uniform(1.3, 2.2)) if spotted else 9.0,
        bleeds=float(rng.uniform(1.4, 2.2)) if rng.random() < 0.15 else 9.0,
        halo=(start, start + float(rng.uniform(0.1, 0.5))),
        wet_cortex=float(np.exp(rng.uniform(np.log(0.02), np.log(0.3)))),
        hand_mm=float(rng.uniform(0.8, 3.0)),
        effaced=float(rng.uniform(0.7, 1.0)),
    )


def grow_cells(rng: RandomStreams, glioma: Glioma, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Density of tumour cells (d, h, w), 0 to 1, in a coarse tissue map (d, h, w)."""
    shape = shape_of(tissue)
    enter = torch.tensor(CELLS_ENTER, device=tissue.device)
    enter[Tissue.GREY] = glioma.grey
    uneven = noise(rng, shape, spacing_mm, 7.0, 2)
    diffusivity = 0.9 * LARGEST * enter[tissue.long()] * torch.exp(0.4 * uneven[0]).clamp(max=1.1)
    rho = glioma.rho * _open(tissue) * torch.exp(glioma.roughness * uneven[1] - 0.1)
    start = _plant(rng, glioma, tissue, spacing_mm)
    volume = torch.tensor([glioma.volume_ml * glioma.core * 1000 / np.prod(spacing_mm)], device=tissue.device)
    return simulate(start[None], diffusivity[None], rho.clamp(0, 1)[None], volume)[0]


def push(glioma: Glioma, cells: Tensor, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """The flow (3, d, h, w) of the brain away from the cells; the skull does not yield."""
    inside = blur((tissue != Tissue.BACKGROUND).float(), voxels(6.0, spacing_mm))
    pressure = blur(cells, voxels(9.0, spacing_mm))
    return outwards(pressure, spacing_mm, glioma.push_mm) * (2.2 * inside - 1.2).clamp(0, 1)


def efface(glioma: Glioma, lesion: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Share of the fluid (D, H, W) that a tumour leaves in the sulci: little beside it, from 18 mm away nearly all."""
    near = blur(lesion.float(), voxels(8.0, spacing_mm))
    return 1 - glioma.effaced * (6.0 * near).clamp(0, 1)


def infiltrate(rng: RandomStreams, glioma: Glioma, cells: Tensor, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Density of water (d, h, w), 0 to 1: it comes from the core and runs along the white matter."""
    shape = shape_of(tissue)
    enter = torch.tensor(WATER_ENTERS, device=tissue.device)
    enter[Tissue.GREY] = glioma.wet_cortex
    enter = enter[tissue.long()]
    enter = torch.where(cells > 0.5, torch.ones_like(enter), enter)
    uneven = noise(rng, shape, spacing_mm, 6.0, 2)
    diffusivity = 0.9 * LARGEST * enter * torch.exp(0.7 * uneven[0] - 0.3).clamp(max=1.1)
    rho = 0.06 * enter * torch.exp(0.6 * uneven[1])
    volume = torch.tensor([glioma.volume_ml * 1000 / np.prod(spacing_mm)], device=tissue.device)
    core = (cells * _open(tissue)).clamp(0, 1)
    return torch.maximum(simulate(core[None], diffusivity[None], rho.clamp(0, 1)[None], volume, 160)[0], core)


def render_labels(
    rng: RandomStreams, glioma: Glioma, cells: Tensor, water: Tensor, tissue: Tensor, spacing_mm: Millimetres
) -> Lesions:
    """The parts of a tumour, all (D, H, W) and on the grid of the scan: cells and water, and the tissue map."""
    shape = shape_of(tissue)
    grains_mm = (9.0, 5.0, 2.2, glioma.hole_mm)
    coarse, middle, fine, holes = (noise(rng, shape, spacing_mm, grain)[0] for grain in grains_mm)
    ground = (tissue != Tissue.BACKGROUND) & (tissue != Tissue.VENTRICLE)
    solid = (cells + 0.10 * fine > 0.5).float() * ground
    core = (blur(solid, voxels(1.2, spacing_mm)) > 0.5) & ground
    wet = (water + 0.05 * fine > glioma.halo[0]) & ground & (tissue != Tissue.CSF)
    wet = ground & (blur(wet.float(), voxels(glioma.hand_mm, spacing_mm)) > 0.5)
    parts = torch.where(wet, int(Part.OEDEMA), int(Part.NONE))
    depth = torch.maximum(depth_mm(core, spacing_mm), depth_mm(core, spacing_mm, 1.2))
    parts = torch.where(core, int(Part.NON_ENHANCING), parts)
    if glioma.high_grade:
        margin = glioma.margin_mm * (1 + 0.7 * coarse) + 0.4 * fine
        bottom = margin.clamp(min=0) + (glioma.rim_mm * (1 + 0.6 * middle)).clamp(min=1.0)
        surface = core & _grown(~core)
        rotten = core & ~surface & (depth > bottom) & (holes > glioma.pockets)
        rim = core & ~rotten & (depth > margin) & (coarse + 0.3 * fine > glioma.gaps)
        parts = torch.where(rim | (_grown(rotten) & core), int(Part.ENHANCING), parts)
        parts = torch.where(rotten, int(Part.NECROSIS), parts)
    spots = core & (middle + 0.3 * fine > glioma.spots)
    parts = torch.where(spots & (parts == Part.NON_ENHANCING), int(Part.ENHANCING), parts)
    inner = (parts == Part.NECROSIS) | (parts == Part.NON_ENHANCING) & (depth > 2.5 + middle)
    parts = torch.where(inner & (holes > glioma.cyst), int(Part.CYST), parts)
    labels = torch.where(parts == Part.CYST, int(Part.NECROSIS), parts)
    blood = core & (parts != Part.ENHANCING) & (middle - coarse > 1.4 * glioma.bleeds)
    parts = torch.where(blood, int(Part.BLOOD), parts)
    return Lesions(labels.to(torch.uint8), parts.to(torch.uint8), _hide(glioma, water, core))


def depth_mm(mask: Tensor, spacing_mm: Millimetres, reach_mm: float = 5.0) -> Tensor:
    """Depth (D, H, W) under the surface of a mask, up to twice `reach_mm`, negative outside; read from a blur.

    Exact for a flat surface; less than true where the mask is thin or its surface bends within `reach_mm`.
    """
    share = blur(mask.float(), voxels(reach_mm, spacing_mm)).clamp(0.01, 0.99)
    depth: Tensor = reach_mm * torch.special.ndtri(share)
    return depth


def _hide(glioma: Glioma, water: Tensor, core: Tensor) -> Tensor:
    """Opacity (D, H, W): half where the oedema's label ends, so that readers and networks may quarrel there."""
    start, full = glioma.halo
    width = full - start
    return torch.where(core, 1.0, ((water - start + 0.6 * width) / (1.6 * width)).clamp(0, 1))


def _plant(rng: RandomStreams, glioma: Glioma, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Balls of cells (d, h, w) at the foci, the later within 35 mm of the first, smaller than what grows of them."""
    weight = torch.tensor(SEEDS)[tissue.cpu().long()].double().numpy()
    where = grid(shape_of(tissue), tissue.device)
    step = torch.tensor(spacing_mm, device=tissue.device).view(3, 1, 1, 1)
    balls = torch.zeros_like(where[0])
    width_mm = min(3.5, 0.6 * _ball_mm(glioma.volume_ml * glioma.core / glioma.foci))
    for _ in range(glioma.foci):
        spot = np.unravel_index(rng.numpy_rng.choice(weight.size, p=weight.ravel() / weight.sum()), weight.shape)
        middle = torch.tensor([int(i) for i in spot], device=tissue.device).view(3, 1, 1, 1)
        away = ((where - middle) * step).square().sum(0)
        balls = torch.maximum(balls, torch.exp(-away / (2 * width_mm**2)))
        weight = np.where((away < 35**2).cpu().numpy(), weight, 0)
    return balls * _open(tissue)


def _ball_mm(volume_ml: float) -> float:
    """Radius of a ball."""
    return float(np.cbrt(volume_ml * 1000 * 3 / (4 * np.pi)))


def _open(tissue: Tensor) -> Tensor:
    """1 where cells live, 0 outside the brain and in ventricles, little in the fluid of sulci; (d, h, w)."""
    return torch.tensor((0.0, 0.15, 1.0, 1.0, 0.0, 1.0, 0.6, 0.6), device=tissue.device)[tissue.long()]


def _grown(mask: Tensor) -> Tensor:
    return torch.nn.functional.max_pool3d(mask.float()[None], 3, 1, 1)[0] > 0
