"""Cases: find them in folders of public data sets or in tables, check their files, and read them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from brainsegnet._atomic import stem_of
from brainsegnet.errors import DatasetError, ImageError, LabelError, MissingSequence
from brainsegnet.io.case_files import LESION, TABLES, read_sequences, read_table
from brainsegnet.io.case_files import CaseFiles as CaseFiles
from brainsegnet.io.images import READERS, check_size, read_labels
from brainsegnet.io.layouts import LAYOUT_NAMES, discover, find_home, read_note
from brainsegnet.task import Task
from brainsegnet.volume import Case, LabelMap, Volume

Align = Callable[[str, Volume, Volume], Volume]
"""Brings a volume, a sequence by name or the `lesion`, onto the grid of another."""


class DatasetCheck(NamedTuple):
    """What `check_dataset` found: numbers of cases by layout and sequence, of label maps, and defects by case."""

    layouts: Mapping[str, int]
    sequences: Mapping[str, int]
    labelled: int
    defects: Mapping[str, tuple[str, ...]]


class CaseSearch(NamedTuple):
    """The cases found in folders and tables, and what was left out.

    Attributes:
        cases: The cases in the given order of folders and tables, and by name within each.
        failures: Name of each case that cannot be used, to the reason: it is found twice or has two files for one
            sequence.
        left_out: A sentence on each folder whose images are not recognised by their names.
    """

    cases: Sequence[CaseFiles]
    failures: Mapping[str, str]
    left_out: Sequence[str] = ()


class Found(NamedTuple):
    """What is in one folder or table.

    Attributes:
        cases: All cases, also those of one name, by name.
        failures: Name of each case with two files for one sequence, to a sentence that says so.
        strangers: Folders whose images are not recognised by their names, to these names.
    """

    cases: Sequence[CaseFiles]
    failures: Mapping[str, str]
    strangers: Mapping[Path, Sequence[str]]


def find_cases(data: Sequence[Path]) -> list[CaseFiles]:
    """Find the cases in folders and in `.csv` or `.yaml` tables.

    A folder is a case or holds cases, also some levels deep. The cases keep the order of `data`, and are sorted by name
    within each entry.

    Raises:
        DatasetError: there is no case, or a folder is unreadable or has no known layout. Or a case is found twice, or a
            sequence is ambiguous.
    """
    found = search_cases(data)
    if found.failures:
        raise DatasetError(next(iter(found.failures.values())))
    return [*found.cases]


def search_cases(data: Sequence[Path]) -> CaseSearch:
    """Find cases as `find_cases`, but a case that cannot be used does not stop the others.

    Raises:
        DatasetError: there is no case, or a folder is unreadable or has no known layout.
    """
    cases: dict[str, CaseFiles] = {}
    failures: dict[str, str] = {}
    left_out: list[str] = []
    for source in data:
        found = find_in(source)
        failures |= found.failures
        left_out += [describe_strangers(folder, names) for folder, names in sorted(found.strangers.items())]
        for case in found.cases:
            if case.name in cases:
                places = " and in ".join(_tell_apart(cases[case.name], case))
                said = f"case {case.name} is found twice, in {places}; rename or leave out one of the two"
                failures[case.name] = said
            cases.setdefault(case.name, case)
    return CaseSearch([case for name, case in cases.items() if name not in failures], failures, left_out)


def _tell_apart(one: CaseFiles, other: CaseFiles) -> list[str]:
    """The folders of two cases, or their first files if the folders are the same."""
    folders = [str(find_home(case)) for case in (one, other)]
    files = [str(next(iter(case.images.values()))) for case in (one, other)]
    return list(dict.fromkeys(folders if folders[0] != folders[1] else files))


def common_sequences(cases: Sequence[CaseFiles], task: Task) -> tuple[str, ...]:
    """The sequences of a task that every case has, in the order of the task.

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


def check_dataset(cases: Sequence[CaseFiles]) -> DatasetCheck:
    """Check names and sizes of the files of cases, without reading voxels.

    A case is incomplete if it lacks a sequence or the label map that more than half of the cases of its layout have. It
    is also incomplete if a file is absent, empty or cut short.
    """
    layouts = Counter(case.layout for case in cases)
    counts = Counter((case.layout, part) for case in cases for part in _list_parts(case))
    usual = [(layout, part) for (layout, part), count in counts.items() if 2 * count > layouts[layout]]
    defects: dict[str, tuple[str, ...]] = {}
    for case, damage in zip(cases, _find_damages(cases), strict=True):
        missing = [part for layout, part in usual if layout == case.layout and part not in _list_parts(case)]
        defects[case.name] = (*(f"no {part}" for part in missing), *damage)
    return DatasetCheck(
        layouts,
        Counter(sequence for case in cases for sequence in case.images),
        sum(case.lesion is not None for case in cases),
        {name: found for name, found in defects.items() if found},
    )


def check_whole(cases: Sequence[CaseFiles], sequences: Sequence[str]) -> None:
    """Check that the files of cases are complete, which they are not after a broken download.

    Raises:
        DatasetError: a file of these sequences, or a label map, is absent, empty or cut short.
    """
    damages = zip(cases, _find_damages(cases, sequences), strict=True)
    broken = [f"case {case.name}: {sentence}" for case, damage in damages for sentence in damage]
    if broken:
        more = f" (and {len(broken) - 1} more; see brainsegnet inspect)" if len(broken) > 1 else ""
        raise DatasetError(f"{broken[0]}, or exclude the case{more}")


