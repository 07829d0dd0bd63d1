"""How often volume intervals hold the true volume of cases that a model has not seen, and how wide they are.

    python benchmarks/intervals.py runs/tumour/fold0 runs/tumour/fold1 runs/tumour/fold2 \
        --data DATA/tumour/brats2021 DATA/tumour/brats2023 --card src/brainsegnet/models/tumour

Prints JSON. Models and data as in `islands.py`. Each case has the interval that the others ask for; `held` is the share
of the cases in which it held the true volume, up to 1 ml; `width` its median width as a share of the true volume, over
the cases with more than 1 ml; `error` the median of the error of the volume itself, as such a share. With `--card` the
tails that all cases ask for, and `held`, go onto the card of the model that the folds were made for.
"""

import argparse
import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from brainsegnet.api.release import bound_with
from brainsegnet.api.starting import refuse_seen
from brainsegnet.api.validation import (
    SLACK_ML,
    calibrate,
    choose_margins,
    find_tails,
    held_out_scans,
    other_scans,
    try_margins,
)
from brainsegnet.inference.engines import open_engine
from brainsegnet.inference.islands import clear_chances, without_dropped
from brainsegnet.inference.model import Model
from brainsegnet.inference.shipped import resolve_model
from brainsegnet.inference.uncertainty import choose_tail, region_chance, volume_interval
from brainsegnet.processor import describe_processor
from brainsegnet.scans.datasets import find_cases
from brainsegnet.training.patches import Scan

Spans = Mapping[str, Mapping[str, float]]
"""Region to `true`, `found`, `least` and `most` in ml."""


def load(model: Model, data: Sequence[Path]) -> dict[str, Scan]:
    """The cases that a model held out, or all where it has seen none."""
    if model.card.training.held_out:
        return held_out_scans(model, data)
    refuse_seen([case.name for case in find_cases(data)], model.card.as_parent())
    return other_scans(model, data)


def measure(model: Model, scan: Scan, margin: float | None, tails: Mapping[str, float]) -> Spans:
    """Volumes of each region, and the interval that each tail gives."""
    card, voxel_ml = model.card, float(np.prod(scan.spacing_mm)) / 1000
    chances = open_engine(model, "cpu").probabilities(scan.image)
    cleared = clear_chances(chances, margin).classes
    chances, spans = without_dropped(chances, cleared), {}
    for region, classes in zip(card.task.regions, card.task.region_classes, strict=True):
        least, most = volume_interval(region_chance(chances, classes), voxel_ml, tails[region])
        true, found = (float(np.isin(labels, classes).sum()) * voxel_ml for labels in (scan.classes, cleared))
        spans[region] = {"true": true, "found": found, "least": least, "most": most}
    return spans


def summarise(spans: Mapping[str, Spans]) -> dict[str, dict[str, float | None]]:
    """`held`, `width` and `error` of each region."""
    found = {}
    for region in next(iter(spans.values())):
        cases = [case[region] for case in spans.values()]
        large = [case for case in cases if case["true"] > SLACK_ML]
        held = [case["least"] - SLACK_ML <= case["true"] <= case["most"] + SLACK_ML for case in cases]
        found[region] = {
            "held": round(float(np.mean(held)), 3),
            "width": round(median((c["most"] - c["least"]) / c["true"] for c in large), 3) if large else None,
            "error": round(median(abs(c["found"] - c["true"]) / c["true"] for c in large), 3) if large else None,
        }
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--card", type=Path, help="released model that gets the intervals")
    parser.add_argument("--coverage", type=float, default=0.8)
    arguments = parser.parse_args(argv)
    models = [resolve_model(path) for path in arguments.models]
    trials: dict[str, Any] = {}
    for model in models:
        trials |= try_margins(model, load(model, arguments.data))
    _, margins = choose_margins(trials)
    tails: dict[str, Mapping[str, float]] = {}
    for model in models:
        tails |= find_tails(model, load(model, arguments.data), margins)
    if len(tails) < 2:
        parser.error("one case alone has no others that ask for an interval; name models that held out more")
    spans = {}
    for model in models:
        for name, scan in load(model, arguments.data).items():
            others = [tail for other, tail in tails.items() if other != name]
            chosen = {r: choose_tail([t[r] for t in others], arguments.coverage) for r in model.card.task.regions}
            spans[name] = measure(model, scan, margins[name], chosen)
    notes = calibrate(tails, arguments.coverage)
    about = {
        "date": datetime.date.today().isoformat(),
        "machine": describe_processor(),
        "weights": [model.card.weights.sha256[:12] if model.card.weights else "" for model in models],
        "coverage": arguments.coverage,
    }
    rows = {name: {r: {k: round(v, 2) for k, v in s.items()} for r, s in case.items()} for name, case in spans.items()}
    report = {
        **about,
        "tails": {r: round(n.tail, 4) for r, n in notes.items()},
        "regions": summarise(spans),
        "ml": rows,
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    if arguments.card:
        bound_with(arguments.card, notes, list(tails))


if __name__ == "__main__":
    main()
