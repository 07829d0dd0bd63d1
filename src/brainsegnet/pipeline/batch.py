"""Many cases at a time: one is read and one is written while another is computed; one that fails stops no other."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from brainsegnet.errors import BrainSegNetError
from brainsegnet.inference.predict import LoadedCase, PreparedCase, RawPrediction

T = TypeVar("T")


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
    """Read, compute and write each item in a pipeline, with at most four items in memory.

    `compute` runs in the calling thread. Meanwhile `read` runs in another thread for the next item, and `write` in a
    third for the previous one. User errors, errors of the operating system and lack of memory become failures of their
    item. Any other error, an error in `start` and Ctrl-C end the batch.

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
    last_write: tuple[str, Future[SavedCase]] | None = None

    def finish(case: str, writing: Future[SavedCase]) -> None:
        with _record_failure(case, failures, advance):
            done.append(writing.result())
            advance()

    with ThreadPoolExecutor(1, thread_name_prefix="write") as writer:
        for number, (item, reading) in enumerate(_read_ahead(items, read)):
            if number == 0:
                start()
            case = name(item)
            with _record_failure(case, failures, advance):
                loaded, before = reading.result(), time.perf_counter()
                computed = compute(loaded)
                computing += time.perf_counter() - before
                former, last_write = last_write, (case, writer.submit(write, computed))
                if former is not None:
                    finish(*former)
        if last_write is not None:
            finish(*last_write)
    return BatchResult(done, failures, (), time.perf_counter() - beginning, computing)


@contextmanager
def _record_failure(case: str, failures: dict[str, str], advance: Callable[[], object]) -> Iterator[None]:
    """Note a failure as one sentence that names the case."""
    try:
        yield
    except (BrainSegNetError, OSError, MemoryError) as error:
        text = str(error)
        if isinstance(error, OSError):
            text = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
        text = text or "there is not enough memory; cut the scan into slabs"
        failures[case] = text if case in text else f"case {case}: {text}"
        advance()


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
