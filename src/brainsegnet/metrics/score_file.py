"""`scores.json`: all scores in full precision with their rules, for scripts and other verbs."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, FiniteFloat, ValidationError

from brainsegnet.errors import DatasetError, describe_invalid
from brainsegnet.metrics.evaluation import Evaluation
from brainsegnet.metrics.scores import EMPTY_RULE, METRICS, Empty, to_dicts
from brainsegnet.metrics.statistics import INTERVAL_RULE, summarise

SCORES = "scores.json"


class ScoreFile(BaseModel):
    """The part of a `scores.json` that other commands read. An empty `mean_of` means that the mean is of all cases."""

    task: str
    regions: Mapping[str, tuple[int, ...]]
    cases: Mapping[str, Mapping[str, Mapping[str, FiniteFloat | Empty | None]]]
    mean_of: tuple[str, ...] = ()
    mean: Mapping[str, Mapping[str, FiniteFloat]]
    sd: Mapping[str, Mapping[str, FiniteFloat]]
    interval: Mapping[str, Mapping[str, tuple[FiniteFloat, FiniteFloat]]]
    rules: Mapping[str, Any]


def to_json(evaluation: Evaluation) -> str:
    """All scores in full precision, for scripts.

    `convention` maps label values to tissues, and `regions` maps names to label values. `interval` maps region and
    metric to the ends of the 95 % interval of the mean; it is empty with fewer than three cases. `rules` holds numbers,
    and the keys ending in `_rule` hold sentences. `mean_of` names the cases of `mean`, `sd`, `interval`, `empty` and
    `lesions`: those that the model was not trained on, or all. `mean_all` and `sd_all` are of all cases, and
    `trained_on` names the training cases.
    """
    summary, every, task = summarise(evaluation.headline), summarise(evaluation.scores), evaluation.task
    document = {
        "task": task.name,
        "convention": {str(value): tissue for value, tissue in task.labels.items()},
        "regions": {region: list(values) for region, values in task.regions.items()},
        "cases": to_dicts(evaluation.scores),
        "mean_of": list(evaluation.headline),
        "trained_on": list(evaluation.familiarity.seen),
        "mean": summary.mean,
        "sd": summary.sd,
        "interval": {r: {m: [low[m], summary.high[r][m]] for m in METRICS} for r, low in summary.low.items()},
        "empty": summary.empty,
        "lesions": summary.lesions,
        "mean_all": every.mean,
        "sd_all": every.sd,
        "remarks": list(evaluation.familiarity.remarks),
        "rules": asdict(evaluation.rules),
        "empty_rule": EMPTY_RULE,
        "interval_rule": INTERVAL_RULE,
        **evaluation.rules.describe(),
        "unpredicted": list(evaluation.unpredicted),
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_scores(path: Path) -> ScoreFile:
    """Read a `scores.json` that `evaluate` wrote.

    Raises:
        DatasetError: the file cannot be read, or holds something else.
    """
    try:
        return ScoreFile.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{path} cannot be read: {reason}; make it with: brainsegnet evaluate --out") from error
    except ValidationError as error:
        defect = describe_invalid(error.errors()[0])
        raise DatasetError(f"{path} is no {SCORES} as evaluate writes it with --out: {defect}") from error
