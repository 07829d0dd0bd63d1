"""How uncertain a result is: the entropy of the probabilities, and the interval of a volume.

The interval runs from the volume with a probability above 1 - alpha to the volume with a probability above alpha. Alpha
is chosen on unseen cases, so that the interval holds the true volume in a given share of them. Each subset of the
sequences has its own alpha, if the card holds it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from brainsegnet._types import Floats
from brainsegnet.model.card import Card, IntervalNote


def entropy(probabilities: Floats) -> Floats:
    """Entropy (D, H, W) of class probabilities (K, D, H, W), as a share of its maximum, log K.

    Examples:
        >>> entropy(np.array([1, 0.5, 0, 0.5], np.float32).reshape(2, 2, 1, 1)).ravel().tolist()
        [0.0, 1.0]
    """
    logs = np.log(np.maximum(probabilities, np.float32(1e-12)))
    return np.asarray(np.abs((probabilities * logs).sum(0)) / np.float32(math.log(len(probabilities))), np.float32)


def region_probability(probabilities: Floats, classes: Sequence[int]) -> Floats:
    """Probability (D, H, W) that a voxel is in a region, which combines some of the classes of (K, D, H, W)."""
    return np.asarray(probabilities[list(classes)].sum(0), np.float32)


def volume_interval(probability: Floats, voxel_ml: float, alpha: float) -> tuple[float, float]:
    """Both ends in ml of the interval of a region's volume, from its probability (D, H, W).

    Examples:
        >>> volume_interval(np.array([0.05, 0.5, 0.95, 1], np.float32), 1.0, alpha=0.1)
        (2.0, 3.0)
    """
    least, most = (int(np.count_nonzero(probability > limit)) for limit in (1 - alpha, alpha))
    return least * voxel_ml, most * voxel_ml


@dataclass(frozen=True)
class Interval:
    """Interval for the volume of a region.

    Attributes:
        least_ml: Lower end in ml.
        most_ml: Upper end in ml.
        coverage: Share of unseen cases whose interval held the true volume. None if it is not known for this
            prediction.
        cases: Number of these cases.
        alpha: The interval runs from the volume with a probability above 1 - alpha to that with one above alpha. To
            four digits.
        sequences: Sequences with which alpha was chosen. They are those of the case, or all of the model if the card
            has no alpha for fewer. Empty if the card has none at all.
    """

    least_ml: float
    most_ml: float
    coverage: float | None
    cases: int
    alpha: float = IntervalNote().alpha
    sequences: tuple[str, ...] = ()


def find_intervals(
    probabilities: Floats, card: Card, voxel_ml: float, used: Sequence[str] | None = None, tta: bool = False
) -> dict[str, Interval]:
    """The interval for the volume of each region, from probabilities (K, D, H, W).

    Args:
        probabilities: Probabilities without the dropped components.
        card: Card of the model.
        voxel_ml: Volume of a voxel in ml.
        used: Sequences of the case, in the order of the model; None is all.
        tta: Whether the probabilities are a mean over mirror images. The coverage was measured without them, so it is
            unknown then.
    """
    intervals = {}
    for region, classes in zip(card.task.regions, card.task.region_classes, strict=True):
        alpha, coverage, cases, sequences = _choose_alpha(card, region, tuple(used or card.sequences))
        least, most = volume_interval(region_probability(probabilities, classes), voxel_ml, alpha)
        measured = (None, 0) if tta else (coverage, cases)
        intervals[region] = Interval(round(least, 6), round(most, 6), *measured, float(f"{alpha:.4g}"), sequences)
    return intervals


def _choose_alpha(card: Card, region: str, used: tuple[str, ...]) -> tuple[float, float | None, int, tuple[str, ...]]:
    """Alpha, coverage and cases for these sequences, and the sequences with which alpha was chosen."""
    note = card.intervals.get(region)
    if note is None:
        return IntervalNote().alpha, None, 0, ()
    if used == card.sequences:
        return note.alpha, note.coverage, note.cases, used
    subset = note.subsets.get("+".join(used))
    if subset is None:
        return note.alpha, None, 0, card.sequences
    return subset.alpha, subset.coverage, note.cases, used
