"""A study as it comes from the scanner: a folder, a zip or a file of DICOM images becomes series, and these volumes.

Headers are read first, by several threads; pixels when a series is asked for. A series of the scanner may hold several
contrasts (echoes, b-values, phase beside magnitude), and each becomes a `DicomSeries`. Repetitions over time or
direction stay together. What cannot be used is refused with a sentence, and what is corrected is said in a note.
"""

import hashlib
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from brainsegnet._types import Affine, Array, Doubles, Millimetres, Shape
from brainsegnet.errors import DatasetError, ImageError
from brainsegnet.io.dicom_convert import REMEDY, convert_series
from brainsegnet.io.dicom_files import BROKEN, Open, find_root, is_zip, list_files, read_dataset, read_each
from brainsegnet.io.dicom_geometry import (
    SAME_DIRECTION,
    SAME_PLACE_MM,
    Stack,
    build_stack,
    count_places,
    find_axes,
    measure_heights,
)
from brainsegnet.io.dicom_headers import IDENTITY, INSTANCE, TAGS, Frame, SeriesHeader, read_frames
from brainsegnet.io.dicom_pixels import read_pixels
from brainsegnet.io.images import Series
from brainsegnet.progress import Callback
from brainsegnet.volume import Volume

B_STEP = 50
"""b-values that differ by less, in s/mm2, are one: some scanners store what a direction really had."""
CONTRASTS: tuple[Callable[[SeriesHeader], object], ...] = (
    lambda header: header.image_type,
    lambda header: None if header.te_ms is None else round(header.te_ms, 1),
    lambda header: None if header.b_value is None else round(header.b_value / B_STEP),
    lambda header: header.directionality,
    lambda header: header.ti_ms,
    lambda header: header.units,
)
"""What tells images at one place apart, in the order in which it is looked at."""
WHOLE_CONTRAST = 0.5
"""A contrast covers at least this share of the places of its series; else the header varies from slice to slice."""
_PLANES = ("sagittal", "coronal", "axial")


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """Images of one contrast on one grid: a volume, or several over time or diffusion direction.

    Attributes:
        root: Folder, zip or file of the study.
        header: How it was acquired.
        stacks: The slices of each volume; none where dcm2niix converted it.
        converted: Its images in that case.
        notes: What was corrected or left out, as sentences without a stop.
    """

    root: Path
    header: SeriesHeader
    stacks: tuple[Stack, ...]
    notes: tuple[str, ...] = ()
    converted: Series | None = None

    def __len__(self) -> int:
        """Number of volumes."""
        return len(self.stacks) if self.converted is None else len(self.converted)

    @property
    def name(self) -> str:
        """To be read: "series 5 (t2_tse_tra)"."""
        return self.header.name

    @property
    def shape(self) -> Shape:
        """(D, H, W) of a volume."""
        return self.stacks[0].shape if self.converted is None else self.converted.frame(0).shape

    @property
    def affine(self) -> Affine:
        """(4, 4), from an index (d, h, w, 1) to millimetres (x left, y posterior, z superior)."""
        return self.stacks[0].affine if self.converted is None else self.converted.affine

    @property
    def spacing_mm(self) -> Millimetres:
        """Between voxel centres along (D, H, W)."""
        d, h, w = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(d), float(h), float(w)

    @property
    def files(self) -> list[Path]:
        """Its files; the zip where they are in one, and none where it was converted."""
        if is_zip(self.root):
            return [self.root]
        names = dict.fromkeys(frame.file for stack in self.stacks for frame in stack.frames)
        return [self.root / name for name in names]

    @property
    def plane(self) -> str:
        """In which the slices lie most: "axial", "coronal" or "sagittal"."""
        return _PLANES[int(np.abs(self.affine[:3, 0]).argmax())]

    def hash_patient(self) -> str:
        """SHA-256 of the patient's number and date of birth, to compare two studies; empty if the headers hold neither.

        Raises:
            ImageError: the file of a slice is gone, or the zip is damaged.
        """
        names = [frame.file for stack in self.stacks[:1] for frame in stack.frames[:1]]
        return next(iter(read_each(self.root, names, hash_patient)), "")

    def read(self, number: int = 0, callback: Callback | None = None) -> Volume:
        """One volume, its first by default, in stored integers or, where the header rescales them, real values.

        Args:
            number: Of the volume.
            callback: Hears the share of the files that is read.

        Raises:
            ImageError: a file is gone, cut short, damaged, or compressed in a way that is not known here.
        """
        if self.converted is not None:
            return self.converted.frame(number)
        return Volume(_read_stacks(self.root, [self.stacks[number]], callback)[0], self.affine)

    def read_all(self, callback: Callback | None = None) -> Series:
        """All volumes (T, D, H, W). Errors are those of `read`."""
        if self.converted is not None:
            return self.converted
        return Series(np.stack(_read_stacks(self.root, self.stacks, callback)), self.affine)


