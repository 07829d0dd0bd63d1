"""Models side by side on the same cases: accuracy, its certainty, and what it costs; Markdown, CSV, JSON, console."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainsegnet.errors import DatasetError
from brainsegnet.evaluation.metrics import EMPTY_RULE, RegionScore
from brainsegnet.evaluation.statistics import bootstrap_interval, paired_test

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Entry:
    """What a model reached, and at what cost.

    Attributes:
        scores: Case name to region to score.
        parameters: Numbers that were learnt.
        multiply_adds_per_voxel: Of a pass over a scan.
        samples_per_second: While it was trained.
        seconds_per_scan: From normalised intensities to classes, mean over the cases.
        steps, minutes: Of a training, mean over the folds.
    """

    scores: Mapping[str, Mapping[str, RegionScore]]
    parameters: int
    multiply_adds_per_voxel: float
    samples_per_second: float
    seconds_per_scan: float
    steps: float
    minutes: float


Interval = tuple[float, float]
Entries = Mapping[str, Entry]
"""Name of a model to its entry; the others are tested against the first."""


@dataclass(frozen=True)
class Standing:
    """Dice of a model in one region.

    Attributes:
        mean, sd: Over the cases (n - 1 in the denominator; 0 for a single case).
        interval: 95 % bootstrap interval of the mean.
        difference: Mean of this model minus that of the first, None for the first itself.
        difference_interval: Its 95 % bootstrap interval.
        p: Two-sided, of the paired Wilcoxon test against the first.
    """

    mean: float
    sd: float
    interval: Interval
    difference: float | None = None
    difference_interval: Interval | None = None
    p: float | None = None


COSTS = ("parameters", "multiply_adds_per_voxel", "samples_per_second", "seconds_per_scan", "steps", "minutes")
_NOTES = (
    "Dice: mean ± standard deviation over the cases, and the 95 % bootstrap interval of the mean. Difference: to the "
    "first model on the same cases; p: paired Wilcoxon test, two-sided, not corrected for the number of tests.",
    "Samples/s: of a training, cutting and augmenting included. s/scan: normalised scan to classes, in one pass.",
    EMPTY_RULE,
)


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
    return {
        name: {
            region: _standing([cases[c] for c in names], [dice[first][region][c] for c in names], name == first)
            for region, names in reference.items()
            for cases in [dice[name][region]]
        }
        for name in dice
    }


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
        _table(["Model", *regions, *_COST_HEADINGS], rows),
        *([f"## Against {next(iter(standings))}", _table(_PAIR_HEADINGS, _pairs(standings))] if len(rows) > 1 else []),
        "\n".join(f"- {note}" for note in (*notes, *_NOTES)),
    ]
    return "\n\n".join(parts) + "\n"


def to_csv(entries: Entries) -> str:
    """A row for each model and region, in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = ("mean", "sd", "low", "high", "difference", "difference_low", "difference_high", "p")
    writer.writerow(["model", "region", *(f"dice_{head}" if head != "p" else head for head in heads), *COSTS])
    for name, regions in stand(entries).items():
        costs = [getattr(entries[name], cost) for cost in COSTS]
        for region, s in regions.items():
            gap = s.difference_interval or ("", "")
            writer.writerow(
                [name, region, s.mean, s.sd, *s.interval, *_or_empty(s.difference), *gap, *_or_empty(s.p), *costs]
            )
    return text.getvalue()


def to_json(entries: Entries, settings: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """Everything, with the scores of each case, for scripts.

    Args:
        entries: Models and what they reached.
        settings: How they were trained, as JSON takes it.
        notes: Sentences on how far the comparison has come.
    """
    standings = stand(entries)
    models = {
        name: {
            "dice": {region: asdict(standing) for region, standing in standings[name].items()},
            **{cost: getattr(entry, cost) for cost in COSTS},
            "cases": {case: {r: asdict(score) for r, score in scores.items()} for case, scores in entry.scores.items()},
        }
        for name, entry in entries.items()
    }
    document = {"settings": dict(settings), "models": models, "notes": [*notes, *_NOTES]}
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
_PAIR_HEADINGS = ("Model", "Region", "Difference", "95 % interval", "p")


def _dice(entry: Entry) -> dict[str, dict[str, float]]:
    """Region to case to Dice."""
    regions = next(iter(entry.scores.values()), {})
    return {region: {case: scores[region].dice for case, scores in entry.scores.items()} for region in regions}


def _standing(values: Sequence[float], reference: Sequence[float], is_first: bool) -> Standing:
    ours, theirs = np.array(values), np.array(reference)
    mean, sd = float(ours.mean()), float(ours.std(ddof=1)) if len(values) > 1 else 0.0
    if is_first:
        return Standing(mean, sd, _interval(ours))
    gaps = ours - theirs
    return Standing(mean, sd, _interval(ours), float(gaps.mean()), _interval(gaps), paired_test(ours, theirs).p_value)


def _interval(values: NDArray[np.float64]) -> Interval:
    low, high = bootstrap_interval(values[:, None])
    return float(low[0]), float(high[0])


def _cell(standing: Standing, best: bool) -> str:
    mean, (low, high) = f"{standing.mean:.3f}", standing.interval
    return f"{f'**{mean}**' if best else mean} ± {standing.sd:.3f} [{low:.3f}, {high:.3f}]"


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
            if s.difference is not None and s.difference_interval is not None and s.p is not None:
                low, high = s.difference_interval
                rows.append([name, region, f"{s.difference:+.3f}", f"[{low:+.3f}, {high:+.3f}]", f"{s.p:.3g}"])
    return rows


def _or_empty(value: float | None) -> list[float | str]:
    return ["" if value is None else value]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    words = [heading in {"Model", "Region"} for heading in headings]
    rule = ["---" if word else "---:" for word in words]
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, rule, *rows))
