"""Writes volumes as DICOM series, as scanners store them: for tests, and to try a command on scans of other formats."""

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)
from pydicom.valuerep import DSfloat

from brainsegnet._types import Array
from brainsegnet.io.images import read_image
from brainsegnet.volume import Volume

PATIENT = {
    "PatientName": "Test^Patient",
    "PatientID": "T1",
    "PatientBirthDate": "",
    "PatientSex": "O",
    "StudyDate": "20200102",
    "StudyTime": "101112",
    "AccessionNumber": "",
    "StudyID": "1",
    "ReferringPhysicianName": "",
}
SEQUENCES: Mapping[str, Mapping[str, Any]] = {
    "flair": {"RepetitionTime": 9000, "EchoTime": 120, "InversionTime": 2500, "ScanningSequence": ["SE", "IR"]},
    "t1": {"RepetitionTime": 500, "EchoTime": 10, "ScanningSequence": "SE"},
    "t1c": {"RepetitionTime": 500, "EchoTime": 10, "ScanningSequence": "SE", "ContrastBolusAgent": "Gadolinium"},
    "t2": {"RepetitionTime": 4000, "EchoTime": 100, "ScanningSequence": "SE"},
}
"""Headers that are usual for a sequence."""


def describe(number: int = 1, study: str = "study", series: str = "series", **tags: Any) -> dict[str, Any]:  # noqa: ANN401
    """Headers of a series: of a patient, of a study whose UID follows from a word, and `tags` beside or over them."""
    return {
        **PATIENT,
        "Modality": "MR",
        "Manufacturer": "TESTMAKER",
        "ManufacturerModelName": "Model",
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
        "SeriesNumber": number,
        "StudyInstanceUID": generate_uid(entropy_srcs=[study]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=[study, series, str(number)]),
        "FrameOfReferenceUID": generate_uid(entropy_srcs=[study, "frame"]),
        **tags,
    }


