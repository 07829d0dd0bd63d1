"""Seconds and memory from files to file on a CPU: ours and MONAI's networks, the same scan, the same threads.

    python benchmarks/speed.py --out benchmarks/results/speed.json
    python benchmarks/speed.py --scan CASE_FOLDER --contenders compact-int8 segresnet-as-used

By default the scan is a phantom of 155x240x240 voxels. Each contender runs in a process of its own, so that its peak of
memory is its own: once to warm up, then `--repeats` times. Weights are untrained, which changes no time. "as-used" is
torch and MONAI's sliding window (128^3, overlap 0.5, no mirroring) over the whole volume, as its users run it;
"our-engine" is the same network given our brain box and OpenVINO.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import brainsegnet
from brainsegnet.api.exporting import export_with
from brainsegnet.inference.card import Architecture, Card, Input, find_versions
from brainsegnet.inference.engines import open_engine
from brainsegnet.inference.model import Model, open_model, save_model
from brainsegnet.inference.openvino_backend import shared_core
from brainsegnet.inference.predict import predict
from brainsegnet.preprocessing.prepare import Prepared, prepare, restore
from brainsegnet.scans.datasets import find_cases, load_case
from brainsegnet.scans.files import write_image
from brainsegnet.task import BRATS2021, Task
from brainsegnet.training.patches import Scan
from brainsegnet.volume import Case, LabelMap

if TYPE_CHECKING:
    from torch import nn

WIDTHS = {"full": ((32, 64, 128, 256), 128), "half": ((16, 32, 64, 128), 64), "compact": ((8, 16, 32, 64), 32)}
TASK: Task = BRATS2021
SEQUENCES = ("flair", "t1", "t1c", "t2")
Run = Callable[[Case], LabelMap]


def model_folder(size: str, home: Path) -> Model:
    """A model of untrained weights with its exports, the ranges of 8 bits taken from a phantom's brain."""
    import torch

    from brainsegnet.network.architecture import BrainSegNet

    torch.manual_seed(0)
    widths, refined = WIDTHS[size]
    net = BrainSegNet(len(SEQUENCES), TASK.classes, widths, refined)
    torch.nn.init.normal_(net.classify.weight, std=0.1)
    card = Card(
        name=size, task=TASK, input=Input(sequences=SEQUENCES), network=Architecture(widths=widths, refined=refined)
    )
    return export_with(save_model(home / size, card, net.state_dict()), {"noise": noise()})


def noise() -> Scan:
    """Something to take ranges from."""
    rng = np.random.default_rng(0)
    shape = (24, 96, 96)
    return Scan(rng.normal(size=(len(SEQUENCES), *shape)).astype("f"), rng.integers(0, 4, shape, np.uint8), 24, 0)


def ours(size: str, precision: str, home: Path, threads: int) -> Run:
    """Ours as `segment` runs it."""
    engine = open_engine(open_model(home / size), "cpu", threads, precision)
    return lambda case: predict(case, engine).labels


def plain(size: str, home: Path, threads: int) -> Run:
    """The network as the paper draws it, in torch, on the whole volume."""
    import torch

    torch.set_num_threads(threads)
    net = open_model(home / size).build()

    def run(case: Case) -> LabelMap:
        image = whole_volume(case)
        with torch.inference_mode():
            classes = net(torch.from_numpy(image)[None])[0].argmax(0).numpy().astype(np.uint8)
        return LabelMap(TASK.decode(classes), case.reference.affine)

    return run


def peer(name: str, threads: int) -> "nn.Module":
    """One of MONAI's networks."""
    import torch
    from monai.networks.nets import DynUNet, SegResNet, UNet

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    channels, classes, flat = len(SEQUENCES), TASK.classes, (1, 2, 2)
    if name == "segresnet":
        return SegResNet(3, init_filters=16, in_channels=channels, out_channels=classes).eval()
    if name == "unet":
        return UNet(3, channels, classes, (32, 64, 128, 256), (flat, flat, flat), num_res_units=2, norm="batch").eval()
    strides, filters = [1, 2, 2, 2, 2, 2], [32, 64, 128, 256, 320, 320]
    return DynUNet(3, channels, classes, [3] * 6, strides, strides[1:], filters=filters, norm_name="instance").eval()


def as_used(name: str, threads: int) -> Run:
    """A peer with torch and MONAI's sliding window over the whole volume."""
    import torch
    from monai.inferers import sliding_window_inference

    net = peer(name, threads)

    def run(case: Case) -> LabelMap:
        image = torch.from_numpy(whole_volume(case))[None]
        with torch.inference_mode():
            logits = sliding_window_inference(image, (128, 128, 128), 1, net, overlap=0.5)
        return LabelMap(TASK.decode(logits[0].argmax(0).numpy().astype(np.uint8)), case.reference.affine)

    return run


