"""Few real cases, with and without simulated ones before them: train, and test on the same held-out cases every time.

    python benchmarks/few_shot.py FOLDER FOLDER --task brats2021 --from runs/simulated --minutes 10 --cases 1 2 4 all \
        --tested 3 --out benchmarks/results/few-shot.json

Cases are dealt into folds by patient, about `--tested` in each; within a fold the seed puts the other patients in
order, and so many cases from the front are trained on, so 1 is part of 2, and 2 of 4. A training starts from the model
of simulated cases, by the recipe `--tuning`, or from nothing, with the same network by the recipe `--recipe`; the row
with no cases is the model of simulated cases itself. With `--parts flair+t1c flair` each model is scored with these
sequences alone too; no component is dropped. The JSON holds every score, beside it lies a Markdown table. What is in it
is not repeated, and a training that was stopped goes on; give the same arguments. More `--cases` can be named later.
With `--card MODEL` the means also go onto the card of a model that is scored on the same cases.
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
from brainsegnet._atomic import write_text
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet.io.cases import find_cases
from brainsegnet.metrics.table import Table, number_columns, text_columns
from brainsegnet.model.card import Comparison
from brainsegnet.model.store import open_model, resolve_model
from brainsegnet.training.finetune import adopt, refuse_seen
from brainsegnet.training.recipes import FINETUNE, RECIPES, Recipe
from brainsegnet.training.split import deal_folds, patient_of
from release.release import compare_with

SIMULATED, REAL, BOTH = "simulated alone", "real alone", "simulated, then real"
ORIGINS = {"nothing": REAL, "simulated": BOTH}
ALL = "all"
"""Of the sequences, and of the cases."""
Runs = Sequence[Mapping[str, Any]]


def order(cases: Sequence[str], seed: int) -> list[str]:
    """The cases, patients in an order that the seed decides and the order of `cases` does not."""
    patients = sorted({patient_of(case) for case in cases})
    place = {patients[i]: k for k, i in enumerate(np.random.default_rng(seed).permutation(len(patients)))}
    return sorted(cases, key=lambda case: (place[patient_of(case)], case))


def recipes(arguments: argparse.Namespace) -> dict[str, Recipe]:
    """Of a training from nothing, with the network of the simulated model, and of one that starts from that."""
    usual = RECIPES[arguments.recipe]
    alike = adopt(usual, resolve_model(arguments.start).card)
    tuning = RECIPES[arguments.tuning]
    share = tuning.weight_interpolation if arguments.weight_interpolation is None else arguments.weight_interpolation
    return {
        REAL: alike.model_copy(update={"learning_rate": usual.learning_rate}),
        BOTH: tuning.model_copy(update={"weight_interpolation": share}),
    }


def score(model: Path, tested: Sequence[str], part: str, arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Every score of every tested case with a part of its sequences, by region; what is not finite is None."""
    files = {case.name: case for case in find_cases(arguments.data)}
    scores = {}
    for name in tested:
        out, images = work / f"{name}.nii.gz", files[name].images
        given = {sequence: path for sequence, path in images.items() if part == ALL or sequence in part.split("+")}
        options = brainsegnet.SegmentOptions(keep_all_components=True, allow_poor=True)
        brainsegnet.segment(given, model, out, options, output=brainsegnet.OutputOptions(overwrite=True))
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
        steps=arguments.steps,
        minutes=arguments.minutes,
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


def groups(runs: Runs) -> dict[tuple[str | int, str], Runs]:
    """The runs of all folds by number of cases and origin, few cases first."""
    keys = dict.fromkeys((run["cases"], run["origin"]) for run in runs)
    order = sorted(keys, key=lambda key: (key[0] == ALL, str(key[0]).zfill(9), key[1]))
    return {key: [run for run in runs if (run["cases"], run["origin"]) == key] for key in order}


def mean_dice(runs: Runs, part: str) -> dict[str, float]:
    """By region, over all tested cases, with a part of the sequences."""
    scores = [score for run in runs for score in (run["scores"] if part == ALL else run["parts"][part]).values()]
    return {region: mean(score[region]["dice"] for score in scores) for region in regions(runs[0])}


def tabulate(runs: Runs) -> str:
    """Mean Dice by region over all tested cases, a row for each number of cases, origin and part of the sequences."""
    names = regions(runs[0])
    rows = []
    for (count, origin), alike in groups(runs).items():
        tested = str(sum(len(run["scores"]) for run in alike))
        for part in (ALL, *alike[0]["parts"]):
            rows.append([origin, str(count), part, *(f"{v:.3f}" for v in mean_dice(alike, part).values()), tested])
    return Table(
        [*text_columns("Model"), *number_columns("real cases", "sequences", *names, "tested")], rows
    ).to_markdown()


