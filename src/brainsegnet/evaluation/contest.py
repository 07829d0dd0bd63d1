"""Models side by side on the same cases: accuracy, its certainty, and what it costs; Markdown, CSV, JSON, console."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from brainsegnet.evaluation.markdown import markdown_table
from brainsegnet.evaluation.metrics import EMPTY_RULE
from brainsegnet.evaluation.standings import Entries, Entry, Scores, Standing, describe_tests, stand
from brainsegnet.evaluation.statistics import INTERVAL_RULE

if TYPE_CHECKING:
    from rich.table import Table


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
