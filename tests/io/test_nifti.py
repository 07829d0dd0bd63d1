"""NIfTI as ITK understands it, which is how the scans of every training so far were read."""

import gzip
import struct
import tracemalloc

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from brainsegnet.errors import ImageError, OutputError
from brainsegnet.io.images import read_image, read_series, write_image
from brainsegnet.volume import Volume


@pytest.fixture
def volume(rng):
    return Volume(rng.integers(-900, 900, (6, 8, 10)).astype(np.int16), tilted((3.3, 0.9, 1.1)))


def tilted(spacing):
    a, b = np.radians((20, -35))
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ np.eye(3)[::-1] @ np.diag(spacing)
    affine[:3, 3] = -81.25, 110.5, -37.125
    return affine


def save(path, array, *, order="<", qform=None, sform=None, **fields):
    """A .nii of an array (W, H, D, ...), with forms (4, 4) and their codes."""
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_shape(array.shape)
    header.set_data_dtype(array.dtype)
    header["vox_offset"] = 352
    for form, method in ((qform, header.set_qform), (sform, header.set_sform)):
        if form is not None:
            method(*form)
    header["pixdim"][1:4] = np.linalg.norm((sform or qform or (np.eye(4),))[0][:3, :3], axis=0)
    for name, value in fields.items():
        header[name] = value
    content = header.binaryblock + bytes(4) + array.astype(array.dtype.newbyteorder(order)).tobytes(order="F")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read_by_itk(path):
    image = sitk.ReadImage(str(path), imageIO="NiftiImageIO")
    affine = np.eye(4)
    axes = image.GetDimension()
    columns = np.reshape(image.GetDirection(), (axes, axes))[:3, :3] * image.GetSpacing()[:3]
    affine[:3, :3], affine[:3, 3] = columns[:, ::-1], image.GetOrigin()[:3]
    return sitk.GetArrayFromImage(image), affine


A = tilted((1.1, 0.9, 3.3))
B = np.diag([-1.0, 1, 1, 1]) @ A + np.array([[0, 0, 0, 5.0], *np.zeros((3, 4))])
UPRIGHT = np.diag([-2.0, 3, 4, 1])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "forms",
    [
        {},
        {"qform": (A, 1)},
        {"sform": (A, 1)},
        {"sform": (A, 4)},
        {"qform": (A, 1), "sform": (B, 1)},
        {"qform": (A, 1), "sform": (B, 2)},
        {"qform": (A, 0), "sform": (B, 2)},
        {"qform": (A, 1), "sform": (B, 0)},
        {"qform": (UPRIGHT, 2), "sform": (UPRIGHT, 2)},
        {"qform": (UPRIGHT, 1), "sform": (UPRIGHT + 0.3 * np.eye(4, k=1) * [[1], [0], [0], [0]], 1)},
    ],
)
def test_the_affine_is_that_of_itk(tmp_path, forms, order):
    """The sform if it is of the scanner (code 1) and not sheared, or alone; else the qform; else none."""
    path = save(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16), order=order, **forms)
    np.testing.assert_array_equal(read_image(path).affine, read_by_itk(path)[1])


@pytest.mark.parametrize("units", [0, 1, 2, 3, 10])
def test_metres_and_micrometres_are_converted(tmp_path, units):
    path = save(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16), sform=(A, 1), xyzt_units=units)
    np.testing.assert_allclose(read_image(path).affine, read_by_itk(path)[1], rtol=1e-12)


@pytest.mark.parametrize("slope, inter", [(2, 0), (0.001, -3), (0, 7), (np.nan, 5), (1, 0), (1, 2), (np.inf, 1)])
@pytest.mark.parametrize("dtype", ["<u1", ">i2", "<i4", "<u8", "<f4", ">f8"])
def test_values_are_rescaled_as_by_itk(tmp_path, rng, dtype, slope, inter):
    array = rng.integers(0, 2 ** min(30, 8 * np.dtype(dtype).itemsize - 1), (3, 4, 5)).astype(dtype)
    path = save(tmp_path / "a.nii.gz", array, order=dtype[0], sform=(A, 1), scl_slope=slope, scl_inter=inter)
    read, (expected, _) = read_image(path).array, read_by_itk(path)
    assert read.dtype == expected.dtype and read.dtype.isnative
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 1), (3, 4, 5, 6), (3, 4, 5, 1, 6), (3, 4, 1)])
def test_a_series_has_its_frames_first(tmp_path, rng, shape):
    array = rng.integers(0, 99, shape).astype(np.int16)
    path = save(tmp_path / "a.nii", array, sform=(A, 1))
    series = read_series(path)
    frames = array.reshape(*shape[:3], -1, order="F")
    assert len(series) == frames.shape[3]
    np.testing.assert_array_equal(series.array, frames.transpose(3, 2, 1, 0))


