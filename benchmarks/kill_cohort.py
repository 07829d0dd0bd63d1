"""Disturb cohorts at random moments, and compare with a calm one: python benchmarks/kill_cohort.py --out RESULTS.

The cases are tiny and simulated, and in place of the network stands a threshold, so that the moments fall into the work
around it: claims, files, processes. Ways to disturb:

- worker: `kill -9` of the process that segments; the first process starts another.
- run: `kill -9` of the first process; the command is given again.
- stop: Ctrl-C; the current case is done, nothing is claimed any more, and the command is given again.
- end: SIGTERM; nothing is claimed any more, and the command is given again.
- write: `kill -9` in the middle of writing a label map.
- disk: after a random case, no file may grow beyond a random size, as on a full disk; the command is given again.
- hang: one case never ends; it must fail, and no other.
- crash: one case ends its process each time; it must fail, and no other.
- fault: one case raises an exception that nobody expects; it must fail, and no other.
- broken: from one case on, a process raises such exceptions; at most three cases must fail, and another goes on.

With two actors on a Ray cluster of two nodes on this machine (they need Ray):

- ray-actor: `kill -9` of an actor; Ray starts another.
- ray-raylet: `kill -9` of the second node; the work goes on with one actor.
- ray-driver: `kill -9` of the process that uses Ray; the first process starts another.
- ray-hang, ray-crash, ray-fault, ray-broken: as without Ray.

After each: every file under a final name is whole, no case that was done is computed again, nothing unfinished is left,
and the ledger equals that of the undisturbed run. The script goes on where it was stopped. Linux only.
"""

import argparse
import contextlib
import gzip
import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import nibabel  # noqa: F401
import numpy as np
import pyarrow.parquet  # noqa: F401
import scipy.ndimage  # noqa: F401
import SimpleITK  # noqa: F401

from brainsegnet._atomic import replacing, write_text
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet._types import Floats, Labels
from brainsegnet.cohort import CohortOptions, ray_engine, run
from brainsegnet.cohort.ledger import VARYING
from brainsegnet.cohort.ray_actor import Actor
from brainsegnet.cohort.run import run_cohort
from brainsegnet.cohort.tables import read_parquet
from brainsegnet.cohort.work import MOST_FAULTS
from brainsegnet.errors import BrainSegNetError
from brainsegnet.inference import SegmentOptions, segmentation, segmenter
from brainsegnet.inference.predict import Engine, PreparedCase, RawPrediction
from brainsegnet.io.images import write_image
from brainsegnet.model.store import Model
from brainsegnet.simulation.simulate import SimulateOptions, simulate
from brainsegnet.volume import Volume

SHAPE, CASES, PAUSE = (24, 40, 40), 8, 0.04
WAYS = ("worker", "run", "stop", "end", "write", "disk", "hang", "crash", "fault", "broken")
RAY_WAYS = ("ray-actor", "ray-raylet", "ray-driver", "ray-hang", "ray-crash", "ray-fault", "ray-broken")
ACTORS, RAY_PAUSE, LOST_SECONDS = 2, 0.25, 3.0
SIGNALS = {"worker": signal.SIGKILL, "run": signal.SIGKILL, "stop": signal.SIGINT, "end": signal.SIGTERM}
MARK, LOG = ".brainsegnet~", "computed.txt"
HANG_MINUTES = 0.5
KINDS = {"hang": "TimedOut", "crash": "ProcessEnded", "fault": "ValueError", "broken": "ValueError"}
FAILURES = {prefix + way: kind for way, kind in KINDS.items() for prefix in ("", "ray-")}


class Threshold:
    """In place of the network: what is bright in the first sequence is lesion."""

    name, multiples, halo = "threshold", (1, 8, 8), 21

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def classify(self, image: Floats) -> Labels:
        """Classes (d, h, w)."""
        return (image[0] > 1.5).astype(np.uint8)

    def probabilities(self, image: Floats) -> Floats:
        """One or zero, (K, d, h, w)."""
        return np.eye(self.classes, dtype=np.float32)[self.classify(image)].transpose(3, 0, 1, 2)

    def classify_with_confidence(self, image: Floats, certainty: bool = False) -> Labels:
        """Classes, and no doubt, (2, d, h, w)."""
        classes = self.classify(image)
        return np.stack([classes, *[np.full_like(classes, 255)] * (1 + certainty)])

    def estimate_bytes(self, shape: tuple[int, ...]) -> int:
        """It needs no memory."""
        return 0

    def free_bytes(self) -> None:
        """Memory is not limited."""
        return None


