"""What a handful of cases can tell: intervals of means, paired tests, and corrections for many tests.

All is seeded, and small samples are computed exactly rather than by a normal approximation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Figures = NDArray[np.float64]

RESAMPLES = 10_000
LEVEL = 0.95
FEWEST_CASES = 3
"""Of fewer cases no interval is given."""

INTERVAL_RULE = (
    f"Intervals of means: {100 * LEVEL:g} % percentile bootstrap over cases, {RESAMPLES} resamples, "
    f"from {FEWEST_CASES} cases up; of fewer than ten cases they are too narrow."
)

_CHUNK = 1000
_EXACT_UP_TO = 300


def bootstrap_means(values: Figures, seed: int = 0) -> Figures:
    """Means of `RESAMPLES` draws of as many cases with replacement: (resamples, k) from (cases, k).

    Columns stay together: a draw takes all figures of a case.

    >>> bootstrap_means(np.array([[0.5, 1.0], [0.5, 3.0]])).round(6).min(axis=0)
    array([0.5, 1. ])
    """
    first = values[:1]
    return np.concatenate([counts @ (values - first) for counts in _shares(len(values), seed)]) + first


def bootstrap_interval(values: Figures, seed: int = 0) -> tuple[Figures, Figures]:
    """Ends of the 95 % percentile-bootstrap intervals of the means of the columns (Efron 1979).

    The simplest interval, and the one of challenge reports: always defined, never outside the range of the values. Of
    few or skewed cases it covers less than it says (of ten normal ones about 90 %).

    Args:
        values: Figures (cases, k).
        seed: Of the draws.

    >>> low, high = bootstrap_interval(np.arange(20.0)[:, None])
    >>> low.round(1), high.round(1)
    (array([7.]), array([12.]))
    """
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(bootstrap_means(values, seed), (tail, 1 - tail), axis=0)
    return low, high


@dataclass(frozen=True)
class PairedTest:
    """Wilcoxon's signed-rank test of paired figures.

    Attributes:
        cases: Number of pairs.
        equal: Pairs without a difference, left out as Wilcoxon did.
        p_value: Two-sided; 1 if all pairs are equal.
        smallest_p: What p is where all differences have one sign: with so many pairs it cannot be less.
    """

    cases: int
    equal: int
    p_value: float
    smallest_p: float

    @property
    def too_few(self) -> bool:
        """Whether no outcome at all could have reached 0.05: fewer than six pairs that differ."""
        return self.smallest_p > 0.05


def paired_test(a: Figures, b: Figures) -> PairedTest:
    """Whether two models differ on the same cases (Wilcoxon 1945): signs of the ranked differences, as if by a coin.

    Exact up to 300 differing pairs, tied differences included (they share their mean rank, and the distribution is that
    of these very ranks); beyond, scipy's normal approximation with its correction for ties.

    Args:
        a: Figures of one model (cases).
        b: Figures of the other (cases).

    >>> paired_test(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([0.8, 0.6, 0.4, 0.2, 0.5]))
    PairedTest(cases=5, equal=1, p_value=0.125, smallest_p=0.125)
    """
    differences = np.round(np.asarray(a, np.float64) - b, 12)  # 0.9 - 0.8 and 0.8 - 0.7 are a tie
    differing = differences[differences != 0]
    equal = len(differences) - len(differing)
    if not len(differing):
        return PairedTest(len(differences), equal, 1.0, 1.0)
    return PairedTest(len(differences), equal, _signed_rank_p(differing), 2.0 ** (1 - len(differing)))


def sign_flip_test(differences: Figures, seed: int = 0) -> float:
    """Permutation test of paired differences: the share of swaps of the two models, case by case, that give as much.

    All 2^n swaps of up to 13 cases; of more, `RESAMPLES` random ones and the observed one.

    >>> sign_flip_test(np.array([1.0, 2.0, 0.5, 1.5, 1.0, 2.0])), 2 / 2**6
    (0.03125, 0.03125)
    """
    n = len(differences)
    if 2**n <= RESAMPLES:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        sums = signs @ differences
    else:
        rng = np.random.default_rng(seed)
        draws = [rng.choice((-1, 1), (_CHUNK, n)) @ differences for _ in range(RESAMPLES // _CHUNK)]
        sums = np.concatenate([[differences.sum()], *draws])
    return float(np.mean(np.abs(sums) >= abs(differences.sum()) - 1e-9))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number by Holm's (1979) step-down rule.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(p) for p in adjusted.round(12)]


def _shares(cases: int, seed: int) -> Iterator[Figures]:
    """How large a share each case has in each draw: blocks of (draws, cases)."""
    rng = np.random.default_rng(seed)
    even = np.full(cases, 1 / cases)
    for _ in range(RESAMPLES // _CHUNK):
        yield rng.multinomial(cases, even, size=_CHUNK) / cases


def _signed_rank_p(differences: Figures) -> float:
    from scipy import stats

    if len(differences) > _EXACT_UP_TO:
        return float(stats.wilcoxon(differences, method="approx").pvalue)
    doubled = np.rint(2 * stats.rankdata(np.abs(differences))).astype(int)
    total = int(doubled.sum())
    probabilities = np.zeros(total + 1)
    probabilities[0] = 1.0
    for rank in doubled:
        probabilities[rank:] = (probabilities[rank:] + probabilities[: total + 1 - rank]) / 2
        probabilities[:rank] /= 2
    positive = int(doubled[differences > 0].sum())
    return min(1.0, float(2 * probabilities[: min(positive, total - positive) + 1].sum()))
