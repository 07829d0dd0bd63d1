"""The images of a result are found again where they were, or where they went, and only if they are the same."""

import json
import shutil

import numpy as np
import pytest

from brainsegnet.errors import ImageError
from brainsegnet.inference import SegmentOptions
from brainsegnet.io.cases import find_cases
from brainsegnet.io.dicom import read_study
from brainsegnet.io.images import describe_file, read_image, write_image
from brainsegnet.io.results import describe_place, find_result, hash_series
from brainsegnet.pipeline.segment import segment
from brainsegnet.volume import LabelMap, Volume
from dicom_writer import write_study


@pytest.fixture
def result(tmp_path):
    """A label map and its JSON in `results`, made of two images in `scans`."""
    rng = np.random.default_rng(1)
    images = {name: tmp_path / "scans" / f"pat1_{name}.nii.gz" for name in ("flair", "t1c")}
    for path in images.values():
        write_image(Volume(rng.normal(size=(3, 4, 5)).astype("f4"), np.eye(4)), path)
    labels = tmp_path / "results" / "pat1.nii.gz"
    write_image(LabelMap(np.zeros((3, 4, 5), np.uint8), np.eye(4)), labels)
    inputs = {
        name: {"path": describe_place(str(path), labels.parent), **describe_file(path, content=True)}
        for name, path in images.items()
    }
    labels.with_name("pat1.json").write_text(json.dumps({"case": "pat1", "inputs": inputs}))
    return labels


def names(found):
    return {sequence: path.name for sequence, path in found.case.images.items()}


BOTH = {"flair": "pat1_flair.nii.gz", "t1c": "pat1_t1c.nii.gz"}


def test_segment_writes_where_its_images_are_and_they_are_found(phantoms, trained, tmp_path):
    out = tmp_path / "deep" / "down" / "a.nii.gz"
    segment(phantoms / "phantom0001", trained, out, SegmentOptions(device="cpu", threads=1))
    noted = json.loads(out.with_name("a.json").read_text())["inputs"]["flair"]["path"]
    flair = find_cases([phantoms / "phantom0001"])[0].images["flair"]
    assert noted.startswith("../") and (out.parent / noted).resolve() == flair.resolve()
    found = find_result(out)
    assert found.case.name == "phantom0001" and not found.warnings
    assert found.case.images["flair"].resolve() == flair.resolve() and len(found.case.images) == 4


def test_a_result_and_its_images_may_move_together(result, tmp_path):
    shutil.move(result.parents[1] / "scans", tmp_path / "away" / "scans")
    shutil.move(result.parent, tmp_path / "away" / "results")
    assert names(find_result(tmp_path / "away" / "results" / result.name)) == BOTH


@pytest.mark.parametrize("given", ["folder", "files"])
def test_images_that_moved_are_found_in_what_is_given(result, tmp_path, given):
    shutil.move(tmp_path / "scans", tmp_path / "elsewhere" / "deep")
    with pytest.raises(ImageError, match=r"case pat1: no image of .* is where it was; name .* with --images"):
        find_result(result)
    where = [tmp_path / "elsewhere"] if given == "folder" else [*(tmp_path / "elsewhere" / "deep").iterdir()]
    assert names(find_result(result, where)) == BOTH


def test_a_renamed_image_is_known_by_its_content(result, tmp_path):
    (tmp_path / "scans" / "pat1_t1c.nii.gz").rename(tmp_path / "scans" / "gd.nii.gz")
    assert names(find_result(result, [tmp_path / "scans"])) == BOTH | {"t1c": "gd.nii.gz"}


def test_an_absent_image_is_a_warning_beside_those_that_are_there(result, tmp_path):
    (tmp_path / "scans" / "pat1_t1c.nii.gz").unlink()
    found = find_result(result)
    assert names(found) == {"flair": "pat1_flair.nii.gz"}
    (sentence,) = found.warnings
    assert sentence.startswith("case pat1: t1c is not found at ") and "--images" in sentence


