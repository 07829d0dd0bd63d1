"""Scores of a prediction against the truth, region by region, with rules for empty masks: no score is ever NaN.

`EMPTY_RULE` says what an empty mask counts for; such cases stay in every mean and are counted apart.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import compress
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainsegnet.errors import DatasetError, GridMismatch
from brainsegnet.task import Task
from brainsegnet.volume import Box

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
Shape = tuple[int, ...]
Empty = Literal["both", "prediction", "truth"]

METRICS = ("dice", "sensitivity", "specificity", "precision", "hd95_mm", "predicted_volume_ml", "true_volume_ml")
"""The figures of a `RegionScore`, in the order of the tables."""

EMPTY_KINDS: tuple[Empty, ...] = ("both", "prediction", "truth")
"""Which mask of a region may be empty while the case is still scored."""

EMPTY_RULE = (
    "Where prediction and truth are both empty, Dice, sensitivity and precision are 1 and HD95 is 0 mm. "
    "Where only one of them is empty, Dice, sensitivity and precision are 0 and HD95 is the diagonal of the image. "
    "No case is left out of a mean."
)


@dataclass(frozen=True)
class RegionScore:
    """How well one region of one case was found.

    Attributes:
        dice: |P and T| / ((|P| + |T|) / 2).
        sensitivity: |P and T| / |T|, the recall of ISLES.
        specificity: |not P and not T| / |not T|.
        precision: |P and T| / |P|.
        hd95_mm: The larger of the two directed 95th percentiles of the distance from surface to surface.
        predicted_volume_ml: Volume of the prediction P.
        true_volume_ml: Volume of the truth T.
        empty: Which mask is empty, None if neither is; see `EMPTY_RULE`.
    """

    dice: float
    sensitivity: float
    specificity: float
    precision: float
    hd95_mm: float
    predicted_volume_ml: float
    true_volume_ml: float
    empty: Empty | None = None


@dataclass(frozen=True)
class Summary:
    """Mean and spread of the scores of a cohort.

    Attributes:
        cases: Number of cases, those with empty masks included.
        mean: Region to metric to mean over all cases.
        sd: Region to metric to standard deviation (n - 1 in the denominator; 0 for a single case).
        empty: Region to the number of cases in which "both", the "prediction" or the "truth" was empty.
    """

    cases: int
    mean: Mapping[str, Mapping[str, float]]
    sd: Mapping[str, Mapping[str, float]]
    empty: Mapping[str, Mapping[Empty, int]]


def score_region(predicted: Mask, truth: Mask, spacing_mm: Spacing) -> RegionScore:
    """Score one region by the definitions of the paper (section on the BRATS database; precision as for ISLES).

    Specificity is 1 where the truth leaves no background to mistake; empty masks follow `EMPTY_RULE`.

    Args:
        predicted: Boolean mask (D, H, W).
        truth: Boolean mask (D, H, W).
        spacing_mm: Distance between voxel centres along (D, H, W).

    Raises:
        GridMismatch: the masks differ in shape.

    >>> truth = np.zeros((155, 240, 240), bool)
    >>> truth[50:90, 100:140, 100:140] = True
    >>> score = score_region(np.roll(truth, 4, axis=2), truth, (1.0, 1.0, 1.0))
    >>> score.dice, score.sensitivity, score.precision, score.hd95_mm, score.true_volume_ml
    (0.9, 0.9, 0.9, 4.0, 64.0)
    >>> score_region(np.zeros_like(truth), truth, (1.0, 1.0, 1.0)).hd95_mm.__round__(2)
    373.13
    """
    _require_one_grid(predicted.shape, truth.shape)
    p, t, hits = (int(np.count_nonzero(mask)) for mask in (predicted, truth, predicted & truth))
    voxel_ml = math.prod(spacing_mm) / 1000
    return RegionScore(
        dice=_ratio(2 * hits, p + t, if_nothing=1.0),
        sensitivity=_ratio(hits, t, if_nothing=float(p == 0)),
        specificity=_ratio(truth.size - t - (p - hits), truth.size - t, if_nothing=1.0),
        precision=_ratio(hits, p, if_nothing=float(t == 0)),
        hd95_mm=hd95_mm(predicted, truth, spacing_mm),
        predicted_volume_ml=p * voxel_ml,
        true_volume_ml=t * voxel_ml,
        empty=next(compress(EMPTY_KINDS, (p == t == 0, p == 0, t == 0)), None),
    )


def score_case(
    predicted: NDArray[Any], truth: NDArray[Any], task: Task, spacing_mm: Spacing, case: str = ""
) -> dict[str, RegionScore]:
    """Score every region of the task.

    Args:
        predicted: Labels (D, H, W) in the convention of the task.
        truth: Labels (D, H, W) in the convention of the task.
        task: Which labels a region unites.
        spacing_mm: Distance between voxel centres along (D, H, W).
        case: What the case is called in messages.

    Raises:
        GridMismatch: the label maps differ in shape.
        LabelError: a label value outside the task.

    >>> from brainsegnet.task import BRATS2015
    >>> truth = np.repeat([0, 1, 2, 4], 9).reshape(4, 3, 3)
    >>> predicted = np.repeat([0, 3, 0, 4], 9).reshape(4, 3, 3)
    >>> {name: score.dice for name, score in score_case(predicted, truth, BRATS2015, (1.0, 1.0, 1.0)).items()}
    {'whole': 0.8, 'core': 1.0, 'enhancing': 1.0}
    """
    _require_one_grid(predicted.shape, truth.shape, case)
    task.check(predicted, case)
    task.check(truth, case)
    return {
        region: score_region(np.isin(predicted, values), np.isin(truth, values), spacing_mm)
        for region, values in task.regions.items()
    }


def summarise(cases: Mapping[str, Mapping[str, RegionScore]]) -> Summary:
    """Mean and standard deviation of every metric over all cases, and how many masks were empty.

    Args:
        cases: Case name to region to score; every case has the regions of the first.

    Raises:
        DatasetError: there is no case, or a case lacks a region.

    >>> found, missed = np.ones((1, 1, 1), bool), np.zeros((1, 1, 1), bool)
    >>> a, b = (score_region(p, found, (1.0, 1.0, 1.0)) for p in (found, missed))
    >>> summary = summarise({"a": {"lesion": a}, "b": {"lesion": b}})
    >>> summary.mean["lesion"]["dice"], round(summary.sd["lesion"]["dice"], 4), summary.empty["lesion"]
    (0.5, 0.7071, {'both': 0, 'prediction': 1, 'truth': 0})
    """
    regions = _common_regions(cases)
    scores = {region: [case[region] for case in cases.values()] for region in regions}
    figures = {r: np.array([[getattr(s, m) for m in METRICS] for s in scores[r]], np.float64) for r in regions}
    spread = {r: f.std(axis=0, ddof=1) if len(f) > 1 else np.zeros(len(METRICS)) for r, f in figures.items()}
    return Summary(
        cases=len(cases),
        mean={r: dict(zip(METRICS, f.mean(axis=0).tolist(), strict=True)) for r, f in figures.items()},
        sd={r: dict(zip(METRICS, s.tolist(), strict=True)) for r, s in spread.items()},
        empty={r: {kind: sum(s.empty == kind for s in scores[r]) for kind in EMPTY_KINDS} for r in regions},
    )


def dice(predicted: Mask, truth: Mask) -> float:
    """Dice of two masks of any one shape; 1 where both are empty.

    Raises:
        GridMismatch: the masks differ in shape.

    >>> dice(np.array([True, True, False]), np.array([True, False, False])).__round__(3)
    0.667
    """
    _require_one_grid(predicted.shape, truth.shape)
    sizes = int(np.count_nonzero(predicted)) + int(np.count_nonzero(truth))
    return _ratio(2 * int(np.count_nonzero(predicted & truth)), sizes, if_nothing=1.0)


def hd95_mm(predicted: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """The 95th percentile of the Hausdorff distance between the surfaces of two masks, in millimetres.

    A surface is the voxels of a mask with one of six neighbours outside it; beyond the image is outside. The result is
    the larger of the two directed percentiles, as in MONAI's `compute_hausdorff_distance`.

    Args:
        predicted: Boolean mask (D, H, W).
        truth: Boolean mask (D, H, W).
        spacing_mm: Distance between voxel centres along (D, H, W).

    Raises:
        GridMismatch: the masks differ in shape.

    >>> a, b = np.zeros((2, 20, 64, 64), bool)
    >>> a[4, 10, 10] = b[6, 10, 10] = True
    >>> hd95_mm(a, b, (6.5, 1.2, 1.2)), hd95_mm(b, b, (6.5, 1.2, 1.2))
    (13.0, 0.0)
    """
    _require_one_grid(predicted.shape, truth.shape)
    if predicted.any() != truth.any():
        return math.hypot(*(n * mm for n, mm in zip(truth.shape, spacing_mm, strict=True)))
    if not truth.any():
        return 0.0
    box = Box.around(predicted | truth).slices
    a, b = _surface(predicted[box]), _surface(truth[box])
    return max(_directed_mm(a, b, spacing_mm), _directed_mm(b, a, spacing_mm))


def _surface(mask: Mask) -> Mask:
    return mask & ~ndimage.binary_erosion(mask)


def _directed_mm(surface: Mask, target: Mask, spacing_mm: Spacing) -> float:
    distance_mm = np.asarray(ndimage.distance_transform_edt(~target, sampling=spacing_mm))
    return float(np.percentile(distance_mm[surface], 95))


def _ratio(part: int, whole: int, if_nothing: float) -> float:
    return part / whole if whole else if_nothing


def _common_regions(cases: Mapping[str, Mapping[str, RegionScore]]) -> tuple[str, ...]:
    if not cases:
        raise DatasetError("there are no scores to summarise; evaluate at least one case whose truth is known")
    first, *others = cases
    for name in others:
        if set(cases[name]) != set(cases[first]):
            raise DatasetError(
                f"case {name} has scores of {sorted(cases[name])} but case {first} of {sorted(cases[first])}; "
                "score all cases in one task"
            )
    return tuple(cases[first])


def _require_one_grid(predicted: Shape, truth: Shape, case: str = "") -> None:
    if predicted != truth:
        where = f"case {case}: " if case else ""
        raise GridMismatch(
            f"{where}the prediction is {predicted} but the truth is {truth}; "
            "segment the scan on which the truth was drawn"
        )
