"""Where models stand beside each other on the same cases: mean Dice, its certainty, and the test against the first.

Models side by side on the same cases: accuracy, its certainty, and what it costs; Markdown, CSV, JSON, console.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainsegnet.errors import DatasetError
from brainsegnet.metrics.scores import EMPTY_RULE, RegionScore
from brainsegnet.metrics.statistics import (
    FEWEST_CASES,
    INTERVAL_RULE,
    PairedTest,
    bootstrap_interval,
    holm,
    paired_test,
)
from brainsegnet.metrics.tables import markdown_table

if TYPE_CHECKING:
    from rich.table import Table

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


def to_markdown(entries: Entries, notes: Sequence[str] = ()) -> str:
    """A table of accuracy and cost, a table of differences to the first model, and notes."""
    standings = stand(entries)
    regions = list(next(iter(standings.values())))
    best = {region: max(rows[region].mean for rows in standings.values()) for region in regions}
    rows = []
    for name, row in standings.items():
        cells = [_cell(row[region], row[region].mean == best[region]) for region in regions]
        rows.append([name, *cells, *_costs(entries[name])])
    cases = len(next(iter(entries.values())).scores)
    parts = [
        f"## Dice and cost over {cases} case{'' if cases == 1 else 's'}",
        markdown_table(["Model", *regions, *_COST_HEADINGS], rows),
        *(
            [f"## Against {next(iter(standings))}", markdown_table(_PAIR_HEADINGS, _pairs(standings))]
            if len(rows) > 1
            else []
        ),
        "\n".join(f"- {note}" for note in (*notes, *_all_notes(entries))),
    ]
    return "\n\n".join(parts) + "\n"


def to_csv(entries: Entries) -> str:
    """A row for each model and region, in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = ("mean", "sd", "seed_sd", "low", "high", "difference", "difference_low", "difference_high")
    writer.writerow(["model", "region", *(f"dice_{head}" for head in heads), "p", "p_adjusted", *COSTS])
    for name, regions in stand(entries).items():
        costs = [getattr(entries[name], cost) for cost in COSTS]
        for region, s in regions.items():
            none = ("", "")
            gap, tests = s.difference_interval or none, [*_or_empty(s.p), *_or_empty(s.p_adjusted)]
            spread, ends = [s.mean, s.sd, *_or_empty(s.seed_sd)], s.interval or none
            writer.writerow([name, region, *spread, *ends, *_or_empty(s.difference), *gap, *tests, *costs])
    return text.getvalue()


def to_json(entries: Entries, settings: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """Everything, with the scores of each case, for scripts.

    Args:
        entries: Models and what they reached.
        settings: How they were trained, as JSON takes it.
        notes: Sentences on how far the comparison has come.

    `cases` are the scores under the first seed, `repeats` those under the others.
    """
    standings = stand(entries)
    models = {
        name: {
            "dice": {region: _to_dict(standing) for region, standing in standings[name].items()},
            **{cost: getattr(entry, cost) for cost in COSTS},
            "cases": _to_cases(entry.scores),
            **({"repeats": [_to_cases(scores) for scores in entry.repeats]} if entry.repeats else {}),
        }
        for name, entry in entries.items()
    }
    document = {"settings": dict(settings), "models": models, "notes": [*notes, *_all_notes(entries)]}
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_rich(entries: Entries, notes: Sequence[str] = ()) -> "Table":
    """A table for the console: mean Dice and cost; 80 columns are enough."""
    from rich import box
    from rich.table import Table

    standings = stand(entries)
    table = Table(
        box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, caption="\n".join(notes), caption_justify="left"
    )
    table.add_column("Model, Dice", overflow="fold")
    for heading in (*next(iter(standings.values())), "params", "MACs", "smp/s", "s/scan", "steps"):
        table.add_column(heading, justify="right")
    for name, row in standings.items():
        costs = [cost.replace(" ", "") for cost in _costs(entries[name])]
        table.add_row(name, *(f"{s.mean:.3f}" for s in row.values()), *costs)
    return table


_COST_HEADINGS = ("Parameters", "Mult.-adds/voxel", "Samples/s", "s/scan", "Steps")
_PAIR_HEADINGS = ("Model", "Region", "Difference", "95 % interval", "p", "p adjusted")


def _to_dict(standing: Standing) -> dict[str, Any]:
    """For JSON: `p` and `p_adjusted` as figures, and what else the test says."""
    return asdict(standing) | {"p": standing.p}


def _to_cases(scores: Scores) -> dict[str, Any]:
    return {case: {region: asdict(score) for region, score in of_case.items()} for case, of_case in scores.items()}


def _all_notes(entries: Entries) -> list[str]:
    several = any(entry.repeats for entry in entries.values())
    return [*_NOTES, *([_SEEDS] if several else []), *describe_tests(entries)]


def _cell(standing: Standing, best: bool) -> str:
    mean, ends = f"{standing.mean:.3f}", standing.interval
    interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""
    seeds = "" if standing.seed_sd is None else f", seeds ± {standing.seed_sd:.3f}"
    return f"{f'**{mean}**' if best else mean} ± {standing.sd:.3f}{interval}{seeds}"


def _costs(entry: Entry) -> list[str]:
    return [
        f"{entry.parameters / 1e6:.2f} M",
        f"{entry.multiply_adds_per_voxel / 1e3:.1f} k",
        f"{entry.samples_per_second:.2f}",
        f"{entry.seconds_per_scan:.2f}",
        f"{entry.steps:.0f}",
    ]


def _pairs(standings: Mapping[str, Mapping[str, Standing]]) -> list[list[str]]:
    rows = []
    for name, regions in standings.items():
        for region, s in regions.items():
            if s.difference is not None and s.p is not None and s.p_adjusted is not None:
                ends = s.difference_interval
                interval = f"[{ends[0]:+.3f}, {ends[1]:+.3f}]" if ends else ""
                rows.append([name, region, f"{s.difference:+.3f}", interval, f"{s.p:.3g}", f"{s.p_adjusted:.3g}"])
    return rows


def _or_empty(value: float | None) -> list[float | str]:
    return ["" if value is None else value]
