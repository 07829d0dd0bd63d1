"""Simulate a cohort of a million cases on many nodes: python benchmarks/simulate_cohort.py --out RESULTS.

Nothing is segmented. The seconds of a case are recorded ones. `--record` segments simulated prepared scans, or
the cases of a folder, with `cohort run`. It keeps the seconds of cores that this takes, and the share of each stage.
The rest is arithmetic and random numbers:

- A node has 2 or 16 cores, and a process for every two, which keeps as much of them busy as in the measured throughput
  of `cohort run`. A case keeps its process as long as its core seconds need then, times a lognormal factor of mean 1.
- The disk gives so many bytes a second to all processes together. A case lasts at least as long as its share of that.
- Nodes fail at random (Poisson). What their processes have in hand is lost. After some time, another node takes the
  place, and its processes start.
- Parts: each process has the same number of cases, and takes up its own again (`--shard`). Shared: each process takes
  the next case that nobody has, and looks at all cases on its way. A lost case can be taken again once its claim is
  stale.
- A job ends with its part. Core hours count until then, failures and idle processes included.
"""

import argparse
import heapq
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from brainsegnet._atomic import write_text
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet.cohort.claims import STALE_SECONDS
from brainsegnet.cohort.ledger import STAGES
from brainsegnet.cohort.tables import read_parquet

sys.path.append(str(Path(__file__).parents[1]))
from benchmarks.prepared import simulate_prepared

CORES, RECORDED, LEAST = 2, 20, 3
"""Cores of a process, in the record too; simulated scans of a record, and the least number of cases of one."""
RESULTS = Path(__file__).parent / "results"
RECORD, REAL = RESULTS / "cohort-seconds.json", RESULTS / "shipped-tumour-brats2021.json"
"""Seconds of a case, and how much real cases differ."""
THROUGHPUT = RESULTS / "cohort-throughput.json"
"""Cases an hour on two cores, of the scans of `RECORD` and of the same processor."""
NODES, SIZES, FAILURES, DISKS = (10, 100, 1000), (2, 16), (math.inf, 1000.0, 24.0), (1e9, 1e10)


