"""NIfTI-1 files, through nibabel.

nibabel counts an index (w, h, d) and its world runs to the right, the front and the head (RAS). Here an index is
(d, h, w) and the world runs to the left, the back and the head (LPS), as in DICOM.

A file is read in bounded pieces, up to the size that its header declares. gzip compares its checksum at the end.
"""

import gzip
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from brainsegnet._types import Affine, Array, Doubles, NibabelImage
from brainsegnet.errors import ImageError
from brainsegnet.volume import is_sheared

CheckKind = Callable[[Sequence[int], int, bool], None]
"""Refuses an image by its size (W, H, D, ...), the numbers in each voxel, and whether these are complex."""
_File = BinaryIO | gzip.GzipFile
_HEADER_BYTES = 348
_PIECE = 1 << 20
"""Bytes that are inflated at once."""
_MAX_RATIO = 1032
"""Deflate makes data smaller by this factor at most."""
_UNITS_MM = {1: 1e3, 3: 1e-3}
"""Millimetres in a metre and a micrometre, by their codes; all other units are taken for millimetres."""
_VECTORS, _MATRICES = (1005, 1007), 1004
"""Intent codes of images with several numbers in a voxel, along the fifth axis."""
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


class _Header(NamedTuple):
    """What a NIfTI header says: `parts` numbers in each voxel, `total` bytes of the file before compression.

    The order of bytes in `fields` is that of the file. The `size` (W, H, D, ...) has no trailing axes of one.
    """

    fields: NibabelImage
    dtype: np.dtype[Any]
    size: tuple[int, ...]
    parts: int
    offset: int
    total: int


def read_nifti(path: Path, check_kind: CheckKind) -> tuple[Array, Affine]:
    """The voxels (..., D, H, W) of a .nii or .nii.gz, in the machine's order of bytes, and their affine.

    Numbers keep their stored type; integers that the header rescales become float32. `check_kind` is called before any
    voxel is read.

    Raises:
        ImageError: the file is no NIfTI-1 image, or its axes are not at right angles.
        EOFError, zlib.error, gzip.BadGzipFile: it is cut short or damaged.
        OSError: it cannot be opened or read.
    """
    with _open(path) as file:
        header = _read_header(file, path)
        affine = _build_affine(header.fields, path)
        check_kind(header.size, header.parts, header.dtype.kind == "c")
        if header.dtype.kind not in "iuf" or header.dtype.itemsize > 8:
            code = int(header.fields["datatype"])
            raise ImageError(f"{path} cannot be read as an image: its type of numbers, code {code}, is not supported")
        if _MAX_RATIO * path.stat().st_size < header.total:
            raise EOFError
        _skip(file, header.offset - _HEADER_BYTES)
        array = np.empty(header.size[::-1], header.dtype)
        buffer = array.reshape(-1).view(np.uint8).data
        for start in range(0, len(buffer), _PIECE):
            piece = buffer[start : start + _PIECE]
            piece[:] = _take(file, len(piece))
        _check_sum(file)
    return _rescale(array, header.fields), affine


def check_nifti(path: Path) -> None:
    """Check that a .nii or .nii.gz is as long as its header says, from its first and last bytes.

    Raises:
        ImageError: as `read_nifti`.
        EOFError: as `read_nifti`.
        zlib.error: as `read_nifti`.
        gzip.BadGzipFile: as `read_nifti`.
        OSError: as `read_nifti`.
    """
    with _open(path) as file:
        header = _read_header(file, path)
        if not isinstance(file, gzip.GzipFile):
            if path.stat().st_size < header.total:
                raise EOFError
            return
        with path.open("rb") as packed:
            packed.seek(-4, 2)
            unpacked_size = int.from_bytes(packed.read(), "little")
        if unpacked_size != header.total % 2**32:  # or of several members, of which the last one says its own length
            _skip(file, header.total - _HEADER_BYTES)
            _check_sum(file)


def write_nifti(array: Array, affine: Affine, path: Path, *, compress: bool) -> None:
    """Write an image (D, H, W) as NIfTI-1; the same image gives the same bytes.

    Raises:
        ImageError: an axis is too long for the format.
        OSError: the system refuses.
    """
    header = build_nibabel(array, affine).header
    header["scl_slope"], header["scl_inter"], header["vox_offset"] = 1, 0, _HEADER_BYTES + 4
    with path.open("wb") as plain:
        with gzip.GzipFile("", "wb", 6, plain, mtime=0) if compress else plain as file:
            file.write(header.binaryblock + bytes(4))
            file.write(array.reshape(-1).view(np.uint8).data)


def build_nibabel(array: Array, affine: Affine) -> NibabelImage:
    """An image (D, H, W) as one of nibabel (W, H, D), which shares its memory; both forms are set to its grid.

    Raises:
        ImageError: an axis is too long for the format.
    """
    if max(array.shape) > 32767:
        raise ImageError(f"NIfTI holds at most 32767 voxels along an axis, this image is {array.shape}")
    ras = swap_world(affine)
    image = _nibabel().Nifti1Image(array.T, ras, dtype=array.dtype)
    image.set_qform(ras, code="scanner")
    image.set_sform(ras, code="scanner")
    image.header.set_xyzt_units("mm", "sec")
    return image


def damaged(path: Path) -> ImageError:
    """The error for a file that is incomplete or damaged."""
    return ImageError(f"{path} is cut short or damaged; fetch it again")


