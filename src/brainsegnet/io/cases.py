"""Cases in folders of the public data sets or in tables, and one case read into memory."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from brainsegnet.errors import DatasetError, MissingSequence
from brainsegnet.io.case_files import CaseFiles, read_sequences, spread_perfusion
from brainsegnet.io.images import read_labels
from brainsegnet.io.layouts import LAYOUTS, search
from brainsegnet.io.tables import LESION, SUFFIXES, read_table
from brainsegnet.task import Task
from brainsegnet.volume import Case, LabelMap, Volume

__all__ = ["Align", "CaseFiles", "common_sequences", "find_cases", "load_case"]

Align = Callable[[str, Volume, Volume], Volume]
"""Brings a volume, a sequence by name or the `lesion`, onto the grid of another."""


def find_cases(data: Sequence[Path]) -> list[CaseFiles]:
    """The cases of folders, in the given order and by name within each, and of `.csv` or `.yaml` tables.

    Args:
        data: Folders of cases, searched some levels deep; folders of one case; tables.

    Raises:
        DatasetError: nothing there, unreadable, of no known layout, a case found twice or a sequence that is ambiguous.
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
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(_read_lesion, files, task) if lesion else None
        volumes = read_sequences(files, present)
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
    return labels.with_array(task.bring(labels.array, files.convention, files.name))


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
    cases = sorted(search(source), key=lambda case: case.name)
    if not cases:
        raise DatasetError(
            f"{source} holds no case of a known layout ({'; '.join(LAYOUTS)}); list its files in a .csv table instead"
        )
    return cases


def _cases_of_table(table: Path) -> list[CaseFiles]:
    cases = []
    for name, files in read_table(table).items():
        images, parts = spread_perfusion({sequence: path for sequence, path in files.items() if sequence != LESION})
        if not images:
            raise DatasetError(f"table {table}: case {name} has a label map but no image; add its images")
        cases.append(CaseFiles(name, images, files.get(LESION), parts=parts, layout="table"))
    return cases
