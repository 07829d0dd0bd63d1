"""Where a header places the voxels of an image, by the rule of nibabel, FSL and SPM, with warnings.

A NIfTI header has two forms, each with a code. The sform is used if its code is above 0. Otherwise the qform is used
if its code is above 0. With neither, the axes run to the left, the front and the head, as in ANALYZE. The origin is
then the centre of the image.

nibabel counts an index (w, h, d) and its world runs to the right, the front and the head (RAS). Here an index is
(d, h, w) and the world runs to the left, the back and the head (LPS), as in DICOM.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brainsegnet._types import Affine, Doubles, NibabelImage
from brainsegnet.errors import ImageError
from brainsegnet.volume import GRID_TOLERANCE_MM, SCANNER, Forms, is_sheared

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_UNITS_MM = {1: 1e3, 3: 1e-3}
"""Millimetres in a metre and a micrometre, by their codes; all other units are taken for millimetres."""
_LAST_CODE, _FAR_MM = 5, 1e9
SIZE_TOLERANCE = 0.01
"""Share by which two statements of a voxel size may differ without a warning."""


class Place(NamedTuple):
    """Where an image is placed.

    Attributes:
        affine: (4, 4) from (d, h, w, 1) to LPS, in millimetres.
        forms: The sform and qform of the file.
        warnings: Sentences on what is unusual about the header.
    """

    affine: Affine
    forms: Forms = SCANNER
    warnings: tuple[str, ...] = ()


@np.errstate(all="ignore")
def place_nifti(header: NibabelImage, size: Sequence[int], path: Path) -> Place:
    """The place that a NIfTI header gives to an image of `size` (W, H, D, ...).

    Raises:
        ImageError: the axes are not perpendicular, or the form in use holds NaN or gives the voxels no volume.
    """
    unit_mm = _UNITS_MM.get(int(header["xyzt_units"]) & 7, 1)
    size = [*size[:3], 1, 1][:3]
    spacing, warnings = _read_spacing(header, unit_mm)
    qform = _read_qform(header, spacing, unit_mm) if header["qform_code"] > 0 else None
    sform = _read_sform(header, unit_mm) if header["sform_code"] > 0 else None
    forms = Forms(*_read_codes(header))
    for name, form, other in (("sform", sform, qform), ("qform", qform, sform)):
        if form is not None and not _is_sound(form):
            if other is None or not _is_sound(other):
                raise ImageError(f"{path} cannot be placed: its {name} holds NaN or no volume; mend its header")
            warnings.append(f"its {name} holds NaN or no volume, so its other form places it")
            qform, sform = (None, sform) if name == "qform" else (qform, None)
    if sform is None and qform is None:
        warnings.append(
            "its header has neither an sform nor a qform, so its axes are taken to run to the left, the front and the "
            "head; check left and right"
        )
        return Place(swap_world(_guess(size, spacing)), forms, tuple(warnings))
    if sform is None:
        return Place(swap_world(np.asarray(qform)), forms, tuple(warnings))
    gap_mm = 0.0 if qform is None else _measure_gap(sform, qform, size)
    if qform is not None and is_sheared(sform) and gap_mm <= GRID_TOLERANCE_MM:
        return Place(swap_world(qform), forms, tuple(warnings))
    check_axes(sform, str(path))
    if qform is not None and gap_mm > GRID_TOLERANCE_MM:
        warnings.append(
            f"its sform and qform place it {gap_mm:.3g} mm apart; the sform is used, as in nibabel, FSL and SPM"
        )
        forms = Forms(forms.qform, forms.sform, swap_points(qform @ np.linalg.inv(sform)))
    elif (said := _compare_sizes(sform, spacing)) and not warnings:
        warnings.append(said)
    return Place(swap_world(sform), forms, tuple(warnings))


@np.errstate(all="ignore")
def read_forms(header: NibabelImage, affine: Affine) -> Forms:
    """The forms of an image of nibabel in memory, whose affine (4, 4) to RAS is used."""
    codes = _read_codes(header)
    if not all(codes):
        return Forms(*codes)
    unit_mm = _UNITS_MM.get(int(header["xyzt_units"]) & 7, 1)
    qform = _read_qform(header, _read_spacing(header, unit_mm)[0], unit_mm)
    apart = _is_sound(qform) and _measure_gap(affine, qform, [*header["dim"][1:4]]) > GRID_TOLERANCE_MM
    return Forms(*codes, swap_points(qform @ np.linalg.inv(affine)) if apart else None)


def is_guess(ras: Affine, size: Sequence[int]) -> bool:
    """Whether an affine (4, 4) to RAS is the one of an image of `size` (W, H, D) that has neither form."""
    spacing = np.linalg.norm(ras[:3, :3], axis=0)
    return bool(np.allclose(ras, _guess(size, spacing), atol=GRID_TOLERANCE_MM / 100))


@np.errstate(all="ignore")
def place_mgh(header: NibabelImage, good: bool, path: Path) -> Place:
    """The place that an MGH header of FreeSurfer gives to an image.

    Args:
        header: The header of nibabel.
        good: Whether the header says how the image is placed.
        path: The file, for messages.

    Raises:
        ImageError: the axes are not perpendicular, or the header holds NaN or gives the voxels no volume.
    """
    affine = np.asarray(header.get_affine(), np.float64)
    if not _is_sound(affine):
        raise ImageError(f"{path} cannot be placed: its header holds NaN or no volume; mend its header")
    check_axes(affine, str(path))
    guess = "its header does not say how it is placed, so it is taken for coronal slices of 1 mm; check left and right"
    return Place(swap_world(affine), SCANNER, () if good else (guess,))


def check_axes(affine: Affine, name: str) -> None:
    """Check that a grid is not sheared.

    Raises:
        ImageError: its axes are not perpendicular.
    """
    if is_sheared(affine):
        raise ImageError(
            f"{name} has axes that are not at right angles (a sheared affine); resample it to a regular grid"
        )


def swap_world(affine: Affine) -> Affine:
    """An affine from (d, h, w, 1) to LPS as one from (w, h, d, 1) to RAS, and the other way round."""
    return np.asarray(_RAS_TO_LPS @ affine[:, [2, 1, 0, 3]])


def swap_points(motion: Affine) -> Affine:
    """A motion (4, 4) of points of RAS as the same motion of points of LPS, and the other way round."""
    return np.asarray(_RAS_TO_LPS @ motion @ _RAS_TO_LPS)


def _is_sound(form: Affine) -> bool:
    """Whether all numbers are finite and below `_FAR_MM`, and the voxels have a volume."""
    return bool((np.abs(form) < _FAR_MM).all() and abs(np.linalg.det(form[:3, :3])) > 0)


def _measure_gap(one: Affine, other: Affine, size: Sequence[int]) -> float:
    """The largest distance between corresponding corners of an image of `size` (W, H, D), in millimetres."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in size], [1], indexing="ij")).reshape(4, -1)
    return float(np.linalg.norm(((one - other) @ corners)[:3], axis=0).max())