class Faults:
    """What goes wrong in the process that segments, and a log of the cases that the network was given."""

    def __init__(self, out: Path, case: str = "", way: str = "") -> None:
        self.out, self.case, self.way = out, case, way
        self.broken = False

    def install(self) -> None:
        """Put the faults, and the threshold, into this process."""
        compute = segmenter.Segmenter.compute

        def compute_with_faults(self_: segmenter.Segmenter, prepared: PreparedCase) -> RawPrediction:
            case = prepared.loaded.case.name
            with (self.out.parent / LOG).open("a") as log:
                log.write(f"{case}\n")
            time.sleep(RAY_PAUSE if self.way in RAY_WAYS else PAUSE)
            if case == self.case and self.way.endswith("hang"):
                time.sleep(3600)
            if case == self.case and self.way.endswith("crash"):
                os.kill(os.getpid(), signal.SIGSEGV)
            if case == self.case and self.way.endswith("broken") and not (first := self.out.parent / "broken").exists():
                first.touch()
                self.broken = True
            if self.broken or (case == self.case and self.way.endswith("fault")):
                raise ValueError("as nobody expects")
            if case == self.case and self.way == "disk":
                limit = random.Random(case).randrange(200, 1500)  # the log of cases is shorter, each JSON is longer
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            return compute(self_, prepared)

        def write_with_faults(volume: Volume, path: Path, *, compress: bool = True) -> None:
            write_image(volume, path, compress=compress)
            first = self.out.parent / "killed"
            if self.way == "write" and path.name.endswith(f"{self.case}.nii.gz") and not first.exists():
                first.touch()
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
                os.kill(os.getpid(), signal.SIGKILL)

        replace_each(segmenter.Segmenter, compute=compute_with_faults)
        replace_each(segmentation, write_image=write_with_faults)
        replace_each(segmenter, open_engine=open_threshold)
        replace_each(run, START="fork")
        replace_each(ray_engine, ACTOR=make_actor(self), LOST_SECONDS=LOST_SECONDS)


def make_actor(faults: Faults) -> type[Actor]:
    """An actor with these faults."""

    class FaultyActor(Actor):
        def __init__(self, *given: object) -> None:
            faults.install()
            super().__init__(*given)  # type: ignore[arg-type]

    return FaultyActor


class RayNodes:
    """A Ray cluster of two nodes of one CPU each on this machine, in a process of its own."""

    def __init__(self) -> None:
        self._line, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("fork").Process(target=self._serve, args=(theirs,))
        self._process.start()
        theirs.close()
        os.environ["RAY_ADDRESS"] = self._line.recv()
        self.raylet: int = self._line.recv()

    def replace(self) -> None:
        """Remove what is left of the second node, and add another."""
        self._line.send("replace")
        self.raylet = self._line.recv()

    def end(self) -> None:
        """End the cluster."""
        self._line.send("end")
        self._process.join()
        del os.environ["RAY_ADDRESS"]

    def _serve(self, line: Connection) -> None:
        self._line.close()
        os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_raylet_start_wait_time_s="300", RAY_worker_niceness="0")
        os.environ["RAY_worker_register_timeout_seconds"] = "300"
        from ray.cluster_utils import Cluster

        size = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
        line.send(cluster.address)
        node, said = cluster.add_node(**size), "replace"
        while said == "replace":
            line.send(node.all_processes["raylet"][0].process.pid)
            with contextlib.suppress(EOFError):
                said = ""
                said = line.recv()
            if said == "replace":
                cluster.remove_node(node, allow_graceful=False)
                node = cluster.add_node(**size)
        cluster.shutdown()


def replace_each(place: object, **values: object) -> None:
    """Give attributes of a module or class other values."""
    for name, value in values.items():
        setattr(place, name, value)


def open_threshold(model: Model, *_: object) -> Engine:
    return Engine(model.card, Threshold(len(model.card.task.labels) + 1))


def work(cases: Path, out: Path, faults: Faults) -> int:
    """One command, in this process. Returns its exit code."""
    faults.install()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # as the command line does
    options = CohortOptions(case_minutes=HANG_MINUTES if faults.way.endswith("hang") else 60)
    if faults.way in RAY_WAYS:
        options = replace(options, engine="ray", workers=ACTORS)
    segmenting = SegmentOptions(device="cpu", threads=1, keep_all_components=True, presence_check=False)
    try:
        result = run_cohort([cases], out, "tumour", options, segmenting)
    except BrainSegNetError as error:
        print(error, flush=True)
        return 1
    return int(result.status.failed > 0)


