"""Anatomical label maps to simulate lesions in: from FreeSurfer, from the ICBM152 template, or procedural.

An anatomical label map is a `LabelMap` (D, H, W) of `Tissue` values, uint8, without skull. Cerebrospinal fluid counts
if it is within or closely around the brain. The map is upright: slices go up, rows to the back, columns to the left.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from scipy import ndimage

from brainsegnet._types import Affine, Labels, Mask, Millimetres, Shape
from brainsegnet.anatomy.procedural import FIELD_MM, Tissue, simulate_anatomy, spacing_for
from brainsegnet.errors import DatasetError, ImageError, MissingExtra, TaskError
from brainsegnet.preprocessing.geometry import find_turn, turn
from brainsegnet.volume import Box, LabelMap, Volume

FREESURFER: dict[Tissue, tuple[int, ...]] = {
    Tissue.WHITE: (2, 41, 25, 57, 77, 78, 79, 80, 85, 136, 137, 163, 164, *range(250, 256)),
    Tissue.GREY: (3, 42, 19, 20, 55, 56, *range(1000, 1036), *range(2000, 2036)),
    Tissue.VENTRICLE: (4, 5, 14, 15, 31, 43, 44, 63, 72),
    Tissue.DEEP_GREY: (9, 10, 11, 12, 13, 17, 18, 26, 27, 28, 48, 49, 50, 51, 52, 53, 54, 58, 59, 60),
    Tissue.CEREBELLAR_GREY: (8, 47),
    Tissue.HINDBRAIN_WHITE: (7, 16, 46),
    Tissue.CSF: (24, 30, 62),
}
"""Label values of FreeSurfer (`aseg`, `aparc+aseg`) for each tissue."""
SULCUS_MM = 4.0
"""Fluid belongs to the brain where a ball of this radius does not fit between it and solid tissue."""
LEAST_ML = 100.0
"""A whole brain has at least as much grey and as much white matter."""
PROCEDURAL = "procedural"
TEMPLATE = "icbm152"
PACKED = ".npz"


def open_anatomies(which: str | Path, shape: Shape | None = None) -> Callable[[int], LabelMap]:
    """Open a source of anatomical label maps: a function from the number of a case to its map.

    Args:
        which: `icbm152`, `procedural`, a folder of FreeSurfer label maps, or a file that benchmarks/pack.py made of
            one. The maps of a folder or file are used in turn.
        shape: Voxels (D, H, W) of a procedural anatomy; by default voxels of 1 mm.

    Raises:
        TaskError: a shape is given for maps that keep their grid.
        DatasetError: the folder is missing or holds no image.
        MissingExtra: nilearn is not installed.
        ImageError: the shape is too coarse; or later, a file is not a whole-brain segmentation.
    """
    if shape is not None and which != PROCEDURAL:
        raise TaskError(f"the anatomy {which} keeps its grid; leave the shape out, or take the anatomy {PROCEDURAL}")
    if which == PROCEDURAL:
        shape = shape or FIELD_MM
        spacing_for(shape)
        return lambda number: simulate_anatomy(np.random.default_rng([number, 152]), shape)
    if which == TEMPLATE or Path(which).suffix == PACKED:
        anatomies = [_read_template()] if which == TEMPLATE else _unpack(Path(which))
        return lambda number: anatomies[number % len(anatomies)]
    files = find_label_maps(Path(which))
    read = lru_cache(maxsize=64)(read_label_map)
    return lambda number: read(files[number % len(files)])


def default_anatomy() -> str:
    """The default source: `icbm152` if nilearn, which carries the template, is installed, else `procedural`."""
    return PROCEDURAL if find_spec("nilearn") is None else TEMPLATE


def _unpack(path: Path) -> list[LabelMap]:
    """The maps that benchmarks/pack.py wrote."""
    try:
        with np.load(path, allow_pickle=False) as entries:
            count = max(1, len(entries.files) // 2)
            return [LabelMap(entries[f"tissue{i}"], entries[f"affine{i}"]) for i in range(count)]
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise DatasetError(f"{path} holds no packed anatomies; write it with benchmarks/pack.py --anatomies") from error


def find_label_maps(folder: Path) -> list[Path]:
    """The images of a folder, sorted by name."""
    from brainsegnet.io.images import READERS

    files = sorted(p for p in folder.iterdir() if p.name.lower().endswith(READERS)) if folder.is_dir() else []
    if not files:
        raise DatasetError(
            f"{folder} holds no label maps; name a folder of FreeSurfer segmentations ({', '.join(READERS)}), "
            f"or choose {TEMPLATE} or {PROCEDURAL}"
        )
    return files


def read_label_map(path: Path) -> LabelMap:
    """Read an anatomical label map from an image with FreeSurfer's values."""
    return from_freesurfer(_read_upright(path), str(path))


