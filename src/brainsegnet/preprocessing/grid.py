"""One volume on the grid of another."""

from typing import Any, TypeVar

import numpy as np
import SimpleITK

from brainsegnet.preprocessing.brain import find_background
from brainsegnet.preprocessing.orientation import find_turn, turn
from brainsegnet.volume import Array, LabelMap, Volume, itk_grid

V = TypeVar("V", bound=Volume)
ItkObject = Any
sitk: ItkObject = SimpleITK
"""SimpleITK carries no types."""


def resample(moving: V, reference: Volume, transform: ItkObject = None) -> V:
    """`moving` on the grid of `reference`, as the two lie in the world, or after a transform.

    A grid that only counts the same voxels along other axes costs nothing: axes are exchanged and reversed. Else images
    are interpolated linearly into float32, and are their background beyond their edge (their lowest value where
    they have none). Label maps keep the nearest label, and are 0 beyond their edge.

    Args:
        moving: An image, or a label map.
        reference: Gives the grid.
        transform: SimpleITK's, from points of `reference` to points of `moving`; None leaves both where they lie.
    """
    if transform is None:
        stored = turn(turn(moving, find_turn(moving.affine)), find_turn(reference.affine).inverse)
        if stored.on_grid_of(reference):
            return stored
    is_labels = isinstance(moving, LabelMap)
    array = moving.array if is_labels else moving.array.astype(np.float32)
    background = 0.0 if is_labels else find_background(array)
    moved = sitk.Resample(
        to_itk(array, moving),
        to_itk(np.empty(reference.shape, np.uint8), reference),
        transform or sitk.Transform(),
        sitk.sitkNearestNeighbor if is_labels else sitk.sitkLinear,
        float(array.min()) if background is None else background,
    )
    return type(moving)(sitk.GetArrayFromImage(moved), reference.affine)


def to_itk(array: Array, grid: Volume) -> ItkObject:
    """An array (D, H, W) as an image of ITK on the grid of a volume."""
    image = sitk.GetImageFromArray(array)
    origin, spacing, direction = itk_grid(grid.affine)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())
    return image
