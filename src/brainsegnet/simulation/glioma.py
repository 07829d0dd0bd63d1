"""Gliomas: tumour cells spread by reaction and diffusion, displace the brain, and oedema infiltrates white matter.

Cells and water are computed on a coarse grid with the Fisher-KPP equation (`fields`). The structure of the core is
rendered on the fine grid of the scan: necrosis, enhancing rim, cysts and blood, by depth below its surface and by
noise. Labels are those of BRATS 2015.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor

from brainsegnet._types import Millimetres
from brainsegnet.anatomy.procedural import Tissue, ball_radius_mm, log_uniform
from brainsegnet.simulation import Part
from brainsegnet.simulation.fields import LARGEST, RandomStreams, blur, column, grid, noise, outwards, solve_fisher_kpp

#                    background csf  grey white ventricle deep cerebellar hindbrain
CELL_DIFFUSIVITY = (0.0, 0.015, 0.0, 1.0, 0.0, 0.4, 0.05, 0.5)
"""Diffusivity of cells in each `Tissue`, relative to white matter; that of grey matter is drawn."""
WATER_DIFFUSIVITY = (0.0, 0.0, 0.0, 1.0, 0.0, 0.12, 0.02, 0.4)
"""The same of water: cortex and nuclei stay nearly dry, unless the tumour itself infiltrates them."""
ORIGIN_WEIGHTS = (0.0, 0.0, 0.25, 1.0, 0.0, 0.3, 0.04, 0.05)
"""Relative probability that a tumour starts in a voxel of each `Tissue`."""
HABITABLE = (0.0, 0.15, 1.0, 1.0, 0.0, 1.0, 0.6, 0.6)
"""Relative growth of cells in each `Tissue`."""


@dataclass(frozen=True)
class Glioma:
    """Parameters of a tumour. A level refers to noise with unit variance; an infinite level switches a feature off."""

    high_grade: bool  # whether it enhances around necrosis; otherwise it is homogeneous and does not enhance
    volume_ml: float  # volume of core and oedema
    core: float  # share of the core in that volume
    foci: int  # number of foci
    grey: float  # diffusivity of cells in grey matter relative to white matter
    rho: float  # growth rate a step; a small one makes the front wide
    roughness: float  # spatial standard deviation of the logarithm of growth
    push_mm: float  # largest displacement of the brain
    effaced: float  # share of the fluid that is pressed out of adjacent sulci
    rim_mm: float  # thickness of the enhancing rim; 0 for low grade
    margin_mm: float  # thickness of non-enhancing tumour around the rim
    pockets: float  # level above which the interior of the core is necrotic
    gaps: float  # level below which the rim does not enhance
    cyst: float  # level above which the interior of the core is fluid
    hole_mm: float  # grain of that noise, which sets the size of cysts and necrotic pockets
    spots: float  # level above which spots of the core enhance
    bleeds: float  # level above which the core holds blood
    water_levels: tuple[float, float]  # density of water at which the oedema ends, and above which it is full
    wet_cortex: float  # diffusivity of water in grey matter relative to white matter
    outline_mm: float  # blur of the outline around the oedema, as a reader draws it over sulci and small gaps


@dataclass(frozen=True, eq=False)
class Lesions:
    """A tumour on the grid of the scan, all (D, H, W)."""

    labels: Tensor  # labels of BRATS 2015, uint8
    parts: Tensor  # `Part`, uint8: the labels, with cysts and blood apart
    opacity: Tensor  # how far the tumour hides the tissue, 0 to 1; it extends a little beyond the labels


def draw_glioma(rng: np.random.Generator) -> Glioma:
    """Draw a tumour: 60 % of high grade, a third of these small and nearly solid nodules in much oedema."""
    high = rng.random() < 0.6
    cystic = rng.random() < (0.35 if high else 0.5)
    spotted = rng.random() < (0.6 if high else 0.3)
    start = rng.uniform(0.2, 0.45)
    volume_ml = log_uniform(rng, 10, 260)
    core = rng.uniform(0.12, 0.8) if high else rng.uniform(0.15, 0.95)
    nodule = high and rng.random() < 0.35
    if nodule:
        core = log_uniform(rng, 0.015, 0.15)
    radius_mm = ball_radius_mm(volume_ml * core * 1000)
    return Glioma(
        high_grade=high,
        volume_ml=volume_ml,
        core=core,
        foci=int(rng.choice([1, 2, 3], p=[0.84, 0.12, 0.04])),
        grey=log_uniform(rng, 0.08, 0.6),
        rho=rng.uniform(0.05, 0.2),
        roughness=rng.uniform(0.2, 0.7),
        push_mm=min(14.0, radius_mm * rng.uniform(0.05, 0.7)),
        rim_mm=log_uniform(rng, 1.3, 6) if high else 0.0,
        margin_mm=max(0.0, rng.uniform(-4, min(3, radius_mm / 4))),
        pockets=rng.uniform(-1.0, 2.0) if nodule else rng.uniform(-2.5, 0.4),
        gaps=rng.uniform(-2.5, 0.2),
        cyst=rng.uniform(-2.2, 0.9) if cystic else inf,
        hole_mm=rng.uniform(5, 14),
        spots=rng.uniform(1.3, 2.2) if spotted else inf,
        bleeds=rng.uniform(1.4, 2.2) if rng.random() < 0.15 else inf,
        water_levels=(start, start + rng.uniform(0.1, 0.5)),
        wet_cortex=log_uniform(rng, 0.02, 0.3),
        outline_mm=rng.uniform(0.8, 3.0),
        effaced=rng.uniform(0.7, 1.0),
    )


def grow_cells(streams: RandomStreams, glioma: Glioma, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Density of tumour cells (d, h, w), 0 to 1, in a coarse anatomical label map (d, h, w)."""
    mobility = torch.where(tissue == Tissue.GREY, glioma.grey, _look_up(CELL_DIFFUSIVITY, tissue))
    uneven = noise(streams, tissue.shape, spacing_mm, 7.0, 2)
    diffusivity = 0.9 * LARGEST * mobility * torch.exp(0.4 * uneven[0]).clamp(max=1.1)
    rho = glioma.rho * _look_up(HABITABLE, tissue) * torch.exp(glioma.roughness * uneven[1] - 0.1)
    start = _place_foci(streams, glioma, tissue, spacing_mm)
    volume = glioma.volume_ml * glioma.core * 1000 / float(np.prod(spacing_mm))
    return solve_fisher_kpp(start, diffusivity, rho.clamp(0, 1), volume)


