"""Seconds of a training step in 32-bit floats and in bf16, for the three widths; what CPUs with AMX gain.

python benchmarks/step.py --out benchmarks/results/step.json
"""

import argparse
import datetime
import json
import statistics
import sys
import time
from pathlib import Path

import torch

from brainsegnet._machine import describe_cpu, find_versions, has_bf16_units
from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.model.fused import FusedDecoder
from brainsegnet.training.losses import loss_of
from brainsegnet.training.recipes import QUICK

WIDTHS = {"quarter": ((8, 16, 32, 64), 32), "half": ((16, 32, 64, 128), 64), "full": ((32, 64, 128, 256), 128)}
SIZE = (2, 24, 96, 96)
"""A batch of `quick`, and its sample (D, H, W)."""


def steps(widths: tuple[int, ...], refined: int, half: bool, count: int) -> list[float]:
    """Seconds of so many steps on noise, after one to warm up."""
    torch.manual_seed(0)
    net = BrainSegNet(2, 5, widths, refined).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    module, optimiser = FusedDecoder(net), torch.optim.AdamW(net.parameters(), 1e-3)
    images = torch.randn(SIZE[0], 2, *SIZE[1:]).to(memory_format=torch.channels_last_3d)
    classes = torch.randint(0, 5, SIZE).to(torch.uint8)
    seconds = []
    for _ in range(count + 1):
        started = time.perf_counter()
        optimiser.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            logits = module(images)
        loss_of(logits, classes, QUICK, QUICK.stages[-1], ((1, 2, 3, 4), (1, 3, 4), (4,))).backward()
        optimiser.step()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = {}
    for name, (widths, refined) in WIDTHS.items():
        plain, half = (steps(widths, refined, flag, arguments.count) for flag in (False, True))
        rows[name] = {"float32": plain, "bf16": half, "ratio": statistics.median(plain) / statistics.median(half)}
        medians = f"{statistics.median(plain):.3f} s in floats, {statistics.median(half):.3f} s in bf16"
        sys.stdout.write(f"{name}: {medians}, {rows[name]['ratio']:.2f} times as fast\n")
    document = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{describe_cpu()}, cpu",
        "bf16_units": has_bf16_units(),
        "versions": find_versions(),
        "seconds": rows,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
