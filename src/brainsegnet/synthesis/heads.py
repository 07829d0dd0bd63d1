"""Anatomies to grow lesions in: from FreeSurfer's label maps, from tissue probabilities, or from a seed.

Every one is a tissue map without skull: fluid counts where it lies between or closely around the brain.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainsegnet.errors import ImageError
from brainsegnet.synthesis.anatomy import Labels, Millimetres, Shape, Tissue, grow_anatomy, spacing_for
from brainsegnet.synthesis.phantom import affine_for
from brainsegnet.volume import Affine, Array, Box, Volume

Mask = NDArray[np.bool_]

FREESURFER: Mapping[Tissue, tuple[int, ...]] = {
    Tissue.WHITE: (2, 41, 25, 57, 77, 78, 79, 80, 85, 136, 137, 163, 164, *range(250, 256)),
    Tissue.GREY: (3, 42, 19, 20, 55, 56, *range(1000, 1036), *range(2000, 2036)),
    Tissue.VENTRICLE: (4, 5, 14, 15, 31, 43, 44, 63, 72),
    Tissue.DEEP_GREY: (9, 10, 11, 12, 13, 17, 18, 26, 27, 28, 48, 49, 50, 51, 52, 53, 54, 58, 59, 60),
    Tissue.CEREBELLAR_GREY: (8, 47),
    Tissue.HINDBRAIN_WHITE: (7, 16, 46),
    Tissue.CSF: (24, 30, 62),
}
"""Label values of FreeSurfer (`aseg`, `aparc+aseg`) of each tissue."""
SULCUS_MM = 4.0
"""Fluid belongs to the brain where a ball of this radius does not fit between it and solid tissue."""
LEAST_ML = 300.0


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A head as a tissue map on its grid, upright: slices from the feet to the head, rows to the back, columns left.

    Attributes:
        tissue: (D, H, W) uint8 of `Tissue`.
        spacing_mm: Along (D, H, W).
        affine: (4, 4), index to millimetres.
    """

    tissue: Labels
    spacing_mm: Millimetres
    affine: Affine


def from_seed(rng: np.random.Generator, shape: Shape) -> Anatomy:
    """A procedural head (D, H, W).

    Raises:
        ImageError: the shape is below `anatomy.SMALLEST_SHAPE`.
    """
    spacing_mm = spacing_for(shape)
    return Anatomy(grow_anatomy(rng, shape), spacing_mm, affine_for(shape, spacing_mm))


def from_freesurfer(labels: Volume, name: str = "the label map") -> Anatomy:
    """A head from a label map (D, H, W) with FreeSurfer's values; what is not in `FREESURFER` is not brain.

    Raises:
        ImageError: there is too little grey or white matter in it; the text names the map.
    """
    values = np.rint(labels.array).astype(np.int64)
    table = np.zeros(int(max(values.max(), 2035)) + 1, np.uint8)
    for kind, members in FREESURFER.items():
        table[list(members)] = kind
    tissue = table[np.maximum(values, 0)]
    for kind in (Tissue.GREY, Tissue.WHITE):
        volume_ml = np.count_nonzero(tissue == kind) * labels.voxel_ml
        if volume_ml < LEAST_ML / 3:
            raise ImageError(
                f"{name} holds {volume_ml:.0f} ml of {kind.name.lower()} matter; name a whole-brain segmentation with "
                "FreeSurfer's label values (2, 41 white; 3, 42 or 1001 to 2035 cortex)"
            )
    return _finish(tissue, labels.affine)


def from_probabilities(grey: Volume, white: Volume) -> Anatomy:
    """A head from the grey and white matter probabilities (0 to 1) of a template in MNI space, both upright.

    What is neither, within the brain, is fluid: that deep inside is the ventricles. Hindbrain and nuclei are told by
    their place in MNI coordinates, for the template's tissues do not tell them apart.
    """
    most = max(float(grey.array.max()), float(white.array.max()), 1e-6)
    pale, dark = (np.asarray(v.array, np.float32) / most for v in (white, grey))
    solid = pale + dark > 0.5
    tissue = np.select([solid & (pale > dark), solid], [Tissue.WHITE, Tissue.GREY], Tissue.BACKGROUND).astype(np.uint8)
    brain = ndimage.binary_fill_holes(_close(solid, grey.spacing_mm, 2 * SULCUS_MM))
    tissue[brain & ~solid] = Tissue.CSF
    depth = ndimage.distance_transform_edt(brain, grey.spacing_mm)
    left, back, up = _millimetres(grey)
    for new, old, where in _mni_places(np.abs(left), -back, up, depth):
        tissue[where & (tissue == old)] = new
    return _finish(tissue, grey.affine)


