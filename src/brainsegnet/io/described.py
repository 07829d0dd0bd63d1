"""Data sets that describe themselves: BIDS by its file names, the Decathlon and nnU-Net by a `dataset.json`.

BIDS: `sub-<label>/[ses-<label>/]anat|dwi|perf/sub-<label>_..._<suffix>.nii.gz`. Masks are beside the images or below
`derivatives/`, as in ISLES 2022. Files of one subject and session belong together wherever they are in the data set. So
a flat copy, with all files of a subject in one folder, can be read too.

The Medical Segmentation Decathlon (4-D images) and nnU-Net's raw data (one file for each channel, `_0000`) keep images
in `imagesTr` and `imagesTs` and label maps in `labelsTr`. Their JSON names the sequence of each channel and the tissue
of each label. No channel gets its name from its position alone.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from brainsegnet._atomic import find_suffix, stem_of
from brainsegnet.errors import DatasetError
from brainsegnet.io.aliases import ORDER, build_convention, find_sequence
from brainsegnet.io.case_files import LESION, CaseFiles, Part
from brainsegnet.io.images import READERS
from brainsegnet.task import BRATS2021, ISLES2022, Task

BIDS_FILE = re.compile(
    r"sub-(?P<sub>[a-z0-9]+)(?:_ses-(?P<ses>[a-z0-9]+))?(?P<entities>(?:_[a-z0-9]+-[a-z0-9+]+)*)"
    r"_(?P<suffix>[a-z0-9]+(?:-msk)?)\.(?:nii\.gz|nii|mha|mhd|nrrd)",
    re.IGNORECASE,
)
"""The name of an image, as in `sub-01_ses-2_ce-gadolinium_T1w.nii.gz`."""
_MASKS = {"msk", "mask", "dseg", "seg", "roi", "lesion", "label", "lesion-msk"}
_OTHER_MASKS = re.compile(r"brain|head|skull|white|grey|gray|csf|ventricle|tissue|aparc|aseg|label-(gm|wm)\b|probseg")
_INSIDE = re.compile(r"(sub|ses)-.*|anat|dwi|perf|pwi|swi|func|fmap|ce|raw_?data", re.IGNORECASE)
_ELSEWHERE = {"func", "fmap", "eeg", "meg", "ieeg", "beh", "pet", "figures"}
"""Folders that hold no structural image."""
_DERIVATIVES = "derivatives"
JSON = "dataset.json"
DECATHLON, NNUNET = "Medical Segmentation Decathlon", "nnU-Net"
FOLDERS = {"imagesTr": "labelsTr", "imagesTs": "labelsTs"}
"""Folder of images to that of their label maps."""
_CHANNEL = re.compile(r".+_[0-9]{4}")
"""How nnU-Net names the file of a channel. Its JSON lists images without that number, the Decathlon's lists files."""


class _Scan(NamedTuple):
    """A file by what its name says; `plainness` orders files of one sequence, the plainest first."""

    sequence: str
    suffix: str
    plainness: tuple[bool, int]
    path: Path


class _Description(NamedTuple):
    """What a `dataset.json` says: its channels, by the names used here, and the images it lists, without suffix."""

    path: Path
    channels: tuple[str, ...]
    convention: Task | None
    training: tuple[str, ...]
    test: tuple[str, ...]


