"""The types that name what an array or a tuple holds; one definition of each."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""Any numbers; axes are (D, H, W) where nothing else is said."""
Affine = NDArray[np.float64]
"""(4, 4), index (d, h, w, 1) to millimetres (x left, y posterior, z superior)."""
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Shape = tuple[int, int, int]
"""Voxels (D, H, W)."""
Range = tuple[float, float]
"""Least and greatest value."""
Millimetres = tuple[float, float, float]
"""Distances along (D, H, W)."""
Point = tuple[float, float, float]
"""Millimetres (x left, y posterior, z superior)."""
ItkObject = Any
"""SimpleITK carries no types."""
NibabelImage = Any
"""Most methods of nibabel carry no types."""
