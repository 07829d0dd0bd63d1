"""Whether an image file is whole.

ITK fills what a cut or damaged file lacks with zeros and says nothing, so the checksums that the formats carry are
compared with the decoded voxels: no second decompression unless they differ. NRRD is left out, its reader is strict.
"""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainsegnet._types import Array
from brainsegnet.errors import ImageError

GZIP = b"\x1f\x8b"
_NIFTI_STARTS = {start for size in (348, 540) for start in (size.to_bytes(4, "little"), size.to_bytes(4, "big"))}
_META_BYTES = {"MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_FLOAT": 4, "MET_DOUBLE": 8}


@dataclass(frozen=True)
class MetaBlock:
    """Where the voxels of a MetaImage lie.

    Attributes:
        path: File of the voxels: the header's own, or the one it names.
        start: First byte.
        size: Number of bytes, compressed if `compressed`.
        compressed: Whether the bytes are a zlib stream.
    """

    path: Path
    start: int
    size: int
    compressed: bool


def check_start(path: Path) -> None:
    """Refuse a file that cannot be opened, is empty, or does not begin as its suffix promises.

    Raises:
        ImageError: any of these, or a MetaImage that is shorter than its header says.
    """
    if path.is_dir():
        raise ImageError(f"{path} is a folder, not an image")
    name = path.name.lower()
    try:
        if path.stat().st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes); fetch it again")
        if name.endswith((".mha", ".mhd")):
            _check_meta_start(path)
        else:
            starts = {b"NRRD"} if name.endswith(".nrrd") else _NIFTI_STARTS
            if read_start(path, 4) not in starts:
                raise ImageError(f"{path} is no image: its content does not fit its suffix")
    except FileNotFoundError as error:
        raise ImageError(f"{error.filename or path} does not exist") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path) from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error


def check_size(path: Path) -> None:
    """Refuse a file that is shorter than its header says, at the cost of its first and last bytes: a broken download.

    Of NRRD only the start is looked at.

    Raises:
        ImageError: as `check_start`, or the file is cut short.
    """
    check_start(path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return
    try:
        due = _nifti_bytes(read_start(path, 540))
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
            file.seek(-4, 2)
            if packed and int.from_bytes(file.read(), "little") == due % 2**32:
                return
        there = len(_unpack(path)) if packed else path.stat().st_size
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise _damaged(path) from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error
    if there < due:
        raise _damaged(path)


def read_start(path: Path, count: int) -> bytes:
    """The first `count` bytes of a file, decompressed if it is gzip."""
    with path.open("rb") as file:
        start = file.read(max(count, 2))
    if not start.startswith(GZIP):
        return start[:count]
    with gzip.open(path) as unpacked:
        return unpacked.read(count)


def check_nifti(path: Path, voxels: Array, offset: int, stored_bytes: int) -> bytes | None:
    """Refuse a .nii or .nii.gz that ends early or contradicts its checksum.

    Args:
        path: The file.
        voxels: What was decoded, in the order of the file.
        offset: Bytes before the voxels, `vox_offset` of the header.
        stored_bytes: Bytes of the voxels as stored, before any rescaling.

    Returns:
        The voxels as stored; None if the checksum proves that `voxels` are just those.

    Raises:
        ImageError: the file is cut short or damaged.
    """
    total = offset + stored_bytes
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
        file.seek(-min(8, path.stat().st_size), 2)
        trailer = file.read()
    if packed:
        try:
            checksum = zlib.crc32(voxels.data, zlib.crc32(read_start(path, offset)))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _damaged(path) from error
        if trailer == checksum.to_bytes(4, "little") + (total % 2**32).to_bytes(4, "little"):
            return None
    stored = _unpack(path) if packed else path.read_bytes()
    if len(stored) < total:
        raise _damaged(path)
    return stored[offset:total]


def restore_nan(voxels: Array, stored: bytes, dtype: str) -> None:
    """Put NaN and infinite values back into `voxels`, in place: ITK reads them from NIfTI as zeros and says nothing.

    Args:
        voxels: What was decoded (D, H, W).
        stored: The voxels as stored.
        dtype: Their type there, with the order of bytes, such as `<f4`.
    """
    original = np.frombuffer(stored, dtype).reshape(voxels.shape)
    lost = ~np.isfinite(original)
    voxels[lost] = original[lost]


def check_meta(path: Path, voxels: Array) -> None:
    """Refuse a compressed .mha or .mhd whose checksum contradicts the decoded `voxels`.

    Raises:
        ImageError: the file is damaged.
    """
    block = find_meta_block(path)
    if block is None or not block.compressed:
        return
    with block.path.open("rb") as file:
        file.seek(block.start)
        stream = memoryview(file.read(block.size))
    if stream[-4:] == zlib.adler32(voxels.data).to_bytes(4, "big"):
        return
    try:
        unpacked = len(zlib.decompress(stream))
    except zlib.error as error:
        raise _damaged(path) from error
    if unpacked < voxels.nbytes:
        raise _damaged(path)


def find_meta_block(path: Path) -> MetaBlock | None:
    """Where a MetaImage keeps its voxels; None if they are spread over several files.

    Raises:
        ImageError: the file has no MetaImage header.
        OSError: the file of the voxels cannot be read.
    """
    fields, end = _read_meta_header(path)
    place = fields["ElementDataFile"]
    if place.split()[0] == "LIST" or "%" in place:
        return None
    local = place.upper() == "LOCAL"
    data, start = (path, end) if local else (path.parent / place, 0)
    compressed = fields.get("CompressedData", "").lower() == "true"
    size = data.stat().st_size - start
    if compressed:
        size = int(fields.get("CompressedDataSize", size))
    else:
        size = math.prod(map(int, fields["DimSize"].split())) * _META_BYTES.get(fields["ElementType"], 1)
    return MetaBlock(data, start, size, compressed)


def _nifti_bytes(header: bytes) -> int:
    """Bytes of a NIfTI-1 or NIfTI-2 file before compression, as its header says."""
    order = "<" if header[0] else ">"
    if header.startswith(struct.pack(f"{order}i", 348)):
        dims, bits = struct.unpack_from(f"{order}8h", header, 40), struct.unpack_from(f"{order}h", header, 72)
        (start,) = struct.unpack_from(f"{order}f", header, 108)
    else:
        dims, bits = struct.unpack_from(f"{order}8q", header, 16), struct.unpack_from(f"{order}h", header, 14)
        (start,) = struct.unpack_from(f"{order}q", header, 168)
    voxels: int = math.prod(dims[1 : 1 + dims[0]])
    return int(start) + voxels * int(bits[0]) // 8


def _check_meta_start(path: Path) -> None:
    try:
        block = find_meta_block(path)
    except (KeyError, ValueError, IndexError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{path} is no image: its MetaImage header is incomplete") from error
    if block is not None and block.path.stat().st_size < block.start + block.size:
        raise _damaged(block.path)


def _read_meta_header(path: Path) -> tuple[dict[str, str], int]:
    """The fields before the voxels, and the offset at which the header ends."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while "ElementDataFile" not in fields:
            key, equals, value = file.readline(4096).decode("latin-1").partition("=")
            if not equals:
                raise ImageError(f"{path} is no image: its content does not fit its suffix")
            fields[key.strip()] = value.strip()
        return fields, file.tell()


def _unpack(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> ImageError:
    return ImageError(f"{path} is cut short or damaged; fetch it again")
