import shutil
import zipfile

import numpy as np
import pytest
import SimpleITK as sitk

import brainsegnet
from brainsegnet.errors import BrainSegNetError, OutputError
from brainsegnet.inference.options import SegmentOptions
from brainsegnet.inference.segment import segment
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image, read_labels, write_image
from brainsegnet.paper.submission import submit


@pytest.fixture(scope="module")
def predictions(phantoms, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictions")
    segment(phantoms, trained, folder, SegmentOptions(probabilities=True, device="cpu", threads=1))
    return folder


def test_what_segment_wrote_is_packed_for_brats_2015_and_comes_back_equal(phantoms, predictions, tmp_path):
    out = tmp_path / "new folder" / "upload.zip"
    uploads = brainsegnet.submit(predictions, phantoms, "brats2015", "brainsegnet", out)
    assert [path.name for path in out.parent.iterdir()] == ["upload.zip"]
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None and archive.namelist() == [upload.file for upload in uploads]
        archive.extractall(tmp_path / "unzipped")
    for case, upload in zip(find_cases([phantoms]), uploads, strict=True):
        flair = read_image(case.images["flair"])
        assert upload.file == f"VSD.brainsegnet.{case.images['flair'].stem.split('.')[-1]}.mha"
        path = tmp_path / "unzipped" / upload.file
        assert sitk.ReadImage(str(path)).GetPixelID() == sitk.sitkInt16
        assert b"ElementType = MET_SHORT" in path.read_bytes() and b"CompressedData = False" in path.read_bytes()
        assert read_image(path).array.dtype == np.int16
        np.testing.assert_array_equal(read_labels(path).array, read_labels(predictions / f"{case.name}.nii.gz").array)
        np.testing.assert_array_equal(read_image(path).affine, flair.affine)


def test_the_truth_s_number_may_be_named(phantoms, predictions, tmp_path):
    uploads = submit(predictions, [phantoms], "brats2015", "m", tmp_path / "a.zip", id_from="lesion")
    stems = [case.lesion.stem for case in find_cases([phantoms])]
    assert [upload.file for upload in uploads] == [f"VSD.m.{stem.split('.')[-1]}.mha" for stem in stems]


def test_an_output_that_is_a_folder_or_no_zip_is_refused(phantoms, predictions, tmp_path):
    (tmp_path / "upload.zip").mkdir()
    with pytest.raises(OutputError, match=r"upload.zip is a folder; name a file in it"):
        submit(predictions, phantoms, "brats2015", "m", tmp_path / "upload.zip")
    with pytest.raises(OutputError, match=r"upload.tar cannot be written: its name must end in one of .zip"):
        submit(predictions, phantoms, "brats2015", "m", tmp_path / "upload.tar")


def test_an_earlier_zip_stays_if_anything_is_wrong(phantoms, predictions, tmp_path):
    """The last of the cases is bad: nothing of the first two is written either."""
    folder, out = tmp_path / "found", tmp_path / "upload.zip"
    shutil.copytree(predictions, folder)
    out.write_bytes(b"earlier")
    labels = read_labels(folder / "phantom0002.nii.gz")
    labels.array[5, 20, 20] = 7
    write_image(labels.with_array(labels.array), folder / "phantom0002.nii.gz")
    with pytest.raises(BrainSegNetError, match=r"case phantom0002: label values \[7\] are outside task brats2015"):
        submit(folder, phantoms, "brats2015", "m", out)
    assert out.read_bytes() == b"earlier" and sorted(p.name for p in tmp_path.iterdir()) == ["found", "upload.zip"]
