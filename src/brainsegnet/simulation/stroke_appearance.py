"""What a head with a stroke also has and is no infarct of today: white-matter disease, old infarcts.

How a stroke looks: diffusion (b0, DWI, ADC) and perfusion (rCBF, rCBV, MTT, Tmax, TTP).

Diffusion: signal S = S0 exp(-b ADC), averaged over each voxel, then noise; the ADC map is computed from the noisy
images, as a scanner does. So DWI and ADC agree in every voxel, T2 shine-through comes by itself, and ADC is poor where
the signal is. Perfusion: the central volume theorem, MTT = CBV / CBF; contrast agent arrives late in the deficit.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy import ndimage

from brainsegnet._types import Array, Floats, Labels, Mask
from brainsegnet.anatomy.procedural import Tissue, shape_of, smooth_noise
from brainsegnet.anatomy.territories import Ground, brain_tissue, same_artery
from brainsegnet.simulation.stroke import Infarct, foremost


class Mimic(IntEnum):
    """Values of a map of old lesions: all of high ADC, some bright in DWI by their long T2."""

    NONE = 0
    HYPERINTENSITY = 1
    GLIOSIS = 2
    CAVITY = 3
    SHINE_THROUGH = 4


def add_mimics(rng: np.random.Generator, ground: Ground, core: Mask) -> Labels:
    """A map (D, H, W) of `Mimic` values outside the core of today's stroke."""
    mimics = np.zeros(core.shape, np.uint8)
    _lay_hyperintensities(rng, ground, mimics)
    for _ in range(int(rng.choice(3, p=(0.6, 0.28, 0.12)))):
        _lay_old_infarct(rng, ground, mimics)
    for _ in range(int(rng.choice(4, p=(0.5, 0.25, 0.15, 0.1)))):
        ml = float(np.exp(rng.uniform(np.log(0.08), np.log(4))))
        mimics[_grow_blob(rng, ground, ml, 5.0)] = Mimic.SHINE_THROUGH
    mimics[core | ~brain_tissue(ground.tissue)] = Mimic.NONE
    return mimics


def _lay_hyperintensities(rng: np.random.Generator, ground: Ground, mimics: Labels) -> None:
    """Chronic white-matter disease: caps on the ventricles, and spots in the deep white matter."""
    spacing, shape = ground.spacing_mm, shape_of(mimics)
    ventricle = (ground.tissue == Tissue.VENTRICLE).astype(np.float32)
    near = ndimage.gaussian_filter(ventricle, [7 / s for s in spacing], truncate=2.5)
    spots = smooth_noise(rng, shape, spacing, float(rng.uniform(1.8, 4.0)))
    favour = 2.5 * near + 0.22 * spots + 0.1 * smooth_noise(rng, shape, spacing, 9.0)
    volume_ml = float(np.exp(rng.normal(np.log(5), 1.2)))
    white = ground.tissue == Tissue.WHITE
    mimics[foremost(favour, white, round(min(volume_ml, 60) / ground.voxel_ml))] = Mimic.HYPERINTENSITY


def _lay_old_infarct(rng: np.random.Generator, ground: Ground, mimics: Labels) -> None:
    """A cavity in a rim of gliosis."""
    volume_ml = float(np.exp(rng.uniform(np.log(0.1), np.log(35))))
    scar = _grow_blob(rng, ground, volume_ml, max(3.0, 2 * float(np.cbrt(volume_ml))))
    mimics[scar] = Mimic.GLIOSIS
    inner = ndimage.gaussian_filter(scar.astype(np.float32), [max(1.5 / s, 0.5) for s in ground.spacing_mm], truncate=2)
    mimics[scar & (inner > rng.uniform(0.5, 0.95))] = Mimic.CAVITY


def _grow_blob(rng: np.random.Generator, ground: Ground, volume_ml: float, blur_mm: float) -> Mask:
    """As much brain around a random voxel as fills a volume, rough at its surface, of one artery."""
    brain = brain_tissue(ground.tissue)
    candidates = np.flatnonzero(brain)
    at = np.unravel_index(candidates[int(rng.integers(candidates.size))], brain.shape)
    apart = ground.points - ground.points[(slice(None), *at)].reshape(3, 1, 1, 1)
    distance = np.sqrt(np.square(apart).sum(axis=0))
    d, h, w = at
    allowed = brain & same_artery(ground, (int(d), int(h), int(w))) & (distance < 60)
    radius_mm = float(np.cbrt(volume_ml * 1000 * 3 / (4 * np.pi)))
    rough = 0.35 * radius_mm * smooth_noise(rng, shape_of(brain), ground.spacing_mm, blur_mm)
    return foremost(rough - distance, allowed, round(volume_ml / ground.voxel_ml))


