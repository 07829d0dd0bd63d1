"""MONAI: Dice, HD95, ASSD and surface Dice at 1 mm."""

import warnings
from collections.abc import Mapping
from importlib import import_module

from judges.scorers.exchange import Mask, answer, attempt


def score(predicted: Mask, truth: Mask, spacing_mm: tuple[float, ...]) -> Mapping[str, float]:
    """The scores of one region."""
    torch, metrics = import_module("torch"), import_module("monai.metrics")
    masks = [torch.from_numpy(mask[None, None].astype("float32")) for mask in (predicted, truth)]
    common = {"include_background": True, "spacing": list(spacing_mm)}
    return {
        "dice": attempt(lambda: metrics.compute_dice(*masks, ignore_empty=False)),
        "hd95": attempt(lambda: metrics.compute_hausdorff_distance(*masks, percentile=95, **common)),
        "assd": attempt(lambda: metrics.compute_average_surface_distance(*masks, symmetric=True, **common)),
        "surface dice": attempt(lambda: metrics.compute_surface_dice(*masks, [1.0], **common)),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    answer(score, "monai", "torch")
