"""Surfaces of masks, and the distances between them.

The surface of a mask is its voxels with one of six neighbours outside it; beyond the image is outside. Distances are
measured between the centres of surface voxels, each voxel counting once, as in MONAI and MedPy. A k-d tree finds the
nearest voxels. It is exact like a distance transform, but its cost follows the surfaces, not the box around them.

Two definitions of HD95 are in use, see `SurfaceDistances.hd95_mm`. A third counts areas of surface elements instead of
voxels (`surface-distance`, and with it the scripts of BraTS 2023). It is not computed here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from brainsegnet._types import Array, Doubles, Mask, Millimetres
from brainsegnet.errors import GridMismatch
from brainsegnet.metrics import Hd95
from brainsegnet.volume import Box

HD95_RULES: Mapping[Hd95, str] = {
    "max": "HD95 is the larger of the two directed 95th percentiles of the surface distances (as in MONAI).",
    "pooled": "HD95 is the 95th percentile of the surface distances in both directions together (pooled, as in MedPy "
    "and BraTS 2026).",
}
"""The definitions of HD95 by the names that the command line uses, in words for tables."""
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

    Examples:
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
    """Distances from each surface voxel of one mask to the nearest surface voxel of the other, in millimetres.

    If only one mask is empty, each distance is the diagonal of the image. If both are, there are no distances, and the
    scores are those of a perfect match.
    """

    from_predicted_mm: Doubles
    from_truth_mm: Doubles

    def hd95_mm(self, definition: Hd95 = "max") -> float:
        """The Hausdorff distance as a 95th percentile, interpolated; 0 if both masks are empty.

        Args:
            definition: `max` takes the percentile of each direction and then the larger one, as MONAI. `pooled` takes
                that of both directions together, as MedPy, panoptica and the evaluation of BraTS 2026. The smaller
                surface weighs less in it.

        Examples:
            >>> distances = SurfaceDistances(np.zeros(20), np.full(5, 4.0))
            >>> distances.hd95_mm("max"), distances.hd95_mm("pooled")
            (4.0, 4.0)
            >>> distances = SurfaceDistances(np.zeros(200), np.full(5, 4.0))
            >>> distances.hd95_mm("max"), distances.hd95_mm("pooled")
            (4.0, 0.0)
        """
        directed = (self.from_predicted_mm, self.from_truth_mm)
        parts = (self._both_mm,) if definition == "pooled" else directed
        return max((float(np.percentile(mm, 95)) for mm in parts if len(mm)), default=0.0)

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

    Examples:
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
    from scipy.spatial import cKDTree  # slow to import, and prepared cases do not need it

    points, targets = np.argwhere(a), np.argwhere(b)
    if not len(targets):
        return np.full(len(points), longest_mm)
    found, apart = np.zeros(len(points)), ~b[a]
    if apart.any():
        tree = cKDTree(targets * spacing_mm, balanced_tree=False)
        found[apart] = tree.query(points[apart] * spacing_mm)[0]
    return found
