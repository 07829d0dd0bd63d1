"""SimpleITK: Dice, sensitivity, specificity and precision of its overlap filter."""

from collections.abc import Mapping
from importlib import import_module

from judges.scorers.exchange import Mask, answer, attempt


def score(predicted: Mask, truth: Mask, spacing_mm: tuple[float, ...]) -> Mapping[str, float]:
    """The scores of one region."""
    itk = import_module("SimpleITK")
    images = [itk.GetImageFromArray(mask.astype("uint8")) for mask in (predicted, truth)]
    for image in images:
        image.SetSpacing(spacing_mm[::-1])
    overlap = itk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    return {
        "dice": overlap.GetDiceCoefficient(),
        "precision": attempt(lambda: 1 - overlap.GetFalseDiscoveryRate()),
        "sensitivity": attempt(lambda: 1 - overlap.GetFalseNegativeError()),
        "specificity": attempt(lambda: 1 - overlap.GetFalsePositiveError()),
    }


if __name__ == "__main__":
    answer(score, "SimpleITK")