def _read_template() -> LabelMap:
    """The ICBM152 template from the probabilities that nilearn carries; nilearn itself is not imported."""
    spec = find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra('the ICBM152 template comes with nilearn; run: pip install "brainsegnet[synthesis]"')
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    files = (folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz" for kind in ("gm", "wm"))
    return from_probabilities(*map(_read_upright, files))


def _read_upright(path: Path) -> Volume:
    from brainsegnet.io.images import read_image

    volume = read_image(path)
    return turn(volume, find_turn(volume.affine))


def from_freesurfer(labels: Volume, name: str = "the label map") -> LabelMap:
    """An anatomical label map from FreeSurfer's values (D, H, W). Values that `FREESURFER` lacks are not brain.

    Raises:
        ImageError: there is too little grey or white matter.
    """
    values = np.rint(labels.array).astype(np.int64)
    table = np.zeros(int(max(values.max(), 2035)) + 1, np.uint8)
    for kind, members in FREESURFER.items():
        table[list(members)] = kind
    tissue = table[np.maximum(values, 0)]
    for kind in (Tissue.GREY, Tissue.WHITE):
        volume_ml = np.count_nonzero(tissue == kind) * labels.voxel_ml
        if volume_ml < LEAST_ML:
            raise ImageError(
                f"{name} holds {volume_ml:.0f} ml of {kind.name.lower()} matter; name a whole-brain segmentation with "
                "FreeSurfer's label values (2, 41 white; 3, 42 or 1001 to 2035 cortex)"
            )
    return _crop_to_brain(tissue, labels.affine)


def from_probabilities(grey: Volume, white: Volume) -> LabelMap:
    """An anatomical label map from upright probabilities (D, H, W), 0 to 1, of grey and white matter in MNI space.

    The rest of the brain is fluid, and ventricles where it lies deep. The two tissues do not separate the hindbrain and
    the deep nuclei; MNI coordinates do.
    """
    most = max(float(grey.array.max()), float(white.array.max()), 1e-6)
    of_white, of_grey = (np.asarray(v.array, np.float32) / most for v in (white, grey))
    solid = of_white + of_grey > 0.5
    kinds = np.select([solid & (of_white > of_grey), solid], [Tissue.WHITE, Tissue.GREY], Tissue.BACKGROUND)
    tissue = kinds.astype(np.uint8)
    brain = ndimage.binary_fill_holes(_close(solid, grey.spacing_mm, 2 * SULCUS_MM))
    tissue[brain & ~solid] = Tissue.CSF
    depth = ndimage.distance_transform_edt(brain, grey.spacing_mm)
    index = np.ogrid[tuple(slice(n) for n in grey.shape)]
    left, back, up = (sum(row[axis] * index[axis] for axis in range(3)) + row[3] for row in grey.affine[:3])
    right, front = np.abs(left), -back
    nuclei = (depth > 24) & (right < 42) & (front > -38) & (front < 28) & (up > -22) & (up < 24)
    lateral = (right < 40) & (front > -62) & (front < 42) & (up > -22) & (up < 36) & (depth > 22)
    fourth = (right < 9) & (front > -50) & (front < -38) & (up > -46) & (up < -22)
    below = ((front < -32) & (up < -4 + 0.45 * (front + 45))) | (up < -48)
    stem = (right < 19) & (front < -8) & (front > -46) & (up < -14)
    for new, old, where in (
        (Tissue.DEEP_GREY, Tissue.GREY, nuclei),
        (Tissue.VENTRICLE, Tissue.CSF, lateral | fourth),
        (Tissue.CEREBELLAR_GREY, Tissue.GREY, below),
        (Tissue.HINDBRAIN_WHITE, Tissue.WHITE, below | stem),
    ):
        tissue[where & (tissue == old)] = new
    return _crop_to_brain(tissue, grey.affine)


def _crop_to_brain(tissue: Labels, affine: Affine) -> LabelMap:
    """Remove fluid far from solid tissue and stray components, and crop to the brain."""
    spacing_mm = Volume(tissue, affine).spacing_mm
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
    return LabelMap(tissue, shifted)


def _close(mask: Mask, spacing_mm: Millimetres, radius_mm: float) -> Mask:
    """The largest component of a mask (D, H, W), with gaps closed that are narrower than a ball."""
    parts, count = ndimage.label(mask)
    largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]) if count else mask
    skip = 2 if max(spacing_mm) < 1.5 else 1  # every other voxel is eight times faster
    coarse = largest[::skip, ::skip, ::skip]
    step = [s * skip for s in spacing_mm]
    margin = [round(radius_mm / s) + 2 for s in step]
    padded = np.pad(coarse, [(m, m) for m in margin])
    dilated = ndimage.distance_transform_edt(~padded, step) <= radius_mm
    closed = (ndimage.distance_transform_edt(dilated, step) > radius_mm)[tuple(slice(m, -m) for m in margin)]
    for axis, n in enumerate(mask.shape):
        closed = np.repeat(closed, skip, axis=axis).take(range(n), axis=axis)
    if skip > 1:
        closed = ndimage.uniform_filter(closed.astype(np.float32), 3) > 0.5
    return np.asarray(closed | largest, np.bool_)
