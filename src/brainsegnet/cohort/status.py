"""How far a cohort is, from the names and times of its files alone, also while processes are at work."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from brainsegnet._machine import find_host
from brainsegnet.cohort.claims import STALE_SECONDS, has_ended, read_owner, read_server_clock
from brainsegnet.cohort.manifest import MANIFEST, Entry, read_manifest
from brainsegnet.cohort.places import ERRORS, Places, find_places, read_model
from brainsegnet.errors import DatasetError
from brainsegnet.io.layouts import read_note

WINDOW_SECONDS = 600.0
"""The rate is that of the last ten minutes."""
LEAST_SECONDS = 30.0
"""No rate is told of a shorter time."""
SAMPLE = 20_000
"""Of more results, only so many are asked for their time."""


@dataclass(frozen=True)
class Status:
    """How far a cohort is with one model.

    Attributes:
        model: Name of the model.
        folder: Folder of the results.
        cases: Number of cases.
        done: Cases with a result.
        failed: Cases that failed.
        running: Cases at work.
        per_hour: Cases done in an hour, at the rate of the last ten minutes; None if no process is at work.
        kinds: Kind of failure to its number.
    """

    model: str
    folder: Path
    cases: int
    done: int
    failed: int
    running: int
    per_hour: float | None = None
    kinds: Mapping[str, int] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """Cases that no process has begun."""
        return max(self.cases - self.done - self.failed - self.running, 0)

    @property
    def hours_left(self) -> float | None:
        """Time to the end at this rate; None if it is unknown."""
        return (self.cases - self.done - self.failed) / self.per_hour if self.per_hour else None


def look_at(out: Path) -> list[Status]:
    """How far a cohort is, for each model.

    Raises:
        DatasetError: there is no cohort in the folder.
        MissingExtra: pyarrow is not installed.
    """
    if not (manifest := out / MANIFEST).exists():
        raise DatasetError(f"{out} has no {MANIFEST}; begin with brainsegnet cohort run STUDIES --out {out}")
    return [count_cases(manifest, places) for places in find_places(out)]


def count_cases(manifest: Path, places: Places, part: tuple[int, int] = (1, 1)) -> Status:
    """How far one cohort, or a part of it, is. Errors are those of `look_at`."""
    done, failed, running = list_done(places), list_failed(places), list_running(places)
    counts: Counter[str] = Counter()
    failures = []
    for entry in read_manifest(manifest, part):
        kind = state_of(entry, places, done, failed, running)
        counts[kind] += 1
        if kind == "failed":
            failures.append(places.error_of(entry))
    kinds = Counter(str(read_note(path).get("kind", "unknown")) for path in failures)
    rate = _measure_rate(places, len(done)) if running else None
    return Status(
        read_model(places),
        places.folder,
        counts.total(),
        counts["done"],
        counts["failed"],
        counts["running"],
        rate,
        dict(kinds.most_common()),
    )


def state_of(entry: Entry, places: Places, done: set[str], failed: set[str], running: set[str]) -> str:
    """What is known of a case: done, failed, running or waiting.

    One that is at work again counts as running, though it failed before. One that failed after it was done, because its
    inputs had changed, has failed: its old result is not that of its inputs.
    """
    case = entry.case
    if case in done and not (case in failed and places.find_failure(entry) is not None):
        return "done"
    return "running" if case in running else "failed" if case in failed else "waiting"


def list_done(places: Places) -> set[str]:
    """Names of the cases that have a JSON."""
    return {entry.name.removesuffix(".json") for entry in _scan_results(places)}


def list_failed(places: Places) -> set[str]:
    """Names of the cases that have an error."""
    return {entry.name.removesuffix(".json") for entry in _scan(places.folder / ERRORS) if _is_json(entry)}


def list_running(places: Places) -> set[str]:
    """Names of the cases whose claims are fresh, but for those of processes of this host that have ended."""
    now = time.time()
    clock = places.claims / f".clock~{find_host()}~{os.getpid()}~status"
    try:
        with suppress(OSError):
            now = read_server_clock(clock)
    finally:
        with suppress(OSError):
            clock.unlink()
    fresh = set()
    for entry in _scan(places.claims):
        with suppress(OSError):
            if entry.name.startswith(".") or now - entry.stat().st_mtime >= STALE_SECONDS:
                continue
            if not has_ended(read_owner(Path(entry.path)) or ""):
                fresh.add(entry.name.rpartition("~")[0])
    return fresh


def _scan_results(places: Places) -> Iterator[os.DirEntry[str]]:
    if places.layout == "flat":
        yield from filter(_is_json, _scan(places.folder))
        return
    for folder in _scan(places.folder):
        if folder.name.isdigit():
            yield from filter(_is_json, _scan(Path(folder.path)))


def _is_json(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(".json") and not entry.name.startswith(".")


def _scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        yield from entries


def _measure_rate(places: Places, done: int) -> float | None:
    """Cases in an hour, by the times of a sample of the results, up to the last sign of life of a process."""
    step = max(done // SAMPLE, 1)
    sample = (entry for number, entry in enumerate(_scan_results(places)) if number % step == 0)
    times = [when for entry in sample for when in _time_of(entry)]
    now = max((when for entry in _scan(places.claims) for when in _time_of(entry)), default=0.0)
    recent = [when for when in times if now - when <= WINDOW_SECONDS]
    span = now - min(recent, default=now)
    return 3600 * step * len(recent) / span if span >= LEAST_SECONDS else None


def _time_of(entry: os.DirEntry[str]) -> Iterator[float]:
    """When a file was written; none if it is gone."""
    with suppress(OSError):
        yield entry.stat().st_mtime
