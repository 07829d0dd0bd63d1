"""Seconds and memory from files to file on a CPU: ours and MONAI's networks, the same scan, the same threads.

    python benchmarks/speed.py --out benchmarks/results/speed.json
    python benchmarks/speed.py --task isles2017 --out benchmarks/results/speed-isles.json
    python benchmarks/speed.py --scan CASE_FOLDER --contenders compact-int8 segresnet-as-used

By default the scan is a phantom of 155x240x240 voxels, or 24x192x192 with six maps. Each contender runs in a process of
its own, so that its peak of memory is its own: once to warm up, then `--repeats` times. Weights are untrained, which
changes no time. "as-used" is torch and MONAI's sliding window (128^3, overlap 0.5, no mirroring) over the whole volume,
as its users run it; "our-engine" is the same network given our brain box and OpenVINO.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path

import numpy as np

import brainsegnet
from brainsegnet._machine import describe_cpu, find_versions, has_integer_units
from brainsegnet.inference.openvino_backend import shared_core
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.io.images import write_image
from brainsegnet.task import Task, load_task
from contenders import CONTENDERS, PRECISIONS, WIDTHS, model_folder  # type: ignore[import-not-found]

SHAPES = {"brats2021": (155, 240, 240), "isles2017": (24, 192, 192)}

LONG = 45
"""Seconds; who needs more than that is run only once, since a warm-up changes little then."""


def matrix_rates(threads: int) -> dict[str, float]:
    """Multiply-adds per second of a large matrix product in OpenVINO, in each precision."""
    import openvino
    from openvino import opset13 as ops

    from brainsegnet.model.graphs import quantise

    size, rng = 2048, np.random.default_rng(0)
    left, right = rng.normal(size=(2, size, size)).astype("f")
    x = ops.parameter([1, size, size], np.float32)
    whole = openvino.Model([ops.result(ops.matmul(x, ops.constant(right), False, True))], [x])
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    rates = {}
    for kind in PRECISIONS:
        model = quantise(whole.clone(), [left]) if kind == "int8" else whole
        settings["INFERENCE_PRECISION_HINT"] = "bf16" if kind == "bf16" else "f32"
        request = shared_core().compile_model(model, "CPU", settings).create_infer_request()
        seconds = []
        for _ in range(12):
            started = time.perf_counter()
            request.infer({0: left[None]}, share_inputs=True, share_outputs=True)
            seconds.append(time.perf_counter() - started)
        rates[kind] = size**3 / statistics.median(seconds[2:])
    return rates


def measure(contender: str, home: Path, scan: Path, threads: int, repeats: int, task: Task) -> dict:
    """In this process: seconds of each run from files to file, and the peak of memory."""
    started = time.perf_counter()
    run = CONTENDERS[contender](home, threads, task)
    setup = time.perf_counter() - started
    (files,) = find_cases([scan])
    seconds, network = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats + 1):
            started = time.perf_counter()
            case = load_case(files, task.sequences, task, lesion=False)
            read = time.perf_counter()
            labels = run(case)
            computed = time.perf_counter()
            write_image(labels, Path(folder) / "labels.nii.gz")
            seconds.append(time.perf_counter() - started)
            network.append(computed - read)
            if seconds[0] > LONG:
                break
    counted = slice(1 if len(seconds) > 1 else 0, None)
    return {
        "setup": setup,
        "first": seconds[0],
        "seconds": seconds[counted],
        "compute": network[counted],
        "peak_bytes": peak_bytes(),
    }


def peak_bytes() -> int:
    """The most memory that this process held; `getrusage` would count its parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def in_a_process(contender: str, home: Path, arguments: argparse.Namespace, scan: Path) -> dict:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--one", contender, "--home", str(home), "--scan", str(scan)]
    command += ["--threads", str(arguments.threads), "--repeats", str(arguments.repeats)]
    command += ["--task", arguments.task]
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


def machine() -> dict:
    """The processor, as it calls itself."""
    return {"processor": describe_cpu(), "multiplies_8_bits": has_integer_units()}


def phantom(home: Path, task: str) -> Path:
    """A phantom of the size of the challenge's scans; one with six maps reads some files twice."""
    brainsegnet.simulate(home, brainsegnet.SimulateOptions(1, 0, SHAPES[task]))
    (files,) = find_cases([home])
    rows = [f"phantom,{name},{path}" for name, path in zip(load_task(task).sequences, cycle(files.images.values()))]
    (home / "cases.csv").write_text("\n".join(["case,sequence,path", *rows]))
    return home / "cases.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scan", type=Path, help="folder of one case with the sequences of the task; by default a phantom"
    )
    parser.add_argument("--task", choices=SHAPES, default="brats2021")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    task = load_task(arguments.task)
    if arguments.one:
        result = measure(arguments.one, arguments.home, arguments.scan, arguments.threads, arguments.repeats, task)
        print(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as folder:
        home, scan = Path(folder), arguments.scan
        if scan is None:
            scan = phantom(home / "phantom", arguments.task)
        for size in sorted({name.split("-")[0] for name in arguments.contenders} & set(WIDTHS)):
            model_folder(size, home, task)
        results: dict[str, dict] = {}
        for contender in arguments.contenders:
            results[contender] = in_a_process(contender, home, arguments, scan)
            print(contender, results[contender], flush=True)
    print(table(results))
    if arguments.out:
        document = {
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "threads": arguments.threads,
            "versions": find_versions(),
            "multiply_adds_per_second": matrix_rates(arguments.threads),
            "task": arguments.task,
            "scan": "phantom" if arguments.scan is None else "real",
            "results": results,
        }
        arguments.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
