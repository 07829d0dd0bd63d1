"""NIfTI and MGH files as nibabel understands them, and what is refused with its cause."""

import gzip
import shutil
import struct
import tempfile
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from brainsegnet.errors import BrainSegNetError, ImageError, OutputError
from brainsegnet.io.images import check_size, read_image, read_series, write_image
from brainsegnet.io.placement import swap_world
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
A_RAS = swap_world(A)


@pytest.mark.parametrize("units", [0, 1, 2, 3, 10])
def test_metres_and_micrometres_are_converted(tmp_path, units):
    path = save(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16), sform=(A, 1), xyzt_units=units)
    np.testing.assert_allclose(read_image(path).affine, read_by_itk(path)[1], rtol=1e-6)


@pytest.mark.parametrize("slope, inter", [(2, 0), (0.001, -3), (0, 7), (np.nan, 5), (1, 0), (1, 2), (np.inf, 1)])
@pytest.mark.parametrize("dtype", ["<u1", ">i2", "<i4", "<u8", "<f4", ">f8"])
def test_values_are_rescaled_as_by_nibabel(tmp_path, rng, dtype, slope, inter):
    """A slope of 0, or none that is a number, leaves the stored values as they are."""
    array = rng.integers(0, 2 ** min(30, 8 * np.dtype(dtype).itemsize - 1), (3, 4, 5)).astype(dtype)
    path = save(tmp_path / "a.nii.gz", array, order=dtype[0], sform=(A, 1), scl_slope=slope, scl_inter=inter)
    read, expected = read_image(path).array, np.asanyarray(nibabel.nifti1.load(path).dataobj)
    assert read.dtype.isnative and (read.dtype.kind == "f" or read.dtype == array.dtype.newbyteorder("="))
    np.testing.assert_allclose(read.T, expected.astype(read.dtype), rtol=1e-6)


@pytest.mark.parametrize("slope", [2, 1])
def test_an_intercept_that_is_no_number_is_refused(tmp_path, slope):
    path = save(tmp_path / "a.nii", np.ones((3, 4, 5), np.int16), sform=(A, 1), scl_slope=slope, scl_inter=np.nan)
    with pytest.raises(ImageError, match=r"its intercept \(scl_inter\) is nan"):
        read_image(path)


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


ONE_FILE = [(kind, suffix) for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image) for suffix in (".nii", ".nii.gz")]
TWO_FILES = [(kind, suffix) for kind in (nibabel.Nifti1Pair, nibabel.Nifti2Pair) for suffix in (".hdr", ".img")]


@pytest.mark.parametrize("version, suffix", [*ONE_FILE, *TWO_FILES])
def test_both_versions_of_nifti_are_read_in_one_file_and_in_two(tmp_path, rng, version, suffix):
    array = rng.integers(-900, 900, (5, 4, 3)).astype(np.int16)
    version(array, A_RAS).to_filename(tmp_path / f"a{suffix}")
    check_size(tmp_path / f"a{suffix}")
    read = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read.array, array.T)
    np.testing.assert_allclose(swap_world(read.affine), A_RAS, atol=1e-5)


