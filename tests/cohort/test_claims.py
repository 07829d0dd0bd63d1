import os
import subprocess
import sys
import threading
import time

import pytest

from brainsegnet._machine import find_host
from brainsegnet.cohort.claims import Claims


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "claims"


def dead_process():
    """Number of a process of this host that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def leave(folder, case, number, owner, age_seconds=0.0):
    """A claim as a process left it that touched it so long ago."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{case}~{number}"
    path.write_text(f'"{owner}"')
    os.utime(path, (time.time() - age_seconds,) * 2)
    return path


def test_a_case_is_taken_by_one_process_alone(folder):
    with Claims(folder) as first, Claims(folder) as second:
        assert first.take("a").attempt == 1
        assert second.take("a") is None
        assert second.take("b").attempt == 1
        first.release("a")
        assert second.take("a").attempt == 1
    assert list(folder.iterdir()) == []


def test_of_many_that_try_at_once_one_wins(folder):
    leave(folder, "a", 1, f"{find_host()}~{dead_process()}~0")
    crew, taken = [Claims(folder).__enter__() for _ in range(8)], []
    barrier = threading.Barrier(8)

    def try_it(claims):
        barrier.wait()
        taken.append(claims.take("a"))

    threads = [threading.Thread(target=try_it, args=(claims,)) for claims in crew]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(claim is not None for claim in taken) == 1
    for claims in crew:
        claims.__exit__()


def test_the_claim_of_a_dead_process_of_this_host_is_taken_over_and_counted(folder):
    pid = dead_process()
    leave(folder, "a", 1, f"{find_host()}~{pid}~0")
    with Claims(folder) as claims:
        claim = claims.take("a")
        assert (claim.attempt, claim.former.split("~")[:2]) == (2, [find_host(), str(pid)])
        claims.release("a")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("age_seconds", "taken"), [(30, False), (90, True)])
def test_the_claim_of_another_host_is_stale_after_a_minute(folder, age_seconds, taken):
    leave(folder, "a", 1, "elsewhere~1~0", age_seconds)
    with Claims(folder) as claims:
        assert (claims.take("a") is not None) == taken


def test_the_clock_is_that_of_the_files(folder, monkeypatch):
    leave(folder, "a", 1, "elsewhere~1~0", age_seconds=30)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    with Claims(folder) as claims:
        assert claims.take("a") is None


def test_a_claim_is_touched_while_it_is_held(folder):
    with Claims(folder, beat_seconds=0.02) as claims:
        claims.take("a")
        path = folder / "a~1"
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 20
        while path.stat().st_mtime < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1


def test_a_process_that_slept_knows_that_another_took_over(folder):
    with Claims(folder, beat_seconds=1000) as slept, Claims(folder, stale_seconds=5) as other:
        slept.take("a")
        (folder / "a~1").write_text('"elsewhere~1~0"')
        assert not slept.holds("a")
        leave(folder, "b", 1, "elsewhere~1~0", age_seconds=90)
        claim = other.take("b")
        assert other.holds("b")
        leave(folder, "b", claim.attempt + 1, "elsewhere~2~0")
        assert not other.holds("b")


def test_what_is_given_back_still_tells_how_many_processes_ended_on_it(folder):
    leave(folder, "a", 1, f"{find_host()}~{dead_process()}~0")
    with Claims(folder) as claims:
        assert claims.take("a").attempt == 2
        claims.give_back("a")
        assert claims.take("a").attempt == 2


def test_the_watch_hears_since_when_a_case_is_at_work(folder):
    heard, rang = [], threading.Event()

    def watch(claims):
        heard.extend((claim.case, claim.since) for claim in claims)
        if dict(heard).get("works") is not None:
            rang.set()

    with Claims(folder, watch, beat_seconds=0.02) as claims:
        claims.take("waits")
        claims.take("works")
        claims.begin("works")
        assert rang.wait(300)
    known = dict(heard)
    assert known["waits"] is None
    assert known["works"] <= time.monotonic()


STRUCK = """
import os, signal, sys
from pathlib import Path
from brainsegnet.cohort import claims, ending
signal.signal(signal.SIGTERM, ending.end_process)
folder, struck = Path(sys.argv[1]), sys.argv[2]

def strike(module, name, start, after):
    act = getattr(module, name)

    def act_and_signal(path, *arguments, **named):
        result = act(path, *arguments, **named) if after else None
        if Path(path).name.startswith(start):
            os.kill(os.getpid(), signal.SIGTERM)
            sum(range(1000))  # the handler runs between two instructions
        return result if after else act(path, *arguments, **named)

    setattr(module, name, act_and_signal)

if struck == "begin":
    strike(os, "utime", ".clock", after=True)
with claims.Claims(folder) as held:
    if struck == "take":
        strike(os, "open", "a~", after=True)
    held.take("a")
    if struck != "take":
        strike(Path, "unlink", "a~", after=False)
        getattr(held, struck)(*["a"][: struck != "close"])
    print("went on")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
@pytest.mark.parametrize("struck", ["begin", "take", "release", "give_back", "close"])
def test_a_process_that_is_told_to_end_amid_a_step_leaves_nothing(folder, struck):
    done = subprocess.run([sys.executable, "-c", STRUCK, folder, struck], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
    assert list(folder.iterdir()) == []


def test_a_claim_cannot_be_taken_once_they_are_closed(folder):
    with Claims(folder) as claims:
        pass
    folder.mkdir(exist_ok=True)
    assert claims.take("a") is None
    assert not [*folder.glob("a~*")]
