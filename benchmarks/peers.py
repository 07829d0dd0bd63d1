"""Brain SegNet and MONAI's networks in one harness: same cases, samples, loss, optimiser, budget and evaluation.

    python benchmarks/peers.py FOLDER --task brats2015 --minutes 7 --out benchmarks/results/peers.json

Each case is left out in turn, one training after the other, since the budget is wall-clock time. What differs is the
network; `--set` changes the recipe of all. The result holds every score; runs already in it are not repeated.
"""

import argparse
import datetime
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets import DynUNet, SegResNet, UNet
from torch import Tensor, nn

from brainsegnet.api.options import TrainOptions
from brainsegnet.api.roster import Roster, call_roll, load_scans
from brainsegnet.evaluation.metrics import RegionScore, score_case
from brainsegnet.inference.model import find_versions
from brainsegnet.network.architecture import BrainSegNet
from brainsegnet.network.collapse import collapse
from brainsegnet.task import Task, load_task
from brainsegnet.training.curriculum import RECIPES, Recipe
from brainsegnet.training.losses import loss_of
from brainsegnet.training.patches import Sampler, Scan
from brainsegnet.training.state import Trainee, averaged_twin

MULTIPLE = 32
"""Peers need sizes that they can halve so often without a rest."""


def brainsegnet(recipe: Recipe, sequences: int, classes: int) -> nn.Module:
    """Ours, as `train` builds it."""
    net = BrainSegNet(sequences, classes, recipe.widths, recipe.refined, nonlinear=recipe.nonlinear)
    return collapse(net.to(memory_format=torch.channels_last_3d))


def unet(recipe: Recipe, sequences: int, classes: int) -> nn.Module:
    """MONAI's UNet with channels 32 to 256, slices kept, two residual units, batch norm."""
    flat = (1, 2, 2)
    return UNet(3, sequences, classes, (32, 64, 128, 256), (flat, flat, flat), num_res_units=2, norm="batch")


def segresnet(recipe: Recipe, sequences: int, classes: int) -> nn.Module:
    """MONAI's SegResNet with 16 filters."""
    return SegResNet(3, init_filters=16, in_channels=sequences, out_channels=classes)


def dynunet(recipe: Recipe, sequences: int, classes: int) -> nn.Module:
    """MONAI's DynUNet in the shape that nnU-Net gives to 3d_fullres for such samples, 32 to 320 channels."""
    flat = (1, 2, 2)
    strides = [1, flat, flat, 2, 2]
    filters = [32, 64, 128, 256, 320]
    return DynUNet(3, sequences, classes, [3] * 5, strides, strides[1:], filters=filters, norm_name="instance")


NETWORKS: dict[str, Callable[[Recipe, int, int], nn.Module]] = {
    "brainsegnet": brainsegnet,
    "unet": unet,
    "segresnet": segresnet,
    "dynunet": dynunet,
}


def learn(
    net: nn.Module, scans: Sequence[Scan], task: Task, recipe: Recipe, minutes: float, seed: int
) -> tuple[nn.Module, int]:
    """Train for so many minutes; the moving average of the weights, and the steps done."""
    patch = recipe.patch or (12, 128, 128)
    sampler = Sampler(scans, recipe, patch, seed, torch.device("cpu"))
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    optimiser = kind(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    average = averaged_twin(net, recipe.averaging)
    trainee = Trainee(net, net, optimiser, average, recipe.averaging)
    started = time.monotonic()
    net.train()
    while (progress := (time.monotonic() - started) / 60 / minutes) < 1:
        stage = recipe.stage_at(progress)[1]
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate_at(progress)
        numbers = range(trainee.step * recipe.batch, (trainee.step + 1) * recipe.batch)
        images, classes = sampler.cut([sampler.draw(k, stage) for k in numbers])
        optimiser.zero_grad()
        loss = loss_of(
            net(images.to(memory_format=torch.channels_last_3d)), classes, recipe, stage, task.region_classes
        )
        loss.backward()
        optimiser.step()
        trainee.step += 1
        trainee.update_average()
    return average.eval(), trainee.step


@torch.inference_mode()
def judge(net: nn.Module, scan: Scan, task: Task) -> dict[str, RegionScore]:
    """Scores of a whole brain box in one pass."""
    size = scan.image.shape[1:]
    pads = [p for n in reversed(size) for p in (0, -n % MULTIPLE)]
    logits: Tensor = net(F.pad(torch.from_numpy(scan.image)[None], pads))[0, :, : size[0], : size[1], : size[2]]
    found = task.decode(logits.argmax(0).numpy().astype(np.uint8))
    return score_case(found, task.decode(scan.classes), task, (1.0, 1.0, 1.0))


def read(data: Path, task: Task) -> tuple[Roster, list[Scan]]:
    """All cases, prepared once."""
    roster = call_roll([data], task, TrainOptions(validation=0))
    return roster, load_scans(roster.training, roster)


def run(
    name: str, recipe: Recipe, roster: Roster, scans: Sequence[Scan], left_out: int, arguments: argparse.Namespace
) -> dict:
    """Train one network without one case, and score that case."""
    torch.manual_seed(arguments.seed)
    net = NETWORKS[name](recipe, len(roster.sequences), roster.task.classes)
    others = [scan for i, scan in enumerate(scans) if i != left_out]
    net, steps = learn(net, others, roster.task, recipe, arguments.minutes, arguments.seed)
    scores = judge(net, scans[left_out], roster.task)
    return {
        "network": name,
        "case": roster.training[left_out].name,
        "seed": arguments.seed,
        "minutes": arguments.minutes,
        "changes": arguments.set,
        "steps": steps,
        "parameters": sum(p.numel() for p in net.parameters()),
        "scores": {region: vars(score) for region, score in scores.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--task", default="brats2015")
    parser.add_argument("--recipe", default="quick", choices=RECIPES)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--cases", nargs="*", help="cases to leave out in turn; all by default")
    parser.add_argument("--minutes", type=float, default=7)
    parser.add_argument("--set", type=json.loads, default={}, help='changes of the recipe: {"learning_rate": 1e-3}')
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    recipe = Recipe.model_validate(RECIPES[arguments.recipe].model_dump() | arguments.set)
    roster, scans = read(arguments.data, load_task(arguments.task))
    document = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"runs": []}
    document |= {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": find_versions(),
        "recipe": recipe.model_dump(mode="json"),
    }
    known = {(r["network"], r["case"], r["seed"], r["minutes"], str(r["changes"])) for r in document["runs"]}
    for index, case in enumerate(roster.training):
        for name in arguments.networks:
            key = name, case.name, arguments.seed, arguments.minutes, str(arguments.set)
            if key in known or (arguments.cases and case.name not in arguments.cases):
                continue
            entry = run(name, recipe, roster, scans, index, arguments)
            document["runs"].append(entry)
            arguments.out.write_text(json.dumps(document, indent=1) + "\n")
            dice = {region: round(score["dice"], 3) for region, score in entry["scores"].items()}
            print(name, case.name, entry["steps"], "steps", dice, flush=True)


if __name__ == "__main__":
    main()
