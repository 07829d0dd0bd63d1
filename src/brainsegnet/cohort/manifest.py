"""The manifest: every case of a cohort with its files and their size, under a name and a number that stay the same."""

import csv
import heapq
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from brainsegnet.cohort.tables import (
    IMAGES,
    TEXT,
    WHOLE,
    read_columns,
    read_notes,
    read_parquet,
    read_rows,
    require_parquet,
    write_parquet,
)
from brainsegnet.errors import DatasetError, OutputError, describe_unreadable
from brainsegnet.io.case_files import CaseFiles, Part
from brainsegnet.pipeline.discover import find_all
from brainsegnet.pipeline.study_case import StudyCase
from brainsegnet.progress import Callback

MANIFEST = "manifest.parquet"
COLUMNS = {
    "number": WHOLE,
    "case": TEXT,
    "path": TEXT,
    "place": WHOLE,
    "images": IMAGES,
    "bytes": WHOLE,
    "problem": TEXT,
}
ONLY = -1
MOST_BYTES = 200
"""Length of a name: file systems take 255 bytes, and names of results begin with that of the case."""
_SOURCES = "sources"
_STUDIES = {"case", "path"}
"""Columns of a table of raw studies; bytes may be a third."""


@dataclass(frozen=True)
class Entry:
    """A case of a cohort.

    Attributes:
        case: Its name, which no other case has.
        number: Its place in the manifest, which stays the same when cases are added.
        path: Folder, zip or file of a raw study; empty for a case whose images are known.
        place: Which of the studies at that path it is, in the order of their names; `ONLY` if it must be the only one.
        images: Sequence to file.
        parts: Which part of its file a sequence is, where several share one.
        bytes: Size of its files; 0 if it is unknown.
        problem: Why it cannot be used; empty if nothing is known against it.
    """

    case: str
    number: int = 0
    path: str = ""
    place: int = 0
    images: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)
    bytes: int = 0
    problem: str = ""

    def open(self) -> CaseFiles | StudyCase:
        """The case with its files. A raw study is looked through now.

        Raises:
            DatasetError: the study is gone, or there are other studies now.
            ImageError: it cannot be used.
        """
        if self.problem:
            raise DatasetError(self.problem)
        if not self.path:
            return CaseFiles(self.case, {name: Path(path) for name, path in self.images.items()}, parts=self.parts)
        found = find_all([Path(self.path)])
        homes = [case for case in found.cases if not isinstance(case, StudyCase) or case.home == Path(self.path)]
        cases = sorted(homes or found.cases, key=lambda case: case.name)
        if self.place == ONLY and len(cases) > 1:
            raise DatasetError(f"case {self.case}: {self.path} holds {len(cases)} cases; name one a row")
        if max(self.place, 0) >= len(cases):
            said = "; ".join(found.failures.values()) or f"{self.path} holds {len(cases)} studies now"
            raise DatasetError(f"case {self.case}: {said}")
        return replace(cases[max(self.place, 0)], name=self.case)

    def to_row(self) -> dict[str, Any]:
        """The values of the columns."""
        parts = {name: str(part) for name, part in self.parts.items()}
        images = [{"sequence": name, "path": path, "part": parts.get(name)} for name, path in self.images.items()]
        return {**asdict(self), "images": images}

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Entry":
        """The entry of a row."""
        images = {image["sequence"]: image["path"] for image in row["images"]}
        parts = {image["sequence"]: image["part"] for image in row["images"] if image["part"] is not None}
        read = {name: int(part) if part.isdigit() else part for name, part in parts.items()}
        others = {name: row[name] for name in ("case", "number", "path", "place", "bytes", "problem")}
        return cls(images=images, parts=read, **others)


