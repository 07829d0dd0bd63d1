"""Kill verbs at random moments, run them again, and look at what is on disk: python benchmarks/kill.py --out RESULTS.

Each verb works on tiny simulated cases, in a process of its own that has loaded all libraries, so that the moments fall
into its work. After a kill, every file under a final name must be whole. After the next run, which must succeed and
give what an undisturbed run gives, nothing of the dead process may be left. Linux only.
"""

import argparse
import contextlib
import functools
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
for library in ("torch", "openvino", "SimpleITK", "nibabel", "matplotlib.pyplot", "lightning.fabric", "onnx", "nncf"):
    with contextlib.suppress(ImportError):
        __import__(library)

from brainsegnet._atomic import IMAGES  # noqa: E402
from brainsegnet._machine import describe_cpu  # noqa: E402
from brainsegnet.cli import main as run_verb  # noqa: E402
from brainsegnet.io.images import read_image  # noqa: E402
from brainsegnet.model.store import BEST, LAST, open_model  # noqa: E402
from brainsegnet.simulation.simulate import SimulateOptions, simulate  # noqa: E402
from brainsegnet.training import loop, recipes  # noqa: E402
from brainsegnet.training.checkpoint import steps_and_minutes  # noqa: E402
from brainsegnet.training.log import read_log  # noqa: E402

SHAPE = (24, 40, 40)
STEPS, PARTS = 40, 5
"""Steps of a training; files of a simulated case."""
MARK = ".brainsegnet~"
CPU = ("--device", "cpu", "--threads", 1)
TASK = ("--task", "brats2015")


@dataclass(frozen=True)
class Verb:
    """A verb to kill.

    Attributes:
        command: Arguments, given what it writes to.
        check: Raises where a file under a final name in there is not whole.
        prepare: Makes what it needs in there.
        again: Arguments of the next run, if they differ.
        same: Whether two runs write the same bytes.
    """

    command: Callable[[Path], tuple[object, ...]]
    check: Callable[[Path], None]
    prepare: Callable[[Path], object] = lambda out: None
    again: Callable[[Path], tuple[object, ...]] | None = None
    same: bool = True


def in_child(work: Callable[[], object], log: Path) -> int:
    """Start some work in a process of its own, which writes to a log; its number."""
    if child := os.fork():
        return child
    os.setsid()
    code = 70
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        work()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def call(work: Callable[[], object], log: Path) -> None:
    """As `in_child`, to its end.

    Raises:
        RuntimeError: it failed.
    """
    _, status = os.waitpid(in_child(work, log), 0)
    if status:
        raise RuntimeError(f"exit {os.waitstatus_to_exitcode(status)}: {log.read_text()[-2000:]}")


def verb_of(arguments: tuple[object, ...]) -> Callable[[], None]:
    def work() -> None:
        sys.argv = ["brainsegnet", *map(str, arguments)]
        quick = recipes.QUICK.fit_to(1)
        tiny = quick.model_copy(update={"widths": (4, 4, 8, 8), "refined": 8, "patch": (4, 32, 32)})
        recipes.RECIPES["quick"] = tiny  # type: ignore[index]
        often = functools.partial(loop.Monitoring, first_state=0.005, state_minutes=0.01)
        loop.Monitoring = often  # type: ignore[assignment]
        run_verb()

    return work


def files_of(out: Path) -> list[Path]:
    """Files under final names."""
    return sorted(path for path in out.rglob("*") if path.is_file() and MARK not in str(path.relative_to(out)))


def left_in(out: Path) -> list[Path]:
    return sorted(path for path in out.rglob(f"{MARK}*"))


def check_segmented(out: Path) -> None:
    for path in files_of(out):
        if path.suffix == ".json":
            note = json.loads(path.read_text())
            for name in (note["labels"], *note["probabilities"].values()):
                read_image(path.with_name(name))
        else:
            read_image(path)


def check_trained(out: Path) -> None:
    if (out / "state.safetensors").is_file():
        steps_and_minutes(out / "state.safetensors")
    elif any((out / name).is_dir() and files_of(out / name) for name in (BEST, LAST)):
        raise ValueError("a model without a state to go on from")
    for name in (BEST, LAST):
        if (out / name / "card.json").is_file():
            open_model(out / name).build()
    read_log(out / "log.csv")


def check_exported(out: Path) -> None:
    model = open_model(out)
    model.build()
    for form in model.card.exports:
        model.exported(form)


def check_simulated(out: Path) -> None:
    for case in sorted(out.iterdir()) if out.is_dir() else ():
        images = [path for path in files_of(case) if path.name.endswith(IMAGES)]
        if not case.name.startswith(".") and len(images) != PARTS:
            raise ValueError(f"{case} has {len(images)} files")
        for path in images:
            read_image(path)


def check_page(out: Path) -> None:
    for path in files_of(out):
        if not path.read_text().rstrip().endswith("</html>"):
            raise ValueError(f"{path} is not whole")


