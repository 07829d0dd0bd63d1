"""How many realistic training patches a second: whole cases are rendered on a device and patches cut from each.

    python benchmarks/generator.py --device cuda --cases 20 --patches 40 --anatomy FOLDER
    python benchmarks/generator.py --stroke isles2022 --cases 20 --anatomy FOLDER --shapes FOLDER

Prints JSON: seconds a case (median, after one to warm up) and patches of 12x128x128 a second, cutting included; and the
seconds in which `train --simulated` has a case in memory, normalised in the brain's box as a case that was read.
Strokes are simulated on the CPU whatever trains, so of these there is the last figure alone.
"""

import argparse
import datetime
import json
import os
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from brainsegnet._machine import describe_cpu
from brainsegnet.anatomy.label_maps import PROCEDURAL, open_anatomies
from brainsegnet.simulation.fields import RandomStreams
from brainsegnet.simulation.realistic import draw_recipe, render
from brainsegnet.task import BRATS2021, ISLES2017, ISLES2022, Task
from brainsegnet.training import TrainOptions
from brainsegnet.training.sampler import Scan
from brainsegnet.training.simulated import open_buffer, plan_simulation

PATCH = (12, 128, 128)
STROKES = {"isles2022": ISLES2022, "isles2017": ISLES2017}


def cut(
    images: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` patches (count, 4, 12, 128, 128) of a head and their labels, half of them around the tumour."""
    short = [max(0, p - n) for p, n in zip(PATCH, labels.shape, strict=True)]
    pad = (0, short[2], 0, short[1], 0, short[0])
    images, labels = torch.nn.functional.pad(images, pad), torch.nn.functional.pad(labels, pad)
    inside = torch.nonzero(labels > 0).cpu().numpy()
    chosen = []
    for k in range(count):
        room = np.subtract(labels.shape, PATCH)
        at = rng.integers(0, room + 1)
        if k % 2 and len(inside):
            at = np.clip(inside[rng.integers(len(inside))] - np.array(PATCH) // 2, 0, room)
        chosen.append(tuple(slice(int(a), int(a) + p) for a, p in zip(at, PATCH, strict=True)))
    return torch.stack([images[(slice(None), *box)] for box in chosen]), torch.stack([labels[box] for box in chosen])


def wait(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def time_memory(options: argparse.Namespace, task: Task) -> float:
    """Seconds from one case in memory to the next, as a training gets them; median, after one to warm up."""
    wanted = TrainOptions(simulated=options.cases + 1, anatomy=options.anatomy, shapes=options.shapes)
    simulated = plan_simulation(wanted, task, task.sequences)
    if simulated is None:
        raise ValueError("nothing is to be simulated")
    buffer = open_buffer(simulated, wanted, task, task.sequences, torch.device(options.device))
    moments: list[float] = []

    def note(slot: int, scan: Scan) -> None:
        moments.append(time.perf_counter())

    buffer.fill(0, note)
    buffer.close()
    return median(np.diff(moments).tolist())


def time_render(options: argparse.Namespace) -> dict[str, object]:
    """Seconds in which a glioma is rendered and patches are cut from it, without what a training does with it."""
    anatomies, seconds = open_anatomies(options.anatomy), []
    for number in range(options.cases + 1):
        rng, anatomy = np.random.default_rng(number), anatomies(number)
        start = wait(options.device)
        recipe, streams = draw_recipe(rng), RandomStreams.of(rng, options.device)
        images, labels = render(streams, recipe, anatomy)
        cut(torch.stack(list(images.values())), labels, rng, options.patches)
        seconds.append(wait(options.device) - start)
    seconds = seconds[1:]
    return {
        "patches_per_case": options.patches,
        "seconds_per_case": round(median(seconds), 3),
        "patches_per_second": round(options.patches * len(seconds) / sum(seconds), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--patches", type=int, default=40, help="patches from each case")
    parser.add_argument("--anatomy", help="of the cases; by default procedural")
    parser.add_argument("--stroke", choices=STROKES, help="strokes instead of gliomas")
    parser.add_argument("--shapes", type=Path, help="folder of lesion masks for strokes")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    task = STROKES[options.stroke] if options.stroke else BRATS2021
    if options.stroke:
        options.device = "cpu"
    else:
        options.anatomy = options.anatomy or PROCEDURAL
    on_gpu = options.device.startswith("cuda")
    report = {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name()
        if on_gpu
        else f"CPU, {os.environ.get('OMP_NUM_THREADS', 'all')} threads",
        "machine": describe_cpu(),
        "simulated": options.stroke or "gliomas",
        "anatomy": Path(options.anatomy).name if options.anatomy else "own",
        "cases": options.cases,
        **({} if options.stroke else time_render(options)),
        "seconds_per_case_in_memory": round(time_memory(options, task), 3),
    }
    text = json.dumps(report, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
