"""Orientation and slabs of a scan.

Upright, slices run from the feet to the head, rows from front to back, columns from right to left. Axes are exchanged
and reversed, so no voxel changes its value, and an oblique scan stays oblique.

Slabs are runs of slices: the paper samples 12 of 155 slices for training and segments 31 at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TypeVar

import numpy as np

from brainsegnet._types import Affine, Array, Shape
from brainsegnet.volume import Volume

V = TypeVar("V", bound=Volume)

_WORLD_AXES = (2, 1, 0)
"""D runs along z, H along y, W along x, all in the positive sense of the world (left, posterior, superior)."""


@dataclass(frozen=True)
class Turn:
    """How the axes are exchanged and reversed.

    Attributes:
        axes: New axis (D, H, W) to the old one it comes from.
        flips: Whether the new axis runs the other way.

    >>> Turn((2, 0, 1), (True, False, False)).inverse
    Turn(axes=(1, 2, 0), flips=(False, False, True))
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    @property
    def inverse(self) -> "Turn":
        """The turn that undoes this one."""
        d, h, w = (self.axes.index(axis) for axis in range(3))
        return Turn((d, h, w), (self.flips[d], self.flips[h], self.flips[w]))


def find_turn(affine: Affine) -> Turn:
    """The turn that brings a grid upright: each axis goes to the axis of the world that it follows most.

    >>> find_turn(np.eye(4)[[2, 1, 0, 3]])
    Turn(axes=(0, 1, 2), flips=(False, False, False))
    """
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    along = np.abs(columns[_WORLD_AXES, :])
    d, h, w = max(permutations(range(3)), key=lambda axes: sum(along[new, old] for new, old in enumerate(axes)))
    flip_d, flip_h, flip_w = (bool(columns[world, old] < 0) for world, old in zip(_WORLD_AXES, (d, h, w), strict=True))
    return Turn((d, h, w), (flip_d, flip_h, flip_w))


def turn_array(array: Array, how: Turn) -> Array:
    """An array (..., D, H, W) with its last three axes turned: a view."""
    lead = array.ndim - 3
    steps = tuple(slice(None, None, -1 if flip else None) for flip in how.flips)
    return array.transpose(*range(lead), *(lead + axis for axis in how.axes))[(..., *steps)]


def turn(volume: V, how: Turn) -> V:
    """The same scan with its axes turned, its voxels where they were in the patient; `volume` itself if upright."""
    if how == Turn():
        return volume
    return replace(volume, array=turn_array(volume.array, how), affine=volume.affine @ _index_map(how, volume.shape))


def _index_map(how: Turn, shape: Shape) -> Affine:
    """(4, 4): index in the turned grid to index in the old one, whose `shape` is given."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for new, (old, flip) in enumerate(zip(how.axes, how.flips, strict=True)):
        matrix[old, new] = -1 if flip else 1
        matrix[old, 3] = shape[old] - 1 if flip else 0
    return matrix


def slab_starts(depth: int, thickness: int) -> tuple[int, ...]:
    """First slice of each slab: side by side, the last moved back to fit; a single slab at 0 if the scan is thinner.

    Raises:
        ValueError: `depth` or `thickness` is less than 1.

    The paper's figures ("Training details" and "Testing"), 155 slices in slabs of 12 and of 31:

    >>> len(slab_starts(155, 12)), slab_starts(155, 12)[-2:]
    (13, (132, 143))
    >>> slab_starts(155, 31)
    (0, 31, 62, 93, 124)
    >>> slab_starts(20, 7), slab_starts(5, 7)
    ((0, 7, 13), (0,))
    """
    if depth < 1 or thickness < 1:
        raise ValueError(f"slabs need at least one slice, not {thickness} of {depth}")
    return tuple(min(start, max(depth - thickness, 0)) for start in range(0, depth, thickness))


def cut(x: Array, thickness: int) -> list[Array]:
    """The slabs of an array (..., D, H, W), each (..., thickness, H, W), or all of it if the scan is thinner: views.

    >>> [slab.ravel().tolist() for slab in cut(np.arange(5).reshape(5, 1, 1), 2)]
    [[0, 1], [2, 3], [3, 4]]
    """
    return [x[..., start : start + thickness, :, :] for start in slab_starts(x.shape[-3], thickness)]


def stitch(slabs: Sequence[Array], depth: int) -> Array:
    """The whole (..., D, H, W) from what `cut` made of it; where the last slab overlaps, the last one wins.

    Raises:
        ValueError: these are not the slabs of so many slices.
    """
    starts = slab_starts(depth, slabs[0].shape[-3])
    if len(starts) != len(slabs):
        raise ValueError(f"{depth} slices make {len(starts)} slabs of {slabs[0].shape[-3]}, not {len(slabs)}")
    whole = np.empty((*slabs[0].shape[:-3], depth, *slabs[0].shape[-2:]), slabs[0].dtype)
    for start, slab in zip(starts, slabs, strict=True):
        whole[..., start : start + slab.shape[-3], :, :] = slab
    return whole
