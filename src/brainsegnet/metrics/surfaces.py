"""Distances between the surfaces of two masks: HD95, average symmetric surface distance and surface Dice.

A surface is the voxels of a mask with one of six neighbours outside it; beyond the image is outside. Distances are
taken between the centres of surface voxels, each voxel counting once, as in MONAI. A k-d tree finds the nearest voxels:
exact like a distance transform, but at a cost that follows the surfaces, not the box around them.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from brainsegnet._types import Array, Doubles, Mask, Millimetres
from brainsegnet.errors import GridMismatch
from brainsegnet.volume import Box

SLACK_MM = 1e-4
"""Spacings come from affines in single precision; this much more than the tolerance is still within it."""


def require_one_grid(predicted: Array, truth: Array, case: str = "") -> None:
    """Raise GridMismatch, which names the case, where two masks or label maps differ in shape."""
    if predicted.shape != truth.shape:
        where = f"case {case}: " if case else ""
        raise GridMismatch(
            f"{where}the prediction is {predicted.shape} but the truth is {truth.shape}; "
            "segment the scan on which the truth was drawn"
        )


def box_of_both(predicted: Array, truth: Array, margin: int = 0) -> tuple[slice, ...]:
    """Slices of the smallest box around both masks and a margin in voxels; one voxel if both are empty.

    The box stays inside the image. Masks or label maps are (D, H, W), and what is not zero counts.

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


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """From each surface voxel of one mask to the nearest one of the other, in millimetres.

    Where only one mask is empty, each distance from the other is the diagonal of the image; where both are, there is no
    distance at all, and the scores are those of a perfect match.
    """

    from_predicted_mm: Doubles
    from_truth_mm: Doubles

    @property
    def hd95_mm(self) -> float:
        """The larger of the two directed 95th percentiles (interpolated), as MONAI and BraTS have it."""
        directed = (self.from_predicted_mm, self.from_truth_mm)
        return max((float(np.percentile(mm, 95)) for mm in directed if len(mm)), default=0.0)

    @property
    def assd_mm(self) -> float:
        """The mean over the voxels of both surfaces (Heimann et al. 2009): the larger surface weighs more."""
        return float(self._both_mm.mean()) if len(self._both_mm) else 0.0

    def dice_within(self, tolerance_mm: float) -> float:
        """Surface Dice: the share of the voxels of both surfaces no farther than the tolerance from the other surface.

        The definition of Nikolov et al. (2021), counted in surface voxels as in MONAI's `compute_surface_dice`.
        """
        if not len(self.from_predicted_mm) or not len(self.from_truth_mm):
            return float(len(self._both_mm) == 0)
        return float(np.count_nonzero(self._both_mm <= tolerance_mm + SLACK_MM) / len(self._both_mm))

    @property
    def _both_mm(self) -> Doubles:
        return np.concatenate((self.from_predicted_mm, self.from_truth_mm))


def surface_distances(
    predicted: Mask, truth: Mask, spacing_mm: Millimetres, shape: tuple[int, ...] | None = None
) -> SurfaceDistances:
    """The distances between the surfaces of two boolean masks (D, H, W), in both directions.

    `shape` is that of the image, where the masks are cut from one: its diagonal is the distance to an empty mask.

    Raises:
        GridMismatch: the masks differ in shape.

    >>> a, b = np.zeros((2, 20, 64, 64), bool)
    >>> a[4, 10, 10] = b[6, 10, 10] = b[5, 10, 10] = True
    >>> distances = surface_distances(a, b, (6.5, 1.2, 1.2))
    >>> distances.from_predicted_mm, distances.from_truth_mm, round(distances.assd_mm, 3), distances.dice_within(7)
    (array([6.5]), array([ 6.5, 13. ]), 8.667, 0.6666666666666666)
    """
    require_one_grid(predicted, truth)
    box = box_of_both(predicted, truth)
    a, b = surface(predicted[box]), surface(truth[box])
    longest = math.hypot(*np.multiply(shape or truth.shape, spacing_mm))
    return SurfaceDistances(_directed_mm(a, b, spacing_mm, longest), _directed_mm(b, a, spacing_mm, longest))


def surface(mask: Mask) -> Mask:
    """The voxels of a mask (D, H, W) with one of six neighbours outside it or the array."""
    return mask & ~ndimage.binary_erosion(mask)


def _directed_mm(a: Mask, b: Mask, spacing_mm: Millimetres, longest_mm: float) -> Doubles:
    """From each voxel of surface `a` to surface `b`; 0 without a search where they share it."""
    points, targets = np.argwhere(a), np.argwhere(b)
    if not len(targets):
        return np.full(len(points), longest_mm)
    found, apart = np.zeros(len(points)), ~b[a]
    if apart.any():
        tree = cKDTree(targets * spacing_mm, balanced_tree=False)
        found[apart] = tree.query(points[apart] * spacing_mm)[0]
    return found
