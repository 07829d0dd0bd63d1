"""The pixels of DICOM files, plain or compressed, without a library that the package does not bring.

pydicom decodes plain and RLE files itself, JPEG-LS through pyjpegls, JPEG of 8 bits and JPEG 2000 through Pillow. What
it cannot decode, JPEG Lossless and JPEG of 12 bits above all, GDCM inside SimpleITK does. `pylibjpeg-libjpeg`, which
pydicom would ask for, is GPL-3.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    SecondaryCaptureImageStorage,
)

from brainsegnet._types import Array
from brainsegnet.errors import ImageError
from brainsegnet.io.dicom_files import BROKEN, Open, read_dataset
from brainsegnet.io.dicom_headers import Frame
from brainsegnet.io.dicom_mosaic import cut_tiles
from brainsegnet.volume import load_itk

BY_ITK = {JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEG2000Lossless, JPEG2000}
"""Codecs that GDCM decodes where pydicom does not."""
_KEPT = """
    Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel PhotometricInterpretation
    NumberOfFrames PixelData
""".split()


def read_pixels(open_file: Open, file: str, frames: Sequence[Frame]) -> list[Array]:
    """The slices (H, W) of one file that the frames name, in real values: stored ones where nothing is rescaled.

    Raises:
        ImageError: the file is cut short, damaged, or compressed in a way that is not known here.
    """
    with open_file(file) as stream:
        data = read_dataset(stream, pixels=True)
    if data is None:
        raise ImageError(f"{file} is no longer a DICOM file; fetch it again")
    stored = decode(data, file)
    if data.get("PhotometricInterpretation") == "MONOCHROME1":
        bits, signed = int(data.BitsStored), bool(data.get("PixelRepresentation"))
        stored = ((-1 if signed else 2**bits - 1) - stored).astype(stored.dtype)
    if frames[0].tiles:
        stored = cut_tiles(stored[0], frames[0].tiles)
    return [_rescale(stored[frame.index], frame.scale) for frame in frames]


def decode(data: Dataset, file: str) -> Array:
    """The stored values (frames, H, W) of a data set with its pixels.

    Raises:
        ImageError: as `read_pixels`.
    """
    meta = getattr(data, "file_meta", None) or FileMetaDataset()
    syntax = UID(meta.get("TransferSyntaxUID") or _guess_syntax(data))
    meta.TransferSyntaxUID, data.file_meta = syntax, meta
    try:
        array: Array = pixel_array(data, raw=True)
    except BROKEN as error:
        if syntax not in BY_ITK:
            cause = " ".join(str(error).split()).split(" - ")[0]
            codec = " ".join(syntax.name.split())
            raise ImageError(f"the pixels of {file} ({codec}) cannot be read: {cause[:200]}") from error
        array = _decode_itk(data, file)
    native: Array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return native.reshape(-1, int(data.Rows), int(data.Columns))


def _guess_syntax(data: Dataset) -> UID:
    return ImplicitVRLittleEndian if data.original_encoding[0] else ExplicitVRLittleEndian


def _decode_itk(data: Dataset, file: str) -> Array:
    """Through a temporary file that holds the pixels and their description alone, so nothing is rescaled."""
    bare = Dataset()
    for keyword in _KEPT:
        if keyword in data:
            bare[keyword] = data[keyword]
    bare.SOPClassUID, bare.SOPInstanceUID = SecondaryCaptureImageStorage, UID("1.2.3")
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = data.file_meta.TransferSyntaxUID
    bare.file_meta.MediaStorageSOPClassUID = bare.SOPClassUID
    bare.file_meta.MediaStorageSOPInstanceUID = bare.SOPInstanceUID
    itk = load_itk()
    itk.ProcessObject.SetGlobalWarningDisplay(False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pixels.dcm"
        try:
            bare.save_as(path, enforce_file_format=True)
            array: Array = itk.GetArrayFromImage(itk.ReadImage(str(path), imageIO="GDCMImageIO"))
        except BROKEN as error:
            syntax = bare.file_meta.TransferSyntaxUID.name
            raise ImageError(f"the pixels of {file} ({syntax}) cannot be decoded, they are damaged") from error
    return array


def _rescale(image: Array, scale: tuple[float, float]) -> Array:
    slope, intercept = scale
    if scale == (1.0, 0.0):
        return image
    if slope == 1 and intercept.is_integer() and np.iinfo(image.dtype).bits <= 16:
        return image.astype(np.int32) + int(intercept)
    return np.asarray(image * slope + intercept, np.float32)
