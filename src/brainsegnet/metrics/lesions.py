"""Lesion by lesion: which were found, missed or invented, and how well each was outlined.

A lesion is a connected component of a mask, its voxels joined over 26 neighbours. Two published schemes are values of
one rule:

- `OVERLAP`, the default, counts as ISLES 2022 does: a true lesion is found if the prediction holds any voxel of it, and
  a predicted one is invented if it touches no true one. No length in voxels enters, so it is the same on any grid.
- `BRATS2023_GLIOMA` is the lesion-wise scheme of BraTS 2023: true lesions that three dilations (over 18 neighbours)
  join are one, a predicted component belongs to every true lesion whose dilation it touches, and true lesions of 50 mm3
  or less are ignored (what was predicted there is not invented either).

The lesion-wise Dice is BraTS 2023's in both: of each true lesion against all predicted components that belong to it,
0 for each missed and each invented lesion, and the mean of them all.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainsegnet._types import Array, Mask, Millimetres
from brainsegnet.errors import BrainSegNetError
from brainsegnet.metrics.surfaces import box_of_both, require_one_grid

_NEIGHBOURS_26 = np.ones((3, 3, 3), bool)
_NEIGHBOURS_18 = ndimage.generate_binary_structure(3, 2)


@dataclass(frozen=True)
class LesionRule:
    """When a predicted component belongs to a true lesion, and which lesions count.

    Attributes:
        dilation: Voxels by which true lesions are dilated before they are joined and matched; 0 requires overlap.
        smallest_mm3: True lesions of this volume or less are ignored.
    """

    dilation: int = 0
    smallest_mm3: float = 0.0

    def __post_init__(self) -> None:
        if self.dilation < 0 or not self.smallest_mm3 >= 0:
            raise BrainSegNetError(f"dilation and smallest lesion must be 0 or more, not {self}")

    def describe(self) -> str:
        """The rule as a sentence or two, for tables.

        >>> LesionRule().describe()
        'Lesions are components over 26 neighbours; one is found where any voxel of it is predicted (as in ISLES 2022).'
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
"""Rules by the names that the command line knows."""


@dataclass(frozen=True)
class LesionScore:
    """Lesions of one mask against those of another.

    Attributes:
        dice: Mean Dice over true and invented lesions, missed and invented ones as 0; 1 if there is no lesion at all.
        f1: found / (found + (missed + invented) / 2); 1 if there is no lesion at all.
        found, missed: Numbers of true lesions.
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
