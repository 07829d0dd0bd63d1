"""Many cases at a time: one is read and one is written while another is computed; one that fails stops no other."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from brainsegnet._machine import tells_of_memory
from brainsegnet.errors import BrainSegNetError
from brainsegnet.inference.predict import LoadedCase, PreparedCase, RawPrediction

T = TypeVar("T")
_EXPECTED = (BrainSegNetError, OSError, MemoryError)
"""Errors that say what is wrong with a case or the machine. Any other is a fault of the software."""


@dataclass(frozen=True)
class SavedCase:
    """One segmented case on disk.

    Attributes:
        name: Name of the case.
        path: File of its label map.
        report: Content of the JSON beside the label map.
        seconds: Seconds from the start of its reading to the end of its writing.
    """

    name: str
    path: Path
    report: Mapping[str, Any]
    seconds: float = 0

    @property
    def is_empty(self) -> bool:
        """Whether no lesion was found."""
        return not any(self.report["volumes_ml"]["labels"].values())


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        name: Name of the case.
        saved: Its result on disk; None if it failed.
        error: Why it failed, or None.
        computing: Seconds in which it was computed.
    """

    name: str
    saved: SavedCase | None = None
    error: Exception | None = None
    computing: float = 0.0

    @property
    def is_fault(self) -> bool:
        """Whether the case failed by a fault of the software, and not by its files, the machine or lack of memory."""
        return self.error is not None and not isinstance(self.error, _EXPECTED) and not tells_of_memory(self.error)

    @property
    def sentence(self) -> str:
        """Why the case failed, as one sentence that names it."""
        error, text = self.error, str(self.error or "")
        if isinstance(error, OSError):
            text = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
        elif not isinstance(error, _EXPECTED) and error and tells_of_memory(error):
            text = ""
        elif self.is_fault:
            text = f"unexpected {type(error).__name__}{f': {text}' if text else ''}; please report it"
        text = text or "there is not enough memory; cut the scan into slabs"
        return text if self.name in text else f"case {self.name}: {text}"


@dataclass(frozen=True)
class BatchResult:
    """What `segment` did: the cases that succeeded, in their order, and those that failed.

    Attributes:
        done: The cases that succeeded.
        failures: Name of each case that failed, to a sentence that says why.
        left_out: A sentence on each folder whose images are not recognised by their names.
        skipped: The cases that were done already, with `skip_existing`.
        seconds: Seconds from the start of the first reading to the end of the last writing.
        computing: Seconds of these in which a case was prepared or in the network.
    """

    done: Sequence[SavedCase] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    seconds: float = 0
    computing: float = 0
    skipped: Sequence[SavedCase] = ()


def run_batch(
    items: Iterable[T],
    read: Callable[[T], LoadedCase | PreparedCase],
    compute: Callable[[LoadedCase | PreparedCase], RawPrediction],
    write: Callable[[RawPrediction], SavedCase],
    name: Callable[[T], str] = str,
    start: Callable[[], object] = lambda: None,
    advance: Callable[[], object] = lambda: None,
) -> BatchResult:
    """Process each item as `run_steps` does, and keep what became of it. A fault of the software ends the work.

    Args:
        items: Cases to process.
        read: Reads an item.
        compute: Runs the network.
        write: Writes a result.
        name: Gives the case name of an item; names must differ.
        start: Called once, while the first item is read; for example to load a model.
        advance: Called after each item that is written or has failed.
    """
    done: list[SavedCase] = []
    failures: dict[str, str] = {}
    beginning, computing = time.perf_counter(), 0.0

    for outcome in run_steps(items, read, compute, write, name, start):
        if outcome.error and outcome.is_fault:
            raise outcome.error
        computing += outcome.computing
        if outcome.saved:
            done.append(outcome.saved)
        else:
            failures[outcome.name] = outcome.sentence
        advance()
    return BatchResult(done, failures, (), time.perf_counter() - beginning, computing)


def run_steps(
    items: Iterable[T],
    read: Callable[[T], LoadedCase | PreparedCase],
    compute: Callable[[LoadedCase | PreparedCase], RawPrediction],
    write: Callable[[RawPrediction], SavedCase],
    name: Callable[[T], str] = str,
    start: Callable[[], object] = lambda: None,
) -> Iterator[Outcome]:
    """Read, compute and write each item in a pipeline, with at most four items in memory.

    `compute` runs in the calling thread. Meanwhile `read` runs in another thread for the next item, and `write` in a
    third for the previous one. An item is taken from `items` when its reading begins. An error becomes the failure of
    its item. An error in `items` or `start` and Ctrl-C end the work. Arguments are those of `run_batch`.

    Yields:
        What became of each item, in no fixed order.
    """
    last_write: tuple[str, Future[SavedCase], float] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="write") as writer:
        for number, (item, reading) in enumerate(_read_ahead(items, read)):
            if number == 0:
                start()
            case = name(item)
            try:
                loaded, before = reading.result(), time.perf_counter()
                computed = compute(loaded)
            except Exception as error:
                yield Outcome(case, error=error)
                continue
            computing = time.perf_counter() - before
            former, last_write = last_write, (case, writer.submit(write, computed), computing)
            if former is not None:
                yield _await(*former)
        if last_write is not None:
            yield _await(*last_write)


def _await(case: str, writing: Future[SavedCase], computing: float) -> Outcome:
    try:
        return Outcome(case, writing.result(), computing=computing)
    except Exception as error:
        return Outcome(case, error=error, computing=computing)


def _read_ahead(
    items: Iterable[T], read: Callable[[T], LoadedCase | PreparedCase]
) -> Iterator[tuple[T, Future[LoadedCase | PreparedCase]]]:
    """Each item with the future of its loaded form; the next item is being read already."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="read")
    readings = ((item, pool.submit(read, item)) for item in items)
    try:
        ahead = next(readings, None)
        while ahead is not None:
            current, ahead = ahead, next(readings, None)
            yield current
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
