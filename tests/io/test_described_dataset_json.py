import json

import pytest

from brainsegnet.errors import DatasetError
from brainsegnet.io.cases import find_cases


def save_json(folder, **content):
    (folder / "dataset.json").write_text(json.dumps(content))


def test_a_training_case_that_the_json_lists_is_expected(tmp_path):
    home = tmp_path / "Task09"
    (home / "imagesTr").mkdir(parents=True)
    (home / "imagesTr/a.nii.gz").touch()
    listed = [{"image": f"./imagesTr/{name}.nii.gz", "label": ""} for name in "ab"]
    save_json(home, modality={"0": "T2"}, labels={"0": "background", "1": "lesion"}, training=listed)
    a, b = find_cases([tmp_path])
    assert (a.name, b.name, set(b.images)) == ("a", "b", {"t2"}) and not b.parts


def test_cases_of_the_decathlon_may_end_in_four_digits(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    for number in (0, 1, 2024):
        (tmp_path / f"imagesTr/brain_{number:04d}.nii.gz").touch()
    listed = [{"image": "./imagesTr/brain_0001.nii.gz", "label": ""}]
    save_json(tmp_path, modality={"0": "T2"}, labels={"0": "background", "1": "lesion"}, training=listed)
    assert [case.name for case in find_cases([tmp_path])] == ["brain_0000", "brain_0001", "brain_2024"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "has no channel_names or modality, which gives the names; add it"),
        ('{"modality": {"0": "T1"}}', "has no labels"),
        ('{"modality": {"1": "T1"}, "labels": {"0": "b", "1": "a"}}', "channel 0 has no name"),
        ('{"modality": {"0": "T1w", "1": "T1"}, "labels": {"1": "a"}}', "two channels are called t1"),
        ('{"modality": {"0": "T1"}, "labels": {"1": "a", "2": "A"}}', "two labels have one name"),
        ('{"modality": {"0": "T1"}, "labels": {"lesion": "one"}}', "are no names and values"),
        ('{"modality": {"0": "T1"}, "labels": {"1": "a"}}', r"x_0001\.nii\.gz is channel 1, but .* names 1 channels"),
        (None, "has imagesTr but no dataset.json, which names the channels"),
    ],
)
def test_a_dataset_json_that_cannot_be_used_is_told(tmp_path, content, sentence):
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr/x_0001.nii.gz").touch()
    if content is not None:
        (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DatasetError, match=sentence) as caught:
        find_cases([tmp_path])
    assert "\n" not in str(caught.value)
