"""Many cases, one after the other: the next is read while one is computed, and a bad one does not stop the others."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from brainsegnet.errors import BrainSegNetError

Item = TypeVar("Item")
Datum = TypeVar("Datum")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Cohort(Generic[Result]):
    """What became of the cases, in the order they were given.

    Attributes:
        results: Of the cases that went well.
        failures: Of the others, case to the sentence that says why.
    """

    results: Sequence[Result] = ()
    failures: Mapping[str, str] = field(default_factory=dict)


def run_cohort(
    items: Iterable[Item],
    read: Callable[[Item], Datum],
    compute: Callable[[Item, Datum], Result],
    name: Callable[[Item], str],
    report: Callable[[str, str | None], None] | None = None,
) -> Cohort[Result]:
    """Read and compute each item; at most two are in memory.

    Args:
        items: What to work on, with names that differ.
        read: Runs in a thread, for the next item while this one is computed.
        compute: Runs in the calling thread, on what was read.
        name: Of the case that an item is.
        report: Called after each case with its name, and the sentence if it failed.

    Failures are the errors of the user's making, of the operating system and of too little memory; any other error, and
    Ctrl-C, ends the whole.

    >>> run_cohort("124", int, lambda item, n: 8 / n, lambda item: f"case {item}").results
    [8.0, 4.0, 2.0]
    """
    results: list[Result] = []
    failures: dict[str, str] = {}
    for item, reading in _read_ahead(items, read):
        case = name(item)
        try:
            results.append(compute(item, reading()))
        except (BrainSegNetError, OSError, MemoryError) as error:
            failures[case] = describe_failure(case, error)
        if report is not None:
            report(case, failures.get(case))
    return Cohort(results, failures)


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
