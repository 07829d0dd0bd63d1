"""From predicted classes to those of the result: connected components, tissue that is not there, and volumes.

Errors far from the lesion are mostly separate components with a lower lesion probability. A component is dropped if its
mean lesion probability is lower than that of the most confident component by more than a margin. The margin is chosen
on unseen cases; a model that gains nothing from it has none. The paper keeps all components (section "Testing").

A network marks a little enhancing tissue in most tumours that do not enhance. Whether the tissue is there at all is
decided by a logistic regression on five features of the whole scan. It is fitted to simulated cases, and the card holds
its coefficients. Voxels of a tissue that is decided to be absent become another tissue of the lesion.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from brainsegnet._types import Array, Floats, Labels, Mask
from brainsegnet.inference.tiling import CONFIDENCE_STEPS, TiledPredictor
from brainsegnet.inference.uncertainty import Interval
from brainsegnet.model.card import PRESENCE_FEATURES, Card, PresenceRule
from brainsegnet.task import Task
from brainsegnet.volume import LabelMap

SMALLEST_SHARE = 0.1
"""Size, relative to the largest component, from which a component can be the most confident one."""
_NEAREST = 1e-4
"""Ranks are kept so far from 0 and 1 before the logit."""


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


@dataclass(frozen=True)
class Decision:
    """What was decided about a tissue that the network marked.

    Attributes:
        tissue: Name of the tissue.
        probability: Probability that the scan has any of it.
        kept: Whether its voxels stay.
        becomes: Name of the tissue that its voxels become otherwise.
        marked_ml: Volume in ml that the network marked, without dropped components.
        source: Class that was decided about; `target`: the class that its voxels become.
    """

    tissue: str
    probability: float
    kept: bool
    becomes: str
    marked_ml: float
    source: int
    target: int

    def to_json(self) -> dict[str, Any]:
        """What the JSON of a result says."""
        left_out = ("source", "target")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def apply(self, classes: Labels) -> Labels:
        """Classes (D, H, W) after the decision."""
        if self.kept:
            return classes
        return np.where(classes == self.source, np.uint8(self.target), classes)

    def merge(self, probabilities: Floats) -> Floats:
        """Probabilities (K, D, H, W) after the decision: those of the tissue are added to the other tissue."""
        if self.kept:
            return probabilities
        merged = probabilities.copy()
        merged[self.target] += merged[self.source]
        merged[self.source] = 0
        return merged

    def widen(self, intervals: dict[str, Interval], task: Task) -> dict[str, Interval]:
        """Intervals of the volumes of regions; where the tissue is decided to be absent, its own begins at 0 ml."""
        if self.kept:
            return intervals
        named = zip(task.regions, task.region_classes, strict=True)
        alone = [name for name, classes in named if classes == (self.source,)]
        return intervals | {name: replace(intervals[name], least_ml=0.0) for name in alone}


def measure_presence(
    classes: Labels, certainty: Labels, tissue: int, channel: Array, brain: Mask
) -> dict[str, float] | None:
    """The features of the decision, see `PRESENCE_FEATURES`; None where no voxel has the tissue.

    Args:
        classes: Classes (D, H, W); 0 is the background.
        certainty: Probability (D, H, W) of the class of each voxel, in `CONFIDENCE_STEPS`.
        tissue: The class that is decided about.
        channel: Normalised intensities (D, H, W) of the sequence that shows it.
        brain: The brain (D, H, W).
    """
    marked = classes == tissue
    count = int(np.count_nonzero(marked))
    if not count:
        return None
    inside = channel[marked]
    healthy = channel[brain & (classes == 0)]
    middle, low = np.quantile(inside, (0.5, 0.25))
    return {
        "log_voxels": math.log10(count),
        "log_share": math.log10(count / np.count_nonzero(classes)),
        "rank": _logit(float(np.mean(healthy < middle)) if healthy.size else 0.5),
        "low_rank": _logit(float(np.mean(healthy < low)) if healthy.size else 0.5),
        "certainty": _logit(float(certainty[marked].mean()) / CONFIDENCE_STEPS),
    }


def decide_presence(
    card: Card, classes: Labels, certainty: Labels, sequences: Mapping[str, Array], brain: Mask, voxel_ml: float
) -> Decision | None:
    """Decide whether the tissue of the card's rule is there; None without a rule, its sequence or a marked voxel.

    Args:
        card: Card of the model.
        classes: Classes (D, H, W) without dropped components.
        certainty: Probability (D, H, W) of the class of each voxel, in `CONFIDENCE_STEPS`.
        sequences: Each sequence of the scan to its normalised intensities (D, H, W).
        brain: The brain (D, H, W).
        voxel_ml: Volume of a voxel in ml.
    """
    rule = card.presence
    if rule is None or rule.sequence not in sequences:
        return None
    source, target = map(card.task.label_values.index, (rule.label, rule.becomes))
    features = measure_presence(classes, certainty, source, sequences[rule.sequence], brain)
    if features is None:
        return None
    probability = predict_presence(rule, features)
    return Decision(
        tissue=card.task.labels[rule.label],
        probability=round(probability, 4),
        kept=probability >= rule.threshold,
        becomes=card.task.labels[rule.becomes],
        marked_ml=round(int(np.count_nonzero(classes == source)) * voxel_ml, 6),
        source=source,
        target=target,
    )


def predict_presence(rule: PresenceRule, features: Mapping[str, float]) -> float:
    """Probability that the tissue is there, from its features."""
    score = rule.intercept + sum(rule.coefficients[name] * features[name] for name in PRESENCE_FEATURES)
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, score))))


def _logit(share: float) -> float:
    share = min(max(share, _NEAREST), 1 - _NEAREST)
    return math.log(share / (1 - share))


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
