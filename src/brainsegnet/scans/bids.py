"""Data sets in the layout of BIDS: `sub-<label>/[ses-<label>/]anat|dwi|perf/sub-<label>_..._<suffix>.nii.gz`.

Masks lie beside the images or below `derivatives/`, as in ISLES 2022. Files of one subject and session belong together
wherever they lie in the data set. Flat copies, all files of a subject in one folder, are the same to this reader.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainsegnet.errors import DatasetError
from brainsegnet.scans.case_files import CaseFiles, spread_perfusion
from brainsegnet.scans.names import ORDER, find_sequence
from brainsegnet.scans.table import LESION
from brainsegnet.task import BRATS2021, ISLES2022, Task

_FILE = re.compile(
    r"sub-(?P<sub>[a-z0-9]+)(?:_ses-(?P<ses>[a-z0-9]+))?(?P<entities>(?:_[a-z0-9]+-[a-z0-9+]+)*)"
    r"_(?P<suffix>[a-z0-9]+(?:-msk)?)\.(?:nii\.gz|nii|mha|mhd|nrrd)",
    re.IGNORECASE,
)
_MASKS = {"msk", "mask", "dseg", "seg", "roi", "lesion", "label", "lesion-msk"}
_OTHER_MASKS = re.compile(r"brain|head|skull|white|grey|gray|csf|ventricle|tissue|aparc|aseg|label-(gm|wm)\b|probseg")
_INSIDE = re.compile(r"(sub|ses)-.*|anat|dwi|perf|pwi|swi|func|fmap|ce|raw_?data", re.IGNORECASE)
_ELSEWHERE = {"func", "fmap", "eeg", "meg", "ieeg", "beh", "pet", "figures"}
"""Folders that hold no structural image."""
_DERIVATIVES = "derivatives"


@dataclass(frozen=True)
class _Scan:
    """A file by what its name says; `plainness` orders files of one sequence, the plainest first."""

    root: Path
    subject: str
    session: str
    sequence: str
    suffix: str
    plainness: tuple[bool, int]
    path: Path


def is_bids(name: str) -> bool:
    """Whether a file's name is one of BIDS, of an image.

    >>> is_bids("sub-01_ses-2_ce-gadolinium_T1w.nii.gz"), is_bids("BraTS20_Training_001_t1.nii.gz")
    (True, False)
    """
    return _FILE.fullmatch(name) is not None


def collect_bids(paths: Iterable[Path]) -> Iterator[CaseFiles]:
    """The cases that files with names of BIDS make up; named after the subject, and the session where it has several.

    Of several files for one sequence the one in the raw data with the shortest name is taken: `sub-1_T1w` rather than
    `sub-1_desc-preproc_T1w`.

    Raises:
        DatasetError: two files for one sequence are equally plain, such as two runs.
    """
    groups: defaultdict[tuple[Path, str], defaultdict[str, list[_Scan]]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        if scan := _parse(path):
            groups[scan.root, scan.subject][scan.session].append(scan)
    for (_, subject), sessions in groups.items():
        shared = sessions.pop("", []) if len(sessions) == 2 else []
        for session, scans in sessions.items():
            name = f"sub-{subject}" + (f"_ses-{session}" if len(sessions) > 1 and session else "")
            files = _choose(name, [*scans, *shared])
            images, parts = spread_perfusion({key: scan.path for key, scan in files.items() if key != LESION})
            lesion = files[LESION].path if LESION in files else None
            if images:
                convention = _find_convention(files)
                layout = "ISLES 2022" if convention is ISLES2022 else "BIDS"
                yield CaseFiles(name, images, lesion, convention, parts, layout)


def _parse(path: Path) -> _Scan | None:
    """None for files that are neither a sequence nor a mask of lesions."""
    match = _FILE.fullmatch(path.name)
    if match is None or path.parent.name in _ELSEWHERE:
        return None
    entities, suffix = match["entities"].lower(), match["suffix"].lower()
    if suffix in _MASKS:
        if _OTHER_MASKS.search(entities):
            return None
        sequence = LESION
    else:
        contrast = "_ce-" in entities and suffix.startswith("t1")
        sequence = "t1c" if contrast else find_sequence(suffix)
    plainness = (sequence != LESION and _DERIVATIVES in path.parts, entities.replace("_ce-", "").count("_"))
    return _Scan(_find_root(path), match["sub"], match["ses"] or "", sequence, suffix, plainness, path)


def _find_root(path: Path) -> Path:
    """The folder of the data set: above `derivatives`, or the first above that is no folder within a data set."""
    folder = path.parent
    if _DERIVATIVES in folder.parts:
        return next(parent for parent in folder.parents if parent / _DERIVATIVES in (folder, *folder.parents))
    while _INSIDE.fullmatch(folder.name):
        folder = folder.parent
    return folder


def _choose(case: str, scans: Sequence[_Scan]) -> dict[str, _Scan]:
    """The plainest file of each sequence; of one that we do not know, none if several are."""
    by_sequence: defaultdict[str, list[_Scan]] = defaultdict(list)
    for scan in sorted(scans, key=lambda scan: scan.plainness):
        by_sequence[scan.sequence].append(scan)
    chosen = {}
    for sequence, (first, *others) in by_sequence.items():
        if not others or others[0].plainness > first.plainness:
            chosen[sequence] = first
        elif sequence in (*ORDER, LESION):
            raise DatasetError(
                f"case {case} has two files for {sequence}, {first.path} and {others[0].path}; remove one, or list the "
                "files in a .csv table"
            )
    rank = {name: i for i, name in enumerate(ORDER)}
    return dict(sorted(chosen.items(), key=lambda item: (rank.get(item[0], len(rank)), item[0])))


def _find_convention(files: Mapping[str, _Scan]) -> Task | None:
    suffixes = {scan.suffix for sequence, scan in files.items() if sequence != LESION}
    if {"dwi", "adc"} <= suffixes <= {"dwi", "adc", "flair"}:
        return ISLES2022
    return BRATS2021 if "t1ce" in suffixes else None
