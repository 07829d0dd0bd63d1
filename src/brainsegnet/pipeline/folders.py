"""Which images of a folder are of one patient, and what a case is called after its folder."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from brainsegnet.io.case_files import clean_name
from brainsegnet.io.layouts import find_labels, find_maps
from brainsegnet.pipeline.headers import read_words, weigh
from brainsegnet.pipeline.identify import find_images

_DISC = re.compile(r"dicoms?|dcm|(pat?|st|stu|se|ser|im|img)[-_ ]?\d+|(s|i)\d{4,}", re.IGNORECASE)
"""Names of folders on exported discs, such as DICOM, PA000001 and ST000001."""
_GENERIC = re.compile(r"anat|func|nifti?s?|niigz|nii|ima?ge?s?|mris?|mr|scans?|raw|data|series|study", re.IGNORECASE)
"""Other names of folders that say nothing of the patient."""


def group_images(top: Path) -> dict[Path, list[Path]]:
    """The images below a folder by patient: folder of the patient to its image files; or the file itself.

    A folder with images is a patient. Folders that are named after sequences, or say nothing, belong to the folder
    above, if there is nothing else beside them. What `segment` wrote is left out.
    """
    by_folder: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in find_images(top):
        by_folder[path.parent].append(path)
    members: dict[Path, list[Path]] = {}
    for folder, paths in by_folder.items():
        written = list_written(folder)
        if images := [path for path in paths if path.name not in written]:
            members[folder] = images
    depth = max((len(folder.parts) for folder in members), default=0)
    while depth > len(top.parts):
        for above in {folder.parent for folder in members if len(folder.parts) == depth}:
            parts = [folder for folder in members if folder.parent == above]
            if _belong_together(parts):
                members[above] = [*members.get(above, ()), *(path for part in parts for path in members.pop(part))]
        depth -= 1
    return {folder: sorted(paths) for folder, paths in sorted(members.items())}


def list_written(folder: Path) -> set[str]:
    """Names of the images in a folder that `segment` wrote."""
    return find_maps(folder) | find_labels(folder)


def _belong_together(folders: Sequence[Path]) -> bool:
    """Whether neighbouring folders hold parts of one study: each its own sequence, or one alone that says nothing."""
    kinds = [name_kind(folder.name) for folder in folders]
    if any(not kind and not is_generic(folder.name) for kind, folder in zip(kinds, folders, strict=True)):
        return False
    return len(folders) == 1 or len({*kinds}) > 1


def name_kind(name: str) -> str:
    """The sequence that the name of a folder tells; empty if it tells none."""
    return weigh(read_words(name, "folder")).sequence


def is_generic(name: str) -> bool:
    """Whether the name of a folder says nothing of the patient.

    Examples:
        >>> [is_generic(name) for name in ("DICOM", "ST000001", "anat", "patient7")]
        [True, True, True, False]
    """
    return bool(_GENERIC.fullmatch(name) or _DISC.fullmatch(name))


def name_cases(top: Path, folders: Iterable[Path]) -> list[str]:
    """A name for each case, which differs from the others, after its folder in `top`.

    Folders that say nothing give way to the folder above. If two cases would have one name, all are named after their
    whole path, and those of one folder are numbered.

    Examples:
        >>> top = Path("/data/july")
        >>> name_cases(top, [top / "p1" / "DICOM", top / "p2" / "DICOM"])
        ['p1', 'p2']
        >>> name_cases(top, [top / "p1", top / "p1", top])
        ['p1_1', 'p1_2', 'july']
    """
    folders = list(folders)
    short = _lengthen([_shorten(top, folder, folders) for folder in folders], folders)
    names = [folder.name for folder in short]
    if len({*names}) < len({*short}):
        names = ["_".join(_relative(top, folder)) for folder in short]
    counts, seen = Counter(names), Counter[str]()
    for i, name in enumerate(names):
        if counts[name] > 1:
            seen[name] += 1
            names[i] = f"{name}_{seen[name]}"
    return [clean_name(name) for name in names]


def _relative(top: Path, folder: Path) -> Sequence[str]:
    return folder.relative_to(top).parts if folder.is_relative_to(top) and folder != top else (folder.name,)


def _shorten(top: Path, folder: Path, others: Sequence[Path]) -> Path:
    """The nearest folder above, up to `top`, that says whose the images are; names of sequences do not.

    Where `top` is a folder of a disc, such as DICOM, the first above it that is none.
    """
    while folder != top and top in folder.parents:
        single = len({*others}) == 1 or folder.parent != top
        if not is_generic(folder.name) and not (single and name_kind(folder.name)):
            return folder
        folder = folder.parent
    while folder.name and _DISC.fullmatch(folder.name):
        folder = folder.parent
    return folder if folder.name else top


def _lengthen(short: Sequence[Path], long: Sequence[Path]) -> list[Path]:
    """The short form where it is the only one of its kind, else the long one."""
    counts = Counter(short)
    return [brief if counts[brief] == 1 else whole for brief, whole in zip(short, long, strict=True)]