def prepare_manifest(sources: Sequence[Path], out: Path, rescan: bool, callback: Callback | None = None) -> Path:
    """Write the manifest of a cohort into its folder, or take the one that is there.

    Args:
        sources: Folders of cases or raw studies, tables of cases, and tables `case,path` of raw studies (.csv or
            .parquet), whose studies are looked through when their turn comes. None are needed if there is a manifest.
        out: Folder of the cohort.
        rescan: Search again, and add the cases that are new. The others keep their numbers.
        callback: Hears the progress of the search, and how many cases there are.

    Returns:
        The file of the manifest.

    Raises:
        DatasetError: there is no case, a table is malformed, or two cases have one name.
        OutputError: the manifest is of other sources, or `out` is inside one of them.
        MissingExtra: pyarrow is not installed.
    """
    require_parquet()
    path, named = out / MANIFEST, "\n".join(str(source.absolute()) for source in sources)
    before: dict[str, int] = {}
    if path.exists():
        known = read_notes(path).get(_SOURCES, "")
        if named not in ("", known) and not rescan:
            raise OutputError(
                f"{path} lists the cases of {' and '.join(known.splitlines())}; name another folder with --out, or add "
                "--rescan to add new cases"
            )
        if not rescan:
            return path
        before = {row["case"]: row["number"] for row in read_parquet(path, ["case", "number"])}
    elif not sources:
        raise DatasetError(f"{out} has no {MANIFEST} yet; name folders or tables of cases")
    _keep_apart(sources, out)
    searched = sources or [Path(line) for line in read_notes(path)[_SOURCES].splitlines()]
    kept = (Entry.of(row) for row in read_parquet(path)) if before else ()
    notes = {_SOURCES: named or read_notes(path)[_SOURCES]}
    entries = list(_number(_find_entries(searched, callback), kept, before))
    if not entries:
        raise DatasetError(f"no case is found in {' and '.join(map(str, searched))}")
    write_parquet((entry.to_row() for entry in entries), COLUMNS, path, notes)
    if callback:
        callback.on_message(f"{len(entries)} cases; {path}")
    return path


def read_manifest(path: Path, shard: tuple[int, int] = (1, 1)) -> Iterator[Entry]:
    """The cases of a manifest, or of one of several parts, in their order. Errors are those of `read_parquet`."""
    mine = choose_shard(read_sizes(path), *shard) if shard[1] > 1 else None
    for row in read_parquet(path):
        if mine is None or row["number"] in mine:
            yield Entry.of(row)


def pick_entries(path: Path, numbers: Collection[int]) -> list[Entry]:
    """The cases of these numbers, in their order. Errors are those of `read_parquet`."""
    return [Entry.of(row) for row in read_rows(path, numbers)]


def read_sizes(path: Path) -> dict[int, int]:
    """Number to size of each case, in bytes. Errors are those of `read_parquet`."""
    return {row["number"]: row["bytes"] for row in read_parquet(path, ["number", "bytes"])}


def choose_shard(sizes: Mapping[int, int], shard: int, shards: int) -> set[int]:
    """The cases of one of several parts of about the same size: the largest case goes to the smallest part so far.

    Args:
        sizes: Number of each case, to its size in bytes.
        shard: Which part, from 1.
        shards: How many parts.

    Examples:
        >>> [sorted(choose_shard({0: 5, 1: 3, 2: 3, 3: 1}, shard, 2)) for shard in (1, 2)]
        [[0, 3], [1, 2]]
    """
    parts = [(0, 0, part) for part in range(1, shards + 1)]
    mine = set()
    for number in sorted(sizes, key=lambda number: (-sizes[number], number)):
        size, count, part = heapq.heappop(parts)
        heapq.heappush(parts, (size + sizes[number], count + 1, part))
        if part == shard:
            mine.add(number)
    return mine


def _keep_apart(sources: Iterable[Path], out: Path) -> None:
    place = out.resolve()
    for source in sources:
        if source.is_dir() and (source.resolve() == place or source.resolve() in place.parents):
            raise OutputError(
                f"{out} is inside {source}, where a later search would take results for cases; name another with --out"
            )


