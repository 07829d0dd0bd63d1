"""Tables of the user's own cases: CSV with the columns case, sequence, path, or YAML {case: {sequence: path}}."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from brainsegnet.errors import DatasetError, describe_unreadable
from brainsegnet.io.aliases import ORDER, find_sequence
from brainsegnet.io.case_files import LESION

SUFFIXES = (".csv", ".yaml", ".yml")
"""Endings of tables."""
_COLUMNS = ("case", "sequence", "path")
_LABEL_WORDS = {"lesion", "label", "seg"}


@dataclass(frozen=True)
class _Entry:
    """One line of a table: its number, and which file is which sequence of which case."""

    line: int
    case: str
    sequence: str
    path: str


def read_table(table: Path) -> Mapping[str, Mapping[str, Path]]:
    """Case to sequence to file; the label map's sequence (`lesion`, `label` or `seg`) is called `lesion`.

    Relative paths are relative to the table's folder. Sequences get the names used here, as `T1Gd` and `T1ce` become
    `t1c`; unknown ones keep their own, in lower case.

    Raises:
        DatasetError: the table is unreadable, malformed or empty, names a thing twice or a file that is not there.
    """
    read_entries = _read_csv if table.suffix.lower() == ".csv" else _read_yaml
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"table {table} {describe_unreadable(error)}") from error
    cases: dict[str, dict[str, Path]] = {}
    for entry in read_entries(text, table):
        sequence, path = _check_entry(entry, table)
        files = cases.setdefault(entry.case.strip(), {})
        if sequence in files:
            raise _defect(table, entry.line, f"case {entry.case} has {sequence} twice; keep one")
        files[sequence] = path
    if not cases:
        raise DatasetError(f"table {table} names no case; add lines of {', '.join(_COLUMNS)}")
    return cases


def _read_csv(text: str, table: Path) -> Iterator[_Entry]:
    lines = csv.DictReader(text.splitlines(), strict=True, skipinitialspace=True)
    try:
        header = [name.strip().lower() for name in lines.fieldnames or ()]
        if sorted(header) != sorted(_COLUMNS):
            raise _defect(table, 1, f"the header must be {','.join(_COLUMNS)}, it is {','.join(header) or 'empty'}")
        lines.fieldnames = header
        for row in lines:
            if None in row or None in row.values():
                found = sum(value is not None for value in row.values()) + len(row.get(None) or ()) - (None in row)
                raise _defect(table, lines.line_num, f"{found} values where {','.join(_COLUMNS)} are due")
            yield _Entry(lines.line_num, row["case"], row["sequence"], row["path"])
    except csv.Error as error:
        raise _defect(table, lines.reader.line_num, f"this is no CSV: {error}") from error


def _read_yaml(text: str, table: Path) -> Iterator[_Entry]:
    """Nodes rather than values: they know their line, keep `007` as it is written and let a repeated key be seen."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise DatasetError(f"table {table} {describe_unreadable(error)}") from error
    if root is None:
        return
    names: set[str] = set()
    for case, files in _pairs(root, table):
        name = _scalar(case, table)
        if name in names:
            raise _defect(table, case.start_mark.line + 1, f"case {name} is named twice; join the two")
        names.add(name)
        for sequence, path in _pairs(files, table):
            yield _Entry(path.start_mark.line + 1, name, _scalar(sequence, table), _scalar(path, table))


def _pairs(node: yaml.Node, table: Path) -> list[tuple[yaml.Node, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        raise _defect(table, node.start_mark.line + 1, "{case: {sequence: path}} is due")
    pairs: list[tuple[yaml.Node, yaml.Node]] = node.value
    return pairs


def _scalar(node: yaml.Node, table: Path) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _defect(table, node.start_mark.line + 1, "a single name or path is due")
    return str(node.value)


def _check_entry(entry: _Entry, table: Path) -> tuple[str, Path]:
    """The sequence, by the name used here, and the file."""
    for column in _COLUMNS:
        if not getattr(entry, column).strip():
            raise _defect(table, entry.line, f"the {column} is empty")
    if {"/", "\\"} & set(entry.case):
        raise _defect(table, entry.line, f"case {entry.case} is no name for a file; results are called after it")
    sequence = entry.sequence.strip().lower()
    path = table.parent / entry.path.strip()
    if not path.is_file():
        raise _defect(table, entry.line, f"{path} does not exist; paths are relative to the table's folder")
    if sequence in _LABEL_WORDS:
        return LESION, path
    ours = find_sequence(sequence)
    return ours if ours in ORDER else sequence, path


def _defect(table: Path, line: int, fact: str) -> DatasetError:
    return DatasetError(f"table {table}, line {line}: {fact}")
