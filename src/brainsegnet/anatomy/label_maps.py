"""Anatomies to grow lesions in: from FreeSurfer's label maps, from tissue probabilities, or from a seed.

Every one is a tissue map without skull: fluid counts where it lies between or closely around the brain.

Heads for realistic cases: from a folder of label maps, from the ICBM152 template in nilearn, or from a seed.

What reads images is imported where one is read: heads from a seed, or packed in one file, need no such library.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
from scipy import ndimage

from brainsegnet._atomic import replacing
from brainsegnet._types import Affine, Array, Labels, Mask, Millimetres, Shape
from brainsegnet.anatomy.procedural import FIELD_MM, Tissue, affine_for, simulate_anatomy, spacing_for
from brainsegnet.errors import DatasetError, ImageError, MissingExtra, TaskError
from brainsegnet.preprocessing.geometry import find_turn, turn
from brainsegnet.volume import Box, Volume

if TYPE_CHECKING:
    pass


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
    return Anatomy(simulate_anatomy(rng, shape), spacing_mm, affine_for(shape, spacing_mm))


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
    """Fluid far from solid tissue taken away, stray components too, and the map cut to the brain."""
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


PROCEDURAL = "procedural"
TEMPLATE = "icbm152"
PACKED = ".npz"
ONE_MILLIMETRE: Shape = (int(FIELD_MM[0]), int(FIELD_MM[1]), int(FIELD_MM[2]))
"""Voxels (D, H, W) of a procedural head at 1 mm."""


def open_anatomies(which: str | Path, shape: Shape | None = None) -> Callable[[int], Anatomy]:
    """A function from a case's number to its anatomy.

    Args:
        which: `icbm152`, `procedural`, or a folder of label maps with FreeSurfer's values, taken in turn; or a file
            that `pack_anatomies` made of one.
        shape: Voxels (D, H, W) of a procedural head, by default of 1 mm; the others keep their own grid.

    Raises:
        TaskError: a shape for heads that keep their own.
        DatasetError: no folder of that name, or no image in it.
        MissingExtra: nilearn is not installed.
        ImageError: the shape is too coarse; later, for a file that is no whole-brain segmentation.
    """
    if shape is not None and which != PROCEDURAL:
        raise TaskError(f"heads of {which} keep their own grid; leave the shape out, or take the anatomy {PROCEDURAL}")
    if which == PROCEDURAL:
        shape = shape or ONE_MILLIMETRE
        spacing_for(shape)
        return lambda number: from_seed(np.random.default_rng([number, 152]), shape)
    if which == TEMPLATE:
        template = _read_template()
        return lambda _: template
    if Path(which).suffix == PACKED:
        heads = _unpack(Path(which))
        return lambda number: heads[number % len(heads)]
    files = _label_maps(Path(which))
    read = lru_cache(maxsize=64)(_read_labels)
    return lambda number: read(files[number % len(files)])


def pack_anatomies(folder: Path, path: Path) -> int:
    """Put the heads of a folder of label maps into one file (.npz), for a machine without a library for images.

    Returns:
        Their number.

    Raises:
        DatasetError, ImageError: as `open_anatomies`.
        OutputError: the file cannot be written.
    """
    heads = [_read_labels(file) for file in _label_maps(folder)]
    entries = {f"{kind}{i}": getattr(head, kind) for i, head in enumerate(heads) for kind in ("tissue", "affine")}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **entries)
    return len(heads)


def _unpack(path: Path) -> list[Anatomy]:
    """What `pack_anatomies` wrote."""
    try:
        with np.load(path, allow_pickle=False) as entries:
            count = max(1, len(entries.files) // 2)
            pairs = [(entries[f"tissue{i}"], entries[f"affine{i}"]) for i in range(count)]
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise DatasetError(f"{path} holds no packed heads; write it with benchmarks/pack.py --heads") from error
    return [Anatomy(tissue, Volume(tissue, affine).spacing_mm, affine) for tissue, affine in pairs]


def default_anatomy() -> str:
    """`icbm152` where nilearn is installed, which carries it, else `procedural`."""
    return PROCEDURAL if find_spec("nilearn") is None else TEMPLATE


def _label_maps(folder: Path) -> list[Path]:
    """The images of a folder, by name."""
    from brainsegnet.io.images import READERS

    files = sorted(p for p in folder.iterdir() if p.name.lower().endswith(READERS)) if folder.is_dir() else []
    if not files:
        raise DatasetError(
            f"{folder} holds no label maps; name a folder of FreeSurfer segmentations ({', '.join(READERS)}), "
            f"or choose {TEMPLATE} or {PROCEDURAL}"
        )
    return files


def _read_labels(path: Path) -> Anatomy:
    return from_freesurfer(_upright(path), str(path))


def _read_template() -> Anatomy:
    """The template's probabilities, without an import of nilearn."""
    spec = find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra('the ICBM152 template comes with nilearn; run: pip install "brainsegnet[synthesis]"')
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    grey, white = (_upright(folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz") for kind in ("gm", "wm"))
    return from_probabilities(grey, white)


def _upright(path: Path) -> Volume:
    from brainsegnet.io.images import read_image

    volume = read_image(path)
    return turn(volume, find_turn(volume.affine))