#        background csf  grey  white ventricle deep  cerebellar  hindbrain
T2 = (0.0, 2.6, 1.28, 1.00, 2.8, 1.12, 1.30, 1.10)
"""Signal without diffusion weighting by `Tissue`, relative to white matter."""
ADC = (0.0, 2850.0, 830.0, 745.0, 3100.0, 770.0, 790.0, 720.0)
"""Apparent diffusion coefficient by `Tissue`, in 1e-6 mm2/s."""
MIMIC_T2 = (0.0, 1.45, 1.7, 2.6, 2.0)
"""Signal and diffusion of each `Mimic` where tissue has the usual ones; where it has others, as many times those."""
MIMIC_ADC = (0.0, 1000.0, 1250.0, 2500.0, 1050.0)
OFFSET = 0.7
"""Of what freer water takes from DWI, the share that its longer T2 gives back: hence grey matter is hardly brighter."""
FREE_T2, FREE_ADC = ((0.3, 3.2), (0.6, 1.6)), ((1500.0, 3300.0), (550.0, 1150.0))
"""Ranges of fluid and of tissue where the contrast is of no known physics: no order of the tissues can be learnt."""
FREE_CBF, FREE_CBV = (15.0, 60.0), (1.5, 4.5)
"""The same of blood in tissue."""
FREE_SHARE = 0.08
"""Of the scans, with such a contrast."""
FLUID = 1300.0
"""ADC from which on the signal is that of fluid, which is even."""
HINDBRAIN_MM = 30.0
"""From the middle of the hindbrain to the surface of the cerebellum."""
CBF = (0.0, 16.0, 55.0, 23.0, 5.0, 46.0, 50.0, 30.0)
"""Blood flow by `Tissue`, in ml per 100 g and minute."""
CBV = (0.0, 1.7, 4.0, 1.9, 0.5, 3.4, 3.9, 2.4)
"""Blood volume by `Tissue`, in ml per 100 g."""


@dataclass(frozen=True)
class DiffusionContrast:
    """What differs from scan to scan in diffusion.

    Attributes:
        t2: Signal without diffusion weighting by `Tissue`.
        adc: Diffusion coefficient by `Tissue`, in 1e-6 mm2/s.
        core_t2: Factor on the signal in the core: T2 grows over the first days.
        core_adc: Factor on the diffusion coefficient in the core.
        mottle: Unevenness of the core.
        cortex: Unevenness of healthy tissue.
        glow: How much brighter than other cortex some of it is (insula, cingulate, hippocampus).
        iron: Share of the signal that iron takes from the midst of the deep nuclei.
        behind: Logarithm of how much brighter than the cerebrum the surface of the cerebellum is; its stem half that.
        folia: Share of fluid in the fissures of the cerebellum, which are finer than a voxel.
        b_s_mm2: Diffusion weighting in s/mm2.
    """

    t2: tuple[float, ...]
    adc: tuple[float, ...]
    core_t2: float
    core_adc: float
    mottle: float
    cortex: float
    glow: float
    iron: float
    behind: float
    folia: float
    b_s_mm2: float


@dataclass(frozen=True, eq=False)
class Tissues:
    """What a scanner sees, each (D, H, W): signal `b0` without diffusion weighting, `adc` in 1e-6 mm2/s."""

    b0: Floats
    adc: Floats

    def weighted(self, b_s_mm2: float) -> Floats:
        """Signal (D, H, W) at a diffusion weighting.

        >>> white = Tissues(np.ones((1, 1, 1), np.float32), np.full((1, 1, 1), 700, np.float32))
        >>> round(float(white.weighted(1000).item()), 3)
        0.497
        """
        return np.asarray(self.b0 * np.exp(np.float32(-b_s_mm2 * 1e-6) * self.adc), np.float32)


@dataclass(frozen=True, eq=False)
class Flow:
    """Perfusion, each (D, H, W): `cbf` in ml/100 g/min, `cbv` in ml/100 g, `delay` of arrival (Tmax) in seconds."""

    cbf: Floats
    cbv: Floats
    delay: Floats


