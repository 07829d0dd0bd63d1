"""Network time, training throughput and memory on a GPU, as shares of its measured matrix rate.

    python benchmarks/gpu.py --out benchmarks/results/gpu.json
    python benchmarks/gpu.py --device cpu --small        # the same path at a small size, to see that it runs

Needs torch and pydantic; MONAI's networks are measured if MONAI is installed. Medians of single runs after a warm-up.
"""

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from brainsegnet._machine import find_versions
from brainsegnet.inference.torch_backend import TorchBackend
from brainsegnet.inference.torch_prepare import prepare_on
from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.model.fused import FusedDecoder, fuse
from brainsegnet.preprocessing.prepare import prepare
from brainsegnet.training.losses import loss_of
from brainsegnet.training.recipes import PAPER, Stage
from brainsegnet.volume import Case, Volume

WIDTHS = {"full": ((32, 64, 128, 256), 128), "half": ((16, 32, 64, 128), 64), "compact": ((8, 16, 32, 64), 32)}
SHAPES = {"brain box": (4, 140, 168, 136), "whole volume": (4, 155, 240, 240), "ISLES": (6, 20, 192, 192)}
SMALL = {"brain box": (4, 8, 32, 32), "whole volume": (4, 8, 48, 48), "ISLES": (6, 4, 32, 32)}


