"""Train on a pack of prepared scans (see pack.py) to a time limit; needs torch, lightning and pydantic only.

    python benchmarks/train_packed.py packed/brats2021.npz --recipe modern --minutes 9 --out runs/gpu
    python benchmarks/train_packed.py packed/brats2021.npz --recipe modern --minutes 18 --out runs/gpu --resume

The output folder holds the model folders best/ and last/ and the state for resuming; `brainsegnet segment` takes it.
Cases named with --hold-out are scored ten times on the way and never trained on.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric

from brainsegnet.evaluation.metrics import region_dice
from brainsegnet.inference.card import Architecture, Card, Data, Input, TrainingNote, find_versions
from brainsegnet.inference.model import save_model
from brainsegnet.inference.passes import Passes
from brainsegnet.inference.torch_backend import TorchBackend
from brainsegnet.network.architecture import BrainSegNet
from brainsegnet.task import Task, load_task
from brainsegnet.training.curriculum import RECIPES, Budget
from brainsegnet.training.fit import fit
from brainsegnet.training.packed import Pack, read_pack
from brainsegnet.training.patches import Scan
from brainsegnet.training.plan import Hooks, Plan, Record, Weights


def score(net: BrainSegNet, scans: Sequence[Scan], task: Task) -> dict[str, float]:
    """Mean whole-scan Dice of each region."""
    passes = Passes(TorchBackend.of(net))
    scores = [region_dice(passes.classify(scan.image), scan.classes, task) for scan in scans]
    return {region: float(np.mean([one[region] for one in scores])) for region in task.regions}


def describe(plan: Plan, pack: Pack, held: Sequence[str], scores: Mapping[str, float]) -> Card:
    """The card of the model in training."""
    recipe, names = plan.recipe, tuple(name for name in pack.scans if name not in held)
    return Card(
        name=f"{recipe.name} on {pack.task}",
        task=load_task(pack.task),
        input=Input(sequences=pack.sequences, any_subset=recipe.drop_sequences > 0),
        network=Architecture(
            widths=recipe.widths, refined=recipe.refined, nonlinear=recipe.nonlinear, stride=recipe.stride
        ),
        training=TrainingNote(
            recipe=recipe.model_dump(mode="json"), budget={plan.budget.kind: getattr(plan.budget, plan.budget.kind)},
            seed=plan.seed, data=Data(cases=names, count=len(names)), held_out=tuple(held), scores=dict(scores),
        ),
        versions=find_versions(),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--recipe", default="modern", choices=RECIPES)
    parser.add_argument("--minutes", type=float, required=True, help="over all resumed parts")
    parser.add_argument("--hold-out", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    pack, held = read_pack(arguments.pack), tuple(arguments.hold_out)
    task, recipe = load_task(pack.task), RECIPES[arguments.recipe].fit_to(len(pack.scans) - len(held))
    plan = Plan(
        recipe, Budget(minutes=arguments.minutes), len(pack.sequences), task.classes, recipe.patch or task.patch,
        arguments.seed, task.region_classes,
    )  # fmt: skip
    cuda = torch.cuda.is_available()
    fabric = Fabric(accelerator="auto", devices=1, precision="bf16-mixed" if cuda and recipe.bf16 else "32-true")
    scores: dict[str, float] = {}
    said = time.monotonic()

    def report(record: Record) -> None:
        nonlocal said
        if record.dice or time.monotonic() - said > 10:
            said = time.monotonic()
            print(json.dumps(vars(record) | {"dice": dict(record.dice)}), flush=True)

    def keep(name: str, weights: Weights) -> None:
        save_model(arguments.out / name, describe(plan, pack, held, scores), weights)

    def validate(net: BrainSegNet) -> Mapping[str, float]:
        scores.update(score(net, [pack.scans[name] for name in held], task))
        return dict(scores)

    arguments.out.mkdir(parents=True, exist_ok=True)
    hooks = Hooks(report, keep, validate if held else None, arguments.out / "state.safetensors")
    fit([scan for name, scan in pack.scans.items() if name not in held], plan, fabric, hooks, resume=arguments.resume)


if __name__ == "__main__":
    main()
