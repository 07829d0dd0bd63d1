"""Where an image is: the rule of nibabel for its two forms, kept when it is written, and warnings if they disagree."""

import warnings

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from brainsegnet.errors import ImageError
from brainsegnet.io.images import check_size, from_nibabel, read_image, read_labels, to_nibabel, write_image
from brainsegnet.io.placement import swap_world
from brainsegnet.preprocessing.geometry import Turn, turn
from brainsegnet.preprocessing.prepare import crop
from brainsegnet.volume import Box

SIZE = (6, 5, 4)


def rigid(degrees, shift):
    about_x, about_z = np.radians(degrees)
    turned = np.eye(4)
    one, other = np.eye(3), np.eye(3)
    one[1:, 1:] = [[np.cos(about_x), -np.sin(about_x)], [np.sin(about_x), np.cos(about_x)]]
    other[:2, :2] = [[np.cos(about_z), -np.sin(about_z)], [np.sin(about_z), np.cos(about_z)]]
    turned[:3, :3], turned[:3, 3] = one @ other, shift
    return turned


SCANNED = rigid((4, 9), (-60, -80, -50)) @ np.diag([-1.1, 0.9, 3.3, 1])
"""As a scanner places a head, to RAS."""
MOVED = rigid((3, -2), (12, -8, 6)) @ SCANNED
"""As a registration places it, which changes the sform alone."""
SHEARED = SCANNED @ (np.eye(4) + 0.3 * np.eye(4, k=1) * [[1], [0], [0], [0]])
NAN = np.full((4, 4), np.nan)


def save(path, qform=None, sform=None, order="<", **fields):
    """A file whose header holds forms (4, 4) and their codes as they are given; nibabel would mend some."""
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_shape(SIZE)
    header.set_data_dtype(np.int16)
    header["vox_offset"], header["pixdim"][1:4] = 352, (1.1, 0.9, 3.3)
    if qform is not None:
        header.set_qform(*qform)
    if sform is not None:
        for axis, row in zip("xyz", sform[0], strict=False):
            header[f"srow_{axis}"] = row
        header["sform_code"] = sform[1]
    for name, value in fields.items():
        header[name] = value
    array = np.arange(np.prod(SIZE)).reshape(SIZE).astype(np.dtype(np.int16).newbyteorder(order))
    path.write_bytes(header.binaryblock + bytes(4) + array.tobytes(order="F"))
    return path


FORMS = [
    {},
    {"qform": (SCANNED, 1)},
    {"sform": (SCANNED, 1)},
    {"sform": (SCANNED, 4)},
    *({"qform": (SCANNED, 1), "sform": (MOVED, code)} for code in (1, 2, 3, 4)),
    {"qform": (SCANNED, 0), "sform": (MOVED, 2)},
    {"qform": (SCANNED, 2), "sform": (MOVED, 0)},
    {"qform": (SCANNED, 2), "sform": (SCANNED, 2)},
]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("forms", FORMS)
def test_an_image_is_where_nibabel_finds_it(tmp_path, forms, order):
    """The sform if its code is above 0, else the qform, else the middle of the image is 0."""
    path = save(tmp_path / "a.nii", order=order, **forms)
    np.testing.assert_allclose(swap_world(read_image(path).affine), nibabel.nifti1.load(path).affine, atol=1e-4)


@pytest.mark.parametrize("forms", FORMS)
@pytest.mark.parametrize("act", ["kept", "labels", "turned", "in memory"])
def test_what_is_written_has_both_forms_and_their_codes(tmp_path, forms, act):
    """So that a label map lies on its scan in every reader, whichever form that prefers."""
    path = save(tmp_path / "a.nii", **forms)
    there = Turn((2, 0, 1), (True, False, True))
    volume = {
        "kept": read_image,
        "labels": read_labels,
        "turned": lambda path: turn(turn(read_image(path), there), there.inverse),
        "in memory": lambda path: from_nibabel(nibabel.nifti1.load(path)),
    }[act](path)
    write_image(volume, tmp_path / "b.nii.gz")
    before, after = nibabel.nifti1.load(path), nibabel.nifti1.load(tmp_path / "b.nii.gz")
    assert {name: int(after.header[name]) for name in ("qform_code", "sform_code")} == {
        name: int(before.header[name]) for name in ("qform_code", "sform_code")
    }
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-4)
    for get in ("get_qform", "get_sform"):
        one, other = (getattr(image, get)(coded=True) for image in (before, after))
        assert one[1] == other[1]
        if one[1]:
            np.testing.assert_allclose(other[0], one[0], atol=1e-4)
    np.testing.assert_allclose(to_nibabel(volume).affine, before.affine, atol=1e-4)


