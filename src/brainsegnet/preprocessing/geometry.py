"""Orientation and slabs of a scan.

In an upright scan, slices run from the feet to the head, rows from front to back, columns from right to left. Axes are
exchanged and reversed, so no voxel changes its value, and an oblique scan stays oblique.

Slabs are runs of slices: the paper samples 12 of 155 slices for training and segments 31 at a time.
"""

from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from brainsegnet._types import Affine, Array
from brainsegnet.volume import V, Volume

_WORLD_AXES = (2, 1, 0)
"""D runs along z, H along y, W along x, all in the positive sense of the world (left, posterior, superior)."""


@dataclass(frozen=True)
class Turn:
    """How the axes are exchanged and reversed.

    Attributes:
        axes: New axis (D, H, W) to the old one it comes from.
        flips: Whether the new axis runs the other way.

    Examples:
        >>> Turn((2, 0, 1), (True, False, False)).inverse
        Turn(axes=(1, 2, 0), flips=(False, False, True))
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    @property
    def inverse(self) -> "Turn":
        """The turn that reverses this one."""
        d, h, w = (self.axes.index(axis) for axis in range(3))
        return Turn((d, h, w), (self.flips[d], self.flips[h], self.flips[w]))


def find_turn(affine: Affine) -> Turn:
    """The turn that makes a grid upright: each axis goes to the world axis that it follows most.

    Examples:
        >>> find_turn(np.eye(4)[[2, 1, 0, 3]])
        Turn(axes=(0, 1, 2), flips=(False, False, False))
    """
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    along = np.abs(columns[_WORLD_AXES, :])
    d, h, w = max(permutations(range(3)), key=lambda axes: sum(along[new, old] for new, old in enumerate(axes)))
    flip_d, flip_h, flip_w = (bool(columns[world, old] < 0) for world, old in zip(_WORLD_AXES, (d, h, w), strict=True))
    return Turn((d, h, w), (flip_d, flip_h, flip_w))


def turn_array(array: Array, how: Turn) -> Array:
    """Turn the last three axes of an array (..., D, H, W); the result is a view."""
    lead = array.ndim - 3
    steps = tuple(slice(None, None, -1 if flip else None) for flip in how.flips)
    return array.transpose(*range(lead), *(lead + axis for axis in how.axes))[(..., *steps)]


def turn(volume: V, how: Turn) -> V:
    """Turn the axes of a volume; its voxels keep their places in the patient. An upright one is returned as is."""
    if how == Turn():
        return volume
    to_old = np.zeros((4, 4))
    to_old[3, 3] = 1
    for new, (old, flip) in enumerate(zip(how.axes, how.flips, strict=True)):
        to_old[old, new] = -1 if flip else 1
        to_old[old, 3] = volume.shape[old] - 1 if flip else 0
    return replace(volume, array=turn_array(volume.array, how), affine=volume.affine @ to_old)


def turn_like(volume: V, grid: Volume) -> V:
    """A volume with its axes exchanged and reversed so that they run as those of another."""
    return turn(turn(volume, find_turn(volume.affine)), find_turn(grid.affine).inverse)


def slab_starts(depth: int, thickness: int) -> tuple[int, ...]:
    """First slice of each slab: side by side, the last moved back to fit; one slab at 0 if the scan is thinner.

    Raises:
        ValueError: `depth` or `thickness` is less than 1.

    The numbers of the paper (sections "Training details" and "Testing") are 155 slices in slabs of 12 and of 31:

    Examples:
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
