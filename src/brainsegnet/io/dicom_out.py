"""A label map as DICOM: a segmentation of the images it was made of, and a report of the volumes.

The segmentation (SEG, binary) lies on the slices of its source, in its study and frame of reference. The structured
report follows template TID 1500 and names for each volume the segment that it was measured in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr import Comprehensive3DSR, MeasurementReport
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from brainsegnet._atomic import replacing
from brainsegnet._types import Labels
from brainsegnet.errors import GridMismatch, ImageError
from brainsegnet.io.dicom import DicomSeries
from brainsegnet.io.dicom_files import BROKEN, quiet
from brainsegnet.io.dicom_sources import read_sources
from brainsegnet.task import Task
from brainsegnet.volume import LabelMap, Volume, describe_mismatch

ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
BRAIN = Code("12738006", "SCT", "Brain")
NEOPLASM = Code("108369006", "SCT", "Neoplasm")
LESION = Code("52988006", "SCT", "Lesion")
NON_ENHANCING = Code("C81175", "NCIt", "Non-Enhancing Lesion")
TISSUES: Mapping[str, Code] = {
    "necrosis": Code("6574001", "SCT", "Necrosis"),
    "oedema": Code("79654002", "SCT", "Edema"),
    "non-enhancing": NON_ENHANCING,
    "necrosis + non-enhancing": NON_ENHANCING,
    "enhancing": Code("C113842", "NCIt", "Enhancing Lesion"),
    "infarct": Code("55641003", "SCT", "Infarct"),
}
"""Codes of CID 7159 and 7168 of the standard; a tissue without one is a lesion."""
MAKER = "brainsegnet developers"
SERIES_NUMBERS = (9001, 9002)
"""Of the segmentation and of the report."""
_REMARK = "Automatic, for research; not verified by a physician"
_REMARK_CORRECTED = "Automatic, corrected by hand, for research"


@dataclass(frozen=True, eq=False)
class Findings:
    """What is written.

    Attributes:
        task: Names, colours and regions of the labels.
        labels: (D, H, W) in the convention of the task, on the grid of the series.
        volumes_ml: "labels" by tissue and "regions" by region, in millilitres.
        algorithm, version: Name of the model and version of the software.
        number: Of the volume in the series that the labels belong to.
        corrected: Whether a person has corrected the labels.
    """

    task: Task
    labels: LabelMap
    volumes_ml: Mapping[str, Mapping[str, float]]
    algorithm: str
    version: str
    number: int = 0
    corrected: bool = False

    def describe(self, content: str) -> str:
        """The description of a series, in the 64 characters that the standard allows."""
        ending = f": {content}{', corrected' if self.corrected else ''}"
        return f"{f'brainsegnet {self.algorithm}'[: 64 - len(ending)]}{ending}"


@dataclass(frozen=True, eq=False)
class DicomResult:
    """The objects, as pydicom has them, and sentences on what had to be assumed."""

    segmentation: Segmentation
    report: Comprehensive3DSR
    notes: tuple[str, ...] = field(default=())

    def save(self, segmentation: Path, report: Path | None = None) -> None:
        """Write both, or the segmentation alone; neither is there before both are written.

        Raises:
            OutputError: a folder is not writable, or the disk is full.
        """
        with quiet(), replacing(segmentation) as temporary:
            self.segmentation.save_as(temporary, enforce_file_format=True)
            if report is not None:
                with replacing(report) as beside:
                    self.report.save_as(beside, enforce_file_format=True)


def build_dicom(series: DicomSeries, findings: Findings, omit_empty_frames: bool = True) -> DicomResult:
    """The segmentation and the report of a result, in the study of its source.

    Args:
        series: The source, on whose grid the labels are.
        findings: The result.
        omit_empty_frames: Leave out slices without a label; some old viewers want all.

    Raises:
        GridMismatch: the labels are on another grid.
        ImageError: the source cannot be referred to, or its headers are beyond repair.
    """
    grid = Volume(np.broadcast_to(np.uint8(0), series.shape), series.affine)
    if not findings.labels.on_grid_of(grid):
        raise GridMismatch(describe_mismatch("the label map", findings.labels, series.name, grid))
    sources, notes = read_sources(series, findings.number)
    stack = series.stacks[findings.number]
    slices = stack.back_to_slices(findings.labels)
    places = [hd.PlanePositionSequence("PATIENT", frame.position) for frame in stack.frames]
    present = [value for value in findings.task.labels if (findings.labels.array == value).any()]
    segments = present or list(findings.task.labels)
    omit = omit_empty_frames and bool(present)
    try:
        with quiet():
            segmentation = _build_segmentation(sources, slices, places, segments, findings, omit)
            report = _build_report(sources, segmentation, segments, findings)
            if charset := sources[0].get("SpecificCharacterSet"):  # highdicom before 0.28 leaves it out
                segmentation.SpecificCharacterSet = report.SpecificCharacterSet = charset
    except BROKEN as error:
        cause = " ".join(str(error).split())[:200]
        raise ImageError(f"no DICOM can be made of the headers of {series.name}: {cause}") from error
    return DicomResult(segmentation, report, notes)


def _build_segmentation(
    sources: Sequence[Dataset],
    slices: Labels,
    places: Sequence[hd.PlanePositionSequence],
    segments: Sequence[int],
    findings: Findings,
    omit_empty: bool,
) -> Segmentation:
    table = np.zeros(256, np.uint8)
    table[list(segments)] = np.arange(1, len(segments) + 1)
    return Segmentation(
        source_images=list(sources),
        pixel_array=table[slices],
        plane_positions=list(places),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _describe_segment(number, findings.task, value, findings) for number, value in enumerate(segments, 1)
        ],
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBERS[0],
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name="brainsegnet",
        software_versions=findings.version,
        device_serial_number="none",
        content_description=_REMARK_CORRECTED if findings.corrected else _REMARK,
        content_label="LESIONS",
        series_description=findings.describe("labels"),
        omit_empty_frames=omit_empty,
    )


def _describe_segment(number: int, task: Task, value: int, findings: Findings) -> SegmentDescription:
    tissue, kinds = task.labels[value], hd.seg.SegmentAlgorithmTypeValues
    algorithm = hd.AlgorithmIdentificationSequence(
        name=f"brainsegnet {findings.algorithm}"[:64],
        family=codes.cid7162.ArtificialIntelligence,
        version=findings.version,
    )
    return SegmentDescription(
        segment_number=number,
        segment_label=tissue[:64],
        segmented_property_category=ABNORMAL,
        segmented_property_type=TISSUES.get(tissue, LESION),
        algorithm_type=kinds.SEMIAUTOMATIC if findings.corrected else kinds.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=hd.UID(),
        tracking_id=tissue[:64],
        anatomic_regions=[BRAIN],
        display_color=CIELabColor.from_rgb(*parse_colour(task.colours[value])),
    )


def parse_colour(colour: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255.

    >>> parse_colour("#ff7a1a")
    (255, 122, 26)
    """
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def _build_report(
    sources: Sequence[Dataset], segmentation: Segmentation, segments: Sequence[int], findings: Findings
) -> Comprehensive3DSR:
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=hd.UID(), name="brainsegnet", manufacturer_name=MAKER, model_name=findings.algorithm[:64]
    )
    observer = hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    content = MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.LN.BrainMRI,
        imaging_measurements=[
            *(_measure_segment(segmentation, number, value, findings) for number, value in enumerate(segments, 1)),
            *_measure_regions(segments, findings),
        ],
        title=codes.DCM.ImagingMeasurementReport,
    )
    return Comprehensive3DSR(
        evidence=[*sources, segmentation],
        content=content,
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBERS[1],
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name="brainsegnet",
        software_versions=findings.version,
        is_complete=True,
        series_description=findings.describe("volumes"),
    )