def start(command: Callable[[], int], log: Path) -> int:
    """Run a command in a process of its own; its number."""
    if child := os.fork():
        return child
    code = 70
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = command()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def finish(process: int) -> int:
    """Wait for a process. Returns its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def children_of(process: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def results_of(out: Path) -> dict[str, Path]:
    """Case to JSON, of the cases that are done."""
    return {path.stem: path for path in out.glob("*/*.json") if not path.name.startswith(".")}


def check_whole(out: Path) -> None:
    """Every file under a final name is whole, and a JSON has its label map."""
    for case, path in results_of(out).items():
        assert json.loads(path.read_text())["labels"] == f"{case}.nii.gz"
        assert path.with_name(f"{case}.nii.gz").exists(), case
    for path in out.glob("*/*.nii.gz"):
        if not path.name.startswith("."):
            gzip.decompress(path.read_bytes())
    for path in out.glob("*/errors/*.json"):
        json.loads(path.read_text())


def describe(out: Path) -> dict[str, Any]:
    """The ledger without what may differ, and the hash of each label map."""
    (ledger,) = out.glob("*/ledger.parquet")
    rows = {row["case"]: {k: v for k, v in row.items() if k not in VARYING} for row in read_parquet(ledger)}
    for path in out.glob("*/*.nii.gz"):
        voxels = gzip.decompress(path.read_bytes())
        rows[path.name.removesuffix(".nii.gz")]["labels_sha256"] = hashlib.sha256(voxels).hexdigest()
    return rows


def computed_in(folder: Path, begin: int = 0) -> Counter[str]:
    log = folder / LOG
    return Counter(log.read_text()[begin:].split()) if log.exists() else Counter()


def find_actor(process: int, out: Path) -> int:
    """The number of a process that has a claim, or of the first process, which has ended, if there is none."""
    while not has_ended(process):
        for path in out.glob("*/claims/*~*"):
            with contextlib.suppress(OSError, IndexError):
                return int(path.read_text().split("~")[1])
        time.sleep(0.01)
    return process


def has_ended(process: int) -> bool:
    """Whether a process of this one has ended, though it is not waited for yet."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].startswith("Z")


def kill_on_ray(way: str, process: int, out: Path, moment: float, raylet: int) -> None:
    """Kill a part of a Ray cluster at a moment (0 to 1): after so many cases are done, or in the next of them."""
    done, rest = divmod(moment * (CASES - ACTORS), 1)
    while not (out.parent / LOG).exists() and not has_ended(process):
        time.sleep(0.01)
    while len(results_of(out)) < done and not has_ended(process):
        time.sleep(0.01)
    time.sleep(rest * (RAY_PAUSE + PAUSE))
    victims = {"ray-actor": lambda: [find_actor(process, out)], "ray-raylet": lambda: [raylet]}
    for victim in victims.get(way, lambda: children_of(process))():
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)


