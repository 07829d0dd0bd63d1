"""What the headers of DICOM images say, by frame: where it is, and how it was acquired. Makers differ in where it is.

A frame is one slice: a file, a part of a multi-frame file, or a tile of a mosaic (see `dicom_mosaic`).
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from brainsegnet._types import Doubles, Point
from brainsegnet.io.dicom_files import BROKEN
from brainsegnet.io.dicom_mosaic import CSA_IMAGE, TILES, find_mosaic, read_csa

GE_DIFFUSION, GE_ISOTROPIC = 0x00431039, 0x00431030
SIEMENS_B, SIEMENS_DIRECTION = 0x0019100C, 0x0019100D
PHILIPS_B, PHILIPS_DIRECTION = 0x20011003, 0x20011004
UIH_B = 0x00651009
_PRIVATE = (
    *(GE_DIFFUSION, GE_ISOTROPIC, SIEMENS_B, SIEMENS_DIRECTION, PHILIPS_B, PHILIPS_DIRECTION, UIH_B),
    *(CSA_IMAGE, TILES),
)
_KEYWORDS = """
    AcquisitionNumber AcquisitionTime BodyPartExamined Columns ContrastBolusAgent ContrastBolusAgentSequence
    DiffusionBValue DiffusionDirectionality EchoTime FlipAngle FrameOfReferenceUID ImageOrientationPatient
    ImagePositionPatient ImagesInAcquisition ImageType InstanceNumber InversionTime MagneticFieldStrength
    Manufacturer ManufacturerModelName Modality MRAcquisitionType NumberOfFrames PatientAge
    PerFrameFunctionalGroupsSequence PhotometricInterpretation PixelSpacing ProtocolName PulseSequenceName
    RealWorldValueMappingSequence RepetitionTime RescaleIntercept RescaleSlope RescaleType Rows SamplesPerPixel
    ScanningSequence SequenceName SequenceVariant SeriesDescription SeriesInstanceUID SeriesNumber
    SharedFunctionalGroupsSequence SliceThickness SOPInstanceUID SpacingBetweenSlices SpecificCharacterSet
    StudyDate StudyInstanceUID TemporalPositionIdentifier
""".split()
TAGS = (*(tag for word in _KEYWORDS if (tag := tag_for_keyword(word)) is not None), *_PRIVATE)
"""The elements that are read; the patient's name and number are not among them."""
IDENTITY = (0x00100020, 0x00100030)
"""Number and date of birth of the patient, which are only compared."""
Elements = Mapping[int, Any]
"""Tag to value: of a file, and over it those of the functional groups of one frame."""
GE_MEAN = 15
"""What GE writes where the image is the mean of all directions."""
OLDEST = 120
"""A greater age, in years, is none."""
MAX_B = 20_000.0
"""A larger b-value, in s/mm2, is none: GE writes other numbers at its place."""


INSTANCE = 2
"""Place of the instance number in the `order` of a frame."""


@dataclass(frozen=True)
class SeriesHeader:
    """How a series was acquired, as far as its headers say; nothing in it names the patient.

    Attributes:
        study_uid, series_uid, frame_of_reference_uid: Unique identifiers, empty if absent.
        study_date: As YYYYMMDD, empty if absent.
        number: Of the series in its study, or None.
        image_type: As stored, such as ("ORIGINAL", "PRIMARY", "M", "NORM").
        scanning_sequence, sequence_variant: Such as ("SE", "IR") and ("SK", "SP").
        acquisition_type: "2D", "3D" or empty.
        tr_ms, te_ms, ti_ms: Repetition, echo and inversion time.
        b_value: In s/mm2; 0 also in scans without diffusion weighting of some makers. None if absent.
        directionality: "isotropic" for the mean of all directions, "directional", "none", or empty if unknown.
        contrast_agent: Its name, empty if none was given.
        thickness_mm: Of a slice, which differs from the distance of the slices.
        acquisition_time: Hours, minutes and seconds, as HHMMSS.
        age_years: Of the patient; None if it is absent or not plausible.
        body_part: As stored, such as "BRAIN"; empty if absent.
        units: Of the values, as the headers name them; empty if they do not.
    """

    study_uid: str = ""
    series_uid: str = ""
    frame_of_reference_uid: str = ""
    study_date: str = ""
    modality: str = ""
    manufacturer: str = ""
    model: str = ""
    number: int | None = None
    description: str = ""
    protocol: str = ""
    sequence_name: str = ""
    image_type: tuple[str, ...] = ()
    scanning_sequence: tuple[str, ...] = ()
    sequence_variant: tuple[str, ...] = ()
    acquisition_type: str = ""
    tr_ms: float | None = None
    te_ms: float | None = None
    ti_ms: float | None = None
    flip_degrees: float | None = None
    field_t: float | None = None
    b_value: float | None = None
    directionality: str = ""
    contrast_agent: str = ""
    thickness_mm: float | None = None
    acquisition_time: str = ""
    units: str = ""
    age_years: float | None = None
    body_part: str = ""

    @property
    def name(self) -> str:
        """To be read: "series 5 (t2_tse_tra)"."""
        number = "a series without number" if self.number is None else f"series {self.number}"
        return f"{number} ({self.description})" if self.description else number


