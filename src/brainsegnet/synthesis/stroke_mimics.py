"""What a head with a stroke also has and is no infarct of today: white-matter disease, old infarcts."""

from enum import IntEnum

import numpy as np
from scipy import ndimage

from brainsegnet.synthesis.anatomy import Labels, Tissue
from brainsegnet.synthesis.stroke import foremost
from brainsegnet.synthesis.territories import Ground, brain_tissue, same_artery
from brainsegnet.synthesis.tumour import Mask, shape_of, smooth_noise


class Mimic(IntEnum):
    """Values of a map of old lesions: all of high ADC, some bright in DWI by their long T2."""

    NONE = 0
    HYPERINTENSITY = 1
    GLIOSIS = 2
    CAVITY = 3
    SHINE_THROUGH = 4


def grow_mimics(rng: np.random.Generator, ground: Ground, core: Mask) -> Labels:
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
