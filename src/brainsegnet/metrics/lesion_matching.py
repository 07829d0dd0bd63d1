"""Lesions of a prediction matched one by one with the true ones.

A lesion is a connected component of a mask, its voxels joined over 26 neighbours. Three published schemes are values of
one rule:

- `OVERLAP`, the default, counts as ISLES 2022 does. A true lesion is found if any voxel of it is predicted, and a
  predicted lesion is invented if it touches no true one. No length in voxels enters, so it is the same on any grid.
- `BRATS2023_GLIOMA` is the lesion-wise scheme of BraTS 2023. True lesions that three dilations (over 18 neighbours)
  join are one. A predicted component belongs to every true lesion whose dilation it touches. True lesions of 50 mm3 or
  less are ignored, and what is predicted there is not invented either.
- `BRATS2026_GLIOMA` is that of BraTS 2026. A true lesion and a predicted component that overlap form a pair, each in at
  most one pair, so that the sum of the Dice of the pairs is largest. There is neither dilation nor smallest lesion.

The lesion-wise Dice is that of BraTS 2023 in all schemes. Each true lesion is compared with all predicted components
that belong to it. Missed and invented lesions count 0, and the mean is taken over all. BraTS 2026 states the mean over
the pairs alone, which is this value times (found + missed + invented) / found.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainsegnet._types import Array, Mask, Millimetres
from brainsegnet.errors import BrainSegNetError
from brainsegnet.metrics import LesionRuleName
from brainsegnet.metrics.shapes import box_of_both, require_one_grid

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Numbers of true lesions, from 1, and of the predicted components that belong to them: each pair once."""

SMALLEST_DICE = 1e-6
"""Dice from which a true and a predicted lesion can be a pair in one-to-one matching, as in BraTS 2026."""
_NEIGHBOURS_26 = np.ones((3, 3, 3), bool)
_NEIGHBOURS_18 = ndimage.generate_binary_structure(3, 2)


@dataclass(frozen=True)
class LesionRule:
    """When a predicted component belongs to a true lesion, and which lesions count.

    Attributes:
        dilation: Number of voxels by which true lesions are dilated before they are joined and matched; 0 requires
            overlap.
        smallest_mm3: True lesions of this volume or less are ignored.
        one_to_one: Whether a true lesion and a predicted component belong to at most one of the other kind.

    Raises:
        BrainSegNetError: a number is negative, or one-to-one matching is combined with a dilation.
    """

    dilation: int = 0
    smallest_mm3: float = 0.0
    one_to_one: bool = False

    def __post_init__(self) -> None:
        if self.dilation < 0 or not self.smallest_mm3 >= 0:
            raise BrainSegNetError(f"dilation and smallest lesion must be 0 or more, not {self}")
        if self.one_to_one and self.dilation:
            raise BrainSegNetError(f"one-to-one matching takes no dilation, not {self.dilation}; set one of them to 0")

    def describe(self) -> str:
        """The rule in one or two sentences, for tables.

        Examples:
            >>> LesionRule().describe().split("; ")[0]
            'Lesions are components over 26 neighbours'
        """
        if self.one_to_one:
            rule = "true and predicted ones that overlap are paired one to one, with the largest sum of Dice"
            rule += " (as in BraTS 2026)"
        elif not self.dilation:
            rule = "one is found where any voxel of it is predicted (as in ISLES 2022)"
        else:
            rule = f"true ones are joined and matched after {self.dilation} dilations over 18 (as in BraTS 2023)"
        small = f"; true ones up to {self.smallest_mm3:g} mm3 are ignored" if self.smallest_mm3 else ""
        return f"Lesions are components over 26 neighbours; {rule}{small}."


OVERLAP = LesionRule()
BRATS2023_GLIOMA = LesionRule(dilation=3, smallest_mm3=50.0)
BRATS2026_GLIOMA = LesionRule(one_to_one=True)
LESION_RULES: Mapping[LesionRuleName, LesionRule] = {
    "overlap": OVERLAP,
    "brats2023": BRATS2023_GLIOMA,
    "brats2026": BRATS2026_GLIOMA,
}
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
    lesion, part = _pair(lesions, parts) if rule.one_to_one else _match(lesions, parts, rule.dilation)

    sizes = np.bincount(lesions.ravel(), minlength=count + 1)
    part_sizes = np.bincount(parts.ravel(), minlength=number + 1)
    claimed = np.bincount(lesion, weights=part_sizes[part], minlength=count + 1)
    hits = np.bincount(lesion, weights=_overlap(lesions, parts, lesion, part), minlength=count + 1)
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


def _match(lesions: Array, parts: Array, dilation: int) -> Pairs:
    """Every true lesion with every predicted component that its dilation touches."""
    pairs = []
    for index, tight in enumerate(ndimage.find_objects(lesions), start=1):
        box = tuple(slice(max(0, side.start - dilation), side.stop + dilation) for side in tight)
        reach = _dilate(lesions[box] == index, dilation)
        pairs += [(index, part) for part in np.unique(parts[box][reach]) if part]
    lesion, part = np.array(pairs, np.int64).reshape(-1, 2).T
    return lesion, part


def _pair(lesions: Array, parts: Array) -> Pairs:
    """Pairs of true lesions and predicted components, each in one pair at most, with the largest sum of Dice."""
    from scipy.optimize import linear_sum_assignment  # slow to import, and the usual rule does not need it

    lesion, part = _match(lesions, parts, dilation=0)
    sizes, part_sizes = np.bincount(lesions.ravel()), np.bincount(parts.ravel())
    dice = 2 * _overlap(lesions, parts, lesion, part) / (sizes[lesion] + part_sizes[part])
    pairs = []
    for group in _groups(lesion, part):
        rows, row = np.unique(lesion[group], return_inverse=True)
        columns, column = np.unique(part[group], return_inverse=True)
        gain = np.zeros((len(rows), len(columns)))
        gain[row, column] = np.where(dice[group] >= SMALLEST_DICE, dice[group], 0)
        best = linear_sum_assignment(gain, maximize=True)
        pairs += [(rows[r], columns[c]) for r, c in zip(*best, strict=True) if gain[r, c]]
    lesion, part = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
    return lesion, part


def _groups(lesion: NDArray[np.int64], part: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The places of pairs that share lesions or parts, directly or through others, group by group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(lesion):
        return
    nodes = lesion.max() + part.max() + 2
    graph = coo_array((np.ones(len(lesion)), (lesion, lesion.max() + 1 + part)), shape=(nodes, nodes))
    group = connected_components(graph, directed=False)[1][lesion]
    order = np.argsort(group, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _overlap(lesions: Array, parts: Array, lesion: NDArray[np.int64], part: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of voxels that each pair of a lesion and a part shares."""
    both, stride = (lesions > 0) & (parts > 0), int(parts.max()) + 1
    known, counts = np.unique(lesions[both].astype(np.int64) * stride + parts[both], return_counts=True)
    if not len(known):
        return np.zeros(len(lesion), np.int64)
    wanted = lesion * stride + part
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[place] == wanted, counts[place], 0)
