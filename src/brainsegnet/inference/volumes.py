"""What is read off a result: the volume of each tissue and region, and the interval that it is believed to lie in."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainsegnet.inference.card import Card, IntervalNote
from brainsegnet.inference.uncertainty import region_chance, volume_interval
from brainsegnet.task import Task
from brainsegnet.volume import LabelMap


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
    chances: NDArray[np.float32], card: Card, voxel_ml: float, as_validated: bool = True
) -> dict[str, Interval]:
    """The interval of the volume of each region, from probabilities (K, d, h, w) of the box.

    The card tells how often intervals of a single pass over all sequences held the true volume; nobody knows that of
    mirrored passes or parts of the sequences, which are not `as_validated`.
    """
    found = {}
    for region, classes in zip(card.task.regions, card.task.region_classes, strict=True):
        note = card.intervals.get(region, IntervalNote())
        least, most = volume_interval(region_chance(chances, classes), voxel_ml, note.tail)
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