def disturb(
    way: str, number: int, cases: Path, calm: tuple[dict[str, Any], float], folder: Path, raylet: int = 0
) -> dict[str, Any]:
    """One cohort that is disturbed once.

    Args:
        way: One of `WAYS`.
        number: Seed of the moment.
        cases: Folder of the cases.
        calm: Ledger and seconds of the undisturbed run.
        folder: Empty folder for this one.
        raylet: Number of the process of the second node of the Ray cluster.

    Returns:
        What was found.

    Raises:
        AssertionError: a promise is broken.
    """
    expected, seconds = calm
    draw = random.Random(f"{way} {number}")
    out, log = folder / "out", folder / "log.txt"
    chosen = draw.choice(sorted(expected))
    faults = Faults(out, "" if way in SIGNALS else chosen, way)
    process = start(lambda: work(cases, out, faults), log)
    done_before, size = set[str](), 0
    if way in RAY_WAYS and way not in FAILURES:
        kill_on_ray(way, process, out, draw.random(), raylet)
        done_before = {*results_of(out)}
        size = (folder / LOG).stat().st_size if (folder / LOG).exists() else 0
        check_whole(out)
    if way in SIGNALS:
        while not (out / "manifest.parquet").exists():
            time.sleep(0.01)
        time.sleep(draw.uniform(0, seconds))
        victims = children_of(process) if way == "worker" else [process]
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, SIGNALS[way])
        if way in ("stop", "end"):
            finish(process)
            assert not [*out.glob("*/claims/*")], [*out.glob("*/claims/*")]
        done_before = {*results_of(out)}
        size = (folder / LOG).stat().st_size if (folder / LOG).exists() else 0
        check_whole(out)
    code = 0 if way in ("stop", "end") else finish(process)
    check_whole(out)
    if way == "disk":
        assert code == 1, f"exit {code}: {log.read_text()[-2000:]}"
        done_before, size = {*results_of(out)}, (folder / LOG).stat().st_size if (folder / LOG).exists() else 0
    if way in ("run", "stop", "end", "disk"):
        code = finish(start(lambda: work(cases, out, Faults(out)), log))
    assert code == int(way in FAILURES), f"exit {code}: {log.read_text()[-2000:]}"
    check_whole(out)
    again = computed_in(folder, size)
    assert not done_before & {*again}, f"done, and computed again: {sorted(done_before & {*again})}"
    found = describe(out)
    if way in FAILURES:
        failed = {case: row["kind"] for case, row in found.items() if row["status"] == "failed"}
        assert chosen in failed and len(failed) <= (MOST_FAULTS if way.endswith("broken") else 1), failed
        assert {*failed.values()} == {FAILURES[way]}, failed
        found, expected = ({c: row for c, row in rows.items() if c not in failed} for rows in (found, expected))
    assert found == expected, {case: (found.get(case), row) for case, row in expected.items() if found.get(case) != row}
    deadline = time.monotonic() + 60
    while [*out.glob("*/claims/*")] and time.monotonic() < deadline:  # a process whose first process was killed ends
        time.sleep(0.1)
    left = [path.name for path in out.rglob("*") if path.name.startswith(MARK)]
    left += [path.name for path in out.glob("*/claims/*")]
    assert not left, left
    twice = sum(count - 1 for case, count in computed_in(folder).items() if case != chosen or way not in FAILURES)
    most = {"crash": 4, "ray-crash": 4, "ray-driver": 2 * ACTORS}.get(way, 2)  # one in the network, one being written
    assert twice <= most, computed_in(folder)
    return {"done before": len(done_before), "computed twice": twice}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ways", nargs="+", choices=WAYS + RAY_WAYS, default=WAYS + RAY_WAYS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/killed-cohorts.json"))
    given = parser.parse_args()
    known = json.loads(given.out.read_text())["ways"] if given.out.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = folder / "cases"
        simulate(cases, SimulateOptions(CASES, 0, SHAPE))
        (calm := folder / "calm").mkdir()
        process = start(lambda: work(cases, calm / "out", Faults(calm / "out")), calm / "log.txt")
        while not (calm / "out" / "manifest.parquet").exists():
            time.sleep(0.01)
        begun = time.monotonic()
        if code := finish(process):
            raise RuntimeError(f"exit {code}: {(calm / 'log.txt').read_text()[-2000:]}")
        seconds, expected = time.monotonic() - begun, describe(calm / "out")
        assert len(expected) == CASES and {row["status"] for row in expected.values()} == {"done"}
        nodes = RayNodes() if {*given.ways} & {*RAY_WAYS} else None
        try:
            for way in given.ways:
                found = known.setdefault(way, [])
                for number in range(len(found), given.kills):
                    place = folder / f"{way}{number}"
                    place.mkdir()
                    begun = time.monotonic()
                    found.append(disturb(way, number, cases, (expected, seconds), place, nodes.raylet if nodes else 0))
                    if nodes and way == "ray-raylet":
                        nodes.replace()
                    shutil.rmtree(place)
                    save(given.out, known)
                    print(way, number + 1, found[-1], f"{time.monotonic() - begun:.1f} s", flush=True)
        finally:
            if nodes:
                nodes.end()
    return 0


def save(out: Path, ways: dict[str, Any]) -> None:
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_cpu(),
        "versions": find_versions(),
        "cases": CASES,
        "engine": "a threshold in place of the network",
        "passed": {way: len(found) for way, found in ways.items()},
        "ways": ways,
    }
    with replacing(out) as temporary:
        write_text(json.dumps(facts, indent=1) + "\n", temporary)


if __name__ == "__main__":
    sys.exit(main())
