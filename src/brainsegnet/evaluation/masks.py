"""Two masks on one grid: what every score starts from."""

import math

import numpy as np
from numpy.typing import NDArray

from brainsegnet.errors import GridMismatch
from brainsegnet.volume import Box

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
Shape = tuple[int, ...]


def require_one_grid(predicted: Shape, truth: Shape, case: str = "") -> None:
    """Refuse two masks or label maps of different shapes.

    Raises:
        GridMismatch: the shapes differ; the text names the case.
    """
    if predicted != truth:
        where = f"case {case}: " if case else ""
        raise GridMismatch(
            f"{where}the prediction is {predicted} but the truth is {truth}; "
            "segment the scan on which the truth was drawn"
        )


def box_of_both(predicted: NDArray[np.generic], truth: NDArray[np.generic], margin: int = 0) -> tuple[slice, ...]:
    """Slices of the smallest box around both masks and a margin, inside the image; one voxel if both are empty.

    Args:
        predicted: Mask or labels (D, H, W); what is not zero counts.
        truth: Mask or labels (D, H, W).
        margin: Voxels to add on every side.

    >>> a, b = np.zeros((2, 9, 9, 9), bool)
    >>> a[2, 4, 5] = b[3, 4, 8] = True
    >>> a[box_of_both(a, b)].shape, a[box_of_both(a, b, margin=2)].shape, a[box_of_both(a & b, a & b)].shape
    ((2, 1, 4), (6, 5, 6), (1, 1, 1))
    """
    either = np.asarray((predicted != 0) | (truth != 0))
    if not either.any():
        return (slice(0, 1),) * 3
    tight = Box.around(either).slices
    return tuple(slice(max(0, side.start - margin), side.stop + margin) for side in tight)


def diagonal_mm(shape: Shape, spacing_mm: Spacing) -> float:
    """Length of the diagonal of an image: no distance in it is larger.

    >>> diagonal_mm((155, 240, 240), (1.0, 1.0, 1.0)).__round__(2)
    373.13
    """
    return math.hypot(*(voxels * mm for voxels, mm in zip(shape, spacing_mm, strict=True)))


def ratio(part: float, whole: float, if_nothing: float) -> float:
    """A share, and what it is of nothing.

    >>> ratio(3, 4, if_nothing=1.0), ratio(0, 0, if_nothing=1.0)
    (0.75, 1.0)
    """
    return part / whole if whole else if_nothing