def _guess(size: Sequence[int], spacing: Doubles) -> Affine:
    """The affine to RAS that nibabel gives to an image without a form."""
    steps = spacing * (-1, 1, 1)
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = -steps * (np.array(size) - 1) / 2
    return affine


def _compare_sizes(sform: Affine, spacing: Doubles) -> str:
    """A sentence if the voxel sizes of `pixdim` differ from those of the sform; otherwise empty."""
    sizes = np.linalg.norm(sform[:3, :3], axis=0)
    if (np.abs(sizes - spacing) <= SIZE_TOLERANCE * spacing).all():
        return ""
    pixdim, used = (" x ".join(f"{mm:.3g}" for mm in values) for values in (spacing, sizes))
    return f"its voxels measure {pixdim} mm by pixdim, but {used} mm by the sform, which is used"


def _read_spacing(header: NibabelImage, unit_mm: float) -> tuple[Doubles, list[str]]:
    """Voxel size (W, H, D) by `pixdim` in millimetres, 1 if unknown; and a warning if an unknown size is used."""
    pixdim = np.abs(np.array(header["pixdim"][1:4], np.float64))
    known = np.isfinite(pixdim) & (pixdim > 0)
    axes = max(min(int(header["dim"][0]), 3), 1)
    unknown = not known[:axes].all() and header["sform_code"] <= 0
    said = ["its header gives no voxel size (pixdim) along an axis, so 1 mm is assumed"] if unknown else []
    return np.where(known, pixdim, 1) * unit_mm, said


def _read_codes(header: NibabelImage) -> tuple[int, int]:
    """The codes of qform and sform. A code that NIfTI does not define becomes the code of the scanner."""
    given = (int(header[f"{form}_code"]) for form in ("qform", "sform"))
    qform, sform = (1 if code > _LAST_CODE else max(code, 0) for code in given)
    return qform, sform


def _read_sform(header: NibabelImage, unit_mm: float) -> Affine:
    rows = [np.array(header[f"srow_{axis}"], np.float64) * unit_mm for axis in "xyz"]
    return np.vstack([*rows, [0, 0, 0, 1]])


def _read_qform(header: NibabelImage, spacing: Doubles, unit_mm: float) -> Affine:
    """(4, 4) from the quaternion of the header, as the reference implementation of NIfTI computes it."""
    b, c, d = (float(header[f"quatern_{axis}"]) for axis in "bcd")
    squares = b * b + c * c + d * d
    a = math.sqrt(1 - squares) if 1 - squares >= 1e-7 else 0.0
    if not a:
        b, c, d = (part / math.sqrt(squares) for part in (b, c, d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    form = np.eye(4)
    form[:3, :3] = rotation * spacing * (1, 1, -1 if header["pixdim"][0] < 0 else 1)
    form[:3, 3] = [float(header[f"qoffset_{axis}"]) * unit_mm for axis in "xyz"]
    return form
