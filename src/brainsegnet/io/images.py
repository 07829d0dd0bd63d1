"""Several images of one grid in one file: the sequences of a 4-D image, or a perfusion series over time.

Image files: .nii .nii.gz .mha .mhd .nrrd to volumes and back.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from brainsegnet._atomic import IMAGES, check_suffix, find_suffix, replacing
from brainsegnet._types import Affine, Array, ItkObject
from brainsegnet.errors import ImageError, LabelError, OutputError
from brainsegnet.io.integrity import check_meta, check_nifti, check_start, read_start, restore_nan
from brainsegnet.volume import LabelMap, Volume, itk_grid


@dataclass(frozen=True, eq=False)
class Series:
    """Images on one grid.

    Args:
        array: Intensities (T, D, H, W): frame, slice, row, column.
        affine: (4, 4), index (d, h, w, 1) to millimetres (x left, y posterior, z superior), of every frame.

    Raises:
        ValueError: `array` is not 4-D.
    """

    array: Array
    affine: Affine

    def __post_init__(self) -> None:
        if self.array.ndim != 4:
            raise ValueError(f"a series is 4-D (T, D, H, W), this array has shape {self.array.shape}")

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.array)

    def frame(self, number: int) -> Volume:
        """One image of it, counted from 0: a view."""
        return Volume(self.array[number], self.affine)


READERS = {
    ".nii.gz": "NiftiImageIO",
    ".nii": "NiftiImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
    ".nrrd": "NrrdImageIO",
}
_NIFTI_FLOATS = (16, 64)
_ALONE = Lock()
"""ITK's NIfTI reader keeps the last name in a static string: two files read at once may free it twice and crash."""
LABEL_TOLERANCE = 1e-3
"""A stored label may be this far from a whole number: rescaled integers come back rounded."""


def read_image(path: Path) -> Volume:
    """An image as stored: array (D, H, W) in its stored dtype, affine in millimetres (x left, y posterior, z superior).

    Raises:
        ImageError: the file is missing, unreadable, cut short, damaged, no image, not 3-D or not of plain numbers.
    """
    array, affine = _read(path, one=True)
    return Volume(array[0], affine)


def read_series(path: Path) -> Series:
    """All images of a 4-D file, (T, D, H, W) in their stored dtype, on their one grid; a 3-D file is a series of one.

    ISLES 2017 stores its perfusion in 5-D, (X, Y, Z, 1, T), which is the same series.

    Raises:
        ImageError: as `read_image`, save that the file may hold several images.
    """
    return Series(*_read(path, one=False))


def read_labels(path: Path) -> LabelMap:
    """A label map (D, H, W) uint8; floats are accepted where they are whole numbers (BRATS 2015 stores float32).

    Raises:
        ImageError: as `read_image`.
        LabelError: a value is a fraction, NaN, negative or over 255.
    """
    volume = read_image(path)
    return LabelMap(_round_labels(volume.array, path), volume.affine)


def write_image(volume: Volume, path: Path, *, compress: bool = True) -> None:
    """Write an image or a label map, compressed if so asked, save for .nii; the same volume gives the same bytes.

    Raises:
        OutputError: the folder refuses files, the disk is full, the suffix is unknown or the grid sheared.
    """
    suffix = check_suffix(path, IMAGES)
    array = _storable(volume.array)
    with replacing(path) as temporary:
        try:
            image = _to_itk(array, volume.affine, path)
            _itk().WriteImage(image, str(temporary), useCompression=compress and suffix != ".nii")
            _check_written(temporary, array, suffix)
        except (RuntimeError, ImageError) as error:
            raise OutputError(f"{path} cannot be written: {_explain_failure(path, temporary, error)}") from error


def _itk() -> ItkObject:
    """SimpleITK, loaded with the first file: where a GPU trains on packed scans it may be absent."""
    import SimpleITK

    return SimpleITK


def _read(path: Path, one: bool) -> tuple[Array, Affine]:
    """The images (T, D, H, W) of a file, which may hold but `one`, and their affine."""
    reader_name = READERS.get(find_suffix(path, tuple(READERS)))
    if reader_name is None:
        raise ImageError(f"{path} is no image that can be read; its name must end in one of {', '.join(READERS)}")
    check_start(path)
    image = _read_itk(path, reader_name, one)
    array = np.asarray(_Pixels(image))
    if reader_name == "NiftiImageIO":
        _compare_with_nifti(path, array, image)
    elif reader_name == "MetaImageIO":
        check_meta(path, array)
    return array.reshape(-1, *array.shape[-3:]), _build_affine(image)