def with_our_engine(name: str, threads: int, integers: bool) -> Run:
    """A peer in OpenVINO on the brain box."""
    import openvino
    import torch

    from brainsegnet.inference.openvino_backend import likeliest
    from brainsegnet.network.export import quantise

    net = peer(name, threads)
    model = openvino.convert_model(net, example_input=torch.zeros(1, len(SEQUENCES), 64, 64, 64))
    model.reshape([1, len(SEQUENCES), -1, -1, -1])
    if integers:
        rng = np.random.default_rng(0)
        model = quantise(model, [rng.normal(size=(len(SEQUENCES), 64, 64, 64)).astype("f") for _ in range(8)])
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    request = shared_core().compile_model(model, "CPU", settings).create_infer_request()

    def run(case: Case) -> LabelMap:
        prepared: Prepared = prepare(case)
        d, h, w = prepared.image.shape[1:]
        image = np.pad(prepared.image, [(0, 0), *((0, -n % 32) for n in (d, h, w))])
        request.infer({0: image[None]}, share_inputs=True)
        classes = likeliest(request.get_output_tensor(0).data)[0, :d, :h, :w]
        return LabelMap(TASK.decode(restore(classes, prepared)), case.reference.affine)

    return run


def whole_volume(case: Case) -> np.ndarray:
    """All voxels (C, D, H, W), normalised over those that are not 0."""
    image = np.stack([case.images[name].array.astype(np.float32) for name in SEQUENCES])
    for channel in image:
        inside = channel[channel != 0]
        channel[channel != 0] = (inside - inside.mean()) / inside.std()
    return image


CONTENDERS: dict[str, Callable[[Path, int], Run]] = {
    "full-plain-torch": lambda home, threads: plain("full", home, threads),
    **{
        f"{size}-{precision}": lambda home, threads, size=size, precision=precision: ours(
            size, precision, home, threads
        )
        for size in WIDTHS
        for precision in ("float", "int8")
    },
    **{
        f"{name}-as-used": lambda home, threads, name=name: as_used(name, threads)
        for name in ("segresnet", "unet", "dynunet")
    },
    **{
        f"{name}-our-engine-{kind}": lambda home, threads, name=name, kind=kind: with_our_engine(
            name, threads, kind == "int8"
        )
        for name in ("segresnet", "unet", "dynunet")
        for kind in ("float", "int8")
    },
}


def measure(contender: str, home: Path, scan: Path, threads: int, repeats: int) -> dict:
    """In this process: seconds of each run from files to file, and the peak of memory."""
    started = time.perf_counter()
    run = CONTENDERS[contender](home, threads)
    setup = time.perf_counter() - started
    (files,) = find_cases([scan])
    seconds, network = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats + 1):
            started = time.perf_counter()
            case = load_case(files, SEQUENCES, TASK, lesion=False)
            read = time.perf_counter()
            labels = run(case)
            computed = time.perf_counter()
            write_image(labels, Path(folder) / "labels.nii.gz")
            seconds.append(time.perf_counter() - started)
            network.append(computed - read)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"setup": setup, "first": seconds[0], "seconds": seconds[1:], "compute": network[1:], "peak_bytes": peak}


def in_a_process(contender: str, home: Path, arguments: argparse.Namespace, scan: Path) -> dict:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--one", contender, "--home", str(home), "--scan", str(scan)]
    command += ["--threads", str(arguments.threads), "--repeats", str(arguments.repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1][:300] if done.stderr.strip() else str(done.returncode)}
    return json.loads(done.stdout.splitlines()[-1])


def table(results: dict[str, dict]) -> str:
    """Markdown: medians, spread, memory, and how many times as long as the compact model in 8 bits."""
    base = statistics.median(results["compact-int8"]["seconds"]) if "compact-int8" in results else None
    lines = [
        "| | files to file, s | of it computing, s | peak memory, GB | times compact-int8 |",
        "|---|---|---|---|---|",
    ]
    for name, result in results.items():
        if "failed" in result:
            lines.append(f"| {name} | failed: {result['failed']} | | | |")
            continue
        median, spread = statistics.median(result["seconds"]), max(result["seconds"]) - min(result["seconds"])
        ratio = f"{median / base:.1f}" if base else ""
        compute, peak = statistics.median(result["compute"]), result["peak_bytes"] / 1e9
        lines.append(f"| {name} | {median:.2f} (spread {spread:.2f}) | {compute:.2f} | {peak:.2f} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path, help="folder of one case with flair, t1, t1c, t2; by default a phantom")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        result = measure(arguments.one, arguments.home, arguments.scan, arguments.threads, arguments.repeats)
        print(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as folder:
        home, scan = Path(folder), arguments.scan
        if scan is None:
            brainsegnet.grow(home / "phantom", 1, 0, (155, 240, 240))
            scan = home / "phantom" / "phantom0000"
        for size in sorted({name.split("-")[0] for name in arguments.contenders} & set(WIDTHS)):
            model_folder(size, home)
        results: dict[str, dict] = {}
        for contender in arguments.contenders:
            results[contender] = in_a_process(contender, home, arguments, scan)
            print(contender, results[contender], flush=True)
    print(table(results))
    if arguments.out:
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        document = {
            "date": datetime.date.today().isoformat(), "machine": machine, "threads": arguments.threads,
            "versions": find_versions(), "scan": "phantom" if arguments.scan is None else "real", "results": results,
        }  # fmt: skip
        arguments.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
