"""NIfTI-1, NIfTI-2 and MGH files, through nibabel. A NIfTI image may be a pair of files, .hdr and .img.

A file is read in bounded pieces, up to the size that its header declares. gzip compares its checksum at the end.
The content of a file decides whether it is decompressed, not its name.
"""

import gzip
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from brainsegnet._atomic import find_suffix
from brainsegnet._types import Array, NibabelImage
from brainsegnet.errors import ImageError
from brainsegnet.io.limits import check_ratio, check_voxels, read_rest
from brainsegnet.io.placement import Place, is_guess, place_mgh, place_nifti, swap_points, swap_world
from brainsegnet.volume import SCANNER, Volume

CheckKind = Callable[[Sequence[int], int, bool], None]
"""Refuses an image by its size (W, H, D, ...), the numbers in each voxel, and whether these are complex."""
_File = BinaryIO | gzip.GzipFile
_HEADER_BYTES, _HEADER_BYTES_2, _MGH_BYTES = 348, 540, 284
"""Of NIfTI-1, NIfTI-2 and MGH."""
_MGH_FIELDS = 90
"""Bytes of an MGH header that hold something."""
_MAGIC = {b"n+1": False, b"n+2": False, b"ni1": True, b"ni2": True}
"""Last bytes of a NIfTI header, to whether its voxels are in another file."""
_MGH = (".mgz", ".mgh")
PAIR = (".hdr.gz", ".hdr", ".img.gz", ".img")
"""Endings of the two files of one image."""
_PIECE = 1 << 20
"""Bytes that are inflated at once."""
_LEVELS = (6, 1)
"""Levels of gzip for whole numbers and for others, see `benchmarks/compression.py`."""
_VECTORS, _MATRICES = (1005, 1007), 1004
"""Intent codes of images with several numbers in a voxel, along the fifth axis."""
_KINDS = (
    ((b"DICM", 128), "DICOM; convert it with dcm2niix"),
    ((b"NRRD", 0), "NRRD; call it .nrrd"),
    ((b"ObjectType", 0), "MetaImage; call it .mha"),
    ((b"PK\x03\x04", 0), "a zip archive; unpack it"),
    ((b"version https://git-lfs", 0), "a pointer of Git LFS; fetch the file with: git lfs pull"),
    ((b"/annex/objects", 0), "a pointer of git-annex; fetch the file with: git annex get"),
    ((b"../.git/annex", 0), "a pointer of git-annex; fetch the file with: git annex get"),
    ((b"<!DOCTYPE", 0), "a web page; fetch it again"),
    ((b"<html", 0), "a web page; fetch it again"),
)
"""First bytes and their place in files that often carry the name of an image, to their format and the remedy."""


class _Header(NamedTuple):
    """The content of a header.

    Attributes:
        fields: The header of nibabel, in the byte order of the file.
        dtype: Type of the stored numbers.
        size: (W, H, D, ...) without trailing axes of one.
        parts: Numbers in each voxel.
        voxels: File that holds the voxels.
        offset: Bytes before the first voxel.
        total: Bytes before compression, up to the last voxel.
    """

    fields: NibabelImage
    dtype: np.dtype[Any]
    size: tuple[int, ...]
    parts: int
    voxels: Path
    offset: int
    total: int


def read_nifti(path: Path, check_kind: CheckKind) -> tuple[Array, Place]:
    """The voxels (..., D, H, W) of a NIfTI or MGH file, in the machine's order of bytes, and their place.

    Numbers keep their stored type; integers that the header rescales become float32. `check_kind` is called before any
    voxel is read.

    Raises:
        ImageError: the file is no such image, its header does not place it, or its axes are not perpendicular.
        EOFError: it is cut short.
        zlib.error: it is damaged.
        gzip.BadGzipFile: it is damaged.
        OSError: it cannot be opened or read.
    """
    header = _read_header(path)
    check_kind(header.size, header.parts, header.dtype.kind == "c")
    place = _check_header(header, path)
    check_ratio(header.voxels.stat().st_size, header.total)
    with _open(header.voxels) as file:
        _skip(file, header.offset)
        array = np.empty(header.size[::-1], header.dtype)
        buffer = array.reshape(-1).view(np.uint8).data
        for start in range(0, len(buffer), _PIECE):
            piece = buffer[start : start + _PIECE]
            piece[:] = _take(file, len(piece))
        read_rest(file, str(path))
    return _rescale(array, header.fields, path), place


