"""Laws of the statistics: all resamples and all signs, written out, give what the functions give; so does scipy.

No case is dropped from a summary, and the intervals lie around the means.
"""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from brainsegnet.errors import DatasetError
from brainsegnet.metrics.scores import METRICS, RegionScore
from brainsegnet.metrics.statistics import (
    RESAMPLES,
    bootstrap_means,
    find_intervals,
    holm,
    paired_test,
    sign_flip_test,
    summarise,
)


def test_bootstrap_means_are_distributed_like_all_resamples():
    values = np.array([0.2, 0.5, 0.9, 1.7])
    every = np.array(list(product(values, repeat=4))).mean(axis=1)
    drawn = bootstrap_means(values[:, None])[:, 0]
    assert set(drawn.round(9)) <= set(every.round(9))
    for mean in (0.4, 0.6, 0.8, 1.0, 1.2):
        assert (drawn <= mean).mean() == pytest.approx((every <= mean).mean(), abs=0.02)
    assert drawn.mean() == pytest.approx(every.mean(), abs=0.02)


def test_the_interval_is_scipys():
    values = np.random.default_rng(5).beta(8, 2, 25)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9999, rng=np.random.default_rng(1))
    ((low, high),) = find_intervals(values[:, None])
    assert low == pytest.approx(theirs.confidence_interval.low, abs=0.05 * (high - low))
    assert high == pytest.approx(theirs.confidence_interval.high, abs=0.05 * (high - low))


def test_intervals_cover_the_mean_about_as_often_as_they_say():
    rng = np.random.default_rng(2)
    low, high = np.transpose(find_intervals(rng.normal(3.0, 2.0, (20, 400))))
    assert 0.88 < ((low <= 3.0) & (high >= 3.0)).mean() < 0.97


def test_the_seed_governs_and_equal_cases_leave_no_interval():
    values = np.random.default_rng(0).random((6, 2))
    assert find_intervals(values, 3) == find_intervals(values, 3)
    assert not np.array_equal(bootstrap_means(values, 3), bootstrap_means(values, 4))
    assert find_intervals(np.full((5, 1), 0.1)) == [(0.1, 0.1)]


def every_sign(differences):
    """The two-sided p of the signed-rank sum, from all 2^n signs of the mean ranks."""
    ranks = stats.rankdata(np.abs(differences))
    sums = np.array(list(product((0, 1), repeat=len(ranks)))) @ ranks
    observed = ranks[differences > 0].sum()
    return min(1.0, 2 * min((sums <= observed).mean(), (sums >= observed).mean()))


@pytest.mark.parametrize("n", [1, 4, 7, 10])
def test_tied_differences_are_tested_exactly(n):
    rng = np.random.default_rng(n)
    for _ in range(5):
        differences = rng.choice([-3, -2, -1, 1, 2, 3], n) / 8
        assert paired_test(differences, np.zeros(n)).p_value == pytest.approx(every_sign(differences))


@pytest.mark.parametrize("n", [6, 20, 45])
def test_without_ties_the_test_is_scipys(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.4, 1, n), rng.normal(0, 1, n)
    assert paired_test(a, b).p_value == pytest.approx(stats.wilcoxon(a, b, method="exact").pvalue)
    assert paired_test(a, b) == paired_test(b, a)


def test_the_exact_test_goes_over_into_the_approximation():
    rng = np.random.default_rng(1)
    differences = rng.normal(0.1, 1, 301)
    exact, approximate = (paired_test(d, np.zeros(len(d))).p_value for d in (differences[:300], differences))
    assert approximate == pytest.approx(stats.wilcoxon(differences, method="approx").pvalue)
    assert exact == pytest.approx(stats.wilcoxon(differences[:300], method="approx").pvalue, abs=0.002)


def test_equal_pairs_are_left_out_and_counted():
    a, b = np.array([0.9, 0.8, 0.7, 0.5, 0.5]), np.array([0.8, 0.7, 0.6, 0.5, 0.5])
    test = paired_test(a, b)
    assert (test.cases, test.equal, test.p_value, test.smallest_p) == (5, 2, 0.25, 0.25)
    assert paired_test(a, a).p_value == paired_test(a, a).smallest_p == 1.0


def test_differences_that_only_rounding_tells_apart_are_ties():
    a, b = np.array([0.9, 0.8, 0.3, 0.2]), np.array([0.8, 0.7, 0.2, 0.3])
    assert len(set(a - b)) > 2
    assert paired_test(a, b).p_value == every_sign(np.array([1.0, 1, 1, -1]))


