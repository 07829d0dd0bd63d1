"""The probability from which on a model calls a voxel lesion, moved after training and held by its weights.

Where lesions are hard to find, the Dice of an arg-max is not the best that the probabilities hold: the best threshold
is half of the best Dice (Lipton et al., Optimal thresholding of classifiers to maximize F1 measure, 2014). The bias of
the background is moved so that the arg-max decides there; exports, intervals and all else then need not know of it.
"""

import math
from pathlib import Path

from brainsegnet.errors import ModelError
from brainsegnet.model.card import ComponentFilter
from brainsegnet.model.store import Model, open_model, save_model

BACKGROUND = 0
BIAS = "classify.bias"


def shift_threshold(model: Path, out: Path, threshold: float) -> Model:
    """Write a model that calls a voxel lesion from another probability on than the one it was trained to.

    With several tissues it is the probability of the likeliest of them if there were only it and the background.

    Args:
        model: Model folder.
        out: Model folder to write, without exports, scores, intervals and margin, which were of another threshold.
        threshold: Probability as trained; 0.5 is the arg-max, and with less more is found.

    Raises:
        ModelError: the model is not there, or the threshold is no probability.
        OutputError: the folder cannot be written to.
        MissingExtra: torch is not installed.
    """
    if not 0 < threshold < 1:
        raise ModelError(f"a threshold is a probability between 0 and 1, not {threshold:g}; 0.5 is the arg-max")
    opened = open_model(model)
    weights = opened.tensors()
    bias = weights[BIAS].clone()
    bias[BACKGROUND] += _logit(threshold) - _logit(opened.card.threshold)
    unscored = opened.card.training.model_copy(update={"scores": {}, "subsets": {}, "comparisons": ()})
    unmeasured = {"training": unscored, "intervals": {}, "calibration": {}, "components": ComponentFilter()}
    card = opened.card.model_copy(update={"threshold": threshold} | unmeasured)
    return save_model(out, card, {**weights, BIAS: bias})


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))
