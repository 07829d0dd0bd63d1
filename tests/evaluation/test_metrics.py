"""Laws of the scores: the paper's definitions, the rules for empty masks, and MONAI's Hausdorff distance."""

import math
import time
from dataclasses import asdict

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.errors import DatasetError, GridMismatch, LabelError
from brainsegnet.evaluation.metrics import METRICS, RegionScore, dice, hd95_mm, score_case, score_region, summarise
from brainsegnet.task import BRATS2015, BRATS2021, ISLES2017

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:monai")

UNIT = (1.0, 1.0, 1.0)


def blob(rng: np.random.Generator, shape: tuple[int, int, int], share: float = 0.08) -> np.ndarray:
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), 2.5)
    return noise > np.quantile(noise, 1 - share)


def ball(shape: tuple[int, int, int], centre: tuple[int, int, int], radius: float) -> np.ndarray:
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2


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
    assert score.empty is None


def test_exchanging_prediction_and_truth_exchanges_sensitivity_and_precision(rng):
    a, b = blob(rng, (10, 24, 24)), blob(rng, (10, 24, 24), 0.15)
    ab, ba = score_region(a, b, UNIT), score_region(b, a, UNIT)
    assert (ab.dice, ab.hd95_mm) == (ba.dice, ba.hd95_mm)
    assert (ab.sensitivity, ab.precision) == (ba.precision, ba.sensitivity)
    assert ab.dice == dice(a, b)


def test_a_mask_equals_itself(rng):
    mask = blob(rng, (8, 16, 16))
    score = score_region(mask, mask, UNIT)
    assert (score.dice, score.sensitivity, score.specificity, score.precision, score.hd95_mm) == (1, 1, 1, 1, 0)


@pytest.mark.parametrize(
    ("p", "t", "expected", "empty"),
    [(0, 0, 1.0, "both"), (0, 1, 0.0, "prediction"), (1, 0, 0.0, "truth"), (1, 1, 1.0, None)],
)
def test_empty_masks_follow_the_rule(p, t, expected, empty):
    predicted, truth = np.zeros((2, 5, 6, 7), bool)
    predicted[2, 2, 2], truth[2, 2, 2] = bool(p), bool(t)
    score = score_region(predicted, truth, (2.0, 1.0, 0.5))
    assert (score.dice, score.sensitivity, score.precision, score.empty) == (expected, expected, expected, empty)
    diagonal = math.sqrt(10.0**2 + 6.0**2 + 3.5**2)
    assert score.hd95_mm == pytest.approx(0.0 if expected else diagonal)
    assert all(math.isfinite(asdict(score)[metric]) for metric in METRICS)


def test_a_truth_that_fills_the_image_leaves_a_specificity_of_one():
    assert score_region(np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool), UNIT).specificity == 1.0


def monai_hd95(predicted: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
    monai_metrics = pytest.importorskip("monai.metrics")
    masks = [mask[None, None].astype(np.float32) for mask in (predicted, truth)]
    distance = monai_metrics.compute_hausdorff_distance(
        *masks, include_background=True, percentile=95, spacing=list(spacing_mm)
    )
    return float(distance)


@pytest.mark.parametrize("spacing_mm", [UNIT, (6.5, 1.2, 1.2), (0.9, 2.0, 0.5)])
@pytest.mark.parametrize("seed", range(3))
def test_hd95_equals_monai(spacing_mm, seed):
    rng = np.random.default_rng(seed)
    a, b = blob(rng, (14, 26, 22)), blob(rng, (14, 26, 22), 0.03 + 0.05 * seed)
    assert hd95_mm(a, b, spacing_mm) == pytest.approx(monai_hd95(a, b, spacing_mm), abs=1e-4)


def test_hd95_equals_monai_at_the_border_of_the_image():
    a, b = np.zeros((2, 8, 12, 12), bool)
    a[:, :5], b[:, :9] = True, True
    assert hd95_mm(a, b, UNIT) == pytest.approx(monai_hd95(a, b, UNIT), abs=1e-4)


def test_hd95_scales_with_the_spacing_and_ignores_the_surroundings(rng):
    a, b = blob(rng, (10, 20, 20)), blob(rng, (10, 20, 20))
    once = hd95_mm(a, b, (2.0, 1.0, 1.0))
    assert hd95_mm(a, b, (6.0, 3.0, 3.0)) == pytest.approx(3 * once)
    assert hd95_mm(np.pad(a, 9), np.pad(b, 9), (2.0, 1.0, 1.0)) == once


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


def test_a_full_sized_case_takes_well_under_a_second():
    truth = (ball((155, 240, 240), (70, 100, 90), 24.3) * 2).astype(np.uint8)
    truth[ball(truth.shape, (72, 100, 92), 15)] = 4
    assert 59 < np.count_nonzero(truth) / 1000 < 62
    start = time.process_time()
    scores = score_case(np.roll(truth, (2, 5), (0, 1)), truth, BRATS2015, UNIT)
    assert time.process_time() - start < 1.0
    assert 4 < scores["whole"].hd95_mm < math.hypot(2, 5)


def made(figure: float, empty: str | None = None) -> RegionScore:
    return RegionScore(figure, figure, 1.0, figure, 10 * figure, 3.0, 4.0, empty)


def test_a_missed_lesion_stays_in_the_mean_and_is_counted():
    cases = {"a": {"lesion": made(0.8)}, "b": {"lesion": made(0.0, "prediction")}, "c": {"lesion": made(1.0, "both")}}
    summary = summarise(cases)
    assert summary.cases == 3
    assert summary.mean["lesion"]["dice"] == pytest.approx(0.6)
    assert summary.sd["lesion"]["dice"] == pytest.approx(np.std([0.8, 0.0, 1.0], ddof=1))
    assert summary.empty == {"lesion": {"both": 1, "prediction": 1, "truth": 0}}


def test_a_single_case_has_no_spread():
    summary = summarise({"a": {"lesion": made(0.8)}})
    assert summary.sd["lesion"] == dict.fromkeys(METRICS, 0.0)
    assert summary.mean["lesion"]["hd95_mm"] == 8.0


def test_nothing_to_summarise_and_regions_that_differ_are_refused():
    with pytest.raises(DatasetError, match="no scores"):
        summarise({})
    with pytest.raises(DatasetError, match="case b has scores of"):
        summarise({"a": {"whole": made(1.0)}, "b": {"core": made(1.0)}})
