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
from brainsegnet.io.nifti import check_axes, check_dimensions, from_nibabel, is_nibabel, refuse_complex, storable
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
    return to_labels(read_image(path), str(path))


def write_image(volume: Volume, path: Path, *, compress: bool = True) -> None:
    """Write an image or a label map, compressed if so asked, save for .nii; the same volume gives the same bytes.

    Raises:
        OutputError: the folder refuses files, the disk is full, the suffix is unknown or the grid sheared.
    """
    suffix = check_suffix(path, IMAGES)
    array = storable(volume.array)
    try:
        check_axes(volume.affine, "its grid")
    except ImageError as error:
        raise OutputError(f"{path} cannot be written: {error}") from error
    with replacing(path) as temporary:
        try:
            image = _to_itk(array, volume.affine)
            _itk().WriteImage(image, str(temporary), useCompression=compress and suffix != ".nii")
            _check_written(temporary, array, suffix)
        except (RuntimeError, ImageError) as error:
            raise OutputError(f"{path} cannot be written: {_explain_failure(path, temporary, error)}") from error


def as_volume(image: object, name: str = "the image") -> Volume:
    """A volume from what holds an image in memory: a `Volume`, `(array, affine)`, or an image of nibabel or SimpleITK.

    Args:
        image: The image. An array (D, H, W) comes with an affine as `Volume` has it, (d, h, w, 1) to LPS millimetres.
        name: What the image is called in messages.

    Raises:
        ImageError: it is none of these, or cannot be used: not 3-D, sheared, no plain numbers.
    """
    if isinstance(image, Volume):
        return image
    if is_nibabel(image):
        return from_nibabel(image, name)
    if type(image).__module__.split(".")[0] == "SimpleITK":
        return from_sitk(image, name)
    if isinstance(image, tuple) and len(image) == 2:
        try:
            volume = Volume(np.asarray(image[0]), np.asarray(image[1], np.float64))
        except ValueError as error:
            raise ImageError(f"{name}: {error}") from error
        check_axes(volume.affine, name)
        return volume
    raise ImageError(
        f"{name} is a {type(image).__name__}; give a Volume, an (array, affine) pair, or an image of nibabel or "
        "SimpleITK"
    )


def from_sitk(image: ItkObject, name: str = "the image") -> Volume:
    """A 3-D image of SimpleITK as a volume (D, H, W): a copy.

    Raises:
        ImageError: the image is not 3-D, or its numbers are not plain.
    """
    refuse_complex(name, "complex" in image.GetPixelIDTypeAsString())
    check_dimensions(name, image.GetSize(), image.GetNumberOfComponentsPerPixel(), one=True)
    array = _itk().GetArrayFromImage(image)
    return Volume(array.reshape(array.shape[-3:]), _build_affine(image))


def to_sitk(volume: Volume) -> ItkObject:
    """A volume or label map as an image of SimpleITK, its voxels where they are in the world: a copy.

    Raises:
        ImageError: the axes are not at right angles.
    """
    check_axes(volume.affine, "the volume")
    return _to_itk(storable(volume.array), volume.affine)


def to_labels(volume: Volume, name: str = "the label map") -> LabelMap:
    """A volume of whole numbers, of any type, as a label map uint8.

    Raises:
        LabelError: a value is a fraction, NaN, negative or over 255.
    """
    return LabelMap(_round_labels(volume.array, name), volume.affine)


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
            numbers = _itk().GetPixelIDValueAsString(reader.GetPixelIDValue())
            refuse_complex(str(path), "complex" in numbers)
            check_dimensions(str(path), reader.GetSize(), reader.GetNumberOfComponents(), one)
            return reader.Execute()
        except RuntimeError as error:
            raise ImageError(_explain_refusal(path, error)) from error


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


def _round_labels(array: Array, name: str) -> NDArray[np.uint8]:
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if np.isnan(low) or np.isnan(high):
        raise LabelError(f"{name} holds NaN where a label map is due; name the file of the labels")
    if low < 0 or high > 255:
        raise LabelError(f"{name} holds values from {low:g} to {high:g}, labels lie between 0 and 255")
    if np.issubdtype(array.dtype, np.integer):
        return array.astype(np.uint8, copy=False)
    labels = np.rint(array).astype(np.uint8)
    if np.array_equal(labels, array):
        return labels
    off = np.abs(array - labels) > LABEL_TOLERANCE
    if off.any():
        raise LabelError(f"{name} holds {off.sum()} fractions such as {array[off][0]:g}; name the file of the labels")
    return labels


def _to_itk(array: Array, affine: Affine) -> ItkObject:
    origin, spacing, direction = itk_grid(affine)
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