def read_nifti_grid(path: Path, check_kind: CheckKind) -> tuple[Array, Place]:
    """Zeros (..., D, H, W) that take no memory, of the type of the stored numbers, and their place: the header alone.

    Errors are those of `read_nifti`.
    """
    header = _read_header(path)
    check_kind(header.size, header.parts, header.dtype.kind == "c")
    place = _check_header(header, path)
    return np.broadcast_to(np.zeros((), header.dtype.newbyteorder("=")), header.size[::-1]), place


def check_nifti(path: Path) -> None:
    """Check that a NIfTI or MGH file can be read and is as long as its header says, from its first and last bytes.

    A file may hold several images.

    Raises:
        ImageError: as `read_nifti`.
        EOFError: as `read_nifti`.
        zlib.error: as `read_nifti`.
        gzip.BadGzipFile: as `read_nifti`.
        OSError: as `read_nifti`.
    """
    header = _read_header(path)
    check_voxels(str(path), header.size)
    _check_header(header, path)
    with _open(header.voxels) as file:
        if not isinstance(file, gzip.GzipFile):
            if header.voxels.stat().st_size < header.total:
                raise EOFError
            return
        with header.voxels.open("rb") as packed:
            packed.seek(-4, 2)
            unpacked_size = int.from_bytes(packed.read(), "little")
        if unpacked_size != header.total % 2**32:  # or of several members, of which the last one says its own length
            check_ratio(header.voxels.stat().st_size, header.total)
            _skip(file, header.total)
            read_rest(file, str(path))


def write_nifti(volume: Volume, path: Path, *, compress: bool) -> None:
    """Write an image as NIfTI-1 with the forms that it was read with. The same image gives the same bytes.

    Raises:
        ImageError: an axis is too long for the format.
        OSError: the system refuses.
    """
    header = build_nibabel(volume).header
    header["scl_slope"], header["scl_inter"], header["vox_offset"] = 1, 0, _HEADER_BYTES + 4
    with path.open("wb") as plain:
        level = _LEVELS[volume.array.dtype.kind == "f"]
        with gzip.GzipFile("", "wb", level, plain, mtime=0) if compress else plain as file:
            file.write(header.binaryblock + bytes(4))
            file.write(volume.array.reshape(-1).view(np.uint8).data)


def build_nibabel(volume: Volume) -> NibabelImage:
    """Convert an image to one of nibabel (W, H, D), which shares its memory, with both forms and their codes.

    Raises:
        ImageError: an axis is too long for the format.
    """
    if max(volume.shape) > 32767:
        raise ImageError(f"NIfTI holds at most 32767 voxels along an axis, this image is {volume.shape}")
    ras, forms = swap_world(volume.affine), volume.forms
    if not (forms.qform or forms.sform or is_guess(ras, volume.shape[::-1])):
        forms = SCANNER
    image = _nibabel().Nifti1Image(volume.array.T, ras, dtype=volume.array.dtype)
    image.set_qform(ras if forms.to_qform is None else swap_points(forms.to_qform) @ ras, code="scanner")
    image.set_sform(ras, code="scanner")
    image.header["qform_code"], image.header["sform_code"] = forms.qform, forms.sform
    image.header.set_xyzt_units("mm", "sec")
    return image


def find_pair(path: Path) -> tuple[Path, Path]:
    """The files .hdr and .img of an image that is named by one of them. Each may be compressed.

    Raises:
        ImageError: one of them does not exist.
    """
    suffix = path.name[len(path.name) - len(find_suffix(path, PAIR)) :]
    stem, found = path.name.removesuffix(suffix), []
    for kind in ("hdr", "img"):
        word = kind.upper() if suffix[1:4].isupper() else kind
        beside = [path.with_name(f"{stem}.{word}{packed}") for packed in ("", ".gz")]
        mine = [path] if suffix[1:4].lower() == kind else []
        try:
            found.append(next(one for one in (*mine, *beside) if one.is_file()))
        except StopIteration:
            raise ImageError(f"{path} is one of two files, and {beside[0]} does not exist; fetch both") from None
    return found[0], found[1]


def damaged(path: Path) -> ImageError:
    """The error for a file that is incomplete or damaged."""
    return ImageError(f"{path} is cut short or damaged; fetch it again")


def misnamed(path: Path) -> ImageError:
    """The error for a file of another kind than its name says, or whose header is cut short or damaged."""
    with path.open("rb") as file:
        start = file.read(256)
    kinds = (kind for (word, place), kind in _KINDS if start[place:].lower().startswith(word.lower()))
    kind = next(kinds, "")
    if path.suffix and kind.endswith(f"call it {path.suffix.lower()}"):
        return damaged(path)
    return ImageError(f"{path} is no image: its content does not fit its suffix{f', it is {kind}' if kind else ''}")


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


