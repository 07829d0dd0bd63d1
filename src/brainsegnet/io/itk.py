"""MetaImage and NRRD files, through SimpleITK.

ITK fills what a cut or damaged MetaImage lacks with zeros and says nothing. So the checksum in the file is compared
with the decoded voxels, which are decompressed a second time only if the two differ. Its reader of NRRD is strict.
"""

import math
import re
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brainsegnet._atomic import final_name, is_unicode
from brainsegnet._types import Affine, Array, ItkObject
from brainsegnet.errors import ImageError
from brainsegnet.io.limits import check_ratio
from brainsegnet.io.nifti import CheckKind, damaged, misnamed
from brainsegnet.io.placement import Place
from brainsegnet.volume import build_itk, load_itk

_NRRD = ".nrrd"
_MOST_FIELDS = 1000
_NRRD_HEADER = 1 << 16
"""Bytes of a NRRD file that are searched for a field."""
_META_BYTES = {"MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_FLOAT": 4, "MET_DOUBLE": 8}


class MetaBlock(NamedTuple):
    """Where the voxels of a MetaImage are: file, first byte, number of bytes, and whether they are a zlib stream."""

    path: Path
    start: int
    size: int
    compressed: bool


class NrrdHeader(NamedTuple):
    """Whether a file begins as NRRD, whether its header ends in it, and whether the header names other files."""

    known: bool
    whole: bool
    elsewhere: bool