def draw_diffusion(rng: np.random.Generator, free_share: float = FREE_SHARE) -> DiffusionContrast:
    """Acute in two cases of three (low ADC), else subacute: ADC rising to normal again, and T2 mostly longer.

    Args:
        rng: What is drawn from.
        free_share: How often tissues and fluid have a T2 and an ADC of no known physics. Core and mimics differ from
            what was there by the same factors then.
    """
    late = rng.random() < 0.35
    t2 = np.array(T2) * np.exp(rng.normal(0, 0.06, len(Tissue)))
    adc = np.array(ADC) * np.exp(np.clip(rng.normal(0, 0.06, len(Tissue)), -0.1, 0.1))
    if rng.random() < free_share:
        t2, adc = (_draw_free(rng, *ranges) for ranges in (FREE_T2, FREE_ADC))
    return DiffusionContrast(
        t2=tuple(t2.tolist()),
        adc=tuple(adc.tolist()),
        core_t2=float(rng.uniform(1.2, 2.4) if late else rng.uniform(1.0, 2.1)),
        core_adc=float(rng.uniform(0.68, 0.95) if late else rng.uniform(0.46, 0.76)),
        mottle=float(rng.uniform(0.05, 0.22)),
        cortex=float(rng.uniform(0.04, 0.13)),
        glow=float(rng.uniform(0, 0.3)),
        iron=float(rng.uniform(0, 0.5)),
        behind=float(rng.normal(0.12, 0.12)),
        folia=float(rng.uniform(0.05, 0.4)),
        b_s_mm2=1000.0 if rng.random() < 0.85 else float(rng.uniform(800, 1200)),
    )


def _draw_free(rng: np.random.Generator, fluid: tuple[float, float], tissue: tuple[float, float]) -> Array:
    """A value for each `Tissue`, in no order; fluid in sulci and ventricles is alike."""
    values = rng.uniform(*tissue, len(Tissue))
    values[[Tissue.CSF, Tissue.VENTRICLE]] = rng.uniform(*fluid)
    values[Tissue.BACKGROUND] = 0
    return values


def paint_diffusion(
    rng: np.random.Generator, ground: Ground, core: Mask, mimics: Labels, contrast: DiffusionContrast
) -> Tissues:
    """T2 signal and ADC of a head with a core (D, H, W) and with old lesions (D, H, W)."""
    spacing, shape = ground.spacing_mm, shape_of(core)
    b0 = np.array(contrast.t2, np.float32)[ground.tissue]
    adc = np.array(contrast.adc, np.float32)[ground.tissue]
    old = mimics > 0
    vary, beneath = rng.normal(1, 0.08, (2, len(Mimic))), ground.tissue[old]
    for field, usual, factor in ((b0, T2, vary[0] * MIMIC_T2), (adc, ADC, vary[1] * MIMIC_ADC)):
        field[old] *= factor.astype(np.float32)[mimics[old]] / np.array(usual, np.float32)[beneath]
    b0 *= 1 + 0.6 * contrast.cortex * smooth_noise(rng, shape, spacing, 8.0)
    freer = 1.3 * contrast.cortex * smooth_noise(rng, shape, spacing, 3.0)
    b0 *= np.exp(np.float32(OFFSET * contrast.b_s_mm2 * 1e-6) * np.where(adc < FLUID, adc, 0) * freer)
    adc *= 1 + freer
    _vary_regions(rng, ground, b0, adc, contrast)
    _fold_hindbrain(rng, ground, b0, adc, contrast)
    mottle = contrast.mottle * smooth_noise(rng, shape, spacing, 4.0)[core]
    soft = np.clip(ndimage.gaussian_filter(core.astype(np.float32), [2 / s for s in spacing], truncate=2)[core], 0, 1)
    depth = np.minimum(0.65 + 0.6 * soft, 1)
    b0[core] *= np.maximum(1 + (contrast.core_t2 - 1) * depth * (1 + 4 * mottle) - mottle, 0.6)
    adc[core] *= np.clip(1 - (1 - contrast.core_adc) * depth + mottle, 0.25, 0.95)
    return Tissues(b0, adc)


def _vary_regions(
    rng: np.random.Generator, ground: Ground, b0: Floats, adc: Floats, contrast: DiffusionContrast
) -> None:
    """Healthy tissue that looks a little like an infarct: bright cortex, and nuclei of low ADC by their iron."""
    spacing, shape = ground.spacing_mm, shape_of(b0)
    grey, deep = ground.tissue == Tissue.GREY, ground.tissue == Tissue.DEEP_GREY
    bright = np.clip(smooth_noise(rng, shape, spacing, 9.0) - 0.4, 0, 2)
    b0[grey] *= 1 + contrast.glow * bright[grey]
    midst = np.clip(smooth_noise(rng, shape, spacing, 4.5), 0, 1.5)[deep]
    b0[deep] *= 1 - contrast.iron * np.minimum(midst, 1)
    adc[deep] *= 1 - 0.4 * contrast.iron * midst


