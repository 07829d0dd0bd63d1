"""The leaderboard of a benchmark: mean Dice of each model, its interval, the test against the first, and costs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from brainsegnet.errors import DatasetError
from brainsegnet.metrics.scores import EMPTY_RULE, CaseScores, to_dicts
from brainsegnet.metrics.statistics import (
    INTERVAL_RULE,
    Interval,
    PairedTest,
    describe_too_few,
    find_intervals,
    holm,
    paired_test,
)
from brainsegnet.metrics.table import Cell, Column, Estimate, Span, Table, count_cases, number_columns, text_columns

COSTS = ("parameters", "multiply_adds_per_voxel", "samples_per_second", "seconds_per_scan", "steps", "minutes")
_NOTES = (
    "Dice: mean ± standard deviation over the cases, and the 95 % interval of the mean. Difference: to the first "
    "model on the same cases; p: paired Wilcoxon test, two-sided; adjusted: for all models in one region (Holm).",
    INTERVAL_RULE,
    "Samples/s: of a training, cutting and augmenting included. s/scan: normalised scan to classes, in one pass where "
    "memory allows.",
    EMPTY_RULE,
)
_SEEDS = (
    "Each case counts with its mean Dice over the seeds; seeds ±: standard deviation of the mean over the seeds that "
    "have all cases."
)


@dataclass(frozen=True)
class ModelResults:
    """Scores and costs of one model over all folds and seeds of a benchmark.

    Attributes:
        scores: Scores of each case under the first seed.
        parameters: Number of learnt parameters.
        multiply_adds_per_voxel: Multiply-adds for one voxel of a scan.
        samples_per_second: Training samples per second, mean over the folds.
        seconds_per_scan: Seconds from normalised intensities to classes, mean over the cases.
        steps: Steps of a training, mean over the folds.
        minutes: Minutes of a training, mean over the folds.
        repeats: Scores of further trainings under other seeds, for all finished cases.
    """

    scores: CaseScores
    parameters: int
    multiply_adds_per_voxel: float
    samples_per_second: float
    seconds_per_scan: float
    steps: float
    minutes: float
    repeats: Sequence[CaseScores] = ()


Results = Mapping[str, ModelResults]
"""Name of a model to what it reached; all others are tested against the first."""


@dataclass(frozen=True)
class LeaderboardRow:
    """Dice of a model in one region. With several seeds, each case counts with its mean over them.

    Standard deviations have n - 1 in the denominator. 95 % bootstrap intervals are None for fewer than three cases.

    Attributes:
        mean: Mean over the cases.
        sd: Standard deviation over the cases; 0 for a single case.
        interval: Interval of the mean.
        difference: Mean of this model minus mean of the first; None for the first itself.
        difference_interval: Interval of the difference.
        test: Paired Wilcoxon test against the first model.
        p_adjusted: p-value adjusted for all models that are tested in this region (Holm).
        seed_sd: Standard deviation of the mean over the seeds that have all cases; None with fewer than two seeds.
    """

    mean: float
    sd: float
    interval: Interval = None
    difference: float | None = None
    difference_interval: Interval = None
    test: PairedTest | None = None
    p_adjusted: float | None = None
    seed_sd: float | None = None

    @property
    def p(self) -> float | None:
        """p-value of this test alone, two-sided."""
        return self.test.p_value if self.test else None


Leaderboard = Mapping[str, Mapping[str, LeaderboardRow]]


def make_leaderboard(results: Results) -> Leaderboard:
    """Model to region to its Dice, with the tests against the first model.

    Raises:
        DatasetError: there is no model, or one was scored on other cases or regions than the first.
    """
    dice = {name: _mean_dice(model) for name, model in results.items()}
    if not dice:
        raise DatasetError("there are no models to compare")
    first, *others = dice
    cases = {name: {region: set(row) for region, row in regions.items()} for name, regions in dice.items()}
    for name in others:
        if cases[name] != cases[first]:
            raise DatasetError(f"{name} was not scored on the cases and regions of {first}; score all on the same")
    board: dict[str, dict[str, LeaderboardRow]] = {name: {} for name in dice}
    for region, names in dice[first].items():
        figures = {model: np.array([regions[region][case] for case in names]) for model, regions in dice.items()}
        tests = {model: paired_test(figures[model], figures[first]) for model in others}
        adjusted = dict(zip(others, holm([test.p_value for test in tests.values()]), strict=True))
        for model, values in figures.items():
            gaps, is_first = values - figures[first], model == first
            board[model][region] = LeaderboardRow(
                mean=float(values.mean()),
                sd=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
                interval=find_intervals(values[:, None])[0],
                difference=None if is_first else float(gaps.mean()),
                difference_interval=None if is_first else find_intervals(gaps[:, None])[0],
                test=tests.get(model),
                p_adjusted=adjusted.get(model),
                seed_sd=_seed_sd(results[model], region),
            )
    return board


def to_markdown(results: Results, notes: Sequence[str] = ()) -> str:
    """A table of accuracy and cost, a table of differences to the first model, and notes."""
    board = make_leaderboard(results)
    first, regions = next(iter(board)), list(next(iter(board.values())))
    best = {region: max(row[region].mean for row in board.values()) for region in regions}
    rows: list[list[Cell]] = [
        [
            name,
            *(Estimate(s.mean, s.sd, s.interval, s.seed_sd, s.mean == best[region]) for region, s in row.items()),
            *_cost_cells(results[name]),
        ]
        for name, row in board.items()
    ]
    columns = [*text_columns("Model"), *number_columns(*regions, "Parameters", "Mult.-adds/voxel")]
    columns += [*number_columns("Samples/s", "s/scan", form=".2f"), Column("Steps", ".0f")]
    title = f"Dice and cost over {count_cases(len(results[first].scores))}"
    sentences = [*notes, *_describe(results, board)]
    if len(board) == 1:
        return Table(columns, rows, title, sentences).to_markdown()
    pairs: list[list[Cell]] = [
        [name, region, s.difference, s.difference_interval and Span(*s.difference_interval), s.p, s.p_adjusted]
        for name, row in board.items()
        for region, s in row.items()
        if s.test
    ]
    of_pairs = [*text_columns("Model", "Region"), *number_columns("Difference", "95 % interval", form="+.3f")]
    of_pairs += number_columns("p", "p adjusted", form=".3g")
    tables = Table(columns, rows, title), Table(of_pairs, pairs, f"Against {first}", sentences)
    return "\n".join(table.to_markdown() for table in tables)


def to_csv(results: Results) -> str:
    """A row for each model and region, in full precision."""
    dice = "mean sd seed_sd low high difference difference_low difference_high".split()
    unknown, rows = (None, None), list[list[Cell]]()
    for name, row in make_leaderboard(results).items():
        costs = [getattr(results[name], cost) for cost in COSTS]
        for region, s in row.items():
            difference = [s.difference, *(s.difference_interval or unknown), s.p, s.p_adjusted]
            rows.append([name, region, s.mean, s.sd, s.seed_sd, *(s.interval or unknown), *difference, *costs])
    headings = ("model", "region", *(f"dice_{figure}" for figure in dice), "p", "p_adjusted", *COSTS)
    return Table(number_columns(*headings), rows).to_csv()


def to_json(results: Results, settings: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """Everything, with how the models were trained (`settings`) and the scores of each case, for scripts.

    `cases` are the scores under the first seed, `repeats` those under the others.
    """
    board = make_leaderboard(results)
    models = {
        name: {
            "dice": {region: asdict(row) | {"p": row.p} for region, row in board[name].items()},
            **{cost: getattr(model, cost) for cost in COSTS},
            "cases": to_dicts(model.scores),
            **({"repeats": [to_dicts(scores) for scores in model.repeats]} if model.repeats else {}),
        }
        for name, model in results.items()
    }
    document = {"settings": dict(settings), "models": models, "notes": [*notes, *_describe(results, board)]}
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def console_table(results: Results, notes: Sequence[str] = ()) -> Table:
    """Mean Dice and cost, in 80 columns."""
    board = make_leaderboard(results)
    rows: list[list[Cell]] = []
    for name, row in board.items():
        costs = [cost.replace(" ", "") if isinstance(cost, str) else cost for cost in _cost_cells(results[name])]
        rows.append([name, *(s.mean for s in row.values()), *costs])
    columns = [*text_columns("Model, Dice"), *number_columns(*next(iter(board.values())), "params", "MACs")]
    columns += [*number_columns("smp/s", "s/scan", form=".2f"), Column("steps", ".0f")]
    return Table(columns, rows, notes=notes)


def _mean_dice(model: ModelResults) -> dict[str, dict[str, float]]:
    """Region to case to Dice, the mean over the seeds."""
    regions, seeds = next(iter(model.scores.values()), {}), (model.scores, *model.repeats)
    return {
        region: {
            case: float(np.mean([scores[case][region].dice for scores in seeds if case in scores]))
            for case in model.scores
        }
        for region in regions
    }


def _seed_sd(model: ModelResults, region: str) -> float | None:
    """Of the mean Dice, over the seeds that have all cases."""
    whole = [scores for scores in (model.scores, *model.repeats) if scores.keys() == model.scores.keys()]
    means = [np.mean([scores[case][region].dice for case in model.scores]) for scores in whole]
    return float(np.std(means, ddof=1)) if len(means) > 1 else None


def _cost_cells(model: ModelResults) -> list[Cell]:
    parameters, operations = f"{model.parameters / 1e6:.2f} M", f"{model.multiply_adds_per_voxel / 1e3:.1f} k"
    return [parameters, operations, model.samples_per_second, model.seconds_per_scan, float(model.steps)]


def _describe(results: Results, board: Leaderboard) -> list[str]:
    seeds = [_SEEDS] if any(model.repeats for model in results.values()) else []
    tests = [row.test for rows in board.values() for row in rows.values() if row.test]
    return [*_NOTES, *seeds, *describe_too_few(tests, "tests", "the Dice is")]
