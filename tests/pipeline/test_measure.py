"""A corrected label map is measured as it is, marked as corrected, and tells which result it was made from."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from brainsegnet._atomic import hash_file
from brainsegnet.errors import GridMismatch, ImageError, LabelError, OutputError, TaskError
from brainsegnet.inference import SegmentOptions
from brainsegnet.io.images import read_labels, write_image
from brainsegnet.pipeline import MeasureOptions
from brainsegnet.pipeline.existing import is_complete
from brainsegnet.pipeline.measure import find_doubts, measure, name_corrected
from brainsegnet.pipeline.segment import segment
from brainsegnet.plotting.result import view
from brainsegnet.preprocessing.geometry import Turn, turn
from brainsegnet.preprocessing.prepare import crop
from brainsegnet.volume import Box, LabelMap, Volume

CPU = SegmentOptions(device="cpu", threads=1, picture=True, label_files=True)


@pytest.fixture(scope="module")
def result(phantoms, trained, tmp_path_factory):
    """A result, and a correction: one voxel added, one removed, one given another label."""
    folder = tmp_path_factory.mktemp("result")
    (done,) = segment(phantoms / "phantom0000", trained, folder / "lesion.nii.gz", CPU).done
    found = read_labels(done.path)
    array = np.zeros_like(found.array)
    array[4:8, 10:20, 10:20] = 2
    write_image(found.with_labels(array), done.path)
    return done.path.with_suffix("").with_suffix(".json")


@pytest.fixture
def corrected(result):
    found = read_labels(result.with_name("lesion.nii.gz"))
    array = found.array.copy()
    array[4, 10, 10], array[5, 10, 10], array[9, 9, 9] = 0, 1, 4
    return found.with_labels(array)


def write(volume, path):
    write_image(volume, path)
    return path


def test_the_json_tells_the_picture_and_the_files_of_labels(result):
    note = json.loads(result.read_text())
    assert note["picture"] == "lesion.png"
    assert note["label_files"] == {"itk_snap": "lesion_itksnap.txt", "slicer": "lesion_slicer.ctbl"}
    assert all(result.with_name(name).is_file() for name in ("lesion.png", *note["label_files"].values()))
    for gone in ("lesion.png", "lesion_slicer.ctbl"):
        kept = result.with_name(gone).read_bytes()
        assert is_complete(note, result.with_name("lesion.nii.gz"))
        result.with_name(gone).unlink()
        assert not is_complete(note, result.with_name("lesion.nii.gz"))
        result.with_name(gone).write_bytes(kept)


def test_a_correction_is_measured_and_tells_its_original(result, corrected, tmp_path):
    mask = write(corrected, tmp_path / "mask.nii.gz")
    saved = measure(mask, result, tmp_path / "new" / "out.nii.gz", MeasureOptions(label_files=True))
    note, before = json.loads((tmp_path / "new" / "out.json").read_text()), json.loads(result.read_text())
    assert note == saved.report and note["corrected"] is True and "corrected" not in before
    ml = corrected.voxel_ml
    counts = np.bincount(corrected.array.ravel(), minlength=5)
    assert note["volumes_ml"]["regions"]["whole"] == pytest.approx(counts[1:].sum() * ml)
    assert note["changed"] == pytest.approx({"added_ml": ml, "removed_ml": ml, "relabelled_ml": ml}, abs=1e-6)
    original = note["original"]
    assert original["json_sha256"] == hashlib.sha256(result.read_bytes()).hexdigest()
    assert original["labels_sha256"] == hash_file(result.with_name("lesion.nii.gz"))
    assert (tmp_path / "new" / original["json"]).resolve() == result.resolve()
    assert note["mask"] == {"path": "../mask.nii.gz", "sha256": hash_file(mask)}
    assert np.array_equal(read_labels(saved.path).array, corrected.array)
    assert note["label_files"]["slicer"] == "out_slicer.ctbl" and (tmp_path / "new" / "out_slicer.ctbl").is_file()


def test_a_correction_claims_nothing_of_the_model(result, corrected, tmp_path):
    """No interval, probability or expected Dice of the model, and no file that it does not have, stands in its JSON."""
    note = measure(write(corrected, tmp_path / "mask.nii.gz"), result, tmp_path / "out.nii.gz").report
    assert note["probabilities"] == note["validation"] == note["grids"] == {}
    assert not {"uncertainty", "picture", "label_files", "dicom"} & note.keys()
    before = json.loads(result.read_text())
    assert {"case", "task", "convention", "model", "geometry", "sequences", "warnings"} <= note.keys() & before.keys()
    assert set(before) - set(note) <= {"uncertainty", "picture", "label_files"}


def test_the_images_of_the_original_are_found_from_the_correction(result, corrected, tmp_path):
    measure(write(corrected, tmp_path / "mask.nii.gz"), result, tmp_path / "a" / "b" / "out.nii.gz")
    page = view(tmp_path / "a" / "b" / "out.nii.gz", tmp_path / "page.html")
    assert not [warning for warning in page.warnings if "not found" in warning]


@pytest.mark.parametrize("how", [Turn((2, 0, 1), (True, False, True)), Turn((1, 2, 0), (False, True, True))])
def test_axes_in_another_order_and_a_crop_are_the_same_voxels(result, corrected, tmp_path, how):
    """3D Slicer crops to the segments."""
    d, h, w = corrected.shape
    part = turn(crop(corrected, Box((3, 8, 9), (d - 1, h - 2, w - 3))), how)
    saved = measure(write(part, tmp_path / "mask.nrrd"), result, tmp_path / "out.nii.gz")
    found = read_labels(saved.path)
    assert np.array_equal(found.array, corrected.array) and found.on_grid_of(corrected)


def test_a_padded_mask_is_cut_and_labels_outside_are_refused(result, corrected, tmp_path):
    affine = corrected.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ (2, 0, 1)
    padded = np.pad(corrected.array, [(2, 0), (0, 0), (1, 3)])
    saved = measure(write(LabelMap(padded, affine), tmp_path / "mask.nii.gz"), result, tmp_path / "out.nii.gz")
    assert np.array_equal(read_labels(saved.path).array, corrected.array)
    padded[0, 0, 0] = 1
    mask = write(LabelMap(padded, affine), tmp_path / "mask.nii.gz")
    with pytest.raises(GridMismatch, match="has 1 labelled voxels outside the grid of the result; erase them"):
        measure(mask, result, tmp_path / "other.nii.gz")
    assert not (tmp_path / "other.json").exists()


@pytest.mark.parametrize(("scale", "shift"), [(1.1, 0.0), (1.0, 0.5), (0.5, 0.0)])
def test_other_voxels_are_refused(result, corrected, tmp_path, scale, shift):
    affine = corrected.affine @ np.diag([scale, scale, scale, 1.0])
    affine[:3, 3] += shift * affine[:3, 0]
    mask = write(Volume(corrected.array, affine), tmp_path / "mask.nii.gz")
    with pytest.raises(GridMismatch, match=r"case phantom0000: .* is not on the voxels of the result: it has "):
        measure(mask, result, tmp_path / "out.nii.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["mask.nii.gz"]


def test_what_cannot_be_measured_is_refused_in_one_sentence(result, corrected, tmp_path):
    mask = write(corrected, tmp_path / "mask.nii.gz")
    wrong = write(corrected.with_labels(corrected.array + np.uint8(5)), tmp_path / "wrong.nii.gz")
    with pytest.raises(LabelError, match=r"case phantom0000: label values \[5, .* are outside task"):
        measure(wrong, result, tmp_path / "out.nii.gz")
    with pytest.raises(OutputError, match=r"mask.nii.gz is the file that is measured or was corrected; name another"):
        measure(mask, result, mask)
    with pytest.raises(OutputError, match="is the file that is measured or was corrected"):
        measure(mask, result, result.with_name("lesion.nii.gz"))
    with pytest.raises(ImageError, match=r"is not DICOM, so no DICOM segmentation can refer to it; leave out --dicom"):
        measure(mask, result, tmp_path / "out.nii.gz", MeasureOptions(dicom=True))
    (tmp_path / "lone.json").write_text("{}")
    with pytest.raises(ImageError, match=r"lone\.json is not the JSON of a result of segment"):
        measure(mask, tmp_path / "lone.json", tmp_path / "out.nii.gz")
    shutil.copy(result, tmp_path / "lone.json")
    with pytest.raises(ImageError, match=r"the label map of .*lone\.json, is not there; put it back"):
        measure(mask, tmp_path / "lone.json", tmp_path / "out.nii.gz")
    unknown = json.loads(result.read_text()) | {"task": "mine", "model": {}}
    shutil.copy(result.with_name("lesion.nii.gz"), tmp_path)
    (tmp_path / "lone.json").write_text(json.dumps(unknown))
    with pytest.raises(TaskError, match="tells no label convention that is known here; name it with --task"):
        measure(mask, tmp_path / "lone.json", tmp_path / "out.nii.gz")
    measure(mask, tmp_path / "lone.json", tmp_path / "out.nii.gz", MeasureOptions(task="brats2021"))


def test_a_correction_of_a_correction_is_one_too(result, corrected, tmp_path):
    first = measure(write(corrected, tmp_path / "mask.nii.gz"), result, tmp_path / "one.nii.gz")
    again = measure(tmp_path / "mask.nii.gz", tmp_path / "one.json")
    assert again.path == name_corrected(tmp_path / "one.json") == tmp_path / "one_corrected.nii.gz"
    assert again.report["original"]["json"] == "one.json" and set(again.report["changed"].values()) == {0}
    assert again.report["volumes_ml"] == first.report["volumes_ml"]


def test_a_mirrored_mask_and_one_of_another_case_are_told(result, tmp_path):
    """The lesion lies off the middle, so its mirror image has no voxel in common with it."""
    found = read_labels(result.with_name("lesion.nii.gz"))
    array = np.zeros_like(found.array)
    array[4:8, 10:20, 4:12] = 2
    shifted = np.roll(array, 12, axis=1)
    width = array.shape[2]
    assert width > 24
    for number, (before, after, told) in enumerate(
        [
            (array, array[..., ::-1], "check left and right"),
            (array, shifted, "shares no voxel"),
            (array, np.where(shifted, array, 0), None),
            (array | array[..., ::-1], array, None),
            (array, np.zeros_like(array), None),
        ]
    ):
        said = find_doubts(found.with_labels(before), found.with_labels(np.ascontiguousarray(after)))
        assert [told in sentence for sentence in said] == ([True] if told else []), number
    array = np.zeros_like(found.array)
    array[0, 0, 0] = 2
    note = measure(write(found.with_labels(array), tmp_path / "mask.nii.gz"), result, tmp_path / "out.nii.gz").report
    assert "shares no voxel" in note["warnings"][-1]
