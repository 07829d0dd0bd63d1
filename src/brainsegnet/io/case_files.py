"""A case as files: which file, or which part of one, is which sequence; and reading them.

What a set of cases is, before anything long starts: its layout, its sequences, and what is missing or damaged.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from brainsegnet.errors import DatasetError, ImageError
from brainsegnet.io.images import check_size, read_image, read_series
from brainsegnet.io.perfusion import MAPS, summarise
from brainsegnet.task import Task
from brainsegnet.volume import Volume

PERFUSION = "pwi"
"""A raw perfusion series; it is not a sequence itself, but gives `pwi_baseline`, `pwi_drop`, `pwi_peak`, `pwi_area`."""
Part = int | str
"""A frame of a 4-D file, counted from 0, or a map of a perfusion series by name."""


@dataclass(frozen=True)
class CaseFiles:
    """Where the parts of a case lie.

    Attributes:
        name: What the case is called.
        images: Sequence name to file, at least one.
        lesion: File of the label map, or None.
        convention: Task whose label values the label map uses; None if it is the task that is asked for.
        parts: Of the sequences that share a file with others: which part of it they are.
        layout: How the data set is laid out, in words.
    """

    name: str
    images: Mapping[str, Path]
    lesion: Path | None = None
    convention: Task | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)
    layout: str = field(default="", compare=False)


def spread_perfusion(images: Mapping[str, Path]) -> tuple[dict[str, Path], dict[str, Part]]:
    """Files and parts of a case: a perfusion series, if it has one, stands for the maps that can be made of it.

    >>> files, parts = spread_perfusion({"adc": Path("a.nii"), "pwi": Path("p.nii")})
    >>> list(files), parts["pwi_drop"]
    (['adc', 'pwi_baseline', 'pwi_drop', 'pwi_peak', 'pwi_area'], 'drop')
    """
    files = {name: path for name, path in images.items() if name != PERFUSION}
    if PERFUSION not in images:
        return files, {}
    maps: dict[str, Part] = {f"{PERFUSION}_{part}": part for part in MAPS}
    return files | dict.fromkeys(maps, images[PERFUSION]), maps


def read_sequences(files: CaseFiles, sequences: Sequence[str]) -> list[Volume]:
    """Images of a case in the given order, one thread a file; a file that holds several of them is read once.

    Raises:
        ImageError: a file cannot be used, or has not the frame that is due.
    """
    alone = [(files.images[name], [name]) for name in sequences if name not in files.parts]
    shared: dict[Path, list[str]] = {}
    for name in sequences:
        if name in files.parts:
            shared.setdefault(files.images[name], []).append(name)
    with ThreadPoolExecutor() as pool:
        read = pool.map(lambda file: _read_file(files, *file), [*alone, *shared.items()])
        volumes = {name: volume for found in read for name, volume in found.items()}
    return [volumes[name] for name in sequences]


def _read_file(files: CaseFiles, path: Path, names: Sequence[str]) -> dict[str, Volume]:
    parts = {name: files.parts[name] for name in names if name in files.parts}
    if not parts:
        return {name: read_image(path) for name in names}
    series = read_series(path)
    maps = summarise(series, str(path)) if any(isinstance(part, str) for part in parts.values()) else {}
    volumes = {}
    for name, part in parts.items():
        if isinstance(part, int) and part >= len(series):
            raise ImageError(
                f"{path} holds {len(series)} images, but {name} should be number {part + 1}; fetch it again"
            )
        volumes[name] = maps[part] if isinstance(part, str) else series.frame(part)
    return volumes


@dataclass(frozen=True)
class DatasetCheck:
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


def check_dataset(cases: Sequence[CaseFiles]) -> DatasetCheck:
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
    return DatasetCheck(
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