def read_itk(path: Path, check_kind: CheckKind) -> tuple[Array, Place]:
    """The voxels (..., D, H, W) of a .mha, .mhd or .nrrd and their place; `check_kind` is called before they are read.

    Raises:
        ImageError: the file is no such image, cut short or damaged.
        OSError: it cannot be opened or read.
    """
    reader = _open(path)
    try:
        reader.ReadImageInformation()
        numbers = load_itk().GetPixelIDValueAsString(reader.GetPixelIDValue())
        check_kind(reader.GetSize(), reader.GetNumberOfComponents(), "complex" in numbers)
        if (packed := _count_packed(path)) is not None:
            check_ratio(packed, math.prod(reader.GetSize()) * int(numbers.partition("-bit")[0].split()[-1]) // 8)
        array, affine = unpack_itk(reader.Execute())
    except RuntimeError as error:
        raise _explain(error, path) from error
    _check_sum(path, array)
    return array, Place(affine)


def read_itk_grid(path: Path, check_kind: CheckKind) -> tuple[Array, Place]:
    """Zeros (..., D, H, W) that take no memory, and their place: the header alone. Errors are those of `read_itk`."""
    reader = _open(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _explain(error, path) from error
    numbers = load_itk().GetPixelIDValueAsString(reader.GetPixelIDValue())
    check_kind(reader.GetSize(), reader.GetNumberOfComponents(), "complex" in numbers)
    return np.broadcast_to(np.float32(0), reader.GetSize()[::-1]), Place(find_affine(reader))


def _open(path: Path) -> ItkObject:
    """A reader of the file, after a check of its start and its length."""
    check_itk(path)
    load_itk().ProcessObject.SetGlobalWarningDisplay(False)
    reader = load_itk().ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if path.suffix.lower() == _NRRD else "MetaImageIO")
    reader.SetFileName(str(path))
    return reader


def _count_packed(path: Path) -> int | None:
    """Bytes of the file that holds the voxels; None if the header names other files. ITK fills missing voxels."""
    if path.suffix.lower() != _NRRD:
        return block.path.stat().st_size if (block := find_meta_block(path)) else None
    return None if _read_nrrd_header(path).elsewhere else path.stat().st_size


def check_itk(path: Path) -> None:
    """Refuse a file that does not begin as its suffix promises, or is shorter than its header.

    A MetaImage is also refused if it is shorter than its header says.

    Raises:
        ImageError: either of these.
        OSError: the file, or the one that holds its voxels, cannot be opened or read.
    """
    _check_name(path)
    if path.suffix.lower() == _NRRD:
        header = _read_nrrd_header(path)
        if not header.known:
            raise misnamed(path)
        if not header.whole:
            raise damaged(path)
    elif (block := find_meta_block(path)) and block.path.stat().st_size < block.start + block.size:
        raise damaged(block.path)


def write_itk(array: Array, affine: Affine, path: Path, *, compress: bool) -> None:
    """Write an image (D, H, W); the same image gives the same bytes.

    Raises:
        ImageError: it cannot be written, or came out incomplete.
    """
    try:
        _check_name(path)
        load_itk().WriteImage(build_itk(array, affine), str(path), useCompression=compress)
        if not path.exists():
            raise ImageError("nothing was written")
        _check_sum(path, array)
    except (RuntimeError, ImageError) as error:
        cause = _shorten(error).replace(str(path), "it")
        raise ImageError("the file came out incomplete, the disk may be full" if path.exists() else cause) from error


def unpack_itk(image: ItkObject) -> tuple[Array, Affine]:
    """The voxels (..., D, H, W) of an image of SimpleITK, a copy, and their affine."""
    return load_itk().GetArrayFromImage(image), find_affine(image)


def find_affine(image: ItkObject) -> Affine:
    """The affine (4, 4) of an image of SimpleITK, or of a reader that has read the header."""
    affine, axes = np.eye(4), image.GetDimension()
    columns = np.reshape(image.GetDirection(), (axes, axes))[:3, :3] * image.GetSpacing()[:3]
    affine[:3, :3], affine[:3, 3] = columns[:, ::-1], image.GetOrigin()[:3]
    return affine


def _check_name(path: Path) -> None:
    if not is_unicode(path):
        raise ImageError(f"{final_name(path)} has a name that is not UTF-8, which its format does not allow; rename it")


def _read_nrrd_header(path: Path) -> NrrdHeader:
    with path.open("rb") as file:
        header, end, _ = file.read(_NRRD_HEADER).replace(b"\r\n", b"\n").lower().partition(b"\n\n")
    elsewhere = b"\ndata file:" in header or b"\ndatafile:" in header
    return NrrdHeader(header.startswith(b"nrrd"), bool(end) or elsewhere, elsewhere)


def _explain(error: Exception, path: Path) -> ImageError:
    """The error for a file that ITK cannot read. Its reader of NRRD names the encoding where voxels are missing."""
    text = str(error)
    if "_nrrdEncoding" in text and "not available" not in text and not _read_nrrd_header(path).elsewhere:
        return damaged(path)
    return ImageError(f"{path} cannot be read as an image: {_shorten(error)}")


def _shorten(error: Exception) -> str:
    """The cause out of ITK's several lines."""
    text = re.sub(r"\w+\(0x[0-9a-f]+\): ", "", str(error).rsplit("ERROR: ", 1)[-1])
    text = text.rsplit("[nrrd] ", 1)[-1]
    return " ".join(text.split())[:200]


def _check_sum(path: Path, voxels: Array) -> None:
    """Refuse a compressed MetaImage whose checksum contradicts the decoded `voxels`."""
    block = None if path.suffix.lower() == _NRRD else find_meta_block(path)
    if block is None or not block.compressed:
        return
    with block.path.open("rb") as file:
        file.seek(block.start)
        stream = memoryview(file.read(block.size))
    if stream[-4:] == zlib.adler32(voxels.data).to_bytes(4, "big"):
        return
    with suppress(zlib.error):
        if len(zlib.decompressobj().decompress(stream, voxels.nbytes + 1)) >= voxels.nbytes:
            return
    raise damaged(path)


def find_meta_block(path: Path) -> MetaBlock | None:
    """Where a MetaImage keeps its voxels; None if they are spread over several files."""
    fields, end = _read_meta_header(path)
    try:
        place = fields["ElementDataFile"]
        if place.split()[0] == "LIST" or "%" in place:
            return None
        data, start = (path, end) if place.upper() == "LOCAL" else (path.parent / place, 0)
        compressed = fields.get("CompressedData", "").lower() == "true"
        if compressed:
            size = int(fields.get("CompressedDataSize", data.stat().st_size - start))
        else:
            size = math.prod(map(int, fields["DimSize"].split())) * _META_BYTES.get(fields["ElementType"], 1)
    except (KeyError, ValueError, IndexError) as error:
        raise ImageError(f"{path} is no image: its MetaImage header is incomplete") from error
    return MetaBlock(data, start, size, compressed)


def _read_meta_header(path: Path) -> tuple[dict[str, str], int]:
    """The fields before the voxels, and the offset at which the header ends."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while "ElementDataFile" not in fields:
            if len(fields) > _MOST_FIELDS:
                raise misnamed(path)
            key, equals, value = file.readline(4096).decode("latin-1").partition("=")
            if not equals:
                raise misnamed(path)
            fields[key.strip()] = value.strip()
        return fields, file.tell()