def push(glioma: Glioma, cells: Tensor, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Velocity (3, d, h, w) of the brain away from the cells; the skull is rigid."""
    inside = blur(tissue != Tissue.BACKGROUND, 6.0, spacing_mm)
    pressure = blur(cells, 9.0, spacing_mm)
    return outwards(pressure, spacing_mm, glioma.push_mm) * (2.2 * inside - 1.2).clamp(0, 1)


def efface(glioma: Glioma, lesion: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Share of fluid (D, H, W) that a tumour leaves in the sulci: little beside it, nearly all 18 mm away."""
    return 1 - glioma.effaced * (6.0 * blur(lesion, 8.0, spacing_mm)).clamp(0, 1)


def infiltrate(
    streams: RandomStreams, glioma: Glioma, cells: Tensor, tissue: Tensor, spacing_mm: Millimetres
) -> Tensor:
    """Density of water (d, h, w), 0 to 1: it comes from the core and spreads along white matter."""
    mobility = torch.where(tissue == Tissue.GREY, glioma.wet_cortex, _look_up(WATER_DIFFUSIVITY, tissue))
    mobility = torch.where(cells > 0.5, 1.0, mobility)
    uneven = noise(streams, tissue.shape, spacing_mm, 6.0, 2)
    diffusivity = 0.9 * LARGEST * mobility * torch.exp(0.7 * uneven[0] - 0.3).clamp(max=1.1)
    rho = 0.06 * mobility * torch.exp(0.6 * uneven[1])
    volume = glioma.volume_ml * 1000 / float(np.prod(spacing_mm))
    core = (cells * _look_up(HABITABLE, tissue)).clamp(0, 1)
    return torch.maximum(solve_fisher_kpp(core, diffusivity, rho.clamp(0, 1), volume, 160), core)


def render_labels(
    streams: RandomStreams, glioma: Glioma, cells: Tensor, water: Tensor, tissue: Tensor, spacing_mm: Millimetres
) -> Lesions:
    """Render a tumour from cells, water and anatomy, all (D, H, W) on the grid of the scan."""
    grains_mm = (9.0, 5.0, 2.2, glioma.hole_mm)
    coarse, middle, fine, holes = (noise(streams, tissue.shape, spacing_mm, grain)[0] for grain in grains_mm)
    brain = (tissue != Tissue.BACKGROUND) & (tissue != Tissue.VENTRICLE)
    solid = (cells + 0.10 * fine > 0.5).float() * brain
    core = (blur(solid, 1.2, spacing_mm) > 0.5) & brain
    wet = (water + 0.05 * fine > glioma.water_levels[0]) & brain & (tissue != Tissue.CSF)
    wet = brain & (blur(wet, glioma.outline_mm, spacing_mm) > 0.5)
    parts = torch.where(wet, int(Part.OEDEMA), int(Part.NONE))
    depth = torch.maximum(depth_mm(core, spacing_mm), depth_mm(core, spacing_mm, 1.2))
    parts = torch.where(core, int(Part.NON_ENHANCING), parts)
    if glioma.high_grade:
        margin = glioma.margin_mm * (1 + 0.7 * coarse) + 0.4 * fine
        bottom = margin.clamp(min=0) + (glioma.rim_mm * (1 + 0.6 * middle)).clamp(min=1.0)
        surface = core & _dilate(~core)
        necrosis = core & ~surface & (depth > bottom) & (holes > glioma.pockets)
        rim = core & ~necrosis & (depth > margin) & (coarse + 0.3 * fine > glioma.gaps)
        parts = torch.where(rim | (_dilate(necrosis) & core), int(Part.ENHANCING), parts)
        parts = torch.where(necrosis, int(Part.NECROSIS), parts)
    spots = core & (middle + 0.3 * fine > glioma.spots)
    parts = torch.where(spots & (parts == Part.NON_ENHANCING), int(Part.ENHANCING), parts)
    inner = (parts == Part.NECROSIS) | (parts == Part.NON_ENHANCING) & (depth > 2.5 + middle)
    parts = torch.where(inner & (holes > glioma.cyst), int(Part.CYST), parts)
    labels = torch.where(parts == Part.CYST, int(Part.NECROSIS), parts)
    blood = core & (parts != Part.ENHANCING) & (middle - coarse > 1.4 * glioma.bleeds)
    parts = torch.where(blood, int(Part.BLOOD), parts)
    start, full = glioma.water_levels
    width = full - start  # opacity is about half where the label of the oedema ends, which is uncertain in scans
    opacity = torch.where(core, 1.0, ((water - start + 0.6 * width) / (1.6 * width)).clamp(0, 1))
    return Lesions(labels.to(torch.uint8), parts.to(torch.uint8), opacity)


def depth_mm(mask: Tensor, spacing_mm: Millimetres, reach_mm: float = 5.0) -> Tensor:
    """Depth (D, H, W) below the surface of a mask in mm, up to twice `reach_mm`, negative outside; read from a blur.

    Exact for a flat surface; too small where the mask is thin or its surface bends within `reach_mm`.
    """
    share = blur(mask, reach_mm, spacing_mm).clamp(0.01, 0.99)
    depth: Tensor = reach_mm * torch.special.ndtri(share)
    return depth


def _place_foci(streams: RandomStreams, glioma: Glioma, tissue: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Balls of cells (d, h, w) at the foci, smaller than the final core; later foci are within 35 mm of the first."""
    weight = torch.tensor(ORIGIN_WEIGHTS)[tissue.cpu().long()].double().numpy()
    where, step = grid(tissue.shape, tissue.device), column(spacing_mm, tissue.device)
    balls = torch.zeros_like(where[0])
    width_mm = min(3.5, 0.6 * ball_radius_mm(glioma.volume_ml * glioma.core / glioma.foci * 1000))
    for _ in range(glioma.foci):
        spot = np.unravel_index(streams.numpy_rng.choice(weight.size, p=weight.ravel() / weight.sum()), weight.shape)
        middle = torch.tensor([int(i) for i in spot], device=tissue.device).view(3, 1, 1, 1)
        away = ((where - middle) * step).square().sum(0)
        balls = torch.maximum(balls, torch.exp(-away / (2 * width_mm**2)))
        weight = np.where((away < 35**2).cpu().numpy(), weight, 0)
    return balls * _look_up(HABITABLE, tissue)


def _look_up(table: Sequence[float], tissue: Tensor) -> Tensor:
    """The value of each voxel (d, h, w) in a table by `Tissue`."""
    return torch.tensor(table, device=tissue.device)[tissue.long()]


def _dilate(mask: Tensor) -> Tensor:
    return torch.nn.functional.max_pool3d(mask.float()[None], 3, 1, 1)[0] > 0
