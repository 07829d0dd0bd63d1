"""Mosaics of Siemens: one picture that holds all slices of a volume as tiles, and the private header that explains it.

The position in the header is that of a picture as large as the mosaic around the centre of the slice. The direction in
which the slices follow each other stands in the private header alone.
"""

import math
import struct
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from brainsegnet._types import Array, Point

CSA_IMAGE, TILES = 0x00291010, 0x0019100A
"""The private header, and the number of slices."""


class Mosaic(NamedTuple):
    """Tiles along one side, and the position of the first voxel of each slice."""

    side: int
    positions: tuple[Point, ...]


def find_mosaic(
    size: tuple[int, int],
    spacing_mm: tuple[float, float],
    position: Point,
    orientation: tuple[float, ...],
    count: int,
    step_mm: float,
    told_normal: tuple[float, ...] = (),
) -> Mosaic | None:
    """How a mosaic is cut and where its slices are; None if that cannot be told.

    Args:
        size: Rows and columns of the whole picture.
        spacing_mm: Between rows and between columns.
        position: Of the first voxel of the whole picture, as in the header.
        orientation: Of its rows and columns, as in the header.
        count: Slices in it.
        step_mm: From slice to slice.
        told_normal: Where the private header says that the slices go; along the normal if it is silent.

    >>> find_mosaic((8, 8), (1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0), 3, 2.0)
    Mosaic(side=2, positions=((2.0, 2.0, 0.0), (2.0, 2.0, 2.0), (2.0, 2.0, 4.0)))
    """
    side = math.ceil(math.sqrt(max(count, 0)))
    if not side or step_mm <= 0 or size[0] % side or size[1] % side:
        return None
    along_row, along_column = np.reshape(orientation, (2, 3))
    normal = np.cross(along_row, along_column)
    if len(told_normal) == 3 and np.dot(told_normal, normal) < 0:
        normal = -normal
    corner = np.array(position, np.float64)
    corner += along_column * spacing_mm[0] * (size[0] - size[0] // side) / 2
    corner += along_row * spacing_mm[1] * (size[1] - size[1] // side) / 2
    places = (corner + normal * step_mm * i for i in range(count))
    return Mosaic(side, tuple((float(x), float(y), float(z)) for x, y, z in places))


def cut_tiles(picture: Array, side: int) -> Array:
    """The slices (side x side, H, W) of a mosaic (side x H, side x W), row by row.

    >>> cut_tiles(np.arange(16).reshape(4, 4), 2)[1].tolist()
    [[2, 3], [6, 7]]
    """
    height, width = (n // side for n in picture.shape)
    return picture.reshape(side, height, side, width).swapaxes(1, 2).reshape(-1, height, width)


def read_csa(raw: Any) -> dict[str, tuple[float, ...]]:  # noqa: ANN401
    """The numbers in the private header of Siemens, by name; empty if there is none that can be read.

    Its layout is described on https://nipy.org/nibabel/dicom/siemens_csa.html, format 2.
    """
    found: dict[str, tuple[float, ...]] = {}
    if not isinstance(raw, bytes) or raw[:4] != b"SV10":
        return found
    with suppress(struct.error, ValueError):
        (count,) = struct.unpack_from("<I", raw, 8)
        offset = 16
        for _ in range(min(count, 1000)):
            name, _, _, _, items, _ = struct.unpack_from("<64si4siii", raw, offset)
            offset += 84
            texts = []
            for _ in range(items):
                _, length, _, _ = struct.unpack_from("<4i", raw, offset)
                texts.append(raw[offset + 16 : offset + 16 + length].split(b"\0")[0].strip())
                offset += 16 + (length + 3) // 4 * 4
            with suppress(ValueError):
                found[name.split(b"\0")[0].decode("latin-1")] = tuple(float(text) for text in texts if text)
    return found
