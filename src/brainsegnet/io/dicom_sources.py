"""Headers of a series as DICOM objects that are made of it need them: complete, valid, and of one orientation.

Scanners, archives and anonymisers leave headers that break the standard. A segmentation copies the patient and the
study from them, so what is absent or not valid is corrected here, in copies.
"""

from collections.abc import Sequence
from contextlib import suppress

from pydicom import Dataset, config
from pydicom.charset import python_encoding
from pydicom.dataset import FileMetaDataset
from pydicom.uid import MRImageStorage, generate_uid
from pydicom.valuerep import DSfloat, validate_value

from brainsegnet._types import Doubles
from brainsegnet.errors import ImageError
from brainsegnet.io.dicom import DicomSeries
from brainsegnet.io.dicom_files import BROKEN, Open, quiet, read_dataset, read_each
from brainsegnet.io.dicom_geometry import Stack, find_axes
from brainsegnet.io.dicom_headers import Frame, read_frames

REQUIRED = """
    PatientName PatientID PatientBirthDate PatientSex AccessionNumber StudyID StudyDate StudyTime ReferringPhysicianName
""".split()
"""Attributes that must be there, but may be empty (type 2)."""
AWAY_MM = 1e5
UTF8 = "ISO_IR 192"
"""Replaces a character set that is not known, or several in one file."""
SEXES = ("M", "F", "O", "")
_CHECKED = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "SH", "ST", "TM", "UI", "UR"}
"""Types of values whose form is checked."""


def read_sources(series: DicomSeries, number: int = 0) -> tuple[list[Dataset], tuple[str, ...]]:
    """The corrected headers of one volume, one data set a slice or a single one of a multi-frame file; and notes.

    Args:
        series: The series.
        number: Of the volume in it.

    Raises:
        ImageError: a file is gone, the slices are tiles of a mosaic or in several multi-frame files, or dcm2niix made
            them.
    """
    if series.converted is not None:
        raise ImageError(f"{series.name} was converted; choose another sequence as reference for DICOM")
    stack = series.stacks[number]
    files = list(dict.fromkeys(frame.file for frame in stack.frames))
    if stack.frames[0].tiles or (len(files) != len(stack.frames) and len(files) > 1):
        kind = "tiles of a mosaic" if stack.frames[0].tiles else "in several multi-frame files"
        raise ImageError(f"the slices of {series.name} are {kind}; choose another sequence as reference for DICOM")

    def read(open_file: Open, name: str) -> Dataset:
        with open_file(name) as stream:
            data = read_dataset(stream)
        if data is None:
            raise ImageError(f"{name} is no longer a DICOM file; fetch it again")
        return data

    read_headers = read_each(series.root, files, read)
    notes = []
    if not series.header.frame_of_reference_uid:
        notes.append(f"{series.name} has no frame of reference; the segmentation gets one and fits this series alone")
    orientation = find_axes(stack.frames)[[2, 1]].ravel()
    several = len(stack.frames) > 1 and len(files) == 1
    with quiet():
        if several:
            return [_repair_multi_frame(read_headers[0], stack, orientation, series)], tuple(notes)
        pairs = zip(read_headers, stack.frames, strict=True)
        return [_repair_single(data, frame, orientation, series) for data, frame in pairs], tuple(notes)


def _repair_single(data: Dataset, frame: Frame, orientation: Doubles, series: DicomSeries) -> Dataset:
    found = _repair_common(data, series)
    found.SOPClassUID = data.get("SOPClassUID") or MRImageStorage
    found.ImageOrientationPatient = [DSfloat(float(value), auto_format=True) for value in orientation]
    found.ImagePositionPatient = [DSfloat(value, auto_format=True) for value in frame.position]
    found.PixelSpacing = [DSfloat(value, auto_format=True) for value in frame.spacing_mm]
    found.SliceThickness = _thickness(series)
    return found


def _repair_multi_frame(data: Dataset, stack: Stack, orientation: Doubles, series: DicomSeries) -> Dataset:
    """The functional groups hold where each frame is, and nothing else.

    Frames of other volumes, at the same places, are put far away: a segmentation refers to the frames at its places.
    """
    found = _repair_common(data, series)
    found.SOPClassUID, found.NumberOfFrames = data.SOPClassUID, data.NumberOfFrames
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [DSfloat(value, auto_format=True) for value in stack.frames[0].spacing_mm]
    measures.SliceThickness = _thickness(series)
    plane.ImageOrientationPatient = [DSfloat(float(value), auto_format=True) for value in orientation]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    found.SharedFunctionalGroupsSequence = [shared]
    groups, own = [], {frame.index for frame in stack.frames}
    for frame in read_frames(data, stack.frames[0].file):
        place, group = Dataset(), Dataset()
        away = 0.0 if frame.index in own else AWAY_MM
        place.ImagePositionPatient = [DSfloat(value + away, auto_format=True) for value in frame.position]
        group.PlanePositionSequence = [place]
        groups.append(group)
    found.PerFrameFunctionalGroupsSequence = groups
    return found


def _thickness(series: DicomSeries) -> DSfloat:
    told = series.header.thickness_mm
    return DSfloat(told if told and told > 0 else series.spacing_mm[0], auto_format=True)


def _repair_common(data: Dataset, series: DicomSeries) -> Dataset:
    """Patient, study, series and size of the image; nothing private, no sequences, no values of a wrong form."""
    found = Dataset()
    found.file_meta = FileMetaDataset()
    if meta := getattr(data, "file_meta", None):
        found.file_meta.update(meta)
    for tag in data.keys():
        with suppress(*BROKEN):
            element = data[tag]
            if not tag.is_private and element.VR != "SQ" and _is_valid(element.VR, element.value):
                found.add(element)
    for keyword in REQUIRED:
        if found.get(keyword) is None:
            setattr(found, keyword, "")
    if found.PatientSex not in SEXES:
        found.PatientSex = ""
    charset = found.pop("SpecificCharacterSet", None)
    if charset and charset.value:
        known = isinstance(charset.value, str) and charset.value in python_encoding
        found.SpecificCharacterSet = charset.value if known else UTF8
    if not found.get("FrameOfReferenceUID"):
        found.FrameOfReferenceUID = generate_uid(entropy_srcs=[series.header.series_uid, "frame of reference"])
    return found


def _is_valid(kind: str, value: object) -> bool:
    values: Sequence[object] = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
    if kind not in _CHECKED:
        return True
    try:
        for part in values:
            validate_value(kind, "" if part is None else str(part), config.RAISE)
    except ValueError:
        return False
    return True
