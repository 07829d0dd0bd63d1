"""How large an image may be: known from its header, and refused before anything is inflated or memory is taken."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from brainsegnet._machine import free_memory
from brainsegnet.errors import ImageError

MAX_VOXELS = 500_000_000
"""Numbers in a file, unless more are allowed: 2 GB as 32-bit floats. A head at 0.5 mm has a fifth of them."""
MAX_RATIO = 1032
"""Deflate makes data smaller by this factor at most."""
_FLOAT_BYTES = 4
_PIECE, _TRAILING = 1 << 20, 128
"""Bytes that are inflated at once, and how many such pieces may follow an image in its file."""
_allowed = [MAX_VOXELS]


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@contextmanager
def allow_voxels(count: int | None) -> Iterator[None]:
    """Read files of up to so many voxels meanwhile, in all threads; None changes nothing."""
    if count is None:
        yield
        return
    _allowed.append(count)
    try:
        yield
    finally:
        _allowed.pop()


def check_voxels(name: str, size: Sequence[int]) -> None:
    """Refuse an image whose header declares more numbers than are allowed, or than the memory can hold.

    Raises:
        ImageError: it does.

    >>> check_voxels("a.nii.gz", (32767, 32767, 16))
    Traceback (most recent call last):
    brainsegnet.errors.ImageError: a.nii.gz declares 32767 x 32767 x 16 voxels, and 500 million are read at most; \
if its header is right, allow more with --max-voxels
    """
    count, most = math.prod(size), _allowed[-1]
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
    """Refuse a file of `packed` bytes that cannot hold `unpacked` ones, however well they are compressed.

    Raises:
        EOFError: it cannot.
    """
    if unpacked > MAX_RATIO * packed:
        raise EOFError


def read_rest(file: _Readable, name: str) -> None:
    """Read a file to its end, in pieces; gzip compares its checksum there.

    Raises:
        ImageError: far more follows than a header can leave out by mistake, as in a file that is made to fill memory.
    """
    for _ in range(_TRAILING):
        if not file.read(_PIECE):
            return
    raise ImageError(f"{name} holds much more than its header says; fetch it again")