def write_slices(volume: Volume, folder: Path, headers: Mapping[str, Any], implicit: bool = False) -> list[Path]:
    """One file for each slice (H, W) of a volume of whole numbers; a header that is None is left out.

    Args:
        volume: (D, H, W), its affine to x left, y posterior, z superior.
        folder: Made if it is missing.
        headers: Keyword to value, of all slices.
        implicit: Whether types of values are left out of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, image in enumerate(volume.array):
        data = build_slice(volume, number, image, headers)
        syntax: UID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        path = folder / f"{headers.get('SeriesNumber')}-{headers.get('InstanceNumber', number + 1)}-{number:04d}"
        save(data, path, syntax)
        paths.append(path)
    return paths


def build_slice(volume: Volume, number: int, image: Array, headers: Mapping[str, Any]) -> Dataset:
    """One slice as a data set."""
    data = Dataset()
    data.SOPClassUID = MRImageStorage
    data.SOPInstanceUID = generate_uid(entropy_srcs=[str(sorted(headers.items())), str(number)])
    data.InstanceNumber = number + 1
    position, orientation, spacing = place(volume, number)
    data.ImagePositionPatient, data.ImageOrientationPatient = position, orientation
    data.PixelSpacing, data.SliceThickness = spacing, DSfloat(volume.spacing_mm[0], auto_format=True)
    put_pixels(data, image)
    for keyword, value in headers.items():
        if value is None:
            data.pop(keyword, None)
        else:
            setattr(data, keyword, value)
    return data


def write_multi_frame(volumes: Sequence[Volume], path: Path, headers: Mapping[str, Any]) -> Path:
    """Volumes of one grid as an enhanced multi-frame file, slice by slice, all times of a slice together."""
    data = Dataset()
    for keyword, value in headers.items():
        setattr(data, keyword, value)
    data.SOPClassUID, data.InstanceNumber = EnhancedMRImageStorage, 1
    data.SOPInstanceUID = generate_uid(entropy_srcs=[str(headers["SeriesInstanceUID"])])
    first = volumes[0]
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = place(first, 0)[2], first.spacing_mm[0]
    plane.ImageOrientationPatient = place(first, 0)[1]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    data.SharedFunctionalGroupsSequence = [shared]
    groups, images = [], []
    for number in range(first.shape[0]):
        for time, volume in enumerate(volumes):
            group, content, position = Dataset(), Dataset(), Dataset()
            content.TemporalPositionIndex, position.ImagePositionPatient = time + 1, place(volume, number)[0]
            group.FrameContentSequence, group.PlanePositionSequence = [content], [position]
            groups.append(group)
            images.append(volume.array[number])
    data.PerFrameFunctionalGroupsSequence = groups
    put_pixels(data, np.stack(images))
    data.NumberOfFrames = len(images)
    save(data, path, ExplicitVRLittleEndian)
    return path


def build_mosaic(volume: Volume, headers: Mapping[str, Any], reverse: bool = False) -> Dataset:
    """A volume as a mosaic of Siemens; its slices follow each other against their normal if `reverse`."""
    count, height, width = volume.shape
    side = math.ceil(math.sqrt(count))
    tiles = np.zeros((side * side, height, width), np.int16)
    tiles[:count] = volume.array
    picture = tiles.reshape(side, side, height, width).swapaxes(1, 2).reshape(side * height, side * width)
    data = build_slice(volume, 0, picture, headers)
    data.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    data.SpacingBetweenSlices = volume.spacing_mm[0]
    corner = volume.affine[:3] @ (0, -(side - 1) * height / 2, -(side - 1) * width / 2, 1)
    data.ImagePositionPatient = [DSfloat(float(value), auto_format=True) for value in corner]
    normal = volume.affine[:3, 0] / volume.spacing_mm[0] * (-1 if reverse else 1)
    csa = build_csa(NumberOfImagesInMosaic=[count], SliceNormalVector=normal.tolist(), AcquisitionMatrixText=["64p*64"])
    data.add_new(0x00290010, "LO", "SIEMENS CSA HEADER")
    data.add_new(0x00291010, "OB", csa)
    return data


def build_csa(**fields: Sequence[float | str]) -> bytes:
    """The private header of Siemens in format 2."""
    raw = b"SV10\4\3\2\1" + struct.pack("<II", len(fields), 77)
    for name, values in fields.items():
        kind = b"LO" if isinstance(values[0], str) else b"FD"
        raw += struct.pack("<64si4siii", name.encode(), len(values), kind, 0, len(values), 77)
        for value in values:
            text = f"{value}".encode() + b"\0"
            raw += struct.pack("<4i", 0, len(text), 77, 0) + text + b"\0" * (-len(text) % 4)
    return raw


def save(data: Dataset, path: Path, syntax: UID) -> None:
    """Write a data set as a DICOM file."""
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = (
        data.SOPClassUID,
        data.SOPInstanceUID,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def place(volume: Volume, number: int) -> tuple[list[DSfloat], list[DSfloat], list[DSfloat]]:
    """Position, orientation and spacing of a slice as they stand in a header."""
    _, row, column = volume.spacing_mm
    origin = volume.affine[:3] @ (number, 0, 0, 1)
    orientation = [*(volume.affine[:3, 2] / column), *(volume.affine[:3, 1] / row)]
    position, orientation, spacing = (
        [DSfloat(float(value), auto_format=True) for value in values] for values in (origin, orientation, (row, column))
    )
    return position, orientation, spacing


def put_pixels(data: Dataset, image: Array) -> None:
    """Whole numbers (H, W) or (frames, H, W) into a data set."""
    stored = np.ascontiguousarray(image).astype(np.int16 if image.min() < 0 or image.max() < 2**15 else np.uint16)
    data.Rows, data.Columns = stored.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = int(stored.dtype == np.int16)
    data.PixelData = stored.tobytes()
    data["PixelData"].VR = "OW"


def write_study(images: Mapping[str, Path], folder: Path) -> Path:
    """A study of one series for each image file, with the headers that are usual for its sequence; all in one folder.

    The voxels become whole numbers.
    """
    for number, (name, path) in enumerate(images.items(), 1):
        volume = read_image(path)
        headers = describe(number, series=name, SeriesDescription=name, **SEQUENCES.get(name, {}))
        write_slices(volume.with_array(np.rint(volume.array)), folder, headers)
    return folder
