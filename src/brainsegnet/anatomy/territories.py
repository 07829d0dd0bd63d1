"""Standard coordinates and arterial territories of an anatomical label map.

Standard coordinates are millimetres (z up, y to the back, x to the left) from the anterior commissure: MNI space with
other signs. A voxel belongs to the artery whose stem is nearest in a distance weighted by calibre.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
from scipy import ndimage

from brainsegnet._types import Array, Floats, Labels, Mask, Millimetres
from brainsegnet.anatomy.procedural import Tissue, smooth_noise
from brainsegnet.volume import LabelMap

EXTENT_MM = ((-71.0, 104.0), (-69.0, 69.0))
"""The brain in standard coordinates: front and back (y), right and left (x)."""
TOP_MM = 78.0
"""Top of the brain (z)."""

ATLAS = (0, *(n for pair in (1, 5, 5, 2, 3, 4, 3, 2, 6, 6, 7, 7, 8, 9, 10) for n in (pair, pair)), 0, 0)
"""`Territory` of each value, left and right in turn, in the arterial atlas of Liu et al. (Scientific Data 2023)."""


class Territory(IntEnum):
    """The artery that supplies a voxel, on either side."""

    NONE = 0
    ANTERIOR_CEREBRAL = 1
    MIDDLE_FRONTAL = 2
    MIDDLE_PARIETAL = 3
    MIDDLE_TEMPORAL = 4
    LENTICULOSTRIATE = 5
    POSTERIOR_CEREBRAL = 6
    THALAMIC = 7
    BASILAR = 8
    SUPERIOR_CEREBELLAR = 9
    INFERIOR_CEREBELLAR = 10


MIDDLE = (Territory.MIDDLE_FRONTAL, Territory.MIDDLE_PARIETAL, Territory.MIDDLE_TEMPORAL, Territory.LENTICULOSTRIATE)
"""Territories of the middle cerebral artery."""

STEMS: Mapping[Territory, tuple[tuple[float, float, float, float], ...]] = {
    Territory.ANTERIOR_CEREBRAL: ((30, -45, 6, 1.0), (55, -10, 8, 1.0), (50, 40, 6, 0.8), (-8, -40, 8, 0.8)),
    Territory.MIDDLE_FRONTAL: ((20, -25, 45, 1.15), (-2, -30, 36, 0.8), (42, 2, 42, 1.05)),
    Territory.MIDDLE_PARIETAL: ((40, 40, 45, 1.1), (20, 70, 42, 0.75)),
    Territory.MIDDLE_TEMPORAL: ((-10, 15, 55, 1.0), (-25, -8, 40, 0.8), (0, 50, 52, 0.8)),
    Territory.LENTICULOSTRIATE: ((8, 0, 25, 0.75), (12, -12, 16, 0.6)),
    Territory.POSTERIOR_CEREBRAL: ((5, 78, 10, 1.0), (-15, 40, 26, 0.8), (-28, 20, 30, 0.5)),
    Territory.THALAMIC: ((6, 18, 10, 0.6), (2, 22, 28, 0.3)),
}
"""Stems of the left arteries: z, y, x in mm, and relative calibre."""


@dataclass(frozen=True, eq=False)
class Ground:
    """An anatomy in which strokes are simulated."""

    tissue: Array  # (D, H, W) of `Tissue`
    points: Floats  # standard coordinates z, y, x in mm, (3, D, H, W)
    territory: Array  # (D, H, W) of `Territory`
    spacing_mm: Millimetres  # along (D, H, W)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in ml."""
        return float(np.prod(self.spacing_mm)) / 1000


