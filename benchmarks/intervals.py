"""How often volume intervals hold the true volume of cases that a model has not seen, and how wide they are.

    python benchmarks/intervals.py runs/tumour/fold0 runs/tumour/fold1 runs/tumour/fold2 \
        --data DATA/tumour/brats2021 DATA/tumour/brats2023 --card src/brainsegnet/models/tumour
    python benchmarks/intervals.py tumour --data DATA/tumour/brats2015

Prints JSON. Models that held cases out, as folds do, are tested on those, each with the interval that other patients
ask for; so how many are held follows from the rank of `choose_alpha`, and what the figures tell is the width. `subsets`
has the same for each part of the sequences. With `--card` the alphas that all cases ask for go onto the card of the
model that the folds were made for, and the calibration of the probabilities with them. A model without folds keeps its
intervals, and gets the calibration from the unseen cases that it was scored on:

    python benchmarks/intervals.py perfusion --data second/perfusion --card src/brainsegnet/models/perfusion

A model whose card has intervals is tested with these, on other cases than those that chose them and any part of its
sequences, as `segment --uncertainty` gives them; how many are held is then a measurement.

`held` is the share of the cases of which the interval holds the true volume, up to 1 ml; `width` its median width as a
share of the true volume, over the cases with more than 1 ml; `error` that of the error of the volume itself.
`calibration` is as on a model card; its voxels are those of the brains.
"""

import argparse
import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from brainsegnet._machine import describe_cpu
from brainsegnet.errors import DatasetError
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.postprocessing import filter_probabilities, measure_volumes, suppress_dropped
from brainsegnet.inference.segmentation import Segmentation
from brainsegnet.inference.segmenter import Segmenter, open_engine
from brainsegnet.inference.uncertainty import region_probability, volume_interval
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.model.card import Card, IntervalNote
from brainsegnet.model.store import Model, resolve_model
from brainsegnet.preprocessing.grids import bring
from brainsegnet.training.finetune import refuse_seen
from brainsegnet.training.sampler import Scan
from brainsegnet.volume import LabelMap
from release.release import bound_with
from release.reliability import Tallies, Tally, count_bins, describe_reliability, find_tallies
from release.validation import (
    SLACK_ML,
    Alphas,
    calibrate,
    choose_alphas,
    choose_margins,
    find_alphas,
    held_out_scans,
    keep,
    other_patients,
    parts_for,
    try_margins,
)

Spans = Mapping[str, Mapping[str, float]]
"""Region to `true`, `found`, `least` and `most` in ml."""


@dataclass(frozen=True)
class Found:
    """What one way of testing gives.

    Attributes:
        spans: Case to its volumes, with the sequences that it has.
        alphas: Sequences, joined by a plus, to region to the alpha that was chosen with them.
        tallies: Voxels by their probability, of each case.
        subsets: Fewer sequences, joined by a plus, to case to its volumes.
        notes: What goes onto a card; empty if the intervals are from a card.
    """

    spans: Mapping[str, Spans]
    alphas: Mapping[str, Mapping[str, float]]
    tallies: Tallies
    subsets: Mapping[str, Mapping[str, Spans]] = field(default_factory=dict)
    notes: Mapping[str, IntervalNote] = field(default_factory=dict)


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


def leave_out(models: Sequence[Model], data: Sequence[Path]) -> Found:
    """The interval of each held-out case that the other patients ask for, and what all ask for."""
    scans = [held_out_scans(model, data) for model in models]
    judges = list(zip(models, scans, strict=True))
    _, margins = choose_margins({name: trial for judge in judges for name, trial in try_margins(*judge).items()})
    alphas: Alphas = {name: one for judge in judges for name, one in find_alphas(*judge, margins).items()}
    tallies = {name: tally for judge in judges for name, tally in find_tallies(*judge).items()}
    spans: dict[str, dict[str, Spans]] = {}
    for model, held in judges:
        for name, scan in held.items():
            others = [alphas[other] for other in other_patients(name, alphas)]
            chosen = {region: choose_alphas(others, region) for region in model.card.task.regions}
            for part in parts_for(model.card):
                key = "+".join(part)
                asked = {region: by_part[key] for region, by_part in chosen.items()}
                spans.setdefault(key, {})[name] = measure(model, keep(scan, model.card, part), margins[name], asked)
    notes, whole = calibrate(alphas), "+".join(models[0].card.sequences)
    return Found(spans.pop(whole), list_alphas(notes, whole), tallies, spans, notes)


def list_alphas(notes: Mapping[str, IntervalNote], whole: str) -> dict[str, dict[str, float]]:
    """Sequences, all of them first, to region to alpha."""
    alphas = {whole: {region: note.alpha for region, note in notes.items()}}
    for region, note in notes.items():
        for part, subset in note.subsets.items():
            alphas.setdefault(part, {})[region] = subset.alpha
    return alphas


