"""Images in memory, of nibabel and of SimpleITK: each voxel stays where it is in the patient."""

import math

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from brainsegnet.errors import ImageError, LabelError
from brainsegnet.io.images import (
    from_nibabel,
    from_sitk,
    read_image,
    to_labels,
    to_nibabel,
    to_sitk,
    write_image,
)
from brainsegnet.volume import LabelMap, Volume


@pytest.fixture
def volume(rng):
    c, s = math.cos(0.4), math.sin(0.4)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.eye(3)[::-1] @ np.diag([3.3, -0.9, 1.1])
    affine[:3, 3] = -81.25, 110.5, -37.125
    return Volume(rng.integers(-900, 900, (6, 8, 10)).astype(np.int16), affine)


def test_a_voxel_lies_at_the_same_place_in_nibabel_and_here(volume):
    """nibabel counts (w, h, d) and x to the right, y to the front; a volume (d, h, w), x to the left, y to the back."""
    image = to_nibabel(volume)
    assert np.asanyarray(image.dataobj)[4, 2, 5] == volume.array[5, 2, 4]
    right, front, head, _ = image.affine @ (4, 2, 5, 1)
    np.testing.assert_allclose((volume.affine @ (5, 2, 4, 1))[:3], (-right, -front, head), atol=1e-5)
    for affine, code in (image.get_qform(coded=True), image.get_sform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(affine, image.affine, atol=1e-5)


def test_a_voxel_lies_at_the_same_place_in_simpleitk_and_here(volume):
    image = to_sitk(volume)
    assert image.GetPixel(4, 2, 5) == volume.array[5, 2, 4]
    there = image.TransformIndexToPhysicalPoint((4, 2, 5))
    np.testing.assert_allclose((volume.affine @ (5, 2, 4, 1))[:3], there, atol=1e-9)


@pytest.mark.parametrize("there, back", [(to_nibabel, from_nibabel), (to_sitk, from_sitk)])
def test_what_goes_out_comes_back(volume, there, back):
    again = back(there(volume))
    assert again.array.dtype == np.int16 and again.on_grid_of(volume)
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-5)
    labels = LabelMap((volume.array > 0).astype(np.uint8), volume.affine)
    again = to_labels(back(there(labels)))
    assert isinstance(again, LabelMap)
    np.testing.assert_array_equal(again.array, labels.array)


def test_a_file_is_the_same_by_any_way(tmp_path, volume):
    path = tmp_path / "a.nii.gz"
    write_image(volume, path)
    read = read_image(path)
    for other in (from_nibabel(nibabel.load(path)), from_sitk(sitk.ReadImage(str(path)))):
        assert other.array.dtype == read.array.dtype
        np.testing.assert_array_equal(other.array, read.array)
        np.testing.assert_allclose(other.affine, read.affine, atol=1e-5)


def test_integers_that_nibabel_rescales_are_float32(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(0.5, 3)
    image.to_filename(tmp_path / "a.nii")
    read = from_nibabel(nibabel.load(tmp_path / "a.nii"))
    assert read.array.dtype == np.float32
    np.testing.assert_array_equal(read.array, read_image(tmp_path / "a.nii").array)


SHEARED = np.eye(4) + np.eye(4, k=1) * 0.3


@pytest.mark.parametrize(
    "image, sentence",
    [
        (nibabel.Nifti1Image(np.zeros((2, 3, 4, 5), np.int16), np.eye(4)), r"flair is 4-D \(5, 4, 3, 2\), a 3-D image"),
        (nibabel.Nifti1Image(np.zeros((2, 3, 4), np.complex64), np.eye(4)), "flair holds complex numbers"),
        (nibabel.Nifti1Image(np.zeros((2, 3, 4), np.int16), SHEARED), "flair has axes that are not at right angles"),
        (sitk.Image((2, 3), sitk.sitkInt16), r"flair is 2-D \(3, 2\), a 3-D image is due"),
        (sitk.Image((2, 3, 4), sitk.sitkVectorFloat32, 2), r"flair is 4-D"),
    ],
)
def test_what_is_no_image_in_space_is_refused_by_name(image, sentence):
    with pytest.raises(ImageError, match=sentence):
        (from_sitk if isinstance(image, sitk.Image) else from_nibabel)(image, "flair")


def test_fractions_are_no_labels(volume):
    with pytest.raises(LabelError, match="lesion holds 480 fractions"):
        to_labels(volume.with_array(np.full((6, 8, 10), 0.5)), "lesion")