def collect_bids(paths: Iterable[Path]) -> Iterator[CaseFiles]:
    """The cases in files with BIDS names. A case is named after the subject, and the session if there are several.

    If there are several files for one sequence, the one in the raw data with the shortest name is used: `sub-1_T1w`
    rather than `sub-1_desc-preproc_T1w`.

    Raises:
        DatasetError: two files for one sequence are equally plain, such as two runs.
    """
    groups: defaultdict[tuple[Path, str], defaultdict[str, list[_Scan]]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        match = BIDS_FILE.fullmatch(path.name)
        if match and (scan := _parse(path, match["entities"].lower(), match["suffix"].lower())):
            groups[_find_root(path), match["sub"]][match["ses"] or ""].append(scan)
    for (_, subject), sessions in groups.items():
        shared = sessions.pop("", []) if len(sessions) == 2 else []
        for session, scans in sessions.items():
            name = f"sub-{subject}" + (f"_ses-{session}" if len(sessions) > 1 and session else "")
            chosen = _choose(name, [*scans, *shared])
            suffixes = {scan.suffix for sequence, scan in chosen.items() if sequence != LESION}
            stroke = {"dwi", "adc"} <= suffixes <= {"dwi", "adc", "flair"}
            convention = ISLES2022 if stroke else BRATS2021 if "t1ce" in suffixes else None
            files = {sequence: scan.path for sequence, scan in chosen.items()}
            if case := CaseFiles.of(name, files, convention, "ISLES 2022" if stroke else "BIDS"):
                yield case


def _parse(path: Path, entities: str, suffix: str) -> _Scan | None:
    """None for files that are neither a sequence nor a mask of lesions."""
    if path.parent.name in _ELSEWHERE or (suffix in _MASKS and _OTHER_MASKS.search(entities)):
        return None
    contrast = "_ce-" in entities and suffix.startswith("t1")
    sequence = LESION if suffix in _MASKS else "t1c" if contrast else find_sequence(suffix)
    plainness = (sequence != LESION and _DERIVATIVES in path.parts, entities.replace("_ce-", "").count("_"))
    return _Scan(sequence, suffix, plainness, path)


def _find_root(path: Path) -> Path:
    """The folder of the data set: above `derivatives`, or the first above that is no folder within a data set."""
    folder = path.parent
    if _DERIVATIVES in folder.parts:
        return next(parent for parent in folder.parents if parent / _DERIVATIVES in (folder, *folder.parents))
    while _INSIDE.fullmatch(folder.name):
        folder = folder.parent
    return folder


def _choose(case: str, scans: Sequence[_Scan]) -> dict[str, _Scan]:
    """The plainest file of each sequence; of an unknown sequence, none if several files are."""
    by_sequence: defaultdict[str, list[_Scan]] = defaultdict(list)
    for scan in sorted(scans, key=lambda scan: scan.plainness):
        by_sequence[scan.sequence].append(scan)
    chosen = {}
    for sequence, (first, *others) in by_sequence.items():
        if not others or others[0].plainness > first.plainness:
            chosen[sequence] = first
        elif sequence in (*ORDER, LESION):
            both, remedy = f"{first.path} and {others[0].path}", "remove one, or list the files in a .csv table"
            raise DatasetError(f"case {case} has two files for {sequence}, {both}; {remedy}")
    return {name: chosen[name] for name in (*ORDER, *sorted(chosen.keys() - {*ORDER})) if name in chosen}


def has_description(folder: Path, folders: Sequence[str]) -> bool:
    """Whether a folder that holds these folders belongs to a data set with a `dataset.json`.

    Raises:
        DatasetError: its folders say so, but the file is absent.
    """
    named = sorted(FOLDERS.keys() & set(folders))
    if named and not (folder / JSON).is_file():
        remedy = "add it, or list the files in a .csv table"
        raise DatasetError(f"{folder} has {', '.join(named)} but no {JSON}, which names the channels; {remedy}")
    return bool(named)


def collect_described(folder: Path, images: Sequence[str] = tuple(FOLDERS)) -> list[CaseFiles]:
    """The cases of a folder with a `dataset.json`, in its folders `images`.

    A training case that the JSON lists is expected even if its file is absent, because the download may be incomplete.

    Raises:
        DatasetError: the JSON cannot be read or names no channels and labels, or a file is a channel without a name.
    """
    description = _read_description(folder / JSON)
    return [case for name in images for case in _collect(folder, name, description)]


def _read_description(path: Path) -> _Description:
    """A `dataset.json` of the Decathlon (`modality`) or of nnU-Net (`modality` or `channel_names`)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as JSON: {error}") from error
    named = _read_mapping(content, ("channel_names", "modality"), path)
    try:
        channels = tuple(find_sequence(str(named[str(i)])) for i in range(len(named)))
    except KeyError as error:
        raise DatasetError(f"{path}: channel {error.args[0]} has no name in {named}; number channels from 0") from error
    if repeated := sorted({name for name in channels if channels.count(name) > 1}):
        raise DatasetError(f"{path}: two channels are called {repeated[0]}; name each after its sequence")
    labels = _read_mapping(content, ("labels",), path)
    convention = build_convention(str(content.get("name") or path.parent.name), channels, labels, str(path))
    return _Description(path, channels, convention, _list_names(content, "training"), _list_names(content, "test"))


def _collect(folder: Path, images: str, description: _Description) -> list[CaseFiles]:
    files, channels = _list_images(folder / images), description.channels
    parts: dict[str, Part] = {name: i for i, name in enumerate(channels)} if len(channels) > 1 else {}
    listed = {*description.training, *description.test}
    if files and all(map(_CHANNEL.fullmatch, files)) and not listed & files.keys():
        layout, parts, found = NNUNET, {}, _collect_channels(files, description)
    else:
        layout, found = DECATHLON, {stem: dict.fromkeys(channels, path) for stem, path in files.items()}
        ending = next((find_suffix(path, READERS) for path in files.values()), ".nii.gz")
        for name in description.training if images == "imagesTr" else ():
            found.setdefault(name, dict.fromkeys(channels, folder / images / f"{name}{ending}"))
    labels = _list_images(folder / FOLDERS[images])
    return [
        CaseFiles(name, paths, labels.get(name), description.convention, parts, layout) for name, paths in found.items()
    ]


def _collect_channels(files: Mapping[str, Path], description: _Description) -> dict[str, dict[str, Path]]:
    """Case to sequence to file, of nnU-Net's `<case>_0000.nii.gz`."""
    cases: dict[str, dict[str, Path]] = {}
    channels = description.channels
    for stem, path in files.items():
        case, number = stem[:-5], int(stem[-4:])
        if number >= len(channels):
            known = f"{len(channels)} channels ({', '.join(channels)})"
            raise DatasetError(f"{path} is channel {number}, but {description.path} names {known}; name it there")
        cases.setdefault(case, {})[channels[number]] = path
    return cases


def _list_images(folder: Path) -> dict[str, Path]:
    """Images of a folder by name without suffix, hidden ones left out; none if there is no folder."""
    if not folder.is_dir():
        return {}
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    return {stem_of(path, READERS): path for path in paths if find_suffix(path, READERS)}


def _list_names(content: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Names, without suffix, of the images that a JSON lists, as `{"image": path}` or as a path."""
    listed = content.get(key)
    entries = listed if isinstance(listed, list) else []
    paths = [entry.get("image", "") if isinstance(entry, dict) else entry for entry in entries]
    return tuple(stem_of(Path(str(path)), READERS) for path in paths)


def _read_mapping(content: Any, keys: Sequence[str], path: Path) -> Mapping[str, Any]:  # noqa: ANN401
    for key in keys if isinstance(content, dict) else ():
        if isinstance(content.get(key), dict) and content[key]:
            return dict(content[key])
    raise DatasetError(f"{path} has no {' or '.join(keys)}, which gives the names; add it")