def misnamed(path: Path) -> ImageError:
    """The error for a file of another kind than its name says."""
    return ImageError(f"{path} is no image: its content does not fit its suffix")


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


def _nibabel() -> NibabelImage:
    """nibabel, loaded with the first image."""
    import nibabel

    return nibabel


def _open(path: Path) -> _File:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def _take(file: _File, count: int) -> bytes:
    taken = file.read(count)
    if len(taken) < count:
        raise EOFError
    return taken


def _skip(file: _File, count: int) -> None:
    for start in range(0, count, _PIECE):
        _take(file, min(_PIECE, count - start))


def _check_sum(file: _File) -> None:
    """Read to the end, where gzip compares its checksum."""
    while file.read(_PIECE):
        pass


def _read_header(file: _File, path: Path) -> _Header:
    start = _take(file, 4)
    versions = {size.to_bytes(4, order): size for size in (_HEADER_BYTES, 540) for order in ("little", "big")}
    if start not in versions:
        raise misnamed(path)
    if versions[start] != _HEADER_BYTES:
        raise ImageError(f"{path} cannot be read as an image: it is NIfTI-2; save it as NIfTI-1")
    fields = _nibabel().Nifti1Header(start + _take(file, _HEADER_BYTES - 4), check=False)
    ndim, datatype, start_of_voxels = int(fields["dim"][0]), int(fields["datatype"]), float(fields["vox_offset"])
    sound = fields["magic"] == b"n+1" and 1 <= ndim <= 7 and fields["dim"][1] > 0 and math.isfinite(start_of_voxels)
    if not sound or datatype not in _nibabel().nifti1.data_type_codes:
        raise ImageError(f"{path} cannot be read as an image: its NIfTI header is damaged")
    dtype, offset = fields.get_data_dtype(), max(int(start_of_voxels), _HEADER_BYTES)
    size = [max(int(n), 1) for n in fields["dim"][1 : 1 + ndim]]
    total = offset + math.prod(size) * int(dtype.itemsize)
    parts = len(dtype.names or "1")
    if fields["intent_code"] == _MATRICES:
        raise ImageError(f"{path} cannot be read as an image: it holds matrices")
    if fields["intent_code"] in _VECTORS and ndim >= 5:
        parts *= size.pop(4)
    while len(size) > 3 and size[-1] == 1:
        size.pop()
    return _Header(fields, dtype, tuple(size), parts, offset, total)


def _rescale(array: Array, header: NibabelImage) -> Array:
    """Values of the stored numbers, in the machine's order of bytes: integers become float32 if they are rescaled."""
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    slope, inter = (float(header[key]) if np.isfinite(header[key]) else 0.0 for key in ("scl_slope", "scl_inter"))
    slope = slope or 1.0
    if slope == 1 and inter == 0:
        return array
    values = array.astype(np.float32) if array.dtype.kind in "iu" else array
    for part in values.reshape(-1, values.shape[-1]):
        part[:] = part.astype(np.float64) * slope + inter
    return values


def _build_affine(header: NibabelImage, path: Path) -> Affine:
    """The affine that ITK gives to a NIfTI file: spacings from `pixdim`, directions and origin from one of the forms.

    Without a form the axes run along x, y and z of LPS, from the origin.
    """
    pixdim = np.array(header["pixdim"], np.float64)
    spacing = np.where(np.isfinite(pixdim[1:4]) & (pixdim[1:4] != 0), pixdim[1:4], 1)
    form = _choose_form(header, spacing, path)
    columns = np.eye(3) if form is None else _RAS_TO_LPS[:3, :3] @ form[:3, :3]
    unit_mm = _UNITS_MM.get(int(header["xyzt_units"]) & 7, 1)
    affine = np.eye(4)
    affine[:3, :3] = (columns / np.sqrt((columns**2).sum(axis=0)) * (spacing * unit_mm))[:, ::-1]
    affine[:3, 3] = 0 if form is None else _RAS_TO_LPS[:3, :3] @ form[:3, 3] * unit_mm
    return affine


def _choose_form(header: NibabelImage, spacing: Doubles, path: Path) -> Affine | None:
    """The sform if its axes are at right angles and it is of the scanner (code 1), or alone; else the qform."""
    qform = _read_qform(header, spacing) if header["qform_code"] > 0 else None
    if header["sform_code"] <= 0 or (qform is not None and header["sform_code"] != 1):
        return qform
    sform = np.vstack([header["srow_x"], header["srow_y"], header["srow_z"], [0, 0, 0, 1]]).astype(np.float64)
    if not is_sheared(sform):
        return sform
    if qform is None:
        check_axes(sform, str(path))
    return qform


def _read_qform(header: NibabelImage, spacing: Doubles) -> Affine:
    """(4, 4) from the quaternion of the header, in floats as the reference implementation of NIfTI computes it."""
    named = [header[f"quatern_{axis}"] for axis in "bcd"], [header[f"qoffset_{axis}"] for axis in "xyz"]
    (b, c, d), offset = (np.where(np.isfinite(values), values, 0).astype(np.float64) for values in named)
    squares = b * b + c * c + d * d
    a = math.sqrt(1 - squares) if 1 - squares >= 1e-7 else 0.0
    if not a:
        b, c, d = np.array((b, c, d)) / math.sqrt(squares)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    steps = np.where(spacing > 0, spacing, 1) * (1, 1, -1 if header["pixdim"][0] < 0 else 1)
    form = np.eye(4)
    form[:3, :3], form[:3, 3] = (rotation * steps).astype(np.float32), offset
    return form
