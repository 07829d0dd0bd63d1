"""Which label map is the prediction of which truth: files, folders, tables and data sets, paired by case."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from brainsegnet._atomic import find_suffix, is_hidden, stem_of
from brainsegnet.errors import BrainSegNetError, DatasetError
from brainsegnet.io.case_files import TABLES, clean_name
from brainsegnet.io.cases import search_cases
from brainsegnet.io.images import READERS, is_second_half
from brainsegnet.io.layouts import find_maps
from brainsegnet.task import Task

Truths = dict[str, tuple[Path, Task | None]]
"""Case name to its label map and the convention of that map; None means the convention of the task."""


def find_pairs(
    predicted: Path, truths: Sequence[Path]
) -> tuple[dict[str, tuple[Path, Path, Task | None]], list[str], dict[str, BrainSegNetError]]:
    """Case to prediction, truth and its convention; cases without a prediction; and ambiguous cases with the reason."""
    if predicted.is_file() and len(truths) == 1 and truths[0].is_file() and truths[0].suffix not in TABLES:
        return {clean_name(stem_of(predicted, READERS)): (predicted, truths[0], None)}, [], {}
    found, twice = search_label_files(predicted)
    known, unusable = _find_truths(truths)
    if predicted.is_file() and len(known) == 1:
        name, (path, convention) = next(iter(known.items()))
        return {name: (predicted, path, convention)}, [], {}
    failures = {name: DatasetError(unusable[name]) for name in (found.keys() | twice.keys()) & unusable.keys()}
    failures |= {name: DatasetError(sentence) for name, sentence in twice.items()}
    found = {name: path for name, path in found.items() if name not in failures}
    if lone := sorted(found.keys() - known.keys()):
        there = ", ".join(sorted(known)) or "no label map"
        raise DatasetError(f"prediction {lone[0]} has no truth in {', '.join(map(str, truths))}, which holds {there}")
    absent = [] if predicted.is_file() else sorted(known.keys() - found.keys() - failures.keys())
    return {name: (path, *known[name]) for name, path in found.items()}, absent, dict(sorted(failures.items()))


def _find_truths(truths: Sequence[Path]) -> tuple[Truths, Mapping[str, str]]:
    """The true label maps of cases. If there are none, those directly in the folders, in the task's own convention.

    Returns:
        Case to truth and its convention; and the name of each case that cannot be used, to a sentence that says why.
    """
    folders = [search_label_files(truth) for truth in truths if truth.is_dir()]
    files: Truths = {name: (path, None) for found, _ in folders for name, path in found.items()}
    twice = {name: sentence for _, sentences in folders for name, sentence in sentences.items()}
    try:
        cases, failures, _ = search_cases(truths)
    except DatasetError:
        if not files and not twice:
            raise
        return files, twice
    known: Truths = {case.name: (case.lesion, case.convention) for case in cases if case.lesion}
    scans = {path for case in cases for path in case.images.values()}
    others = {name: pair for name, pair in files.items() if pair[0] not in scans}
    if not known and not others and not failures:
        there = ", ".join(map(str, truths))
        raise DatasetError(f"case {cases[0].name} has no label map in {there}; name what it is to be scored against")
    return (known, failures) if known or failures else (others, twice)


def label_files(folder: Path) -> dict[str, Path]:
    """Find the label maps as `search_label_files`, and require that each has a name of its own.

    Raises:
        DatasetError: as `search_label_files`, or two files are named after one case.
    """
    files, twice = search_label_files(folder)
    if twice:
        raise DatasetError(next(iter(twice.values())))
    return files


def search_label_files(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Find the label maps directly in a folder, or a single file. Maps of probability or entropy are left out.

    Returns:
        Name to label map; and each name that two files have, to a sentence that says so. Hidden files are ignored.

    Raises:
        DatasetError: there is no such folder, or the file is not an image.
    """
    if folder.is_file() and not find_suffix(folder, READERS):
        raise DatasetError(f"{folder} is no image ({', '.join(READERS)}); name a label map or a folder of them")
    if folder.is_file():
        return {clean_name(stem_of(folder, READERS)): folder}, {}
    if not folder.is_dir():
        raise DatasetError(f"{folder} does not exist; name a label map or a folder of them")
    maps, files, twice = find_maps(folder), dict[str, Path](), dict[str, str]()
    for path in sorted(folder.iterdir()):
        if is_hidden(path.name) or path.name in maps or not find_suffix(path, READERS) or not path.is_file():
            continue
        name = clean_name(stem_of(path, READERS))
        if files.setdefault(name, path) != path and not is_second_half(path, files[name]):
            twice[name] = f"case {name} has two label maps, {files[name]} and {path.name}; remove one"
    return {name: path for name, path in files.items() if name not in twice}, twice
