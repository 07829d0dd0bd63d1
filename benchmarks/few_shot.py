"""Few real cases, with and without grown ones before them: train, and test on the same held-out cases every time.

    python benchmarks/few_shot.py FOLDER FOLDER --task brats2021 --from runs/grown --minutes 10 --cases 1 2 4 all \
        --tested 3 --out benchmarks/results/few-shot.json

Cases are dealt into folds by patient, about `--tested` in each; within a fold the seed puts the other patients in
order, and so many cases from the front are trained on, so 1 is part of 2, and 2 of 4. A training starts from the model
of grown cases, by the recipe `--tuning`, or from nothing, with the same network by the recipe `--recipe`; the row with
no cases is the model of grown cases itself. With `--parts flair+t1c flair` each model is scored with these sequences
alone too. The JSON holds every score, beside it lies a Markdown table. What is in it is not repeated, and a training
that was stopped goes on; give the same arguments. More `--cases` can be named later.
"""

import argparse
import datetime
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

import brainsegnet
from brainsegnet.api.folds import deal_folds, patient_of
from brainsegnet.api.starting import adopt
from brainsegnet.evaluation.markdown import markdown_table
from brainsegnet.inference.model import find_versions, open_model
from brainsegnet.inference.shipped import resolve_model
from brainsegnet.output import write_text
from brainsegnet.processor import describe_processor
from brainsegnet.scans.datasets import find_cases
from brainsegnet.training.curriculum import RECIPES, TUNE, Recipe

GROWN, REAL, BOTH = "grown alone", "real alone", "grown, then real"
ORIGINS = {"nothing": REAL, "grown": BOTH}
ALL = "all"
"""Of the sequences, and of the cases."""


def order(pool: Sequence[str], seed: int) -> list[str]:
    """The cases, patients in an order that the seed decides and the order of `pool` does not."""
    patients = sorted({patient_of(case) for case in pool})
    place = {patients[i]: k for k, i in enumerate(np.random.default_rng(seed).permutation(len(patients)))}
    return sorted(pool, key=lambda case: (place[patient_of(case)], case))


def recipes(arguments: argparse.Namespace) -> dict[str, Recipe]:
    """Of a training from nothing, with the network of the grown model, and of one that starts from that."""
    usual = RECIPES[arguments.recipe]
    alike = adopt(usual, resolve_model(arguments.start).card)
    tuning = RECIPES[arguments.tuning]
    share = tuning.blend if arguments.blend is None else arguments.blend
    return {
        REAL: alike.model_copy(update={"learning_rate": usual.learning_rate}),
        BOTH: tuning.model_copy(update={"blend": share}),
    }


