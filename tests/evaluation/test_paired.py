import numpy as np
import pytest
from scipy import stats

from brainsegnet.evaluation.paired import bootstrap_interval, paired_wilcoxon


def test_intervals_hold_the_mean_shift_with_the_values_and_are_those_of_scipy(rng):
    values = rng.beta(8, 2, 40)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert bootstrap_interval(values + 1) == pytest.approx((low + 1, high + 1))
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=rng).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.005)
    assert bootstrap_interval([0.5]) == (0.5, 0.5)


def test_intervals_cover_the_true_mean_about_as_often_as_they_say(rng):
    hits = 0
    for _ in range(100):
        low, high = bootstrap_interval(rng.normal(0.7, 0.1, 30))
        hits += low <= 0.7 <= high
    assert 85 <= hits <= 100


def test_the_paired_test_is_symmetric_and_blind_to_pairs_that_agree(rng):
    a, b = rng.random((2, 12))
    p = paired_wilcoxon(a, b)
    assert p == pytest.approx(paired_wilcoxon(b, a)) == pytest.approx(paired_wilcoxon([*a, 0.5], [*b, 0.5]))
    assert paired_wilcoxon(a, a) == 1 and paired_wilcoxon(a + 1, a) == pytest.approx(2 / 2**12)
