"""Scores of many cases in a few figures: means, spread, intervals, and how many masks were empty."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainsegnet.errors import DatasetError
from brainsegnet.metrics.scores import EMPTY_KINDS, METRICS, Empty, RegionScore
from brainsegnet.metrics.statistics import FEWEST_CASES, bootstrap_interval

Cases = Mapping[str, Mapping[str, RegionScore]]
"""Case name to region to score."""

LESION_COUNTS = ("lesions_found", "lesions_missed", "lesions_invented")


@dataclass(frozen=True)
class Summary:
    """Mean and spread of the scores of a cohort.

    Attributes:
        cases: Number of cases, those with empty masks included.
        mean: Region to metric to mean over all cases.
        sd: Region to metric to standard deviation (n - 1 in the denominator; 0 for a single case).
        low: Region to metric to the lower end of the 95 % interval of the mean; no region where the cases are too few.
        high: Region to metric to the upper end.
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


def summarise(cases: Cases) -> Summary:
    """Mean, standard deviation and interval of every metric over all cases, and how many masks were empty.

    Args:
        cases: Case name to region to score; every case has the regions of the first.

    Raises:
        DatasetError: there is no case, or a case lacks a region.

    >>> from brainsegnet.metrics.scores import score_region
    >>> found, missed = np.ones((1, 1, 1), bool), np.zeros((1, 1, 1), bool)
    >>> a, b = (score_region(p, found, (1.0, 1.0, 1.0)) for p in (found, missed))
    >>> summary = summarise({"a": {"lesion": a}, "b": {"lesion": b}})
    >>> summary.mean["lesion"]["dice"], round(summary.sd["lesion"]["dice"], 4), summary.empty["lesion"]
    (0.5, 0.7071, {'both': 0, 'prediction': 1, 'truth': 0})
    """
    regions = _common_regions(cases)
    scores = {region: [case[region] for case in cases.values()] for region in regions}
    figures = {r: np.array([[getattr(s, m) for m in METRICS] for s in scores[r]], np.float64) for r in regions}
    spread = {r: f.std(axis=0, ddof=1) if len(f) > 1 else np.zeros(len(METRICS)) for r, f in figures.items()}
    ends = {r: bootstrap_interval(f) for r, f in figures.items() if len(cases) >= FEWEST_CASES}
    return Summary(
        cases=len(cases),
        mean={r: _named(f.mean(axis=0)) for r, f in figures.items()},
        sd={r: _named(s) for r, s in spread.items()},
        low={r: _named(low) for r, (low, _) in ends.items()},
        high={r: _named(high) for r, (_, high) in ends.items()},
        empty={r: {kind: sum(s.empty == kind for s in scores[r]) for kind in EMPTY_KINDS} for r in regions},
        lesions={r: {count: sum(getattr(s, count) for s in scores[r]) for count in LESION_COUNTS} for r in regions},
    )


def _named(figures: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(METRICS, figures.tolist(), strict=True))


def _common_regions(cases: Cases) -> tuple[str, ...]:
    if not cases:
        raise DatasetError("there are no scores to summarise; evaluate at least one case whose truth is known")
    first, *others = cases
    for name in others:
        if set(cases[name]) != set(cases[first]):
            raise DatasetError(
                f"case {name} has scores of {sorted(cases[name])} but case {first} of {sorted(cases[first])}; "
                "score all cases in one task"
            )
    return tuple(cases[first])
