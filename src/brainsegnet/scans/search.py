"""The cases of a folder, whichever layout it has."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from brainsegnet.errors import DatasetError
from brainsegnet.scans.bids import collect_bids, is_bids
from brainsegnet.scans.case_files import CaseFiles, spread_perfusion
from brainsegnet.scans.dataset_json import DECATHLON, FOLDERS, JSON, NNUNET, collect_described, has_description
from brainsegnet.scans.predictions import find_maps
from brainsegnet.scans.schemes import SCHEMES, Scheme
from brainsegnet.scans.table import LESION

DEPTH = 6
"""Folders below the one that is named: an archive, `derivatives`, a pipeline, a subject, a session, `anat`."""
LAYOUTS = (*(scheme.name for scheme in SCHEMES), "BIDS", DECATHLON, NNUNET)
GRADES = ("HGG", "LGG")
"""Folders of BRATS; in 2015 both hold a `brats_2013_pat0001_1`, of different patients."""
_NOTE = re.compile(r"sub-[a-z0-9]+(_ses-[a-z0-9]+)?\.json", re.IGNORECASE)
"""What `segment` calls the JSON of a case of BIDS; those of BIDS itself end in a suffix such as `_dwi`."""

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


def search(folder: Path) -> list[CaseFiles]:
    """The cases in a folder, or the one that it is, in no order; searched `DEPTH` levels deep.

    Raises:
        DatasetError: unreadable, or a sequence of a case that is ambiguous.
    """
    top = Path(os.path.abspath(folder))
    if top.name in FOLDERS and (top.parent / JSON).is_file():
        return collect_described(top.parent, [top.name])
    described: list[CaseFiles] = []
    bids: list[Path] = []
    hits: list[_Hit] = []
    for directory, folders, names in _walk(top):
        if has_description(directory, folders):
            folders.clear()
            described += collect_described(directory)
            continue
        maps = find_maps(directory) if any(map(_NOTE.fullmatch, names)) else set()
        for name in sorted({*names} - maps):
            if is_bids(name):
                bids.append(directory / name)
            else:
                hits += _match(directory / name)
    return [*described, *collect_bids(bids), *_collect(hits)]


def _walk(top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Folders, the folders in them and the names of their files, hidden ones left out."""

    def refuse(error: OSError) -> None:
        raise DatasetError(f"folder {error.filename} cannot be read: {error.strerror}") from error

    for directory, folders, names in os.walk(top, onerror=refuse, followlinks=True):
        depth = len(Path(directory).relative_to(top).parts)
        folders[:] = [name for name in folders if depth < DEPTH and not name.startswith(".")]
        yield Path(directory), folders, sorted(name for name in names if not name.startswith("."))


def _match(path: Path) -> Iterator[_Hit]:
    whole = path.as_posix()
    for scheme, sequence, pattern in _COMPILED:
        if match := pattern.fullmatch(whole):
            if match.groupdict().get("folder"):
                root = Path(whole[: match.end("folder")], match["folder"])
            else:
                root = Path(whole[: match.end("case")])
            yield _Hit(scheme, sequence, root, path)


def _collect(hits: Iterable[_Hit]) -> Iterator[CaseFiles]:
    """The cases: a file belongs to the scheme that knows most files of its case and, among equals, of the folder."""
    by_file: defaultdict[Path, list[_Hit]] = defaultdict(list)
    for hit in hits:
        by_file[hit.path].append(hit)
    in_case = Counter((hit.root, hit.scheme.name) for claims in by_file.values() for hit in claims)
    in_all = Counter(hit.scheme.name for claims in by_file.values() for hit in claims)
    by_case: defaultdict[tuple[Path, str], list[_Hit]] = defaultdict(list)
    for claims in by_file.values():
        best = max(claims, key=lambda hit: (in_case[hit.root, hit.scheme.name], in_all[hit.scheme.name]))
        by_case[best.root, best.scheme.name].append(best)
    for (root, _), found in by_case.items():
        scheme, name = found[0].scheme, _name_case(root)
        files = _by_sequence(name, found)
        ordered = {sequence: files[sequence] for sequence in scheme.patterns if sequence in files}
        lesion = ordered.pop(LESION, None)
        images, parts = spread_perfusion(ordered)
        if images:
            yield CaseFiles(name, images, lesion, scheme.convention, parts, scheme.name)


def _name_case(root: Path) -> str:
    """A case's name; with its grade before it where the folder of the other grade has another patient of that name."""
    grade = root.parent.name
    if grade in GRADES and any((root.parent.parent / other / root.name).exists() for other in GRADES if other != grade):
        return f"{grade}_{root.name}"
    return root.name


def _by_sequence(case: str, hits: Iterable[_Hit]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for hit in hits:
        if hit.sequence in files:
            raise DatasetError(
                f"case {case} has two files for {hit.sequence}, {files[hit.sequence]} and {hit.path}; remove one"
            )
        files[hit.sequence] = hit.path
    return files
