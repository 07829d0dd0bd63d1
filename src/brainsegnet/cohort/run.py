"""`cohort run`: processes on this machine that share the cases of a cohort, and are started again where one ends."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import brainsegnet.errors
from brainsegnet._machine import count_cores, free_memory
from brainsegnet.cohort import CohortOptions
from brainsegnet.cohort.claims import read_server_clock
from brainsegnet.cohort.ending import TERMINATED, end_process
from brainsegnet.cohort.ledger import write_ledger
from brainsegnet.cohort.manifest import prepare_manifest
from brainsegnet.cohort.places import open_places
from brainsegnet.cohort.ray_engine import work_on_ray
from brainsegnet.cohort.status import Status, count_cases
from brainsegnet.cohort.work import HUNG, Job, work
from brainsegnet.errors import BrainSegNetError, UsageError
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.segmenter import stays_on_cpu
from brainsegnet.model.store import resolve_model
from brainsegnet.pipeline.batch import Outcome
from brainsegnet.progress import Callback, ProgressEvent

START = "spawn"
"""How a process begins; forked ones would share the threads of libraries."""
LEAST_GB = 1.0
"""Memory for the network that no process is refused, however little is free."""
PATIENCE_SECONDS = 20.0
"""How long a process that is to end may take until it is killed."""


@dataclass(frozen=True)
class CohortResult:
    """What a run of a cohort did.

    Attributes:
        status: How far the cohort, or its part, is.
        done: Cases that this run segmented.
        seconds: How long it ran.
        changed: Sentences on results whose inputs have changed since.
        stopped: Whether it was asked to stop before the end.
        ended: Whether one of its processes was told to end (SIGTERM), so that cases may be left.
    """

    status: Status
    done: int
    seconds: float
    changed: Sequence[str] = ()
    stopped: bool = False
    ended: bool = False


def run_cohort(
    sources: Sequence[Path],
    out: Path,
    model: Path | str,
    options: CohortOptions | None = None,
    segmenting: SegmentOptions | None = None,
    rescan: bool = False,
    callback: Callback | None = None,
) -> CohortResult:
    """Segment the cases of a cohort, each once. The same call goes on where an earlier one stopped.

    Results go to `out/<first 8 digits of the SHA-256 of the model>/`. Other calls, also on other machines, may work in
    the same folder at the same time. The first Ctrl-C ends it after the current cases.

    Args:
        sources: Folders and tables, as in `prepare_manifest`; none if `out` has a manifest.
        out: Folder of the cohort.
        model: Name of a shipped model, model folder, or output folder of `train`.
        options: How the cohort is processed.
        segmenting: How to segment.
        rescan: Search `sources` again, and add the cases that are new.
        callback: Its `on_case` receives an `Outcome`.

    Raises:
        DatasetError: no case is found, or two have one name.
        ModelError: the model cannot be used.
        OutputError: a result cannot be written, or those that are there were made with other options.
        MissingExtra: pyarrow is not installed.
        BrainSegNetError: processes end one after another, without a case done.
    """
    options, segmenting = options or CohortOptions(), segmenting or SegmentOptions()
    if segmenting.brain_mask is not None:
        raise UsageError("--brain-mask is the mask of one case; leave it out for a cohort")
    opened = resolve_model(model)
    manifest = prepare_manifest(sources, out, rescan, callback)
    places = open_places(out, opened.card, segmenting, options.output_layout)
    clock = places.folder / f".clock~{os.getpid()}"
    started = read_server_clock(clock)
    clock.unlink(missing_ok=True)
    if options.engine == "processes" and options.workers > 1:
        segmenting = share_machine(segmenting, options.workers)
    begun = time.monotonic()
    crew = _Crew(Job(manifest, places, model, segmenting, options, started), callback)
    crew.run()
    status = count_cases(manifest, places, options.part)
    if options.part == (1, 1):
        write_ledger(manifest, places)
    return CohortResult(status, crew.done, time.monotonic() - begun, crew.changed, crew.stopping, crew.ended)


def share_machine(segmenting: SegmentOptions, workers: int) -> SegmentOptions:
    """The options of one of several processes: its share of the cores, and of half of the free memory for the network.

    What is given stays. The other half of the memory is for images and libraries. On a GPU, its own memory counts.
    """
    threads, most = segmenting.threads, segmenting.max_memory_gb
    if most is None and stays_on_cpu(segmenting.device) and (free := free_memory()) is not None:
        most = max(free / 2e9 / workers, LEAST_GB)
    return replace(segmenting, threads=threads or max(count_cores() // workers, 1), max_memory_gb=most)


@dataclass
class _Member:
    """A process at work, and what it last said of its progress."""

    process: BaseProcess
    line: Connection
    seen: int = 0
    ended: bool = False


@dataclass
class _Crew:
    """The processes of a run. Each says through a pipe what it does; if the pipe breaks, it stops."""

    job: Job
    callback: Callback | None
    done: int = 0
    settled: int = 0
    changed: list[str] = field(default_factory=list)
    stopping: bool = False
    ended: bool = False
    members: list[_Member] = field(default_factory=list)
    vain: int = 0
    """Processes that ended one after another without a case settled."""

    def run(self) -> None:
        self._begun = time.monotonic()
        with self._hearing_signals():
            try:
                for _ in range(self.job.options.workers if self.job.options.engine == "processes" else 1):
                    self._start()
                while self.members:
                    self._listen()
            finally:
                self._end_all()

    def _start(self) -> None:
        context: Any = multiprocessing.get_context(START)
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(self.job, theirs), name="cohort")
        self.members.append(_Member(process, ours))  # before it starts, so that a signal then reaches it
        process.start()
        theirs.close()
        if self.stopping:
            ours.send("stop")

    def _listen(self) -> None:
        lines = {member.line: member for member in self.members}
        ready = wait(lines, timeout=1.0)
        for line in ready:
            member = lines[line]  # type: ignore[index]
            try:
                self._hear(member, member.line.recv())
            except (EOFError, OSError):
                self._bury(member)

    def _hear(self, member: _Member, said: tuple[str, Any]) -> None:
        kind, content = said
        if kind == "seen":
            member.seen, cases = content
            self._tell_progress(cases)
        elif kind == "case":
            name, sentence, is_fault = content
            self.settled, self.done = self.settled + 1, self.done + (not sentence)
            self.vain = self.vain if is_fault else 0
            if self.callback:
                self.callback.on_case(name, Outcome(name, error=BrainSegNetError(sentence) if sentence else None))
        elif kind == "error":
            name, sentence = content
            raise getattr(brainsegnet.errors, name, BrainSegNetError)(sentence)
        elif kind == "tally":
            member.ended = True
            self.changed += [said for said in content.changed if said not in self.changed]

    def _bury(self, member: _Member) -> None:
        """A process is gone. If it did not end by itself, another takes its place."""
        member.process.join()
        member.line.close()
        self.members.remove(member)
        code = member.process.exitcode
        self.ended = self.ended or code == TERMINATED
        if member.ended or self.stopping or code == TERMINATED:
            return
        self.vain += code != HUNG
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        if self.vain > self.job.options.attempts + self.job.options.workers:
            raise BrainSegNetError(
                f"{self.vain} processes ended one after another without a case done, the last with {how}; look into "
                f"{self.job.places.folder / 'errors'} and whether there is enough memory, and run the cohort again"
            )
        if self.callback and code != HUNG:
            self.callback.on_message(f"a process ended with {how}; another takes its place")
        self._start()

    def _tell_progress(self, cases: int) -> None:
        seen, minutes = max(member.seen for member in self.members), (time.monotonic() - self._begun) / 60
        rate = self.settled / minutes if self.settled else None
        left = (cases - seen) / rate if rate else None
        event = ProgressEvent(
            seen / cases, minutes, left, done=seen, cases=cases, cases_per_hour=60 * rate if rate else None
        )
        if self.callback:
            self.callback.on_progress(event)

    @contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        """Within the block, the first Ctrl-C asks all processes to stop after their current case."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        for member in self.members:
            with suppress(OSError):
                member.line.send("stop")
        if self.callback:
            self.callback.on_message("stopping after the current case; press Ctrl-C again to stop at once")

    def _end_all(self) -> None:
        started = [member for member in self.members if member.process.pid is not None]
        for member in started:
            member.process.terminate()
        for member in started:
            member.process.join(PATIENCE_SECONDS)
            if member.process.is_alive():
                member.process.kill()
                member.process.join()
        self.members = []


class _Line(Callback):
    """Tells the first process of a run what this one does."""

    def __init__(self, line: Connection) -> None:
        self._line = line

    def say(self, kind: str, content: object) -> None:
        with suppress(OSError):
            self._line.send((kind, content))

    def on_progress(self, event: ProgressEvent) -> None:
        self.say("seen", (event.done, event.cases))

    def on_case(self, name: str, result: Outcome) -> None:
        self.say("case", (name, result.sentence if result.error else "", result.is_fault))


def serve(job: Job, line: Connection) -> None:
    """What a process of a run does. It ends after the current case if it is told to, or if the first process is gone.

    SIGTERM ends it at once, and its cases are given back.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_process)
    stop, teller = threading.Event(), _Line(line)

    def listen() -> None:
        with suppress(EOFError, OSError):
            line.recv()
        stop.set()

    threading.Thread(target=listen, name="listen", daemon=True).start()
    try:
        do = work_on_ray if job.options.engine == "ray" else work
        teller.say("tally", do(job, teller, stop.is_set))
    except BrainSegNetError as error:
        teller.say("error", (type(error).__name__, str(error)))