def test_five_cases_can_never_reach_five_per_cent_and_six_can():
    for n, too_few in ((5, True), (6, False)):
        test = paired_test(np.arange(1.0, n + 1), np.zeros(n))
        assert test.p_value == test.smallest_p == 2 / 2**n
        assert test.too_few is too_few is (test.p_value > 0.05)


def every_swap(differences):
    """The two-sided p of the mean difference, from all 2^n swaps."""
    sums = np.array(list(product((-1, 1), repeat=len(differences)))) @ differences
    return (np.abs(sums) >= abs(differences.sum()) - 1e-9).mean()


@pytest.mark.parametrize("n", [1, 2, 5, 9, 13])
def test_few_swaps_are_all_tried_with_ties_too(n):
    rng = np.random.default_rng(n)
    for differences in (rng.normal(0.5, 1, n), rng.integers(-3, 4, n) / 3, np.zeros(n), np.full(n, 0.1)):
        assert sign_flip_test(differences) == every_swap(differences)


def test_of_many_swaps_some_are_drawn_by_the_seed_and_the_observed_one_counts():
    many = np.random.default_rng(3).normal(0.3, 1, 16)
    exact = every_swap(many)
    error = np.sqrt(exact * (1 - exact) / RESAMPLES)
    drawn = [sign_flip_test(many, seed) for seed in range(5)]
    assert drawn == pytest.approx([exact] * 5, abs=4 * error) and len(set(drawn)) > 1
    assert drawn[2] == sign_flip_test(many, 2)
    assert sign_flip_test(np.zeros(20)) == 1.0 and sign_flip_test(np.full(40, 1.0)) == pytest.approx(
        1 / (RESAMPLES + 1)
    )


def test_holm_is_monotone_and_between_the_raw_and_bonferronis():
    p = np.random.default_rng(4).random(12) / 5
    adjusted = np.array(holm(p))
    assert (adjusted >= p - 1e-12).all() and (adjusted <= np.minimum(1, 12 * p) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all() and adjusted.min() == pytest.approx(12 * p.min())
    assert holm([]) == []


def made(figure: float, empty: str | None = None) -> RegionScore:
    overlap = (figure, figure, 1.0, figure, 10 * figure, 3.0, 4.0, -1.0, -0.25)
    return RegionScore(*overlap, figure, figure, figure, figure, 2, 1, 3, empty)


def test_a_missed_lesion_stays_in_the_mean_and_is_counted():
    cases = {"a": {"lesion": made(0.8)}, "b": {"lesion": made(0.0, "prediction")}, "c": {"lesion": made(1.0, "both")}}
    summary = summarise(cases)
    assert summary.cases == 3
    assert summary.mean["lesion"]["dice"] == pytest.approx(0.6)
    assert summary.sd["lesion"]["dice"] == pytest.approx(np.std([0.8, 0.0, 1.0], ddof=1))
    assert summary.empty == {"lesion": {"both": 1, "prediction": 1, "truth": 0}}
    assert summary.lesions == {"lesion": {"lesions_found": 6, "lesions_missed": 3, "lesions_invented": 9}}


def test_intervals_lie_around_the_means_from_three_cases_up():
    cases = {str(i): {"lesion": made(figure)} for i, figure in enumerate((0.5, 0.7, 0.9))}
    summary = summarise(cases)
    low, high = summary.low["lesion"], summary.high["lesion"]
    assert all(low[m] <= summary.mean["lesion"][m] <= high[m] for m in METRICS)
    assert 0.5 <= low["dice"] < 0.7 < high["dice"] <= 0.9
    dice = np.array([[0.5], [0.7], [0.9]])
    assert find_intervals(dice) == [(low["dice"], high["dice"])] and find_intervals(dice[:2]) == [None]
    del cases["2"]
    assert not summarise(cases).low and not summarise(cases).high


def test_a_single_case_has_no_spread():
    summary = summarise({"a": {"lesion": made(0.8)}})
    assert summary.sd["lesion"] == dict.fromkeys(METRICS, 0.0)
    assert summary.mean["lesion"]["hd95_mm"] == 8.0


def test_nothing_to_summarise_and_regions_that_differ_are_refused():
    with pytest.raises(DatasetError, match="no scores"):
        summarise({})
    with pytest.raises(DatasetError, match="case b has scores of"):
        summarise({"a": {"whole": made(1.0)}, "b": {"core": made(1.0)}})
