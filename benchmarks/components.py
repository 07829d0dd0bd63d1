"""What dropping components is worth on cases that a model has not seen, and what it costs.

    python benchmarks/components.py benchmarks/parents/tumour --data DATA/tumour/brats2021 DATA/tumour/brats2023
    python benchmarks/components.py runs/tumour/fold0 runs/tumour/fold1 runs/tumour/fold2 --data ...
    python benchmarks/components.py tumour --data ... --repeat 5
    python benchmarks/components.py runs/tumour/fold0 runs/tumour/fold1 runs/tumour/fold2 --data ... --tta

Prints JSON. A model that held cases out, as a fold does, is tested on those; another on all cases, none of which it may
have seen. `dice` is the mean by margin and region, null with all components kept; `left_out` that of each case with the
margin which the other patients ask for; `margin` is what all ask for. With `--repeat` the seconds of the arg-max alone
stand beside those of arg-max, confidence and dropping, medians over the scans, either way in turn, and nothing is
scored. `--tta` does the same with the mean over each scan and its mirror images.
"""

import argparse
import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from brainsegnet._machine import describe_cpu
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.predict import LoadedCase, compute, prepare_case
from brainsegnet.inference.segmenter import open_engine
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.model.store import Model, resolve_model
from brainsegnet.training.finetune import refuse_seen
from release.validation import Trials, choose_margins, held_out_scans, other_scans, try_margins


def try_all(models: Sequence[Model], data: Sequence[Path], tta: bool) -> Trials:
    """Dice of every case by margin and region, from the model that has not seen it."""
    trials: dict[str, Mapping[float | None, Mapping[str, float]]] = {}
    for model in models:
        if not model.card.training.held_out:
            refuse_seen([case.name for case in find_cases(data)], model.card.as_parent())
        scans = held_out_scans(model, data) if model.card.training.held_out else other_scans(model, data)
        trials |= try_margins(model, scans, tta)
    return trials


def mean_dice(trials: Trials, margins: Mapping[str, float | None]) -> dict[str, float]:
    """Of each case with a margin of its own, by region."""
    regions = next(iter(trials.values()))[None]
    return {region: round(mean(trials[name][margins[name]][region] for name in trials), 4) for region in regions}


def judge(trials: Trials) -> dict[str, Any]:
    margin, margins = choose_margins(trials)
    tried = list(next(iter(trials.values())))
    return {
        "cases": len(trials),
        "margin": margin,
        "dice": {json.dumps(m): mean_dice(trials, dict.fromkeys(trials, m)) for m in tried},
        "left_out": mean_dice(trials, margins),
        "margins_of_the_others": margins,
    }


def time_both(model: Model, data: Sequence[Path], repeat: int, threads: int | None, tta: bool) -> dict[str, Any]:
    engine = open_engine(model, "cpu", threads)
    other = "mirrored" if tta else "dropping"
    ways = {
        "arg_max": SegmentOptions(keep_all_components=True, allow_poor=True),
        other: SegmentOptions(tta=tta, allow_poor=True),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for files in find_cases(data):
        case = load_case(files, model.card.sequences, model.card.task, lesion=False, allow_missing=True)
        prepared_case = prepare_case(LoadedCase(case), model.card)
        for turn in range(repeat + 1):
            for way, options in ways.items():
                raw = compute(prepared_case, engine, options)
                seconds[way] += [raw.seconds["network"]] if turn else []
    alone, both = (median(taken) for taken in seconds.values())
    return {
        "engine": engine.backend.name,
        "arg_max_seconds": round(alone, 4),
        f"{other}_seconds": round(both, 4),
        "ratio": round(both / alone, 3),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--repeat", type=int, default=0, help="time instead: so often either way, after one to warm up")
    parser.add_argument("--tta", action="store_true", help="the mean over each scan and its mirror images")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args(argv)
    models = [resolve_model(path) for path in arguments.models]
    if not arguments.repeat:
        result = judge(try_all(models, arguments.data, arguments.tta))
    elif models[0].card.components.confidence_margin is None and not arguments.tta:
        parser.error(f"model {arguments.models[0]} drops no components, so there is nothing to time")
    else:
        result = time_both(models[0], arguments.data, arguments.repeat, arguments.threads, arguments.tta)
    weights = [model.card.weights.sha256[:12] if model.card.weights else "" for model in models]
    about = {"date": datetime.date.today().isoformat(), "machine": describe_cpu(), "weights": weights}
    sys.stdout.write(json.dumps(about | result, indent=1) + "\n")


if __name__ == "__main__":
    main()
