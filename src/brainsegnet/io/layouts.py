"""How the public data sets name their files, and the cases of a folder in any of these layouts.

A layout is a value: a pattern of the path for each sequence. The group `case` of a pattern ends where the name of the
case ends in the path. So a case is a folder, a prefix of file names or a folder of folders. A group `folder` stands for
`<folder>/<folder>`: a file with its own name among files that begin with the name of their folder. Names that begin
with `sub-`, and folders with a `dataset.json`, are left to `described`.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from brainsegnet._atomic import find_suffix, is_hidden
from brainsegnet._documents import load_json, read_text
from brainsegnet.errors import DatasetError
from brainsegnet.io.case_files import LESION, Ambiguous, CaseFiles, clean_name
from brainsegnet.io.described import (
    BIDS_FILE,
    DECATHLON,
    FOLDERS,
    JSON,
    NNUNET,
    collect_bids,
    collect_described,
    has_description,
)
from brainsegnet.io.images import READERS, is_second_half
from brainsegnet.task import BRATS2015, BRATS2021, BRATS2023, ISLES2017, ISLES2022, MS, Task


class Layout(NamedTuple):
    """How a data set names its files. `patterns` are regular expressions for the path, without regard to case.

    `disease` is what the patients have, if there is no convention that tells it.
    """

    name: str
    convention: Task | None
    patterns: Mapping[str, str]
    disease: str = ""


_IMAGE = r"\.(nii\.gz|nii|hdr\.gz|hdr|mgz|mgh|mha|mhd|nrrd)"
_VSD_STEMS = {
    "flair": "VSD.Brain.XX.O.MR_Flair",
    "t1": "VSD.Brain.XX.O.MR_T1",
    "t1c": "VSD.Brain.XX.O.MR_T1c",
    "t2": "VSD.Brain.XX.O.MR_T2",
    LESION: "VSD.Brain_3more.XX.O.OT",
}
_STROKE_STEMS = {
    **{name.lower(): f"VSD.Brain.XX.O.MR_{name}" for name in ("ADC", "MTT", "rCBF", "rCBV", "Tmax", "TTP")},
    "pwi": "VSD.Brain.XX.O.MR_4DPWI",
    LESION: "VSD.Brain.XX.O.OT",
}


def vsd_path(sequence: str, identifier: int) -> Path:
    """Path of a sequence, or of the `lesion`, within the folder of a case in BRATS 2015.

    Examples:
        >>> vsd_path("t1c", 54514).as_posix()
        'VSD.Brain.XX.O.MR_T1c.54514/VSD.Brain.XX.O.MR_T1c.54514.mha'
    """
    stem = f"{_VSD_STEMS[sequence]}.{identifier}"
    return Path(stem) / f"{stem}.mha"


def smir_path(sequence: str, identifier: int, prefix: str = "SMIR") -> Path:
    """Path of a sequence, the raw perfusion `pwi`, or the `lesion`, within the folder of a case in ISLES 2017.

    Examples:
        >>> smir_path("tmax", 127019, "VSD").as_posix()
        'VSD.Brain.XX.O.MR_Tmax.127019/VSD.Brain.XX.O.MR_Tmax.127019.nii'
    """
    stem = f"{_STROKE_STEMS[sequence].replace('VSD', prefix, 1)}.{identifier}"
    return Path(stem) / f"{stem}.nii"


def _vsd_patterns(stems: Mapping[str, str]) -> dict[str, str]:
    """A folder and a file in it, of either platform, which numbers its files."""
    escaped = {sequence: re.escape(stem).replace("VSD", "(VSD|SMIR)") for sequence, stem in stems.items()}
    names = {sequence: stem.replace("_3more", "(_[0-9]more)?") + r"\.[0-9]+" for sequence, stem in escaped.items()}
    return {sequence: rf"(?P<case>[^/]+)/{name}/{name}{_IMAGE}" for sequence, name in names.items()}


def _endings(between: str, **endings: str) -> dict[str, str]:
    """A prefix of the file name is the case: `<case><between><ending>.nii.gz`."""
    return {sequence: rf"(?P<case>[^/]+?){between}{ending}{_IMAGE}" for sequence, ending in endings.items()}


def _names(after: str = "", **names: str) -> dict[str, str]:
    """The folder is the case: `<case>/<name><after>.nii.gz`."""
    return {sequence: rf"(?P<case>[^/]+)/{name}{after}{_IMAGE}" for sequence, name in names.items()}


_CASE_355 = rf"(?P<folder>[^/]+)/W39_1998\.09\.19_Segm{_IMAGE}"
"""What the segmentation of BraTS20_Training_355 is called in the public archive of 2020."""
_BRATS_2021 = _endings("_", flair="flair", t1="t1", t1c="t1ce", t2="t2", lesion="seg")

LAYOUTS = (
    Layout("BRATS 2015", BRATS2015, _vsd_patterns(_VSD_STEMS)),
    Layout(
        "BRATS 2015, normalised",
        BRATS2015,
        _names("_subtrMeanDivStd", flair="Flair", t1="T1", t1c="T1c", t2="T2") | _names(lesion="OTMultiClass"),
    ),
    Layout("ISLES 2017", ISLES2017, _vsd_patterns(_STROKE_STEMS)),
    Layout("BraTS 2023", BRATS2023, _endings("-", flair="t2f", t1="t1n", t1c="t1c", t2="t2w", lesion="seg")),
    Layout("BraTS 2017 to 2021", BRATS2021, {**_BRATS_2021, LESION: f"(?:{_BRATS_2021[LESION]}|{_CASE_355})"}),
    Layout("ISLES 2022", ISLES2022, _endings("(_ses-[0-9]+)?_", dwi="dwi", adc="adc", flair="flair", lesion="msk")),
    Layout(
        "MS, Lesjak 2017",
        None,
        _names("_N4[^/]*", flair="FLAIR", t1="T1", t1c="T1POST", t2="T2", lesion="GOLD_STANDARD"),
        MS,
    ),
    Layout(
        "<case>/<sequence>.nii.gz",
        None,
        _names(flair="flair", t1="t1", t1c="(t1c|t1ce|t1gd)", t2="t2")
        | _names(**{name: name for name in ("dwi", "adc", "mtt", "rcbf", "rcbv", "tmax", "ttp", "pwi")})
        | _names(lesion="(lesion|label|seg)"),
    ),
)


def names_lesion(path: Path) -> bool:
    """Whether a file beside the images of a case would count as its lesion, by its name.

    Examples:
        >>> names_lesion(Path("pat1/lesion.nii.gz")), names_lesion(Path("pat1/found.nii.gz"))
        (True, False)
    """
    place = f"{path.absolute().parent.name}/{path.name}"
    patterns = (layout.patterns.get(LESION) for layout in LAYOUTS)
    return any(pattern and re.search(f"(^|/){pattern}$", place, re.IGNORECASE) for pattern in patterns)


DEPTH = 6
"""Folders below the one that is named: an archive, `derivatives`, a pipeline, a subject, a session, `anat`."""
LAYOUT_NAMES = (*(layout.name for layout in LAYOUTS), "BIDS", DECATHLON, NNUNET)
_COMPILED = [
    (layout, sequence, re.compile(f".*/{pattern}", re.IGNORECASE))
    for layout in LAYOUTS
    for sequence, pattern in layout.patterns.items()
]


class _Hit(NamedTuple):
    """A file that a layout claims: `root` is the path up to the end of the name of its case."""

    layout: Layout
    sequence: str
    root: Path
    path: Path


class Discovery(NamedTuple):
    """What is found in a folder, in no order.

    Attributes:
        cases: The cases that can be read.
        ambiguous: The cases with two files for one sequence.
        strangers: Folder to the names of its images, if no layout knows any of them and the folder is in no case.
    """

    cases: list[CaseFiles]
    ambiguous: list[Ambiguous]
    strangers: dict[Path, list[str]]


def discover(folder: Path) -> Discovery:
    """Find the cases in a folder, `DEPTH` levels deep, or the single case that the folder is.

    Raises:
        DatasetError: a folder cannot be read.
    """
    top = Path(os.path.abspath(folder))
    if top.name in FOLDERS and (top.parent / JSON).is_file():
        return Discovery(collect_described(top.parent, [top.name]), [], {})
    described: list[CaseFiles] = []
    unknown: dict[Path, list[str]] = {}
    bids: list[Path] = []
    hits: list[_Hit] = []
    for directory, folders, names in _walk(top):
        if has_description(directory, folders):
            folders.clear()
            described += collect_described(directory)
            continue
        maps = find_maps(directory) if any(name.endswith(".json") for name in names) else set()
        for name in sorted({*names} - maps):
            if BIDS_FILE.fullmatch(name):
                bids.append(directory / name)
            elif claims := list(_match(directory / name)):
                hits += claims
            elif find_suffix(Path(name), READERS):
                unknown.setdefault(directory, []).append(name)
    found = [*described, *collect_bids(bids), *_collect(hits)]
    cases = [case for case in found if isinstance(case, CaseFiles)]
    ambiguous = [case for case in found if isinstance(case, Ambiguous)]
    known = {path.parent for path in bids} | {hit.path.parent for hit in hits}
    return Discovery(cases, ambiguous, _find_strangers(unknown, known, cases))


def find_home(case: CaseFiles) -> Path:
    """The deepest folder that holds all images of a case."""
    return Path(os.path.commonpath([path.parent for path in case.images.values()]))


def _find_strangers(
    unknown: Mapping[Path, list[str]], known: Collection[Path], cases: Sequence[CaseFiles]
) -> dict[Path, list[str]]:
    """Images that belong to no case and that `segment` did not write.

    Args:
        unknown: Folder to the names of its images that no layout knows.
        known: Folders with images that a layout knows.
        cases: The cases that were found. The folder of a single case may hold other images.
    """
    homes = Counter(map(find_home, cases))
    strangers = {}
    for folder, names in unknown.items():
        if any(homes[above] == 1 for above in (folder, *folder.parents)) or (folder in known and not homes[folder]):
            continue
        halves = {name for name in names if any(is_second_half(Path(name), Path(other)) for other in names)}
        if images := sorted({*names} - halves - find_maps(folder) - find_labels(folder)):
            strangers[folder] = images
    return strangers


def read_note(path: Path) -> Mapping[str, Any]:
    """The content of the JSON that `segment` wrote beside a label map; empty if there is none."""
    with suppress(OSError, ValueError):
        if isinstance(note := load_json(read_text(path)), dict):
            return note
    return {}


def find_maps(folder: Path) -> set[str]:
    """Names of the images that JSONs in a folder list beside the label maps: probabilities, entropy, other grids.

    Of results as BIDS derivatives all files, the label map too, because their names are those of truths.
    """
    notes = _read_notes(folder)
    maps = [note.get(kind) for note in notes for kind in ("probabilities", "uncertainty", "grids")]
    named = [name for files in maps if isinstance(files, dict) for name in files.values()]
    named += [name for note in notes if isinstance(files := note.get("derivatives"), list) for name in files]
    return {name for name in named if isinstance(name, str)}


def find_labels(folder: Path) -> set[str]:
    """Names of the label maps in a folder that `segment` wrote, according to its JSONs."""
    return {note["labels"] for note in _read_notes(folder) if isinstance(note.get("labels"), str)}


def _read_notes(folder: Path) -> list[Mapping[str, Any]]:
    return [read_note(path) for path in folder.glob("*.json") if not is_hidden(path.name)]


def _walk(top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Folders, the folders in them and the names of their files, hidden ones left out."""

    def refuse(error: OSError) -> None:
        raise DatasetError(f"folder {error.filename} cannot be read: {error.strerror}") from error

    for directory, folders, names in os.walk(top, onerror=refuse, followlinks=True):
        depth = len(Path(directory).relative_to(top).parts)
        folders[:] = sorted(name for name in folders if depth < DEPTH and not is_hidden(name))
        yield Path(directory), folders, sorted(name for name in names if not is_hidden(name))


