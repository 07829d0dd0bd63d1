"""Cases in folders of the public data sets or in tables, and one case read into memory."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from brainsegnet.errors import DatasetError, MissingSequence
from brainsegnet.scans.files import read_image, read_labels
from brainsegnet.scans.schemes import SCHEMES, Scheme
from brainsegnet.scans.table import LESION, SUFFIXES, read_table
from brainsegnet.task import Task
from brainsegnet.volume import Case, LabelMap, Volume

DEPTH = 4
"""Folders below the one that is named: HGG, a case, a VSD folder, and one to spare."""

Align = Callable[[str, Volume, Volume], Volume]
"""Brings a volume, a sequence by name or the `lesion`, onto the grid of another."""


@dataclass(frozen=True)
class CaseFiles:
    """Where the parts of a case lie.

    Attributes:
        name: What the case is called.
        images: Sequence name to file, at least one.
        lesion: File of the label map, or None.
        convention: Task whose label values the label map uses; None if it is the task that is asked for.
    """

    name: str
    images: Mapping[str, Path]
    lesion: Path | None = None
    convention: Task | None = None


_COMPILED = [
    (scheme, sequence, re.compile(f".*/{pattern}", re.IGNORECASE))
    for scheme in SCHEMES
    for sequence, pattern in scheme.patterns.items()
]


@dataclass(frozen=True)
class _Hit:
    """A file that a scheme claims: `root` is the path up to the end of the name of its case."""

    scheme: Scheme
    sequence: str
    root: Path
    path: Path


def find_cases(data: Sequence[Path]) -> list[CaseFiles]:
    """The cases of folders, in the given order and by name within each, and of `.csv` or `.yaml` tables.

    Args:
        data: Folders of cases, searched `DEPTH` levels deep; folders of one case; tables.

    Raises:
        DatasetError: nothing there, unreadable, of no known scheme, a case found twice or a sequence that is ambiguous.
    """
    cases: dict[str, tuple[CaseFiles, Path]] = {}
    for source in data:
        for case in _find_in(source):
            if case.name in cases:
                places = " and in ".join(dict.fromkeys(str(place) for place in (cases[case.name][1], source)))
                raise DatasetError(f"case {case.name} is found twice, in {places}; rename or leave out one of the two")
            cases[case.name] = (case, source)
    return [case for case, _ in cases.values()]


def common_sequences(cases: Sequence[CaseFiles], task: Task) -> tuple[str, ...]:
    """The sequences of the task that every case has, in the task's order.

    Raises:
        MissingSequence: there is none.
    """
    common = tuple(name for name in task.sequences if all(name in case.images for case in cases))
    if not common:
        poorest = min(cases, key=lambda case: len(case.images.keys() & set(task.sequences)))
        raise MissingSequence(
            f"no sequence of task {task.name} ({', '.join(task.sequences)}) is in every case: case {poorest.name} has "
            f"{', '.join(poorest.images)}; leave it out or choose another task"
        )
    return common


def load_case(
    files: CaseFiles,
    sequences: Sequence[str],
    task: Task,
    *,
    lesion: bool,
    allow_missing: bool = False,
    align: Align | None = None,
) -> Case:
    """Read a case, one thread a file; its label map in the convention of `task`.

    Args:
        files: Where the parts lie.
        sequences: What to read, in the order of the case; the first one present gives the grid.
        task: Whose label values the label map is to have.
        lesion: Whether the label map is read too.
        allow_missing: Go on with the sequences that are there, at least one.
        align: Brings what lies on another grid, label map included, onto the first sequence's; none refuses it.

    Raises:
        MissingSequence: a sequence is absent.
        DatasetError: the label map is absent.
        ImageError, LabelError, GridMismatch: a file cannot be used.
    """
    present = _choose(files, sequences, allow_missing)
    if lesion and files.lesion is None:
        raise DatasetError(f"case {files.name} has no label map; add it or leave the case out")
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(_read_lesion, files, task) if lesion else None
        volumes = list(pool.map(read_image, [files.images[name] for name in present]))
        labels = reading.result() if reading else None
    if align is not None:
        first = volumes[0]
        named = zip(present, volumes, strict=True)
        volumes = [volume if volume.on_grid_of(first) else align(name, volume, first) for name, volume in named]
        labels = _align_labels(labels, volumes[0], align)
    return Case(files.name, dict(zip(present, volumes, strict=True)), labels)


def _choose(files: CaseFiles, sequences: Sequence[str], allow_missing: bool) -> list[str]:
    present = [name for name in sequences if name in files.images]
    missing = [name for name in sequences if name not in files.images]
    if missing and not (allow_missing and present):
        remedy = (
            "name the sequences it has" if allow_missing else "add what is missing, or name those that every case has"
        )
        raise MissingSequence(
            f"case {files.name} has no {', '.join(missing)}, only {', '.join(files.images)}; {remedy}"
        )
    return present


def _read_lesion(files: CaseFiles, task: Task) -> LabelMap | None:
    if files.lesion is None:
        return None
    labels = read_labels(files.lesion)
    if files.convention is None or files.convention == task:
        task.check(labels.array, files.name)
        return labels
    return labels.with_array(task.translate(labels.array, files.convention, files.name))


def _align_labels(labels: LabelMap | None, reference: Volume, align: Align) -> LabelMap | None:
    if labels is None or labels.on_grid_of(reference):
        return labels
    moved = align(LESION, labels, reference)
    return LabelMap(moved.array, moved.affine)


def _find_in(source: Path) -> list[CaseFiles]:
    if source.is_file() and source.suffix.lower() in SUFFIXES:
        return _cases_of_table(source)
    if not source.is_dir():
        fact = "is neither a folder nor a .csv or .yaml table" if source.exists() else "does not exist"
        raise DatasetError(f"{source} {fact}; name a folder of cases")
    cases = sorted(_cases_of_folder(source), key=lambda case: case.name)
    if not cases:
        known = "; ".join(scheme.name for scheme in SCHEMES)
        raise DatasetError(
            f"{source} holds no case of a known scheme ({known}); list its files in a .csv table instead"
        )
    return cases


def _cases_of_table(table: Path) -> list[CaseFiles]:
    cases = []
    for name, files in read_table(table).items():
        images = {sequence: path for sequence, path in files.items() if sequence != LESION}
        if not images:
            raise DatasetError(f"table {table}: case {name} has a label map but no image; add its images")
        cases.append(CaseFiles(name, images, files.get(LESION)))
    return cases


def _cases_of_folder(folder: Path) -> Iterator[CaseFiles]:
    by_case: defaultdict[tuple[Path, str], list[_Hit]] = defaultdict(list)
    for directory, names in _walk(folder):
        for hit in _claim(directory, names):
            by_case[hit.root, hit.scheme.name].append(hit)
    for (root, _), hits in by_case.items():
        files = _by_sequence(root.name, hits)
        images = {name: files[name] for name in hits[0].scheme.patterns if name in files and name != LESION}
        if images:
            yield CaseFiles(root.name, images, files.get(LESION), hits[0].scheme.convention)


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders and the names of their files, hidden ones left out."""

    def refuse(error: OSError) -> None:
        raise DatasetError(f"folder {error.filename} cannot be read: {error.strerror}") from error

    top = Path(os.path.abspath(folder))
    for directory, folders, names in os.walk(top, onerror=refuse, followlinks=True):
        depth = len(Path(directory).relative_to(top).parts)
        folders[:] = [name for name in folders if depth < DEPTH and not name.startswith(".")]
        yield Path(directory), sorted(name for name in names if not name.startswith("."))


def _claim(directory: Path, names: Iterable[str]) -> list[_Hit]:
    """What the scheme that knows most files of this folder says of them; schemes differ, folders do not mix them."""
    hits = [hit for name in names for hit in _match(directory / name)]
    if not hits:
        return []
    best = Counter(hit.scheme.name for hit in hits).most_common(1)[0][0]
    return [hit for hit in hits if hit.scheme.name == best]


def _match(path: Path) -> Iterator[_Hit]:
    whole = path.as_posix()
    for scheme, sequence, pattern in _COMPILED:
        if match := pattern.fullmatch(whole):
            yield _Hit(scheme, sequence, Path(whole[: match.end("case")]), path)


def _by_sequence(case: str, hits: Iterable[_Hit]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for hit in hits:
        if hit.sequence in files:
            raise DatasetError(
                f"case {case} has two files for {hit.sequence}, {files[hit.sequence]} and {hit.path}; remove one"
            )
        files[hit.sequence] = hit.path
    return files