@dataclass(frozen=True)
class Plan:
    """What is simulated.

    Attributes:
        cases: Number of cases.
        nodes: Number of nodes.
        cores: Cores of a node.
        seconds: How long a case keeps a process of two cores, on average.
        spread: Standard deviation of the logarithm of that.
        case_bytes: What is read of a case.
        disk: Bytes a second that all processes together can read.
        start: Seconds from the start of a process to its first case.
        hours_between_failures: Mean time between two failures of a node.
        replace: Seconds until another node takes the place of one that failed.
        stale: Seconds after which a claim is of a dead process.
        look: Seconds to see that a case is done. Of a prepared case on a local disk, 0.27 ms were measured.
        shared: Whether processes share all cases; else each has a part.
        seed: Seed of what is random.
    """

    cases: int = 1_000_000
    nodes: int = 10
    cores: int = 2
    seconds: float = 1.0
    spread: float = 0.0
    case_bytes: float = 10e6
    disk: float = math.inf
    start: float = 5.0
    hours_between_failures: float = math.inf
    replace: float = 120.0
    stale: float = STALE_SECONDS
    look: float = 0.0003
    shared: bool = False
    seed: int = 0

    @property
    def processes(self) -> int:
        """Of all nodes."""
        return self.nodes * (self.cores // CORES)

    @property
    def looking(self) -> float:
        """Seconds of looking for each case that a process takes: it passes those of the others too, if it shares."""
        return self.look * (self.processes if self.shared else 1)

    @property
    def least(self) -> float:
        """Seconds that the share of a process in the disk needs for a case."""
        return self.case_bytes * self.processes / self.disk


@dataclass(frozen=True)
class Found:
    """What came out.

    Attributes:
        hours: Until the last case is done.
        core_hours: Of all processes until the end of their part.
        work_core_hours: Of them, what the cases themselves need, without disk, failures and waiting.
        repeated: Share of the work that was done in vain, to be done again.
        failures: How many nodes failed.
    """

    hours: float
    core_hours: float
    work_core_hours: float
    repeated: float
    failures: int

    @property
    def utilisation(self) -> float:
        """Share of the core hours that were work."""
        return self.work_core_hours / self.core_hours


class Node:
    """When a node fails, told in the order of time."""

    def __init__(self, mean_seconds: float, seed: tuple[int, int]) -> None:
        self._mean, self._draw, self.times = mean_seconds, np.random.default_rng(seed), [math.inf]
        if mean_seconds < math.inf:
            self.times = [self._draw.exponential(mean_seconds)]

    def next_after(self, when: float) -> float:
        """The first failure after a time."""
        while self.times[-1] <= when:
            self.times.append(self.times[-1] + self._draw.exponential(self._mean))
        place = np.searchsorted(self.times, when, side="right")
        return float(self.times[place])


def simulate(plan: Plan) -> Found:
    """Simulate a cohort. The same plan gives the same result."""
    draw = np.random.default_rng(plan.seed)
    work = plan.seconds * np.exp(draw.normal(0, plan.spread, plan.cases) - plan.spread**2 / 2)
    lasts = np.maximum(work, plan.least) + plan.looking
    nodes = [Node(3600 * plan.hours_between_failures, (plan.seed, number)) for number in range(plan.nodes)]
    ends, lost = (_share if plan.shared else _divide)(plan, lasts, nodes)
    hours = max(ends) / 3600
    failed = sum(sum(when <= 3600 * hours for when in node.times) for node in nodes)
    return Found(
        hours, CORES * sum(ends) / 3600, CORES * float(work.sum()) / 3600, lost / float(lasts.sum()), int(failed)
    )


def _divide(plan: Plan, lasts: np.ndarray, nodes: list[Node]) -> tuple[list[float], float]:
    """Each process has a part: when each ends, and the seconds done in vain."""
    ends, lost = [], 0.0
    for number, part in enumerate(np.array_split(lasts, plan.processes)):
        node = nodes[number % plan.nodes]
        due, now, done = np.concatenate([[0.0], np.cumsum(part)]), plan.start, 0
        while True:
            end = now + due[-1] - due[done]
            if (failure := node.next_after(now)) >= end:
                break
            last, done = done, int(np.searchsorted(due, due[done] + failure - now, side="right")) - 1
            lost += failure - now - (due[done] - due[last])
            now = failure + plan.replace + plan.start
        ends.append(end)
    return ends, lost


def _share(plan: Plan, lasts: np.ndarray, nodes: list[Node]) -> tuple[list[float], float]:
    """Each process takes the next case: when each ends, and the seconds done in vain."""
    free = [(plan.start, number) for number in range(plan.processes)]
    heapq.heapify(free)
    failures = [nodes[number % plan.nodes].next_after(0.0) for number in range(plan.processes)]
    ends, lost, given = [0.0] * plan.processes, 0.0, 0
    again: list[tuple[float, float]] = []
    seconds = lasts.tolist()
    while given < plan.cases or again:
        now, number = heapq.heappop(free)
        if failures[number] <= now:  # it failed while it waited or started
            node = nodes[number % plan.nodes]
            back = failures[number] + plan.replace + plan.start
            failures[number] = node.next_after(failures[number])
            heapq.heappush(free, (max(now, back), number))
            continue
        if given < plan.cases:
            last, given = seconds[given], given + 1
        else:
            when, last = heapq.heappop(again)
            now = max(now, when)
        if failures[number] < now + last:
            lost += max(failures[number] - now, 0.0)
            heapq.heappush(again, (max(failures[number], now) + plan.stale, last))
            heapq.heappush(free, (failures[number], number))
            continue
        ends[number] = now + last
        heapq.heappush(free, (now + last, number))
    return [max(ends)] * plan.processes, lost  # a process waits for the cases of the others


def record(cases: Path | None, out: Path) -> dict[str, Any]:
    """Segment the cases of a folder, first one and then the others, and keep the seconds of cores that they take.

    Args:
        cases: The folder; None simulates prepared scans.
        out: JSON to write.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, kind = Path(name) / "cohort", f"scans of {cases.name}" if cases else "simulated prepared scans"
        cases = cases or simulate_prepared(Path(name), RECORDED)
        command = [sys.executable, "-m", "brainsegnet", "cohort"]
        subprocess.run([*command, "find", str(cases), "--out", str(folder)], check=True, capture_output=True)
        run = [*command, "run", "--model", "tumour", "--out", str(folder), "--device", "cpu", "--threads", str(CORES)]
        if (count := len(list(read_parquet(folder / "manifest.parquet", ["case"])))) < LEAST:
            raise SystemExit(f"{cases} has {count} cases; give {LEAST} or more")
        first, others = (_time_cores([*run, *part]) for part in (["--shard", f"1/{count}"], []))
        (ledger,) = folder.glob("*/ledger.parquet")
        rows = list(read_parquet(ledger))
    each = (others - first) / (count - 2)
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_cpu(),
        "load": round(os.getloadavg()[0], 1),
        "versions": find_versions(),
        "cases": f"{count} {kind}",
        "engine": rows[0]["engine"],
        "core_seconds_a_case": round(each, 3),
        "core_seconds_to_start": round(first - each, 3),
        "stage_percent": _share_stages(rows),
    }
    write_text(json.dumps(facts, indent=1) + "\n", out)
    return facts


def _share_stages(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Percent of each stage in the seconds of the ledger, over all cases. What else runs lengthens them all."""
    totals = {stage: sum(row[f"seconds_{stage}"] or 0.0 for row in rows) for stage in STAGES}
    return {stage: round(100 * total / sum(totals.values()), 1) for stage, total in totals.items()}


def _time_cores(command: list[str]) -> float:
    """Seconds of all cores that a command and its processes take, which hardly depend on what else runs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def find_busy_share() -> float:
    """Share of its two cores that a process keeps busy, by core seconds and cases an hour of the same scans."""
    hourly = json.loads(THROUGHPUT.read_text())["runs"]["full"]["cases_per_hour"]
    return float(json.loads(RECORD.read_text())["core_seconds_a_case"] * hourly / 3600 / CORES)


def read_plan(facts: dict[str, Any], real: dict[str, Any], busy: float) -> Plan:
    """What is known of a case.

    Args:
        facts: A record. A process is taken to keep one core busy while it starts.
        real: Seconds of real cases, repeated, which give the spread.
        busy: Share of both cores that a process keeps busy with cases.
    """
    typical = np.log([np.median(seconds) for seconds in real["seconds"].values()])
    return Plan(
        seconds=round(facts["core_seconds_a_case"] / CORES / busy, 3),
        spread=round(float(typical.std(ddof=1)), 3),
        start=facts["core_seconds_to_start"],
    )


def list_plans(base: Plan) -> Iterator[Plan]:
    """All that is simulated."""
    for nodes in NODES:
        for cores in SIZES:
            for disk in DISKS:
                for hours in FAILURES:
                    for shared in (False, True) if disk == max(DISKS) else (False,):
                        yield replace(
                            base, nodes=nodes, cores=cores, disk=disk, hours_between_failures=hours, shared=shared
                        )


def describe(plan: Plan, found: Found, price: float) -> dict[str, Any]:
    """A row of the results."""
    return {
        "nodes": plan.nodes,
        "cores_of_a_node": plan.cores,
        "disk_gb_a_second": plan.disk / 1e9,
        "hours_between_failures": plan.hours_between_failures if plan.hours_between_failures < math.inf else None,
        "how": "shared" if plan.shared else "parts",
        "hours": round(float(found.hours), 2),
        "core_hours": round(float(found.core_hours), 1),
        "repeated_percent": round(float(100 * found.repeated), 4),
        "utilisation": round(float(found.utilisation), 3),
        "failures": found.failures,
        "cost": round(float(price * found.core_hours), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--record", nargs="?", const="", metavar="CASES", help="new seconds, of a folder if named")
    parser.add_argument("--cases", type=int, default=Plan.cases)
    parser.add_argument("--spread", type=float, help="by default that of real cases")
    parser.add_argument("--price", type=float, default=0.04, help="of a core hour; an assumption, in any currency")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/simulated-cohort.json"))
    given = parser.parse_args()
    seconds = given.out.with_name(RECORD.name)
    if given.record is not None:
        record(Path(given.record) if given.record else None, seconds)
    facts = json.loads((seconds if seconds.exists() else RECORD).read_text())
    busy = find_busy_share()
    base = replace(read_plan(facts, json.loads(REAL.read_text()), busy), cases=given.cases)
    base = base if given.spread is None else replace(base, spread=given.spread)
    rows = []
    for plan in list_plans(base):
        rows.append(describe(plan, simulate(plan), given.price))
        print(rows[-1], flush=True)
    known = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": facts["machine"],
        "sources": [RECORD.name, THROUGHPUT.name, REAL.name],
        "record": {name: facts[name] for name in ("date", "machine", "load", "cases", "engine")},
        "assumptions": {
            **{name: value for name, value in asdict(base).items() if value != math.inf},
            "cores_of_a_process": CORES,
            "busy_share": round(busy, 3),
            "core_seconds_a_case": facts["core_seconds_a_case"],
            "price_of_a_core_hour": given.price,
            "text": (__doc__ or "").partition("numbers:")[2].strip().splitlines(),
        },
        "rows": rows,
    }
    write_text(json.dumps(known, indent=1) + "\n", given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