@dataclass(frozen=True)
class Refusal:
    """A series, or a part of it, that cannot be used; as text, the reason in one sentence without a stop."""

    header: SeriesHeader
    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, eq=False)
class Study:
    """The series of one study, in the order of their numbers.

    Attributes:
        root: Folder, zip or file it was read from.
        series: What can be used.
        refused: What cannot, with the reason.
        notes: On the files, as sentences without a stop.
        folder: The deepest folder that holds all its files, relative to the root; empty if that is the root.
    """

    root: Path
    series: tuple[DicomSeries, ...]
    refused: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    folder: str = ""

    @property
    def uid(self) -> str:
        """Of the study."""
        return self.header.study_uid

    @property
    def header(self) -> SeriesHeader:
        """Of its first series."""
        return self.series[0].header if self.series else self.refused[0].header


def read_study(path: Path | str, callback: Callback | None = None, convert: bool = False) -> Study:
    """The one study in a folder, a zip, a DICOM file, or beside a DICOMDIR; only headers are read.

    Args:
        path: Folder, zip or file.
        callback: Hears the share of the files that is read.
        convert: Whether dcm2niix converts series of kinds that are not read here.

    Raises:
        DatasetError: there is no DICOM image, or images of several studies.
        ImageError: no series can be used, or the zip is damaged.
        MissingExtra: there is something to convert, and dcm2niix is not installed.
    """
    studies = read_studies(path, callback, convert)
    if len(studies) > 1:
        dates = ", ".join(sorted({study.series[0].header.study_date or "without date" for study in studies}))
        raise DatasetError(f"{path} holds {len(studies)} studies ({dates}); name the folder of one")
    return studies[0]


def read_studies(path: Path | str, callback: Callback | None = None, convert: bool = False) -> list[Study]:
    """All studies in a folder, a zip, a DICOM file, or beside a DICOMDIR that have a series that can be used.

    Arguments and errors are those of `read_study`, except that several studies are welcome.
    """
    studies = find_studies(path, callback, convert)
    if not any(study.series for study in studies):
        reasons = [reason for study in studies for reason in study.refused]
        more = "; name the folder of all slices" if studies[0].root.is_file() and not is_zip(studies[0].root) else ""
        more = f"; {len(reasons) - 1} more series cannot be used either" if len(reasons) > 1 else more
        raise ImageError(f"{path}: {reasons[0]}{more}")
    return [study for study in studies if study.series]


def find_studies(path: Path | str, callback: Callback | None = None, convert: bool = False) -> list[Study]:
    """All studies of `read_studies`, and also those in which no series can be used, with the reasons.

    Raises:
        DatasetError: there is no DICOM image.
        ImageError: the zip is damaged, or a file cannot be opened.
        MissingExtra: there is something to convert, and dcm2niix is not installed.
    """
    root = find_root(Path(path))
    names = list_files(root)
    found = read_each(root, names, read_file, callback)
    frames = [frame for part in found for frame in part or ()]
    if not frames:
        what = "holds no DICOM images" if root.is_dir() or len(names) != 1 else "is no DICOM image"
        raise DatasetError(f"{path} {what}; name a study folder, a zip of it, or a DICOM file")
    others = sum(part is None for part in found)
    notes = ["1 file is not DICOM" if others == 1 else f"{others} files are not DICOM"] if others else []
    by_study: defaultdict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_study[frame.header.study_uid].append(frame)
    studies = [build_study(root, part, notes) for part in by_study.values()]
    return [convert_refused(study) for study in studies] if convert else studies


