"""One process of a cohort: it segments the cases that no other has, and marks each as done or failed."""

import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from brainsegnet._atomic import OutputOptions, write_text
from brainsegnet._machine import describe_cpu, find_host, list_units
from brainsegnet.cohort import CohortOptions
from brainsegnet.cohort.claims import BEAT_SECONDS, Claim, Claims, refresh
from brainsegnet.cohort.manifest import Entry, read_manifest
from brainsegnet.cohort.places import Places, sweep_after
from brainsegnet.errors import BrainSegNetError, OutputError
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.segmenter import Segmenter
from brainsegnet.io.layouts import read_note
from brainsegnet.model.card import Card
from brainsegnet.model.store import resolve_model
from brainsegnet.pipeline.batch import Outcome
from brainsegnet.pipeline.existing import find_done, is_complete
from brainsegnet.pipeline.segment import Pending, Stage, segment_each
from brainsegnet.progress import Callback, CaseCounter

LOOK_SECONDS = 2.0
"""Time between two looks whether the cases of other processes are done."""
HUNG = 75
"""Exit code of a process that ends itself because a case took too long, which is noted (EX_TEMPFAIL)."""
ENDED = "ProcessEnded"
"""Kind of the failure of a case on which processes ended."""
MOST_FAULTS = 3
"""So many faults of the software with no case done between them end a process."""


@dataclass(frozen=True)
class Job:
    """What a process is to do. It can be sent to another process.

    Attributes:
        manifest: The list of cases.
        places: Where results go.
        model: Name or folder of the model.
        segmenting: How to segment.
        options: How the cohort is processed.
        started: When the run began, by the clock of the file server. Later failures are not tried again.
    """

    manifest: Path
    places: Places
    model: Path | str
    segmenting: SegmentOptions = field(default_factory=SegmentOptions)
    options: CohortOptions = field(default_factory=CohortOptions)
    started: float = 0.0


@dataclass
class Tally:
    """What a process did.

    Attributes:
        done: Cases that it segmented.
        failed: Cases that failed under it.
        changed: Sentences on results whose inputs have changed since.
    """

    done: int = 0
    failed: int = 0
    changed: list[str] = field(default_factory=list)


class _Left(BrainSegNetError):
    """The case is left to another process."""


class Broken(Exception):
    """Faults of the software came one after another, so the state of this process may be broken."""


def work(job: Job, callback: Callback | None = None, stops: Callable[[], bool] = lambda: False) -> Tally:
    """Process the cases of a cohort that no other process has, until none is left.

    Cases that another process works on are waited for, and taken over if it dies.

    Args:
        job: What is to be done.
        callback: Its `on_case` receives the `Outcome` of each case, its `on_progress` how many are settled, by this
            process or another.
        stops: Whether to stop once the current case is done.

    Raises:
        ModelError: the model cannot be used.
        OutputError: a result cannot be written, for example because the disk is full.
        Broken: faults of the software came one after another.
    """
    with Segmenter(resolve_model(job.model), job.segmenting) as segmenter:
        worker = Worker(job, segmenter, callback, stops)
        with worker.claims:
            worker.run()
    return worker.tally