def compare(document: Mapping[str, Any], sequences: Sequence[str]) -> list[Comparison]:
    """The same as rows for the card of a model with these sequences; only those that all cases were tested for."""
    cases = sorted(case for fold in document["settings"]["folds"] for case in fold)
    budget = {unit: value for unit, value in document["settings"]["budget"].items() if value}
    names = {part: "+".join(s for s in sequences if part == ALL or s in part.split("+"))
             for part in (ALL, *document["settings"]["parts"])}  # fmt: skip
    return [
        Comparison(
            origin=origin,
            real_cases=None if count == ALL else int(count),
            budget={} if origin == SIMULATED else budget,
            subsets={name: mean_dice(alike, part) for part, name in names.items()},
        )
        for (count, origin), alike in groups(document["runs"]).items()
        if sorted(case for run in alike for case in run["scores"]) == cases
    ]


def read_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--task", required=True)
    parser.add_argument(
        "--from", dest="start", type=Path, required=True, help="model of simulated cases, real ones unseen"
    )
    parser.add_argument("--cases", nargs="+", default=["1", "2", "4", "all"], help="numbers of cases to train on")
    parser.add_argument("--origins", nargs="+", default=list(ORIGINS), choices=ORIGINS, help="of the trainings")
    parser.add_argument("--tested", type=int, default=3, help="cases held out at a time, about")
    parser.add_argument("--folds", type=int, help="so many of the folds only, the first")
    parser.add_argument("--parts", nargs="*", default=(), help="of the sequences, joined by +, to score with as well")
    parser.add_argument("--recipe", default="thorough", choices=RECIPES, help="of trainings from nothing")
    parser.add_argument(
        "--tuning", default=FINETUNE.name, choices=RECIPES, help="of trainings from the simulated model"
    )
    parser.add_argument(
        "--weight-interpolation", type=float, help="share of the simulated model; by default that of --tuning"
    )
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, help="folder for the training in hand; by default beside --out")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--card", type=Path, help="released model whose card gets the means as well")
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


def measure(number: int, tested: Sequence[str], origin: str, trained: Sequence[str], arguments: argparse.Namespace,
            work: Path) -> dict[str, Any]:  # fmt: skip
    """Train, unless it is the model of simulated cases itself, and test."""
    work.mkdir(parents=True, exist_ok=True)
    model = arguments.start if origin == SIMULATED else train(origin, trained, tested, arguments, work)
    note = open_model(model).card.training if origin != SIMULATED else None
    scores = {part: score(model, tested, part, arguments, work) for part in (ALL, *arguments.parts)}
    shutil.rmtree(work)
    interpolated = note.interpolated if note else 0
    return {"fold": number, "origin": origin, "trained": list(trained), "interpolated": interpolated,
            "scores": scores.pop(ALL), "parts": scores}  # fmt: skip


def open_document(arguments: argparse.Namespace, folds: Sequence[Sequence[str]]) -> dict[str, Any]:
    """What was measured before with the same arguments, or nothing yet."""
    fixed = settings(arguments, folds)
    document = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"settings": fixed, "runs": []}
    if document["settings"] != fixed:
        raise SystemExit(f"{arguments.out} was measured with other arguments; name another file with --out")
    about = {"date": datetime.date.today().isoformat(), "machine": describe_cpu(), "threads": arguments.threads}
    return document | about | {"versions": find_versions()}


def main(argv: Sequence[str] | None = None) -> None:
    arguments = read_arguments(argv)
    torch.set_num_threads(arguments.threads)
    names = [case.name for case in find_cases(arguments.data)]
    refuse_seen(names, resolve_model(arguments.start).card.as_parent())
    released = resolve_model(arguments.card) if arguments.card else None
    folds = deal_folds(names, max(2, round(len(names) / arguments.tested)), arguments.seed)
    document = open_document(arguments, folds)
    known = {(run["fold"], run["origin"], run["cases"]) for run in document["runs"]}
    work = arguments.work or arguments.out.with_suffix("")
    counts = [int(count) if count != ALL else count for count in arguments.cases]
    rows = [(SIMULATED, 0), *((ORIGINS[name], count) for count in counts for name in arguments.origins)]
    for number, tested in enumerate(folds[: arguments.folds]):
        others = order([name for name in names if name not in tested], arguments.seed)
        for origin, count in rows:
            trained = others if count == ALL else others[:count]
            if (number, origin, count) in known or (count != ALL and len(trained) < count):
                continue
            out = work / f"fold{number}-{count}-{origin.replace(', ', '-').replace(' ', '-')}"
            run = measure(number, tested, origin, trained, arguments, out) | {"cases": count}
            document["runs"].append(run)
            write_text(json.dumps(document, indent=1) + "\n", arguments.out)
            write_text(tabulate(document["runs"]), arguments.out.with_suffix(".md"))
            dice = {region: round(value, 3) for region, value in mean_dice([run], ALL).items()}
            print(number, origin, count, dice, flush=True)
    if released:
        compare_with(released.folder, compare(document, released.card.sequences), names)


if __name__ == "__main__":
    main()
