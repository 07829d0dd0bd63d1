"""The images that a result of `segment` was made of: found through the JSON beside it, and known by their hashes."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from brainsegnet._atomic import find_suffix, stem_of
from brainsegnet.errors import BrainSegNetError, ImageError
from brainsegnet.io.case_files import MAPS, CaseFiles, Part, read_sequences
from brainsegnet.io.diffusion import Volumes, compute_adc, read_mean
from brainsegnet.io.images import READERS, Series, describe_file, read_series
from brainsegnet.io.layouts import discover, read_note
from brainsegnet.volume import Volume

if TYPE_CHECKING:
    from brainsegnet.io.dicom import DicomSeries

BRAIN_MASK = "brain_mask"
"""An input that is no sequence."""
NAME_THEM = "name the images, or their folder, with --images"


@dataclass(frozen=True)
class ImageFile:
    """An image file of one or several volumes. Errors are those of `read_series`."""

    path: Path

    def read(self, number: int = 0) -> Volume:
        """One volume."""
        return self.read_all().frame(number)

    def read_all(self) -> Series:
        """All volumes."""
        return read_series(self.path)


@dataclass(frozen=True)
class Derived:
    """An image that was made of volumes of a diffusion scan.

    Attributes:
        sources: The series or files; one, or two if an ADC was computed from two.
        volumes: Of each image, which volumes of its source make it; two images make an ADC.
        b_values: Of these two, in s/mm2; else empty.
    """

    sources: tuple[Volumes, ...]
    volumes: tuple[tuple[int, ...], ...]
    b_values: tuple[float, ...] = ()

    def read(self) -> Volume:
        """The image; an ADC in 1e-6 mm2/s.

        Raises:
            ImageError: a file is gone or damaged, or has no such volume.
        """
        sources = self.sources * (len(self.volumes) if len(self.sources) == 1 else 1)
        try:
            first, *others = (read_mean(*one) for one in zip(sources, self.volumes, strict=True))
        except IndexError as error:
            raise ImageError(f"the JSON of a result names volumes {self.volumes}, which are not there") from error
        return first.with_array(compute_adc(first.array, others[0].array, *self.b_values)) if others else first


@dataclass(frozen=True)
class ResultFiles:
    """A label map, and the files of the images that it was made of.

    Attributes:
        case: The images by sequence, and which part of a shared file each is.
        series: The sequences that are series of a DICOM study; of one that is derived from two, the first.
        derived: The sequences that are made of volumes of a diffusion scan.
        note: Content of the JSON beside the label map; empty if there is none.
        warnings: Sentences on images that are absent or have changed.
    """

    case: CaseFiles
    series: Mapping[str, "DicomSeries"] = field(default_factory=dict)
    derived: Mapping[str, Derived] = field(default_factory=dict)
    note: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def read(self) -> dict[str, Volume]:
        """The images by sequence, each on its own grid.

        Errors are those of `read_sequences`, `DicomSeries.read` and `Derived.read`.
        """
        sequences = list(self.case.images)
        volumes = dict(zip(sequences, read_sequences(self.case, sequences), strict=True))
        volumes |= {name: series.read() for name, series in self.series.items() if name not in self.derived}
        return volumes | {name: derived.read() for name, derived in self.derived.items()}


def find_result(labels: Path, given: Sequence[Path] = ()) -> ResultFiles:
    """Find the images of a result.

    Args:
        labels: A label map. The JSON that `segment` wrote beside it tells its images.
        given: Images, or folders that hold them, where they are no longer at the place that the JSON tells.

    Raises:
        ImageError: no image is found. Or one has changed, unless it is itself in `given`: then that is a warning.
    """
    note = read_note(labels.with_name(f"{stem_of(labels, READERS)}.json"))
    recorded = note.get("inputs")
    listed = recorded.items() if isinstance(recorded, dict) else ()
    inputs = {name: facts for name, facts in listed if isinstance(facts, dict) and name != BRAIN_MASK}
    name = str(note.get("case") or stem_of(labels, READERS))
    if not inputs:
        return ResultFiles(_take_given(name, labels, given), note=note)
    pool = [*_list_images(given)]
    images: dict[str, Path] = {}
    series: dict[str, DicomSeries] = {}
    derived: dict[str, Derived] = {}
    warnings: list[str] = []
    for sequence, facts in inputs.items():
        try:
            found = [_find(name, sequence, one, labels.parent, pool, given) for one in _list_sources(facts)]
        except FileNotFoundError as error:
            warnings.append(str(error))
            continue
        warnings += [warning for _, warning in found if warning]
        sources = tuple(source for source, _ in found)
        first = sources[0]
        if "volumes" in facts:
            derived[sequence] = _derive(sources, facts, labels)
        elif isinstance(first, ImageFile):
            images[sequence] = first.path
        if not isinstance(first, ImageFile):
            series[sequence] = first
    if not images and not series and not derived:
        raise ImageError(f"case {name}: no image of {labels} is where it was; {NAME_THEM}")
    parts = {sequence: inputs[sequence]["part"] for sequence in images if _is_part(inputs[sequence].get("part"))}
    return ResultFiles(CaseFiles(name, images, parts=parts), series, derived, note, tuple(warnings))


def _list_sources(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a JSON says of the series of a sequence: of its one, or of each of the two that an ADC was computed from."""
    sources = facts.get("sources")
    known = sources if isinstance(sources, list) else []
    return [one for one in known if isinstance(one, dict)] or [facts]


