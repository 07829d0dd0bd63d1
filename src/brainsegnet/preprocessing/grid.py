"""One volume on the grid of another."""

from typing import Any, TypeVar

import numpy as np
import SimpleITK

from brainsegnet.preprocessing.brain import find_background, find_foreground
from brainsegnet.preprocessing.orientation import find_turn, turn
from brainsegnet.volume import Array, LabelMap, Volume, itk_grid

V = TypeVar("V", bound=Volume)
ItkObject = Any
sitk: ItkObject = SimpleITK
"""SimpleITK carries no types."""


def resample(moving: V, reference: Volume, transform: ItkObject = None) -> V:
    """`moving` on the grid of `reference`, as the two lie in the world, or after a transform.

    A grid that only counts the same voxels along other axes costs nothing: axes are exchanged and reversed. Else images
    are interpolated linearly into float32, and are their background beyond their edge (their lowest value where they
    have none), and wherever half of a voxel or more is background, so that a stripped brain keeps a sharp edge. Label
    maps keep the nearest label, and are 0 beyond their edge.

    Args:
        moving: An image, or a label map.
        reference: Gives the grid.
        transform: SimpleITK's, from points of `reference` to points of `moving`; None leaves both where they lie.
    """
    if transform is None:
        stored = turn(turn(moving, find_turn(moving.affine)), find_turn(reference.affine).inverse)
        if stored.on_grid_of(reference):
            return stored
    if isinstance(moving, LabelMap):
        nearest = _interpolate(moving.array, moving, reference, transform, sitk.sitkNearestNeighbor, 0)
        return type(moving)(nearest, reference.affine)
    array = moving.array.astype(np.float32)
    background = find_background(array)
    beyond = float(array.min()) if background is None else background
    moved = _interpolate(array, moving, reference, transform, sitk.sitkLinear, beyond)
    if background is not None:
        brain = find_foreground(array, background).astype(np.float32)
        moved[_interpolate(brain, moving, reference, transform, sitk.sitkLinear, 0) < 0.5] = background
    return type(moving)(moved, reference.affine)


def _interpolate(
    array: Array, grid: Volume, reference: Volume, transform: ItkObject, how: ItkObject, beyond: float
) -> Array:
    """An array (D, H, W) on `grid` on that of `reference`, with `beyond` outside."""
    image, target = to_itk(array, grid), to_itk(np.empty(reference.shape, np.uint8), reference)
    moved = sitk.Resample(image, target, transform or sitk.Transform(), how, beyond)
    return np.asarray(sitk.GetArrayFromImage(moved))


def to_itk(array: Array, grid: Volume) -> ItkObject:
    """An array (D, H, W) as an image of ITK on the grid of a volume."""
    image = sitk.GetImageFromArray(array)
    origin, spacing, direction = itk_grid(grid.affine)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())
    return image
