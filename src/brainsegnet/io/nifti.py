"""NIfTI images in memory: nibabel's to volumes and back.

nibabel counts an index (w, h, d) and its world runs to the right, the front and the head (RAS); a `Volume` counts
(d, h, w) and its world runs to the left, the back and the head (LPS), as that of DICOM.
"""

from collections.abc import Sequence

import numpy as np

from brainsegnet._types import Affine, Array, NibabelImage
from brainsegnet.errors import ImageError
from brainsegnet.volume import Volume, itk_grid

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""And back."""
MAX_SKEW = 1e-4
"""Axes are at right angles where the cosines between them are no larger."""


def from_nibabel(image: NibabelImage, name: str = "the image") -> Volume:
    """A 3-D image of nibabel as a volume (D, H, W); its array is a view where nibabel holds it in memory.

    Integers that the header rescales become float32, as they do when `read_image` reads them from a file.

    Args:
        image: Any spatial image of nibabel; trailing axes of length 1 are dropped.
        name: What the image is called in messages.

    Raises:
        ImageError: the image is not 3-D, its numbers are not plain or its axes are not at right angles.
    """
    array, affine = np.asanyarray(image.dataobj), np.asarray(image.affine, np.float64)
    if array.dtype == np.float64 and image.get_data_dtype() != np.float64:
        array = array.astype(np.float32)
    refuse_complex(name, array.dtype.kind == "c")
    check_dimensions(name, array.shape, len(array.dtype.names or "1"), one=True)
    array = array.reshape(array.shape[:3], order="F")
    volume = Volume(array.T, _RAS_TO_LPS @ affine[:, [2, 1, 0, 3]])
    check_axes(volume.affine, name)
    return volume


def to_nibabel(volume: Volume) -> NibabelImage:
    """A volume or label map as a NIfTI-1 image in memory, (W, H, D), both forms set to the grid of the volume.

    Raises:
        ImageError: the axes are not at right angles, so that no qform can hold them.
    """
    check_axes(volume.affine, "the volume")
    array = storable(volume.array)
    affine = _RAS_TO_LPS @ volume.affine[:, [2, 1, 0, 3]]
    image = _nibabel().Nifti1Image(array.T, affine, dtype=array.dtype)
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    image.header.set_xyzt_units("mm", "sec")
    return image


def _nibabel() -> NibabelImage:
    """nibabel, loaded with the first image."""
    import nibabel

    return nibabel


def storable(array: Array) -> Array:
    """The same values in a type that image formats know, contiguous, in the machine's order of bytes."""
    dtype = np.dtype({"?": "u1", "e": "f4"}.get(array.dtype.char, array.dtype.str.lstrip("<>|")))
    return np.ascontiguousarray(array, dtype)


def refuse_complex(name: str, is_complex: bool) -> None:
    """Refuse an image of complex numbers.

    Raises:
        ImageError: it is one.
    """
    if is_complex:
        raise ImageError(f"{name} holds complex numbers; save its magnitude and read that")


def check_dimensions(name: str, size: Sequence[int], parts: int, one: bool) -> None:
    """Refuse what is no image in space, or several images where `one` is due.

    Args:
        name: What the image is called in the message.
        size: Voxels (W, H, D, ...).
        parts: Numbers in each voxel; more than one are a vector or a colour.
        one: Whether axes beyond the third must have length 1.

    Raises:
        ImageError: the image is not 3-D, or not 4-D or 5-D where several are welcome.
    """
    shape = (*((parts,) if parts > 1 else ()), *map(int, reversed(size)))
    if parts > 1 or (one and any(n > 1 for n in size[3:])):
        raise ImageError(f"{name} is {len(shape)}-D {shape}, a 3-D image is due; save one volume of it and read that")
    if len(size) < 3:
        raise ImageError(f"{name} is {len(shape)}-D {shape}, a 3-D image is due; join its slices into one volume")


def check_axes(affine: Affine, name: str) -> None:
    """Refuse a sheared grid.

    Raises:
        ImageError: the axes are not at right angles.
    """
    _, _, direction = itk_grid(affine)
    if not np.abs(direction.T @ direction - np.eye(3)).max() <= MAX_SKEW:
        raise ImageError(
            f"{name} has axes that are not at right angles (a sheared affine); resample it to a regular grid"
        )


def is_nibabel(image: object) -> bool:
    """Whether something is an image of nibabel; nibabel is not loaded to find out."""
    return any(kind.__module__.split(".")[0] == "nibabel" for kind in type(image).__mro__)
