"""`rank`: several models on the same cases, from the scores that `evaluate` wrote."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, FiniteFloat, ValidationError

from brainsegnet.errors import BrainSegNetError, DatasetError, describe_invalid
from brainsegnet.evaluation.metrics import Empty
from brainsegnet.evaluation.ranking import USUAL_METRICS, Ranking, Scores, rank_models
from brainsegnet.evaluation.ranking_tables import pairs_csv, ranking_json, ranking_markdown, standings_csv
from brainsegnet.output import writable, write_text

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
