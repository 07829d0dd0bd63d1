"""Laws of the lesion scores: the published definitions, spelled out with SimpleITK's components, give the same."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from brainsegnet.errors import BrainSegNetError, GridMismatch
from brainsegnet.metrics.lesion_matching import (
    BRATS2023_GLIOMA,
    BRATS2026_GLIOMA,
    OVERLAP,
    LesionRule,
    LesionScore,
    score_lesions,
)

UNIT = (1.0, 1.0, 1.0)


def specks(rng, shape=(14, 40, 36), share=0.04):
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), 1.2)
    return noise > np.quantile(noise, 1 - share)


def components(mask):
    labels = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
    return sitk.GetArrayFromImage(labels)


def dilated(mask, times):
    return ndimage.binary_dilation(mask, ndimage.generate_binary_structure(3, 2), times) if times else mask


def by_the_book(predicted, truth, spacing_mm, rule):
    """The schemes of ISLES 2022 (no dilation) and BraTS 2023 as their papers tell them, one lesion after the other."""
    lesions = np.where(truth, components(dilated(truth, rule.dilation)), 0)
    parts = components(predicted)
    touched, dices, found = set(), [], 0
    for number in range(1, lesions.max() + 1):
        lesion = lesions == number
        mine = set(np.unique(parts[dilated(lesion, rule.dilation)])) - {0}
        touched |= mine
        if lesion.sum() * np.prod(spacing_mm) > rule.smallest_mm3:
            found += bool(mine)
            answer = np.isin(parts, list(mine))
            dices.append(2 * (answer & lesion).sum() / (answer.sum() + lesion.sum()))
    invented = parts.max() - len(touched)
    dice = sum(dices) / (len(dices) + invented) if len(dices) + invented else 1.0
    missed = len(dices) - found
    f1 = found / (found + (missed + invented) / 2) if found + missed + invented else 1.0
    return dice, f1, found, missed, invented


def close(score: LesionScore, expected) -> bool:
    return tuple(vars(score).values()) == pytest.approx(expected)


@pytest.mark.parametrize("rule", [OVERLAP, LesionRule(1), LesionRule(0, 9.0), BRATS2023_GLIOMA], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_lesions_are_matched_by_the_book(rule, seed):
    rng = np.random.default_rng(seed)
    truth = specks(rng)
    predicted = np.roll(truth, 2, 1) & specks(rng, share=0.6) | specks(rng, share=0.01)
    score = score_lesions(predicted, truth, (2.0, 1.0, 1.0), rule)
    assert close(score, by_the_book(predicted, truth, (2.0, 1.0, 1.0), rule))
    assert rule.dilation > 1 or (score.found and score.missed and score.invented)


@pytest.mark.real
@pytest.mark.parametrize("pattern", ["ms/*/*19/GOLD*", "stroke/isles2022/*/**/*_msk*"])
def test_real_lesions_are_matched_by_the_book(real_data, pattern):
    image = sitk.ReadImage(str(sorted(real_data.glob(pattern))[0]))
    truth, spacing_mm = sitk.GetArrayFromImage(image) > 0, image.GetSpacing()[::-1]
    box = tuple(slice(max(0, i.min() - 8), i.max() + 9) for i in np.nonzero(truth))
    truth = truth[box]
    predicted = np.roll(truth, (1, 2), (1, 2)) | np.roll(truth, 40, 2)
    score = score_lesions(predicted, truth, spacing_mm)
    assert close(score, by_the_book(predicted, truth, spacing_mm, OVERLAP))
    assert score.found and score.missed and score.invented


def best_pairs(dices):
    """The one-to-one choice of pairs with the largest sum of Dice, by trying them all: the sum, and how many."""
    if not dices:
        return 0.0, 0
    first = next(iter(dices))[0]
    others = {pair: dice for pair, dice in dices.items() if pair[0] != first}
    choices = [best_pairs(others)]
    for (lesion, part), dice in dices.items():
        if lesion == first:
            total, count = best_pairs({pair: dice for pair, dice in others.items() if pair[1] != part})
            choices.append((total + dice, count + 1))
    return max(choices)


@pytest.mark.parametrize("seed", range(6))
def test_pairs_have_the_largest_sum_of_dice(seed):
    rng = np.random.default_rng(seed)
    truth = specks(rng, (6, 22, 22), 0.2)
    predicted = np.roll(truth, 2, 1) | specks(rng, (6, 22, 22), 0.05)
    lesions, parts = components(truth), components(predicted)
    dices = {}
    for i, j in {(i, j) for i, j in zip(lesions.ravel(), parts.ravel(), strict=True) if i and j}:
        a, b = lesions == i, parts == j
        dices[i, j] = 2 * (a & b).sum() / (a.sum() + b.sum())
    total, found = best_pairs(dices)
    missed, invented = lesions.max() - found, parts.max() - found
    expected = total / (found + missed + invented), found / (found + (missed + invented) / 2), found, missed, invented
    assert close(score_lesions(predicted, truth, UNIT, BRATS2026_GLIOMA), expected)
    assert found < len(dices), "one-to-one matching makes a difference"


def test_one_prediction_over_two_lesions_finds_one_of_them_one_to_one():
    truth, predicted = np.zeros((2, 3, 9, 20), bool)
    truth[1, 2:5, 2:6] = truth[1, 2:5, 8:11] = True
    predicted[1, 2:5, 2:11] = True
    assert score_lesions(predicted, truth, UNIT).found == 2
    score = score_lesions(predicted, truth, UNIT, BRATS2026_GLIOMA)
    assert (score.found, score.missed, score.invented) == (1, 1, 0)
    assert score.dice == pytest.approx(2 * 12 / (12 + 27) / 2)
    turned = score_lesions(truth, predicted, UNIT, BRATS2026_GLIOMA)
    assert (turned.found, turned.missed, turned.invented) == (1, 0, 1)


@pytest.mark.parametrize("rule", [OVERLAP, BRATS2026_GLIOMA], ids=str)
def test_exchanging_prediction_and_truth_exchanges_missed_and_invented(rng, rule):
    a, b = specks(rng), specks(rng)
    ab, ba = score_lesions(a, b, UNIT, rule), score_lesions(b, a, UNIT, rule)
    assert (ab.missed, ab.invented) == (ba.invented, ba.missed)


def test_voxels_that_touch_at_a_corner_are_one_lesion():
    truth, nothing = np.zeros((2, 5, 5, 5), bool)
    truth[1, 1, 1] = truth[2, 2, 2] = True
    assert score_lesions(nothing, truth, UNIT).missed == 1
    truth[4, 4, 4] = True
    assert score_lesions(nothing, truth, UNIT).missed == 2


def test_the_dilation_joins_neighbours_and_forgives_a_near_miss():
    truth, predicted = np.zeros((2, 5, 20, 20), bool)
    truth[2, 2, 2:4] = truth[2, 2, 6:8] = True
    predicted[2, 4, 4] = True
    assert score_lesions(predicted, truth, UNIT) == LesionScore(0.0, 0.0, 0, 2, 1)
    assert score_lesions(predicted, truth, UNIT, LesionRule(3)) == LesionScore(0.0, 1.0, 1, 0, 0)


def test_small_true_lesions_can_be_ignored_and_what_was_predicted_there_is_not_invented():
    truth = np.zeros((5, 20, 20), bool)
    truth[2, 2, 2:4] = truth[2, 10:14, 10:14] = True
    score = score_lesions(truth, truth, (1.0, 1.0, 2.0), LesionRule(0, 4.0))
    assert score == LesionScore(1.0, 1.0, 1, 0, 0)
    assert score_lesions(truth & False, truth, UNIT, LesionRule(0, 99.0)) == LesionScore(1.0, 1.0, 0, 0, 0)


def test_shapes_that_differ_and_rules_that_cannot_be_meant_are_refused():
    with pytest.raises(GridMismatch):
        score_lesions(np.zeros((2, 3, 4), bool), np.zeros((2, 3, 5), bool), UNIT)
    for rule in ((-1, 0.0), (0, -1.0), (0, float("nan"))):
        with pytest.raises(BrainSegNetError, match="must be 0 or more"):
            LesionRule(*rule)
    with pytest.raises(BrainSegNetError, match="one-to-one matching takes no dilation, not 3"):
        LesionRule(3, one_to_one=True)
