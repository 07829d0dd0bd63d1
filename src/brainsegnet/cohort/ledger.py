"""The ledger: one row for every case, made from the JSONs on disk at any time, also while processes are at work."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from brainsegnet.cohort.manifest import Entry, read_manifest
from brainsegnet.cohort.places import LEDGER, Places, find_places, read_model
from brainsegnet.cohort.status import list_done, list_failed, list_running, state_of
from brainsegnet.cohort.tables import NUMBER, TEXT, TEXTS, WHOLE, read_columns, read_parquet, write_parquet
from brainsegnet.errors import DatasetError
from brainsegnet.io.layouts import read_note

STAGES = ("read", "align", "brain", "prepare", "network", "write")
VOLUME = "ml_"
"""How the columns of volumes begin; the name of a region or tissue follows."""
COLUMNS = {
    "number": WHOLE,
    "case": TEXT,
    "status": TEXT,
    "kind": TEXT,
    "error": TEXT,
    "warnings": TEXTS,
    "labels": TEXT,
    "bytes": WHOLE,
    "sequences": TEXTS,
    "seconds": NUMBER,
    **{f"seconds_{stage}": NUMBER for stage in STAGES},
    "engine": TEXT,
    "host": TEXT,
    "processor": TEXT,
    "units": TEXTS,
    "attempt": WHOLE,
    "finished": TEXT,
    "model": TEXT,
    "sha256": TEXT,
}
VARYING = ("host", "processor", "units", "engine", "attempt", "finished", "seconds", *(f"seconds_{s}" for s in STAGES))
"""Columns that may differ between two runs on the same cases. On one kind of processor, all others are equal."""
_RANK = {"done": 0, "failed": 1, "running": 2, "waiting": 3}


def write_ledgers(out: Path) -> list[Path]:
    """Write the ledger of each model of a cohort, into the folder of its results.

    Raises:
        DatasetError: there is no cohort in the folder.
        OutputError: a ledger cannot be written.
        MissingExtra: pyarrow is not installed.
    """
    from brainsegnet.cohort.manifest import MANIFEST

    return [write_ledger(out / MANIFEST, places) for places in find_places(out)]


def write_ledger(manifest: Path, places: Places) -> Path:
    """Write the ledger of one cohort with one model. Errors are those of `write_ledgers`."""
    done, failed, running = list_done(places), list_failed(places), list_running(places)
    volumes = _name_volumes(manifest, places, done)
    rows = (
        make_row(entry, places, state_of(entry, places, done, failed, running), volumes)
        for entry in read_manifest(manifest)
    )
    columns = {**COLUMNS, **dict.fromkeys(volumes, NUMBER)}
    write_parquet(rows, columns, places.ledger, {"model": read_model(places)})
    return places.ledger


def make_row(entry: Entry, places: Places, status: str, volumes: Iterable[str]) -> dict[str, Any]:
    """The row of a case.

    Args:
        entry: The case.
        places: Where its result is.
        status: done, failed, running or waiting.
        volumes: The columns of volumes.
    """
    row: dict[str, Any] = dict.fromkeys((*COLUMNS, *volumes))
    row |= {"number": entry.number, "case": entry.case, "status": status, "bytes": entry.bytes}
    if status not in ("done", "failed"):
        return row
    path = places.json_of(entry) if status == "done" else places.error_of(entry)
    note = read_note(path)
    made = _part(note, "cohort")
    row |= {name: made.get(name) for name in ("host", "processor", "units", "attempt")}
    if status == "failed":
        return row | {name: note.get(name) for name in ("kind", "error", "seconds")} | {"finished": _tell_time(path)}
    model, seconds = _part(note, "model"), _part(note, "seconds")
    row |= {name: note.get(name) for name in ("warnings", "engine")}
    row |= {f"seconds_{stage}": seconds.get(stage) for stage in STAGES}
    row["seconds"] = round(sum(seconds.get(stage) or 0.0 for stage in STAGES), 4) if seconds else None
    row |= {name: value for name, value in _volumes_of(note).items() if name in row}
    row |= {"sequences": _part(note, "sequences").get("used"), "finished": _tell_time(path)}
    labels = places.target_of(entry).relative_to(places.folder).as_posix()
    return row | {"labels": labels, "model": model.get("name"), "sha256": model.get("sha256")}


def merge_ledgers(ledgers: Sequence[Path], out: Path) -> int:
    """Write one ledger of several, for example those of shards that were processed in folders of their own.

    A case that several have is done if it is done in one of them; else it failed if it failed in one.

    Args:
        ledgers: Files of ledgers, or folders of cohorts, whose ledgers are made first.
        out: File to write.

    Returns:
        The number of cases.

    Raises:
        DatasetError: one cannot be read, a folder has results of several models, or a case has different volumes in
            two of them.
        OutputError: the result cannot be written.
    """
    files = [_find_ledger(path) if path.is_dir() else path for path in ledgers]
    columns: dict[str, str] = {}
    for file in files:
        columns |= read_columns(file)
    volumes = [name for name in columns if name.startswith(VOLUME)]
    best: dict[str, tuple[int, int]] = {}
    known: dict[str, int] = {}
    for place, file in enumerate(files):
        own = [name for name in volumes if name in read_columns(file)]
        for row in read_parquet(file, ["case", "status", "sha256", *own]):
            case, rank = row["case"], _RANK.get(row["status"], 3)
            if rank == 0:
                mark = hash((row["sha256"], *(row.get(name) for name in volumes)))
                if known.setdefault(case, mark) != mark:
                    raise DatasetError(f"case {case} has two different results, one of them in {file}; leave one out")
            best[case] = min(best.get(case, (rank, place)), (rank, place))

    def choose() -> Iterator[dict[str, Any]]:
        for place, file in enumerate(files):
            rows = read_parquet(file)
            yield from ({**dict.fromkeys(columns), **row} for row in rows if best[row["case"]][1] == place)

    write_parquet(choose(), columns, out, {})
    return len(best)


def _find_ledger(folder: Path) -> Path:
    """The ledger of a cohort with one model, which is made first."""
    ledger, *others = write_ledgers(folder)
    if others:
        known = " and ".join(str(path) for path in (ledger, *others))
        raise DatasetError(f"{folder} has results of {1 + len(others)} models; name one of the ledgers: {known}")
    return ledger


def _name_volumes(manifest: Path, places: Places, done: set[str]) -> list[str]:
    """The columns of volumes, as the first result has them; the model gives all the same."""
    for entry in read_manifest(manifest) if done else ():
        if entry.case in done and (found := _volumes_of(read_note(places.json_of(entry)))):
            return list(found)
    return []


def _volumes_of(note: Mapping[str, Any]) -> dict[str, float]:
    volumes = _part(note, "volumes_ml")
    named = {name: ml for kind in ("labels", "regions") for name, ml in _part(volumes, kind).items()}
    return {f"{VOLUME}{name}": float(ml) for name, ml in named.items()}


def _part(note: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = note.get(name)
    return part if isinstance(part, dict) else {}


def _tell_time(path: Path) -> str | None:
    """When a file got its name, in UTC; None if it has just been replaced."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="milliseconds")
    except OSError:
        return None


__all__ = ["COLUMNS", "LEDGER", "VARYING", "make_row", "merge_ledgers", "write_ledger", "write_ledgers"]
