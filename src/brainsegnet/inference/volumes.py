"""How sure a model is: an entropy map, and an interval for the volume of a region, with its coverage on known cases.

The interval runs from the volume that is more probable than 1 - alpha to that which is more probable than alpha. Which
alpha makes it hold the true volume in so many of the cases is found on cases that the model has not seen.

What is read off a result: the volume of each tissue and region, and the interval that it is believed to lie in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainsegnet._types import Floats
from brainsegnet.model.card import Card, IntervalNote
from brainsegnet.task import Task
from brainsegnet.volume import LabelMap


def entropy(probabilities: Floats) -> Floats:
    """Entropy of the class probabilities (K, D, H, W) as a share of the greatest that is possible, (D, H, W).

    >>> entropy(np.array([1, 0.5, 0, 0.5], np.float32).reshape(2, 2, 1, 1)).ravel().tolist()
    [0.0, 1.0]
    """
    logs = np.log(np.maximum(probabilities, np.float32(1e-12)))
    return np.asarray(np.abs((probabilities * logs).sum(0)) / np.float32(math.log(len(probabilities))), np.float32)


def region_probability(probabilities: Floats, classes: Sequence[int]) -> Floats:
    """Probability (D, H, W) that a voxel belongs to a region that unites some of the classes of (K, D, H, W)."""
    return np.asarray(probabilities[list(classes)].sum(0), np.float32)


def volume_interval(probability: Floats, voxel_ml: float, alpha: float) -> tuple[float, float]:
    """Least and greatest volume in ml that a region of this probability (D, H, W) is believed to have.

    >>> volume_interval(np.array([0.05, 0.5, 0.95, 1], np.float32), 1.0, alpha=0.1)
    (2.0, 3.0)
    """
    least, most = (int(np.count_nonzero(probability > limit)) for limit in (1 - alpha, alpha))
    return least * voxel_ml, most * voxel_ml


@dataclass(frozen=True)
class Interval:
    """A volume in millilitres is believed to lie in here.

    Attributes:
        least_ml, most_ml: The ends.
        coverage: Share of the cases, among so many unseen `cases`, in which the true volume did; None if not measured.
    """

    least_ml: float
    most_ml: float
    coverage: float | None
    cases: int


def find_intervals(
    probabilities: NDArray[np.float32], card: Card, voxel_ml: float, as_validated: bool = True
) -> dict[str, Interval]:
    """The interval of the volume of each region, from probabilities (K, d, h, w) of the box.

    The card tells how often intervals of a single pass over all sequences held the true volume; nobody knows that of
    mirrored passes or parts of the sequences, which are not `as_validated`.
    """
    found = {}
    for region, classes in zip(card.task.regions, card.task.region_classes, strict=True):
        note = card.intervals.get(region, IntervalNote())
        least, most = volume_interval(region_probability(probabilities, classes), voxel_ml, note.alpha)
        known = (note.coverage, note.cases) if as_validated else (None, 0)
        found[region] = Interval(round(least, 6), round(most, 6), *known)
    return found


def measure_volumes(labels: LabelMap, task: Task) -> dict[str, dict[str, float]]:
    """Volume of each tissue and of each region of the task, in millilitres.

    >>> from brainsegnet.task import BRATS2021
    >>> labels = LabelMap(np.array([[[0, 1, 2, 4, 4]]], np.uint8), np.diag([5.0, 1.0, 2.0, 1.0]))
    >>> measure_volumes(labels, BRATS2021)["regions"]
    {'whole': 0.04, 'core': 0.03, 'enhancing': 0.02}
    """
    voxels = np.bincount(labels.array.ravel(), minlength=256)

    def millilitres(*values: int) -> float:
        return round(float(voxels[list(values)].sum()) * labels.voxel_ml, 6)

    return {
        "labels": {tissue: millilitres(value) for value, tissue in task.labels.items()},
        "regions": {region: millilitres(*values) for region, values in task.regions.items()},
    }