def _read_header(path: Path) -> _Header:
    if find_suffix(path, _MGH):
        return _read_mgh(path)
    first, second = find_pair(path) if find_suffix(path, PAIR) else (path, None)
    with _open(first) as file:
        start = _take(file, 4)
        sizes = (_HEADER_BYTES, _HEADER_BYTES_2)
        known = {size.to_bytes(4, order): i for i, size in enumerate(sizes) for order in ("little", "big")}
        version = known.get(start)
        if version is None:
            raise misnamed(path)
        block = start + _take(file, sizes[version] - 4)
    fields = (_nibabel().Nifti1Header, _nibabel().Nifti2Header)[version](block, check=False)
    magic = bytes(fields["magic"].item())[:3]
    if second and magic not in _MAGIC:
        raise ImageError(f"{path} is ANALYZE 7.5, which does not say which side is left; convert it to NIfTI")
    ndim, datatype, start_of_voxels = int(fields["dim"][0]), int(fields["datatype"]), float(fields["vox_offset"])
    apart = _MAGIC.get(magic, False)
    sound = magic in _MAGIC and apart <= bool(second) and 1 <= ndim <= 7 and fields["dim"][1] > 0
    offset = int(start_of_voxels) if math.isfinite(start_of_voxels) else -1
    if not apart and offset == 0:
        offset = sizes[version] + 4
    if not sound or offset < (0 if apart else sizes[version]) or datatype not in _nibabel().nifti1.data_type_codes:
        raise ImageError(f"{path} cannot be read as an image: its NIfTI header is damaged")
    voxels = second if apart and second else first
    return _lay_out(path, fields, [max(int(n), 1) for n in fields["dim"][1 : 1 + ndim]], voxels, offset)


def _lay_out(path: Path, fields: NibabelImage, size: list[int], voxels: Path, offset: int) -> _Header:
    dtype = fields.get_data_dtype()
    total = offset + math.prod(size) * int(dtype.itemsize)
    parts, intent = len(dtype.names or "1"), int(fields["intent_code"])
    if intent == _MATRICES:
        raise ImageError(f"{path} cannot be read as an image: it holds matrices")
    if intent in _VECTORS and len(size) >= 5:
        parts *= size.pop(4)
    while len(size) > 3 and size[-1] == 1:
        size.pop()
    return _Header(fields, dtype, tuple(size), parts, voxels, offset, total)


def _read_mgh(path: Path) -> _Header:
    with _open(path) as file:
        block = _take(file, _MGH_BYTES)
    if block[:4] != (1).to_bytes(4, "big"):
        raise misnamed(path)
    fields = _nibabel().freesurfer.mghformat.MGHHeader(block[:_MGH_FIELDS], check=False)
    size = [int(n) for n in fields["dims"]]
    if min(size) < 1:
        raise ImageError(f"{path} cannot be read as an image: its MGH header is damaged")
    try:
        dtype = np.dtype(fields.get_data_dtype()).newbyteorder(">")
    except KeyError as error:
        raise _unsupported(path, int(fields["type"])) from error
    total = _MGH_BYTES + math.prod(size) * dtype.itemsize
    return _Header(fields, dtype, tuple(size if size[3] > 1 else size[:3]), 1, path, _MGH_BYTES, total)


def _check_header(header: _Header, path: Path) -> Place:
    """The place of an image, after a check that its type of numbers is supported."""
    if find_suffix(path, _MGH):
        return place_mgh(header.fields, _says_where(path), path)
    if header.dtype.kind not in "iuf" or header.dtype.itemsize > 8:
        raise _unsupported(path, int(header.fields["datatype"]))
    return place_nifti(header.fields, header.size, path)


def _unsupported(path: Path, code: int) -> ImageError:
    return ImageError(f"{path} cannot be read as an image: its type of numbers, code {code}, is not supported")


def _says_where(path: Path) -> bool:
    """Whether an MGH file says how it is placed. nibabel sets this flag itself if it is missing."""
    with _open(path) as file:
        return _take(file, 30)[28:30] != bytes(2)


@np.errstate(all="ignore")
def _rescale(array: Array, header: NibabelImage, path: Path) -> Array:
    """Values of the stored numbers, in the machine's order of bytes: integers become float32 if they are rescaled.

    A slope that is 0 or not finite counts as no slope, as in nibabel.
    """
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if "scl_slope" not in header.keys():
        return array
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope) or (slope, inter) == (1, 0):
        return array
    if not math.isfinite(inter):
        raise ImageError(f"{path} cannot be read as an image: its intercept (scl_inter) is {inter}; mend its header")
    values = array.astype(np.float32) if array.dtype.kind in "iu" else array
    for part in values.reshape(-1, values.shape[-1]):
        part[:] = part.astype(np.float64) * slope + inter
    return values
