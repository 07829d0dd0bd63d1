"""Where a voxel lies in a standard head, and which artery feeds it.

Standard coordinates are millimetres (z up, y to the back, x to the left) from the anterior commissure, as in MNI space
but for the signs. A head is laid into them by the extent of its brain, so that any anatomy serves. An artery feeds what
is nearest to its stem in a distance weighted by its calibre; noise moves the watersheds from head to head.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
from scipy import ndimage

from brainsegnet._types import Array, Floats, Labels, Mask, Millimetres
from brainsegnet.anatomy.procedural import Tissue, smooth_noise
from brainsegnet.volume import LabelMap

EXTENT_MM = ((-71.0, 104.0), (-69.0, 69.0))
"""From front to back and from right to left of the brain in standard coordinates (y, x)."""
TOP_MM = 78.0
"""Its top (z)."""

ATLAS = (0, *(n for pair in (1, 5, 5, 2, 3, 4, 3, 2, 6, 6, 7, 7, 8, 9, 10) for n in (pair, pair)), 0, 0)
"""`Territory` of each value of the arterial atlas of Liu et al. (Scientific Data 2023), left and right in turn."""


class Territory(IntEnum):
    """Which artery feeds a voxel, on either side."""

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
"""What the middle cerebral artery feeds."""

STEMS: tuple[tuple[Territory, float, float, float, float], ...] = (
    (Territory.ANTERIOR_CEREBRAL, 30, -45, 6, 1.0),
    (Territory.ANTERIOR_CEREBRAL, 55, -10, 8, 1.0),
    (Territory.ANTERIOR_CEREBRAL, 50, 40, 6, 0.8),
    (Territory.ANTERIOR_CEREBRAL, -8, -40, 8, 0.8),
    (Territory.MIDDLE_FRONTAL, 20, -25, 45, 1.15),
    (Territory.MIDDLE_FRONTAL, -2, -30, 36, 0.8),
    (Territory.MIDDLE_FRONTAL, 42, 2, 42, 1.05),
    (Territory.MIDDLE_PARIETAL, 40, 40, 45, 1.1),
    (Territory.MIDDLE_PARIETAL, 20, 70, 42, 0.75),
    (Territory.MIDDLE_TEMPORAL, -10, 15, 55, 1.0),
    (Territory.MIDDLE_TEMPORAL, -25, -8, 40, 0.8),
    (Territory.MIDDLE_TEMPORAL, 0, 50, 52, 0.8),
    (Territory.LENTICULOSTRIATE, 8, 0, 25, 0.75),
    (Territory.LENTICULOSTRIATE, 12, -12, 16, 0.6),
    (Territory.POSTERIOR_CEREBRAL, 5, 78, 10, 1.0),
    (Territory.POSTERIOR_CEREBRAL, -15, 40, 26, 0.8),
    (Territory.POSTERIOR_CEREBRAL, -28, 20, 30, 0.5),
    (Territory.THALAMIC, 6, 18, 10, 0.6),
    (Territory.THALAMIC, 2, 22, 28, 0.3),
)
"""Stems of arteries on the left: z, y, x in millimetres, and calibre."""


@dataclass(frozen=True, eq=False)
class Ground:
    """Where a stroke grows: tissue (D, H, W), standard coordinates (3, D, H, W), arteries (D, H, W), spacing."""

    tissue: Array
    points: Floats
    territory: Array
    spacing_mm: Millimetres

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000


def make_ground(rng: np.random.Generator, head: LabelMap, atlas: LabelMap | None = None) -> Ground:
    """A tissue map with its standard coordinates and its arteries, the watersheds moved at random."""
    points = standard_points(head)
    wide, fine = (smooth_noise(rng, head.shape, head.spacing_mm, mm) for mm in (15.0, 4.0))
    sway = np.stack([4 * wide + fine, 4 * np.roll(wide, wide.shape[1] // 3, 1) - fine, fine - 3 * wide])
    return Ground(head.array, points, find_territories(head, points, sway, atlas), head.spacing_mm)


def standard_points(head: LabelMap) -> Floats:
    """Standard coordinates (3, D, H, W) of the voxels of a tissue map: z, y, x in millimetres."""
    turned = np.ix_(*(np.arange(n, dtype=np.float32) for n in head.shape))
    points = np.empty((3, *head.shape), np.float32)
    for axis, row in zip((2, 1, 0), head.affine[:3], strict=True):
        points[axis] = sum(np.float32(step) * index for step, index in zip(row[:3], turned, strict=True)) + row[3]
    cerebrum = np.isin(head.array, (Tissue.GREY, Tissue.WHITE, Tissue.CSF))
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
    if order == 0:
        return np.asarray(ndimage.map_coordinates(field, index, order=0), np.float32)
    return np.asarray(ndimage.map_coordinates(field, index, order=1), np.float32)


def find_territories(head: LabelMap, points: Floats, sway: Floats, atlas: LabelMap | None = None) -> Labels:
    """`Territory` (D, H, W) of each voxel of the brain.

    Args:
        head: Tissue map.
        points: Its standard coordinates (3, D, H, W).
        sway: Displacement (3, D, H, W) of the watersheds in millimetres.
        atlas: Territories in MNI space with the values of `ATLAS`; weighted distances from `STEMS` if None.
    """
    brain = head.array != Tissue.BACKGROUND
    here = points[:, brain] + sway[:, brain]
    territory = np.zeros(head.shape, np.uint8)
    if atlas is None:
        territory[brain] = _nearest_stem(here)
        _lay_hindbrain(territory, head.array, points)
    else:
        lookup = np.resize(np.array(ATLAS, np.uint8), 256)
        territory[brain] = lookup[sample_template(atlas, here).astype(np.uint8)]
    return territory


def _nearest_stem(points: Floats) -> Labels:
    z, y, x = points[0], points[1], np.abs(points[2])
    best, nearest = np.zeros(z.shape, np.uint8), np.full(z.shape, np.inf, np.float32)
    for territory, at_z, at_y, at_x, calibre in STEMS:
        distance = ((z - at_z) ** 2 + (y - at_y) ** 2 + (x - at_x) ** 2) * np.float32(1 / calibre**2)
        closer = distance < nearest
        best[closer] = territory
        np.minimum(nearest, distance, out=nearest)
    return best


def _lay_hindbrain(territory: Labels, tissue: Array, points: Floats) -> None:
    """Write the arteries of cerebellum and brain stem into `territory` (D, H, W)."""
    stem = (tissue == Tissue.HINDBRAIN_WHITE) & (points[1] < 36) & (np.abs(points[2]) < 17)
    below = np.isin(tissue, (Tissue.CEREBELLAR_GREY, Tissue.HINDBRAIN_WHITE))
    level = points[0] < -36 + 0.15 * (points[1] - 60)
    territory[below] = np.where(level[below], Territory.INFERIOR_CEREBELLAR, Territory.SUPERIOR_CEREBELLAR)
    territory[stem] = Territory.BASILAR


def same_artery(ground: Ground, voxel: tuple[int, int, int]) -> Mask:
    """Voxels (D, H, W) that the artery of a voxel feeds: on its side, but for the brain stem's."""
    artery = ground.territory[voxel]
    side = (ground.points[2] > 0) == (ground.points[2][voxel] > 0)
    return np.asarray((ground.territory == artery) & (side | (artery == Territory.BASILAR)), np.bool_)


def brain_tissue(tissue: Array) -> Array:
    """Voxels (D, H, W) of grey and white matter: where an infarct can be.

    >>> brain_tissue(np.array([[[0, 1, 2, 3, 4, 5, 6, 7]]])).astype(int).tolist()
    [[[0, 0, 1, 1, 0, 1, 1, 1]]]
    """
    return np.asarray(np.isin(tissue, (Tissue.BACKGROUND, Tissue.CSF, Tissue.VENTRICLE), invert=True))
