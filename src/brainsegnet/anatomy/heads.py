"""Label maps of whole heads, to simulate raw scans in: tissues from the skin to the brain, and what counts as brain.

A map is an upright `LabelMap` (D, H, W) of `HeadTissue` values. Brain means white and grey matter, ventricles,
cerebellum and brain stem, and the fluid and vessels of sulci: what a closing of that tissue by `CLOSING_MM` adds. Large
venous sinuses at the surface, the dura and the fluid around the brain do not belong to it. The stem ends where
the label map calls it cord, at the foramen magnum.
"""

from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from scipy import ndimage

from brainsegnet._atomic import replacing
from brainsegnet._types import Array, Floats, Labels, Mask, Millimetres
from brainsegnet.anatomy.label_maps import FREESURFER
from brainsegnet.anatomy.procedural import Tissue, smooth_noise
from brainsegnet.errors import DatasetError, ImageError
from brainsegnet.preprocessing.geometry import find_turn, turn
from brainsegnet.volume import Box, LabelMap, Volume

CLOSING_MM = 6.0
"""Sulci narrower than twice this belong to the brain."""
SINUS_MM = 2.0
"""Veins that hold a ball of this radius are sinuses."""
SINUS_DEPTH_MM = 10.0
"""Sinuses nearer to the surface than this do not belong to the brain."""
SHELLS_MM = (2.0, 4.0, 7.0, 11.0)
"""Depths below the skin at which the layers of soft tissue end; noise moves them by `SHELL_NOISE_MM`."""
SHELL_NOISE_MM = 2.5
DEEP_LEVELS = (-0.7, 0.0, 0.7)
"""Levels of noise that divide the soft tissue below these layers."""
LEAST_ML = 500.0
"""A whole head holds at least as much brain."""


class HeadTissue(IntEnum):
    """Values of a label map of a whole head; `SOFT` and the seven after it are fat or muscle.

    Four layers lie below the skin, the outermost first; four values mix in the depth.
    """

    AIR = 0
    WHITE = 1
    GREY = 2
    VENTRICLE = 3
    DEEP_GREY = 4
    CEREBELLAR_GREY = 5
    HINDBRAIN_WHITE = 6
    SULCUS = 7
    SULCAL_VESSEL = 8
    FLUID = 9
    DURA = 10
    VEIN = 11
    ARTERY = 12
    EYE = 13
    ORBIT = 14
    MUCOSA = 15
    SKIN = 16
    CORD = 17
    BONE = 18
    MARROW = 19
    SOFT = 20


SOFT_KINDS = len(SHELLS_MM) + len(DEEP_LEVELS) + 1
KINDS = int(HeadTissue.SOFT) + SOFT_KINDS
"""Number of values of a map."""
BRAIN = tuple(range(HeadTissue.WHITE, HeadTissue.SULCAL_VESSEL + 1))
"""Values that belong to the brain."""
_IS_BRAIN = np.isin(np.arange(KINDS), BRAIN)
SOLID = {
    HeadTissue.WHITE: Tissue.WHITE,
    HeadTissue.GREY: Tissue.GREY,
    HeadTissue.VENTRICLE: Tissue.VENTRICLE,
    HeadTissue.DEEP_GREY: Tissue.DEEP_GREY,
    HeadTissue.CEREBELLAR_GREY: Tissue.CEREBELLAR_GREY,
    HeadTissue.HINDBRAIN_WHITE: Tissue.HINDBRAIN_WHITE,
}
OUTER = {
    HeadTissue.FLUID: (24,),
    HeadTissue.VEIN: (514,),
    HeadTissue.ARTERY: (502,),
    HeadTissue.EYE: (506,),
    HeadTissue.ORBIT: (508, 530),
    HeadTissue.MUCOSA: (509,),
    HeadTissue.SKIN: (511,),
    HeadTissue.CORD: (512,),
    HeadTissue.BONE: (515,),
    HeadTissue.MARROW: (516,),
    HeadTissue.SOFT: (507,),
}
"""Values of the label maps of SynthSeg outside the brain."""
FILLED = (0, 24, 514, 530)
"""Values that belong to the brain where the closing holds them."""
MAX_LABEL = 2035


def read_head(path: Path) -> LabelMap:
    """A label map of a whole head from an image with the values of SynthSeg's training maps.

    Raises:
        ImageError: the image cannot be read, or holds no whole head.
    """
    from brainsegnet.io.images import read_image

    volume = read_image(path)
    return from_synthseg(turn(volume, find_turn(volume.affine)), str(path))


def from_synthseg(labels: Volume, name: str = "the label map") -> LabelMap:
    """A label map of a whole head, cropped to it, from an upright image (D, H, W) of SynthSeg's values.

    The noise between fat and muscle has a fixed seed, so the same image gives the same map.

    Raises:
        ImageError: it holds less than `LEAST_ML` of brain, or no skin.
    """
    values = np.clip(np.rint(labels.array), 0, MAX_LABEL).astype(np.int16)
    tissue = _look_up(values)
    solid = (tissue >= HeadTissue.WHITE) & (tissue <= HeadTissue.HINDBRAIN_WHITE)
    brain_ml = np.count_nonzero(solid) * labels.voxel_ml
    if brain_ml < LEAST_ML or not (tissue == HeadTissue.SKIN).any():
        raise ImageError(
            f"{name} holds {brain_ml:.0f} ml of brain and is no label map of a whole head; name a folder of SynthSeg's "
            "training label maps (FreeSurfer's values, and 502 to 530 outside the brain)"
        )
    box = Box.around(ndimage.binary_opening(tissue > 0))
    tissue, values, solid = tissue[box.slices].copy(), values[box.slices], solid[box.slices]
    brain = find_brain(values, solid, labels.spacing_mm)
    tissue[brain & ~solid] = HeadTissue.SULCUS
    tissue[brain & (values == 514)] = HeadTissue.SULCAL_VESSEL
    rigid = (tissue == HeadTissue.BONE) | (tissue == HeadTissue.MARROW) | (tissue >= HeadTissue.SOFT)
    tissue[(tissue == HeadTissue.FLUID) & ndimage.binary_dilation(rigid)] = HeadTissue.DURA
    _split_soft(tissue, labels.spacing_mm)
    affine = labels.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array(box.start)
    return LabelMap(tissue, affine)


