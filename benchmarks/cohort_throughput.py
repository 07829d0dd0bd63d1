"""Throughput, memory and open files of `cohort run`: python benchmarks/cohort_throughput.py --out RESULTS.json.

Tiny simulated phantoms, and prepared ones of full size, each under many names, go through the command as a user gives
it, with a shipped model. Meanwhile a look every second counts the results and measures the processes. Reported are:

- cases an hour, from the first result to the last;
- the share of this time in which the network was busy;
- memory and open files against the number of cases done: a straight line after the first fifth of the cases. A case of
  full size takes hundreds of MB for a moment, so the standard error of its slope is large.

The same files are read again and again, so they come from the memory of the operating system. Linux only.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet.cohort.tables import read_parquet
from brainsegnet.io.cases import find_cases
from brainsegnet.simulation.simulate import SimulateOptions, simulate

sys.path.append(str(Path(__file__).parents[1]))
from benchmarks.prepared import simulate_prepared

TINY = (24, 40, 40)
SPACING = {"tiny": "keep", "full": "model"}
"""The voxels of a tiny phantom are large: at 1 mm it would have the size of a full one."""
DISTINCT = 60
"""Different cases, and so different sizes of brains, as in a real cohort."""
WARM = 0.2
"""Share of the cases that passes before memory is compared."""


def write_table(folder: Path, size: str, cases: int) -> Path:
    """A table of so many cases, of `DISTINCT` phantoms of one size."""
    if size == "full":
        cases_at = simulate_prepared(folder / size, DISTINCT)
    else:
        simulate(cases_at := folder / size, SimulateOptions(cases=DISTINCT, shape=TINY))
    found, table = find_cases([cases_at]), folder / f"{size}.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("case", "sequence", "path"))
        for number in range(cases):
            images = found[number % DISTINCT].images
            writer.writerows((f"case{number:06}", name, path.resolve()) for name, path in images.items())
    return table


def list_processes(parent: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield parent
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from list_processes(int(child))


def measure(parent: int) -> tuple[int, int]:
    """Bytes of memory that a process and its descendants have for themselves, and their open files."""
    total, files = 0, 0
    for process in list_processes(parent):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            files += len(os.listdir(f"/proc/{process}/fd"))
        except (OSError, ProcessLookupError):
            continue
    return total, files


def watch(command: list[str], out: Path) -> tuple[list[tuple[int, int, int]], float]:
    """Run a command; cases done, bytes and open files at each look, and seconds in all."""
    begun, looks, said = time.monotonic(), [], out.with_suffix(".txt")
    with said.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    while process.poll() is None:
        done = sum(1 for folder in out.glob("????????") for name in os.listdir(folder) if name.endswith(".json"))
        if done:
            looks.append((done, *measure(process.pid)))
        time.sleep(1)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with code {process.returncode}: {said.read_text()[-2000:]}")
    return looks, time.monotonic() - begun


def find_slope(looks: list[tuple[int, int, int]], column: int) -> tuple[float, float]:
    """Rise for each case after the first ones, by least squares, and its standard error."""
    last = looks[-1][0]
    kept = np.array([look for look in looks[:-1] if look[0] >= WARM * last], np.float64)
    line, covariance = np.polyfit(kept[:, 0], kept[:, column], 1, cov=True)
    return float(line[0]), float(np.sqrt(covariance[0, 0]))


def find_medians(looks: list[tuple[int, int, int]]) -> list[int]:
    """Median memory in MiB while each tenth of the cases was done."""
    done, taken = np.array(looks, np.float64)[:, :2].T
    tenth = np.minimum(10 * done / done[-1], 9).astype(int)
    return [round(float(np.median(taken[tenth == k])) / 2**20) for k in range(10) if (tenth == k).any()]


def summarise(out: Path, looks: list[tuple[int, int, int]], seconds: float) -> dict[str, Any]:
    """What the JSON holds of one run."""
    (ledger,) = out.glob("????????/ledger.parquet")
    rows = list(read_parquet(ledger))
    ends = sorted((ledger.parent / row["labels"]).with_name(f"{row['case']}.json").stat().st_mtime for row in rows)
    span = ends[-1] - ends[0]
    network, prepared = (sum(row[f"seconds_{stage}"] or 0.0 for row in rows) for stage in ("network", "prepare"))
    share = (len(rows) - 1) / len(rows) / span
    rise, error = find_slope(looks, 1)
    return {
        "cases": len(rows),
        "seconds": round(seconds, 1),
        "cases_per_hour": round(3600 * (len(rows) - 1) / span),
        "network_busy": round(network * share, 3),
        "prepare_or_network_busy": round((network + prepared) * share, 3),
        "peak_mb": round(max(look[1] for look in looks) / 2**20),
        "median_mb_of_tenths": find_medians(looks),
        "kb_per_case": round(rise / 1024, 2),
        "kb_per_case_standard_error": round(error / 1024, 2),
        "open_files": [min(look[2] for look in looks[1:-1]), max(look[2] for look in looks[1:-1])],
        "open_files_per_1000_cases": round(1000 * find_slope(looks, 2)[0], 2),
    }


def main() -> None:
    """Read the command line, run both sizes, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", type=int, default=3000)
    parser.add_argument("--full", type=int, default=2000)
    parser.add_argument("--model", default="tumour")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder for the cases and results; by default a temporary one")
    parser.add_argument("--looks", type=Path, help="existing folder for a table of every look")
    arguments = parser.parse_args()
    runs = {}
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        for size, cases in (("tiny", arguments.tiny), ("full", arguments.full)):
            if not cases:
                continue
            out = Path(name) / f"cohort-{size}"
            command = [sys.executable, "-m", "brainsegnet", "cohort", "run", str(write_table(Path(name), size, cases))]
            command += ["--model", arguments.model, "--out", str(out), "--workers", str(arguments.workers)]
            command += ["--spacing", SPACING[size]]
            looks, seconds = watch(command, out)
            if arguments.looks:
                header = "cases,bytes,open_files"
                np.savetxt(arguments.looks / f"{size}.csv", looks, "%d", ",", header=header, comments="")
            runs[size] = summarise(out, looks, seconds)
            sys.stdout.write(f"{size}: {runs[size]}\n")
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_cpu(),
        "versions": find_versions(),
        "model": arguments.model,
        "workers": arguments.workers,
        "distinct_cases": DISTINCT,
        "runs": runs,
    }
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
