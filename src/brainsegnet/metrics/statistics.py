"""Means of a cohort with their intervals, paired tests of two models, and the correction for many tests.

All is seeded, and small samples are computed exactly rather than by a normal approximation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from brainsegnet._types import Doubles
from brainsegnet.errors import DatasetError
from brainsegnet.metrics.scores import EMPTY_KINDS, LESION_COUNTS, METRICS, CaseScores, Empty

Interval = tuple[float, float] | None
"""Ends of a 95 % interval; None of fewer than three cases."""

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


@dataclass(frozen=True)
class Summary:
    """Mean and spread of the scores of a cohort.

    Attributes:
        cases: Number of cases, those with empty masks included.
        mean, sd: Region to metric to figure over all cases (n - 1 in the denominator; an sd of 0 for a single case).
        low, high: Region to metric to end of the 95 % interval of the mean; no region where the cases are too few.
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
        """The 95 % interval of a mean."""
        return (self.low[region][metric], self.high[region][metric]) if region in self.low else None


def summarise(cases: CaseScores) -> Summary:
    """Mean, standard deviation and interval of every metric over all cases, and how many masks were empty.

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
    """Means of `RESAMPLES` draws of as many cases with replacement: (resamples, k) from (cases, k).

    Columns stay together: a draw takes all figures of a case.
    """
    first, rng = values[:1], np.random.default_rng(seed)
    even = np.full(len(values), 1 / len(values))
    draws = (rng.multinomial(len(values), even, size=_CHUNK) / len(values) for _ in range(RESAMPLES // _CHUNK))
    return np.concatenate([shares @ (values - first) for shares in draws]) + first


def find_intervals(values: Doubles, seed: int = 0) -> list[Interval]:
    """The 95 % interval of the mean of each column of figures (cases, k); None each where the cases are too few.

    The percentile bootstrap (Efron 1979) is the interval of challenge reports: always defined, never outside the range
    of the values. Of few or skewed cases it covers less than it says (of ten normal ones about 90 %).
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


def paired_test(a: Doubles, b: Doubles) -> PairedTest:
    """Wilcoxon's (1945) test of whether two models differ on the same cases, figures (cases) of each.

    Exact up to 300 differing pairs, also where differences are tied: those share their mean rank. Beyond, scipy's
    normal approximation with its correction for ties.
    """
    differences = np.round(np.asarray(a, np.float64) - b, 12)  # 0.9 - 0.8 and 0.8 - 0.7 are a tie
    differing = differences[differences != 0]
    equal = len(differences) - len(differing)
    if not len(differing):
        return PairedTest(len(differences), equal, 1.0, 1.0)
    return PairedTest(len(differences), equal, _signed_rank_p(differing), 2.0 ** (1 - len(differing)))


def describe_too_few(tests: Sequence[PairedTest], called: str, figures: str) -> list[str]:
    """A sentence where fewer than six cases differ, so that no figures could be significant; else none."""
    few = [test.smallest_p for test in tests if test.too_few]
    if not few:
        return []
    return [
        f"In {len(few)} of {len(tests)} {called} fewer than six cases differ: p cannot fall below {min(few):.3g} "
        f"there, so that 0.05 is out of reach whatever {figures}."
    ]


def sign_flip_test(differences: Doubles, seed: int = 0) -> float:
    """Two-sided permutation test of paired differences (cases): the two models are swapped case by case.

    P is the share of swaps whose mean difference is as large in size. All 2^n swaps of up to 13 cases are tried; of
    more, `RESAMPLES` random ones, and the observed one counts too.
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
    """P-values adjusted for their number by Holm's (1979) step-down rule.

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
