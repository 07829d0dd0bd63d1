"""Where models stand beside each other on the same cases: mean Dice, its certainty, and the test against the first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from brainsegnet.errors import DatasetError
from brainsegnet.evaluation.metrics import RegionScore
from brainsegnet.evaluation.statistics import FEWEST_CASES, PairedTest, bootstrap_interval, holm, paired_test

Scores = Mapping[str, Mapping[str, RegionScore]]
"""Case name to region to score."""


@dataclass(frozen=True)
class Entry:
    """What a model reached, and at what cost.

    Attributes:
        scores: Of each case, under the first seed.
        parameters: Numbers that were learnt.
        multiply_adds_per_voxel: Of a pass over a scan.
        samples_per_second: While it was trained.
        seconds_per_scan: From normalised intensities to classes, mean over the cases.
        steps, minutes: Of a training, mean over the folds.
        repeats: Scores of further trainings under other seeds, each of all cases or of those that are finished.
    """

    scores: Scores
    parameters: int
    multiply_adds_per_voxel: float
    samples_per_second: float
    seconds_per_scan: float
    steps: float
    minutes: float
    repeats: Sequence[Scores] = ()


Interval = tuple[float, float] | None
"""Ends of a 95 % interval; None of fewer than three cases."""
Entries = Mapping[str, Entry]
"""Name of a model to its entry; the others are tested against the first."""


@dataclass(frozen=True)
class Standing:
    """Dice of a model in one region; of several seeds, each case counts with its mean over them.

    Attributes:
        mean, sd: Over the cases (n - 1 in the denominator; 0 for a single case).
        interval: 95 % bootstrap interval of the mean, None of fewer than three cases; so are all intervals.
        difference: Mean of this model minus that of the first, None for the first itself.
        difference_interval: Its 95 % bootstrap interval.
        test: Paired Wilcoxon test against the first.
        p_adjusted: Its p, adjusted for all models that are tested in this region (Holm).
        seed_sd: Standard deviation of the mean over the seeds that have all cases (n - 1 in the denominator), None of
            fewer than two.
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
        """Of the test alone, two-sided."""
        return self.test.p_value if self.test else None


def stand(entries: Entries) -> dict[str, dict[str, Standing]]:
    """Model to region to its Dice.

    Raises:
        DatasetError: there is no model, or one was scored on other cases or regions than the first.
    """
    dice = {name: _dice(entry) for name, entry in entries.items()}
    if not dice:
        raise DatasetError("there are no models to compare")
    first, *others = dice
    reference = {region: list(cases) for region, cases in dice[first].items()}
    for name in others:
        if {region: sorted(cases) for region, cases in dice[name].items()} != {
            r: sorted(c) for r, c in reference.items()
        }:
            raise DatasetError(f"{name} was not scored on the cases and regions of {first}; score all on the same")
    plain = {
        name: {
            region: replace(
                _standing([cases[c] for c in names], [dice[first][region][c] for c in names], name == first),
                seed_sd=_seed_sd(entries[name], region),
            )
            for region, names in reference.items()
            for cases in [dice[name][region]]
        }
        for name in dice
    }
    tests = {region: [test for name in others if (test := plain[name][region].test)] for region in reference}
    adjusted = {region: holm([test.p_value for test in of_region]) for region, of_region in tests.items()}
    return {first: plain[first]} | {
        name: {region: replace(s, p_adjusted=adjusted[region][place]) for region, s in plain[name].items()}
        for place, name in enumerate(others)
    }


def describe_tests(entries: Entries) -> list[str]:
    """A sentence where the cases are too few for any verdict."""
    tests = [s.test for regions in stand(entries).values() for s in regions.values() if s.test]
    few = [test.smallest_p for test in tests if test.too_few]
    if not few:
        return []
    return [
        f"In {len(few)} of {len(tests)} tests fewer than six cases differ: p cannot fall below {min(few):.3g} there, "
        "so that 0.05 is out of reach whatever the Dice is."
    ]


def _dice(entry: Entry) -> dict[str, dict[str, float]]:
    """Region to case to Dice, the mean over the seeds."""
    regions, seeds = next(iter(entry.scores.values()), {}), (entry.scores, *entry.repeats)
    return {
        region: {
            case: float(np.mean([scores[case][region].dice for scores in seeds if case in scores]))
            for case in entry.scores
        }
        for region in regions
    }


def _seed_sd(entry: Entry, region: str) -> float | None:
    """Of the mean Dice, over the seeds that have all cases."""
    whole = [scores for scores in (entry.scores, *entry.repeats) if scores.keys() == entry.scores.keys()]
    means = [np.mean([scores[case][region].dice for case in entry.scores]) for scores in whole]
    return float(np.std(means, ddof=1)) if len(means) > 1 else None


def _standing(values: Sequence[float], reference: Sequence[float], is_first: bool) -> Standing:
    ours, theirs = np.array(values), np.array(reference)
    mean, sd = float(ours.mean()), float(ours.std(ddof=1)) if len(values) > 1 else 0.0
    if is_first:
        return Standing(mean, sd, _interval(ours))
    gaps = ours - theirs
    return Standing(mean, sd, _interval(ours), float(gaps.mean()), _interval(gaps), paired_test(ours, theirs))


def _interval(values: NDArray[np.float64]) -> Interval:
    if len(values) < FEWEST_CASES:
        return None
    low, high = bootstrap_interval(values[:, None])
    return float(low[0]), float(high[0])