@dataclass(frozen=True)
class Frame:
    """One slice and where it is.

    Attributes:
        file: Name of its file, relative to the root of the study.
        index: Of the frame in its file, counted from 0, or of the tile in its mosaic.
        sop_uid: Of its file.
        rows, columns: Size of the slice.
        spacing_mm: Between rows, and between columns.
        position: Of the centre of the first voxel.
        orientation: Directions (2, 3) in which the columns and the rows are counted, six numbers in one.
        header: How it was acquired.
        order: Temporal position, acquisition and instance number: sorts the frames at one place.
        scale: Slope and intercept from stored to real values.
        tiles: Slices along one side of the mosaic that holds it; 0 where there is none.
        expected: How many images its acquisition has, 0 if the header does not say.
        problem: Why it cannot be used: the end of a sentence; empty if it can.
    """

    file: str
    index: int
    sop_uid: str
    rows: int
    columns: int
    spacing_mm: tuple[float, float]
    position: Point
    orientation: tuple[float, ...]
    header: SeriesHeader
    order: tuple[int, ...] = ()
    scale: tuple[float, float] = (1.0, 0.0)
    tiles: int = 0
    expected: int = 0
    problem: str = ""


def read_frames(data: Dataset, file: str) -> list[Frame]:
    """The frames of a file: one, those of a multi-frame file, or the tiles of a mosaic; none where it is no image."""
    if "Rows" not in data or "Columns" not in data:
        return []
    top = _flatten(data)
    groups = data.get("PerFrameFunctionalGroupsSequence") or ()
    if not groups:
        count = _whole(top, "NumberOfFrames") or 1
        frame = _read_frame(
            top, file, 0, "" if count == 1 else f"has {count} frames without their positions; convert it with dcm2niix"
        )
        return _cut_mosaic(top, frame) if "MOSAIC" in frame.header.image_type else [frame]
    shared = next(iter(data.get("SharedFunctionalGroupsSequence") or ()), Dataset())
    common = {**top, **_flatten(shared, deep=True)}
    return [_read_frame({**common, **_flatten(group, deep=True)}, file, i, "") for i, group in enumerate(groups)]


def _flatten(data: Dataset, deep: bool = False) -> dict[int, Any]:
    """Values by tag; `deep` adds those of the first item of every sequence, as functional groups nest them."""
    found: dict[int, Any] = {}
    for tag in data.keys():
        with suppress(*BROKEN):
            element = data[tag]
            found[int(tag)] = element.value
            if deep and element.VR == "SQ" and element.value and not tag.is_private:
                found = {**_flatten(element.value[0], deep=True), **found}
    return found


def _read_frame(elements: Elements, file: str, index: int, problem: str) -> Frame:
    spacing, position, orientation = (
        _numbers(elements, word) for word in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
    )
    temporal = _number(elements, "TemporalPositionIndex", "TemporalPositionIdentifier")
    order = (temporal, *(_number(elements, word) for word in ("AcquisitionNumber", "InstanceNumber")), index)
    slope, intercept = (_number(elements, word) for word in ("RescaleSlope", "RescaleIntercept"))
    return Frame(
        file,
        index,
        _text(elements, "SOPInstanceUID"),
        _whole(elements, "Rows") or 0,
        _whole(elements, "Columns") or 0,
        (spacing[0], spacing[1]) if len(spacing) == 2 else (0.0, 0.0),
        (position[0], position[1], position[2]) if len(position) == 3 else (0.0, 0.0, 0.0),
        tuple(orientation.tolist()),
        _read_header(elements),
        tuple(int(number or 0) for number in order),
        (slope or 1.0, intercept or 0.0),
        expected=_whole(elements, "ImagesInAcquisition") or 0,
        problem=problem or _find_problem(elements, spacing, position, orientation),
    )


