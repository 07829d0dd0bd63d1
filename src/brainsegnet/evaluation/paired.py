"""How sure a mean is, and whether two models differ on the same cases."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

DRAWS = 10_000
"""Of the bootstrap."""

Interval = tuple[float, float]


def bootstrap_interval(values: Sequence[float], level: float = 0.95, seed: int = 0) -> Interval:
    """Percentile interval of the mean, from cases drawn with replacement (Efron 1979).

    The same values give the same interval; of a single value, it is that value.

    >>> [round(end, 2) for end in bootstrap_interval([0.7, 0.8, 0.9, 0.8])]
    [0.73, 0.88]
    """
    cases = np.asarray(values, np.float64)
    draws = np.random.default_rng(seed).integers(len(cases), size=(DRAWS, len(cases)))
    low, high = np.quantile(cases[draws].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_wilcoxon(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p of the signed-rank test (Wilcoxon 1945) on the same cases, pairs without a difference left out.

    It is 1 where no pair differs.

    >>> paired_wilcoxon([0.9, 0.8, 0.7, 0.9, 0.6], [0.8, 0.6, 0.4, 0.5, 0.1])
    0.0625
    >>> paired_wilcoxon([0.5], [0.5])
    1.0
    """
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    differences = differences[differences != 0]
    return float(stats.wilcoxon(differences).pvalue) if differences.size else 1.0
