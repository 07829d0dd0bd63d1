"""Dice of each case by a model trained without it, as `segment` runs that model, with the true volumes.

    python benchmarks/left_out.py runs/tumour/fold0 runs/tumour/fold1 runs/tumour/fold2 \
        --parent benchmarks/parents/tumour --data DATA/tumour/brats2021 DATA/tumour/brats2023 \
        --presence benchmarks/results/presence-tumour.json --card tumour --out benchmarks/results/left-out-tumour.json

Components are dropped with the margin that the other patients ask for. `dice` is with the decision of `--presence`,
`dice_undecided` without it, `dice_all_kept` without either, and `dice_simulated` that of the parent without either. The
parent must not have seen the cases. `--card` is the shipped model, whose name and weights the file states.
"""

import argparse
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainsegnet._atomic import write_text
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.model.card import PresenceRule
from brainsegnet.model.store import LAST, Model, open_model, resolve_model
from brainsegnet.task import Task
from choose import Dice, mean, score  # type: ignore[import-not-found]


def measure_volumes(data: Sequence[Path], task: Task) -> Dice:
    """Case to region to its true volume in ml."""
    volumes = {}
    for files in find_cases(data):
        lesion = load_case(files, task.sequences[:1], task, lesion=True).lesion
        assert lesion is not None
        counts = {region: np.isin(lesion.array, labels).sum() for region, labels in task.regions.items()}
        volumes[files.name] = {region: round(float(n) * lesion.voxel_ml, 2) for region, n in counts.items()}
    return volumes


def to_four_places(dice: Mapping[str, Mapping[str, float]]) -> Dice:
    """The same with four decimals, cases sorted."""
    return {case: {region: round(value, 4) for region, value in dice[case].items()} for case in sorted(dice)}


def describe_arithmetic(model: Model) -> str:
    """In words, what `segment` computes a model with on a processor with integer units."""
    return "8-bit integers" if "int8" in model.card.exports else "32-bit floats"


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folds", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--parent", type=Path)
    parser.add_argument("--presence", type=Path, help="JSON of benchmarks/presence.py")
    parser.add_argument("--card", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    shipped, fold = resolve_model(arguments.card), open_model(arguments.folds[0] / LAST)
    undecided = score(arguments.folds, arguments.data, False)
    rule = arguments.presence and PresenceRule(**json.loads(arguments.presence.read_text())["rule"])
    decided = score(arguments.folds, arguments.data, False, rule) if rule else undecided
    found: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": describe_cpu(),
        "versions": find_versions(),
        "model": shipped.card.name,
        "sha256": shipped.card.weights.sha256 if shipped.card.weights else None,
        "arithmetic": {"dice": describe_arithmetic(fold)},
        "margin": decided["margin"],
        "dice": to_four_places(decided["filtered"]),
    }
    if rule:
        found["dice_undecided"] = to_four_places(undecided["filtered"])
    found["dice_all_kept"] = to_four_places(undecided["kept"])
    if arguments.parent:
        parent = open_model(arguments.parent / LAST if (arguments.parent / LAST).exists() else arguments.parent)
        found["arithmetic"]["dice_simulated"] = describe_arithmetic(parent)
        found["dice_simulated"] = to_four_places(score([arguments.parent], arguments.data, False)["kept"])
    found["true_ml"] = measure_volumes(arguments.data, fold.card.task)
    write_text(json.dumps(found, indent=1) + "\n", arguments.out)
    for what in ("dice", "dice_undecided", "dice_all_kept", "dice_simulated"):
        if what in found:
            print(what, mean(found[what]))


if __name__ == "__main__":
    main()