def test(model: Path, tested: Sequence[str], part: str, arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Every score of every tested case with a part of its sequences, by region; what is not finite is None."""
    files = {case.name: case for case in find_cases(arguments.data)}
    scores = {}
    for name in tested:
        out, images = work / f"{name}.nii.gz", files[name].images
        given = {sequence: path for sequence, path in images.items() if part == ALL or sequence in part.split("+")}
        brainsegnet.segment(given, model, out)
        found = brainsegnet.evaluate(out, arguments.data, arguments.task).scores[name]
        scores[name] = {region: finite(vars(score)) for region, score in found.items()}
    return scores


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()}


def train(origin: str, trained: Sequence[str], tested: Sequence[str], arguments: argparse.Namespace, out: Path) -> Path:
    """A model of some cases, or what there is of it, continued."""
    others = {case.name for case in find_cases(arguments.data)} - {*trained, *tested}
    options = brainsegnet.TrainOptions(
        recipes(arguments)[origin],
        brainsegnet.Budget(steps=arguments.steps, minutes=arguments.minutes),
        hold_out=tuple(tested),
        validations=0,
        exclude=tuple(sorted(others)),
        seed=arguments.seed,
        start=arguments.start if origin == BOTH else None,
        resume=(out / "state.safetensors").exists(),
    )
    return brainsegnet.train(arguments.data, arguments.task, out, options)


def regions(run: Mapping[str, Any]) -> list[str]:
    return list(next(iter(run["scores"].values())))


def tabulate(runs: Sequence[Mapping[str, Any]]) -> str:
    """Mean Dice by region over all tested cases, a row for each number of cases and origin."""
    names = regions(runs[0])
    groups = dict.fromkeys((run["cases"], run["origin"]) for run in runs)
    rows = []
    for count, origin in sorted(groups, key=lambda key: (key[0] == ALL, str(key[0]).zfill(9), key[1])):
        chosen = [run for run in runs if (run["cases"], run["origin"]) == (count, origin)]
        for part in (ALL, *chosen[0]["parts"]):
            scores = [s for run in chosen for s in (run["scores"] if part == ALL else run["parts"][part]).values()]
            dice = [f"{mean(score[region]['dice'] for score in scores):.3f}" for region in names]
            rows.append([origin, str(count), part, *dice, str(len(scores))])
    return markdown_table(["Model", "real cases", "sequences", *names, "tested"], rows)


def read_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--task", required=True)
    parser.add_argument("--from", dest="start", type=Path, required=True, help="model of grown cases, real ones unseen")
    parser.add_argument("--cases", nargs="+", default=["1", "2", "4", "all"], help="numbers of cases to train on")
    parser.add_argument("--origins", nargs="+", default=list(ORIGINS), choices=ORIGINS, help="of the trainings")
    parser.add_argument("--tested", type=int, default=3, help="cases held out at a time, about")
    parser.add_argument("--folds", type=int, help="so many of the folds only, the first")
    parser.add_argument("--parts", nargs="*", default=(), help="of the sequences, joined by +, to score with as well")
    parser.add_argument("--recipe", default="thorough", choices=RECIPES, help="of trainings from nothing")
    parser.add_argument("--tuning", default=TUNE.name, choices=RECIPES, help="of trainings from the grown model")
    parser.add_argument("--blend", type=float, help="share of the grown model; by default that of --tuning")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, help="folder for the training in hand; by default beside --out")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    if wrong := [count for count in arguments.cases if count != ALL and not (count.isdigit() and int(count))]:
        parser.error(f"--cases takes numbers above zero, and all, not {wrong[0]}")
    return arguments


def settings(arguments: argparse.Namespace, folds: Sequence[Sequence[str]]) -> dict[str, Any]:
    """What all results of a file have in common."""
    card = resolve_model(arguments.start).card
    return {
        "task": arguments.task,
        "start": {"name": card.name, "sha256": card.weights.sha256 if card.weights else ""},
        "budget": {"minutes": arguments.minutes, "steps": arguments.steps},
        "seed": arguments.seed,
        "parts": list(arguments.parts),
        "folds": [list(fold) for fold in folds],
        "recipes": {origin: recipe.model_dump(mode="json") for origin, recipe in recipes(arguments).items()},
    }


def main(argv: Sequence[str] | None = None) -> None:
    arguments = read_arguments(argv)
    torch.set_num_threads(arguments.threads)
    names = [case.name for case in find_cases(arguments.data)]
    folds = deal_folds(names, max(2, round(len(names) / arguments.tested)), arguments.seed)
    fixed = settings(arguments, folds)
    document = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"settings": fixed, "runs": []}
    if document["settings"] != fixed:
        raise SystemExit(f"{arguments.out} was measured with other arguments; name another file with --out")
    about = {"date": datetime.date.today().isoformat(), "machine": describe_processor(), "threads": arguments.threads}
    document |= about | {"versions": find_versions()}
    known = {(run["fold"], run["origin"], run["cases"]) for run in document["runs"]}
    work = arguments.work or arguments.out.with_suffix("")
    origins = [ORIGINS[name] for name in arguments.origins]
    trainings = [(origin, int(c) if c != ALL else c) for c in arguments.cases for origin in origins]
    for number, tested in enumerate(folds[: arguments.folds]):
        pool = order([name for name in names if name not in tested], arguments.seed)
        for origin, count in [(GROWN, 0), *trainings]:
            trained = pool if count == ALL else pool[: int(count)]
            if (number, origin, count) in known or (count != ALL and len(trained) < int(count)):
                continue
            out = work / f"fold{number}-{count}-{origin.replace(', ', '-').replace(' ', '-')}"
            out.mkdir(parents=True, exist_ok=True)
            model = arguments.start if origin == GROWN else train(origin, trained, tested, arguments, out)
            note = open_model(model).card.training if origin != GROWN else None
            run = {"fold": number, "origin": origin, "cases": count, "trained": [] if note is None else trained,
                   "blended": note.blended if note else 0, "scores": test(model, tested, ALL, arguments, out),
                   "parts": {part: test(model, tested, part, arguments, out) for part in arguments.parts}}  # fmt: skip
            document["runs"].append(run)
            write_text(json.dumps(document, indent=1) + "\n", arguments.out)
            write_text(tabulate(document["runs"]) + "\n", arguments.out.with_suffix(".md"))
            shutil.rmtree(out)
            dice = {
                region: round(mean(s[region]["dice"] for s in run["scores"].values()), 3) for region in regions(run)
            }
            print(number, origin, count, dice, flush=True)


if __name__ == "__main__":
    main()
