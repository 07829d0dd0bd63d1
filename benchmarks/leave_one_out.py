"""Train on all cases but one, score that one, and so on in turn; variants of a recipe side by side.

    python benchmarks/leave_one_out.py FOLDER --task brats2015 --steps 900 --out benchmarks/results/loo.json
    python benchmarks/leave_one_out.py FOLDER --task brats2015 --steps 420 --variants curriculum plain no-focal

The result holds every score, what was trained how, the machine and the versions; cases already in it are not repeated.
"""

import argparse
import datetime
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

import brainsegnet
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet.io.cases import find_cases
from brainsegnet.training.recipes import RECIPES, Recipe, Stage

PLAIN = Stage(name="plain", share=1, augment=0, gamma=0)


def variant(name: str, recipe: Recipe) -> Recipe:
    """The recipe as it is, or with another curriculum."""
    first, second, third = recipe.stages
    stages = {
        "curriculum": recipe.stages,
        "no-focal": (first, second, third.model_copy(update={"gamma": 0.0})),
        "plain": (PLAIN,),
        "augmented": (PLAIN.model_copy(update={"name": "augmented", "augment": third.augment}),),
        "focal": (third,),
    }
    return recipe.model_copy(update={"stages": stages[name]})


class Last(brainsegnet.Callback):
    """Remembers the last event."""

    def on_progress(self, event: brainsegnet.ProgressEvent) -> None:
        """Keep it."""
        self.event = event


def run(data: Path, task: str, left_out: str, options: brainsegnet.TrainOptions) -> dict:
    """Train without one case, segment it, score it."""
    with tempfile.TemporaryDirectory() as folder:
        out, started = Path(folder), time.monotonic()
        options = replace(options, exclude=(left_out,), validation=0)
        last = Last()
        model = brainsegnet.train(data, task, out / "run", options, last)
        trained = time.monotonic() - started
        files = {case.name: case for case in find_cases([data])}[left_out]
        allowed = brainsegnet.SegmentOptions(allow_poor=True)
        done = brainsegnet.segment(dict(files.images), model, out / f"{left_out}.nii.gz", allowed)
        scores = brainsegnet.evaluate(out / f"{left_out}.nii.gz", data, task).scores[left_out]
    return {
        "case": left_out,
        "recipe": options.chosen_recipe.model_dump(mode="json"),
        "seed": options.seed,
        "steps": last.event.step,
        "minutes": round(trained / 60, 2),
        "samples_per_second": round(last.event.samples_per_second or 0, 3),
        "data_wait": round(last.event.data_wait or 0, 4),
        "segment_seconds": done.done[0].report["seconds"],
        "scores": {region: vars(score) for region, score in scores.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--task", default="brats2015")
    parser.add_argument("--recipe", default="quick", choices=RECIPES)
    parser.add_argument("--variants", nargs="+", default=["curriculum"])
    parser.add_argument("--cases", nargs="*", help="cases to leave out in turn; all by default")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    document = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"runs": []}
    document |= {
        "date": datetime.date.today().isoformat(),
        "machine": describe_cpu(),
        "threads": arguments.threads,
        "versions": find_versions(),
    }
    known = {(entry["variant"], entry["case"], entry["seed"]) for entry in document["runs"]}
    for name in arguments.variants:
        for case in arguments.cases or [found.name for found in find_cases([arguments.data])]:
            if (name, case, arguments.seed) in known:
                continue
            options = brainsegnet.TrainOptions(
                variant(name, RECIPES[arguments.recipe]),
                steps=arguments.steps,
                minutes=arguments.minutes,
                seed=arguments.seed,
            )
            entry = run(arguments.data, arguments.task, case, options)
            document["runs"].append({"variant": name, **entry})
            arguments.out.write_text(json.dumps(document, indent=1) + "\n")
            print(
                name, case, {region: round(score["dice"], 3) for region, score in entry["scores"].items()}, flush=True
            )


if __name__ == "__main__":
    main()