class Worker:
    """Claims cases, segments them, and marks each as done or failed, within a block `with worker.claims`.

    Arguments are those of `work`; the model is open, or is opened for the first case.

    Attributes:
        claims: The claims of this process.
        tally: What it did.
        later: Cases that others work on, or on which a process ended.
        faults: How many cases failed by faults of the software since one was done.
    """

    def __init__(self, job: Job, segmenter: Segmenter, callback: Callback | None, stops: Callable[[], bool]) -> None:
        self.job, self.tally = job, Tally()
        self.later: list[Entry] = []
        beat_seconds = min(BEAT_SECONDS, 15 * job.options.case_minutes)
        self.claims = Claims(job.places.claims, self.watch, beat_seconds)
        self._segmenter, self._callback, self._stops = segmenter, callback, stops
        self._counter = CaseCounter(None, 0)
        self._held: dict[str, tuple[Entry, Claim, float]] = {}
        self.faults = 0
        self._record = {"host": find_host(), "processor": describe_cpu(), "units": list_units()}
        self._record["system"] = platform.platform(terse=True)

    def run(self) -> None:
        """Two rounds: what nobody has tried; then, one at a time, cases on which a process ended, and those of others.

        A case that ends its process takes no other with it then.
        """
        manifest, part = self.job.manifest, self.job.options.part
        self._counter = CaseCounter(self._callback, sum(1 for _ in read_manifest(manifest, part)))
        self.process(read_manifest(manifest, part))
        while self.later and not self._stops():
            later, self.later = self.later, []
            for entry in later:
                self.process([entry], alone=True)
            if self.later:
                time.sleep(LOOK_SECONDS)
        sweep(self.job, self.claims)

    def process(self, entries: Iterable[Entry], alone: bool = False) -> None:
        """Segment those of the cases that are to be done. The others are left, or come into `later`.

        Args:
            entries: The cases.
            alone: Also take cases on which a process ended. There must be one case only.
        """
        for outcome in segment_each(self._take_each(entries, alone), self._segmenter, self._describe):
            entry, *_ = self._held[outcome.name]
            if outcome.error and not self.claims.holds(outcome.name):  # it slept so long that another took over
                self.claims.forget(outcome.name)
                self.later.append(entry)
            elif isinstance(outcome.error, _Left):
                self.claims.give_back(outcome.name)
            else:
                self._settle(entry, outcome)
                self.claims.release(outcome.name)
            del self._held[outcome.name]

    def watch(self, claims: list[Claim]) -> None:
        """End this process if a case takes too long: nothing else ends a library that hangs."""
        limit = 60 * self.job.options.case_minutes
        for claim in claims:
            held, since = self._held.get(claim.case), claim.since
            if held is None or since is None or time.monotonic() - since < limit:
                continue
            entry = held[0]
            sentence = f"case {entry.case}: it took longer than {self.job.options.case_minutes:g} minutes"
            code = 1
            with suppress(OutputError):
                if self.claims.holds(entry.case):
                    self._write_error(entry, "TimedOut", f"{sentence}; look at its images, or raise --case-minutes")
                code = HUNG
            self.claims.give_all_back()
            print(f"brainsegnet: {sentence}; this process ends", file=sys.stderr, flush=True)
            os._exit(code)

    def _settle(self, entry: Entry, outcome: Outcome) -> None:
        if isinstance(outcome.error, OutputError):
            raise outcome.error
        if outcome.error is None:
            self.job.places.error_of(entry).unlink(missing_ok=True)
            self.tally.done += 1
            self.faults = 0
            self._counter.advance()
            self._tell(outcome)
        else:
            self._fail(entry, type(outcome.error).__name__, outcome)
            self.faults += outcome.is_fault
            if self.faults == MOST_FAULTS:
                raise Broken(f"{MOST_FAULTS} faults with no case done between them") from outcome.error

    def _fail(self, entry: Entry, kind: str, outcome: Outcome) -> None:
        told = "".join(traceback.format_exception(outcome.error)) if outcome.is_fault else ""
        self._write_error(entry, kind, outcome.sentence, told)
        self.tally.failed += 1
        self._counter.advance()
        self._tell(outcome)

    def _give_up(self, entry: Entry, claim: Claim) -> None:
        self._held[entry.case] = (entry, claim, time.perf_counter())
        ended = f"case {entry.case}: {claim.attempt - 1} processes ended while they worked on it"
        error = BrainSegNetError(f"{ended}; look at its images, or whether there is enough memory")
        self._fail(entry, ENDED, Outcome(entry.case, error=error))
        self.claims.release(entry.case)
        del self._held[entry.case]

    def _tell(self, outcome: Outcome) -> None:
        if self._callback:
            self._callback.on_case(outcome.name, outcome)

    def _take_each(self, entries: Iterable[Entry], alone: bool = False) -> Iterator[Pending]:
        """Claim those of the cases that are to be done, one at a time, as the network comes to them.

        A case that others work on, or on which a process ended, comes later, unless it is alone.
        """
        for entry in entries:
            if self._stops():
                return
            if self._is_settled(entry):
                continue
            claim = self.claims.take(entry.case)
            refresh(self.job.places.home_of(entry.number))
            if claim is None:
                self.later.append(entry)
            elif self._is_settled(entry):  # by the process that had the claim a moment ago
                self.claims.release(entry.case)
            elif claim.attempt > self.job.options.attempts:
                self._give_up(entry, claim)
            elif claim.attempt > 1 and not alone:
                self.claims.give_back(entry.case)
                self.later.append(entry)
            else:
                sweep_after(self.job.places.home_of(entry.number), claim.former)
                yield self._pend(entry, claim)

    def _is_settled(self, entry: Entry) -> bool:
        """Whether a case is done, or has failed and is not to be tried again."""
        places, options = self.job.places, self.job.options
        failed = places.find_failure(entry)
        if failed is not None and (failed >= self.job.started or options.retry != "failed"):
            self._counter.advance()
            return True
        if places.json_of(entry).exists():
            try:
                verify = options.verify or failed is not None
                if not is_done(entry, places, self._segmenter.model.card, self.job.segmenting, verify):
                    return False
                places.error_of(entry).unlink(missing_ok=True)  # it failed since, but its inputs are as before again
            except OutputError as changed:
                if options.overwrite:
                    return False
                self.tally.changed.append(str(changed))
            self._counter.advance()
            return True
        return False

    def _pend(self, entry: Entry, claim: Claim) -> Pending:
        self._held[entry.case] = (entry, claim, time.perf_counter())
        target = self.job.places.target_of(entry)
        return Pending(entry.case, target, entry.open, partial(self._enter, entry.case))

    def _enter(self, case: str, stage: Stage) -> None:
        """The time of a stage is limited, that of waiting for it is not. A case may be left before two stages."""
        self.claims.begin(case, waits=stage == "wait")
        if (stage == "network" and self._stops()) or (stage == "write" and not self.claims.holds(case)):
            raise _Left("left to another process")

    def _describe(self, case: str) -> Mapping[str, Any]:
        entry, claim, _ = self._held[case]
        return {"cohort": {**self._record, "number": entry.number, "attempt": claim.attempt}}

    def _write_error(self, entry: Entry, kind: str, sentence: str, told: str = "") -> None:
        _, claim, begun = self._held.get(entry.case, (entry, None, time.perf_counter()))
        known = {
            "case": entry.case,
            "kind": kind,
            "error": sentence,
            **({"traceback": told} if told else {}),
            "seconds": None if kind == ENDED else round(time.perf_counter() - begun, 4),
            "cohort": {**self._record, "number": entry.number, "attempt": claim.attempt if claim else 0},
        }
        write_text(json.dumps(known, indent=2) + "\n", self.job.places.error_of(entry))


def sweep(job: Job, claims: Claims) -> None:
    """Remove the claims of processes that died when a case was done, but its claim was still there."""
    stale, places = claims.list_stale(), job.places
    for entry in read_manifest(job.manifest) if stale else ():
        if entry.case in stale and (places.json_of(entry).exists() or places.error_of(entry).exists()):
            for claim in stale[entry.case]:
                claim.unlink(missing_ok=True)


def is_done(entry: Entry, places: Places, card: Card, options: SegmentOptions, verify: bool) -> bool:
    """Whether a case with a JSON is done, by the rule of `segment --skip-existing`.

    A raw study is looked through again with `verify` alone; else its JSON and its files are enough.

    Args:
        entry: The case.
        places: Where its result is.
        card: Card of the model.
        options: How to segment.
        verify: Compare the content of files.

    Raises:
        OutputError: its inputs have changed since.
    """
    target = places.target_of(entry)
    if entry.path and not verify:
        return is_complete(read_note(places.json_of(entry)), target)
    try:
        case = entry.open()
    except BrainSegNetError as error:
        raise OutputError(f"{target} is there already, and its images are not: {error}") from error
    existing = OutputOptions(skip_existing=True, verify=verify)
    return bool(find_done([case], {case.name: target}, card, options, existing))
