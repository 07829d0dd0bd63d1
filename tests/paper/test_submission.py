"""Upload files: what stands in the zip of `submit` is what was predicted, and nothing wrong is packed."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import brainsegnet
from brainsegnet.errors import (
    BrainSegNetError,
    DatasetError,
    GridMismatch,
    LabelError,
    MissingSequence,
    OutputError,
    TaskError,
)
from brainsegnet.io.cases import CaseFiles, find_cases
from brainsegnet.io.images import read_image, read_labels, write_image
from brainsegnet.paper.submission import find_identifier, find_platform, plan_uploads, submit, write_uploads
from brainsegnet.task import BRATS2015, BRATS2021, ISLES2017, load_task
from brainsegnet.volume import LabelMap, Volume

TASK_FILES = Path(__file__).parents[2] / "examples" / "tasks"


def oblique(spacing_mm, degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag(spacing_mm)[::-1]
    affine[:3, 3] = (-101.25, -87.5, 12.125)
    return affine


@pytest.fixture
def strokes(tmp_path, rng):
    """Three cases of ISLES 2017 in their original names, on grids of their own, and a folder of predictions."""
    cases = []
    (tmp_path / "found").mkdir()
    for number, shape in enumerate([(19, 32, 30), (24, 28, 28), (5, 16, 18)]):
        prefix, affine, images = ("VSD", "SMIR", "VSD")[number], oblique((6.5, 1.2, 1.1), 11 * number), {}
        for channel, name in enumerate(("ADC", "MTT", "Tmax")):
            stem = f"{prefix}.Brain.XX.O.MR_{name}.{127000 + 10 * number + channel}"
            images[name.lower()] = tmp_path / f"test_{number + 1}" / stem / f"{stem}.nii"
            images[name.lower()].parent.mkdir(parents=True)
            write_image(Volume(rng.integers(0, 999, shape).astype(np.int16), affine), images[name.lower()])
        cases.append(CaseFiles(f"test_{number + 1}", images))
        labels = LabelMap(rng.integers(0, 2, shape).astype(np.uint8), affine)
        write_image(labels, tmp_path / "found" / f"test_{number + 1}.nii.gz")
    return cases


def test_isles_files_come_back_equal_in_voxels_affine_and_type(strokes, tmp_path):
    out, found = tmp_path / "upload.zip", tmp_path / "found"
    write_uploads(plan_uploads(strokes, found, ISLES2017, "mine"), ISLES2017, out)
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["SMIR.mine.127001.nii", "SMIR.mine.127011.nii", "SMIR.mine.127021.nii"]
        archive.extractall(tmp_path / "unzipped")
    for case, name in zip(strokes, archive.namelist(), strict=True):
        path, scan = tmp_path / "unzipped" / name, read_image(case.images["mtt"])
        assert path.stat().st_size == 352 + scan.array.size, "uncompressed, a byte a voxel"
        assert sitk.ReadImage(str(path)).GetPixelID() == sitk.sitkUInt8
        back = read_image(path)
        np.testing.assert_array_equal(back.array, read_image(found / f"{case.name}.nii.gz").array)
        np.testing.assert_allclose(back.affine, scan.affine, atol=2e-7, err_msg="but for NIfTI's 32 bits")


def test_predictions_of_another_convention_are_brought_to_the_platform_s(strokes, tmp_path):
    """Where the JSON beside a prediction tells its convention; the zips are equal to the byte."""
    found = tmp_path / "found"
    write_uploads(plan_uploads(strokes, found, ISLES2017, "mine"), ISLES2017, tmp_path / "plain.zip")
    for case in strokes:
        labels = read_image(found / f"{case.name}.nii.gz")
        write_image(LabelMap(labels.array * np.uint8(5), labels.affine), found / f"{case.name}.nii.gz")
    with pytest.raises(LabelError, match=r"label values \[5\] are outside task isles2017"):
        plan(strokes, tmp_path)
    for case in strokes:
        (found / f"{case.name}.json").write_text(json.dumps({"task": "mine", "convention": {"5": "infarct"}}))
    write_uploads(plan_uploads(strokes, found, ISLES2017, "mine"), ISLES2017, tmp_path / "other.zip")
    assert (tmp_path / "plain.zip").read_bytes() == (tmp_path / "other.zip").read_bytes()


def test_the_same_predictions_give_the_same_bytes(strokes, tmp_path):
    uploads = plan_uploads(strokes, tmp_path / "found", ISLES2017, "mine")
    for name in ("a.zip", "b.zip"):
        write_uploads(uploads, ISLES2017, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_another_sequence_may_give_the_number(strokes, tmp_path):
    uploads = plan_uploads(strokes, tmp_path / "found", ISLES2017, "mine", id_from="adc")
    assert [upload.file for upload in uploads] == [f"SMIR.mine.1270{n}0.nii" for n in range(3)]
    with pytest.raises(MissingSequence, match=r"case test_1 has no flair, only adc, mtt, tmax; .* --id-from"):
        plan_uploads(strokes, tmp_path / "found", ISLES2017, "mine", id_from="flair")


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("VSD.Brain_3more.XX.O.OT.54517.mha", "54517"),
        ("VSD.Brain.XX.O.OT.6560/VSD.Brain.XX.O.OT.6560.mha", "6560"),
        ("x/SMIR.Brain.XX.O.MR_rCBF.3.nii", "3"),
        ("VSD.Brain.XX.O.MR_T1c.54514/renamed.nii.gz", "54514"),
        ("VSD.Brain.XX.O.MR_T1c/VSD.Brain.XX.O.MR_T1c.nii", None),
        ("pat12/flair.nii.gz", None),
        ("BraTS2021_00006_flair.nii.gz", None),
    ],
)
def test_the_number_is_the_last_part_of_an_original_name(tmp_path, path, number):
    assert find_identifier(tmp_path / path) == number


def plan(cases, tmp_path, task=ISLES2017, method="mine", folder="found"):
    return plan_uploads(cases, tmp_path / folder, task, method)


def test_missing_predictions_are_counted_and_named(strokes, tmp_path):
    for name in ("test_1", "test_3"):
        (tmp_path / "found" / f"{name}.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"no prediction for 2 of 3 cases \(test_1, test_3\); segment them too"):
        plan(strokes, tmp_path)
    with pytest.raises(DatasetError, match="nowhere does not exist; name the folder"):
        plan(strokes, tmp_path, folder="nowhere")
    with pytest.raises(DatasetError, match=r"test_2.nii.gz is a file; name the folder"):
        plan(strokes, tmp_path, folder="found/test_2.nii.gz")


def test_two_predictions_of_one_case_are_refused(strokes, tmp_path):
    write_image(read_image(tmp_path / "found/test_2.nii.gz"), tmp_path / "found/test_2.mha")
    with pytest.raises(DatasetError, match=r"case test_2 has two predictions, .*test_2.nii.gz and test_2.mha"):
        plan(strokes, tmp_path)


def test_labels_outside_the_task_are_refused(strokes, tmp_path):
    path = tmp_path / "found/test_3.nii.gz"
    labels = read_image(path)
    labels.array[2, 3, 4] = 2
    write_image(labels.with_array(labels.array), path)
    with pytest.raises(LabelError, match=r"case test_3: label values \[2\] are outside task isles2017"):
        plan(strokes, tmp_path)


@pytest.mark.parametrize("change", ["shape", "origin"])
def test_another_grid_is_refused(strokes, tmp_path, change):
    path = tmp_path / "found/test_2.nii.gz"
    labels = read_image(path)
    affine = labels.affine.copy()
    affine[0, 3] += 1.5
    write_image(Volume(labels.array[1:], labels.affine) if change == "shape" else Volume(labels.array, affine), path)
    fact = r"is \(23, 28, 28\) but mtt is \(24, 28, 28\)" if change == "shape" else "differ by up to 1.5 mm"
    with pytest.raises(GridMismatch, match=f"case test_2: the prediction .*{fact}; segment the case again"):
        plan(strokes, tmp_path)


def test_a_number_that_is_missing_or_occurs_twice_is_refused(strokes, tmp_path):
    plain = tmp_path / "mtt.nii"
    strokes[1].images["mtt"].rename(plain)
    renamed = CaseFiles("test_2", {**strokes[1].images, "mtt": plain})
    with pytest.raises(DatasetError, match=r"case test_2: no number is in the name of .*mtt.nii; .* original name"):
        plan([strokes[0], renamed], tmp_path)
    twin = CaseFiles("test_3", strokes[0].images)
    with pytest.raises(DatasetError, match="cases test_1 and test_3 both have number 127001 in mtt"):
        plan([strokes[0], twin], tmp_path)


@pytest.mark.parametrize("method", ["", "my method", "my.method", "../up", "é"])
def test_a_name_that_would_break_the_file_s_is_refused(strokes, tmp_path, method):
    with pytest.raises(OutputError, match="cannot be a part of file names; use letters, digits"):
        plan(strokes, tmp_path, method=method)


def test_a_task_without_a_platform_is_refused(strokes, tmp_path):
    with pytest.raises(TaskError, match=r"task brats2021 has no platform to upload to; those of brats2015, isles2017"):
        plan(strokes, tmp_path, task=BRATS2021)


def test_a_task_file_can_name_a_platform(tmp_path):
    whole = load_task(TASK_FILES / "isles2017_perfusion.yaml")
    assert whole.platform == ISLES2017.platform and find_platform(BRATS2015).id_from == "flair"
    lines = (TASK_FILES / "isles2017_perfusion.yaml").read_text()
    (tmp_path / "wrong.yaml").write_text(lines.replace("suffix: .nii", "suffix: .exe"))
    with pytest.raises(TaskError, match="platform"):
        load_task(tmp_path / "wrong.yaml")


def test_what_segment_wrote_is_packed_for_brats_2015_and_comes_back_equal(phantoms, segmented, tmp_path):
    out = tmp_path / "new folder" / "upload.zip"
    uploads = brainsegnet.submit(segmented, phantoms, "brats2015", "brainsegnet", out)
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
        np.testing.assert_array_equal(read_labels(path).array, read_labels(segmented / f"{case.name}.nii.gz").array)
        np.testing.assert_array_equal(read_image(path).affine, flair.affine)


def test_the_truth_s_number_may_be_named(phantoms, segmented, tmp_path):
    uploads = submit(segmented, [phantoms], "brats2015", "m", tmp_path / "a.zip", id_from="lesion")
    stems = [case.lesion.stem for case in find_cases([phantoms])]
    assert [upload.file for upload in uploads] == [f"VSD.m.{stem.split('.')[-1]}.mha" for stem in stems]


def test_an_output_that_is_a_folder_or_no_zip_is_refused(phantoms, segmented, tmp_path):
    (tmp_path / "upload.zip").mkdir()
    with pytest.raises(OutputError, match=r"upload.zip is a folder; name a file in it"):
        submit(segmented, phantoms, "brats2015", "m", tmp_path / "upload.zip")
    with pytest.raises(OutputError, match=r"upload.tar cannot be written: its name must end in one of .zip"):
        submit(segmented, phantoms, "brats2015", "m", tmp_path / "upload.tar")


def test_an_earlier_zip_stays_if_anything_is_wrong(phantoms, segmented, tmp_path):
    """The last of the cases is bad: nothing of the first two is written either."""
    folder, out = tmp_path / "found", tmp_path / "upload.zip"
    shutil.copytree(segmented, folder)
    out.write_bytes(b"earlier")
    labels = read_labels(folder / "phantom0002.nii.gz")
    labels.array[5, 20, 20] = 7
    write_image(labels.with_array(labels.array), folder / "phantom0002.nii.gz")
    with pytest.raises(BrainSegNetError, match=r"case phantom0002: label values \[7\] are outside task brats2015"):
        submit(folder, phantoms, "brats2015", "m", out)
    assert out.read_bytes() == b"earlier" and sorted(p.name for p in tmp_path.iterdir()) == ["found", "upload.zip"]
