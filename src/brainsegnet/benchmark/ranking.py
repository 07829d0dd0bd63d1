"""Several models on the same cases: who ranks where, how surely, and in which scores two of them differ.

In every case, region and metric the models are ranked from 1, the best; equal ones share their mean rank. Ranks are
averaged within a case, then over cases, as BraTS and ISLES do: a metric in millimetres weighs no more than one between
0 and 1, and an empty mask counts as one bad rank, not as a diagonal of 373 mm. Cases are what is resampled and swapped,
since the figures of one case are not independent of each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from brainsegnet.errors import BrainSegNetError, DatasetError
from brainsegnet.metrics.scores import METRICS
from brainsegnet.metrics.statistics import (
    FEWEST_CASES,
    Figures,
    PairedTest,
    bootstrap_interval,
    bootstrap_means,
    holm,
    paired_test,
    sign_flip_test,
)

Scores = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Case name to region to metric to figure."""
Interval = tuple[float, float] | None
"""Ends of a 95 % interval; None of fewer than three cases."""

NEAR_ZERO = ("volume_error_ml", "relative_volume_error")
"""Metrics with a sign: they are compared by their size."""
LOW_IS_GOOD = ("hd95_mm", "assd_mm", "lesions_missed", "lesions_invented", *NEAR_ZERO)
RANKABLE = tuple(metric for metric in METRICS if metric not in {"predicted_volume_ml", "true_volume_ml"})
USUAL_METRICS = ("dice", "hd95_mm")
"""Those that BraTS ranks by."""


@dataclass(frozen=True)
class Standing:
    """Where one model stands.

    Attributes:
        model: Its name.
        place: 1 for the lowest mean rank; models of one mean rank share a place.
        mean_rank: Over regions, metrics and cases.
        interval: 95 % bootstrap interval of the mean rank over cases.
        first: Share of the resamples in which its mean rank is the lowest; ties are shared.
    """

    model: str
    place: int
    mean_rank: float
    interval: Interval
    first: float


@dataclass(frozen=True)
class RankTest:
    """Mean ranks of two models: permutation test, the models swapped case by case; adjusted over all pairs (Holm)."""

    a: str
    b: str
    difference: float
    p_value: float
    p_adjusted: float


@dataclass(frozen=True)
class Comparison:
    """One metric of one region in two models: mean of `a` less `b`, and Wilcoxon's test, adjusted over all pairs."""

    region: str
    metric: str
    a: str
    b: str
    difference: float
    interval: Interval
    test: PairedTest
    p_adjusted: float