def load_case(
    files: CaseFiles,
    sequences: Sequence[str],
    task: Task,
    *,
    lesion: bool,
    allow_missing: bool = False,
    align: Align | None = None,
) -> Case:
    """Read a case, with one thread for each file, and its label map in the convention of `task`.

    Args:
        files: Files of the case.
        sequences: Sequences to read, in the order of the case. The first one present defines the grid.
        task: Task whose label values the label map gets.
        lesion: Whether the label map is read too.
        allow_missing: Continue with the sequences that are present, at least one.
        align: Brings the other sequences, and a label map on another grid, to the grid of the first sequence. Without
            it other grids are refused.

    Raises:
        MissingSequence: a sequence is absent.
        DatasetError: the label map is absent.
        ImageError: an image cannot be used.
        LabelError: the label map holds values outside its convention.
        GridMismatch: a volume is on another grid.
    """
    present = _choose(files, sequences, allow_missing)
    if lesion and files.lesion is None:
        raise DatasetError(f"case {files.name} has no label map; add it or leave the case out")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_labels, files.lesion) if lesion and files.lesion else None
        volumes = read_sequences(files, present)
        labels = reading.result() if reading else None
    if labels is not None:
        labels = labels.with_array(task.bring(labels.array, files.convention, files.name))
    images, first = dict(zip(present, volumes, strict=True)), volumes[0]
    if align is not None:
        images = {name: image if image is first else align(name, image, first) for name, image in images.items()}
        if labels is not None and not labels.on_grid_of(first):
            moved = align(LESION, labels, first)
            labels = moved.with_labels(moved.array)
    return Case(files.name, images, labels)


def read_prediction(path: Path, task: Task, case: str) -> LabelMap:
    """Read a predicted label map in the convention of a task, matched by the tissue names in the JSON beside it.

    Without such a JSON, its values mean what the task says.

    Raises:
        ImageError: it cannot be read.
        LabelError: it holds values or tissues that the task does not know.
    """
    labels, source = read_labels(path), _find_convention(path)
    try:
        return labels.with_array(task.bring(labels.array, source, case))
    except LabelError as error:
        if source is None or source.labels == task.labels:
            raise
        raise LabelError(f"{error}; {path.name} is of {source.name}, says the JSON beside it") from error


def find_in(source: Path) -> Found:
    """The cases of one folder or table. Errors are those of `search_cases`."""
    if source.is_file() and source.suffix.lower() in TABLES:
        return Found(read_table(source), {}, {})
    if not source.is_dir():
        fact = "is neither a folder nor a .csv or .yaml table" if source.exists() else "does not exist"
        raise DatasetError(f"{source} {fact}; name a folder of cases")
    found = discover(source)
    if not found.cases and not found.ambiguous:
        known = f"a known layout ({'; '.join(LAYOUT_NAMES)})"
        raise DatasetError(f"{source} holds no case of {known}; list its files in a .csv table instead")
    failures = {case.name: case.sentence for case in sorted(found.ambiguous, key=lambda case: case.name)}
    return Found(sorted(found.cases, key=lambda case: case.name), failures, found.strangers)


def describe_strangers(folder: Path, names: Sequence[str]) -> str:
    """A sentence on why the images of a folder belong to no case."""
    if len(names) == 1:
        return f"{folder} is left out: its image {names[0]} is named in no known way; list it in a .csv table"
    count = f"{len(names)} images ({names[0]}, ...)"
    return f"{folder} is left out: its {count} are named in no known way; list them in a .csv table"


def _find_damages(cases: Sequence[CaseFiles], sequences: Iterable[str] | None = None) -> list[list[str]]:
    """Of each case a sentence for each file that is absent, empty or cut short: labels, and all or these sequences."""

    def look(case: CaseFiles) -> list[str]:
        names = case.images if sequences is None else [name for name in sequences if name in case.images]
        paths = [*(case.images[name] for name in names), *([case.lesion] if case.lesion else [])]
        damages = []
        for path in dict.fromkeys(paths):
            try:
                check_size(path)
            except ImageError as error:
                damages.append(str(error))
        return damages

    with ThreadPoolExecutor() as pool:
        return list(pool.map(look, cases))


def _list_parts(case: CaseFiles) -> list[str]:
    return [*case.images, *(["label map"] if case.lesion else [])]


def _choose(files: CaseFiles, sequences: Sequence[str], allow_missing: bool) -> list[str]:
    present = [name for name in sequences if name in files.images]
    missing = [name for name in sequences if name not in files.images]
    if missing and not (allow_missing and present):
        add = "add what is missing, or name those that every case has"
        remedy = "name the sequences it has" if allow_missing else add
        raise MissingSequence(
            f"case {files.name} has no {', '.join(missing)}, only {', '.join(files.images)}; {remedy}"
        )
    return present


def _find_convention(path: Path) -> Task | None:
    """What the values of a label map stand for, from the JSON beside it; None if it does not say so."""
    note = read_note(path.with_name(f"{stem_of(path, READERS)}.json"))
    labels = note.get("convention", {})
    with suppress(ValueError, TypeError):
        regions = {"all": [int(value) for value in labels]}
        return Task.model_validate(
            {"name": note.get("task"), "sequences": ["any"], "labels": labels, "regions": regions}
        )
    return None
