"""`rank`: rank models on the same cases, from the scores that `evaluate` wrote, and write tables of the ranking.

Ranks are averaged within a case, then over cases, as in BraTS and ISLES. So a metric in millimetres weighs no more than
one between 0 and 1, and an empty mask counts as one bad rank. Cases are resampled and permuted as a whole, because the
scores of one case depend on each other.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, product
from pathlib import Path

import numpy as np

from brainsegnet._atomic import writable, write_text
from brainsegnet._types import Doubles
from brainsegnet.errors import BrainSegNetError, DatasetError
from brainsegnet.metrics.score_file import SCORES, ScoreFile, read_scores
from brainsegnet.metrics.scores import METRICS
from brainsegnet.metrics.statistics import (
    INTERVAL_RULE,
    Interval,
    PairedTest,
    bootstrap_means,
    describe_too_few,
    find_intervals,
    holm,
    paired_test,
    sign_flip_test,
)
from brainsegnet.metrics.table import Cell, Column, Span, Table, number_columns, text_columns

Scores = Mapping[str, Mapping[str, Mapping[str, float | str | None]]]
"""Case name to region to metric to figure."""

NEAR_ZERO = ("volume_error_ml", "relative_volume_error")
"""Metrics with a sign, which are compared by their absolute value."""
LOW_IS_GOOD = ("hd95_mm", "assd_mm", "lesions_missed", "lesions_invented", *NEAR_ZERO)
RANKABLE = tuple(metric for metric in METRICS if metric not in {"predicted_volume_ml", "true_volume_ml"})
RANKING_FILES = ("ranking.csv", "pairs.csv", "ranking.json", "ranking.md")
"""What `rank` writes."""
USUAL_METRICS = ("dice", "hd95_mm")
"""The metrics that BraTS ranks by."""
_RANK_RULE = (
    "Rank 1 is best; equal figures share their mean rank. Ranks are averaged over regions and metrics within a case, "
    "then over cases. First: share of bootstrap samples of the cases in which the mean rank is the lowest."
)
_TEST_RULE = (
    "P of mean ranks: permutation test, the models swapped case by case. P of scores: Wilcoxon's signed-rank test, "
    "exact up to 300 cases, pairs without a difference left out. All two-sided, and adjusted by Holm's rule for the "
    "number of pairs of models, not for that of regions and metrics."
)

_COMPARED = ("Difference", "95 %", "Equal", "P")


@dataclass(frozen=True)
class RankedModel:
    """The place of one model in a ranking; the lowest mean rank has place 1.

    Attributes:
        model: Name of the model.
        place: Place, counted from 1. Models with equal mean ranks share a place.
        mean_rank: Mean rank over the cases.
        interval: 95 % bootstrap interval of the mean rank over cases.
        first: Share of the bootstrap samples in which its mean rank is the lowest; ties are shared.
    """

    model: str
    place: int
    mean_rank: float
    interval: Interval
    first: float


@dataclass(frozen=True)
class RankTest:
    """Permutation test of the mean ranks of two models, which are exchanged case by case.

    Attributes:
        a: First model.
        b: Second model.
        difference: Mean rank of `a` minus that of `b`.
        p_value: Two-sided p-value.
        p_adjusted: p-value adjusted for all pairs of models (Holm).
    """

    a: str
    b: str
    difference: float
    p_value: float
    p_adjusted: float


@dataclass(frozen=True)
class ScoreTest:
    """Wilcoxon's signed-rank test of one metric in one region, for two models.

    Attributes:
        region: Region of the task.
        metric: Name of the metric.
        a: First model.
        b: Second model.
        difference: Mean of `a` minus mean of `b`.
        interval: 95 % bootstrap interval of the difference.
        test: The test of the paired scores.
        p_adjusted: p-value adjusted for all pairs of models (Holm).
    """

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
    """Models ranked on the same cases, and the tests of each pair of them.

    Attributes:
        cases: Names of the cases.
        regions: Regions over which ranks are averaged.
        metrics: Metrics over which ranks are averaged.
        models: The models, from the first place to the last.
        rank_tests: Test of the mean ranks for each pair.
        score_tests: Test of each metric in each region for each pair.
        means: Model to region to metric to mean. Metrics with a sign have the mean of their absolute value.
    """

    cases: tuple[str, ...]
    regions: tuple[str, ...]
    metrics: tuple[str, ...]
    models: tuple[RankedModel, ...]
    rank_tests: tuple[RankTest, ...]
    score_tests: tuple[ScoreTest, ...]
    means: Mapping[str, Mapping[str, Mapping[str, float]]]


def rank(
    scores: Sequence[Path], out: Path | None = None, metrics: Sequence[str] = USUAL_METRICS, seed: int = 0
) -> Ranking:
    """Rank models by their scores on the same cases, and test each pair of them.

    Each model gets its mean rank over cases, regions and metrics. Pairs are tested by a permutation test of the mean
    rank, and score by score by the signed-rank test of Wilcoxon. P-values are adjusted by the rule of Holm.

    Args:
        scores: The `scores.json` of each model, or the folder that holds it. A model has the name of the folder, or of
            the file if that has another name.
        out: Folder that gets `ranking.csv`, `pairs.csv`, `ranking.json` and `ranking.md`; None writes nothing.
        metrics: Metrics to rank by, with equal weight: names of columns in `scores.csv`, such as `dice` and `hd95_mm`.
        seed: Seed of the bootstrap and the permutations.

    Returns:
        The ranking, with the tests of all pairs.

    Raises:
        DatasetError: a file is not a scores.json, or the models were not scored on the same cases, truths and rules.
        BrainSegNetError: models cannot be ranked by a metric, or the seed is negative.
        OutputError: the folder cannot be written.
    """
    if seed < 0:
        raise BrainSegNetError(f"seed must be 0 or more, not {seed}")
    if out is not None:
        writable(out / SCORES, ())
    paths = [path / SCORES if path.is_dir() else path for path in scores]
    files = dict(zip(_name_models(paths), map(read_scores, paths), strict=True))
    _require_one_task(files)
    models = {model: file.cases for model, file in files.items()}
    ranking = rank_models(models, metrics, seed)
    _require_one_truth(models)
    if out is not None:
        for name, text in zip(RANKING_FILES, (ranking_csv, pairs_csv, ranking_json, ranking_markdown), strict=True):
            write_text(text(ranking), out / name)
    return ranking


def rank_models(models: Mapping[str, Scores], metrics: Sequence[str] = USUAL_METRICS, seed: int = 0) -> Ranking:
    """Rank two or more models that were scored on the same cases.

    Args:
        models: Name of each model to its scores.
        metrics: As for `rank`.
        seed: As for `rank`.

    Raises:
        DatasetError: there are fewer than two models, or one lacks a case, region or metric.
        BrainSegNetError: models cannot be ranked by a metric.
    """
    metrics = tuple(dict.fromkeys(metrics))
    if unknown := set(metrics) - set(RANKABLE) or (not metrics and {"none"}):
        raise BrainSegNetError(
            f"models cannot be ranked by {', '.join(sorted(unknown))}; choose from {', '.join(RANKABLE)}"
        )
    cases, regions = _find_common(models)
    figures = {m: _to_array(m, scores, cases, regions, metrics) for m, scores in models.items()}
    columns = [(region, metric) for region in regions for metric in metrics]
    ranks = case_ranks(np.stack(list(figures.values()), axis=-1), [metric in LOW_IS_GOOD for _, metric in columns])
    means = {m: iter(f.mean(axis=0).tolist()) for m, f in figures.items()}
    return Ranking(
        cases=cases,
        regions=regions,
        metrics=metrics,
        models=_place_models(tuple(models), ranks, seed),
        rank_tests=_test_ranks(tuple(models), ranks, seed),
        score_tests=tuple(test for k, column in enumerate(columns) for test in _test_scores(figures, k, column, seed)),
        means={m: {r: {metric: next(row) for metric in metrics} for r in regions} for m, row in means.items()},
    )


def case_ranks(figures: Doubles, low_is_good: Sequence[bool]) -> Doubles:
    """Mean rank of each model in each case: (cases, models), from scores (cases, columns, models)."""
    from scipy import stats

    signs = np.where(low_is_good, 1, -1)[:, None]
    return np.asarray(stats.rankdata(np.round(figures, 12) * signs, axis=-1).mean(axis=1), np.float64)


def ranking_csv(ranking: Ranking) -> str:
    """A row for each model, the first place first."""
    rows = [[m.place, m.model, m.mean_rank, *(m.interval or (None, None)), m.first] for m in ranking.models]
    return Table(number_columns("place", "model", "mean_rank", "ci95_low", "ci95_high", "first"), rows).to_csv()


def pairs_csv(ranking: Ranking) -> str:
    """A row for each pair of models, first by mean rank, then in each region and metric."""
    unknown, cases = (None, None), len(ranking.cases)
    rows: list[list[Cell]] = [
        ["all", "mean_rank", t.a, t.b, t.difference, *unknown, cases, None, t.p_value, t.p_adjusted, None]
        for t in ranking.rank_tests
    ]
    for t in ranking.score_tests:
        tested = [t.test.cases, t.test.equal, t.test.p_value, t.p_adjusted, t.test.smallest_p]
        rows.append([t.region, t.metric, t.a, t.b, t.difference, *(t.interval or unknown), *tested])
    headings = "region metric a b difference ci95_low ci95_high cases equal p_value p_adjusted smallest_p"
    return Table(number_columns(*headings.split()), rows).to_csv()


def ranking_json(ranking: Ranking) -> str:
    """All of a `Ranking` in full precision, and the rules in words under `notes`."""
    names = {"models": "standings", "score_tests": "comparisons"}
    document = {names.get(key, key): value for key, value in asdict(ranking).items()}
    return json.dumps(document | {"notes": _describe(ranking)}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def ranking_markdown(ranking: Ranking) -> str:
    """Places, pairs by mean rank, pairs score by score, means, and the rules."""
    by_rank: list[list[Cell]] = [
        [f"{t.a} - {t.b}", t.difference, _format_p(t.p_value), _format_p(t.p_adjusted)] for t in ranking.rank_tests
    ]
    by_score: list[list[Cell]] = [[t.region, t.metric, f"{t.a} - {t.b}", *_score_cells(t)] for t in ranking.score_tests]
    means: list[list[Cell]] = [
        [model, region, *row.values()] for model, regions in ranking.means.items() for region, row in regions.items()
    ]
    rank_columns = [*text_columns("Models"), *number_columns("Difference", "P", "P adjusted", form="+.2f")]
    score_columns = text_columns("Region", "Metric", "Models")
    score_columns += number_columns(*_COMPARED, "P adjusted", form="+.3f")
    mean_columns = [*text_columns("Model", "Region"), *number_columns(*ranking.metrics)]
    tables = (
        _place_table(ranking),
        Table(rank_columns, by_rank, "Mean ranks, pair by pair"),
        Table(score_columns, by_score, "Scores, pair by pair", missing="-"),
        Table(mean_columns, means, "Means", _describe(ranking)),
    )
    return "\n".join(table.to_markdown() for table in tables)


def console_tables(ranking: Ranking) -> list[Table]:
    """Two tables within 80 columns: the places, and the pairs score by score."""
    rows: list[list[Cell]] = []
    for t in ranking.rank_tests:
        pair, difference = f"{t.a} - {t.b}", f"{t.difference:+.2f}"
        rows.append([pair, "mean rank", difference, "", "", _format_p(t.p_value), _format_p(t.p_adjusted)])
        of_pair = (test for test in ranking.score_tests if (test.a, test.b) == (t.a, t.b))
        rows += [[pair, f"{test.region} {test.metric}", *_score_cells(test)] for test in of_pair]
    columns = [*text_columns("Models", "Score"), *number_columns(*_COMPARED, "P adj.", form="+.3f")]
    return [_place_table(ranking), Table(columns, rows, notes=_describe(ranking), missing="-", grouped=True)]


def _place_table(ranking: Ranking) -> Table:
    rows: list[list[Cell]] = [
        [m.place, m.model, m.mean_rank, m.interval and Span(*m.interval), f"{100 * m.first:.0f} %"]
        for m in ranking.models
    ]
    figures = number_columns("Mean rank", "95 %", "First", form=".2f")
    title = f"Ranking over {len(ranking.cases)} cases"
    return Table([Column("Place"), *text_columns("Model"), *figures], rows, title, missing="-")


def _score_cells(t: ScoreTest) -> list[Cell]:
    equal, interval = f"{t.test.equal} of {t.test.cases}", t.interval and Span(*t.interval)
    return [t.difference, interval, equal, _format_p(t.test.p_value), _format_p(t.p_adjusted)]


def _format_p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _describe(ranking: Ranking) -> list[str]:
    """The rules, and a warning where the cases are too few for any verdict."""
    notes = [_RANK_RULE, _TEST_RULE]
    if any(metric in NEAR_ZERO for metric in ranking.metrics):
        notes.append("Volume errors are compared by their size, whatever their sign.")
    if ranking.models[0].interval:
        notes.append(INTERVAL_RULE)
    return notes + describe_too_few([t.test for t in ranking.score_tests], "comparisons", "the scores are")


def _place_models(models: tuple[str, ...], ranks: Doubles, seed: int) -> tuple[RankedModel, ...]:
    from scipy import stats

    mean = ranks.mean(axis=0)
    places = stats.rankdata(mean.round(9), method="min")
    draws = bootstrap_means(ranks, seed).round(9)
    best = draws == draws.min(axis=1, keepdims=True)
    first = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    rows = zip(models, places.tolist(), mean.tolist(), find_intervals(ranks, seed), first.tolist(), strict=True)
    ranked = [RankedModel(model, int(place), *figures) for model, place, *figures in rows]
    return tuple(sorted(ranked, key=lambda row: row.place))


def _test_ranks(models: tuple[str, ...], ranks: Doubles, seed: int) -> tuple[RankTest, ...]:
    pairs = list(combinations(range(len(models)), 2))
    differences = [ranks[:, a] - ranks[:, b] for a, b in pairs]
    p_values = [sign_flip_test(d, seed) for d in differences]
    return tuple(
        RankTest(models[a], models[b], float(d.mean()), p, adjusted)
        for (a, b), d, p, adjusted in zip(pairs, differences, p_values, holm(p_values), strict=True)
    )


def _test_scores(
    figures: Mapping[str, Doubles], column: int, name: tuple[str, str], seed: int
) -> tuple[ScoreTest, ...]:
    pairs = list(combinations(figures, 2))
    tests = [paired_test(figures[a][:, column], figures[b][:, column]) for a, b in pairs]
    differences = np.stack([figures[a][:, column] - figures[b][:, column] for a, b in pairs], axis=-1)
    intervals, adjusted = find_intervals(differences, seed), holm([test.p_value for test in tests])
    return tuple(
        ScoreTest(*name, a, b, float(differences[:, k].mean()), intervals[k], tests[k], adjusted[k])
        for k, (a, b) in enumerate(pairs)
    )


def _to_array(
    model: str, scores: Scores, cases: Sequence[str], regions: Sequence[str], metrics: Sequence[str]
) -> Doubles:
    """(cases, regions x metrics); of metrics with a sign, the size."""
    figures = []
    for case, region, metric in product(cases, regions, metrics):
        figure = scores[case][region].get(metric)
        if not isinstance(figure, float):
            raise DatasetError(f"{model} has no {metric} of case {case}, {region}; evaluate it again")
        figures.append(abs(figure) if metric in NEAR_ZERO else figure)
    return np.array(figures, np.float64).reshape(len(cases), -1)


def _find_common(models: Mapping[str, Scores]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Cases and regions that all models have."""
    if len(models) < 2:
        raise DatasetError(f"a ranking needs the scores of two models or more, not of {len(models)}")
    first, reference = next(iter(models.items()))
    for model, scores in models.items():
        if odd := sorted(reference.keys() ^ scores.keys()):
            has, lacks = (first, model) if odd[0] in reference else (model, first)
            raise DatasetError(f"{has} was scored on case {odd[0]} but {lacks} was not; evaluate all on the same cases")
    if not reference:
        raise DatasetError(f"{first} has no case; evaluate at least one whose truth is known")
    cases, regions = tuple(reference), tuple(next(iter(reference.values())))
    for model, case in product(models, cases):
        if (found := models[model][case]).keys() != set(regions):
            raise DatasetError(
                f"{model}, case {case}: scores of {', '.join(found)} instead of {', '.join(regions)}; "
                "evaluate all in one task"
            )
    return cases, regions


