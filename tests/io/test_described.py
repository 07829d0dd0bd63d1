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