def test_a_part_of_an_image_stays_where_it_is_by_both_forms(tmp_path):
    whole = save(tmp_path / "a.nii", (SCANNED, 1), (MOVED, 2))
    part = crop(read_image(whole), Box((1, 2, 1), (4, 5, 6)))
    write_image(part, tmp_path / "b.nii")
    before, after = nibabel.nifti1.load(whole), nibabel.nifti1.load(tmp_path / "b.nii")
    for get in ("get_qform", "get_sform"):
        expected = getattr(before, get)() @ (1, 2, 1, 1)
        np.testing.assert_allclose(getattr(after, get)() @ (0, 0, 0, 1), expected, atol=1e-4)


def test_a_part_of_an_image_without_forms_gets_one_because_its_middle_is_elsewhere(tmp_path):
    part = crop(read_image(save(tmp_path / "a.nii")), Box((1, 2, 1), (4, 5, 6)))
    write_image(part, tmp_path / "b.nii")
    np.testing.assert_allclose(read_image(tmp_path / "b.nii").affine, part.affine, atol=1e-4)


def test_readers_that_prefer_the_qform_and_those_that_prefer_the_sform_find_the_same_image(tmp_path):
    path = save(tmp_path / "a.nii", (SCANNED, 1), (SCANNED, 1))
    assert not read_image(path).warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        itk = sitk.ReadImage(str(path))
    right, front, head = (nibabel.nifti1.load(path).affine @ (1, 2, 3, 1))[:3]
    np.testing.assert_allclose(itk.TransformIndexToPhysicalPoint((1, 2, 3)), (-right, -front, head), atol=1e-4)


@pytest.mark.parametrize(
    "forms, sentence",
    [
        ({"qform": (SCANNED, 1), "sform": (MOVED, 2)}, "its sform and qform place it 1"),
        ({}, "its header has neither an sform nor a qform"),
        ({"qform": (SCANNED, 1), "sform": (NAN, 2)}, "its sform holds NaN or no volume, so its other form places it"),
        ({"qform": (SCANNED, 1), "sform": (np.zeros((4, 4)), 1)}, "its sform holds NaN or no volume"),
        ({"qform": (SCANNED, 1), "sform": (MOVED, 1), "quatern_b": np.nan}, "its qform holds NaN or no volume"),
        ({"sform": (SCANNED, 1), "pixdim": [1, 2, 2, 2, 1, 1, 1, 1]}, "2 x 2 x 2 mm by pixdim, but 1.1 x 0.9 x 3.3 mm"),
        ({"qform": (SCANNED, 1), "pixdim": [1, 1, 1, 0, 1, 1, 1, 1]}, "its header gives no voxel size"),
    ],
)
def test_what_is_odd_about_the_place_is_a_warning(tmp_path, forms, sentence):
    (warning,) = read_image(save(tmp_path / "a.nii", **forms)).warnings
    assert sentence in warning


@pytest.mark.parametrize(
    "forms", [{"qform": (SCANNED, 1), "sform": (SCANNED, 1)}, {"qform": (SCANNED, 1)}, {"sform": (SCANNED, 2)}]
)
def test_an_ordinary_place_is_no_warning(tmp_path, forms):
    assert not read_image(save(tmp_path / "a.nii", **forms)).warnings


@pytest.mark.parametrize(
    "forms, sentence",
    [
        ({"sform": (SHEARED, 1)}, "axes that are not at right angles"),
        ({"qform": (SCANNED, 1), "sform": (SHEARED, 2)}, "axes that are not at right angles"),
        ({"sform": (NAN, 1)}, "its sform holds NaN or no volume; mend its header"),
        ({"qform": (SCANNED, 1), "quatern_c": np.nan}, "its qform holds NaN or no volume; mend its header"),
        ({"qform": (SCANNED, 1), "sform": (NAN, 1), "qoffset_x": np.inf}, "holds NaN or no volume; mend its header"),
    ],
)
def test_an_image_that_cannot_be_placed_is_refused_before_its_voxels_are_read(tmp_path, forms, sentence):
    path = save(tmp_path / "a.nii", **forms)
    for act in (read_image, check_size):
        with pytest.raises(ImageError, match=sentence):
            act(path)


def test_a_shear_within_the_tolerance_of_the_qform_is_left_out(tmp_path):
    slight = SCANNED @ (np.eye(4) + 1e-3 * np.eye(4, k=1) * [[1], [0], [0], [0]])
    path = save(tmp_path / "a.nii", (SCANNED, 1), (slight, 1))
    np.testing.assert_allclose(swap_world(read_image(path).affine), SCANNED, atol=1e-4)