def read_file(open_file: Open, name: str) -> list[Frame] | None:
    """The frames of a file without their pixels; None if it is no DICOM file, or too damaged to tell."""
    with open_file(name) as stream:
        data = read_dataset(stream, TAGS)
    with suppress(*BROKEN):
        return None if data is None else read_frames(data, name)
    return None


def hash_patient(open_file: Open, name: str) -> str:
    """What identifies the patient in a file, as `DicomSeries.hash_patient` gives it."""
    with open_file(name) as stream:
        data = read_dataset(stream, IDENTITY)
    with suppress(*BROKEN):
        parts = [str(data.get(tag).value).strip() if data is not None and tag in data else "" for tag in IDENTITY]
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest() if any(parts) else ""
    return ""


def build_study(root: Path, frames: Sequence[Frame], notes: Sequence[str] = ()) -> Study:
    """The frames of a study as series, those that cannot be used with the reason."""
    folder = posixpath.commonpath([posixpath.dirname(frame.file.lstrip("/")) for frame in frames])
    frames, copies = _drop_copies(frames)
    by_series: defaultdict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_series[frame.header.series_uid].append(frame)
    series: list[DicomSeries] = []
    refused: list[Refusal] = []
    for group in sorted(by_series.values(), key=lambda group: group[0].header.number or 0):
        header = group[0].header
        if header.modality != "MR":
            refused.append(Refusal(header, f"{header.name} is {header.modality or 'of unknown modality'}, not MR"))
            continue
        usable = [frame for frame in group if not frame.problem]
        if not usable:
            refused.append(Refusal(header, f"{header.name} {group[0].problem}"))
            continue
        left_out = [f"{len(group) - len(usable)} images are left out"] if len(usable) < len(group) else []
        for part in build_series(root, usable):
            if isinstance(part, DicomSeries):
                series.append(replace(part, notes=(*left_out, *part.notes)))
            else:
                refused.append(part)
    by_reason = {refusal.reason: refusal for refusal in reversed(refused)}
    return Study(root, tuple(series), tuple(reversed(by_reason.values())), (*copies, *notes), folder)


def convert_refused(study: Study) -> Study:
    """The study with what dcm2niix makes of refused series, where it may help; its headers are those of the series.

    Raises:
        MissingExtra: there is something to convert, and dcm2niix is not installed.
    """
    wanted = {refusal.header.series_uid: refusal for refusal in study.refused if refusal.reason.endswith(REMEDY)}
    if not wanted:
        return study
    images = convert_series(study.root, list(wanted))
    note = ("converted by dcm2niix, so it cannot be the reference of a DICOM segmentation",)
    made = [
        DicomSeries(study.root, wanted[uid].header, (), note, image) for uid, found in images.items() for image in found
    ]
    refused = tuple(refusal for refusal in study.refused if refusal.header.series_uid not in images)
    series = sorted((*study.series, *made), key=lambda series: series.header.number or 0)
    return replace(study, series=tuple(series), refused=refused)


def build_series(root: Path, frames: Sequence[Frame]) -> Iterator[DicomSeries | Refusal]:
    """What the frames of one series of the scanner make: a `DicomSeries` for each contrast, or why there is none."""
    groups = split_orientations(frames)
    several = f", one of {len(groups)} orientations or sizes in it," if len(groups) > 1 else ""
    for group in groups:
        heights = measure_heights(group, find_axes(group)[0])
        for part in split_contrasts(group, heights):
            header = part[0].header
            try:
                stacks, note = _stack_all(part)
            except ImageError as error:
                yield Refusal(header, f"{header.name}{several} cannot be used: {error}")
                continue
            notes = [note, *stacks[0].notes, _count_absent(part, len(frames))]
            yield DicomSeries(root, header, stacks, tuple(filter(None, notes)))