def _mni_places(right: Array, front: Array, up: Array, depth: Array) -> list[tuple[Tissue, Tissue, Array]]:
    """What a tissue becomes where, from coordinates in MNI space and the depth under the brain's surface, in mm."""
    nuclei = (depth > 24) & (right < 42) & (front > -38) & (front < 28) & (up > -22) & (up < 24)
    lateral = (right < 40) & (front > -62) & (front < 42) & (up > -22) & (up < 36) & (depth > 22)
    fourth = (right < 9) & (front > -50) & (front < -38) & (up > -46) & (up < -22)
    below = ((front < -32) & (up < -4 + 0.45 * (front + 45))) | (up < -48)
    stem = (right < 19) & (front < -8) & (front > -46) & (up < -14)
    return [
        (Tissue.DEEP_GREY, Tissue.GREY, nuclei),
        (Tissue.VENTRICLE, Tissue.CSF, lateral | fourth),
        (Tissue.CEREBELLAR_GREY, Tissue.GREY, below),
        (Tissue.HINDBRAIN_WHITE, Tissue.WHITE, below | stem),
    ]


def _finish(tissue: Labels, affine: Affine) -> Anatomy:
    """Fluid far from solid tissue taken away, stray islands too, and the map cut to the brain."""
    spacing_mm = tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    solid = (tissue != Tissue.BACKGROUND) & (tissue != Tissue.CSF)
    box = Box.around(solid)
    pad = [round(SULCUS_MM / s) + 2 for s in spacing_mm]
    start = [max(0, a - p) for a, p in zip(box.start, pad, strict=True)]
    cut = tuple(slice(a, b + p) for a, b, p in zip(start, box.stop, pad, strict=True))
    tissue, solid = tissue[cut].copy(), solid[cut]
    brain = ndimage.binary_fill_holes(_close(solid, spacing_mm, SULCUS_MM))
    tissue[~brain] = Tissue.BACKGROUND
    tissue[brain & (tissue == Tissue.BACKGROUND)] = Tissue.CSF
    shifted = affine.copy()
    shifted[:3, 3] += affine[:3, :3] @ start
    return Anatomy(tissue, spacing_mm, shifted)


def _close(mask: Mask, spacing_mm: Millimetres, radius_mm: float) -> Mask:
    """The mask (D, H, W) with gaps closed that are narrower than a ball, its largest part only.

    Distances are taken on every other voxel where voxels are small, which is eight times faster.
    """
    parts, count = ndimage.label(mask)
    largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]) if count else mask
    skip = 2 if max(spacing_mm) < 1.5 else 1
    rough = largest[::skip, ::skip, ::skip]
    step = [s * skip for s in spacing_mm]
    margin = [round(radius_mm / s) + 2 for s in step]
    padded = np.pad(rough, [(m, m) for m in margin])
    dilated = ndimage.distance_transform_edt(~padded, step) <= radius_mm
    closed = (ndimage.distance_transform_edt(dilated, step) > radius_mm)[tuple(slice(m, -m) for m in margin)]
    for axis, n in enumerate(mask.shape):
        closed = np.repeat(closed, skip, axis=axis).take(range(n), axis=axis)
    if skip > 1:
        closed = ndimage.uniform_filter(closed.astype(np.float32), 3) > 0.5
    return np.asarray(closed | largest, np.bool_)


def _millimetres(volume: Volume) -> tuple[Array, Array, Array]:
    """Coordinates x (left), y (back) and z (up) of an upright grid, each to be broadcast to (D, H, W)."""
    a = volume.affine
    index = np.ix_(*(np.arange(n) for n in volume.shape))
    x, y, z = (sum(a[row, axis] * index[axis] for axis in range(3)) + a[row, 3] for row in range(3))
    return x, y, z
