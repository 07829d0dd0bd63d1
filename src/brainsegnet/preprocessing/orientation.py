"""Any scan upright: slices from the feet to the head, rows from front to back, columns from right to left.

Only by exchanging and reversing axes, so no voxel changes its value; an oblique scan stays oblique.
"""

from dataclasses import dataclass, replace
from itertools import permutations
from typing import TypeVar

import numpy as np

from brainsegnet.volume import Affine, Array, Volume

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
    """The turn that brings a grid upright, from the axis of the world that each of its axes follows most.

    >>> find_turn(np.eye(4)[[2, 1, 0, 3]])
    Turn(axes=(0, 1, 2), flips=(False, False, False))
    """
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    along = np.abs(columns[_WORLD_AXES, :])
    d, h, w = max(permutations(range(3)), key=lambda axes: sum(along[new, old] for new, old in enumerate(axes)))
    flip_d, flip_h, flip_w = (bool(columns[world, old] < 0) for world, old in zip(_WORLD_AXES, (d, h, w), strict=True))
    return Turn((d, h, w), (flip_d, flip_h, flip_w))


def turn_array(array: Array, how: Turn) -> Array:
    """A view (..., D, H, W) with the last three axes turned."""
    lead = array.ndim - 3
    steps = tuple(slice(None, None, -1 if flip else None) for flip in how.flips)
    return array.transpose(*range(lead), *(lead + axis for axis in how.axes))[(..., *steps)]


def turn(volume: V, how: Turn) -> V:
    """The same scan with its axes turned, its voxels where they were in the patient; `volume` itself if upright."""
    if how == Turn():
        return volume
    return replace(volume, array=turn_array(volume.array, how), affine=volume.affine @ _index_map(how, volume.shape))


def _index_map(how: Turn, shape: tuple[int, int, int]) -> Affine:
    """(4, 4): index in the turned grid to index in the old one, whose `shape` is given."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for new, (old, flip) in enumerate(zip(how.axes, how.flips, strict=True)):
        matrix[old, new] = -1 if flip else 1
        matrix[old, 3] = shape[old] - 1 if flip else 0
    return matrix