def _read_itk(path: Path, reader_name: str, one: bool) -> ItkObject:
    _itk().ProcessObject.SetGlobalWarningDisplay(False)
    reader = _itk().ImageFileReader()
    reader.SetImageIO(reader_name)
    reader.SetFileName(str(path))
    with _ALONE:
        try:
            reader.ReadImageInformation()
            _check_information(reader, path, one)
            return reader.Execute()
        except RuntimeError as error:
            raise ImageError(_explain_refusal(path, error)) from error


def _check_information(reader: ItkObject, path: Path, one: bool) -> None:
    size, parts = reader.GetSize(), reader.GetNumberOfComponents()
    shape = (*((parts,) if parts > 1 else ()), *reversed(size))
    if "complex" in _itk().GetPixelIDValueAsString(reader.GetPixelIDValue()):
        raise ImageError(f"{path} holds complex numbers; save its magnitude and read that")
    if parts > 1 or (one and any(n > 1 for n in size[3:])):
        raise ImageError(f"{path} is {len(shape)}-D {shape}, a 3-D image is due; save one volume of it and read that")
    if len(size) < 3:
        raise ImageError(f"{path} is {len(size)}-D {shape}, a 3-D image is due; join its slices into one volume")


def _compare_with_nifti(path: Path, array: Array, image: ItkObject) -> None:
    itemsize = int(image.GetMetaData("bitpix")) // 8
    stored = check_nifti(path, array, int(float(image.GetMetaData("vox_offset"))), array.size * itemsize)
    if stored is not None and int(image.GetMetaData("datatype")) in _NIFTI_FLOATS:
        is_little = read_start(path, 4)[0] != 0
        restore_nan(array, stored, f"{'<' if is_little else '>'}f{itemsize}")


def _explain_refusal(path: Path, error: RuntimeError) -> str:
    if "orthonormal" in str(error):
        return f"{path} has axes that are not at right angles (a sheared affine); resample it to a regular grid"
    return f"{path} cannot be read as an image: {_shorten(error)}"


def _shorten(error: Exception) -> str:
    """The cause out of ITK's several lines."""
    text = re.sub(r"\w+\(0x[0-9a-f]+\): ", "", str(error).rsplit("ERROR: ", 1)[-1])
    return " ".join(text.split())[:200]


class _Pixels:
    """Lends the buffer of an ITK image to an array and keeps the image alive, which saves a copy of each scan."""

    def __init__(self, image: ItkObject) -> None:
        view = _itk().GetArrayViewFromImage(image)
        address, _ = view.__array_interface__["data"]
        self.image = image
        self.__array_interface__ = {**view.__array_interface__, "data": (address, False)}


def _build_affine(image: ItkObject) -> Affine:
    affine = np.eye(4)
    axes = image.GetDimension()
    columns = np.reshape(image.GetDirection(), (axes, axes))[:3, :3] * image.GetSpacing()[:3]
    affine[:3, :3] = columns[:, ::-1]
    affine[:3, 3] = image.GetOrigin()[:3]
    return affine


def _round_labels(array: Array, path: Path) -> NDArray[np.uint8]:
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if np.isnan(low) or np.isnan(high):
        raise LabelError(f"{path} holds NaN where a label map is due; name the file of the labels")
    if low < 0 or high > 255:
        raise LabelError(f"{path} holds values from {low:g} to {high:g}, labels lie between 0 and 255")
    if np.issubdtype(array.dtype, np.integer):
        return array.astype(np.uint8, copy=False)
    labels = np.rint(array).astype(np.uint8)
    if np.array_equal(labels, array):
        return labels
    off = np.abs(array - labels) > LABEL_TOLERANCE
    if off.any():
        raise LabelError(f"{path} holds {off.sum()} fractions such as {array[off][0]:g}; name the file of the labels")
    return labels


def _storable(array: Array) -> Array:
    """The same values in a dtype that the formats know, contiguous, in the machine's order of bytes."""
    dtype = np.dtype({"?": "u1", "e": "f4"}.get(array.dtype.char, array.dtype.str.lstrip("<>|")))
    return np.ascontiguousarray(array, dtype)


def _to_itk(array: Array, affine: Affine, path: Path) -> ItkObject:
    origin, spacing, direction = itk_grid(affine)
    if np.abs(direction.T @ direction - np.eye(3)).max() > 1e-4:
        raise OutputError(f"{path} cannot be written: its grid's axes are not at right angles; resample the image")
    image = _itk().GetImageFromArray(array)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())
    return image


def _check_written(path: Path, array: Array, suffix: str) -> None:
    """ITK says nothing when the disk is full and the format is NIfTI."""
    if not path.exists():
        raise ImageError("nothing was written")
    if suffix.startswith(".nii"):
        check_nifti(path, array, 352, array.nbytes)
    elif suffix == ".mha":
        check_meta(path, array)


def _explain_failure(path: Path, temporary: Path, error: Exception) -> str:
    if temporary.exists():
        return "the file came out incomplete, the disk may be full"
    return _shorten(error).replace(str(temporary), path.name)
