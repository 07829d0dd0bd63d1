"""Paths to cases: files of public data sets, and raw studies as they come from the scanner."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from brainsegnet._atomic import find_suffix, is_hidden, stem_of
from brainsegnet.errors import BrainSegNetError, DatasetError, ImageError
from brainsegnet.io.aliases import ORDER
from brainsegnet.io.case_files import TABLES, CaseFiles
from brainsegnet.io.cases import Found, describe_strangers, find_in
from brainsegnet.io.dicom import Study, find_studies
from brainsegnet.io.dicom_files import is_zip
from brainsegnet.io.images import READERS, is_second_half, read_grid
from brainsegnet.io.layouts import LAYOUTS, find_home
from brainsegnet.pipeline.folders import group_images, list_written, name_cases
from brainsegnet.pipeline.headers import read_words, weigh
from brainsegnet.pipeline.identify import identify_images, identify_study
from brainsegnet.pipeline.study_case import StudyCase, build_case, open_choice
from brainsegnet.progress import Callback, ProgressEvent

_BY_NAME = {layout.name for layout in LAYOUTS}
"""Layouts that know files by their names alone."""
_SECOND = (".img", ".img.gz")
"""Endings of the second file of an image in two files."""
Builder = tuple[str, Callable[[], StudyCase]]
"""Name of a case, and what makes it."""
OTHER_FILES = (*READERS, ".json", ".bval", ".bvec", ".tsv", ".csv", ".txt", ".md", ".pdf", ".png", ".jpg", ".html")
"""Files with these endings are no DICOM."""


@dataclass(frozen=True)
class Discovered:
    """What was found at some paths.

    Attributes:
        cases: Files of data sets and raw studies, in the order of the paths, and by name within each.
        failures: Name of each case that cannot be used, to a sentence that says why.
        left_out: A sentence on each folder whose images are not recognised.
        rejected: Raw studies without a sequence that is wanted; they are among the failures too.
        twins: Names that several cases have; they are among the failures too.
    """

    cases: Sequence[CaseFiles | StudyCase] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    rejected: Sequence[StudyCase] = ()
    twins: Sequence[str] = ()


def find_all(
    paths: Sequence[Path],
    wanted: Sequence[str] = (),
    given: Mapping[str, str] | None = None,
    callback: Callback | None = None,
) -> Discovered:
    """Find cases and raw studies. Only headers are read, and images whose headers and names leave doubt.

    Args:
        paths: Tables, image files, zips, DICOM files, and folders. A folder holds cases of a known layout, DICOM files
            of any number of studies, or images of one patient or of several, each in a folder of its own.
        wanted: Sequences of which a study needs one; by default any sequence.
        given: Sequence to what stands for it in a study, see `build_case`.
        callback: Hears the share of the files that is read.

    Raises:
        DatasetError: a path does not exist, or there is no image at it.
        ImageError: a zip is damaged.
    """
    wanted = tuple(wanted) or ORDER
    parts = [_find_at(Path(path), wanted, given or {}, callback) for path in paths]
    failures = {name: said for part in parts for name, said in part.failures.items()}
    by_name: defaultdict[str, list[CaseFiles | StudyCase]] = defaultdict(list)
    for case in (case for part in parts for case in part.cases):
        by_name[case.name].append(case)
    twins = {name: _tell_twins(name, cases) for name, cases in by_name.items() if len(cases) > 1}
    failures |= twins
    cases = [cases[0] for name, cases in by_name.items() if name not in failures]
    left_out = [sentence for part in parts for sentence in part.left_out]
    return Discovered(cases, failures, left_out, [case for part in parts for case in part.rejected], [*twins])


def name_files(given: Mapping[str, Path]) -> CaseFiles | StudyCase:
    """One case from the path of each sequence: an image, or a DICOM series as a folder, zip or file.

    Raises:
        DatasetError: a path holds several series or none.
        ImageError: one cannot be used.
    """
    first = next(iter(given.values()))
    name = stem_of(first, READERS)
    if all(find_suffix(path, READERS) and not path.is_dir() for path in given.values()):
        return CaseFiles(name, given)
    choices = {sequence: open_choice(sequence, path) for sequence, path in given.items()}
    findings = tuple(finding for choice in choices.values() for finding in choice.findings)
    (name,) = name_cases(first.absolute().parent, [first.absolute().with_name(name)])
    return StudyCase(name, first, findings, choices)


def _find_at(named: Path, wanted: Sequence[str], given: Mapping[str, str], callback: Callback | None) -> Discovered:
    path = Path(os.path.abspath(named))
    if not path.is_dir() and path.exists() and path.suffix.lower() not in TABLES:
        found = _find_studies_at(path, wanted, given, callback)
        if not found.cases and not found.failures:
            kinds = "a .csv or .yaml table, an image, a DICOM file or a zip of such files"
            raise DatasetError(f"{named} is neither a folder nor {kinds}; name a folder of cases or of a study")
        return found
    try:
        search = find_in(named)
    except DatasetError:
        found = _find_studies_at(path, wanted, given, callback) if path.is_dir() else Discovered()
        if not found.cases and not found.failures:
            raise
        return found
    found = _complete(search, path, wanted, given)
    apart = {*search.strangers} - {find_home(case) for case in search.cases}
    if apart and not any(isinstance(case, CaseFiles) for case in found.cases):
        return _find_studies_at(path, wanted, given, callback)
    return found


def _find_studies_at(
    path: Path, wanted: Sequence[str], given: Mapping[str, str], callback: Callback | None
) -> Discovered:
    """The studies below a path whose images no layout knows."""
    images = _try_all(_list_images(path, given), wanted, callback)
    builders, others = _list_dicom(path, given, callback) if _may_hold_dicom(path) else ([], [])
    dicom = _try_all(builders, wanted)
    if dicom.cases and not images.cases:
        return replace(dicom, left_out=[*images.failures.values(), *others])
    cases = sorted([*images.cases, *dicom.cases], key=lambda case: case.name)
    return Discovered(cases, {**images.failures, **dicom.failures}, others, [*images.rejected, *dicom.rejected])


def _try_all(builders: Sequence[Builder], wanted: Sequence[str], callback: Callback | None = None) -> Discovered:
    """The cases that can be built and have a sequence that is wanted."""
    cases: list[StudyCase] = []
    rejected: list[StudyCase] = []
    failures: dict[str, str] = {}
    for done, (name, build) in enumerate(builders, 1):
        try:
            rejected.append(case := build())
            case.check_any(wanted)
            cases.append(rejected.pop())
        except BrainSegNetError as error:
            failures[name] = str(error) if name in str(error) else f"case {name}: {error}"
        if callback:
            callback.on_progress(ProgressEvent(done / len(builders)))
    return Discovered(cases, failures, (), rejected)


def _list_images(path: Path, given: Mapping[str, str]) -> list[Builder]:
    """Name and builder of the study of each patient whose images are files."""
    groups = group_images(path)
    names = [stem_of(path, READERS) for _ in groups] if path.is_file() else name_cases(path, groups)

    def build(name: str, home: Path, images: Sequence[Path]) -> StudyCase:
        return build_case(name, home, identify_images(images, home), given)

    return [(name, partial(build, name, *group)) for name, group in zip(names, groups.items(), strict=True)]


def _list_dicom(path: Path, given: Mapping[str, str], callback: Callback | None) -> tuple[list[Builder], list[str]]:
    """Name and builder of each DICOM study, and sentences on those of other modalities that are beside them.

    Raises:
        ImageError: a zip is damaged.
    """
    try:
        studies = find_studies(path, callback)
    except DatasetError:
        return [], []
    top = path if path.is_dir() else path.with_name(path.stem)
    studies = sorted(studies, key=lambda study: (study.folder, study.header.study_date))
    if any(map(_is_mr, studies)):
        others = [f"{top / study.folder} is left out: {study.refused[0]}" for study in studies if not _is_mr(study)]
        studies = [study for study in studies if _is_mr(study)]
    else:
        others = []
    names = name_cases(top, [top / study.folder for study in studies])
    builders: list[Builder] = []
    for name, study in zip(names, studies, strict=True):
        builders.append((name, partial(_build_study, name, path, study, given)))
    return builders, others


def _is_mr(study: Study) -> bool:
    return bool(study.series) or any(refusal.header.modality == "MR" for refusal in study.refused)


def _build_study(name: str, path: Path, study: Study, given: Mapping[str, str]) -> StudyCase:
    if not study.series:
        more = f"; {len(study.refused) - 1} more series cannot be used either" if study.refused[1:] else ""
        remedy = "; name the folder of all slices" if path.is_file() and not is_zip(path) else ""
        raise ImageError(f"{study.refused[0]}{more or remedy}")
    home = path / study.folder if path.is_dir() else path
    return build_case(name, home, identify_study(study), given, study)


def _may_hold_dicom(path: Path) -> bool:
    """Whether there is a file that may be DICOM, by its name."""
    if path.is_file():
        return not find_suffix(path, OTHER_FILES)
    names = (name for _, _, names in os.walk(path) for name in names)
    return any(not is_hidden(name) and not find_suffix(Path(name), OTHER_FILES) for name in names)


def _complete(found: Found, path: Path, wanted: Sequence[str], given: Mapping[str, str]) -> Discovered:
    """The cases of known layouts. One of which its layout took a part, or that has 4-D images, becomes a study."""
    cases = _prefer_top(found.cases, path)
    others, homes = _find_others(cases, wanted), [find_home(case) for case in cases]
    crowd = Counter(homes)
    raw = [i for i, case in enumerate(cases) if others[i] or any(map(_is_diffusion_series, case.images.values()))]
    names = dict(zip(raw, name_cases(path, [homes[i] for i in raw]), strict=True))
    done: list[CaseFiles | StudyCase] = []
    failures = dict(found.failures)
    for number, (case, home) in enumerate(zip(cases, homes, strict=True)):
        name = names.get(number, "") if crowd[home] == 1 else case.name
        try:
            if number in names:
                images = sorted({*case.images.values(), *others[number]})
                done.append(build_case(name, home, identify_images(images, home), given))
            else:
                done.append(_override(case, given))
        except BrainSegNetError as error:
            failures[case.name] = str(error) if case.name in str(error) else f"case {case.name}: {error}"
    kept = {id(case) for case in cases}
    nested = [case for case in found.cases if id(case) not in kept]
    told = [f"{find_home(case)} is left out: {path} itself has a case {case.name}" for case in nested]
    taken = {file for files in others.values() for file in files}
    for folder, names_there in sorted(found.strangers.items()):
        if rest := [image for image in names_there if folder / image not in taken]:
            told.append(describe_strangers(folder, rest))
    return Discovered(done, failures, told)


def _prefer_top(cases: Sequence[CaseFiles], path: Path) -> list[CaseFiles]:
    """The cases without those in deeper folders that have the name of a case in the folder itself."""
    top = {case.name for case in cases if find_home(case) == path}
    return [case for case in cases if case.name not in top or find_home(case) == path]


def _find_others(cases: Sequence[CaseFiles], wanted: Sequence[str]) -> dict[int, list[Path]]:
    """For each case, by its place: images beside its own that are named after a sequence that it lacks.

    Where a folder has several cases, the names of such images begin with that of the case.
    """
    used = {file for case in cases for file in (*case.images.values(), case.lesion) if file}
    in_folder = Counter(folder for case in cases for folder in {file.parent for file in case.images.values()})
    named = {folder: list(_name_images(folder, used)) for folder in in_folder}
    others: dict[int, list[Path]] = {}
    for number, case in enumerate(cases):
        folder, *more = {file.parent for file in case.images.values()}
        free = [] if more or case.layout not in _BY_NAME else named[folder]
        own = re.compile(rf"{re.escape(case.name)}(?![a-z0-9])" if in_folder[folder] > 1 else "", re.IGNORECASE)
        lacking = {*wanted} - {*case.images}
        others[number] = [file for sequence, file in free if sequence in lacking and own.match(file.name)]
    return others


def _name_images(folder: Path, used: Collection[Path]) -> Iterator[tuple[str, Path]]:
    """Sequence and file of the images in a folder that belong to no case, as far as their names tell it."""
    written = list_written(folder)
    files = [file for file in sorted(folder.iterdir()) if find_suffix(file, READERS) and not is_hidden(file.name)]
    for file in files:
        half = find_suffix(file, _SECOND) and any(is_second_half(file, other) for other in files)
        if file not in used and file.name not in written and not half:
            yield weigh(read_words(stem_of(file, READERS), "name")).sequence, file


def _is_diffusion_series(file: Path) -> bool:
    """Whether an image has several b-values, which stand in a file beside it."""
    return file.with_name(f"{stem_of(file, READERS)}.bval").is_file() and len(read_grid(file)) > 1


def _override(case: CaseFiles, given: Mapping[str, str]) -> CaseFiles:
    """The case with other files for some sequences.

    Raises:
        DatasetError: what is given is no image file.
    """
    if not given:
        return case
    home = find_home(case)
    files = {}
    for sequence, word in given.items():
        found = [file for file in (Path(word), home / word) if file.is_file() and find_suffix(file, READERS)]
        if not found:
            raise DatasetError(f"case {case.name}: {sequence}: {word!r} is no image file, nor one in {home}; name one")
        files[sequence] = found[0]
    parts = {sequence: part for sequence, part in case.parts.items() if sequence not in files}
    return replace(case, images={**case.images, **files}, parts=parts)


def _tell_twins(name: str, cases: Sequence[CaseFiles | StudyCase]) -> str:
    """A sentence on several cases of one name."""
    homes = dict.fromkeys(str(find_home(case) if isinstance(case, CaseFiles) else case.home) for case in cases)
    return f"case {name} is found twice, in {' and in '.join(homes)}; rename or leave out one of the two"