@pytest.mark.parametrize("dtype, parts", [([(c, "u1") for c in "RGB"], 3), ([(c, "u1") for c in "RGBA"], 4)])
def test_colours_are_refused(tmp_path, dtype, parts):
    path = save(tmp_path / "a.nii", np.zeros((2, 3, 5), dtype), sform=(A, 1))
    with pytest.raises(ImageError, match=rf"is 4-D \({parts}, 5, 3, 2\), a 3-D image is due"):
        read_series(path)


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"magic": b"ni1"}, "its NIfTI header is damaged"),
        ({"magic": b""}, "its NIfTI header is damaged"),
        ({"dim": [0, 2, 3, 4, 1, 1, 1, 1]}, "its NIfTI header is damaged"),
        ({"dim": [3, -2, 3, 4, 1, 1, 1, 1]}, "its NIfTI header is damaged"),
        ({"vox_offset": np.nan}, "its NIfTI header is damaged"),
        ({"datatype": 77}, "its NIfTI header is damaged"),
        ({"datatype": 1536}, "its type of numbers, code 1536, is not supported"),
        ({"intent_code": 1004}, "it holds matrices"),
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "declares 32767 x 32767 x 32767 voxels"),
        ({"dim": [3, 2, 3, 5, 1, 1, 1, 1]}, "is cut short or damaged"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_an_odd_header_is_refused(tmp_path, suffix, fields, sentence):
    path = save(tmp_path / f"a{suffix}", np.zeros((2, 3, 4), np.int16), sform=(A, 1), **fields)
    with pytest.raises(ImageError, match=sentence):
        read_image(path)


def test_nifti_2_is_refused(tmp_path):
    nibabel.Nifti2Image(np.zeros((2, 3, 4), np.int16), np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    with pytest.raises(ImageError, match="it is NIfTI-2; save it as NIfTI-1"):
        read_image(tmp_path / "a.nii.gz")


def test_extensions_before_the_voxels_and_bytes_after_them_are_passed_over(tmp_path, volume):
    whole = bytearray(gzip.decompress(write(tmp_path / "a.nii.gz", volume).read_bytes()))
    whole[108:112] = struct.pack("<f", 384)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(whole[:352] + bytes(32) + whole[352:] + b"more" * 99))
    np.testing.assert_array_equal(read_image(tmp_path / "b.nii.gz").array, volume.array)


@pytest.mark.parametrize("place", [-8, -4])
def test_a_wrong_checksum_or_length_is_damage(tmp_path, volume, place):
    whole = bytearray(write(tmp_path / "a.nii.gz", volume).read_bytes())
    whole[place] ^= 0x55
    (tmp_path / "a.nii.gz").write_bytes(whole)
    with pytest.raises(ImageError, match="is cut short or damaged"):
        read_image(tmp_path / "a.nii.gz")


def test_no_more_is_inflated_at_once_than_the_header_declares(tmp_path, volume):
    """A hundred megabytes of zeros follow the voxels, in a hundred kilobytes."""
    whole = gzip.decompress(write(tmp_path / "a.nii.gz", volume).read_bytes())
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(whole + bytes(100_000_000)))
    read_image(tmp_path / "a.nii.gz")
    tracemalloc.start()
    read_image(tmp_path / "a.nii.gz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_other_readers_find_what_was_written(tmp_path, volume, suffix, dtype):
    """Both forms have the code of the scanner, and values are not rescaled."""
    written = volume.with_array(np.abs(volume.array % 100).astype(dtype))
    path = write(tmp_path / f"a{suffix}", written)
    array, affine = read_by_itk(path)
    np.testing.assert_array_equal(array, written.array)
    assert array.dtype == dtype
    np.testing.assert_allclose(affine, volume.affine, atol=1e-5)
    image = nibabel.nifti1.load(path)
    assert image.get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asanyarray(image.dataobj).T, written.array)
    qform, sform = image.get_qform(coded=True), image.get_sform(coded=True)
    assert qform[1] == sform[1] == 1
    np.testing.assert_allclose(qform[0], sform[0], atol=1e-5)


def test_an_axis_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(OutputError, match="NIfTI holds at most 32767 voxels along an axis"):
        write_image(Volume(np.zeros((1, 1, 40_000), np.uint8), np.eye(4)), tmp_path / "a.nii.gz")


def write(path, volume):
    write_image(volume, path)
    return path