def _fold_hindbrain(
    rng: np.random.Generator, ground: Ground, b0: Floats, adc: Floats, contrast: DiffusionContrast
) -> None:
    """A cerebellum that is brighter towards its surface, with fissures that bend around the brain stem."""
    stem = ground.tissue == Tissue.HINDBRAIN_WHITE
    behind = stem | (ground.tissue == Tissue.CEREBELLAR_GREY)
    if not stem.any():
        return
    points = ground.points[:, behind]
    away = np.linalg.norm(points - ground.points[:, stem].mean(axis=1, keepdims=True), axis=0)
    bent = away + 3 * smooth_noise(rng, shape_of(b0), ground.spacing_mm, 12.0)[behind]
    sheets = np.clip((np.cos(2 * np.pi * bent / rng.uniform(6, 10)) - 0.4) / 0.6, 0, 1)
    fluid = contrast.folia * sheets * np.clip(away / HINDBRAIN_MM - 0.4, 0, 0.6) / 0.6
    b0[behind] *= np.exp(contrast.behind * np.clip(0.5 + 0.5 * away / HINDBRAIN_MM, 0, 1.3))
    b, water = contrast.b_s_mm2 * 1e-6, contrast.t2[Tissue.CSF]
    weighted = (1 - fluid) * b0[behind] * np.exp(-b * adc[behind])
    weighted += fluid * water * np.exp(-b * contrast.adc[Tissue.CSF])
    b0[behind] += fluid * (water - b0[behind])
    adc[behind] = np.log(b0[behind] / weighted) / b


def measure_adc(b0: Floats, dwi: Floats, b_s_mm2: float) -> Floats:
    """ADC (D, H, W) in 1e-6 mm2/s from two images, never negative, at most 6000.

    >>> measure_adc(np.ones((1, 1, 1)), np.full((1, 1, 1), np.exp(-0.7)), 1000).round(3).item()
    700.0
    """
    ratio = np.maximum(b0, 1e-6) / np.maximum(dwi, 1e-6)
    return np.asarray(np.clip(np.log(ratio) * (1e6 / b_s_mm2), 0, 6000), np.float32)


def paint_flow(rng: np.random.Generator, ground: Ground, infarct: Infarct, free_share: float = FREE_SHARE) -> Flow:
    """Perfusion of a head: less flow and later arrival in the deficit, less volume in the core.

    In the penumbra vessels widen, so that blood volume holds or rises a little. Watersheds and the side of a narrowed
    artery are late without a deficit. In a share of the scans tissues have more or less blood in no known order.
    """
    spacing, shape = ground.spacing_mm, shape_of(infarct.core)
    tables = [np.array(table) * np.exp(rng.normal(0, 0.08, len(Tissue))) for table in (CBF, CBV)]
    if rng.random() < free_share:
        tables = [_draw_free(rng, (table[Tissue.VENTRICLE], table[Tissue.CSF]), span)
                  for table, span in zip(tables, (FREE_CBF, FREE_CBV), strict=True)]  # fmt: skip
    cbf, cbv = (table.astype(np.float32)[ground.tissue] for table in tables)
    uneven = np.exp(0.18 * smooth_noise(rng, shape, spacing, 6.0))
    _fill_vessels(rng, ground, cbf, cbv)
    s = infarct.severity * rng.uniform(0.35, 1)
    keep = 1 - rng.uniform(0.6, 0.85) * s
    widen = 1 + rng.uniform(0, 0.25) * s * (1 - s) * 4
    fuse_decoder = np.where(infarct.core, rng.uniform(0.35, 0.65), 1).astype(np.float32)
    cbf *= uneven * keep * np.where(infarct.core, np.minimum(fuse_decoder, 0.6), 1)
    cbv *= uneven * widen * fuse_decoder
    slow, rough = (np.exp(k * smooth_noise(rng, shape, spacing, mm)) for k, mm in ((0.4, 12.0), (0.35, 5.0)))
    delay = rng.uniform(0.6, 2.2) * slow * rough + _late_side(rng, ground) + s * rough * rng.uniform(4, 13)
    return Flow(cbf, cbv, np.asarray(delay, np.float32))


def _fill_vessels(rng: np.random.Generator, ground: Ground, cbf: Floats, cbv: Floats) -> None:
    """Arteries and veins where sheets of noise cross the sulci, and the sinus on the midline."""
    sheets = smooth_noise(rng, shape_of(cbf), ground.spacing_mm, 4.0)
    sinus = (np.abs(ground.points[2]) < 4) & ((ground.points[1] > 75) | (ground.points[0] > 68))
    vessels = (ground.tissue == Tissue.CSF) & ((np.abs(sheets) < 0.2) | sinus)
    cbf[vessels] = rng.uniform(90, 200)
    cbv[vessels] = rng.uniform(8, 20)


def _late_side(rng: np.random.Generator, ground: Ground) -> Floats:
    """Seconds (D, H, W) by which a narrowed carotid delays its side, in one case of five."""
    lag = rng.uniform(0.5, 3) * (rng.random() < 0.2)
    side = rng.choice((-1, 1))
    hemisphere = 1 / (1 + np.exp(-side * ground.points[2] / 4)) * (ground.points[1] < 50)
    return np.asarray(lag * hemisphere, np.float32)
