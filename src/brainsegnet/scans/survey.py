"""What a set of cases is, before anything long starts: its layout, its sequences, and what is missing or damaged."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from brainsegnet.errors import DatasetError, ImageError
from brainsegnet.scans.case_files import CaseFiles
from brainsegnet.scans.integrity import check_size


@dataclass(frozen=True)
class Survey:
    """A set of cases in numbers.

    Attributes:
        layouts: Layout to the number of its cases.
        sequences: Sequence to the number of cases that have it.
        labelled: Number of cases with a label map.
        defects: Case to what is wrong with it, of the cases that are not whole.
    """

    layouts: Mapping[str, int]
    sequences: Mapping[str, int]
    labelled: int
    defects: Mapping[str, tuple[str, ...]]


def survey(cases: Sequence[CaseFiles]) -> Survey:
    """Look at the cases: names and the ends of files, no voxels.

    A case is incomplete where it lacks a sequence, or the label map, that more than half of the cases of its layout
    have, or where a file is absent, empty or cut short.
    """
    groups: defaultdict[str, list[CaseFiles]] = defaultdict(list)
    for case in cases:
        groups[case.layout].append(case)
    usual = {layout: _find_usual(group) for layout, group in groups.items()}
    with ThreadPoolExecutor() as pool:
        damages = list(pool.map(find_damage, cases))
    defects = {
        case.name: (*_find_lacking(case, usual[case.layout]), *damage)
        for case, damage in zip(cases, damages, strict=True)
    }
    return Survey(
        {layout: len(group) for layout, group in groups.items()},
        Counter(sequence for case in cases for sequence in case.images),
        sum(case.lesion is not None for case in cases),
        {name: found for name, found in defects.items() if found},
    )


def find_damage(case: CaseFiles, sequences: Iterable[str] | None = None) -> list[str]:
    """A sentence for each file that is absent, empty or cut short: the labels, and all or the given sequences."""
    names = case.images if sequences is None else [name for name in sequences if name in case.images]
    paths = [*(case.images[name] for name in names), *([case.lesion] if case.lesion else [])]
    return [sentence for path in dict.fromkeys(paths) if (sentence := _check(path))]


def check_whole(cases: Sequence[CaseFiles], sequences: Sequence[str]) -> None:
    """Refuse cases whose files cannot all be there, as after a broken download.

    Raises:
        DatasetError: a file of these sequences, or a label map, is absent, empty or cut short.
    """
    with ThreadPoolExecutor() as pool:
        damages = list(pool.map(lambda case: find_damage(case, sequences), cases))
    broken = {case.name: damage for case, damage in zip(cases, damages, strict=True) if damage}
    if broken:
        name, damage = next(iter(broken.items()))
        others = sum(map(len, broken.values())) - 1
        more = f" (and {others} more; see brainsegnet inspect)" if others else ""
        raise DatasetError(f"case {name}: {damage[0]}, or exclude the case{more}")


def _check(path: Path) -> str:
    try:
        check_size(path)
    except ImageError as error:
        return str(error)
    return ""


def _find_usual(cases: Sequence[CaseFiles]) -> list[str]:
    """Sequences, and `label map`, that more than half of the cases have."""
    counts = Counter(name for case in cases for name in _names(case))
    return [name for name, count in counts.items() if 2 * count > len(cases)]


def _find_lacking(case: CaseFiles, usual: Sequence[str]) -> list[str]:
    return [f"no {name}" for name in usual if name not in _names(case)]


def _names(case: CaseFiles) -> list[str]:
    return [*case.images, *(["label map"] if case.lesion else [])]
