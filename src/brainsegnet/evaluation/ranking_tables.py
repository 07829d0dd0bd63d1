"""A ranking as CSV, JSON, Markdown and on the console."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from brainsegnet.evaluation.markdown import markdown_table
from brainsegnet.evaluation.ranking import NEAR_ZERO, Comparison, Interval, Ranking
from brainsegnet.evaluation.statistics import INTERVAL_RULE

if TYPE_CHECKING:
    from rich.table import Table

_RANK_RULE = (
    "Rank 1 is best; equal figures share their mean rank. Ranks are averaged over regions and metrics within a case, "
    "then over cases. First: share of bootstrap samples of the cases in which the mean rank is the lowest."
)
_TEST_RULE = (
    "P of mean ranks: permutation test, the models swapped case by case. P of scores: Wilcoxon's signed-rank test, "
    "exact up to 300 cases, pairs without a difference left out. All two-sided, and adjusted by Holm's rule for the "
    "number of pairs of models, not for that of regions and metrics."
)


def standings_csv(ranking: Ranking) -> str:
    """A row for each model, the first place first."""
    heading = ("place", "model", "mean_rank", "ci95_low", "ci95_high", "first")
    rows = [[s.place, s.model, s.mean_rank, *(s.interval or ("", "")), s.first] for s in ranking.standings]
    return _csv(heading, rows)


def pairs_csv(ranking: Ranking) -> str:
    """A row for each pair of models, first by mean rank, then in each region and metric."""
    pair = ("region", "metric", "a", "b", "difference", "ci95_low", "ci95_high")
    heading = (*pair, "cases", "equal", "p_value", "p_adjusted", "smallest_p")
    cases = len(ranking.cases)
    rows: list[list[object]] = [
        ["all", "mean_rank", t.a, t.b, t.difference, "", "", cases, "", t.p_value, t.p_adjusted, ""]
        for t in ranking.rank_tests
    ]
    for c in ranking.comparisons:
        figures = (c.test.cases, c.test.equal, c.test.p_value, c.p_adjusted, c.test.smallest_p)
        rows.append([c.region, c.metric, c.a, c.b, c.difference, *(c.interval or ("", "")), *figures])
    return _csv(heading, rows)


def ranking_json(ranking: Ranking) -> str:
    """All of a `Ranking` in full precision, and the rules in words under `notes`."""
    document = {**asdict(ranking), "notes": ranking_notes(ranking)}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def ranking_markdown(ranking: Ranking) -> str:
    """Places, pairs by mean rank, pairs score by score, means, and the rules."""
    places = [[str(s.place), s.model, *_standing(s.mean_rank, s.interval, s.first)] for s in ranking.standings]
    by_rank = [[f"{t.a} - {t.b}", f"{t.difference:+.2f}", _p(t.p_value), _p(t.p_adjusted)] for t in ranking.rank_tests]
    by_score = [[c.region, c.metric, *_comparison(c)] for c in ranking.comparisons]
    means = [
        [model, region, *(f"{row[metric]:.3f}" for metric in ranking.metrics)]
        for model, regions in ranking.means.items()
        for region, row in regions.items()
    ]
    pair = ("Difference", "P", "P adjusted")
    parts = [
        f"## Ranking over {len(ranking.cases)} cases",
        markdown_table(("Place", "Model", "Mean rank", "95 %", "First"), places),
        "## Mean ranks, pair by pair",
        markdown_table(("Models", *pair), by_rank),
        "## Scores, pair by pair",
        markdown_table(("Region", "Metric", "Models", "Difference", "95 %", "Equal", "P", "P adjusted"), by_score),
        "## Means",
        markdown_table(("Model", "Region", *ranking.metrics), means),
        "\n".join(f"- {note}" for note in ranking_notes(ranking)),
    ]
    return "\n\n".join(parts) + "\n"


def ranking_tables(ranking: Ranking) -> list["Table"]:
    """Two tables for the console, within 80 columns: the places, and the pairs score by score."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    places = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"Over {len(ranking.cases)} cases", title_justify="left")
    pairs = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, caption_justify="left")
    pairs.caption = "\n".join(map(escape, ranking_notes(ranking)))
    for table, words, figures in (
        (places, ("Place", "Model"), ("Mean rank", "95 %", "First")),
        (pairs, ("Models, score",), ("Difference", "95 %", "Equal", "P", "P adj.")),
    ):
        for heading in words:
            table.add_column(heading, overflow="fold")
        for heading in figures:
            table.add_column(heading, justify="right", no_wrap=True)
    for s in ranking.standings:
        places.add_row(str(s.place), escape(s.model), *_standing(s.mean_rank, s.interval, s.first))
    for t in ranking.rank_tests:
        pairs.add_row(escape(f"{t.a} - {t.b}"))
        pairs.add_row("  mean rank", f"{t.difference:+.2f}", "", "", _p(t.p_value), _p(t.p_adjusted))
        for c in ranking.comparisons:
            if (c.a, c.b) == (t.a, t.b):
                pairs.add_row(f"  {escape(c.region)} {c.metric}", *_comparison(c)[1:])
        pairs.add_section()
    return [places, pairs]


def ranking_notes(ranking: Ranking) -> list[str]:
    """The rules in words, and a warning where the cases are too few for any verdict."""
    notes = [_RANK_RULE, _TEST_RULE]
    if any(metric in NEAR_ZERO for metric in ranking.metrics):
        notes.append("Volume errors are compared by their size, whatever their sign.")
    if ranking.standings[0].interval:
        notes.append(INTERVAL_RULE)
    few = [c.test.smallest_p for c in ranking.comparisons if c.test.too_few]
    if few:
        notes.append(
            f"In {len(few)} of {len(ranking.comparisons)} comparisons fewer than six cases differ: p cannot fall below "
            f"{min(few):.3g} there, so that 0.05 is out of reach whatever the scores are."
        )
    return notes


def _standing(mean_rank: float, interval: Interval, first: float) -> tuple[str, str, str]:
    return f"{mean_rank:.2f}", _ends(interval, ".2f"), f"{100 * first:.0f} %"


def _comparison(c: Comparison) -> tuple[str, ...]:
    figures = (f"{c.difference:+.3f}", _ends(c.interval, "+.3f"), f"{c.test.equal} of {c.test.cases}")
    return (f"{c.a} - {c.b}", *figures, _p(c.test.p_value), _p(c.p_adjusted))


def _ends(interval: Interval, form: str) -> str:
    return f"{interval[0]:{form}} to {interval[1]:{form}}" if interval else "-"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _csv(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heading, *rows])
    return text.getvalue()
