"""Convert images to volumes and back: NIfTI, MGH, MetaImage and NRRD files, and images of nibabel and SimpleITK.

A file holds one image, or several on one grid: the sequences of a 4-D image, or a perfusion series over time.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from brainsegnet._atomic import IMAGES, check_suffix, final_name, find_suffix, replacing, stem_of
from brainsegnet._types import Affine, Array, ItkObject, NibabelImage
from brainsegnet.errors import ImageError, LabelError, OutputError
from brainsegnet.io.itk import check_itk, find_meta_block, read_itk, read_itk_grid, unpack_itk, write_itk
from brainsegnet.io.limits import check_voxels
from brainsegnet.io.nifti import (
    PAIR,
    build_nibabel,
    check_nifti,
    damaged,
    find_pair,
    read_nifti,
    read_nifti_grid,
    write_nifti,
)
from brainsegnet.io.placement import Place, check_axes, read_forms, swap_world
from brainsegnet.volume import SCANNER, Forms, LabelMap, Volume, build_itk, is_sheared

ITK_READERS = (".mha", ".mhd", ".nrrd")
READERS = (".nii.gz", ".nii", ".hdr.gz", ".hdr", ".img.gz", ".img", ".mgz", ".mgh", *ITK_READERS)
"""Endings of files that can be read; `.hdr` and `.img` are the two files of one image."""
_FEW_LABELS = 64
_HEADER_BYTES, _PIECE = 4096, 1 << 20
"""Bytes that hold the header of most formats; bytes that are hashed at once."""
LABEL_TOLERANCE = 1e-3
"""A stored label may be this far from a whole number: rescaled integers come back rounded."""


@dataclass(frozen=True, eq=False)
class Series:
    """Several images (T, D, H, W) on one grid, such as the frames of a perfusion series.

    Raises:
        ValueError: the array is not 4-D.
    """

    array: Array
    affine: Affine
    forms: Forms = SCANNER
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.array.ndim != 4:
            raise ValueError(f"a series is 4-D (T, D, H, W), this array has shape {self.array.shape}")

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.array)

    def frame(self, number: int) -> Volume:
        """One image of the series, counted from 0, as a view."""
        return Volume(self.array[number], self.affine, self.forms, self.warnings)


def read_image(path: Path) -> Volume:
    """Read an image file.

    Args:
        path: File whose name ends in one of `READERS`.

    Returns:
        Array (D, H, W) in its stored dtype, and affine in millimetres (x left, y posterior, z superior).

    Raises:
        ImageError: the file is missing, unreadable, cut short or damaged; or it is not an image, not 3-D, or its values
            are not plain numbers.
    """
    array, place = _read(path, one=True)
    return Volume(array[0], *place)


def read_series(path: Path) -> Series:
    """Read all images (T, D, H, W) of a 4-D file, in their stored dtype. A 3-D file is a series of one image.

    ISLES 2017 stores its perfusion series in 5-D, (X, Y, Z, 1, T), which is the same.

    Raises:
        ImageError: as `read_image`, except that the file may hold several images.
    """
    array, place = _read(path, one=False)
    return Series(array, *place)


def read_grid(path: Path) -> Series:
    """The images (T, D, H, W) of a file with zeros for voxels, which take no memory: only the header is read.

    Errors are those of `read_series`, as far as the header tells them.
    """
    array, place = _read(path, one=False, voxels=False)
    return Series(array, *place)


def read_labels(path: Path) -> LabelMap:
    """Read a label map (D, H, W) as uint8. Floats are accepted if they are integers (BRATS 2015 stores float32).

    Raises:
        ImageError: as `read_image`.
        LabelError: as `to_labels`.
    """
    return to_labels(read_image(path), str(path))


def to_labels(volume: Volume, name: str = "the label map") -> LabelMap:
    """Convert a volume of integers, of any type, to a label map uint8.

    Raises:
        LabelError: a value is a fraction, NaN, negative or over 255.
    """
    array = volume.array
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if np.isnan(low) or np.isnan(high):
        raise LabelError(f"{name} holds NaN where a label map is due; name the file of the labels")
    if low < 0 or high > 255:
        raise LabelError(f"{name} holds values from {low:g} to {high:g}, labels lie between 0 and 255")
    if np.issubdtype(array.dtype, np.integer):
        return volume.with_labels(array.astype(np.uint8, copy=False))
    labels = np.rint(array).astype(np.uint8)
    off = np.abs(array - labels) > LABEL_TOLERANCE
    if off.any():
        fraction = f"{off.sum()} fractions such as {array[off][0]:g}"
        if off.mean() < 0.5 and len(np.unique(labels[~off])) <= _FEW_LABELS:
            raise LabelError(
                f"{name} holds {fraction} between whole labels, as interpolation leaves them; resample label maps by "
                "the nearest neighbour"
            )
        raise LabelError(f"{name} holds {fraction}; name the file of the labels")
    return volume.with_labels(labels)


def write_image(volume: Volume, path: Path, *, compress: bool = True) -> None:
    """Write an image or a label map. The same volume gives the same bytes.

    A .nii.gz is always compressed, a .nii never, and other formats if `compress` is set.

    Raises:
        OutputError: the folder is not writable, the disk is full, the suffix is unknown or the grid is sheared.
    """
    suffix = check_suffix(path, IMAGES)
    if is_sheared(volume.affine):
        shown = final_name(path)
        raise OutputError(f"{shown} cannot be written: its grid's axes are not at right angles; resample the image")
    array = _storable(volume.array)
    with replacing(path) as temporary:
        try:
            if suffix in (".nii.gz", ".nii"):
                write_nifti(volume.with_array(array), temporary, compress=suffix == ".nii.gz")
            else:
                write_itk(array, volume.affine, temporary, compress=compress)
        except ImageError as error:
            raise OutputError(f"{final_name(path)} cannot be written: {error}") from error


def check_size(path: Path) -> None:
    """Check that a file is as long as its header says, from its first and last bytes, to detect a broken download.

    For NRRD only the start is checked.

    Raises:
        ImageError: the file is missing, empty or cut short, or its start does not fit its suffix.
    """
    with _in_words(path):
        if find_suffix(path, ITK_READERS):
            check_itk(path)
        else:
            check_nifti(path)


def describe_file(path: Path, content: bool = False) -> dict[str, str | int | float]:
    """What tells whether an image file is still the same: its size, time and header, and its content if asked for.

    Of an image in two files (.hdr and .img, or .mhd and its voxels), both are described together.

    Args:
        path: The image file.
        content: Whether the whole file is read, for its hash.

    Returns:
        "bytes"; "modified", in seconds since 1970; "header_sha256", the hash of the first 4096 bytes; and "sha256", the
        hash of all bytes, if `content` is set.

    Raises:
        ImageError: a file does not exist or cannot be read.
    """
    with _in_words(path):
        files, header, whole = _list_files(path), hashlib.sha256(), hashlib.sha256()
        facts = [file.stat() for file in files]
        for file in files:
            with file.open("rb") as opened:
                header.update(opened.read(_HEADER_BYTES))
                opened.seek(0)
                while content and (piece := opened.read(_PIECE)):
                    whole.update(piece)
    return {
        "bytes": sum(fact.st_size for fact in facts),
        "modified": round(max(fact.st_mtime for fact in facts), 6),
        "header_sha256": header.hexdigest(),
        **({"sha256": whole.hexdigest()} if content else {}),
    }


def _list_files(path: Path) -> list[Path]:
    """The files that hold an image: two for .hdr and .img, and for a .mhd whose voxels are in one other file."""
    if find_suffix(path, PAIR):
        return [*find_pair(path)]
    block = find_meta_block(path) if find_suffix(path, (".mhd",)) else None
    return list(dict.fromkeys([path, *([block.path] if block else [])]))


def is_second_half(path: Path, first: Path) -> bool:
    """Whether a file is the `.img` of the pair whose `.hdr` is `first`.

    Examples:
        >>> is_second_half(Path("a.img.gz"), Path("a.hdr")), is_second_half(Path("a.nii"), Path("a.hdr"))
        (True, False)
    """
    halves = [(first, (".hdr", ".hdr.gz")), (path, (".img", ".img.gz"))]
    return stem_of(path, READERS) == stem_of(first, READERS) and all(find_suffix(*half) for half in halves)


def from_array(array: ArrayLike, affine: ArrayLike, name: str = "the image") -> Volume:
    """Convert a 3-D array (I, J, K) and its affine to RAS+ millimetres, as in nibabel, to a volume (D, H, W): a view.

    Trailing axes of length 1 are dropped.

    Raises:
        ImageError: the array is not 3-D, its values are not plain numbers, or its axes are not perpendicular.
    """
    array, affine = np.asanyarray(array), np.asarray(affine, np.float64)
    _check_kind(name, True, array.shape, len(array.dtype.names or "1"), array.dtype.kind == "c")
    if affine.shape != (4, 4):
        raise ImageError(f"{name} has an affine of shape {affine.shape}; give one of (4, 4)")
    affine = swap_world(affine)
    check_axes(affine, name)
    return Volume(array.reshape(array.shape[:3], order="F").T, affine)


def from_nibabel(image: NibabelImage, name: str = "the image") -> Volume:
    """Convert a 3-D image of nibabel to a volume (D, H, W), as a view if nibabel holds it in memory.

    Integers that the header rescales become float32, as in `read_image`. Errors are those of `from_array`.
    """
    array = np.asanyarray(image.dataobj)
    if array.dtype == np.float64 and image.get_data_dtype() != np.float64:
        array = array.astype(np.float32)
    volume = from_array(array, image.affine, name)
    coded = "sform_code" in getattr(image.header, "keys", tuple)()
    return replace(volume, forms=read_forms(image.header, image.affine)) if coded else volume


def to_nibabel(volume: Volume) -> NibabelImage:
    """Convert a volume or label map to a NIfTI-1 image in memory, (W, H, D), with qform and sform.

    Raises:
        ImageError: the axes are not perpendicular, so that no qform can hold them, or one is too long for NIfTI.
    """
    check_axes(volume.affine, "the volume")
    return build_nibabel(volume.with_array(_storable(volume.array)))


def from_sitk(image: ItkObject, name: str = "the image") -> Volume:
    """Convert a 3-D image of SimpleITK to a volume (D, H, W): a copy.

    Raises:
        ImageError: the image is not 3-D, or its values are not plain numbers.
    """
    is_complex = "complex" in image.GetPixelIDTypeAsString()
    _check_kind(name, True, image.GetSize(), image.GetNumberOfComponentsPerPixel(), is_complex)
    array, affine = unpack_itk(image)
    return Volume(array.reshape(array.shape[-3:]), affine)


def to_sitk(volume: Volume) -> ItkObject:
    """Convert a volume or label map to an image of SimpleITK at the same place in the world: a copy.

    Raises:
        ImageError: the axes are not perpendicular.
    """
    check_axes(volume.affine, "the volume")
    return build_itk(_storable(volume.array), volume.affine)


def _read(path: Path, one: bool, voxels: bool = True) -> tuple[Array, Place]:
    """The images (T, D, H, W) of a file, which may hold but `one`, and their place."""
    suffix = find_suffix(path, READERS)
    if not suffix:
        raise ImageError(f"{path} is no image that can be read; its name must end in one of {', '.join(READERS)}")
    whole, header = (read_itk, read_itk_grid) if suffix in ITK_READERS else (read_nifti, read_nifti_grid)
    read = whole if voxels else header
    with _in_words(path):
        array, place = read(path, partial(_check_kind, str(path), one))
    return array.reshape(-1, *array.shape[-3:]), place


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Says in one sentence why a file cannot be read."""
    if path.is_dir():
        raise ImageError(f"{path} is a folder, not an image")
    try:
        if path.stat().st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes); fetch it again")
        yield
    except FileNotFoundError as error:
        raise ImageError(f"{error.filename or path} does not exist") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(path) from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise ImageError(f"{path} is too large for the memory of this machine") from error


def _check_kind(name: str, one: bool, size: Sequence[int], parts: int, is_complex: bool) -> None:
    """Refuse what is no image in space of `size` (W, H, D, ...), or several images where `one` is due.

    Several `parts`, numbers in each voxel, are a vector or a colour.
    """
    shape = (*((parts,) if parts > 1 else ()), *reversed(size))
    if is_complex:
        raise ImageError(f"{name} holds complex numbers; save its magnitude and read that")
    if parts > 1 or len(size) > 5 or (one and any(n > 1 for n in size[3:])):
        raise ImageError(f"{name} is {len(shape)}-D {shape}, a 3-D image is due; save one volume of it and read that")
    if len(size) < 3:
        raise ImageError(f"{name} is {len(shape)}-D {shape}, a 3-D image is due; join its slices into one volume")
    check_voxels(name, size)


def _storable(array: Array) -> Array:
    """The same values in a dtype that the formats know, contiguous, in the machine's order of bytes."""
    dtype = np.dtype({"?": "u1", "e": "f4"}.get(array.dtype.char, array.dtype.str.lstrip("<>|")))
    return np.ascontiguousarray(array, dtype)
