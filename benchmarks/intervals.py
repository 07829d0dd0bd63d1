"""How often volume intervals hold the true volume of cases that a model has not seen, and how wide they are.

    python benchmarks/intervals.py runs/tumour/fold0 runs/tumour/fold1 runs/tumour/fold2 \
        --data DATA/tumour/brats2021 DATA/tumour/brats2023 --card src/brainsegnet/models/tumour
    python benchmarks/intervals.py tumour --data DATA/tumour/brats2015

Prints JSON. Models that held cases out, as folds do, are tested on those, each with the interval that other patients
ask for; so how many are held follows from the rank of `choose_alpha`, and what the figures tell is the width. With
`--card` the alphas that all cases ask for go onto the card of the model that the folds were made for. A model whose
card has intervals is tested with these, on other cases than those that chose them and any part of its sequences, as
`segment --uncertainty` gives them; how many are held is then a measurement.

`held` is the share of the cases of which the interval holds the true volume, up to 1 ml; `width` its median width as a
share of the true volume, over the cases with more than 1 ml; `error` that of the error of the volume itself.
"""

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

import brainsegnet
from brainsegnet._machine import describe_cpu
from brainsegnet.inference.postprocessing import (
    filter_probabilities,
    region_probability,
    suppress_dropped,
    volume_interval,
)
from brainsegnet.inference.segmenter import open_engine
from brainsegnet.io.cases import find_cases
from brainsegnet.model.card import IntervalNote
from brainsegnet.model.store import Model, resolve_model
from brainsegnet.training.finetune import refuse_seen
from brainsegnet.training.sampler import Scan
from release.calibration import choose_alpha
from release.release import bound_with
from release.validation import (
    SLACK_ML,
    Alphas,
    calibrate,
    choose_margins,
    find_alphas,
    held_out_scans,
    other_patients,
    try_margins,
)

Spans = Mapping[str, Mapping[str, float]]
"""Region to `true`, `found`, `least` and `most` in ml."""


def measure(model: Model, scan: Scan, margin: float | None, alphas: Mapping[str, float]) -> Spans:
    """Volumes of each region, and the interval that each alpha gives."""
    card, voxel_ml = model.card, float(np.prod(scan.spacing_mm)) / 1000
    probabilities = open_engine(model, "cpu").probabilities(scan.image)
    filtered = filter_probabilities(probabilities, margin).classes
    probabilities, spans = suppress_dropped(probabilities, filtered), {}
    for region, classes in zip(card.task.regions, card.task.region_classes, strict=True):
        least, most = volume_interval(region_probability(probabilities, classes), voxel_ml, alphas[region])
        true, found = (float(np.isin(labels, classes).sum()) * voxel_ml for labels in (scan.classes, filtered))
        spans[region] = {"true": true, "found": found, "least": least, "most": most}
    return spans


def leave_out(models: Sequence[Model], data: Sequence[Path]) -> tuple[dict[str, Spans], dict[str, IntervalNote]]:
    """The interval of each held-out case that the other patients ask for, and what all ask for."""
    scans = [held_out_scans(model, data) for model in models]
    trials = {name: trial for pair in zip(models, scans, strict=True) for name, trial in try_margins(*pair).items()}
    _, margins = choose_margins(trials)
    alphas: Alphas = {
        name: alpha for pair in zip(models, scans, strict=True) for name, alpha in find_alphas(*pair, margins).items()
    }
    spans = {}
    for model, held in zip(models, scans, strict=True):
        for name, scan in held.items():
            others = [alphas[other] for other in other_patients(name, alphas)]
            chosen = {region: choose_alpha([alpha[region] for alpha in others]) for region in model.card.task.regions}
            spans[name] = measure(model, scan, margins[name], chosen)
    return spans, calibrate(alphas)


def segment_all(model: Model, data: Sequence[Path]) -> dict[str, Spans]:
    """The interval of each case as a user gets it, with the sequences that it has."""
    files, options = find_cases(data), brainsegnet.SegmentOptions(uncertainty=True, allow_poor=True)
    refuse_seen([case.name for case in files], model.card.as_parent())
    spans: dict[str, Spans] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in files:
            out = Path(folder) / f"{case.name}.nii.gz"
            given = {name: path for name, path in case.images.items() if name in model.card.sequences}
            report = brainsegnet.segment(given, model.folder, out, options).done[0].report
            scores = brainsegnet.evaluate(out, data, model.card.task).scores[case.name]
            found = report["uncertainty"]["volume_intervals"]
            spans[case.name] = {
                region: {
                    "true": score.true_volume_ml,
                    "found": score.predicted_volume_ml,
                    "least": found[region]["least_ml"],
                    "most": found[region]["most_ml"],
                }
                for region, score in scores.items()
            }
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


def read_arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[Model]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--card", type=Path, help="released model that gets the intervals of the folds")
    arguments = parser.parse_args(argv)
    models = [resolve_model(path) for path in arguments.models]
    held = sorted(name for model in models for name in model.card.training.held_out)
    if models[0].card.intervals and (len(models) > 1 or arguments.card):
        parser.error(f"{models[0].folder} has intervals already; name it alone, or folds")
    if not models[0].card.intervals and not all(other_patients(name, held) for name in held or [""]):
        parser.error("the models held out one patient or none, so there is nobody to ask for an interval; name folds")
    if arguments.card and sorted(resolve_model(arguments.card).card.training.held_out) != held:
        parser.error(f"the folds held out other cases than those that {arguments.card} was scored on")
    return arguments, models


def main(argv: Sequence[str] | None = None) -> None:
    arguments, models = read_arguments(argv)
    if models[0].card.intervals:
        spans, notes = segment_all(models[0], arguments.data), models[0].card.intervals
    else:
        spans, notes = leave_out(models, arguments.data)
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": describe_cpu(),
        "weights": [model.card.weights.sha256[:12] if model.card.weights else "" for model in models],
        "alphas": {region: round(note.alpha, 4) for region, note in notes.items()},
        "regions": summarise(spans),
        "ml": {
            name: {r: {k: round(v, 2) for k, v in s.items()} for r, s in case.items()} for name, case in spans.items()
        },
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    if arguments.card:
        bound_with(arguments.card, notes, list(spans))


if __name__ == "__main__":
    main()