def split_orientations(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames of one size, voxel size and orientation together; a localizer has three orientations."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            first = group[0]
            apart = np.abs(np.subtract(frame.orientation, first.orientation)).max()
            same = (frame.rows, frame.columns) == (first.rows, first.columns)
            if same and apart < SAME_DIRECTION and np.allclose(frame.spacing_mm, first.spacing_mm, rtol=1e-3):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def split_contrasts(frames: Sequence[Frame], heights: Doubles, first: int = 0) -> list[list[Frame]]:
    """Frames of one orientation by contrast, as far as several images are at one place; see `CONTRASTS`."""
    places = count_places(heights)
    if places == len(frames) or places == 1:
        return [list(frames)]
    for number, key in enumerate(CONTRASTS[first:], first):
        members: defaultdict[object, list[int]] = defaultdict(list)
        for i, frame in enumerate(frames):
            members[key(frame.header)].append(i)
        covered = [count_places(heights[chosen]) for chosen in members.values()]
        if len(members) > 1 and min(covered) >= WHOLE_CONTRAST * places:
            parts = (([frames[i] for i in chosen], heights[chosen]) for chosen in members.values())
            return [part for frames, heights in parts for part in split_contrasts(frames, heights, number + 1)]
    return [list(frames)]


def _stack_all(frames: Sequence[Frame]) -> tuple[tuple[Stack, ...], str]:
    """The volumes of one contrast, and a note on what is left out. Raises as `build_stack`."""
    heights = measure_heights(frames, find_axes(frames)[0])
    places = count_places(heights)
    if places == len(frames) or places == 1:
        return (build_stack(frames),), ""
    order = np.argsort(heights, kind="stable")
    cuts = np.flatnonzero(np.diff(heights[order]) > SAME_PLACE_MM) + 1
    at_places = [_sort_repetitions([frames[i] for i in part]) for part in np.split(order, cuts)]
    counts = [len(images) for images in at_places]
    times, copies = min(counts), len(frames) - sum(counts)
    note = f"images that are there twice count once, {copies} in all" if copies else ""
    if max(counts) > times:
        if max(counts) > times + 1 or times == 1:
            raise ImageError(f"between {times} and {max(counts)} images are at one place, some are missing")
        note = "the last volume is incomplete and left out"
    return tuple(build_stack([images[i] for images in at_places]) for i in range(times)), note


def _sort_repetitions(frames: Sequence[Frame]) -> list[Frame]:
    """Images of one place in the order of time; those of one instance number are copies, of which one is kept."""
    ordered = sorted(frames, key=lambda frame: frame.order)
    numbered = all(frame.order[INSTANCE] for frame in frames)
    return list({frame.order: frame for frame in ordered}.values()) if numbered else ordered


def _count_absent(frames: Sequence[Frame], total: int) -> str:
    """A note where the header promises more images than the series has."""
    expected = frames[0].expected
    return f"the header speaks of {expected} images, {total} are here" if expected > total else ""


def _drop_copies(frames: Sequence[Frame]) -> tuple[list[Frame], list[str]]:
    """Each frame once, as a folder may hold copies of a file."""
    seen: dict[tuple[str, int], Frame] = {}
    for frame in frames:
        seen.setdefault((frame.sop_uid or frame.file, frame.index), frame)
    copies = len(frames) - len(seen)
    return list(seen.values()), [f"images that are there twice count once, {copies} in all"] if copies else []


def _read_stacks(root: Path, stacks: Sequence[Stack], callback: Callback | None) -> list[Array]:
    """The voxels (D, H, W) of volumes; each file is read once."""
    by_file: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for time, stack in enumerate(stacks):
        for i, frame in enumerate(stack.frames):
            by_file[frame.file].append((time, i))

    def read(open_file: Open, name: str) -> list[Array]:
        return read_pixels(open_file, name, [stacks[time].frames[i] for time, i in by_file[name]])

    parts = read_each(root, list(by_file), read, callback)
    slices: dict[tuple[int, int], Array] = {}
    for places, images in zip(by_file.values(), parts, strict=True):
        slices.update(zip(places, images, strict=True))
    return [
        stack.assemble(np.stack([slices[time, i] for i in range(len(stack.frames))]))
        for time, stack in enumerate(stacks)
    ]
