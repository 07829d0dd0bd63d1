"""Train on a pack of prepared scans (see pack.py) to a time limit; needs torch, lightning and pydantic only.

    python benchmarks/train_packed.py packed/brats2021.npz --recipe modern --minutes 9 --out runs/gpu
    python benchmarks/train_packed.py packed/brats2021.npz --recipe modern --minutes 18 --out runs/gpu --resume
    python benchmarks/train_packed.py --task brats2021 --grown 32 --anatomy packed/heads.npz --minutes 9 --out runs/own

The output folder holds the model folders best/ and last/ and the state for resuming; `brainsegnet segment` takes it.
Cases named with --hold-out are scored ten times on the way and never trained on. With --grown, gliomas are grown on the
GPU beside the cases of the pack, if one is named, in heads that pack.py has packed or procedural; this needs scipy too.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric

from brainsegnet.api.anatomies import PROCEDURAL
from brainsegnet.api.growth import describe_growth, open_pool, plan_growth
from brainsegnet.api.options import TrainOptions
from brainsegnet.evaluation.metrics import region_dice
from brainsegnet.inference.card import Architecture, Card, Input, find_versions
from brainsegnet.inference.model import save_model
from brainsegnet.inference.origin import Data, Grown, TrainingNote
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


def describe(
    plan: Plan, pack: Pack, held: Sequence[str], scores: Mapping[str, float], grown: Grown | None = None
) -> Card:
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
            grown=grown,
        ),
        versions=find_versions(),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path, nargs="?")
    parser.add_argument("--task", help="where no pack is named")
    parser.add_argument("--recipe", default="modern", choices=RECIPES)
    parser.add_argument("--minutes", type=float, required=True, help="over all resumed parts")
    parser.add_argument("--hold-out", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grown", type=int, help="gliomas in memory")
    parser.add_argument("--renew-steps", type=int, help="steps after which one of them is replaced; by default 40")
    parser.add_argument("--anatomy", help="heads packed by pack.py, or procedural (the default)")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.pack is None and not (arguments.task and arguments.grown):
        parser.error("name a pack to train on, or a task and how many cases to grow")
    pack = (
        read_pack(arguments.pack) if arguments.pack else Pack(arguments.task, load_task(arguments.task).sequences, {})
    )
    task, held = load_task(pack.task), tuple(arguments.hold_out)
    recipe = RECIPES[arguments.recipe].fit_to(len(pack.scans) - len(held) + (arguments.grown or 0))
    plan = Plan(
        recipe, Budget(minutes=arguments.minutes), len(pack.sequences), task.classes, recipe.patch or task.patch,
        arguments.seed, task.region_classes,
    )  # fmt: skip
    cuda = torch.cuda.is_available()
    fabric = Fabric(accelerator="auto", devices=1, precision="bf16-mixed" if cuda and recipe.bf16 else "32-true")
    anatomy = arguments.anatomy or (PROCEDURAL if arguments.grown else None)
    wanted = TrainOptions(
        grown=arguments.grown, renew_steps=arguments.renew_steps, anatomy=anatomy, seed=arguments.seed
    )
    grown = plan_growth(wanted, task, pack.sequences)
    pool = open_pool(grown, wanted, task, pack.sequences, fabric.device) if grown else None
    if grown:
        print(describe_growth(grown), flush=True)
    scores: dict[str, float] = {}
    said = time.monotonic()

    def report(record: Record) -> None:
        nonlocal said
        if record.dice or time.monotonic() - said > 10:
            said = time.monotonic()
            print(json.dumps(vars(record) | {"dice": dict(record.dice)}), flush=True)

    def keep(name: str, weights: Weights) -> None:
        note = grown and pool and grown.model_copy(update={"seen": pool.seen})
        save_model(arguments.out / name, describe(plan, pack, held, scores, note), weights)

    def validate(net: BrainSegNet) -> Mapping[str, float]:
        scores.update(score(net, [pack.scans[name] for name in held], task))
        return dict(scores)

    arguments.out.mkdir(parents=True, exist_ok=True)
    hooks = Hooks(report, keep, validate if held else None, arguments.out / "state.safetensors")
    scans = [scan for name, scan in pack.scans.items() if name not in held]
    fit(scans, plan, fabric, hooks, pool=pool, resume=arguments.resume)


if __name__ == "__main__":
    main()