def digest(out: Path, verb: Verb) -> Any:  # noqa: ANN401
    """What must be the same after any two runs that end well."""
    names = [str(path.relative_to(out)) for path in files_of(out) if "tfevents" not in path.name]
    if not verb.same:
        return names
    images = [path for path in files_of(out) if path.name.endswith((*IMAGES, "weights.safetensors"))]
    return names, [hashlib.sha256(path.read_bytes()).hexdigest() for path in images]


def begin(home: Path) -> Mapping[str, Verb]:
    """Cases, a model and predictions, and the verbs that use them."""
    data, run, found = home / "data", home / "run", home / "found"
    call(lambda: simulate(data, SimulateOptions(3, 0, SHAPE)), home / "log")
    simulated = ("--cases", 4, "--shape", *SHAPE)
    segment = ("segment", data, "--model", run, "--probabilities", *CPU)
    train = ("train", data, *TASK, "--steps", STEPS, "--hold-out", "phantom0002")
    call(verb_of((*train, "--out", run)), home / "log")
    call(verb_of(("segment", data, "--model", run, "--out", found, *CPU)), home / "log")

    def go_on(out: Path) -> tuple[object, ...]:
        return (*train, "--out", out, *(["--resume"] if (out / "state.safetensors").is_file() else []))

    return {
        "segment": Verb(
            lambda out: (*segment, "--out", out, "--overwrite"),
            check_segmented,
            again=lambda out: (*segment, "--out", out, "--skip-existing"),
        ),
        "train": Verb(lambda out: (*train, "--out", out), check_trained, again=go_on),
        "export": Verb(
            lambda out: ("export", out),
            check_exported,
            lambda out: shutil.copytree(run / BEST, out, dirs_exist_ok=True),
        ),
        "simulate": Verb(
            lambda out: ("simulate", out, *simulated, "--overwrite"),
            check_simulated,
            again=lambda out: ("simulate", out, *simulated, "--skip-existing"),
        ),
        "report": Verb(
            lambda out: ("report", found, data, *TASK, "--out", out / "page.html", "--overwrite"),
            check_page,
            same=False,
        ),
    }


def kill_once(verb: Verb, out: Path, seconds: float, expected: Any, log: Path) -> dict[str, bool]:  # noqa: ANN401
    """One kill, the look at the disk, and the run after it: which laws held."""
    held = {"killed at work": False, "whole": True, "left something": False, "ran again": True, "left nothing": True}
    child = in_child(verb_of(verb.command(out)), log)
    time.sleep(seconds)
    held["killed at work"] = os.waitpid(child, os.WNOHANG)[0] == 0
    if held["killed at work"]:
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:  # it has not opened its group yet
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    held["left something"] = bool(left_in(out))
    try:
        call(lambda: verb.check(out), log)
    except RuntimeError as error:
        print(f"  not whole after {seconds:.2f} s: {error}", flush=True)
        held["whole"] = False
    try:
        done = not held["killed at work"]
        if not (done and verb.again):
            call(verb_of((verb.again or verb.command)(out)), log)
        call(lambda: verb.check(out), log)
        held["ran again"] = digest(out, verb) == expected
        if not held["ran again"]:
            print(f"  another result after {seconds:.2f} s", flush=True)
    except RuntimeError as error:
        print(f"  did not run again after {seconds:.2f} s: {error}", flush=True)
        held["ran again"] = False
    if left := left_in(out):
        print(f"  left after {seconds:.2f} s: {left}", flush=True)
        held["left nothing"] = False
    return held


def kill_often(name: str, verb: Verb, kills: int, home: Path, rng: random.Random) -> dict[str, Any]:
    """Counts over many kills; half of them where an earlier run has ended well, unless the verb refuses that."""
    whole = home / name / "whole"
    verb.prepare(whole)
    began = time.monotonic()
    call(verb_of(verb.command(whole)), home / "log")
    seconds, expected = time.monotonic() - began, digest(whole, verb)
    counts: dict[str, int] = {}
    for number in range(kills):
        out = home / name / str(number)
        verb.prepare(out)
        if number % 2 and name != "train":
            shutil.copytree(whole, out, dirs_exist_ok=True)
        for law, held in kill_once(verb, out, rng.uniform(0, seconds), expected, home / "log").items():
            counts[law] = counts.get(law, 0) + held
        shutil.rmtree(out, ignore_errors=True)
    print(f"{name}: {kills} kills within {seconds:.1f} s: {counts}", flush=True)
    return {"kills": kills, "seconds": round(seconds, 1), **counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="*", default=["segment", "train", "export", "simulate", "report"])
    parser.add_argument("--out", type=Path, help="JSON to write")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home, rng = Path(folder), random.Random(chosen.seed)
        verbs = begin(home)
        found = {name: kill_often(name, verbs[name], chosen.kills, home, rng) for name in chosen.verbs}
    if chosen.out:
        about = {"processor": describe_cpu(), "date": time.strftime("%Y-%m-%d"), "seed": chosen.seed}
        chosen.out.write_text(json.dumps({**about, "verbs": found}, indent=1) + "\n")
    laws = ("whole", "ran again", "left nothing")
    sys.exit(any(counts[law] < counts["kills"] for counts in found.values() for law in laws))


if __name__ == "__main__":
    main()