def _name_models(paths: Sequence[Path]) -> list[str]:
    """Short names that tell the models apart; whole paths where no short ones do."""
    resolved = [path.resolve() for path in paths]
    if twice := [path for path, count in Counter(resolved).items() if count > 1]:
        raise DatasetError(f"{twice[0]} is named twice; name each model once")
    short = [path.parent.name if path.name == SCORES else path.stem for path in resolved]
    longer = [str(path.parent if path.name == SCORES else path) for path in paths]
    return short if len(set(short)) == len(short) else longer


def _require_one_task(files: Mapping[str, ScoreFile]) -> None:
    first, reference = next(iter(files.items()))
    for model, file in files.items():
        if (file.task, file.regions) != (reference.task, reference.regions):
            raise DatasetError(
                f"{first} was scored in task {reference.task} but {model} in {file.task}, or their regions differ; "
                "evaluate all in one task"
            )
        if file.rules != reference.rules:
            raise DatasetError(
                f"{first} was scored by the rules {reference.rules} but {model} by {file.rules}; "
                "evaluate all by the same"
            )


def _require_one_truth(models: Mapping[str, Scores]) -> None:
    """The same case with another true volume was scored against another truth."""
    first, reference = next(iter(models.items()))
    for model, scores in models.items():
        for case, region in ((case, region) for case, regions in scores.items() for region in regions):
            a, b = (float(by[case][region].get("true_volume_ml") or 0.0) for by in (reference, scores))
            if not math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-9):
                raise DatasetError(
                    f"case {case}: the true {region} has {a:.3f} ml in the scores of {first} but {b:.3f} ml in "
                    f"those of {model}; evaluate both against the same truths"
                )