def _look_up(values: Array) -> Labels:
    table = np.zeros(MAX_LABEL + 1, np.uint8)
    for kind, tissue in SOLID.items():
        table[[v for v in FREESURFER[tissue] if v < 500 or v >= 1000]] = kind
    for kind, members in OUTER.items():
        table[list(members)] = kind
    return np.asarray(table[values])


def find_brain(values: Array, solid: Mask, spacing_mm: Millimetres) -> Mask:
    """The brain (D, H, W) from SynthSeg's values and the mask of solid tissue with ventricles.

    The tissue is closed by a ball of `CLOSING_MM`, within `FILLED`; holes are filled, and sinuses at the surface left
    out.
    """
    box = Box.around(solid)
    pad = [int(2 * SINUS_DEPTH_MM / s) + 2 for s in spacing_mm]
    wide = Box(
        tuple(max(0, a - p) for a, p in zip(box.start, pad, strict=True)),  # type: ignore[arg-type]
        tuple(min(n, b + p) for b, p, n in zip(box.stop, pad, solid.shape, strict=True)),
    )
    inner, tissue = values[wide.slices], solid[wide.slices]
    closed = close(tissue, CLOSING_MM, spacing_mm) & np.isin(inner, FILLED) | tissue
    parts, _ = ndimage.label(closed)
    closed = ndimage.binary_fill_holes(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))
    veins = inner == 514
    shallow = ndimage.distance_transform_edt(close(tissue, 2 * CLOSING_MM, spacing_mm), spacing_mm) < SINUS_DEPTH_MM
    core = ndimage.distance_transform_edt(veins, spacing_mm) > SINUS_MM
    sinus = veins & shallow & (ndimage.distance_transform_edt(~core, spacing_mm) <= SINUS_MM)
    brain = np.zeros(solid.shape, np.bool_)
    brain[wide.slices] = (closed & ~sinus) | tissue
    return brain


def close(mask: Mask, radius_mm: float, spacing_mm: Millimetres) -> Mask:
    """The closing of a mask (D, H, W) by a ball; beyond the array nothing is assumed to belong to it."""
    margin = [int(radius_mm / s) + 2 for s in spacing_mm]
    padded = np.pad(mask, [(m, m) for m in margin])
    dilated = ndimage.distance_transform_edt(~padded, spacing_mm) <= radius_mm
    closed = ndimage.distance_transform_edt(dilated, spacing_mm) > radius_mm
    return np.asarray(closed[tuple(slice(m, -m) for m in margin)] | mask, np.bool_)


def _split_soft(tissue: Labels, spacing_mm: Millimetres) -> None:
    """Divide soft tissue into layers below the skin and, deeper, into the levels of a noise, in place."""
    air, _ = ndimage.label(np.pad(tissue == HeadTissue.AIR, 1, constant_values=True))
    outside = (air == air[0, 0, 0])[1:-1, 1:-1, 1:-1] | (tissue == HeadTissue.SKIN)
    depth = ndimage.distance_transform_edt(~outside, spacing_mm)
    rng = np.random.default_rng(507)
    fine, coarse = (smooth_noise(rng, tissue.shape, spacing_mm, blur_mm) for blur_mm in (5.0, 4.0))
    layer = np.digitize(depth + SHELL_NOISE_MM * fine, SHELLS_MM)
    mixed = len(SHELLS_MM) + np.digitize(coarse, DEEP_LEVELS)
    kind = np.where(layer < len(SHELLS_MM), layer, mixed)
    soft = tissue == HeadTissue.SOFT
    tissue[soft] = HeadTissue.SOFT + kind[soft]


def brain_mask(head: LabelMap) -> Mask:
    """The brain (D, H, W) of a label map of a whole head."""
    return np.asarray(_IS_BRAIN[head.array])


def brain_centre(head: LabelMap) -> Floats:
    """Voxel (D, H, W) in the middle of the box of the brain."""
    box = Box.around(brain_mask(head))
    return np.asarray((np.array(box.start) + np.array(box.stop) - 1) / 2, np.float32)


def write_heads(heads: Sequence[LabelMap], path: Path) -> None:
    """Write label maps of whole heads as one compressed file of NumPy's.

    Raises:
        OutputError: the file cannot be written.
    """
    arrays = {f"tissue{i}": head.array for i, head in enumerate(heads)}
    affines = {f"affine{i}": head.affine for i, head in enumerate(heads)}
    with replacing(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays, **affines)


def load_heads(path: Path) -> list[LabelMap]:
    """The label maps that `write_heads` wrote.

    Raises:
        DatasetError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as entries:
            return [LabelMap(entries[f"tissue{i}"], entries[f"affine{i}"]) for i in range(len(entries.files) // 2)]
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        remedy = "write it with tools/release/brain.py"
        raise DatasetError(f"{path} holds no label maps of whole heads; {remedy}") from error