def _find_problem(elements: Elements, spacing: Doubles, position: Doubles, orientation: Doubles) -> str:
    if (_whole(elements, "SamplesPerPixel") or 1) != 1 or "PALETTE" in _text(elements, "PhotometricInterpretation"):
        return "is a picture in colour, not a measured image"
    if len(position) != 3 or len(orientation) != 6:
        return "does not say where its slices are"
    if len(spacing) != 2 or min(spacing) <= 0:
        return "does not say how large its voxels are"
    if "VFRAME" in _words(elements, "ImageType"):
        return "is a mosaic of a kind that is not read here; convert it with dcm2niix"
    lengths = np.linalg.norm(orientation.reshape(2, 3), axis=1)
    if not np.allclose(lengths, 1, atol=0.01) or abs(orientation[:3] @ orientation[3:]) > 0.01:
        return "has rows and columns that are not at right angles"
    return ""


def _cut_mosaic(elements: Elements, frame: Frame) -> list[Frame]:
    """One frame for each slice of a mosaic of Siemens."""
    mosaic = None
    if not frame.problem:
        csa = read_csa(elements.get(CSA_IMAGE))
        count = _private(elements, TILES) or next(iter(csa.get("NumberOfImagesInMosaic", ())), 0)
        step = _number(elements, "SpacingBetweenSlices", "SliceThickness") or 0.0
        picture = (frame.rows, frame.columns), frame.spacing_mm, frame.position, frame.orientation
        mosaic = find_mosaic(*picture, int(count), step, csa.get("SliceNormalVector", ()))
    if mosaic is None:
        unknown = "is a mosaic whose header does not say how it is made; convert it with dcm2niix"
        return [replace(frame, problem=frame.problem or unknown)]
    rows, columns = frame.rows // mosaic.side, frame.columns // mosaic.side
    return [
        replace(frame, index=i, rows=rows, columns=columns, position=position, tiles=mosaic.side)
        for i, position in enumerate(mosaic.positions)
    ]


def _read_header(elements: Elements) -> SeriesHeader:
    image_type = _words(elements, "FrameType", "ImageType")
    component = _text(elements, "ComplexImageComponent")
    return SeriesHeader(
        study_uid=_text(elements, "StudyInstanceUID"),
        series_uid=_text(elements, "SeriesInstanceUID"),
        frame_of_reference_uid=_text(elements, "FrameOfReferenceUID"),
        study_date=_text(elements, "StudyDate"),
        modality=_text(elements, "Modality"),
        manufacturer=_text(elements, "Manufacturer"),
        model=_text(elements, "ManufacturerModelName"),
        number=_whole(elements, "SeriesNumber"),
        description=_text(elements, "SeriesDescription"),
        protocol=_text(elements, "ProtocolName"),
        sequence_name=_text(elements, "SequenceName", "PulseSequenceName"),
        image_type=image_type if component in ("", "MAGNITUDE", *image_type) else (*image_type, component),
        scanning_sequence=_words(elements, "ScanningSequence"),
        sequence_variant=_words(elements, "SequenceVariant"),
        acquisition_type=_text(elements, "MRAcquisitionType"),
        tr_ms=_number(elements, "RepetitionTime"),
        te_ms=_number(elements, "EffectiveEchoTime", "EchoTime"),
        ti_ms=_number(elements, "InversionTimes", "InversionTime"),
        flip_degrees=_number(elements, "FlipAngle"),
        field_t=_number(elements, "MagneticFieldStrength"),
        b_value=find_b_value(elements),
        directionality=find_directionality(elements),
        contrast_agent=_find_contrast(elements),
        thickness_mm=_number(elements, "SliceThickness"),
        acquisition_time=(_text(elements, "FrameAcquisitionDateTime")[8:] or _text(elements, "AcquisitionTime"))[:6],
        units=_find_units(elements),
        age_years=find_age(elements),
        body_part=_text(elements, "BodyPartExamined"),
    )


def find_age(elements: Elements) -> float | None:
    """The patient's age in years, from a text such as "045Y" or "018M"; 0 stands for unknown in anonymised files."""
    if stated := re.fullmatch(r"(\d{1,3})([DWMY])", _text(elements, "PatientAge").upper()):
        years = int(stated[1]) * {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}[stated[2]]
        return round(years, 2) if 0 < years <= OLDEST else None
    return None