def _measure_segment(
    segmentation: Segmentation, number: int, value: int, findings: Findings
) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    tissue = findings.task.labels[value]
    described = segmentation.SegmentSequence[number - 1]
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=described.TrackingUID, identifier=described.TrackingID),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=hd.sr.SourceSeriesForSegmentation(segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID),
        ),
        finding_type=TISSUES.get(tissue, LESION),
        finding_category=ABNORMAL,
        finding_sites=[hd.sr.FindingSite(BRAIN)],
        measurements=[_measure_volume(findings.volumes_ml["labels"][tissue])],
    )


def _measure_regions(segments: Sequence[int], findings: Findings) -> list[hd.sr.MeasurementsAndQualitativeEvaluations]:
    """Volumes without a segment: tissues that were not found, and regions that unite several."""
    task, volumes = findings.task, findings.volumes_ml
    absent = {name: volumes["labels"][name] for value, name in task.labels.items() if value not in segments}
    united = {name: volumes["regions"][name] for name, values in task.regions.items() if len(values) > 1}
    kind = NEOPLASM if {"oedema", "enhancing"} & set(task.labels.values()) else LESION
    return [
        hd.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(uid=hd.UID(), identifier=name),
            finding_type=TISSUES.get(name, kind),
            finding_category=ABNORMAL,
            finding_sites=[hd.sr.FindingSite(BRAIN)],
            measurements=[_measure_volume(volume_ml)],
        )
        for name, volume_ml in {**absent, **{f"region {name}": ml for name, ml in united.items()}}.items()
    ]


def _measure_volume(volume_ml: float) -> hd.sr.Measurement:
    millilitre = Code("mL", "UCUM", "milliliter")
    return hd.sr.Measurement(name=codes.SCT.Volume, value=round(volume_ml, 3), unit=millilitre)