@pytest.mark.parametrize("packed", ["hdr", "img", "both"])
def test_a_pair_is_read_where_one_of_its_files_is_compressed(tmp_path, rng, packed):
    array = rng.integers(-900, 900, (5, 4, 3)).astype(np.int16)
    nibabel.Nifti1Pair(array, A_RAS).to_filename(tmp_path / "a.img")
    for kind in ("hdr", "img") if packed == "both" else (packed,):
        plain = tmp_path / f"a.{kind}"
        (tmp_path / f"a.{kind}.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(read_image(path).array, array.T)


def test_half_a_pair_is_told_which_half_is_missing(tmp_path):
    nibabel.Nifti1Pair(np.zeros((5, 4, 3), np.int16), A_RAS).to_filename(tmp_path / "a.img")
    (tmp_path / "a.img").unlink()
    with pytest.raises(ImageError, match=r"a\.hdr is one of two files, and .*a\.img does not exist; fetch both"):
        read_image(tmp_path / "a.hdr")


def test_a_pair_that_is_cut_short_is_damaged(tmp_path):
    nibabel.Nifti1Pair(np.zeros((5, 4, 3), np.int16), A_RAS).to_filename(tmp_path / "a.img")
    (tmp_path / "a.img").write_bytes((tmp_path / "a.img").read_bytes()[:-1])
    for act in (read_image, check_size):
        with pytest.raises(ImageError, match="cut short"):
            act(tmp_path / "a.hdr")


def test_analyze_is_refused_because_it_knows_no_left(tmp_path):
    nibabel.analyze.AnalyzeImage(np.zeros((5, 4, 3), np.int16), np.eye(4)).to_filename(tmp_path / "a.img")
    with pytest.raises(ImageError, match=r"is ANALYZE 7\.5, which does not say which side is left"):
        read_image(tmp_path / "a.img")


@pytest.mark.parametrize("suffix", [".mgz", ".mgh"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_images_of_freesurfer_are_read(tmp_path, rng, suffix, dtype):
    array = rng.integers(0, 200, (5, 4, 3)).astype(dtype)
    nibabel.MGHImage(array, A_RAS).to_filename(tmp_path / f"a{suffix}")
    check_size(tmp_path / f"a{suffix}")
    read = read_image(tmp_path / f"a{suffix}")
    assert read.array.dtype == dtype and not read.warnings
    np.testing.assert_array_equal(read.array, array.T)
    np.testing.assert_allclose(swap_world(read.affine), A_RAS, atol=1e-4)


def test_an_mgh_without_a_place_warns_and_one_that_is_cut_short_or_odd_is_refused(tmp_path):
    nibabel.MGHImage(np.zeros((5, 4, 3), np.int16), A_RAS).to_filename(tmp_path / "a.mgh")
    whole = (tmp_path / "a.mgh").read_bytes()
    (tmp_path / "b.mgh").write_bytes(whole[:28] + bytes(2) + whole[30:])
    assert "its header does not say how it is placed" in read_image(tmp_path / "b.mgh").warnings[0]
    odd = {
        "cut short": whole[:300],
        "code 7, is not supported": whole[:20] + struct.pack(">i", 7) + whole[24:],
        "its MGH header is damaged": whole[:4] + struct.pack(">i", -3) + whole[8:],
        "does not fit its suffix": b"none" + whole[4:],
        "holds NaN": whole[:30] + struct.pack(">f", np.nan) + whole[34:],
    }
    for sentence, content in odd.items():
        (tmp_path / "c.mgh").write_bytes(content)
        with pytest.raises(ImageError, match=sentence):
            read_image(tmp_path / "c.mgh")


@pytest.mark.parametrize("suffix", [".mha", ".MHA"])
def test_a_header_that_is_cut_short_is_not_told_to_take_the_name_it_has(tmp_path, volume, suffix):
    write_image(volume, tmp_path / f"whole{suffix.lower()}")
    path = tmp_path / f"a{suffix}"
    path.write_bytes((tmp_path / f"whole{suffix.lower()}").read_bytes()[:60])
    for act in (read_image, check_size):
        with pytest.raises(ImageError, match="is cut short or damaged; fetch it again"):
            act(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_content_says_whether_a_file_is_compressed(tmp_path, volume, capfd, suffix, packed):
    write_image(volume, tmp_path / "plain.nii")
    content = (tmp_path / "plain.nii").read_bytes()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(content) if packed else content)
    check_size(path)
    np.testing.assert_array_equal(read_image(path).array, volume.array)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "content, cause",
    [
        (bytes(128) + b"DICM" + bytes(300), "it is DICOM; convert it with dcm2niix"),
        (b"NRRD0004\n" + bytes(400), "it is NRRD; call it .nrrd"),
        (b"ObjectType = Image\n" + bytes(400), "it is MetaImage; call it .mha"),
        (b"PK\x03\x04" + bytes(400), "it is a zip archive; unpack it"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "it is a pointer of Git LFS; fetch the file",
        ),
        (b"/annex/objects/MD5E-s123--abc.nii.gz\n", "it is a pointer of git-annex"),
        (b"<!doctype html><title>Sign in</title>", "it is a web page; fetch it again"),
    ],
)
def test_what_is_found_in_place_of_an_image_is_named(tmp_path, content, cause):
    (tmp_path / "a.nii.gz").write_bytes(content)
    for act in (read_image, check_size):
        with pytest.raises(ImageError, match=f"is no image: its content does not fit its suffix, {cause}"):
            act(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_voxels_begin_after_the_header_where_their_offset_is_0(tmp_path, volume, suffix):
    write_image(volume, tmp_path / "plain.nii")
    whole = bytearray((tmp_path / "plain.nii").read_bytes())
    whole[108:112] = struct.pack("<f", 0)
    (tmp_path / f"a{suffix}").write_bytes(gzip.compress(whole) if suffix == ".nii.gz" else whole)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}").array, volume.array)
    whole[108:112] = struct.pack("<f", 100)
    (tmp_path / "b.nii").write_bytes(whole)
    with pytest.raises(ImageError, match="its NIfTI header is damaged"):
        read_image(tmp_path / "b.nii")


@pytest.mark.parametrize("after", [b"\0" * 99, b"rubbish" * 99, b"\x1f\x8b rubbish"])
def test_what_follows_the_compressed_image_is_no_damage(tmp_path, volume, after):
    whole = write(tmp_path / "a.nii.gz", volume).read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(whole + after)
    check_size(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "b.nii.gz").array, volume.array)


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


KINDS = {
    "a.nii": nibabel.Nifti1Image,
    "b.nii": nibabel.Nifti2Image,
    "c.img": nibabel.Nifti1Pair,
    "d.mgh": nibabel.MGHImage,
}
CHANGES = st.lists(
    st.tuples(st.integers(0, 543), st.sampled_from([b"\0", b"\xff", b"\x01"]) | st.binary(min_size=1, max_size=4)),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for name, kind in KINDS.items():
        kind(np.arange(60, dtype=np.int16).reshape(5, 4, 3), A_RAS).to_filename(folder / name)
    return folder


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["a.nii", "b.nii", "c.hdr", "d.mgh"])
@given(changes=CHANGES)
def test_a_header_with_any_bytes_is_read_and_written_or_refused_in_a_sentence(whole, name, changes):
    content = bytearray((whole / name).read_bytes())
    for place, value in changes:
        content[place : place + len(value)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        if name == "c.hdr":
            shutil.copy(whole / "c.img", folder)
        for act in (check_size, lambda path: write_image(read_series(path).frame(0), path.with_name("out.nii"))):
            try:
                act(path)
            except BrainSegNetError as error:
                assert str(path.parent) in str(error) and "\n" not in str(error)
