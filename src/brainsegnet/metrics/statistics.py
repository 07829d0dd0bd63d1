"""Means of a cohort with their intervals, paired tests of two models, and the correction for many tests.

Everything is seeded. Tests of small samples are exact rather than a normal approximation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from brainsegnet._types import Doubles
from brainsegnet.errors import DatasetError
from brainsegnet.metrics.scores import EMPTY_KINDS, LESION_COUNTS, METRICS, CaseScores, Empty

Interval = tuple[float, float] | None
"""Ends of a 95 % interval; None with fewer than three cases."""

RESAMPLES = 10_000
LEVEL = 0.95
FEWEST_CASES = 3
"""Smallest number of cases for which intervals are given."""

INTERVAL_RULE = (
    f"Intervals of means: {100 * LEVEL:g} % percentile bootstrap over cases, {RESAMPLES} resamples, "
    f"from {FEWEST_CASES} cases up; of fewer than ten cases they are too narrow."
)

_CHUNK = 1000
_EXACT_UP_TO = 300


@dataclass(frozen=True)
class Summary:
    """Mean and spread of the scores of a cohort.

    Attributes:
        cases: Number of cases, including those with empty masks.
        mean: Region to metric to mean over all cases.
        sd: Region to metric to standard deviation (n - 1 in the denominator; 0 for a single case).
        low: Region to metric to lower end of the 95 % interval of the mean; empty with too few cases.
        high: Region to metric to upper end of that interval.
        empty: Region to the number of cases in which "both", the "prediction" or the "truth" was empty.
        lesions: Region to the number of lesions found, missed and invented in all cases together.
    """

    cases: int
    mean: Mapping[str, Mapping[str, float]]
    sd: Mapping[str, Mapping[str, float]]
    low: Mapping[str, Mapping[str, float]]
    high: Mapping[str, Mapping[str, float]]
    empty: Mapping[str, Mapping[Empty, int]]
    lesions: Mapping[str, Mapping[str, int]]

    def interval(self, region: str, metric: str) -> Interval:
        """The 95 % interval of the mean of a metric in a region."""
        return (self.low[region][metric], self.high[region][metric]) if region in self.low else None


def summarise(cases: CaseScores) -> Summary:
    """Mean, standard deviation and interval of every metric over all cases, and the number of empty masks.

    Raises:
        DatasetError: there is no case, or a case lacks a region of the first.
    """
    if not cases:
        raise DatasetError("there are no scores to summarise; evaluate at least one case whose truth is known")
    first, regions = next(iter(cases.items()))
    for name, other in cases.items():
        if set(other) != set(regions):
            raise DatasetError(
                f"case {name} has scores of {sorted(other)} but case {first} of {sorted(regions)}; "
                "score all cases in one task"
            )
    scores = {region: [case[region] for case in cases.values()] for region in regions}
    figures = {r: np.array([[getattr(s, m) for m in METRICS] for s in scores[r]], np.float64) for r in regions}
    spread = {r: f.std(axis=0, ddof=1) if len(f) > 1 else np.zeros(len(METRICS)) for r, f in figures.items()}
    ends = {r: _find_ends(f) for r, f in figures.items() if len(cases) >= FEWEST_CASES}
    return Summary(
        cases=len(cases),
        mean={r: _by_metric(f.mean(axis=0)) for r, f in figures.items()},
        sd={r: _by_metric(s) for r, s in spread.items()},
        low={r: _by_metric(low) for r, (low, _) in ends.items()},
        high={r: _by_metric(high) for r, (_, high) in ends.items()},
        empty={r: {kind: sum(s.empty == kind for s in scores[r]) for kind in EMPTY_KINDS} for r in regions},
        lesions={r: {count: sum(getattr(s, count) for s in scores[r]) for count in LESION_COUNTS} for r in regions},
    )


def bootstrap_means(values: Doubles, seed: int = 0) -> Doubles:
    """Means of `RESAMPLES` bootstrap samples of the cases: (resamples, k), from values (cases, k).

    A sample takes all values of a case together.
    """
    first, rng = values[:1], np.random.default_rng(seed)
    even = np.full(len(values), 1 / len(values))
    draws = (rng.multinomial(len(values), even, size=_CHUNK) / len(values) for _ in range(RESAMPLES // _CHUNK))
    return np.concatenate([shares @ (values - first) for shares in draws]) + first


def find_intervals(values: Doubles, seed: int = 0) -> list[Interval]:
    """The 95 % interval of the mean of each column of values (cases, k); None for each with too few cases.

    The percentile bootstrap (Efron 1979) is the interval of challenge reports. It is always defined and never outside
    the range of the values. With few or skewed cases it covers less than 95 % (about 90 % with ten normal values).
    """
    if len(values) < FEWEST_CASES:
        return [None] * values.shape[1]
    low, high = _find_ends(values, seed).tolist()
    return list(zip(low, high, strict=True))


def _find_ends(values: Doubles, seed: int = 0) -> Doubles:
    tail = (1 - LEVEL) / 2
    return np.asarray(np.quantile(bootstrap_means(values, seed), (tail, 1 - tail), axis=0))


@dataclass(frozen=True)
class PairedTest:
    """Wilcoxon's signed-rank test of paired values.

    Attributes:
        cases: Number of pairs.
        equal: Number of pairs without a difference, which the test leaves out.
        p_value: Two-sided p-value; 1 if all pairs are equal.
        smallest_p: The smallest p-value that is possible with this number of pairs.
    """

    cases: int
    equal: int
    p_value: float
    smallest_p: float

    @property
    def too_few(self) -> bool:
        """Whether no outcome could reach 0.05, because fewer than six pairs differ."""
        return self.smallest_p > 0.05


def paired_test(a: Doubles, b: Doubles) -> PairedTest:
    """Wilcoxon's (1945) test of whether two models differ on the same cases.

    It is exact for up to 300 differing pairs, also if differences are tied: those share their mean rank. Beyond that it
    is the normal approximation of scipy with its correction for ties.

    Args:
        a: Values (cases) of the first model.
        b: Values (cases) of the second model.
    """
    differences = np.round(np.asarray(a, np.float64) - b, 12)  # 0.9 - 0.8 and 0.8 - 0.7 are a tie
    differing = differences[differences != 0]
    equal = len(differences) - len(differing)
    if not len(differing):
        return PairedTest(len(differences), equal, 1.0, 1.0)
    return PairedTest(len(differences), equal, _signed_rank_p(differing), 2.0 ** (1 - len(differing)))


def describe_too_few(tests: Sequence[PairedTest], called: str, figures: str) -> list[str]:
    """A sentence if fewer than six cases differ, so that no values could be significant; else none."""
    few = [test.smallest_p for test in tests if test.too_few]
    if not few:
        return []
    return [
        f"In {len(few)} of {len(tests)} {called} fewer than six cases differ: p cannot fall below {min(few):.3g} "
        f"there, so that 0.05 is out of reach whatever {figures}."
    ]


def sign_flip_test(differences: Doubles, seed: int = 0) -> float:
    """Two-sided permutation test of paired differences (cases): the two models are exchanged case by case.

    The p-value is the share of exchanges whose mean difference is at least as large in absolute value. All 2^n
    exchanges of up to 13 cases are computed. With more cases, `RESAMPLES` random ones and the observed one count.
    """
    from scipy import stats

    if len(differences) < 2:
        return 1.0

    def size(values: Doubles, axis: int) -> Doubles:
        return np.asarray(np.abs(values.sum(axis=axis)).round(9))  # sums that only rounding tells apart are equal

    test = stats.permutation_test(
        (differences,),
        size,
        permutation_type="samples",
        alternative="greater",
        n_resamples=RESAMPLES,
        batch=_CHUNK,
        random_state=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's (1979) step-down rule.

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(p) for p in adjusted.round(12)]


def _signed_rank_p(differences: Doubles) -> float:
    """Two-sided p of the signed-rank sum: the distribution of the sum grows by one rank at a time."""
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


def _by_metric(figures: Doubles) -> dict[str, float]:
    return dict(zip(METRICS, figures.tolist(), strict=True))
