import json

import numpy as np
import pytest

from brainsegnet.errors import DatasetError
from brainsegnet.io.cases import find_cases
from brainsegnet.task import BRATS2021, ISLES2022


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def shown(case, folder):
    return {name: path.relative_to(folder).as_posix() for name, path in case.images.items()}


def test_sequences_are_told_by_suffix_and_contrast_by_its_entity(tmp_path):
    touch(
        tmp_path,
        *(f"sub-1/anat/sub-1_{end}.nii.gz" for end in ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR", "T2star")),
        *(f"sub-1/{place}.nii" for place in ("dwi/sub-1_dwi", "dwi/sub-1_adc", "perf/sub-1_tmax", "perf/sub-1_cbf")),
        "sub-1/anat/sub-1_T1w.json",
        "participants.tsv",
        "dataset_description.json",
    )
    (case,) = find_cases([tmp_path])
    assert list(case.images) == ["flair", "t1", "t1c", "t2", "dwi", "adc", "tmax", "rcbf", "t2star"]
    assert shown(case, tmp_path)["t1c"] == "sub-1/anat/sub-1_ce-gadolinium_T1w.nii.gz"
    assert (case.name, case.layout, case.convention, case.lesion) == ("sub-1", "BIDS", None, None)


def test_sessions_are_cases_of_their_own_where_there_are_several(tmp_path):
    for place in ("sub-1/ses-a", "sub-1/ses-b", "sub-2/ses-a"):
        subject, session = place.split("/")
        touch(tmp_path, f"{place}/anat/{subject}_{session}_T1w.nii.gz")
        touch(tmp_path, f"derivatives/{place}/anat/{subject}_{session}_lesion.nii.gz")
    cases = find_cases([tmp_path])
    assert [case.name for case in cases] == ["sub-1_ses-a", "sub-1_ses-b", "sub-2"]
    assert [case.lesion.parts[-4:-2] for case in cases] == [("sub-1", "ses-a"), ("sub-1", "ses-b"), ("sub-2", "ses-a")]


def test_a_mask_without_a_session_belongs_to_the_only_one(tmp_path):
    touch(tmp_path, "sub-1/ses-a/anat/sub-1_ses-a_T1w.nii.gz", "derivatives/seg/sub-1/sub-1_mask.nii.gz")
    (case,) = find_cases([tmp_path])
    assert case.name == "sub-1" and case.lesion is not None


def test_the_plainest_file_is_taken_and_two_runs_are_refused(tmp_path):
    touch(
        tmp_path,
        "sub-1/anat/sub-1_T1w.nii.gz",
        "sub-1/anat/sub-1_acq-fast_T1w.nii.gz",
        "derivatives/prep/sub-1/anat/sub-1_T1w.nii.gz",
        "derivatives/prep/sub-1/anat/sub-1_space-MNI_T2w.nii.gz",
    )
    (case,) = find_cases([tmp_path])
    assert shown(case, tmp_path)["t1"] == "sub-1/anat/sub-1_T1w.nii.gz" and "t2" in case.images
    touch(tmp_path, *(f"sub-1/anat/sub-1_run-{run}_FLAIR.nii.gz" for run in (1, 2)))
    with pytest.raises(DatasetError, match=r"case sub-1 has two files for flair, .*run-1_FLAIR.* and .*run-2_FLAIR"):
        find_cases([tmp_path])


def test_what_no_task_uses_stands_in_nobodys_way(tmp_path):
    touch(tmp_path, *(f"sub-1/func/sub-1_run-{run}_bold.nii.gz" for run in (1, 2)))
    touch(tmp_path, *(f"sub-1/anat/sub-1_run-{run}_PDw.nii.gz" for run in (1, 2)), "sub-1/anat/sub-1_T2w.nii.gz")
    (case,) = find_cases([tmp_path])
    assert list(case.images) == ["t2"]


def test_masks_of_the_brain_and_of_tissues_are_no_lesions(tmp_path):
    ends = ("desc-brain_mask", "label-GM_mask", "desc-aparcaseg_dseg", "label-WM_probseg")
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz", *(f"derivatives/x/sub-1/anat/sub-1_{end}.nii.gz" for end in ends))
    assert find_cases([tmp_path])[0].lesion is None
    touch(tmp_path, "derivatives/atlas/sub-1/anat/sub-1_space-MNI_label-L_desc-T1lesion_mask.nii.gz")
    assert find_cases([tmp_path])[0].lesion is not None


def test_conventions_are_told_by_the_sequences(tmp_path):
    touch(tmp_path, *(f"a/sub-1_{end}.nii.gz" for end in ("flair", "t1", "t1ce", "t2", "seg")))
    touch(tmp_path, *(f"sub-2/sub-2_ses-0001_{end}.nii.gz" for end in ("dwi", "adc", "msk")))
    first, second = find_cases([tmp_path])
    assert (first.convention, second.convention) == (BRATS2021, ISLES2022)
    assert all(case.lesion is not None for case in (first, second))


def test_one_subject_of_two_data_sets_is_refused(tmp_path):
    touch(tmp_path, "a/sub-1/anat/sub-1_T1w.nii.gz", "b/sub-1/anat/sub-1_T1w.nii.gz")
    with pytest.raises(DatasetError, match="case sub-1 is found twice"):
        find_cases([tmp_path])


@pytest.mark.real
def test_real_strokes_come_with_their_labels(real_data):
    cases = find_cases([real_data / "stroke"])
    assert [case.name[-4:] for case in cases] == ["0001", "0003", "0009"]
    assert all(case.layout == "ISLES 2022" and case.lesion.name.endswith("_msk.nii.gz") for case in cases)
    assert np.array_equal(["flair" in case.images for case in cases], [False, False, True])


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
