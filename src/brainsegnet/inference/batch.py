"""Many cases: one is read and one written while another is computed, and a bad one does not stop the others."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from brainsegnet.errors import BrainSegNetError

Item = TypeVar("Item")
Datum = TypeVar("Datum")
Computed = TypeVar("Computed")
Result = TypeVar("Result")


@dataclass(frozen=True)
class BatchResult(Generic[Result]):
    """What became of the cases, in the order they were given.

    Attributes:
        results: Of the cases that went well.
        failures: Of the others, case to the sentence that says why.
        seconds: From the first reading to the last writing.
        computing: Seconds of these in which a case was computed.
    """

    results: Sequence[Result] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0
    computing: float = 0


def run_batch(
    items: Iterable[Item],
    read: Callable[[Item], Datum],
    start: Callable[[], Callable[[Item, Datum], Computed]],
    write: Callable[[Item, Computed], Result],
    name: Callable[[Item], str],
) -> BatchResult[Result]:
    """Read, compute and write each item; at most four are in memory.

    Args:
        items: What to work on, with names that differ.
        read: Runs in a thread, for the next item while this one is computed.
        start: Called once, while the first item is read; gives the function that computes, in the calling thread, on
            what was read.
        write: Runs in another thread, on what was computed, while the next one is.
        name: Of the case that an item is.

    Failures are the errors of the user's making, of the operating system and of too little memory; any other error,
    those of `start` and Ctrl-C end the whole.

    >>> run_batch("124", int, lambda: lambda item, n: 8 / n, lambda item, x: f"{item}: {x}", str).results
    ['1: 8.0', '2: 4.0', '4: 2.0']
    """
    results: list[Result] = []
    failures: dict[str, str] = {}
    compute: Callable[[Item, Datum], Computed] | None = None
    started, computing = time.perf_counter(), 0.0

    def settle(case: str, step: Callable[[], Result]) -> None:
        with _noted(case, failures):
            results.append(step())

    writing: tuple[str, Future[Result]] | None = None
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="write") as pool:
        for item, reading in _read_ahead(items, read):
            case, compute = name(item), compute or start()
            with _noted(case, failures):
                datum, begun = reading(), time.perf_counter()
                found = compute(item, datum)
                computing += time.perf_counter() - begun
                before, writing = writing, (case, pool.submit(write, item, found))
                if before is not None:
                    settle(before[0], before[1].result)
        if writing is not None:
            settle(writing[0], writing[1].result)
    return BatchResult(results, failures, time.perf_counter() - started, computing)


@contextmanager
def _noted(case: str, failures: dict[str, str]) -> Iterator[None]:
    """Turn the failures of a case into sentences."""
    try:
        yield
    except (BrainSegNetError, OSError, MemoryError) as error:
        failures[case] = describe_failure(case, error)


def describe_failure(case: str, error: Exception) -> str:
    """One sentence that names the case.

    >>> describe_failure("pat1", MemoryError())
    'case pat1: the memory does not suffice; cut the scan into slabs'
    >>> describe_failure("pat1", BrainSegNetError("case pat1: t1 is 0 everywhere"))
    'case pat1: t1 is 0 everywhere'
    """
    text = str(error)
    if isinstance(error, OSError):
        text = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
    text = text or "the memory does not suffice; cut the scan into slabs"
    return text if case in text else f"case {case}: {text}"


def _read_ahead(items: Iterable[Item], read: Callable[[Item], Datum]) -> Iterator[tuple[Item, Callable[[], Datum]]]:
    """Each item with a function that waits for its datum or raises what reading it raised; one item ahead."""
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read")
    waiting: tuple[Item, Future[Datum]] | None = None
    try:
        for item in items:
            ready, waiting = waiting, (item, pool.submit(read, item))
            if ready is not None:
                yield ready[0], ready[1].result
        if waiting is not None:
            yield waiting[0], waiting[1].result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