def test_a_changed_image_is_refused_unless_it_is_named_itself(result, tmp_path):
    path = tmp_path / "scans" / "pat1_t1c.nii.gz"
    write_image(Volume(np.ones((3, 4, 5), np.float32), np.eye(4)), path)
    for given in ([], [tmp_path / "scans"]):
        with pytest.raises(ImageError, match=r"case pat1: t1c has changed since it was segmented .*segment it again"):
            find_result(result, given)
    found = find_result(result, [tmp_path / "scans" / "pat1_flair.nii.gz", path])
    assert names(found) == BOTH and len(found.warnings) == 1 and "t1c has changed" in found.warnings[0]


def test_parts_of_one_file_stay_parts(result):
    note = json.loads(result.with_name("pat1.json").read_text())
    note["inputs"]["flair"]["part"] = 3
    result.with_name("pat1.json").write_text(json.dumps(note))
    assert find_result(result).case.parts == {"flair": 3}


@pytest.mark.parametrize("text", ["", "[]", '{"inputs": 3}', '{"inputs": {"t1": 4}}'])
def test_a_label_map_without_a_record_needs_its_images_named(result, tmp_path, text):
    result.with_name("pat1.json").write_text(text)
    with pytest.raises(ImageError, match="has no JSON beside it that names its images; name the images"):
        find_result(result)
    flair = tmp_path / "scans" / "pat1_flair.nii.gz"
    assert names(find_result(result, [flair])) == {"pat1_flair": flair.name}


def test_a_label_map_without_a_record_takes_the_one_case_of_a_folder(phantoms, tmp_path):
    labels = tmp_path / "mine.nii.gz"
    write_image(LabelMap(np.zeros((3, 4, 5), np.uint8), np.eye(4)), labels)
    found = find_result(labels, [phantoms / "phantom0000"])
    assert set(found.case.images) == {"flair", "t1", "t1c", "t2"} and found.case.name == "mine"
    with pytest.raises(ImageError, match="holds 3 cases, where one is due"):
        find_result(labels, [phantoms])


@pytest.mark.parametrize("record", [3, {"path": 5, "sha256": "x"}, {"sha256": None}, {"path": "../../.."}])
def test_a_record_of_anything_is_refused_in_a_sentence(result, record):
    result.with_name("pat1.json").write_text(json.dumps({"inputs": {"flair": record, "t1": {}}}))
    with pytest.raises(ImageError, match="--images"):
        find_result(result)


def test_series_of_a_study_are_found_where_it_was_and_where_it_went(result, tmp_path):
    scans = {name: tmp_path / "scans" / f"pat1_{name}.nii.gz" for name in ("flair", "t1c")}
    for number, path in enumerate(scans.values()):
        values = np.arange(60, dtype=np.int16).reshape(3, 4, 5) + 100 * number
        write_image(Volume(values, np.diag([3.0, 1, 1, 1])[[2, 1, 0, 3]]), path)
    study = write_study(scans, tmp_path / "study")
    inputs = {
        name: {"path": "../study", "series": series.name, "files": 3, "sha256": hash_series(series)}
        for name, series in zip(scans, read_study(study).series, strict=True)
    }
    inputs["brain_mask"] = {"path": "mask.nii.gz"}
    result.with_name("pat1.json").write_text(json.dumps({"case": "pat1", "inputs": inputs}))
    expected = {name: read_image(path).array for name, path in scans.items()}
    found = find_result(result)
    read = found.read()
    assert list(read) == ["flair", "t1c"] and not found.warnings
    for name, volume in read.items():
        np.testing.assert_array_equal(np.sort(volume.array.ravel()), np.sort(expected[name].ravel()))
    shutil.move(study, tmp_path / "went")
    with pytest.raises(ImageError, match="--images"):
        find_result(result)
    assert list(find_result(result, [tmp_path / "went"]).read()) == ["flair", "t1c"]
    inputs["t1c"]["sha256"] = "0" * 64
    result.with_name("pat1.json").write_text(json.dumps({"case": "pat1", "inputs": inputs}))
    with pytest.raises(ImageError, match="case pat1: t1c has changed since it was segmented"):
        find_result(result, [tmp_path / "went"])
