"""Parquet: tables of any number of rows, written whole and read in parts. The only import of pyarrow."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from brainsegnet._atomic import replacing
from brainsegnet.errors import DatasetError, MissingExtra

ROWS = 10_000
"""Rows that are in memory at a time."""
TEXT, WHOLE, NUMBER, TEXTS = "text", "whole number", "number", "texts"
IMAGES = "images"
"""Types of columns; `IMAGES` is a list of sequence, path and part."""
_Row = Mapping[str, Any]


def require_parquet() -> None:
    """Check, before the work, that Parquet can be written.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    _arrow()


def write_parquet(rows: Iterable[_Row], columns: Mapping[str, str], path: Path, notes: Mapping[str, str]) -> None:
    """Write a table as a whole. The same rows give the same bytes, with the same version of pyarrow.

    Args:
        rows: Values by column; None where there is none.
        columns: Name of each column, to its type.
        path: File to write.
        notes: Text about the whole table, kept in the file.

    Raises:
        MissingExtra: pyarrow is not installed.
        OutputError: it cannot be written.
    """
    arrow, parquet = _arrow()
    schema = arrow.schema([(name, _type_of(arrow, kind)) for name, kind in columns.items()], metadata=dict(notes))
    with replacing(path) as temporary, parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for part in _in_parts(rows):
            writer.write_table(arrow.Table.from_pylist(part, schema=schema))


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a table, one by one.

    Args:
        path: File to read.
        columns: Those to read; by default all.

    Raises:
        MissingExtra: pyarrow is not installed.
        DatasetError: it is no Parquet file, or lacks a column.
    """
    arrow, parquet = _arrow()
    try:
        with parquet.ParquetFile(path) as file:
            if absent := {*(columns or ())} - {*file.schema_arrow.names}:
                raise DatasetError(f"{path} has no column {min(absent)}; it has {', '.join(file.schema_arrow.names)}")
            for batch in file.iter_batches(ROWS, columns=columns):
                yield from batch.to_pylist()
    except (OSError, arrow.ArrowInvalid) as error:
        raise DatasetError(f"{path} cannot be read as Parquet: {error}") from error


def read_rows(path: Path, places: Collection[int]) -> Iterator[dict[str, Any]]:
    """The rows at these places, from 0, in the order of the table. Errors are those of `read_parquet`."""
    arrow, parquet = _arrow()
    try:
        with parquet.ParquetFile(path) as file:
            begin = 0
            for group in range(file.num_row_groups):
                end = begin + file.metadata.row_group(group).num_rows
                if wanted := [place - begin for place in sorted(places) if begin <= place < end]:
                    yield from file.read_row_group(group).take(wanted).to_pylist()
                begin = end
    except (OSError, arrow.ArrowInvalid) as error:
        raise DatasetError(f"{path} cannot be read as Parquet: {error}") from error


def read_columns(path: Path) -> dict[str, str]:
    """Names and types of the columns. Errors are those of `read_parquet`."""
    arrow, parquet = _arrow()
    kinds = {str(_type_of(arrow, kind)): kind for kind in (TEXT, WHOLE, NUMBER, TEXTS, IMAGES)}
    try:
        found = {field.name: str(field.type).replace("<element:", "<item:") for field in parquet.read_schema(path)}
    except (OSError, arrow.ArrowInvalid) as error:
        raise DatasetError(f"{path} cannot be read as Parquet: {error}") from error
    return {name: kinds.get(kind, kind) for name, kind in found.items()}


def read_notes(path: Path) -> dict[str, str]:
    """The texts about a whole table. Errors are those of `read_parquet`."""
    arrow, parquet = _arrow()
    try:
        found = parquet.read_schema(path).metadata or {}
    except (OSError, arrow.ArrowInvalid) as error:
        raise DatasetError(f"{path} cannot be read as Parquet: {error}") from error
    return {name.decode(): text.decode() for name, text in found.items() if name != b"ARROW:schema"}


def _type_of(arrow: ModuleType, kind: str) -> Any:  # noqa: ANN401
    text = arrow.string()
    image = arrow.struct([(name, text) for name in ("sequence", "path", "part")])
    plain = {TEXT: text, WHOLE: arrow.int64(), NUMBER: arrow.float64()}
    return plain.get(kind) or {TEXTS: arrow.list_(text), IMAGES: arrow.list_(image)}[kind]


def _in_parts(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    part: list[_Row] = []
    for row in rows:
        part.append(row)
        if len(part) == ROWS:
            yield part
            part = []
    if part:
        yield part


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtra('a cohort needs pyarrow, which is absent; run: pip install "brainsegnet[cohort]"') from error
    return pyarrow, parquet