def seconds_of(step: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median over single runs, after three to warm up."""
    times = []
    for number in range(repeats + 3):
        wait(device)
        started = time.perf_counter()
        step()
        wait(device)
        if number >= 3:
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def precisions(device: torch.device) -> tuple[torch.dtype, ...]:
    """What is measured: bf16 too on a GPU; a CPU without units for it takes minutes for the smallest network."""
    return (torch.bfloat16, torch.float32) if device.type == "cuda" else (torch.float32,)


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Multiply-adds per second of a square matrix product."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return size**3 / seconds_of(lambda: a @ b, device, 10)


def multiply_adds(module: nn.Module, x: torch.Tensor) -> float:
    """Of all convolutions in one pass, counted without computing."""
    count = []
    hooks = [
        m.register_forward_hook(lambda m, _, y: count.append(y.numel() * m.weight[0].numel()))
        for m in module.modules()
        if isinstance(m, nn.Conv3d)
    ]
    with torch.inference_mode():
        module(x)
    for hook in hooks:
        hook.remove()
    return float(sum(count))


def networks(size: str, channels: int) -> Iterator[tuple[str, nn.Module]]:
    """The network as drawn, and as it is run."""
    widths, refined = WIDTHS[size]
    net = BrainSegNet(channels, 5, widths, refined).eval()
    yield f"{size}, plain", net
    yield f"{size}, fused", fuse(net)


def baselines(channels: int) -> Iterator[tuple[str, nn.Module]]:
    """MONAI's networks, if MONAI is installed."""
    try:
        from monai.networks.nets import DynUNet, SegResNet, UNet
    except ModuleNotFoundError:
        return
    flat = (1, 2, 2)
    yield "SegResNet 16", SegResNet(3, init_filters=16, in_channels=channels, out_channels=5).eval()
    yield "UNet", UNet(3, channels, 5, (32, 64, 128, 256), (flat, flat, flat), num_res_units=2, norm="batch").eval()
    strides, filters = [1, 2, 2, 2, 2, 2], [32, 64, 128, 256, 320, 320]
    yield (
        "DynUNet",
        DynUNet(3, channels, 5, [3] * 6, strides, strides[1:], filters=filters, norm_name="instance").eval(),
    )


def ways(module: nn.Module, x: torch.Tensor) -> Iterator[tuple[str, Callable[[], object]]]:
    """Eager, as a CUDA graph, and compiled."""
    yield "eager", lambda: module(x)
    if x.device.type != "cuda":
        return
    with torch.inference_mode():
        for _ in range(3):
            module(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            module(x)
    yield "CUDA graph", graph.replay
    compiled = torch.compile(module, mode="max-autotune-no-cudagraphs")
    yield "compiled", lambda: compiled(x)


def inference(device: torch.device, shapes: dict, rates: dict, repeats: int) -> list[dict]:
    """Network alone: every size, shape, precision and way."""
    rows = []
    for shape_name, (channels, *shape) in shapes.items():
        contenders = [pair for size in WIDTHS for pair in networks(size, channels)] + list(baselines(channels))
        for name, module in contenders:
            sizes = [-(-n // 32) * 32 if name in ("SegResNet 16", "UNet", "DynUNet") else -(-n // 8) * 8 for n in shape]
            for dtype in precisions(device):
                moved = module.to(device, dtype).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
                x = torch.randn(1, channels, *sizes, device=device).to(dtype, memory_format=torch.channels_last_3d)
                rows += timed(name, shape_name, moved, x, rates[str(dtype)], repeats)
                module.to("cpu", torch.float32)
    return rows


def timed(name: str, shape: str, module: nn.Module, x: torch.Tensor, rate: float, repeats: int) -> list[dict]:
    """One network on one input; running out of memory is a result too."""
    rows, facts = [], {"network": name, "shape": shape, "precision": str(x.dtype)}
    try:
        work = multiply_adds(module, x)
        with torch.inference_mode():
            for way, step in ways(module, x):
                seconds = seconds_of(step, x.device, repeats)
                rows.append({**facts, "way": way, "seconds": seconds, "share of matrix rate": work / seconds / rate})
                print(rows[-1], flush=True)
    except (RuntimeError, ValueError, MemoryError) as error:
        rows.append({**facts, "failed": str(error).splitlines()[0][:200]})
        print(rows[-1], flush=True)
    return rows


def preparing(device: torch.device, shapes: dict, repeats: int) -> list[dict]:
    """Check, crop and normalise a scan as it is read, on the CPU and on the device, copies included."""
    rows, (channels, *shape) = [], shapes["whole volume"]
    rng = np.random.default_rng(0)
    brain = np.zeros(shape, bool)
    brain[tuple(slice(n // 6, -(n // 6)) for n in shape)] = True
    scans = [np.where(brain, rng.integers(1, 2000, shape), 0).astype(np.int16) for _ in range(channels)]
    case = Case("phantom", {f"sequence {i}": Volume(scan, np.eye(4)[[2, 1, 0, 3]]) for i, scan in enumerate(scans)})
    for where, step in (("CPU", lambda: prepare(case)), (str(device), lambda: prepare_on(case, device))):
        rows.append({"shape": shape, "where": where, "seconds": seconds_of(step, device, repeats)})
        print(rows[-1], flush=True)
    return rows


def from_memory_to_labels(device: torch.device, shapes: dict, repeats: int) -> list[dict]:
    """What `segment` does between preparing and writing: copy, network, arg-max, shuffle, copy back."""
    rows = []
    for shape_name, (channels, *shape) in shapes.items():
        for size, (widths, refined) in WIDTHS.items():
            backend = TorchBackend(BrainSegNet(channels, 5, widths, refined).eval(), str(device))
            image = np.random.default_rng(0).normal(size=(channels, *(-(-n // 8) * 8 for n in shape))).astype("f")
            seconds = seconds_of(partial(backend.classify, image), device, repeats)
            rows.append({"network": size, "shape": shape_name, "seconds": seconds})
            print(rows[-1], flush=True)
    return rows


def training(device: torch.device, patch: tuple[int, int, int], batches: tuple[int, ...], repeats: int) -> list[dict]:
    """Samples per second and peak memory of the paper's step, plain and collapsed."""
    rows = []
    for plain in (True, False):
        for batch in batches:
            net = BrainSegNet(4, 5).to(device).to(memory_format=torch.channels_last_3d).train()  # type: ignore[call-overload]
            module, stage = (net if plain else FusedDecoder(net)), PAPER.stages[2]
            optimiser = torch.optim.Adam(net.parameters(), lr=1e-4)
            images = torch.randn(batch, 4, *patch, device=device).to(memory_format=torch.channels_last_3d)
            classes = torch.randint(5, (batch, *patch), device=device)

            def step(
                module: nn.Module = module,
                optimiser: torch.optim.Optimizer = optimiser,
                images: torch.Tensor = images,
                classes: torch.Tensor = classes,
                stage: Stage = stage,
            ) -> None:
                optimiser.zero_grad()
                with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
                    logits = module(images)
                loss_of(logits, classes, PAPER, stage).backward()
                optimiser.step()

            facts = {"network": "plain" if plain else "fused", "batch": batch, "patch": patch}
            try:
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                rows.append({**facts, "samples per second": batch / seconds_of(step, device, repeats)})
                if device.type == "cuda":
                    rows[-1]["peak bytes"] = torch.cuda.max_memory_allocated()
            except (RuntimeError, ValueError, MemoryError) as error:
                rows.append({**facts, "failed": str(error).splitlines()[0][:200]})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="small shapes, to see that it runs")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device, small = torch.device(arguments.device), arguments.small
    torch.backends.cudnn.benchmark = True
    size = 256 if small else 8192
    rates = {str(dtype): matrix_rate(device, dtype, size) for dtype in precisions(device)}
    document: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "versions": find_versions(),
        "multiply-adds per second": rates,
    }
    shapes, patch = (SMALL, (4, 32, 32)) if small else (SHAPES, (12, 128, 128))
    repeats = 1 if small else arguments.repeats
    for part, measured in (
        ("inference", lambda: inference(device, shapes, rates, repeats)),
        ("preparing", lambda: preparing(device, shapes, repeats)),
        ("to labels", lambda: from_memory_to_labels(device, shapes, repeats)),
        ("training", lambda: training(device, patch, (2,) if small else (8, 40), repeats)),
    ):
        document[part] = measured()
        if arguments.out:
            arguments.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
