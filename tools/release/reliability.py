"""How well predicted probabilities agree with the truth: voxels counted by bins, and the expected calibration error."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from brainsegnet._types import Doubles, Floats, Mask
from brainsegnet.inference.segmenter import open_engine
from brainsegnet.inference.uncertainty import region_probability
from brainsegnet.model.card import BINS, LEAST_PROBABILITY, CalibrationBin, CalibrationNote
from brainsegnet.model.store import Model

if TYPE_CHECKING:
    from brainsegnet.training.sampler import Scan

Tally = Doubles
"""Rows: voxels with a probability of at most `LEAST_PROBABILITY`, then the bins (BINS + 1, 3). Columns: number of
voxels, sum of their probabilities, number of true voxels."""
Tallies = Mapping[str, Mapping[str, Tally]]
"""Case to region to `Tally`."""


def count_bins(probability: Floats, truth: Mask) -> Tally:
    """Count voxels by their probability. Of the limits of a bin, the upper one belongs to it.

    Args:
        probability: Predicted probability of each voxel, of any shape.
        truth: Whether the voxel is in the region, of the same shape.

    Examples:
        >>> tally = count_bins(np.array([0.005, 0.06, 0.1, 1]), np.array([False, False, True, True]))
        >>> tally[[0, 1, 10]].round(3).tolist()
        [[1.0, 0.005, 0.0], [2.0, 0.16, 1.0], [1.0, 1.0, 1.0]]
    """
    found = probability.ravel()
    number = np.clip(np.ceil(found * BINS), 1, BINS).astype(np.intp)
    number[found <= LEAST_PROBABILITY] = 0
    weights = (None, found, truth.ravel())
    return np.stack([np.bincount(number, one, minlength=BINS + 1) for one in weights], 1).astype(np.float64)


def expected_error(tally: Tally) -> float | None:
    """Expected calibration error of the voxels in some rows of a tally; None if there are none.

    The difference between the mean probability and the share of true voxels in each bin, weighted by the voxels.

    Examples:
        >>> expected_error(np.array([[10.0, 5.0, 5.0], [10.0, 9.0, 7.0]]))
        0.1
    """
    voxels, predicted, true = tally.T
    return float(np.abs(predicted - true).sum() / voxels.sum()) if voxels.sum() else None


def describe_reliability(tallies: Tallies) -> dict[str, CalibrationNote]:
    """What a card says of each region, from the tallies of unseen cases."""
    cases = list(tallies.values())
    return {region: _describe([case[region] for case in cases]) for region in cases[0]}


def find_tallies(model: Model, scans: Mapping[str, "Scan"]) -> Tallies:
    """Count the voxels in the brain of each case, with all sequences.

    The probabilities are those that `segment --probabilities` writes, so dropped components are in them. A scan is 0
    outside the brain. Voxels inside that happen to be 0 in every sequence are filled.
    """
    card, predictor = model.card, open_engine(model, "cpu")
    tallies = {}
    for name, scan in scans.items():
        probabilities = predictor.probabilities(scan.image)
        brain = ndimage.binary_fill_holes(np.any(scan.image, axis=0))
        tallies[name] = {
            region: count_bins(region_probability(probabilities, classes)[brain], np.isin(scan.classes, classes)[brain])
            for region, classes in zip(card.task.regions, card.task.region_classes, strict=True)
        }
    return tallies


def _describe(tallies: list[Tally]) -> CalibrationNote:
    pooled = np.sum(tallies, 0)
    below, *bins = (_describe_bin(*row) for row in pooled.tolist())
    return CalibrationNote(
        cases=len(tallies),
        error=_rounded(expected_error(pooled[1:])),
        error_by_case=_mean(expected_error(one[1:]) for one in tallies),
        brain_error=_rounded(expected_error(_in_brain(pooled))) or 0.0,
        brain_error_by_case=_mean(expected_error(_in_brain(one)) for one in tallies) or 0.0,
        bins=tuple(bins),
        below=below,
    )


def _in_brain(tally: Tally) -> Tally:
    """The bins with all voxels of the brain: those below the least probability are in the first."""
    return np.concatenate([tally[:2].sum(0, keepdims=True), tally[2:]])


def _describe_bin(voxels: float, predicted: float, true: float) -> CalibrationBin:
    if not voxels:
        return CalibrationBin(voxels=0)
    return CalibrationBin(voxels=int(voxels), probability=_rounded(predicted / voxels), share=_rounded(true / voxels))


def _mean(errors: Iterable[float | None]) -> float | None:
    """Mean of the errors that are known."""
    known = [error for error in errors if error is not None]
    return _rounded(float(np.mean(known))) if known else None


def _rounded(value: float | None) -> float | None:
    """To four significant digits."""
    return None if value is None else float(f"{value:.4g}")