def _match(path: Path) -> Iterator[_Hit]:
    whole = path.as_posix()
    for layout, sequence, pattern in _COMPILED:
        if match := pattern.fullmatch(whole):
            folder = match.groupdict().get("folder")
            root = Path(whole[: match.end("folder")], folder) if folder else Path(whole[: match.end("case")])
            yield _Hit(layout, sequence, root, path)


def _collect(hits: Sequence[_Hit]) -> Iterator[CaseFiles | Ambiguous]:
    """The cases: a file belongs to the layout that knows most files of its case and, among equals, of the folder."""
    in_case = Counter((hit.root, hit.layout.name) for hit in hits)
    in_all = Counter(hit.layout.name for hit in hits)
    by_case: defaultdict[tuple[Path, str], list[_Hit]] = defaultdict(list)
    for _, claims in groupby(hits, key=lambda hit: hit.path):
        best = max(claims, key=lambda hit: (in_case[hit.root, hit.layout.name], in_all[hit.layout.name]))
        by_case[best.root, best.layout.name].append(best)
    for (root, _), found in by_case.items():
        layout, name = found[0].layout, _name_case(root)
        files: dict[str, Path] = {}
        twice = next((hit for hit in found if files.setdefault(hit.sequence, hit.path) != hit.path), None)
        if twice:
            both = f"{files[twice.sequence]} and {twice.path}"
            yield Ambiguous(name, f"case {name} has two files for {twice.sequence}, {both}; remove one")
            continue
        ordered = {sequence: files[sequence] for sequence in layout.patterns if sequence in files}
        if case := CaseFiles.of(name, ordered, layout.convention, layout.name):
            yield replace(case, disease=layout.disease)


def _name_case(root: Path) -> str:
    """Name of a case, after its grade if the folder of the other grade has a patient of the same name.

    In BRATS 2015 both hold a `brats_2013_pat0001_1`, which are different patients.
    """
    grade = root.parent.name
    other = {"HGG": "LGG", "LGG": "HGG"}.get(grade)
    twin = other and (root.parent.with_name(other) / root.name).exists()
    return clean_name(f"{grade}_{root.name}" if twin else root.name)