def segment_all(model: Model, data: Sequence[Path]) -> Found:
    """The interval of each case as a user gets it, with the sequences that it has."""
    files, card = find_cases(data), model.card
    refuse_seen([case.name for case in files], card.as_parent())
    spans: dict[str, Spans] = {}
    alphas: dict[str, dict[str, float]] = {}
    tallies = {}
    options = SegmentOptions(uncertainty=True, probabilities=True, save_preprocessed=True, allow_poor=True)
    with Segmenter(model, options) as segmenter:
        for case in files:
            given = {name: path for name, path in case.images.items() if name in card.sequences}
            result = segmenter(given, case.name)
            truth = load_case(case, [*given], card.task, lesion=True).lesion
            if truth is None or not truth.on_grid_of(result.labels):
                raise DatasetError(f"the label map of case {case.name} is on another grid than its images")
            spans[case.name] = span_regions(result, truth)
            tallies[case.name] = tally_regions(result, truth)
            for region, interval in (result.intervals or {}).items():
                alphas.setdefault("+".join(interval.sequences), {})[region] = interval.alpha
    return Found(spans, alphas, tallies)


def span_regions(result: Segmentation, truth: LabelMap) -> Spans:
    """Volumes and interval of each region of a result."""
    spans, intervals = {}, result.intervals or {}
    true = measure_volumes(truth, result.card.task)["regions"]
    for region, found in result.volumes_ml["regions"].items():
        least, most = intervals[region].least_ml, intervals[region].most_ml
        spans[region] = {"true": true[region], "found": found, "least": least, "most": most}
    return spans


def tally_regions(result: Segmentation, truth: LabelMap) -> dict[str, Tally]:
    """Voxels of the brain by their probability, for each region of a result with probabilities and brain mask."""
    task, maps = result.card.task, result.probabilities or {}
    if result.brain_mask is None:
        raise ValueError("the result has no brain mask")
    brain = bring(result.brain_mask, result.labels).array > 0
    tallies = {}
    for region, values in task.regions.items():
        probability = np.sum([maps[task.labels[value]].array[brain] for value in values], 0)
        tallies[region] = count_bins(probability, np.isin(truth.array[brain], values))
    return tallies


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
    parser.add_argument("--card", type=Path, help="released model that gets the intervals and the calibration")
    arguments = parser.parse_args(argv)
    models = [resolve_model(path) for path in arguments.models]
    held = sorted(name for model in models for name in model.card.training.held_out)
    released = resolve_model(arguments.card) if arguments.card else None
    if models[0].card.intervals and (len(models) > 1 or (released and released.folder != models[0].folder)):
        parser.error(f"{models[0].folder} has intervals already; name it alone, or folds")
    if not models[0].card.intervals and not all(other_patients(name, held) for name in held or [""]):
        parser.error("the models held out one patient or none, so there is nobody to ask for an interval; name folds")
    if released and sorted(released.card.training.held_out) != held:
        parser.error(f"the folds held out other cases than those that {arguments.card} was scored on")
    if released and any(_describe_start(model.card) != _describe_start(released.card) for model in models):
        parser.error(f"a fold has another start, recipe or threshold than {arguments.card}; train it alike")
    return arguments, models


def _describe_start(card: Card) -> tuple[str, object, float]:
    """What a fold shares with the model that it was trained for: hash of the start, recipe, threshold."""
    start = card.training.started_from
    return start.sha256 if start else "", card.training.recipe.get("name"), card.threshold


def main(argv: Sequence[str] | None = None) -> None:
    arguments, models = read_arguments(argv)
    known = bool(models[0].card.intervals)
    found = segment_all(models[0], arguments.data) if known else leave_out(models, arguments.data)
    calibration = describe_reliability(found.tallies)
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": describe_cpu(),
        "weights": [model.card.weights.sha256[:12] if model.card.weights else "" for model in models],
        "alphas": {part: {region: round(a, 7) for region, a in one.items()} for part, one in found.alphas.items()},
        "regions": summarise(found.spans),
        "subsets": {part: summarise(spans) for part, spans in found.subsets.items()},
        "calibration": {region: note.model_dump(mode="json") for region, note in calibration.items()},
        "ml": {
            name: {region: {key: round(ml, 2) for key, ml in span.items()} for region, span in case.items()}
            for name, case in found.spans.items()
        },
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    if arguments.card:
        intervals = found.notes or models[0].card.intervals
        bound_with(resolve_model(arguments.card).folder, intervals, list(found.spans), calibration)


if __name__ == "__main__":
    main()
