"""The brain's box: all that has to be computed, 30 to 40 % of a skull-stripped scan."""

from dataclasses import dataclass, replace
from typing import NoReturn, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from brainsegnet.errors import ImageError
from brainsegnet.volume import Array, Box, Case, Volume

V = TypeVar("V", bound=Volume)


def find_background(array: Array) -> float | None:
    """The value outside the brain, if the scan (D, H, W) has one: that of its eight corners where they agree.

    It is 0 in raw scans, and below -1 in those that somebody z-scored; a scan with noise in the air has none.

    >>> find_background(np.pad(np.ones((2, 2, 2)), 1, constant_values=-3.5))
    -3.5
    >>> find_background(np.arange(8).reshape(2, 2, 2))
    """
    ends = [[0, n - 1] for n in array.shape]
    corners = array[np.ix_(*ends)].ravel()
    return float(corners[0]) if (corners == corners[0]).all() else None


def brain_mask(case: Case) -> NDArray[np.bool_]:
    """Voxels (D, H, W) where any sequence differs from its background; all of them if one has no background.

    Raises:
        ImageError: no voxel does.
    """
    mask = np.zeros(case.reference.shape, np.bool_)
    for volume in case.images.values():
        mask |= find_foreground(volume.array, find_background(volume.array))
    if not mask.any():
        refuse_no_brain(case.name)
    return mask


def refuse_no_brain(case: str) -> NoReturn:
    """Say that a case shows nothing.

    Raises:
        ImageError: always.
    """
    raise ImageError(f"case {case}: no image differs from its background; give it images of a brain")


def find_foreground(array: Array, background: float | None) -> NDArray[np.bool_]:
    """Voxels of an image (D, H, W) that differ from the background; all of them if there is none."""
    if background is None:
        return np.ones(array.shape, np.bool_)
    return np.asarray(array != array.dtype.type(background))


def brain_box(case: Case) -> Box:
    """The smallest box around the brain.

    Raises:
        ImageError: no image differs from its background.
    """
    return Box.around(brain_mask(case))


def crop(volume: V, box: Box) -> V:
    """The part of a volume inside a box, a view; the affine moves along, so its voxels stay where they are."""
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ box.start
    return replace(volume, array=volume.array[box.slices], affine=affine)


def put_back(array: Array, box: Box, shape: tuple[int, int, int], fill: float = 0) -> Array:
    """An array (..., d, h, w) of the box in the whole (..., D, H, W), with `fill` around it.

    >>> put_back(np.ones((1, 1, 2)), Box((0, 1, 1), (1, 2, 3)), (1, 3, 3)).astype(int).tolist()
    [[[0, 0, 0], [0, 1, 1], [0, 0, 0]]]
    """
    whole = np.full((*array.shape[:-3], *shape), fill, array.dtype)
    whole[(..., *box.slices)] = array
    return whole


@dataclass(frozen=True, eq=False)
class Surround:
    """Where a box lies in a scan, and the lesion outside it, of which there is little or none: no whole map is kept.

    Attributes:
        box: The box.
        shape: (D, H, W) of the scan.
        places: Voxels outside the box that are not background, counted through the flattened scan.
        values: Their classes.

    >>> labels = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    >>> box = Box((0, 0, 1), (1, 3, 4))
    >>> around = Surround.of(labels, box)
    >>> around.places.tolist(), around.values.tolist()
    ([4, 8], [4, 8])
    >>> np.array_equal(around.complete(labels[box.slices]), labels)
    True
    """

    box: Box
    shape: tuple[int, int, int]
    places: NDArray[np.int64]
    values: NDArray[np.uint8]

    @classmethod
    def of(cls, classes: NDArray[np.uint8], box: Box) -> Self:
        """What lies around a box in the classes (D, H, W) of a scan."""
        outside = classes.copy()
        outside[box.slices] = 0
        d, h, w = classes.shape
        places = np.flatnonzero(outside)
        return cls(box, (d, h, w), places, outside.ravel()[places])

    def complete(self, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Classes (D, H, W) of the scan, from those (d, h, w) of the box."""
        whole = put_back(classes, self.box, self.shape)
        whole.ravel()[self.places] = self.values
        return whole