@dataclass(frozen=True)
class Ranking:
    """All of it: `standings` from the first place down, `rank_tests` of pairs, `comparisons` score by score."""

    cases: tuple[str, ...]
    regions: tuple[str, ...]
    metrics: tuple[str, ...]
    standings: tuple[Standing, ...]
    rank_tests: tuple[RankTest, ...]
    comparisons: tuple[Comparison, ...]
    means: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Model to region to metric to mean; of metrics with a sign, the mean size."""


def rank_models(models: Mapping[str, Scores], metrics: Sequence[str] = USUAL_METRICS, seed: int = 0) -> Ranking:
    """Rank models that were scored on the same cases.

    Args:
        models: Model name to its scores, two models or more.
        metrics: What counts, each as much as the others; see `RANKABLE`.
        seed: Of bootstrap and permutations.

    Raises:
        DatasetError: fewer than two models, or cases, regions or metrics that one of them lacks.
        BrainSegNetError: a metric that cannot be ranked by.

    >>> good, bad = ({c: {"lesion": {"dice": d}} for c, d in zip("abcdef", x)} for x in ([0.8] * 6, [0.7] * 6))
    >>> ranking = rank_models({"bad": bad, "good": good}, ["dice"])
    >>> [(s.model, s.place, s.mean_rank, s.first) for s in ranking.standings]
    [('good', 1, 1.0, 1.0), ('bad', 2, 2.0, 0.0)]
    >>> ranking.rank_tests[0].p_value, ranking.comparisons[0].test.p_value
    (0.03125, 0.03125)
    """
    metrics = tuple(dict.fromkeys(metrics))
    if unknown := set(metrics) - set(RANKABLE) or (not metrics and {"none"}):
        raise BrainSegNetError(
            f"models cannot be ranked by {', '.join(sorted(unknown))}; choose from {', '.join(RANKABLE)}"
        )
    cases, regions = _common(models)
    figures = {m: _figures(m, scores, cases, regions, metrics) for m, scores in models.items()}
    columns = [(region, metric) for region in regions for metric in metrics]
    ranks = case_ranks(np.stack(list(figures.values()), axis=-1), [metric in LOW_IS_GOOD for _, metric in columns])
    means = {m: f.mean(axis=0).reshape(len(regions), -1).tolist() for m, f in figures.items()}
    return Ranking(
        cases=cases,
        regions=regions,
        metrics=metrics,
        standings=_standings(tuple(models), ranks, seed),
        rank_tests=_rank_tests(tuple(models), ranks, seed),
        comparisons=tuple(c for k, column in enumerate(columns) for c in _comparisons(figures, k, column, seed)),
        means={
            m: {r: dict(zip(metrics, row, strict=True)) for r, row in zip(regions, rows, strict=True)}
            for m, rows in means.items()
        },
    )


def case_ranks(figures: Figures, low_is_good: Sequence[bool]) -> Figures:
    """Mean rank of each model in each case: (cases, models) from figures (cases, columns, models).

    >>> case_ranks(np.array([[[0.9, 0.8, 0.8], [3.0, 2.0, 1.0]]]), [False, True])
    array([[2.  , 2.25, 1.75]])
    """
    from scipy import stats

    signs = np.where(low_is_good, 1, -1)[:, None]
    return np.asarray(stats.rankdata(np.round(figures, 12) * signs, axis=-1).mean(axis=1), np.float64)


def _standings(models: tuple[str, ...], ranks: Figures, seed: int) -> tuple[Standing, ...]:
    from scipy import stats

    mean = ranks.mean(axis=0)
    places = stats.rankdata(mean.round(9), method="min")
    draws = bootstrap_means(ranks, seed).round(9)
    best = draws == draws.min(axis=1, keepdims=True)
    first = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    intervals = _intervals(ranks, seed)
    rows = [
        Standing(model, int(places[k]), float(mean[k]), intervals[k], float(first[k])) for k, model in enumerate(models)
    ]
    return tuple(sorted(rows, key=lambda row: row.place))


def _rank_tests(models: tuple[str, ...], ranks: Figures, seed: int) -> tuple[RankTest, ...]:
    pairs = list(combinations(range(len(models)), 2))
    differences = [ranks[:, a] - ranks[:, b] for a, b in pairs]
    p_values = [sign_flip_test(d, seed) for d in differences]
    return tuple(
        RankTest(models[a], models[b], float(d.mean()), p, adjusted)
        for (a, b), d, p, adjusted in zip(pairs, differences, p_values, holm(p_values), strict=True)
    )


def _comparisons(
    figures: Mapping[str, Figures], column: int, name: tuple[str, str], seed: int
) -> tuple[Comparison, ...]:
    pairs = list(combinations(figures, 2))
    tests = [paired_test(figures[a][:, column], figures[b][:, column]) for a, b in pairs]
    differences = np.stack([figures[a][:, column] - figures[b][:, column] for a, b in pairs], axis=-1)
    intervals, adjusted = _intervals(differences, seed), holm([test.p_value for test in tests])
    return tuple(
        Comparison(*name, a, b, float(differences[:, k].mean()), intervals[k], tests[k], adjusted[k])
        for k, (a, b) in enumerate(pairs)
    )


def _intervals(values: Figures, seed: int) -> list[Interval]:
    if len(values) < FEWEST_CASES:
        return [None] * values.shape[1]
    low, high = bootstrap_interval(values, seed)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _figures(
    model: str, scores: Scores, cases: Sequence[str], regions: Sequence[str], metrics: Sequence[str]
) -> Figures:
    """(cases, regions x metrics); sizes of those with a sign."""
    rows = []
    for case in cases:
        for region in regions:
            if missing := [metric for metric in metrics if metric not in scores[case][region]]:
                raise DatasetError(f"{model} has no {missing[0]} of case {case}, {region}; evaluate it again")
            rows.append([scores[case][region][metric] for metric in metrics])
    figures = np.array(rows, np.float64).reshape(len(cases), len(regions), len(metrics))
    signed = [metric in NEAR_ZERO for metric in metrics]
    return np.where(signed, np.abs(figures), figures).reshape(len(cases), -1)


def _common(models: Mapping[str, Scores]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if len(models) < 2:
        raise DatasetError(f"a ranking needs the scores of two models or more, not of {len(models)}")
    first, *others = models
    for model in others:
        if odd := sorted(models[first].keys() ^ models[model].keys()):
            has, lacks = (first, model) if odd[0] in models[first] else (model, first)
            raise DatasetError(f"{has} was scored on case {odd[0]} but {lacks} was not; evaluate all on the same cases")
    cases = tuple(models[first])
    if not cases:
        raise DatasetError(f"{first} has no case; evaluate at least one whose truth is known")
    regions = tuple(models[first][cases[0]])
    for model, scores in models.items():
        for case in cases:
            if set(scores[case]) != set(regions):
                raise DatasetError(
                    f"{model}, case {case}: scores of {', '.join(scores[case])} instead of {', '.join(regions)}; "
                    "evaluate all in one task"
                )
    return cases, regions
