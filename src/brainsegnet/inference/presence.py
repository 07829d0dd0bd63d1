"""Whether a tissue is there at all: a network marks a little enhancing tissue in most tumours that do not enhance.

The decision is a logistic regression on five features of the whole scan. It is fitted to simulated cases, and the card
holds its coefficients. Voxels of a tissue that is decided to be absent become another tissue of the lesion.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from brainsegnet._types import Array, Floats, Labels, Mask
from brainsegnet.inference.postprocessing import Interval
from brainsegnet.inference.tiling import CONFIDENCE_STEPS
from brainsegnet.model.card import PRESENCE_FEATURES, Card, PresenceRule
from brainsegnet.task import Task

_NEAREST = 1e-4
"""Ranks are kept so far from 0 and 1 before the logit."""


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
