"""A case as files: which file, or part of a file, is which sequence; tables of cases; and how images are read.

A part is a frame of a 4-D file, or one of four maps of a raw perfusion series, which ISLES 2017 adds to its cases. The
maps come from the signal alone, without arterial input or deconvolution. Contrast agent darkens a T2* image while it
passes, and -log(signal / baseline) is proportional to its concentration (Ostergaard 2005, "Principles of cerebral
perfusion imaging by bolus tracking").
"""

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from brainsegnet._types import Doubles, Mask
from brainsegnet.errors import DatasetError, ImageError, describe_unreadable
from brainsegnet.io.aliases import ORDER, find_sequence
from brainsegnet.io.images import Series, read_image, read_series
from brainsegnet.task import Task
from brainsegnet.volume import Volume

LESION = "lesion"
"""Name of the label map of a case, beside the names of its sequences."""
TABLES = (".csv", ".yaml", ".yml")
"""Endings of tables."""
_COLUMNS = ("case", "sequence", "path")
PERFUSION = "pwi"
"""A raw perfusion series; it is no sequence itself, but gives `pwi_baseline`, `pwi_drop`, `pwi_peak`, `pwi_area`."""
MAPS = ("baseline", "drop", "peak", "area")
"""Mean signal before the bolus; greatest -log(signal / baseline), how much contrast arrives; frames from its arrival in
the brain to that drop, how late it arrives; sum over the first passage, proportional to the blood volume."""
MIN_FRAMES = 8
SETTLING = 2
"""The first frames are brighter: the magnetisation has not settled."""
ARRIVED = 0.1
"""The bolus has arrived where the mean signal has lost this share of its greatest loss."""
DARK = 0.1
"""Air is darker than this share of the brightest tissue (99th percentile)."""
Part = int | str
"""A frame of a 4-D file, counted from 0, or a map of a perfusion series by name."""
_Row = tuple[int, tuple[str, ...]]
"""Number of a line in a table, and its case, sequence and path."""


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case.

    Attributes:
        name: Name of the case.
        images: Sequence name to file; at least one.
        lesion: File of the label map, or None.
        convention: Task whose label values the label map uses; None if it is the task that is asked for.
        parts: For sequences that share a file with others: which part of the file they are.
        layout: Name of the layout of the data set.
    """

    name: str
    images: Mapping[str, Path]
    lesion: Path | None = None
    convention: Task | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)
    layout: str = field(default="", compare=False)

    @classmethod
    def of(cls, name: str, files: Mapping[str, Path], convention: Task | None, layout: str) -> "CaseFiles | None":
        """A case whose files have the names of sequences, or `lesion`; None if there is no image.

        A perfusion series stands for the maps that can be made of it.

        Examples:
            >>> case = CaseFiles.of("pat1", {"adc": Path("a.nii"), "pwi": Path("p.nii")}, None, "")
            >>> list(case.images), case.parts["pwi_drop"]
            (['adc', 'pwi_baseline', 'pwi_drop', 'pwi_peak', 'pwi_area'], 'drop')
        """
        images = {sequence: path for sequence, path in files.items() if sequence not in (PERFUSION, LESION)}
        parts: dict[str, Part] = {f"{PERFUSION}_{part}": part for part in MAPS} if PERFUSION in files else {}
        images |= {name: files[PERFUSION] for name in parts}
        return cls(name, images, files.get(LESION), convention, parts, layout) if images else None


def read_table(table: Path) -> list[CaseFiles]:
    """Read the cases of a CSV with the columns case, sequence and path, or of a YAML {case: {sequence: path}}.

    Relative paths start at the folder of the table. Sequences get the names of this package: `T1Gd` and `T1ce` become
    `t1c`. Unknown ones keep their own, in lower case. The label map is called `lesion`, `label` or `seg`.

    Raises:
        DatasetError: the table is unreadable, malformed or empty. Or it names something twice, or a file that does not
            exist.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"table {table} {describe_unreadable(error)}") from error
    found: dict[str, dict[str, Path]] = {}
    for line, row in (_read_csv if table.suffix.lower() == ".csv" else _read_yaml)(text, table):
        case, sequence, path = _check_row(table, line, row)
        if sequence in found.setdefault(case, {}):
            raise _defect(table, line, f"case {case} has {sequence} twice; keep one")
        found[case][sequence] = path
    if not found:
        raise DatasetError(f"table {table} names no case; add lines of {', '.join(_COLUMNS)}")
    cases = {name: CaseFiles.of(name, files, None, "table") for name, files in found.items()}
    if blank := [name for name, case in cases.items() if case is None]:
        raise DatasetError(f"table {table}: case {blank[0]} has a label map but no image; add its images")
    return [case for case in cases.values() if case]


def _read_csv(text: str, table: Path) -> Iterator[_Row]:
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
            yield lines.line_num, tuple(row[column] for column in _COLUMNS)
    except csv.Error as error:
        raise _defect(table, lines.reader.line_num, f"this is no CSV: {error}") from error