def _derive(sources: tuple[Volumes, ...], facts: Mapping[str, Any], labels: Path) -> Derived:
    """What a JSON says of the volumes that make an image.

    Raises:
        ImageError: it says something else.
    """
    volumes, b_values = facts["volumes"], facts.get("b_values", [])
    whole = isinstance(volumes, list) and all(isinstance(one, list) and one for one in volumes)
    if not whole or not all(type(number) is int and number >= 0 for one in volumes for number in one):
        raise ImageError(f"the JSON of {labels} is damaged: {volumes!r} are no volumes; segment the case again")
    numbers = isinstance(b_values, list) and all(type(value) in (int, float) for value in b_values)
    if not numbers or (len(volumes), len(b_values)) not in ((1, 0), (2, 2)) or len(sources) > len(volumes):
        raise ImageError(f"the JSON of {labels} is damaged: {b_values!r} are no b-values; segment the case again")
    return Derived(sources, tuple(map(tuple, volumes)), tuple(map(float, b_values)))


def _find(
    case: str, sequence: str, facts: Mapping[str, Any], home: Path, pool: Sequence[Path], given: Sequence[Path]
) -> "tuple[ImageFile | DicomSeries, str]":
    """The series or file of a sequence, and a warning if it has changed. Errors are those of `_find_image`."""
    if "files" in facts:
        return _find_series(case, sequence, facts, home, given), ""
    path, warning = _find_image(case, sequence, facts, home, pool, given)
    return ImageFile(path), warning


def describe_place(path: str, folder: Path) -> str:
    """The path of an image as a JSON in `folder` holds it: relative, with `/`; whole if it is on another drive."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return Path(path).absolute().as_posix()


def _find_image(
    case: str, sequence: str, facts: Mapping[str, Any], home: Path, pool: Sequence[Path], given: Sequence[Path]
) -> tuple[Path, str]:
    """The file of a sequence, and a warning if it has changed.

    Raises:
        FileNotFoundError: there is none; the text is a sentence.
        ImageError: it has changed.
    """
    place = facts.get("path")
    recorded = home / place if isinstance(place, str) else None
    candidates = list(pool) or ([recorded] if recorded and recorded.is_file() else [])
    known, size = facts.get("sha256"), facts.get("bytes")
    same_size = [path for path in candidates if path.stat().st_size == size or len(candidates) == 1]
    for path in same_size:
        if describe_file(path, content=True)["sha256"] == known:
            return path, ""
    named = [path for path in candidates if recorded and path.name == recorded.name]
    if not named:
        where = f" at {recorded}" if recorded else ""
        raise FileNotFoundError(f"case {case}: {sequence} is not found{where} and is not shown; {NAME_THEM}")
    changed = f"case {case}: {sequence} has changed since it was segmented ({named[0]})"
    if named[0] not in given:
        raise ImageError(f"{changed}; segment it again, or name the file itself with --images to see it all the same")
    return named[0], changed


def _find_series(
    case: str, sequence: str, facts: Mapping[str, Any], home: Path, given: Sequence[Path]
) -> "DicomSeries":
    """The series of a sequence in the study that the JSON names, or in those that are given.

    Raises:
        FileNotFoundError: there is none; the text is a sentence.
        ImageError: it has changed.
    """
    from brainsegnet.io.dicom import read_studies

    place, found = facts.get("path"), []
    for root in given or ([home / place] if isinstance(place, str) else []):
        try:
            studies = read_studies(root)
        except BrainSegNetError:  # it holds no study, and another one may
            continue
        found += [series for study in studies for series in study.series if series.name == facts.get("series")]
    if not found:
        raise FileNotFoundError(f"case {case}: {sequence}, a DICOM series, is not found and is not shown; {NAME_THEM}")
    for series in found:
        if hash_series(series) == facts.get("sha256"):
            return series
    raise ImageError(f"case {case}: {sequence} has changed since it was segmented ({found[0]}); segment it again")


def hash_series(series: "DicomSeries") -> str:
    """One SHA-256 over the files of a series: over their own, a line each, in the order of their names."""
    from brainsegnet.io.dicom_files import Open, read_each

    def hash_one(open_file: Open, name: str) -> str:
        with open_file(name) as stream:
            return hashlib.sha256(stream.read()).hexdigest()

    names = sorted({frame.file for stack in series.stacks for frame in stack.frames})
    return hashlib.sha256("\n".join(read_each(series.root, names, hash_one)).encode()).hexdigest()


def _is_part(part: object) -> TypeGuard[Part]:
    return part in MAPS if isinstance(part, str) else type(part) is int and part >= 0


def _take_given(name: str, labels: Path, given: Sequence[Path]) -> CaseFiles:
    """Images for a label map without a JSON that names them: a folder of one case, or files as they are called."""
    if not given:
        raise ImageError(f"{labels} has no JSON beside it that names its images; {NAME_THEM}")
    if len(given) == 1 and given[0].is_dir():
        cases = [case for case in discover(given[0]).cases if isinstance(case, CaseFiles)]
        same = [case for case in cases if case.name == name] or cases
        if len(same) == 1:
            return CaseFiles(name, same[0].images, parts=same[0].parts)
        found = f"{len(cases)} cases" if cases else "no case"
        raise ImageError(f"{given[0]} holds {found}, where one is due; name the images of {labels} with --images")
    files = [path for path in _list_images(given) if path.resolve() != labels.resolve()]
    if not files:
        raise ImageError(f"no image is in {given[0]}; {NAME_THEM}")
    return CaseFiles(name, {stem_of(path, READERS): path for path in files})


def _list_images(given: Sequence[Path]) -> Iterator[Path]:
    """The files themselves, and the images in folders and below."""
    for path in given:
        if path.is_dir():
            yield from (file for file in sorted(path.rglob("*")) if find_suffix(file, READERS) and file.is_file())
        elif path.is_file():
            yield path
        else:
            raise ImageError(f"{path} does not exist; {NAME_THEM}")
