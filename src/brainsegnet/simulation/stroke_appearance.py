"""Appearance of a stroke: signal and ADC of tissue in diffusion MRI, blood flow, volume and delay in perfusion MRI.

Diffusion: S = S0 exp(-b ADC). A scan averages S over each voxel and adds noise, and the ADC map is computed from the
noisy images, as on a scanner. So DWI and ADC agree in every voxel, and T2 shine-through follows. Perfusion follows the
central volume theorem, MTT = CBV / CBF; contrast agent arrives late in the deficit.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from brainsegnet._types import Array, Floats, Labels, Mask
from brainsegnet.anatomy.procedural import CEREBELLUM_MM, Tissue, smooth_noise
from brainsegnet.anatomy.territories import Ground
from brainsegnet.simulation.stroke import Infarct, Mimic

#        background csf  grey  white ventricle deep  cerebellar  hindbrain
T2 = (0.0, 2.6, 1.28, 1.00, 2.8, 1.12, 1.30, 1.10)
"""Signal without diffusion weighting by `Tissue`, relative to white matter."""
ADC = (0.0, 2850.0, 830.0, 745.0, 3100.0, 770.0, 790.0, 720.0)
"""Apparent diffusion coefficient by `Tissue`, in 1e-6 mm2/s."""
MIMIC_T2 = (0.0, 1.45, 1.7, 2.6, 2.0)
MIMIC_ADC = (0.0, 1000.0, 1250.0, 2500.0, 1050.0)
"""Signal and ADC of each `Mimic` in tissue with the values of `T2` and `ADC`; proportional in tissue with others."""
OFFSET = 0.7
"""Share of the signal lost in DWI by a higher ADC that a longer T2 restores: grey matter is hardly brighter."""
RANDOM_T2, RANDOM_ADC = ((0.3, 3.2), (0.6, 1.6)), ((1500.0, 3300.0), (550.0, 1150.0))
"""Ranges for fluid and for tissue in scans of random contrast, from which no order of tissues can be learnt."""
RANDOM_CBF, RANDOM_CBV = (15.0, 60.0), (1.5, 4.5)
"""The same for blood in tissue."""
RANDOM_SHARE = 0.08
"""Share of the scans with a random contrast."""
FLUID_ADC = 1300.0
"""From this ADC the signal is that of fluid, which has no texture."""
CBF = (0.0, 16.0, 55.0, 23.0, 5.0, 46.0, 50.0, 30.0)
"""Cerebral blood flow by `Tissue`, in ml per 100 g and minute."""
CBV = (0.0, 1.7, 4.0, 1.9, 0.5, 3.4, 3.9, 2.4)
"""Cerebral blood volume by `Tissue`, in ml per 100 g."""


@dataclass(frozen=True)
class DiffusionContrast:
    """Parameters of the contrast of a diffusion scan."""

    t2: tuple[float, ...]  # signal without diffusion weighting by `Tissue`
    adc: tuple[float, ...]  # ADC by `Tissue`, in 1e-6 mm2/s
    core_t2: float  # factor on the signal in the core; T2 rises over the first days
    core_adc: float  # factor on the ADC in the core
    mottle: float  # texture of the core
    texture: float  # texture of healthy tissue
    glow: float  # excess brightness of some of the cortex (insula, cingulate gyrus, hippocampus)
    iron: float  # share of the signal lost by iron in the middle of the deep nuclei
    hindbrain: float  # log brightness of the surface of the cerebellum over the cerebrum; half that in the stem
    folia: float  # share of fluid in the fissures of the cerebellum, which are thinner than a voxel
    b_s_mm2: float  # diffusion weighting in s/mm2


@dataclass(frozen=True, eq=False)
class Tissues:
    """Properties of tissue, each (D, H, W): signal `b0` without diffusion weighting, `adc` in 1e-6 mm2/s."""

    b0: Floats
    adc: Floats

    def weighted(self, b_s_mm2: float) -> Floats:
        """Signal (D, H, W) at a diffusion weighting."""
        return np.asarray(self.b0 * np.exp(np.float32(-b_s_mm2 * 1e-6) * self.adc), np.float32)


@dataclass(frozen=True, eq=False)
class Flow:
    """Perfusion, each (D, H, W): `cbf` in ml/100 g/min, `cbv` in ml/100 g, `delay` of arrival (Tmax) in seconds."""

    cbf: Floats
    cbv: Floats
    delay: Floats


def draw_diffusion(rng: np.random.Generator, random_share: float = RANDOM_SHARE) -> DiffusionContrast:
    """Draw the contrast of a scan: acute in two of three (low ADC), else subacute (ADC rising, T2 mostly longer).

    In a share of the scans T2 and ADC of tissue and fluid are random; core and mimics still differ by their factors.
    """
    late = rng.random() < 0.35
    t2 = np.array(T2) * np.exp(rng.normal(0, 0.06, len(Tissue)))
    adc = np.array(ADC) * np.exp(np.clip(rng.normal(0, 0.06, len(Tissue)), -0.1, 0.1))
    if rng.random() < random_share:
        t2, adc = (_draw_random(rng, *ranges) for ranges in (RANDOM_T2, RANDOM_ADC))
    return DiffusionContrast(
        t2=tuple(t2.tolist()),
        adc=tuple(adc.tolist()),
        core_t2=rng.uniform(1.2, 2.4) if late else rng.uniform(1.0, 2.1),
        core_adc=rng.uniform(0.68, 0.95) if late else rng.uniform(0.46, 0.76),
        mottle=rng.uniform(0.05, 0.22),
        texture=rng.uniform(0.04, 0.13),
        glow=rng.uniform(0, 0.3),
        iron=rng.uniform(0, 0.5),
        hindbrain=rng.normal(0.12, 0.12),
        folia=rng.uniform(0.05, 0.4),
        b_s_mm2=1000.0 if rng.random() < 0.85 else rng.uniform(800, 1200),
    )


def _draw_random(rng: np.random.Generator, fluid: tuple[float, float], tissue: tuple[float, float]) -> Array:
    """A random value for each `Tissue`; the fluid of sulci and ventricles has the same."""
    values = rng.uniform(*tissue, len(Tissue))
    values[[Tissue.CSF, Tissue.VENTRICLE]] = rng.uniform(*fluid)
    values[Tissue.BACKGROUND] = 0
    return values


def paint_diffusion(
    rng: np.random.Generator, ground: Ground, core: Mask, mimics: Labels, contrast: DiffusionContrast
) -> Tissues:
    """Signal and ADC of an anatomy with a core and with `mimics`, both (D, H, W).

    Healthy tissue resembles an infarct in places: bright cortex, and nuclei with a low ADC by their iron.
    """
    spacing, shape = ground.spacing_mm, core.shape
    b0 = np.array(contrast.t2, np.float32)[ground.tissue]
    adc = np.array(contrast.adc, np.float32)[ground.tissue]
    old = mimics > 0
    vary, beneath = rng.normal(1, 0.08, (2, len(Mimic))), ground.tissue[old]
    for field, usual, factor in ((b0, T2, vary[0] * MIMIC_T2), (adc, ADC, vary[1] * MIMIC_ADC)):
        field[old] *= factor.astype(np.float32)[mimics[old]] / np.array(usual, np.float32)[beneath]
    b0 *= 1 + 0.6 * contrast.texture * smooth_noise(rng, shape, spacing, 8.0)
    freer = 1.3 * contrast.texture * smooth_noise(rng, shape, spacing, 3.0)
    b0 *= np.exp(np.float32(OFFSET * contrast.b_s_mm2 * 1e-6) * np.where(adc < FLUID_ADC, adc, 0) * freer)
    adc *= 1 + freer
    grey, deep = ground.tissue == Tissue.GREY, ground.tissue == Tissue.DEEP_GREY
    bright = np.clip(smooth_noise(rng, shape, spacing, 9.0) - 0.4, 0, 2)
    b0[grey] *= 1 + contrast.glow * bright[grey]
    middle = np.clip(smooth_noise(rng, shape, spacing, 4.5), 0, 1.5)[deep]
    b0[deep] *= 1 - contrast.iron * np.minimum(middle, 1)
    adc[deep] *= 1 - 0.4 * contrast.iron * middle
    _fold_hindbrain(rng, ground, b0, adc, contrast)
    mottle = contrast.mottle * smooth_noise(rng, shape, spacing, 4.0)[core]
    soft = np.clip(ndimage.gaussian_filter(core.astype(np.float32), [2 / s for s in spacing], truncate=2)[core], 0, 1)
    depth = np.minimum(0.65 + 0.6 * soft, 1)
    b0[core] *= np.maximum(1 + (contrast.core_t2 - 1) * depth * (1 + 4 * mottle) - mottle, 0.6)
    adc[core] *= np.clip(1 - (1 - contrast.core_adc) * depth + mottle, 0.25, 0.95)
    return Tissues(b0, adc)


def _fold_hindbrain(
    rng: np.random.Generator, ground: Ground, b0: Floats, adc: Floats, contrast: DiffusionContrast
) -> None:
    """Make the cerebellum brighter towards its surface, with fissures of fluid around the brain stem."""
    stem = ground.tissue == Tissue.HINDBRAIN_WHITE
    hindbrain = stem | (ground.tissue == Tissue.CEREBELLAR_GREY)
    if not stem.any():
        return
    points = ground.points[:, hindbrain]
    away = np.linalg.norm(points - ground.points[:, stem].mean(axis=1, keepdims=True), axis=0)
    bent = away + 3 * smooth_noise(rng, b0.shape, ground.spacing_mm, 12.0)[hindbrain]
    sheets = np.clip((np.cos(2 * np.pi * bent / rng.uniform(6, 10)) - 0.4) / 0.6, 0, 1)
    fluid = contrast.folia * sheets * np.clip(away / CEREBELLUM_MM - 0.4, 0, 0.6) / 0.6
    b0[hindbrain] *= np.exp(contrast.hindbrain * np.clip(0.5 + 0.5 * away / CEREBELLUM_MM, 0, 1.3))
    b, water = contrast.b_s_mm2 * 1e-6, contrast.t2[Tissue.CSF]
    weighted = (1 - fluid) * b0[hindbrain] * np.exp(-b * adc[hindbrain])
    weighted += fluid * water * np.exp(-b * contrast.adc[Tissue.CSF])
    b0[hindbrain] += fluid * (water - b0[hindbrain])
    adc[hindbrain] = np.log(b0[hindbrain] / weighted) / b


def measure_adc(b0: Floats, dwi: Floats, b_s_mm2: float) -> Floats:
    """ADC (D, H, W) in 1e-6 mm2/s from two images, never negative, at most 6000."""
    ratio = np.maximum(b0, 1e-6) / np.maximum(dwi, 1e-6)
    return np.asarray(np.clip(np.log(ratio) * (1e6 / b_s_mm2), 0, 6000), np.float32)


def paint_flow(rng: np.random.Generator, ground: Ground, infarct: Infarct, random_share: float = RANDOM_SHARE) -> Flow:
    """Perfusion of an anatomy: less flow and later arrival in the deficit, less volume in the core.

    Vessels of the penumbra dilate, so its blood volume is normal or a little high. Blood arrives late in watersheds too
    and, in one case of five, on the side of a narrowed carotid. In a share of the scans blood in tissue is random.
    """
    spacing, shape = ground.spacing_mm, infarct.core.shape
    tables = [np.array(table) * np.exp(rng.normal(0, 0.08, len(Tissue))) for table in (CBF, CBV)]
    if rng.random() < random_share:
        spans = zip(tables, (RANDOM_CBF, RANDOM_CBV), strict=True)
        tables = [_draw_random(rng, (table[Tissue.VENTRICLE], table[Tissue.CSF]), span) for table, span in spans]
    cbf, cbv = (table.astype(np.float32)[ground.tissue] for table in tables)
    texture = np.exp(0.18 * smooth_noise(rng, shape, spacing, 6.0))
    sheets = smooth_noise(rng, shape, spacing, 4.0)  # vessels of the sulci are where it is near 0
    sinus = (np.abs(ground.points[2]) < 4) & ((ground.points[1] > 75) | (ground.points[0] > 68))
    vessels = (ground.tissue == Tissue.CSF) & ((np.abs(sheets) < 0.2) | sinus)
    cbf[vessels], cbv[vessels] = rng.uniform(90, 200), rng.uniform(8, 20)
    severity = infarct.severity * rng.uniform(0.35, 1)
    flow = 1 - rng.uniform(0.6, 0.85) * severity
    dilation = 1 + rng.uniform(0, 0.25) * severity * (1 - severity) * 4
    in_core = np.where(infarct.core, rng.uniform(0.35, 0.65), 1).astype(np.float32)
    cbf *= texture * flow * np.where(infarct.core, np.minimum(in_core, 0.6), 1)
    cbv *= texture * dilation * in_core
    slow, rough = (np.exp(k * smooth_noise(rng, shape, spacing, mm)) for k, mm in ((0.4, 12.0), (0.35, 5.0)))
    delay = rng.uniform(0.6, 2.2) * slow * rough
    lag, side = rng.uniform(0.5, 3) * (rng.random() < 0.2), rng.choice((-1, 1))
    hemisphere = 1 / (1 + np.exp(-side * ground.points[2] / 4)) * (ground.points[1] < 50)
    delay += np.asarray(lag * hemisphere, np.float32)
    return Flow(cbf, cbv, np.asarray(delay + severity * rough * rng.uniform(4, 13), np.float32))
