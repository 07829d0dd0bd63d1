import gzip
import math
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import shift

from brainsegnet.errors import ImageError, LabelError, OutputError
from brainsegnet.io.images import check_size, read_grid, read_image, read_labels, read_series, write_image
from brainsegnet.volume import LabelMap, Volume

SUFFIXES = [".nii.gz", ".nii", ".mha", ".nrrd"]


def turned_about(axis, degrees):
    a, b = [i for i in range(3) if i != axis]
    matrix = np.eye(3)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix[[a, a, b, b], [a, b, a, b]] = c, -s, s, c
    return matrix


def oblique_affine():
    affine = np.eye(4)
    affine[:3, :3] = turned_about(0, 20) @ turned_about(2, -35) @ np.eye(3)[::-1] @ np.diag([3.3, 0.9, 1.1])
    affine[:3, 3] = -81.25, 110.5, -37.125
    return affine


@pytest.fixture
def volume(rng):
    return Volume(rng.integers(-900, 900, (6, 8, 10)).astype(np.int16), oblique_affine())


def save_itk(array, path, is_vector=False):
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=is_vector), str(path), useCompression=True)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_what_is_written_is_read(tmp_path, volume, suffix, dtype):
    written = volume.with_array(np.abs(volume.array % 256).astype(dtype))
    write_image(written, tmp_path / f"a{suffix}")
    read = read_image(tmp_path / f"a{suffix}")
    assert read.array.dtype == dtype
    np.testing.assert_array_equal(read.array, written.array)
    assert read.on_grid_of(written)
    np.testing.assert_allclose(read.spacing_mm, (3.3, 0.9, 1.1), rtol=1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_volume_gives_the_same_bytes(tmp_path, volume, suffix):
    for name in ("one", "another"):
        write_image(volume, tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"another{suffix}").read_bytes()


def test_axes_and_world_are_those_of_itk(tmp_path):
    image = sitk.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    image.SetSpacing((1, 2, 5))
    image.SetOrigin((10, 20, 30))
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    volume = read_image(tmp_path / "a.nii.gz")
    assert volume.shape == (2, 3, 4) and volume.spacing_mm == (5, 2, 1)
    here = volume.affine @ (1, 2, 3, 1)
    np.testing.assert_allclose(here[:3], image.TransformIndexToPhysicalPoint((3, 2, 1)), atol=1e-5)


def test_views_masks_and_foreign_byte_order_are_written_by_value(tmp_path, volume):
    for array in (volume.array[::-1, :, ::2], volume.array > 0, volume.array.astype(">i2"), volume.array.astype("f2")):
        write_image(volume.with_array(array), tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz").array, array)


def test_what_was_read_outlives_its_reader_and_can_be_written_to(tmp_path, rng):
    arrays = [rng.integers(0, 255, (30, 60, 60)).astype(np.uint8) for _ in range(5)]
    for i, array in enumerate(arrays):
        write_image(Volume(array, np.eye(4)), tmp_path / f"{i}.nii.gz")
    read = [read_image(tmp_path / f"{i}.nii.gz").array for i in range(5)]
    for one, array in zip(read, arrays, strict=True):
        np.testing.assert_array_equal(one, array)
        one += 1


def test_mhd_with_its_raw_file_is_read_and_not_written(tmp_path, volume):
    save_itk(volume.array, tmp_path / "a.mhd")
    np.testing.assert_array_equal(read_image(tmp_path / "a.mhd").array, volume.array)
    with pytest.raises(OutputError, match=r"must end in one of \.nii\.gz, \.nii, \.mha, \.nrrd"):
        write_image(volume, tmp_path / "b.mhd")


def big_endian_nifti(array):
    header = bytearray(352)
    struct.pack_into(">i", header, 0, 348)
    struct.pack_into(">8h", header, 40, 3, *array.shape[::-1], 1, 1, 1, 1)
    struct.pack_into(">2h", header, 70, 16, 32)
    struct.pack_into(">4f", header, 76, 1, 1, 1, 1)
    struct.pack_into(">f", header, 108, 352)
    struct.pack_into(">h", header, 254, 1)
    struct.pack_into(">12f", header, 280, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    header[344:348] = b"n+1\0"
    return bytes(header) + array.astype(">f4").tobytes()


def test_big_endian_nifti_is_read_with_its_nan(tmp_path):
    array = np.array([[[1, np.nan, 3], [4, 5, 6]]], np.float32)
    (tmp_path / "a.nii").write_bytes(big_endian_nifti(array))
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(big_endian_nifti(array)))
    for name in ("a.nii", "a.nii.gz"):
        np.testing.assert_array_equal(read_image(tmp_path / name).array, array)


def test_rescaled_nifti_and_nifti_in_several_gzip_members_are_no_damage(tmp_path, volume):
    whole = bytearray(gzip.decompress(save_itk(volume.array, tmp_path / "a.nii.gz").read_bytes()))
    whole[112:120] = struct.pack("<2f", 0.5, 3)
    (tmp_path / "scaled.nii.gz").write_bytes(gzip.compress(whole))
    np.testing.assert_allclose(read_image(tmp_path / "scaled.nii.gz").array, volume.array * 0.5 + 3)
    half = len(whole) // 2
    (tmp_path / "two.nii.gz").write_bytes(gzip.compress(whole[:half]) + gzip.compress(whole[half:]))
    assert read_image(tmp_path / "two.nii.gz").shape == volume.shape


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8"])
def test_nan_and_infinity_are_kept(tmp_path, suffix, dtype):
    array = np.array([[[1, np.nan, np.inf], [-np.inf, 0, 2.5]]], dtype)
    write_image(Volume(array, np.eye(4)), tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}").array, array)


@pytest.mark.parametrize("ones", [(1,), (1, 1)])
def test_trailing_axes_of_one_are_dropped(tmp_path, volume, ones):
    save_itk(volume.array.reshape(*ones, *volume.shape), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz").array, volume.array)


def five_dimensional(path):
    """(X, Y, Z, 1, T), as the perfusion series of ISLES 2017."""
    return save_itk(np.zeros((4, 5, 6, 3), np.float32), path, is_vector=True)


@pytest.mark.parametrize(
    "make, sentence",
    [
        (
            lambda p: save_itk(np.zeros((3, 4, 5, 6), np.int16), p),
            r"is 4-D \(3, 4, 5, 6\), a 3-D image is due; save one",
        ),
        (five_dimensional, r"is 4-D \(3, 4, 5, 6\), a 3-D"),
        (lambda p: save_itk(np.zeros((5, 6), np.int16), p), r"is 2-D \(5, 6\), a 3-D image is due; join its slices"),
        (lambda p: save_itk(np.zeros((4, 5, 6), np.complex64), p), "holds complex numbers; save its magnitude"),
        (lambda p: p.write_text("no image" * 99), "is no image: its content does not fit its suffix"),
        (lambda p: p.write_bytes(b""), r"is empty \(0 bytes\)"),
        (lambda p: p.mkdir(), "is a folder"),
        (lambda p: None, "does not exist"),
    ],
)
def test_what_is_no_3d_image_is_refused_in_one_sentence(tmp_path, capfd, make, sentence):
    path = tmp_path / "pat 1.nii.gz"
    make(path)
    with pytest.raises(ImageError, match=sentence) as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and "0x" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nii"])
def test_text_under_the_name_of_an_image_is_refused_quietly(tmp_path, capfd, suffix):
    (tmp_path / f"a{suffix}").write_text("ObjectType = Image\nElementDataFile = LOCAL\n")
    with pytest.raises(ImageError, match="is no image"):
        read_image(tmp_path / f"a{suffix}")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("left", [20, 40, 200, 0.3, 0.9, -6])
def test_a_file_cut_short_is_refused(tmp_path, volume, suffix, left):
    path = tmp_path / f"a{suffix}"
    write_image(volume, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * left) if isinstance(left, float) else left])
    with pytest.raises(ImageError, match=f"{path} is cut short or damaged; fetch it again"):
        read_image(path)


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        (b"encoding: gzip", b"encoding: bzip2", "bzip2 encoding not available"),
        (b"NRRD0004", b"NRRD0009", 'couldn\'t parse "NRRD0009"'),
    ],
)
def test_a_whole_nrrd_file_that_cannot_be_read_keeps_the_cause(tmp_path, volume, old, new, cause):
    path = tmp_path / "a.nrrd"
    write_image(volume, path)
    whole = path.read_bytes()
    assert old in whole
    path.write_bytes(whole.replace(old, new, 1))
    with pytest.raises(ImageError, match=cause):
        read_image(path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_a_damaged_file_is_refused(tmp_path, rng, suffix):
    path = tmp_path / f"a{suffix}"
    write_image(Volume(rng.integers(0, 999, (20, 60, 60)).astype(np.int16), np.eye(4)), path)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 0x55
    path.write_bytes(whole)
    with pytest.raises(ImageError, match=str(path)):
        read_image(path)


def test_a_sheared_nifti_is_refused(tmp_path, volume, capfd):
    whole = bytearray(save_itk(volume.array, tmp_path / "a.nii").read_bytes())
    whole[252:256] = struct.pack("<2h", 0, 1)
    whole[280:328] = struct.pack("<12f", 1, 0.3, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    (tmp_path / "a.nii").write_bytes(whole)
    with pytest.raises(ImageError, match="axes that are not at right angles"):
        read_image(tmp_path / "a.nii")
    assert capfd.readouterr().err == ""


def test_an_unknown_suffix_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"png")
    with pytest.raises(ImageError, match=r"a\.png is no image that can be read; its name must end in one of \.nii\.gz"):
        read_image(tmp_path / "a.png")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_forbidden_file_is_refused(tmp_path, volume):
    write_image(volume, tmp_path / "a.nii.gz")
    (tmp_path / "a.nii.gz").chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        read_image(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8])
