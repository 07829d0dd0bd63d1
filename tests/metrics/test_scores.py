"""Laws of the scores: the paper's definitions, the rules for empty masks, and SimpleITK on the same masks."""

import math
import time
from dataclasses import asdict

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from brainsegnet.errors import BrainSegNetError, GridMismatch, LabelError
from brainsegnet.metrics.lesion_matching import BRATS2023_GLIOMA
from brainsegnet.metrics.scores import METRICS, ScoreRules, dice, region_dice, score_case, score_region
from brainsegnet.task import BRATS2015, BRATS2021, ISLES2017

UNIT = (1.0, 1.0, 1.0)


def blob(rng: np.random.Generator, shape: tuple[int, int, int], share: float = 0.08) -> np.ndarray:
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), 2.5)
    return noise > np.quantile(noise, 1 - share)


def ball(shape: tuple[int, int, int], centre: tuple[int, int, int], radius: float) -> np.ndarray:
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    return np.asarray(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2)


@pytest.mark.parametrize("task", [BRATS2015, BRATS2021, ISLES2017])
def test_dice_of_classes_is_that_of_their_labels(rng, task):
    found, truth = rng.integers(0, task.classes, (2, 4, 5, 6), np.uint8)
    scores = score_case(task.decode(found), task.decode(truth), task, UNIT)
    assert region_dice(found, truth, task) == {region: score.dice for region, score in scores.items()}


def test_scores_are_the_counts_of_the_paper(rng):
    predicted, truth = blob(rng, (9, 20, 21)), blob(rng, (9, 20, 21), 0.2)
    both = (predicted & truth).sum()
    score = score_region(predicted, truth, (3.0, 0.5, 0.5))
    assert score.dice == pytest.approx(both / ((predicted.sum() + truth.sum()) / 2))
    assert score.sensitivity == pytest.approx(both / truth.sum())
    assert score.precision == pytest.approx(both / predicted.sum())
    assert score.specificity == pytest.approx((~predicted & ~truth).sum() / (~truth).sum())
    assert score.predicted_volume_ml == pytest.approx(predicted.sum() * 0.75 / 1000)
    assert score.true_volume_ml == pytest.approx(truth.sum() * 0.75 / 1000)
    assert score.volume_error_ml == pytest.approx(score.predicted_volume_ml - score.true_volume_ml)
    assert score.relative_volume_error == pytest.approx(predicted.sum() / truth.sum() - 1)
    assert score.empty is None


def test_overlap_and_volumes_equal_simpleitk(rng):
    predicted, truth = blob(rng, (9, 20, 21)), blob(rng, (9, 20, 21), 0.2)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*(sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (predicted, truth)))
    score = score_region(predicted, truth, UNIT)
    assert score.dice == pytest.approx(overlap.GetDiceCoefficient())
    assert score.sensitivity == pytest.approx(1 - overlap.GetFalseNegativeError())
    volumes = score.predicted_volume_ml + score.true_volume_ml
    assert 2 * score.volume_error_ml / volumes == pytest.approx(overlap.GetVolumeSimilarity())


def test_exchanging_prediction_and_truth_exchanges_sensitivity_and_precision(rng):
    a, b = blob(rng, (10, 24, 24)), blob(rng, (10, 24, 24), 0.15)
    ab, ba = score_region(a, b, UNIT), score_region(b, a, UNIT)
    assert (ab.dice, ab.hd95_mm, ab.surface_dice) == (ba.dice, ba.hd95_mm, ba.surface_dice)
    assert ab.assd_mm == pytest.approx(ba.assd_mm) and ab.volume_error_ml == -ba.volume_error_ml
    assert (ab.sensitivity, ab.precision) == (ba.precision, ba.sensitivity)
    assert ab.dice == dice(a, b)


def test_a_mask_equals_itself(rng):
    mask = blob(rng, (8, 16, 16))
    score = score_region(mask, mask, UNIT)
    assert (score.dice, score.sensitivity, score.specificity, score.precision, score.surface_dice) == (1,) * 5
    assert (score.lesion_dice, score.lesion_f1, score.lesions_missed, score.lesions_invented) == (1, 1, 0, 0)
    assert (score.hd95_mm, score.assd_mm, score.volume_error_ml, score.relative_volume_error) == (0,) * 4


