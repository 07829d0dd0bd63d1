"""A ranking as CSV, JSON, Markdown and on the console.

`rank`: several models on the same cases, from the scores that `evaluate` wrote.
"""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, FiniteFloat, ValidationError

from brainsegnet._atomic import writable, write_text
from brainsegnet.benchmark.ranking import NEAR_ZERO, USUAL_METRICS, Comparison, Interval, Ranking, Scores, rank_models
from brainsegnet.errors import BrainSegNetError, DatasetError, describe_invalid
from brainsegnet.metrics.scores import Empty
from brainsegnet.metrics.statistics import INTERVAL_RULE
from brainsegnet.metrics.tables import markdown_table

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


FILE = "scores.json"
TABLES = {
    "ranking.csv": standings_csv,
    "pairs.csv": pairs_csv,
    "ranking.json": ranking_json,
    "ranking.md": ranking_markdown,
}


class ScoreFile(BaseModel):
    """What a ranking needs of a `scores.json`; `rules` is absent in those of version 0.1."""

    task: str
    regions: Mapping[str, tuple[int, ...]]
    cases: Mapping[str, Mapping[str, Mapping[str, FiniteFloat | Empty | None]]]
    rules: Mapping[str, Any] | None = None

    def figures(self) -> Scores:
        """Case name to region to metric to figure."""
        return {
            name: {r: {m: v for m, v in row.items() if isinstance(v, float)} for r, row in regions.items()}
            for name, regions in self.cases.items()
        }


def rank(
    scores: Sequence[Path], out: Path | None = None, metrics: Sequence[str] = USUAL_METRICS, seed: int = 0
) -> Ranking:
    """Rank models by their scores on the same cases, and test in what they differ.

    Args:
        scores: A `scores.json` of each model, or the folder that holds it; a model is called after the folder, or the
            file if it is not called scores.json.
        out: Folder that gets `ranking.csv`, `pairs.csv`, `ranking.json` and `ranking.md`, or None.
        metrics: What counts, each as much as the others.
        seed: Of bootstrap and permutations.

    Raises:
        DatasetError: a file is no scores.json, or the models were not scored on the same cases, truths and rules.
        BrainSegNetError: a metric that cannot be ranked by, or a negative seed.
        OutputError: the folder cannot be written.
    """
    if seed < 0:
        raise BrainSegNetError(f"seed must be 0 or more, not {seed}")
    if out is not None:
        writable(out / FILE, ())
    paths = [path / FILE if path.is_dir() else path for path in scores]
    files = dict(zip(_names(paths), map(_read, paths), strict=True))
    _require_one_task(files)
    figures = {model: file.figures() for model, file in files.items()}
    ranking = rank_models(figures, metrics, seed)
    _require_one_truth(figures)
    if out is not None:
        for name, table in TABLES.items():
            write_text(table(ranking), out / name)
    return ranking


def _read(path: Path) -> ScoreFile:
    try:
        return ScoreFile.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except ValidationError as error:
        defect = describe_invalid(error.errors()[0])
        raise DatasetError(f"{path} is no {FILE} as evaluate writes it with --out: {defect}") from error


def _names(paths: Sequence[Path]) -> list[str]:
    """Short names that tell the models apart; whole paths where no short ones do."""
    resolved = [path.resolve() for path in paths]
    if twice := [path for path, count in Counter(resolved).items() if count > 1]:
        raise DatasetError(f"{twice[0]} is named twice; name each model once")
    short = [path.parent.name if path.name == FILE else path.stem for path in resolved]
    longer = [str(path.parent if path.name == FILE else path) for path in paths]
    return short if len(set(short)) == len(short) else longer


def _require_one_task(files: Mapping[str, ScoreFile]) -> None:
    (first, reference), *others = files.items()
    for model, file in others:
        if (file.task, file.regions) != (reference.task, reference.regions):
            raise DatasetError(
                f"{first} was scored in task {reference.task} but {model} in {file.task}, or their regions differ; "
                "evaluate all in one task"
            )
        if file.rules and reference.rules and file.rules != reference.rules:
            raise DatasetError(
                f"{first} was scored by the rules {reference.rules} but {model} by {file.rules}; "
                "evaluate all by the same"
            )


def _require_one_truth(models: Mapping[str, Scores]) -> None:
    """The same case with another true volume was scored against another truth."""
    (first, reference), *others = models.items()
    for model, scores in others:
        for case, regions in scores.items():
            for region, row in regions.items():
                a, b = (figures.get("true_volume_ml", 0.0) for figures in (reference[case][region], row))
                if not math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-9):
                    raise DatasetError(
                        f"case {case}: the true {region} has {a:.3f} ml in the scores of {first} but {b:.3f} ml in "
                        f"those of {model}; evaluate both against the same truths"
                    )
