"""Models side by side on cases that none of them has seen, case by case, with paired tests: for choosing what to ship.

    python benchmarks/choose.py DATA/tumour/brats2021 DATA/tumour/brats2023 --out benchmarks/results/choice.json \
        --models before=runs/a/fold0,runs/a/fold1,runs/a/fold2 after=runs/b/fold0,runs/b/fold1,runs/b/fold2

A model is a folder, or the folders of its folds; each fold scores the cases that it held out, and one model alone
scores all. Dice is that of whole scans, all components kept, and with the margin of components that the other patients
ask for; `--parts` scores every part of the sequences too. The tests compare each model with the first by sign flips
over the cases, corrected by Holm over the regions. Cases that choose a model do not judge it.
"""

import argparse
import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainsegnet._atomic import write_text
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet.metrics.statistics import holm, sign_flip_test
from brainsegnet.model.card import PresenceRule
from brainsegnet.model.store import LAST, Model, open_model
from brainsegnet.training.finetune import refuse_seen
from release.release import with_rule
from release.validation import choose_margins, held_out_scans, other_scans, score_parts, try_margins

Dice = dict[str, dict[str, float]]
"""Case to region to Dice."""


def score(
    folds: Sequence[Path], data: Sequence[Path], every_part: bool, rule: PresenceRule | None = None
) -> dict[str, Any]:
    """Dice by case: all components kept, with the other patients' margin, and perhaps with each part of the sequences.

    Raises:
        DatasetError: a model has seen a case that it would score.
    """
    parts: dict = {}
    trials: dict = {}
    judges = [open_model(fold / LAST if (fold / LAST).exists() else fold) for fold in folds]
    judges = [with_rule(judge, rule) for judge in judges]
    for judge in judges:
        scans = held_out_scans(judge, data) if len(judges) > 1 else _all(judge, data)
        parts |= score_parts(judge, scans)[1] if every_part else {}
        trials |= try_margins(judge, scans)
    margin, margins = choose_margins(trials)
    filtered = {name: dict(trial[margins[name]]) for name, trial in trials.items()}
    kept = {name: dict(trial[None]) for name, trial in trials.items()}
    return {"kept": kept, "filtered": filtered, "margin": margin, "parts": parts}


def _all(judge: Model, data: Sequence[Path]) -> Mapping:
    scans = other_scans(judge, data)
    refuse_seen(list(scans), judge.card.as_parent())
    return scans


def mean(dice: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Mean over the cases, by region."""
    regions = next(iter(dice.values()))
    return {region: round(float(np.mean([case[region] for case in dice.values()])), 4) for region in regions}


def compare(first: Dice, second: Dice) -> dict[str, dict[str, float]]:
    """Mean difference of the second from the first and its p-value, by region."""
    cases = sorted(first)
    regions = list(next(iter(first.values())))
    columns = [[np.array([dice[case][region] for case in cases]) for dice in (second, first)] for region in regions]
    corrected = holm([sign_flip_test(a - b) for a, b in columns])
    means = [float((a - b).mean()) for a, b in columns]
    return {
        region: {"difference": round(change, 4), "p": round(p, 4)}
        for region, change, p in zip(regions, means, corrected, strict=True)
    }


def describe(found: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of a model for the JSON: means, and the Dice of each case with all sequences."""
    parts: Dice = next(iter(found["parts"].values()), {})
    return {
        "kept": mean(found["kept"]),
        "filtered": mean(found["filtered"]),
        "margin": found["margin"],
        "parts": {part: mean({case: row[part] for case, row in found["parts"].items()}) for part in parts},
        "cases": found["kept"],
        "cases_filtered": found["filtered"],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=FOLDER[,FOLDER...]")
    parser.add_argument("--presence", type=Path, help="JSON of benchmarks/presence.py, whose rule all models get")
    parser.add_argument("--parts", action="store_true", help="score every part of the sequences too")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    written = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"models": {}}
    models = written["models"]
    rule = arguments.presence and PresenceRule(**json.loads(arguments.presence.read_text())["rule"])
    for text in arguments.models:
        name, _, folders = text.partition("=")
        if name not in models:
            models[name] = describe(
                score([Path(one) for one in folders.split(",")], arguments.data, arguments.parts, rule)
            )
        row = models[name]
        sys.stdout.write(f"{name}: {row['kept']}, filtered {row['filtered']} (margin {row['margin']})\n")
        first = models[arguments.models[0].partition("=")[0]]
        row["against_first"] = compare(first["cases"], row["cases"]) if row is not first else {}
        about = {"date": datetime.date.today().isoformat(), "machine": describe_cpu(), "versions": find_versions()}
        write_text(json.dumps(about | {"models": models}, indent=1) + "\n", arguments.out)


if __name__ == "__main__":
    main()