def make_ground(rng: np.random.Generator, anatomy: LabelMap, atlas: LabelMap | None = None) -> Ground:
    """Find coordinates and territories of an anatomical label map; noise moves the watersheds."""
    points = standard_points(anatomy)
    wide, fine = (smooth_noise(rng, anatomy.shape, anatomy.spacing_mm, mm) for mm in (15.0, 4.0))
    shift = np.stack([4 * wide + fine, 4 * np.roll(wide, wide.shape[1] // 3, 1) - fine, fine - 3 * wide])
    territory = find_territories(anatomy, points, shift, atlas)
    return Ground(anatomy.array, points, territory, anatomy.spacing_mm)


def standard_points(anatomy: LabelMap) -> Floats:
    """Standard coordinates z, y, x in mm, (3, D, H, W), of the voxels of an anatomical label map."""
    index = np.ix_(*(np.arange(n, dtype=np.float32) for n in anatomy.shape))
    points = np.empty((3, *anatomy.shape), np.float32)
    for axis, row in zip((2, 1, 0), anatomy.affine[:3], strict=True):
        points[axis] = sum(np.float32(step) * at for step, at in zip(row[:3], index, strict=True)) + row[3]
    cerebrum = np.isin(anatomy.array, (Tissue.GREY, Tissue.WHITE, Tissue.CSF))
    for axis, (low, high) in zip((1, 2), EXTENT_MM, strict=True):
        near, far = np.percentile(points[axis][cerebrum][::5], [0.3, 99.7])
        points[axis] = low + (points[axis] - near) * ((high - low) / max(far - near, 1))
        points[0] *= np.sqrt((high - low) / max(far - near, 1))
    points[0] += TOP_MM - np.percentile(points[0][cerebrum][::5], 99.9)
    return points


def sample_template(image: LabelMap, points: Floats, order: Literal[0, 1] = 0) -> Floats:
    """Values (N,) of an image in MNI space at standard coordinates (3, N)."""
    inverse = np.linalg.inv(image.affine)
    index = np.asarray(inverse[:3, :3] @ points[::-1] + inverse[:3, 3:], np.float64)
    field = np.asarray(image.array, np.float32)
    return np.asarray(ndimage.map_coordinates(field, index, order=order), np.float32)


def find_territories(anatomy: LabelMap, points: Floats, shift: Floats, atlas: LabelMap | None = None) -> Labels:
    """`Territory` (D, H, W) of each voxel of the brain.

    `points` are standard coordinates, and `shift` displaces the watersheds in mm, both (3, D, H, W). An atlas holds the
    values of `ATLAS` in MNI space; without one, distances from `STEMS` decide.
    """
    tissue, territory = anatomy.array, np.zeros(anatomy.shape, np.uint8)
    brain = tissue != Tissue.BACKGROUND
    here = points[:, brain] + shift[:, brain]
    if atlas is not None:
        lookup = np.resize(np.array(ATLAS, np.uint8), 256)
        territory[brain] = lookup[sample_template(atlas, here).astype(np.uint8)]
        return territory
    z, y, x = here[0], here[1], np.abs(here[2])
    best, nearest = np.zeros(z.shape, np.uint8), np.full(z.shape, np.inf, np.float32)
    for artery, (at_z, at_y, at_x, calibre) in ((t, stem) for t, stems in STEMS.items() for stem in stems):
        distance = ((z - at_z) ** 2 + (y - at_y) ** 2 + (x - at_x) ** 2) * np.float32(1 / calibre**2)
        closer = distance < nearest
        best[closer] = artery
        np.minimum(nearest, distance, out=nearest)
    territory[brain] = best
    below = np.isin(tissue, (Tissue.CEREBELLAR_GREY, Tissue.HINDBRAIN_WHITE))
    level = points[0] < -36 + 0.15 * (points[1] - 60)
    territory[below] = np.where(level[below], Territory.INFERIOR_CEREBELLAR, Territory.SUPERIOR_CEREBELLAR)
    stem = (tissue == Tissue.HINDBRAIN_WHITE) & (points[1] < 36) & (np.abs(points[2]) < 17)
    territory[stem] = Territory.BASILAR
    return territory


def same_artery(ground: Ground, voxel: tuple[int, int, int]) -> Mask:
    """Mask (D, H, W) of the territory of a voxel, on its own side; that of the basilar artery has no sides."""
    artery = ground.territory[voxel]
    side = (ground.points[2] > 0) == (ground.points[2][voxel] > 0)
    return np.asarray((ground.territory == artery) & (side | (artery == Territory.BASILAR)), np.bool_)


def brain_tissue(tissue: Array) -> Array:
    """Mask (D, H, W) of grey and white matter: where an infarct can be."""
    return np.asarray(np.isin(tissue, (Tissue.BACKGROUND, Tissue.CSF, Tissue.VENTRICLE), invert=True))
