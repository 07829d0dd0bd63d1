"""What Ray costs a case: python benchmarks/ray_overhead.py --out RESULT.json.

Tiny simulated cases, with a threshold in place of the network, so that the work around it is nearly all. Compared are
processes on this machine, and actors on a Ray cluster that is started for each run, given one or eight cases at a time.
The kinds of a round run one after another, each round in another order. Seconds a case are those between the first and
the last result, divided by the cases between them. Everything before the first result is the start. Linux only.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")

from brainsegnet._atomic import write_text
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet.cohort import CohortOptions, ray_engine
from brainsegnet.cohort.run import run_cohort
from brainsegnet.inference import SegmentOptions
from brainsegnet.simulation.simulate import SimulateOptions, simulate

SEGMENTING = SegmentOptions(
    device="cpu",
    threads=1,
    keep_all_components=True,
    presence_check=False,
    extract_brain=False,
    register=False,
    spacing="keep",
)
KINDS: dict[str, tuple[Literal["processes", "ray"], int]] = {
    "processes": ("processes", 1),
    "ray, 1 case": ("ray", 1),
    "ray, 8 cases": ("ray", 8),
}
"""Engine, and cases that an actor is given at a time."""


def load_kill_cohort() -> Any:  # noqa: ANN401
    spec = spec_from_file_location("kill_cohort", Path(__file__).with_name("kill_cohort.py"))
    assert spec and spec.loader
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def measure(cases: Path, out: Path, kind: str, workers: int) -> dict[str, float]:
    """Seconds of one run."""
    engine, batch = KINDS[kind]
    begun = time.time()
    options = CohortOptions(engine=engine, workers=workers)

    def run() -> int:
        kill_cohort.Faults(out).install()
        kill_cohort.replace_each(kill_cohort, PAUSE=0.0)
        kill_cohort.replace_each(ray_engine, BATCH=batch)
        if engine == "ray":
            from ray import cloudpickle

            cloudpickle.register_pickle_by_value(kill_cohort)
        return int(run_cohort([cases], out, "tumour", options, SEGMENTING).status.failed > 0)

    if code := kill_cohort.finish(kill_cohort.start(run, out.parent / "log.txt")):
        raise RuntimeError(f"exit {code}: {(out.parent / 'log.txt').read_text()[-2000:]}")
    times = sorted(path.stat().st_mtime for path in kill_cohort.results_of(out).values())
    return {
        "all": time.time() - begun,
        "start": times[0] - begun,
        "a case": (times[-1] - times[0]) / (len(times) - 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ray-overhead.json"))
    given = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        cases = Path(name) / "cases"
        simulate(cases, SimulateOptions(given.cases, 0, kill_cohort.SHAPE))
        for number in range(given.rounds):
            order = [(kind, workers) for workers in (1, 2) for kind in KINDS]
            random.Random(number).shuffle(order)
            for kind, workers in order:
                place = Path(name) / f"{len(runs)} {number} {kind} {workers}"
                place.mkdir()
                found = measure(cases, place / "out", kind, workers)
                runs.setdefault(f"{kind}, {workers}", []).append(found)
                print(number, kind, workers, {key: round(value, 3) for key, value in found.items()}, flush=True)
    medians = {
        kind: {key: round(statistics.median(run[key] for run in found), 4) for key in found[0]}
        for kind, found in sorted(runs.items())
    }
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_cpu(),
        "versions": {**find_versions(), "ray": metadata.version("ray")},
        "cases": given.cases,
        "rounds": given.rounds,
        "engine": "a threshold in place of the network",
        "medians of seconds, by kind and workers": medians,
        "runs": runs,
    }
    write_text(json.dumps(facts, indent=1) + "\n", given.out)
    return 0


kill_cohort = load_kill_cohort()

if __name__ == "__main__":
    sys.exit(main())
