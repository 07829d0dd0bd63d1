"""From predicted classes and probabilities to a result: connected components, entropy, volumes and their intervals.

Errors far from the lesion are mostly separate components with a lower lesion probability. A component is dropped if its
mean lesion probability is lower than that of the most confident component by more than a margin. The margin is chosen
on unseen cases; a model that gains nothing from it has none. The paper keeps all components (section "Testing").

The interval of a volume runs from the volume with a probability above 1 - alpha to the volume with a probability above
alpha. Alpha is chosen on unseen cases, so that the interval holds the true volume in a given share of them. Each subset
of the sequences has its own alpha, if the card holds it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from brainsegnet._types import Floats, Labels
from brainsegnet.inference.tiling import CONFIDENCE_STEPS, TiledPredictor
from brainsegnet.model.card import Card, IntervalNote
from brainsegnet.task import Task
from brainsegnet.volume import LabelMap

SMALLEST_SHARE = 0.1
"""Size, relative to the largest component, from which a component can be the most confident one."""


class FilteredLabels(NamedTuple):
    """Classes (D, H, W) after components were dropped, and how many components and voxels were dropped."""

    classes: Labels
    dropped_components: int
    dropped_voxels: int


def filter_components(classes: Labels, confidence: Labels, margin: float | None) -> FilteredLabels:
    """Set components to background if their confidence is lower than the highest one by more than a margin.

    The largest component is always kept, so that a large faint lesion beside a small bright one is not lost.

    Args:
        classes: Classes (D, H, W); 0 is the background. Voxels that touch at a corner belong to one component.
        confidence: Lesion probability (D, H, W) in `CONFIDENCE_STEPS`. Its mean is the confidence of a component.
        margin: Margin as a probability; None drops nothing.
    """
    unchanged = FilteredLabels(classes, 0, 0)
    if margin is None:
        return unchanged
    components, count = ndimage.label(classes, np.ones((3, 3, 3)))
    if count < 2:
        return unchanged
    lesion = np.flatnonzero(components)
    component = components.ravel()[lesion]
    sizes = np.bincount(component, minlength=count + 1)
    total = np.bincount(component, confidence.ravel()[lesion], minlength=count + 1)
    mean = total / np.maximum(sizes, 1) / CONFIDENCE_STEPS
    highest = mean[sizes >= SMALLEST_SHARE * sizes.max()].max()
    dropped = (mean < highest - margin) & (sizes > 0)
    dropped[sizes.argmax()] = False
    if not dropped.any():
        return unchanged
    filtered = classes.copy()
    filtered.ravel()[lesion[dropped[component]]] = 0
    return FilteredLabels(filtered, int(np.count_nonzero(dropped)), int(sizes[dropped].sum()))


def segment_filtered(
    predictor: TiledPredictor, image: Floats, margin: float | None, slabs: int | None = None
) -> FilteredLabels:
    """The most probable class of each voxel of an image (C, D, H, W), after `filter_components`."""
    if margin is None:
        return FilteredLabels(predictor.classify(image, slabs), 0, 0)
    return filter_components(*predictor.classify_with_confidence(image, slabs), margin)


def filter_probabilities(probabilities: Floats, margin: float | None) -> FilteredLabels:
    """As `segment_filtered`, from probabilities (K, D, H, W)."""
    return filter_components(*labels_and_confidence(probabilities), margin)


def labels_and_confidence(probabilities: Floats) -> tuple[Labels, Labels]:
    """Classes and confidence (D, H, W), as `filter_components` takes them, from probabilities (K, D, H, W)."""
    confidence = np.rint((1 - probabilities[0]) * CONFIDENCE_STEPS).astype(np.uint8)
    return np.argmax(probabilities, 0).astype(np.uint8), confidence


def find_certainty(probabilities: Floats) -> Labels:
    """Probability (D, H, W) of the most probable class in `CONFIDENCE_STEPS`, from probabilities (K, D, H, W)."""
    return np.asarray(np.rint(probabilities.max(0) * CONFIDENCE_STEPS), np.uint8)


def suppress_dropped(probabilities: Floats, classes: Labels) -> Floats:
    """Probabilities (K, D, H, W) with certain background where components were dropped from `classes` (D, H, W)."""
    dropped = (classes == 0) & (probabilities[1:].max(0) > probabilities[0])
    if not dropped.any():
        return probabilities
    suppressed = probabilities.copy()
    suppressed[:, dropped] = 0
    suppressed[0, dropped] = 1
    return suppressed


def choose_classes(lesion: Iterable[Floats]) -> Labels:
    """The most probable class (D, H, W), from the probability of each class but the background, one after another.

    Raises:
        ValueError: there is no class.

    Examples:
        >>> necrosis, oedema = np.array([0.1, 0.3, 0.2]), np.array([0.2, 0.4, 0.5])
        >>> choose_classes([necrosis, oedema]).tolist()
        [0, 2, 2]
    """
    maps = iter(lesion)
    highest = next(maps, None)
    if highest is None:
        raise ValueError("there is no class besides the background")
    total, classes = highest.copy(), np.ones(highest.shape, np.uint8)
    for number, one in enumerate(maps, 2):
        classes[one > highest] = number
        highest = np.maximum(highest, one)
        total += one
    classes[highest <= 1 - total] = 0
    return classes


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


def measure_volumes(labels: LabelMap, task: Task) -> dict[str, dict[str, float]]:
    """Volume of each tissue and of each region of a task, in ml.

    Examples:
        >>> from brainsegnet.task import BRATS2021
        >>> labels = LabelMap(np.array([[[0, 1, 2, 4, 4]]], np.uint8), np.diag([5.0, 1.0, 2.0, 1.0]))
        >>> measure_volumes(labels, BRATS2021)["regions"]
        {'whole': 0.04, 'core': 0.03, 'enhancing': 0.02}
    """
    voxels = np.bincount(labels.array.ravel(), minlength=256)

    def sum_ml(*values: int) -> float:
        return round(float(voxels[list(values)].sum()) * labels.voxel_ml, 6)

    return {
        "labels": {tissue: sum_ml(value) for value, tissue in task.labels.items()},
        "regions": {region: sum_ml(*values) for region, values in task.regions.items()},
    }
