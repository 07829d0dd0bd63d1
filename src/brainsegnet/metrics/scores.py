"""Scores of a prediction against the truth for each region, with rules for empty masks, so that no score is NaN.

`EMPTY_RULE` says what an empty mask counts. Such cases stay in every mean and are also counted separately.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import compress
from typing import Any, Literal

import numpy as np

from brainsegnet._types import Array, Mask, Millimetres
from brainsegnet.errors import BrainSegNetError
from brainsegnet.metrics import Hd95, ScoreOptions
from brainsegnet.metrics.lesion_matching import LESION_RULES, OVERLAP, LesionRule, score_lesions
from brainsegnet.metrics.shapes import HD95_RULES, box_of_both, require_one_grid, surface_distances
from brainsegnet.task import Task

Empty = Literal["both", "prediction", "truth"]
EMPTY_KINDS: tuple[Empty, ...] = ("both", "prediction", "truth")
"""Which masks of a region may be empty while the case is still scored."""

EMPTY_RULE = (
    "Where prediction and truth are both empty, Dice, sensitivity, precision, surface Dice and Dice and F1 by lesion "
    "are 1, distances and volume errors 0. "
    "Where only one of them is empty, those scores are 0, HD95 and ASSD are the diagonal of the image, and the "
    "relative volume error is -1 (nothing predicted) or 1 (nothing true). "
    "No case is left out of a mean."
)


@dataclass(frozen=True)
class RegionScore:
    """How well one region of one case was found. P is the predicted mask, T the true mask.

    Source: section on the BRATS database in the paper, and the precision of ISLES.

    Attributes:
        dice: |P and T| / ((|P| + |T|) / 2).
        sensitivity: |P and T| / |T|, called recall in ISLES.
        specificity: |not P and not T| / |not T|.
        precision: |P and T| / |P|.
        hd95_mm: Hausdorff distance, 95th percentile, in mm, by the definition that `ScoreRules` names.
        predicted_volume_ml: Volume of P in ml.
        true_volume_ml: Volume of T in ml.
        volume_error_ml: Volume of P minus volume of T in ml; positive if too much is predicted.
        relative_volume_error: Volume error as a share of the volume of T.
        assd_mm: Average symmetric surface distance in mm, over the voxels of both surfaces.
        surface_dice: Share of both surfaces within the tolerance of `ScoreRules` from the other surface.
        lesion_dice: Mean Dice over the lesions, with 0 for missed and invented lesions; see `metrics.lesion_matching`.
        lesion_f1: F1 score of the detection of lesions.
        lesions_found: Number of true lesions that were found.
        lesions_missed: Number of true lesions that were missed.
        lesions_invented: Number of predicted lesions that belong to no true lesion.
        empty: Which mask is empty: "prediction", "truth" or "both". None if neither is; see `EMPTY_RULE`.
    """

    dice: float
    sensitivity: float
    specificity: float
    precision: float
    hd95_mm: float
    predicted_volume_ml: float
    true_volume_ml: float
    volume_error_ml: float
    relative_volume_error: float
    assd_mm: float
    surface_dice: float
    lesion_dice: float
    lesion_f1: float
    lesions_found: int
    lesions_missed: int
    lesions_invented: int
    empty: Empty | None = None


METRICS = tuple(field.name for field in fields(RegionScore) if field.name != "empty")
"""The metrics of a `RegionScore`, in the order of the tables."""
LESION_COUNTS = ("lesions_found", "lesions_missed", "lesions_invented")

CaseScores = Mapping[str, Mapping[str, RegionScore]]
"""Case name to region to score."""


@dataclass(frozen=True)
class ScoreRules:
    """What the definitions of the scores leave open.

    Attributes:
        tolerance_mm: Distance in mm within which two surfaces agree, for the surface Dice.
        lesions: How predicted lesions are matched to true lesions.
        hd95: Definition of HD95: `max` or `pooled`, see `SurfaceDistances.hd95_mm`.

    Raises:
        BrainSegNetError: the tolerance is negative or infinite, or the definition of HD95 is unknown.
    """

    tolerance_mm: float = 1.0
    lesions: LesionRule = OVERLAP
    hd95: Hd95 = "max"

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance_mm < math.inf:
            raise BrainSegNetError(f"the tolerance must be a number of millimetres from 0 up, not {self.tolerance_mm}")
        if self.hd95 not in HD95_RULES:
            raise BrainSegNetError(f"hd95 must be {' or '.join(HD95_RULES)}, not {self.hd95!r}")

    @classmethod
    def of(cls, options: ScoreOptions) -> "ScoreRules":
        """The rules that options name."""
        return cls(options.tolerance_mm, LESION_RULES[options.lesions], options.hd95)

    def describe(self) -> dict[str, str]:
        """Sentences for the notes of a table: on HD95, on the surface Dice, and on the matching of lesions."""
        return {
            "hd95_rule": HD95_RULES[self.hd95],
            "surface_rule": "Surface Dice counts surface voxels (one of six neighbours outside) within "
            f"{self.tolerance_mm:g} mm of the other surface.",
            "lesion_rule": self.lesions.describe(),
        }


USUAL_RULES = ScoreRules()


def score_case(
    predicted: Array, truth: Array, task: Task, spacing_mm: Millimetres, case: str = "", rules: ScoreRules = USUAL_RULES
) -> dict[str, RegionScore]:
    """Score every region of a task in one case.

    Args:
        predicted: Predicted labels (D, H, W) in the convention of the task.
        truth: True labels (D, H, W) in the convention of the task.
        task: Task that names the regions.
        spacing_mm: Distances between voxel centres along (D, H, W).
        case: Name of the case, for messages.
        rules: What the definitions leave open.

    Raises:
        GridMismatch: the label maps differ in shape.
        LabelError: a label value is outside the task.

    Examples:
        >>> from brainsegnet.task import BRATS2015
        >>> truth = np.repeat([0, 1, 2, 4], 9).reshape(4, 3, 3)
        >>> predicted = np.repeat([0, 3, 0, 4], 9).reshape(4, 3, 3)
        >>> {name: score.dice for name, score in score_case(predicted, truth, BRATS2015, (1.0, 1.0, 1.0)).items()}
        {'whole': 0.8, 'core': 1.0, 'enhancing': 1.0}
    """
    require_one_grid(predicted, truth, case)
    task.check(predicted, case)
    task.check(truth, case)
    box = box_of_both(predicted, truth, margin=rules.lesions.dilation)
    p, t = predicted[box], truth[box]
    return {
        region: score_region(np.isin(p, values), np.isin(t, values), spacing_mm, rules, truth.shape)
        for region, values in task.regions.items()
    }


def score_region(
    predicted: Mask,
    truth: Mask,
    spacing_mm: Millimetres,
    rules: ScoreRules = USUAL_RULES,
    shape: tuple[int, ...] | None = None,
) -> RegionScore:
    """Score two boolean masks (D, H, W) by the definitions of the paper (section on the BRATS database).

    Specificity is 1 if the truth leaves no background. Empty masks follow `EMPTY_RULE`. If the masks are cut from an
    image and both are empty outside the cut, `shape` is that of the image.

    Raises:
        GridMismatch: the masks differ in shape.

    Examples:
        >>> truth = np.zeros((155, 240, 240), bool)
        >>> truth[50:90, 100:140, 100:140] = True
        >>> score = score_region(np.roll(truth, 4, axis=2), truth, (1.0, 1.0, 1.0))
        >>> score.dice, score.sensitivity, score.precision, score.hd95_mm, score.true_volume_ml
        (0.9, 0.9, 0.9, 4.0, 64.0)
        >>> score_region(np.zeros_like(truth), truth, (1.0, 1.0, 1.0)).hd95_mm.__round__(2)
        373.13
    """
    require_one_grid(predicted, truth)
    shape = shape or truth.shape
    p, t, hits = (int(np.count_nonzero(mask)) for mask in (predicted, truth, predicted & truth))
    voxel_ml, background = math.prod(spacing_mm) / 1000, math.prod(shape) - t
    distances = surface_distances(predicted, truth, spacing_mm, shape)
    lesions = score_lesions(predicted, truth, spacing_mm, rules.lesions)
    return RegionScore(
        dice=ratio(2 * hits, p + t, if_nothing=1.0),
        sensitivity=ratio(hits, t, if_nothing=float(p == 0)),
        specificity=ratio(background - (p - hits), background, if_nothing=1.0),
        precision=ratio(hits, p, if_nothing=float(t == 0)),
        hd95_mm=distances.hd95_mm(rules.hd95),
        predicted_volume_ml=p * voxel_ml,
        true_volume_ml=t * voxel_ml,
        volume_error_ml=(p - t) * voxel_ml,
        relative_volume_error=ratio(p - t, t, if_nothing=float(p > 0)),
        assd_mm=distances.assd_mm,
        surface_dice=distances.dice_within(rules.tolerance_mm),
        lesion_dice=lesions.dice,
        lesion_f1=lesions.f1,
        lesions_found=lesions.found,
        lesions_missed=lesions.missed,
        lesions_invented=lesions.invented,
        empty=next(compress(EMPTY_KINDS, (p == t == 0, p == 0, t == 0)), None),
    )


def dice(predicted: Mask, truth: Mask) -> float:
    """Dice of two masks of the same shape; 1 if both are empty.

    Raises:
        GridMismatch: the masks differ in shape.
    """
    require_one_grid(predicted, truth)
    sizes = int(np.count_nonzero(predicted)) + int(np.count_nonzero(truth))
    return ratio(2 * int(np.count_nonzero(predicted & truth)), sizes, if_nothing=1.0)


def region_dice(found_classes: Array, true_classes: Array, task: Task) -> dict[str, float]:
    """Dice of each region of a task, from classes (D, H, W) as the network and `Task.encode` give them.

    Raises:
        GridMismatch: the arrays differ in shape.
    """
    regions = zip(task.regions, task.region_classes, strict=True)
    return {region: dice(np.isin(found_classes, k), np.isin(true_classes, k)) for region, k in regions}


def to_dicts(cases: CaseScores) -> dict[str, dict[str, dict[str, Any]]]:
    """Case name to region to the values of its `RegionScore`, for JSON."""
    return {name: {region: asdict(score) for region, score in regions.items()} for name, regions in cases.items()}


def ratio(part: float, whole: float, if_nothing: float) -> float:
    """The share `part / whole`, or `if_nothing` if the whole is 0."""
    return part / whole if whole else if_nothing