def _read_yaml(text: str, table: Path) -> Iterator[_Row]:
    """Nodes rather than values: they know their line, keep `007` as it is written and let a repeated key be seen."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise DatasetError(f"table {table} {describe_unreadable(error)}") from error
    names: set[str] = set()
    for case, files in _pairs(root, table) if root else ():
        name = _scalar(case, table)
        if name in names:
            raise _defect(table, case.start_mark.line + 1, f"case {name} is named twice; join the two")
        names.add(name)
        for sequence, path in _pairs(files, table):
            yield path.start_mark.line + 1, (name, _scalar(sequence, table), _scalar(path, table))


def _pairs(node: yaml.Node, table: Path) -> list[tuple[yaml.Node, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        return [*node.value]
    raise _defect(table, node.start_mark.line + 1, "{case: {sequence: path}} is due")


def _scalar(node: yaml.Node, table: Path) -> str:
    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    raise _defect(table, node.start_mark.line + 1, "a single name or path is due")


def _check_row(table: Path, line: int, row: Sequence[str]) -> tuple[str, str, Path]:
    """The case, the sequence by the name used here, and the file."""
    case, sequence, file = (value.strip() for value in row)
    if blank := [column for column, value in zip(_COLUMNS, row, strict=True) if not value.strip()]:
        raise _defect(table, line, f"the {blank[0]} is empty")
    if {"/", "\\"} & set(case):
        raise _defect(table, line, f"case {case} is no name for a file; results are called after it")
    path = table.parent / file
    if not path.is_file():
        raise _defect(table, line, f"{path} does not exist; paths are relative to the table's folder")
    given, known = sequence.lower(), find_sequence(sequence)
    return case, LESION if given in (LESION, "label", "seg") else known if known in ORDER else given, path


def _defect(table: Path, line: int, fact: str) -> DatasetError:
    return DatasetError(f"table {table}, line {line}: {fact}")


def read_sequences(files: CaseFiles, sequences: Sequence[str]) -> list[Volume]:
    """Read images of a case in the given order, with one thread for each file. A shared file is read once.

    Raises:
        ImageError: a file cannot be used, or lacks a frame.
    """
    by_file: defaultdict[tuple[Path, bool], list[str]] = defaultdict(list)
    for name in sequences:
        by_file[files.images[name], name in files.parts].append(name)
    with ThreadPoolExecutor() as pool:
        read = pool.map(lambda key: _read_file(key[0], by_file[key], files.parts if key[1] else {}), by_file)
        volumes = {name: volume for found in read for name, volume in found.items()}
    return [volumes[name] for name in sequences]


def _read_file(path: Path, names: Sequence[str], parts: Mapping[str, Part]) -> dict[str, Volume]:
    if not parts:
        return dict.fromkeys(names, read_image(path))
    series = read_series(path)
    maps = map_perfusion(series, str(path)) if any(isinstance(parts[name], str) for name in names) else {}
    volumes = {}
    for name in names:
        part = parts[name]
        if isinstance(part, int) and part >= len(series):
            count, due = len(series), part + 1
            raise ImageError(f"{path} holds {count} images, but {name} should be number {due}; fetch it again")
        volumes[name] = maps[part] if isinstance(part, str) else series.frame(part)
    return volumes


def map_perfusion(series: Series, name: str = "the perfusion series") -> Mapping[str, Volume]:
    """The four `MAPS` of a perfusion series (T, D, H, W), each (D, H, W) float32 and 0 in the air.

    Raises:
        ImageError: too few frames, or no passage of contrast.
    """
    if len(series) < MIN_FRAMES:
        raise ImageError(f"{name} has {len(series)} frames, a perfusion series has {MIN_FRAMES} or more; leave it out")
    mean = series.array[SETTLING:].mean(axis=0, dtype=np.float32)
    tissue: Mask = mean > DARK * np.percentile(mean, 99)
    first, arrival, end = find_bolus(series.array[:, tissue].mean(axis=1, dtype=np.float64), name)
    baseline = series.array[first:arrival].mean(axis=0, dtype=np.float32)
    tissue &= baseline > 0
    signal = series.array[arrival:end, tissue].astype(np.float32)
    contrast = -np.log(np.maximum(signal / baseline[tissue], np.float32(0.01)))
    maps = np.zeros((len(MAPS), *tissue.shape), np.float32)
    values = (baseline[tissue], contrast.max(axis=0), contrast.argmax(axis=0), contrast.sum(axis=0))
    for i, part in enumerate(values):
        maps[i, tissue] = part
    return {name: Volume(part, series.affine) for name, part in zip(MAPS, maps, strict=True)}


def find_bolus(curve: Doubles, name: str) -> tuple[int, int, int]:
    """When contrast passes, from the mean signal of the brain over time (T,).

    From the darkest frame to the end of the first passage it takes twice as long as from the arrival to the darkest
    frame.

    Returns:
        Frames: where the baseline begins, where contrast arrives, and the first one after its first passage.

    Raises:
        ImageError: the signal does not fall after a baseline.

    Examples:
        >>> find_bolus(np.array([120, 104, 100, 101, 100, 99, 80, 50, 70, 90, 95, 96, 96, 96.0]), "perfusion.nii")
        (2, 6, 12)
    """
    lowest = SETTLING + int(np.argmin(curve[SETTLING:]))
    before = curve[SETTLING:lowest]
    level = float(np.median(before)) if before.size else curve[lowest]
    flat = np.flatnonzero(before >= level - ARRIVED * (level - curve[lowest]))
    if not (level > curve[lowest] and flat.size):
        raise ImageError(
            f"{name} shows no passage of contrast: its signal does not fall after a baseline; leave it out"
        )
    arrival = SETTLING + int(flat[-1]) + 1
    return SETTLING, arrival, min(lowest + 2 * (lowest - arrival + 1) + 1, len(curve))
