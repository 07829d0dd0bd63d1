"""How large an image may be. Its header tells, so it is refused before it is decompressed or takes memory."""

import gzip
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from brainsegnet._machine import free_memory
from brainsegnet.errors import ImageError

MAX_VOXELS = 500_000_000
"""Largest number of voxels in a file, unless more are allowed: 2 GB as 32-bit floats. A head at 0.5 mm has a fifth."""
MAX_RATIO = 1032
"""Deflate makes data smaller by this factor at most."""
_FLOAT_BYTES = 4
_PIECE, _TRAILING = 1 << 20, 128
"""Bytes that are decompressed at once, and how many such pieces may follow an image in its file."""
_allowed: dict[object, int] = {None: MAX_VOXELS}
"""What each block allows, the last one last."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@contextmanager
def allow_voxels(count: int | None) -> Iterator[None]:
    """Allow files of up to `count` voxels within the block, in all threads. None changes nothing."""
    if count is None:
        yield
        return
    block = object()  # blocks of several threads may end in any order
    _allowed[block] = count
    try:
        yield
    finally:
        del _allowed[block]


def check_voxels(name: str, size: Sequence[int]) -> None:
    """Check that the header of an image declares no more voxels than are allowed and than the memory can hold.

    Raises:
        ImageError: it declares more.

    Examples:
        >>> check_voxels("a.nii.gz", (32767, 32767, 16))
        Traceback (most recent call last):
        brainsegnet.errors.ImageError: a.nii.gz declares 32767 x 32767 x 16 voxels, and 500 million are read at most; \
if its header is right, allow more with --max-voxels
    """
    count, most = math.prod(size), [*_allowed.values()][-1]
    declared = f"{name} declares {' x '.join(map(str, size))} voxels"
    if count > most:
        allowed = f"{most / 1e6:g} million" if most >= 1e6 else str(most)
        remedy = "if its header is right, allow more with --max-voxels"
        raise ImageError(f"{declared}, and {allowed} are read at most; {remedy}")
    free = free_memory()
    if free is not None and _FLOAT_BYTES * count > free:
        needed = f"{_FLOAT_BYTES * count / 1e6:.0f} MB in floats"
        raise ImageError(f"{declared}, {needed}, and {free / 1e6:.0f} MB of memory are free; free some, or resample it")


def check_ratio(packed: int, unpacked: int) -> None:
    """Check that a file of `packed` bytes can hold `unpacked` bytes at the best possible compression.

    Raises:
        EOFError: it cannot.
    """
    if unpacked > MAX_RATIO * packed:
        raise EOFError


def read_rest(file: _Readable, name: str) -> None:
    """Read a file to its end in pieces, where gzip compares its checksum. Bytes after the last gzip stream are ignored.

    Raises:
        ImageError: far more follows than a header can omit by mistake, as in a file that is made to fill memory.
        gzip.BadGzipFile: the checksum or the length is wrong.
    """
    try:
        for _ in range(_TRAILING):
            if not file.read(_PIECE):
                return
    except gzip.BadGzipFile as error:
        if "CRC" in str(error) or "length" in str(error):
            raise
        return
    raise ImageError(f"{name} holds much more than its header says; fetch it again")
