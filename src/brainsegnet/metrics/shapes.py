"""Shapes of masks: distances between their surfaces, and lesions matched one by one.

The surface of a mask is its voxels with one of six neighbours outside it; beyond the image is outside. Distances are
measured between the centres of surface voxels, each voxel counting once, as in MONAI. A k-d tree finds the nearest
voxels. It is exact like a distance transform, but its cost follows the surfaces, not the box around them.

A lesion is a connected component of a mask, its voxels joined over 26 neighbours. Two published schemes are values of
one rule:

- `OVERLAP`, the default, counts as ISLES 2022 does. A true lesion is found if any voxel of it is predicted, and a
  predicted lesion is invented if it touches no true one. No length in voxels enters, so it is the same on any grid.
- `BRATS2023_GLIOMA` is the lesion-wise scheme of BraTS 2023. True lesions that three dilations (over 18 neighbours)
  join are one. A predicted component belongs to every true lesion whose dilation it touches. True lesions of 50 mm3 or
  less are ignored, and what is predicted there is not invented either.

The lesion-wise Dice is that of BraTS 2023 in both schemes. Each true lesion is compared with all predicted components
that belong to it. Missed and invented lesions count 0, and the mean is taken over all.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainsegnet._types import Array, Doubles, Mask, Millimetres
from brainsegnet.errors import BrainSegNetError, GridMismatch
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


_NEIGHBOURS_26 = np.ones((3, 3, 3), bool)
_NEIGHBOURS_18 = ndimage.generate_binary_structure(3, 2)


@dataclass(frozen=True)
class LesionRule:
    """When a predicted component belongs to a true lesion, and which lesions count.

    Attributes:
        dilation: Number of voxels by which true lesions are dilated before they are joined and matched; 0 requires
            overlap.
        smallest_mm3: True lesions of this volume or less are ignored.
    """

    dilation: int = 0
    smallest_mm3: float = 0.0

    def __post_init__(self) -> None:
        if self.dilation < 0 or not self.smallest_mm3 >= 0:
            raise BrainSegNetError(f"dilation and smallest lesion must be 0 or more, not {self}")

    def describe(self) -> str:
        """The rule in one or two sentences, for tables.

        Examples:
            >>> LesionRule().describe().split("; ")[0]
            'Lesions are components over 26 neighbours'
        """
        if not self.dilation:
            rule = "one is found where any voxel of it is predicted (as in ISLES 2022)"
        else:
            rule = f"true ones are joined and matched after {self.dilation} dilations over 18 (as in BraTS 2023)"
        small = f"; true ones up to {self.smallest_mm3:g} mm3 are ignored" if self.smallest_mm3 else ""
        return f"Lesions are components over 26 neighbours; {rule}{small}."


OVERLAP = LesionRule()
BRATS2023_GLIOMA = LesionRule(dilation=3, smallest_mm3=50.0)
LESION_RULES: Mapping[str, LesionRule] = {"overlap": OVERLAP, "brats2023": BRATS2023_GLIOMA}
"""The rules by the names that the command line uses."""


@dataclass(frozen=True)
class LesionScore:
    """Lesions of a prediction matched with the true ones.

    Attributes:
        dice: Mean Dice over true and invented lesions, with 0 for missed and invented ones; 1 if there is no lesion.
        f1: found / (found + (missed + invented) / 2); 1 if there is no lesion.
        found: Number of true lesions that were found.
        missed: Number of true lesions that were missed.
        invented: Number of predicted components that belong to no true lesion.
    """

    dice: float
    f1: float
    found: int
    missed: int
    invented: int


def score_lesions(predicted: Mask, truth: Mask, spacing_mm: Millimetres, rule: LesionRule = OVERLAP) -> LesionScore:
    """Match the lesions of a prediction with the true ones, in boolean masks (D, H, W).

    Raises:
        GridMismatch: the masks differ in shape.

    Examples:
        >>> predicted, truth = np.zeros((2, 3, 16, 16), bool)
        >>> truth[1, 1:3, 1:3] = truth[1, 8:10, 8:10] = True
        >>> predicted[1, 1:3, 1:3] = predicted[1, 13:, 2:4] = True
        >>> score_lesions(predicted, truth, (1.0, 1.0, 1.0))
        LesionScore(dice=0.3333333333333333, f1=0.5, found=1, missed=1, invented=1)
    """
    require_one_grid(predicted, truth)
    box = box_of_both(predicted, truth, margin=rule.dilation)
    lesions, count = ndimage.label(_dilate(truth[box], rule.dilation), _NEIGHBOURS_26)
    lesions = np.where(truth[box], lesions, 0)
    parts, number = ndimage.label(predicted[box], _NEIGHBOURS_26)
    lesion, part = _match(lesions, parts, rule.dilation)

    sizes = np.bincount(lesions.ravel(), minlength=count + 1)
    part_sizes = np.bincount(parts.ravel(), minlength=number + 1)
    hits = np.bincount(lesions[parts > 0], minlength=count + 1)
    claimed = np.bincount(lesion, weights=part_sizes[part], minlength=count + 1)
    dice = np.divide(2 * hits, sizes + claimed, out=np.zeros(count + 1), where=sizes > 0)

    counted = sizes * np.prod(spacing_mm) > rule.smallest_mm3
    counted[0] = False
    found = int(np.count_nonzero(counted & (claimed > 0)))
    missed = int(np.count_nonzero(counted)) - found
    invented = number - len(np.unique(part))
    if not found + missed + invented:
        return LesionScore(1.0, 1.0, 0, 0, 0)
    mean_dice = float(dice[counted].sum()) / (found + missed + invented)
    return LesionScore(mean_dice, 2 * found / (2 * found + missed + invented), found, missed, invented)


def _dilate(mask: Mask, times: int) -> Mask:
    return ndimage.binary_dilation(mask, _NEIGHBOURS_18, times) if times else mask


def _match(lesions: Array, parts: Array, dilation: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of true lesions, from 1, and of the predicted parts that belong to them: each pair once."""
    pairs = []
    for index, tight in enumerate(ndimage.find_objects(lesions), start=1):
        box = tuple(slice(max(0, side.start - dilation), side.stop + dilation) for side in tight)
        reach = _dilate(lesions[box] == index, dilation)
        pairs += [(index, part) for part in np.unique(parts[box][reach]) if part]
    lesion, part = np.array(pairs, np.int64).reshape(-1, 2).T
    return lesion, part