@pytest.mark.parametrize(
    ("p", "t", "expected", "empty"),
    [(0, 0, 1.0, "both"), (0, 1, 0.0, "prediction"), (1, 0, 0.0, "truth"), (1, 1, 1.0, None)],
)
def test_empty_masks_follow_the_rule(p, t, expected, empty):
    predicted, truth = np.zeros((2, 5, 6, 7), bool)
    predicted[2, 2, 2], truth[2, 2, 2] = bool(p), bool(t)
    score = score_region(predicted, truth, (2.0, 1.0, 0.5))
    assert (score.dice, score.sensitivity, score.precision, score.empty) == (expected, expected, expected, empty)
    assert (score.surface_dice, score.lesion_dice, score.lesion_f1) == (expected,) * 3
    assert (score.lesions_found, score.lesions_missed, score.lesions_invented) == (p * t, t * (1 - p), p * (1 - t))
    assert score.relative_volume_error == p - t and score.volume_error_ml == pytest.approx((p - t) / 1000)
    diagonal = math.sqrt(10.0**2 + 6.0**2 + 3.5**2)
    assert score.hd95_mm == score.assd_mm == pytest.approx(0.0 if expected else diagonal)
    assert all(math.isfinite(asdict(score)[metric]) for metric in METRICS)


def test_a_truth_that_fills_the_image_leaves_a_specificity_of_one():
    assert score_region(np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool), UNIT).specificity == 1.0


def test_regions_unite_the_labels_of_the_task():
    truth = np.zeros((3, 8, 8), np.uint8)
    truth[1, 2:6, 2:6], truth[1, 3:5, 3:5], truth[1, 3, 3] = 2, 1, 4
    predicted = np.where(truth == 2, 0, truth)
    scores = score_case(predicted, truth, BRATS2021, UNIT)
    assert list(scores) == ["whole", "core", "enhancing"]
    assert scores["whole"].sensitivity == 4 / 16
    assert scores["core"].dice == scores["enhancing"].dice == 1.0


def test_shapes_that_differ_and_foreign_labels_are_refused():
    small, large = np.zeros((3, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(GridMismatch, match=r"case pat1: the prediction is \(3, 4, 4\) but the truth is \(4, 4, 4\)"):
        score_case(small, large, ISLES2017, UNIT, "pat1")
    with pytest.raises(GridMismatch):
        score_region(small[:1] > 0, large > 0, UNIT)
    for pair in ((small, small + 4), (small + 4, small)):
        with pytest.raises(LabelError, match=r"case pat1: label values \[4\]"):
            score_case(*pair, ISLES2017, UNIT, "pat1")


@pytest.mark.parametrize("rules", [ScoreRules(), ScoreRules(2.0, BRATS2023_GLIOMA)])
def test_regions_of_a_case_score_like_their_masks(rng, rules):
    predicted, truth = (np.where(blob(rng, (9, 30, 30)), rng.choice([1, 2, 4], (9, 30, 30)), 0) for _ in range(2))
    scores = score_case(predicted, truth, BRATS2021, (2.0, 1.0, 1.0), rules=rules)
    for region, values in BRATS2021.regions.items():
        masks = (np.isin(labels, values) for labels in (predicted, truth))
        assert scores[region] == score_region(*masks, spacing_mm=(2.0, 1.0, 1.0), rules=rules)


def test_rules_that_cannot_be_meant_are_refused():
    for tolerance in (-1.0, math.nan, math.inf):
        with pytest.raises(BrainSegNetError, match="tolerance must be a number of millimetres from 0 up"):
            ScoreRules(tolerance)


def test_a_full_sized_case_takes_well_under_a_second():
    truth = (ball((155, 240, 240), (70, 100, 90), 24.3) * 2).astype(np.uint8)
    truth[ball(truth.shape, (72, 100, 92), 15)] = 4
    assert 59 < np.count_nonzero(truth) / 1000 < 62
    start = time.process_time()
    scores = score_case(np.roll(truth, (2, 5), (0, 1)), truth, BRATS2015, UNIT)
    assert time.process_time() - start < 1.0
    assert 4 < scores["whole"].hd95_mm < math.hypot(2, 5)


@pytest.mark.real
def test_a_real_case_with_a_far_false_positive_takes_under_two_seconds(real_data):
    path = next((real_data / "tumour" / "brats2021" / "BraTS2021_01479").glob("*_seg.nii.gz"))
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.uint8)
    predicted = np.roll(truth, (1, 2), (0, 1))
    predicted[3:6, 30:34, 40:44] = predicted[150:153, 200:204, 190:194] = 4
    start = time.process_time()
    scores = score_case(predicted, truth, BRATS2021, UNIT)
    assert time.process_time() - start < 2.0
    assert all(score.lesions_invented >= 2 for score in scores.values())