def _number(found: Iterable[Entry], kept: Iterable[Entry], before: Mapping[str, int]) -> Iterator[Entry]:
    """Number the cases. Those that had a number keep it, even if they are found no more."""
    new, names = {}, set[str]()
    for entry in found:
        if entry.case in names:
            raise DatasetError(f"case {entry.case} is found twice; rename or leave out one of the two")
        if (size := len(os.fsencode(entry.case))) > MOST_BYTES:
            raise DatasetError(f"case {entry.case[:40]}...: its name has {size} bytes; take at most {MOST_BYTES}")
        names.add(entry.case)
        new[entry.case] = entry
    for former in kept:
        yield replace(new.pop(former.case, former), number=former.number)
    for number, entry in enumerate(new.values(), len(before)):
        yield replace(entry, number=number)


def _find_entries(sources: Sequence[Path], callback: Callback | None) -> Iterator[Entry]:
    """The cases at all sources: those of tables of studies in the order of the table, the others by name."""
    others = []
    for source in sources:
        if source.suffix.lower() == ".parquet":
            yield from _read_parquet_table(source)
        elif source.suffix.lower() == ".csv" and (header := _read_header(source)) and {*header} >= _STUDIES:
            if "sequence" in header:
                others.append(source)
            else:
                yield from _check_rows(_read_csv(source), source)
        else:
            others.append(source)
    if not others:
        return
    found = find_all(others, callback=callback)
    if found.twins:
        raise DatasetError(found.failures[found.twins[0]])
    for sentence in found.left_out if callback else ():
        callback.on_message(sentence)  # type: ignore[union-attr]
    entries = [*_describe_found(found.cases), *(Entry(name, problem=said) for name, said in found.failures.items())]
    yield from sorted(entries, key=lambda entry: entry.case)


def _describe_found(cases: Iterable[CaseFiles | StudyCase]) -> Iterator[Entry]:
    places: dict[Path, int] = {}
    for case in sorted(cases, key=lambda case: case.name):
        if isinstance(case, CaseFiles):
            images = {name: str(path.absolute()) for name, path in case.images.items()}
            size = sum(map(_size_of, {*images.values()}))
            yield Entry(case.name, images=images, parts=case.parts, bytes=size)
        else:
            place = places[case.home] = places.get(case.home, -1) + 1
            files = {str(path) for sequence in case.choices for path in case.files_of(sequence)}
            yield Entry(case.name, path=str(case.home.absolute()), place=place, bytes=sum(map(_size_of, files)))


def _read_parquet_table(table: Path) -> Iterator[Entry]:
    """The cases of another manifest, or the rows case and path of raw studies."""
    columns = read_columns(table)
    if columns == COLUMNS:
        yield from map(Entry.of, read_parquet(table))
        return
    if lacking := _STUDIES - {*columns}:
        raise DatasetError(f"{table} has no column {min(lacking)}; a table of studies has case and path")
    yield from _check_rows(read_parquet(table, [name for name in ("case", "path", "bytes") if name in columns]), table)


def _read_csv(table: Path) -> Iterator[dict[str, Any]]:
    with table.open(encoding="utf-8-sig", newline="") as stream:
        yield from csv.DictReader(stream, skipinitialspace=True)


def _read_header(table: Path) -> list[str]:
    try:
        with table.open(encoding="utf-8-sig") as stream:
            return [name.strip() for name in stream.readline().split(",")]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"table {table} {describe_unreadable(error)}") from error


def _check_rows(rows: Iterable[Mapping[str, Any]], table: Path) -> Iterator[Entry]:
    """The raw studies of a table. Relative paths start at its folder."""
    for line, row in enumerate(rows, 1):
        case, path = str(row["case"] or "").strip(), str(row["path"] or "").strip()
        if not case or not path:
            raise DatasetError(f"table {table}, row {line}: case and path are due")
        if case.startswith(".") or {"/", "\\"} & set(case) or not case.isprintable():
            raise DatasetError(f"table {table}, row {line}: {case!r} cannot be the name of a file; rename the case")
        place = Path(os.path.abspath(table.parent / path))
        size = row.get("bytes")
        yield Entry(case, path=str(place), place=ONLY, bytes=int(size) if size else _measure(place, _size_of))


def _measure(path: Path, size_of: Callable[[str], int]) -> int:
    """Size of all files at a path, in bytes."""
    if not path.is_dir():
        return size_of(str(path))
    return sum(size_of(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
