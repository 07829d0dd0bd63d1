"""`cohort report`: pages with a thumbnail of every case, those first that failed or are unlike the others.

They are made from what is on disk, at any time, also while processes are at work.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from brainsegnet._atomic import claiming
from brainsegnet._machine import count_cores
from brainsegnet.cohort import QualityOptions
from brainsegnet.cohort.gallery import Gallery
from brainsegnet.cohort.ledger import write_ledger
from brainsegnet.cohort.manifest import MANIFEST, Entry, read_manifest
from brainsegnet.cohort.outliers import measure_note
from brainsegnet.cohort.places import Places, find_places
from brainsegnet.cohort.quality import SECONDS, Group, Seen, Summary, rank
from brainsegnet.cohort.quality_page import write_pages
from brainsegnet.cohort.tables import read_parquet
from brainsegnet.errors import BrainSegNetError, DatasetError
from brainsegnet.io.images import read_labels
from brainsegnet.io.layouts import read_note
from brainsegnet.plotting.palettes import colours
from brainsegnet.plotting.result import find_shown_task
from brainsegnet.plotting.viewer import get
from brainsegnet.progress import Callback, CaseCounter
from brainsegnet.reporting import name_page
from brainsegnet.task import TUMOUR, Task

REPORT = "report"
"""Folder of the pages, in that of the results."""
_COLUMNS = ("number", "case", "status", "kind", "error", "warnings", "labels", "engine", "processor", *SECONDS)


@dataclass(frozen=True)
class QualityReport:
    """What was written.

    Attributes:
        page: Its first page.
        cases: Number of cases.
        first: Number of those that failed, are outliers or have warnings.
        drawn: Thumbnails that were drawn now.
        kept: Thumbnails that were there already.
    """

    page: Path
    cases: int
    first: int
    drawn: int
    kept: int


def write_quality_reports(
    out: Path, options: QualityOptions | None = None, callback: Callback | None = None
) -> list[QualityReport]:
    """Write the pages of a cohort, for each model into the folder `report` of its results.

    Args:
        out: Folder of the cohort.
        options: How the pages are made.
        callback: Hears how many cases have been looked at.

    Raises:
        DatasetError: there is no cohort in the folder.
        OutputError: a page cannot be written, or another process is writing it.
        MissingExtra: pyarrow is not installed.
    """
    if not (manifest := out / MANIFEST).exists():
        raise DatasetError(f"{out} has no {MANIFEST}; begin with brainsegnet cohort run STUDIES --out {out}")
    return [
        write_quality_report(manifest, places, options or QualityOptions(), callback) for places in find_places(out)
    ]


def write_quality_report(
    manifest: Path, places: Places, options: QualityOptions, callback: Callback | None = None
) -> QualityReport:
    """Write the pages of one cohort with one model. Errors are those of `write_quality_reports`."""
    folder = places.folder / REPORT
    with claiming(places.folder, [REPORT]):
        write_ledger(manifest, places)
        task = _find_task(manifest, places)
        gallery = Gallery(places, folder, colours(task, "safe") if task else {})
        summary, seen = Summary(), list[Seen]()
        counter = CaseCounter(callback, sum(1 for _ in read_parquet(places.ledger, ["number"])))
        for one in _look_at_all(manifest, places, gallery, summary, options.threads or count_cores()):
            seen.append(one)
            counter.advance()
        ordered = rank(seen, tumour=task is not None and task.disease == TUMOUR)
        write_pages(ordered, summary, folder, task, options.page_cases)
        gallery.sweep({one.picture.file for one in seen})
    first = sum(one.group < Group.REST for one in ordered)
    drawn, files = sum(one.picture.is_new for one in seen), sum(bool(one.picture.file) for one in seen)
    return QualityReport(folder / "index.html", len(seen), first, drawn, files - drawn)


def _look_at_all(manifest: Path, places: Places, gallery: Gallery, summary: Summary, threads: int) -> Iterator[Seen]:
    """Each case of the ledger, in its order; thumbnails are drawn by several threads, and few are in memory."""
    rows = read_parquet(places.ledger, _COLUMNS)
    pending: deque[Future[Seen]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="thumbnails")
    try:
        for entry, row in zip(read_manifest(manifest), rows, strict=False):
            summary.add(row)
            pending.append(pool.submit(_look, entry, row, places, gallery))
            if len(pending) > 4 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _look(entry: Entry, row: Mapping[str, Any], places: Places, gallery: Gallery) -> Seen:
    seen = Seen(entry.number, entry.case, row["status"])
    if row["status"] == "failed":
        return replace(seen, kind=row["kind"] or "unknown", sentences=(row["error"] or "not known",))
    if row["status"] != "done":
        return seen
    note, page = read_note(places.json_of(entry)), name_page(places.target_of(entry))
    return replace(
        seen,
        sentences=tuple(row["warnings"] or ()),
        labels=row["labels"],
        report=page.relative_to(places.folder).as_posix() if page.is_file() else "",
        measures=measure_note(note),
        picture=gallery.draw(entry, note),
        doubtful=_is_doubtful(note),
    )


def _is_doubtful(note: Mapping[str, Any]) -> bool:
    """Whether there is a warning about the alignment of a result."""
    motions = (*get(note, "geometry", "moved").values(), *get(note, "geometry", "in_place").values())
    return any(isinstance(motion, dict) and motion.get("warning") for motion in motions)


def _find_task(manifest: Path, places: Places) -> Task | None:
    """The task of the model, as the first result that can be read tells it; None without a result."""
    for entry in read_manifest(manifest):
        if note := read_note(places.json_of(entry)) if places.json_of(entry).exists() else {}:
            try:
                return find_shown_task(note, read_labels(places.target_of(entry)))
            except (BrainSegNetError, OSError):
                continue
    return None
