"""MedPy: Dice, HD95, ASSD, precision, sensitivity, specificity."""

from collections.abc import Mapping
from importlib import import_module

from judges.scorers.exchange import Mask, answer, attempt


def score(predicted: Mask, truth: Mask, spacing_mm: tuple[float, ...]) -> Mapping[str, float]:
    """The scores of one region."""
    binary = import_module("medpy.metric.binary")
    return {
        "dice": attempt(lambda: binary.dc(predicted, truth)),
        "hd95": attempt(lambda: binary.hd95(predicted, truth, spacing_mm)),
        "assd": attempt(lambda: binary.assd(predicted, truth, spacing_mm)),
        "precision": attempt(lambda: binary.precision(predicted, truth)),
        "sensitivity": attempt(lambda: binary.sensitivity(predicted, truth)),
        "specificity": attempt(lambda: binary.specificity(predicted, truth)),
    }


if __name__ == "__main__":
    answer(score, "MedPy", "numpy", "scipy")