def test_whole_numbers_of_any_type_are_labels(tmp_path, dtype):
    values = np.array([0, 1, 2, 4, 255, 3], dtype).reshape(1, 2, 3)
    write_image(Volume(values, np.eye(4)), tmp_path / "a.nii.gz")
    labels = read_labels(tmp_path / "a.nii.gz")
    assert isinstance(labels, LabelMap) and labels.array.dtype == np.uint8
    np.testing.assert_array_equal(labels.array, values)


@pytest.mark.parametrize(
    "value, sentence",
    [
        (0.5, r"holds 1 fractions such as 0\.5"),
        (-1, "values from -1 to 2"),
        (256, "values from 1 to 256"),
        (np.nan, "holds NaN"),
        (np.inf, "to inf"),
    ],
)
def test_other_numbers_are_no_labels(tmp_path, value, sentence):
    write_image(Volume(np.array([[[1, 2, value]]], np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(LabelError, match=sentence):
        read_labels(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("order", [1, 3])
def test_labels_that_were_interpolated_are_told_apart_from_scans(tmp_path, rng, order):
    labels = np.zeros((12, 14, 16), np.float32)
    labels[3:9, 3:9, 4:11] = 2
    labels[5:7, 5:7, 6:8] = 4
    moved = np.clip(shift(labels, (0.4, 0.3, 0), order=order), 0, None)
    write_image(Volume(np.where(moved < 0.01, 0, moved), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(LabelError, match=r"as interpolation leaves them; resample label maps by the nearest neighbour"):
        read_labels(tmp_path / "a.nii.gz")
    write_image(Volume(100 * rng.random((12, 14, 16), np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(LabelError, match=r"fractions such as [0-9.]+; name the file of the labels"):
        read_labels(tmp_path / "a.nii.gz")


def test_labels_that_were_rescaled_are_rounded(tmp_path):
    write_image(Volume(np.array([[[0, 0.9999999, 4.000001]]], np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    assert read_labels(tmp_path / "a.nii.gz").array.tolist() == [[[0, 1, 4]]]


def test_a_sheared_or_unwritable_volume_leaves_nothing(tmp_path, volume):
    sheared = volume.affine.copy()
    sheared[0, 1] += 1
    with pytest.raises(OutputError, match="not at right angles"):
        write_image(Volume(volume.array, sheared), tmp_path / "a.nii.gz")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_image(volume, tmp_path / "file" / "a.nii.gz")
    assert os.listdir(tmp_path) == ["file"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from brainsegnet.errors import OutputError
from brainsegnet.io.images import write_image
from brainsegnet._atomic import write_text
from brainsegnet.volume import Volume
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
noise = Volume(np.random.default_rng(0).integers(0, 999, (20, 50, 50)).astype(np.int16), np.eye(4))
for name in sys.argv[1:]:
    try:
        write_text("x" * 50_000, Path(name)) if name.endswith("json") else write_image(noise, Path(name))
    except OutputError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file sizes are limited by POSIX means")
def test_a_full_disk_is_told_and_the_former_result_stays(tmp_path):
    paths = [tmp_path / f"a{suffix}" for suffix in (*SUFFIXES, ".json")]
    for path in paths:
        path.write_text("former")
    command = [sys.executable, "-c", FULL_DISK, *map(str, paths)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    assert [line.split(" cannot be written: ")[0] for line in told] == [str(path) for path in paths]
    assert {path.read_text() for path in paths} == {"former"}
    assert sorted(tmp_path.iterdir()) == sorted(paths)


@pytest.mark.real
def test_real_scans_are_read_as_itk_reads_them(real_data: Path):
    path = next((real_data / "tumour/brats2021").glob("*/*_flair.nii.gz"))
    volume = read_image(path)
    assert volume.shape == (155, 240, 240) and volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_read_at_once_do_not_mix(tmp_path, volume, suffix):
    """ITK's reader of NIfTI kept a name in static memory, and crashed where two threads read."""
    paths = [tmp_path / f"{'a' * (20 + 9 * k)}{suffix}" for k in range(4)]
    for k, path in enumerate(paths):
        write_image(volume.with_array(volume.array + k), path)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(read_image, 10 * paths))
    assert [int(one.array[0, 0, 0] - volume.array[0, 0, 0]) for one in read] == 10 * [0, 1, 2, 3]


def test_a_refused_file_lets_the_next_one_in(tmp_path, volume):
    broken = save_itk(np.zeros((2, 3, 4, 5), np.float32), tmp_path / "four.nii.gz")
    with pytest.raises(ImageError, match="4-D"):
        read_image(broken)
    write_image(volume, tmp_path / "good.nii.gz")
    assert read_image(tmp_path / "good.nii.gz").on_grid_of(volume)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha"])
def test_a_whole_file_passes_and_a_shorter_one_does_not(tmp_path, volume, suffix):
    path = tmp_path / f"a{suffix}"
    write_image(volume, path)
    check_size(path)
    whole = path.read_bytes()
    for length in (0, 3, len(whole) // 3, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError, match=r"fetch it again|is no image"):
            check_size(path)


def test_several_gzip_members_and_4d_files_are_whole(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5, 6), np.float32), isVector=False), str(tmp_path / "a.nii"))
    check_size(tmp_path / "a.nii")
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]))
    check_size(tmp_path / "b.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:-1]))
    with pytest.raises(ImageError, match="cut short"):
        check_size(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mha", "a.nrrd"])
def test_a_grid_is_read_from_the_header_alone(name, tmp_path):
    affine = np.diag([5.0, 2.0, 1.0, 1.0])[[2, 1, 0, 3]]
    affine[:3, 3] = 3, -4, 5
    write_image(Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), affine), tmp_path / name)
    grid, whole = read_grid(tmp_path / name), read_series(tmp_path / name)
    assert grid.array.shape == whole.array.shape == (1, 2, 3, 4)
    assert grid.array.strides[1:] == (0, 0, 0) and not grid.array.any()
    np.testing.assert_array_equal(grid.affine, whole.affine)
    assert (repr(grid.forms), grid.warnings) == (repr(whole.forms), whole.warnings)


@pytest.mark.parametrize(("name", "message"), [("a.nii", "is empty"), ("a.mha", "is empty"), ("b.nii.gz", "not exist")])
def test_a_grid_that_cannot_be_read_is_told(name, message, tmp_path):
    for path in (tmp_path / "a.nii", tmp_path / "a.mha"):
        path.write_bytes(b"")
    with pytest.raises(ImageError, match=message):
        read_grid(tmp_path / name)
