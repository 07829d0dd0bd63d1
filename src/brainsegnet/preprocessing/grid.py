"""One volume on the grid of another."""

from typing import Any, TypeVar

import numpy as np
import SimpleITK

from brainsegnet.preprocessing.brain import find_background
from brainsegnet.volume import Array, LabelMap, Volume, itk_grid

V = TypeVar("V", bound=Volume)
ItkObject = Any
sitk: ItkObject = SimpleITK
"""SimpleITK carries no types."""


def resample(moving: V, reference: Volume) -> V:
    """`moving` on the grid of `reference`, as the two lie in the world; no registration.

    Images are interpolated linearly into float32, and are their background beyond their edge (their lowest value where
    they have none). Label maps keep the nearest label, and are 0 beyond their edge.
    """
    if moving.on_grid_of(reference):
        return moving
    is_labels = isinstance(moving, LabelMap)
    array = moving.array if is_labels else moving.array.astype(np.float32)
    background = 0.0 if is_labels else find_background(array)
    moved = sitk.Resample(
        _to_itk(array, moving),
        _to_itk(np.empty(reference.shape, np.uint8), reference),
        sitk.Transform(),
        sitk.sitkNearestNeighbor if is_labels else sitk.sitkLinear,
        float(array.min()) if background is None else background,
    )
    return type(moving)(sitk.GetArrayFromImage(moved), reference.affine)


def _to_itk(array: Array, grid: Volume) -> ItkObject:
    image = sitk.GetImageFromArray(array)
    origin, spacing, direction = itk_grid(grid.affine)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())
    return image
