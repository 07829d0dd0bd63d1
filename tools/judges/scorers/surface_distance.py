"""surface-distance: Dice, and HD95 and surface Dice at 1 mm over surface elements."""

from collections.abc import Mapping
from importlib import import_module

from judges.scorers.exchange import Mask, answer, attempt


def score(predicted: Mask, truth: Mask, spacing_mm: tuple[float, ...]) -> Mapping[str, float]:
    """The scores of one region."""
    tool = import_module("surface_distance")
    distances = tool.compute_surface_distances(truth, predicted, spacing_mm)
    return {
        "dice": attempt(lambda: tool.compute_dice_coefficient(truth, predicted)),
        "hd95": attempt(lambda: tool.compute_robust_hausdorff(distances, 95)),
        "surface dice": attempt(lambda: tool.compute_surface_dice_at_tolerance(distances, 1.0)),
    }


if __name__ == "__main__":
    answer(score, "surface-distance", "numpy", "scipy")