def find_b_value(elements: Elements) -> float | None:
    """The b-value in s/mm2: the standard's element, else that of Siemens, GE, Philips or United Imaging, else a name.

    GE adds 10^9 to it in some versions. Siemens names sequences like `*ep_b1000t`.
    """
    candidates = [_number(elements, "DiffusionBValue")]
    candidates += [_private(elements, tag) for tag in (SIEMENS_B, GE_DIFFUSION, PHILIPS_B, UIH_B)]
    candidates.append(next(iter(read_csa(elements.get(CSA_IMAGE)).get("B_value", ())), None))
    for value in candidates:
        if value is not None:
            value = value - 1e9 if 1e9 <= value <= 1e9 + MAX_B else value
            if 0 <= value <= MAX_B:
                return float(value)
    named = re.search(r"ep_b(\d{1,5})(?!\d)", _text(elements, "SequenceName"))
    return float(named[1]) if named else None


def find_directionality(elements: Elements) -> str:
    """Whether the diffusion weighting is the mean of all directions: "isotropic", "directional", "none" or empty."""
    known = {"ISOTROPIC": "isotropic", "DIRECTIONAL": "directional", "BMATRIX": "directional", "NONE": "none"}
    for word in (_text(elements, "DiffusionDirectionality"), _decode(elements.get(SIEMENS_DIRECTION, "")).strip()):
        if word.upper() in known:
            return known[word.upper()]
    if philips := _decode(elements.get(PHILIPS_DIRECTION, "")).strip():
        return "isotropic" if philips[0] == "I" else "directional"
    if _private(elements, GE_ISOTROPIC) == GE_MEAN:
        return "isotropic"
    return "isotropic" if {"TRACEW", "TRACE"} & set(_words(elements, "ImageType")) else ""


def _find_contrast(elements: Elements) -> str:
    """The name of the contrast agent."""
    items = _value(elements, "ContrastBolusAgentSequence") or ()
    named = (_text(_flatten(item), "CodeMeaning") for item in items)
    return next(filter(None, named), "") or _text(elements, "ContrastBolusAgent")


def _find_units(elements: Elements) -> str:
    """The unit of the values; US, "unspecified", is none."""
    if (unit := _text(elements, "RescaleType")) not in ("", "US", "normalized"):
        return unit
    for mapping in _value(elements, "RealWorldValueMappingSequence") or ():
        for code in mapping.get("MeasurementUnitsCodeSequence") or ():
            return _text(_flatten(code), "CodeValue")
    return ""


def _value(elements: Elements, *keywords: str) -> Any:  # noqa: ANN401
    """The first value that is there."""
    found = (elements.get(tag_for_keyword(keyword) or 0) for keyword in keywords)
    return next((value for value in found if value is not None and value != ""), None)


def _text(elements: Elements, *keywords: str) -> str:
    value = _value(elements, *keywords)
    return "" if value is None else " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", _decode(value)).split())


def _words(elements: Elements, *keywords: str) -> tuple[str, ...]:
    value = _value(elements, *keywords)
    words = [] if value is None else [value] if isinstance(value, str | bytes) else list(value)
    return tuple(_decode(word).strip() for word in words)


def _decode(value: Any) -> str:  # noqa: ANN401
    """Private elements of files with implicit value types come as bytes."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _numbers(elements: Elements, *keywords: str) -> Doubles:
    """The finite numbers of the first element that is there; none where it holds something else."""
    value = _value(elements, *keywords)
    with suppress(ValueError, TypeError):
        numbers = np.atleast_1d(np.asarray(() if value is None else value, np.float64))
        if np.isfinite(numbers).all():
            return numbers
    return np.zeros(0)


def _number(elements: Elements, *keywords: str) -> float | None:
    numbers = _numbers(elements, *keywords)
    return float(numbers[0]) if numbers.size else None


def _whole(elements: Elements, keyword: str) -> int | None:
    number = _number(elements, keyword)
    return None if number is None else int(number)


def _private(elements: Elements, tag: int) -> float | None:
    """The first number of a private element, which is a number, text, or bytes of either."""
    value = elements.get(tag)
    with suppress(*BROKEN):
        if isinstance(value, bytes):
            if not re.fullmatch(rb"[-+0-9.eE\\ \0]+", value):
                return float(np.frombuffer(value, {2: "<u2", 4: "<f4", 8: "<f8"}[len(value)])[0])
            value = value.decode("latin-1").strip("\0 ").split("\\")
        first = value if isinstance(value, str | int | float) else next(iter(value or ()), None)
        return None if first is None else float(first)
    return None
