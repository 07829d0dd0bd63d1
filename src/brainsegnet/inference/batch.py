"""Many cases: one is read and one is written while another is computed, and a bad case does not stop the others."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from brainsegnet.errors import BrainSegNetError

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Computed = TypeVar("Computed")
Result = TypeVar("Result")


@dataclass(frozen=True)
class BatchResult(Generic[Result]):
    """The results of many cases, in their order, and the cases that failed.

    Attributes:
        done: Results of the cases that succeeded.
        failures: Case to the sentence that says why it failed.
        seconds: From the first reading to the last writing.
        computing: Seconds of these in which a case was computed.
    """

    done: Sequence[Result] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0
    computing: float = 0


def run_batch(
    items: Iterable[Item],
    read: Callable[[Item], Loaded],
    compute: Callable[[Loaded], Computed],
    write: Callable[[Computed], Result],
    name: Callable[[Item], str] = str,
    start: Callable[[], object] = lambda: None,
) -> BatchResult[Result]:
    """Read, compute and write each item; at most four items are in memory.

    Errors of the user's making, of the operating system and of too little memory become failures. Any other error, an
    error in `start` and Ctrl-C end the batch.

    Args:
        items: What stands for the cases, such as their files.
        read: Runs in a thread, for the next item while this one is computed.
        compute: Runs in the calling thread.
        write: Runs in another thread, while the next item is computed.
        name: Name of the case of an item; names must differ.
        start: Called once, while the first item is read, for example to load a model.

    >>> run_batch("124", int, lambda number: 8 / number, "{:.1f}".format).done
    ['8.0', '4.0', '2.0']
    """
    done: list[Result] = []
    failures: dict[str, str] = {}
    beginning, computing, is_started = time.perf_counter(), 0.0, False
    last_write: tuple[str, Future[Result]] | None = None

    def finish(case: str, writing: Future[Result]) -> None:
        with _record_failure(case, failures):
            done.append(writing.result())

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="write") as writer:
        for item, reading in _read_ahead(items, read):
            if not is_started:
                start()
                is_started = True
            case = name(item)
            with _record_failure(case, failures):
                loaded, before = reading.result(), time.perf_counter()
                computed = compute(loaded)
                computing += time.perf_counter() - before
                former, last_write = last_write, (case, writer.submit(write, computed))
                if former is not None:
                    finish(*former)
        if last_write is not None:
            finish(*last_write)
    return BatchResult(done, failures, time.perf_counter() - beginning, computing)


@contextmanager
def _record_failure(case: str, failures: dict[str, str]) -> Iterator[None]:
    try:
        yield
    except (BrainSegNetError, OSError, MemoryError) as error:
        failures[case] = describe_failure(case, error)


def describe_failure(case: str, error: Exception) -> str:
    """One sentence that names the case.

    >>> describe_failure("pat1", MemoryError())
    'case pat1: there is not enough memory; cut the scan into slabs'
    >>> describe_failure("pat1", BrainSegNetError("case pat1: t1 is 0 everywhere"))
    'case pat1: t1 is 0 everywhere'
    """
    text = str(error)
    if isinstance(error, OSError):
        text = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
    text = text or "there is not enough memory; cut the scan into slabs"
    return text if case in text else f"case {case}: {text}"


def _read_ahead(items: Iterable[Item], read: Callable[[Item], Loaded]) -> Iterator[tuple[Item, Future[Loaded]]]:
    """Each item with the future of its loaded form; the next item is being read already."""
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read")
    ahead: tuple[Item, Future[Loaded]] | None = None
    try:
        for item in items:
            current, ahead = ahead, (item, pool.submit(read, item))
            if current is not None:
                yield current
        if ahead is not None:
            yield ahead
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
