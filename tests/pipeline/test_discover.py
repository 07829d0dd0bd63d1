"""Paths to cases: layouts, folders of raw images, DICOM studies, and what is said of those that cannot be used."""

import json
import zipfile

import numpy as np
import pytest

from brainsegnet.errors import DatasetError, ImageError, MissingSequence
from brainsegnet.io.case_files import CaseFiles
from brainsegnet.io.images import write_image
from brainsegnet.model.store import choose_model
from brainsegnet.pipeline.discover import find_all, name_files
from brainsegnet.pipeline.folders import group_images, name_cases
from brainsegnet.pipeline.study_case import StudyCase, know
from brainsegnet.volume import Volume
from dicom_writer import SEQUENCES, describe, write_slices


def make_volume(seed=0, shape=(30, 16, 12), level=500):
    values = level + np.random.default_rng(seed).integers(0, 300, shape)
    return Volume(values.astype(np.int16), np.diag([5.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]])


def write(*paths):
    for seed, path in enumerate(paths):
        write_image(make_volume(seed), path)


def write_series(folder, number, study="study", **tags):
    write_slices(make_volume(number), folder, describe(number, study=study, series=f"{study}{number}", **tags))


def write_dicom(folder, study, names=("flair", "t1")):
    for number, name in enumerate(names, 1):
        write_series(folder, number, study, SeriesDescription=name, **SEQUENCES[name])


def sequences_of(found):
    return {case.name: tuple(case.images if isinstance(case, CaseFiles) else case.choices) for case in found.cases}


def test_cases_of_a_layout_stay_what_they_are(phantoms):
    found = find_all([phantoms])
    assert [case.name for case in found.cases] == ["phantom0000", "phantom0001", "phantom0002"]
    assert all(isinstance(case, CaseFiles) and case.lesion for case in found.cases)
    assert not found.failures and not found.left_out and not found.rejected


def test_a_folder_of_which_a_layout_takes_a_part_is_a_study(tmp_path):
    write(*(tmp_path / "p01" / f"study1_{name}.nii.gz" for name in ("FLAIR", "T1W", "T2W", "brainmask")))
    (case,) = find_all([tmp_path / "p01"]).cases
    assert isinstance(case, StudyCase) and case.name == "p01" and case.sequences == ("flair", "t1", "t2")
    np.testing.assert_array_equal(case.read(["t1"])["t1"].array, make_volume(1).array)
    write(*(tmp_path / "p02" / f"study1_{name}.nii.gz" for name in ("FLAIR", "T1W")))
    assert sequences_of(find_all([tmp_path])) == {"p01": ("flair", "t1", "t2"), "p02": ("flair", "t1")}
    (alone,) = find_all([tmp_path / "p02"], wanted=["flair", "dwi"]).cases
    assert isinstance(alone, CaseFiles) and alone.name == "study1"


def test_in_a_folder_of_several_cases_images_belong_to_the_case_that_they_are_named_after(tmp_path):
    write(*(tmp_path / f"{name}.nii.gz" for name in ("a1_flair", "a1_T1W", "a12_flair", "a12_t1", "a12_T2W", "b_T2W")))
    found = find_all([tmp_path])
    assert sequences_of(found) == {"a1": ("flair", "t1"), "a12": ("flair", "t1", "t2")}
    assert len(found.left_out) == 1 and "b_T2W.nii.gz is named in no known way" in found.left_out[0]


def test_a_case_in_the_folder_itself_counts_more_than_one_of_its_name_below(tmp_path):
    for folder in (tmp_path, tmp_path / "prepared"):
        write(*(folder / f"a_{name}.nii.gz" for name in ("flair", "t1", "t1ce", "t2")))
    found = find_all([tmp_path])
    assert [case.images["flair"].parent for case in found.cases] == [tmp_path] and not found.failures
    assert found.left_out == [f"{tmp_path / 'prepared'} is left out: {tmp_path} itself has a case a"]


def test_images_are_grouped_by_patient(tmp_path):
    for name in ("p1/T1/image", "p1/FLAIR/image", "p2/anat/x_T2w_tse", "p3/x_T2w_tse", "p3/old/y_T2w_tse"):
        write(tmp_path / f"{name}.nii.gz")
    groups = group_images(tmp_path)
    assert {folder.relative_to(tmp_path).as_posix(): len(images) for folder, images in groups.items()} == {
        "p1": 2,
        "p2": 1,
        "p3": 1,
        "p3/old": 1,
    }
    found = find_all([tmp_path])
    assert sequences_of(found) == {"p1": ("flair", "t1"), "p2": ("t2",), "p3": ("t2",), "old": ("t2",)}
    assert [case.name for case in found.cases] == sorted(case.name for case in found.cases)


def test_folders_named_alike_are_no_parts_of_one_study(tmp_path):
    write(tmp_path / "anna_t1/scan.nii.gz", tmp_path / "bert_t1/scan.nii.gz")
    assert sequences_of(find_all([tmp_path])) == {"anna_t1": ("t1",), "bert_t1": ("t1",)}


def test_what_segment_wrote_is_no_image_of_a_study(tmp_path):
    write(tmp_path / "p1/T2w_tse.nii.gz", tmp_path / "p1/p1.nii.gz", tmp_path / "p1/p1_t1.nii.gz")
    note = {"labels": "p1.nii.gz", "probabilities": {"oedema": "p1_t1.nii.gz"}}
    (tmp_path / "p1/p1.json").write_text(json.dumps(note))
    assert [image.name for image in group_images(tmp_path)[tmp_path / "p1"]] == ["T2w_tse.nii.gz"]


def test_a_dicom_study_as_folder_zip_and_file(tmp_path):
    write_dicom(tmp_path / "p7/DICOM", "one")
    with zipfile.ZipFile(tmp_path / "p7.zip", "w") as archive:
        for path in (tmp_path / "p7/DICOM").iterdir():
            archive.write(path, f"DICOM/{path.name}")
    for path in (tmp_path / "p7", tmp_path / "p7/DICOM", tmp_path / "p7.zip"):
        (case,) = find_all([path]).cases
        assert (case.name, tuple(case.choices)) == ("p7", ("flair", "t1"))
        assert case.series_of("t1").header.number == 2 and case.series_of("t2") is None
        np.testing.assert_array_equal(case.read(["t1", "t2"])["t1"].array, make_volume(2).array)
    assert case.files_of("t1") == [tmp_path / "p7.zip"]
    said = (
        'flair: series 1 (flair), "flair" in its description; TR 9000 ms, TE 120 ms, TI 2500 ms (fluid is suppressed)'
    )
    assert case.describe()[0] == said


def test_several_studies_are_named_after_their_folders(tmp_path):
    for name in ("p1", "p2"):
        write_dicom(tmp_path / name / "DICOM/ST01", name)
    write_dicom(tmp_path / "p3", "first", ["t2"])
    write_series(tmp_path / "p3", 7, "second", SeriesDescription="flair", **SEQUENCES["flair"])
    found = find_all([tmp_path])
    both = ("flair", "t1")
    assert sequences_of(found) == {"p1": both, "p2": both, "p3_1": ("t2",), "p3_2": ("flair",)}
    assert not any("Test" in case.name or "T1" == case.name for case in found.cases)


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["p1", "p2"], ["p1", "p2"]),
        (["p1/DICOM", "p2/nifti/raw"], ["p1", "p2"]),
        (["p1/s", "p2/s"], ["p1_s", "p2_s"]),
        (["", ""], ["top_1", "top_2"]),
        (["T1"], ["top"]),
        (["T1", "head_flair"], ["T1", "head_flair"]),
    ],
)
def test_names(folders, names, tmp_path):
    top = tmp_path / "top"
    assert name_cases(top, [top / folder for folder in folders]) == names


def test_the_name_of_a_disc_gives_way_to_the_folder_above(tmp_path):
    assert name_cases(tmp_path / "p1/DICOM", [tmp_path / "p1/DICOM"]) == ["p1"]
    assert name_cases(tmp_path / "p1/data", [tmp_path / "p1/data"]) == ["data"]


def test_studies_that_cannot_be_used_are_told(tmp_path):
    write_series(tmp_path / "ct", 1, "ct", Modality="CT")
    (alone,) = find_all([tmp_path]).failures.values()
    assert alone == "case ct: series 1 is CT, not MR"
    write_series(tmp_path / "loc", 1, "loc", SeriesDescription="localizer")
    write_dicom(tmp_path / "good", "good", ["t2"])
    found = find_all([tmp_path])
    assert [case.name for case in found.cases] == ["good"] and [case.name for case in found.rejected] == ["loc"]
    assert found.left_out == [f"{tmp_path / 'ct'} is left out: series 1 is CT, not MR"]
    assert found.failures["loc"].endswith(
        f"in {tmp_path / 'loc'}, which has series 1 (localizer) (localizer); name the series, as in --flair SERIES"
    )
    assert (
        find_all([tmp_path / "good"], wanted=["t1", "flair"])
        .failures["good"]
        .startswith("case good: none of t1, flair is found in")
    )


def test_two_that_are_alike_fail_only_where_they_are_needed(tmp_path):
    write_dicom(tmp_path / "p", "p", ["flair"])
    for number in (5, 6):
        write_series(tmp_path / "p", number, "p", SeriesDescription=f"t2 run {number}", **SEQUENCES["t2"])
    (case,) = find_all([tmp_path / "p"]).cases
    assert case.sequences == ("flair", "t2") and [*case.choices] == ["flair"]
    assert [*case.read(["flair", "t1"])] == ["flair"]
    with pytest.raises(DatasetError, match=r"case p: two series may be t2, series 5 \(t2 run 5\) and series 6"):
        case.read(["flair", "t2"])
    with pytest.raises(MissingSequence, match="none of t1c is found"):
        case.read(["t1c"])
    (case,) = find_all([tmp_path / "p"], given={"t2": "6", "t1c": "5"}).cases
    assert case.choices["t2"].name == "series 6 (t2 run 6)" and case.choices["t1c"].name == "series 5 (t2 run 5)"
    assert case.describe()[-1] == "t2: series 6 (t2 run 6), named by the user"
    failures = find_all([tmp_path / "p"], given={"t2": "9"}).failures
    assert failures["p"].startswith("case p: t2: '9' is none of the study, which has series 1 (flair)")


def test_an_image_from_elsewhere_can_stand_for_a_sequence(tmp_path):
    write_dicom(tmp_path / "p", "p", ["flair"])
    write_dicom(tmp_path / "other", "q", ["t2"])
    write(tmp_path / "x.nii.gz")
    given = {"t1c": str(tmp_path / "x.nii.gz"), "t2": str(tmp_path / "other")}
    (case,) = find_all([tmp_path / "p"], given=given).cases
    assert [*case.choices] == ["flair", "t1c", "t2"] and case.files_of("t1c") == [tmp_path / "x.nii.gz"]
    assert case.series_of("t1c") is None and case.series_of("t2").header.description == "t2"
    named = name_files({name: tmp_path / part for name, part in (("t1c", "x.nii.gz"), ("flair", "p"))})
    assert isinstance(named, StudyCase) and [*named.read(["flair", "t1c"])] == ["flair", "t1c"] and named.name == "x"
    assert isinstance(name_files({"t1c": tmp_path / "x.nii.gz"}), CaseFiles)
    write_dicom(tmp_path / "two", "r", ["t1", "t2"])
    with pytest.raises(DatasetError, match=r"t1: .*two holds series 1 \(t1\) \(t1\), series 2"):
        name_files({"t1": tmp_path / "two"})


def test_a_diffusion_series_in_a_layout_becomes_a_study_with_its_adc(tmp_path):
    import nibabel

    array = np.stack([make_volume(i, level=level).array.T for i, level in enumerate((1000, 400))], axis=-1)
    nibabel.Nifti1Image(array, np.diag([-1, -1, 5, 1])).to_filename(tmp_path / "a_dwi.nii.gz")
    assert isinstance(find_all([tmp_path]).cases[0], CaseFiles)
    (tmp_path / "a_dwi.bval").write_text("0 1000\n")
    (case,) = find_all([tmp_path]).cases
    assert [*case.choices] == ["dwi", "adc"] and 500 < np.median(case.read(["adc"])["adc"].array) < 1200


def test_other_files_beside_dicom_do_no_harm(tmp_path):
    write_dicom(tmp_path / "p", "p", ["t2"])
    write_image(make_volume().with_labels(np.zeros((30, 16, 12), np.uint8)), tmp_path / "p" / "brain_mask.nii.gz")
    found = find_all([tmp_path / "p"])
    assert [*sequences_of(found).items()] == [("p", ("t2",))] and not found.failures
    assert found.left_out[0].startswith("case p: none of flair")


def test_there_must_be_something(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    for name, said in (
        ("absent", "does not exist"),
        ("notes.txt", "is neither a folder nor a .csv or .yaml table, an image"),
    ):
        with pytest.raises(DatasetError, match=said):
            find_all([tmp_path / name])
    with pytest.raises(DatasetError, match="holds no case of a known layout"):
        find_all([tmp_path])
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises((DatasetError, ImageError)):
        find_all([tmp_path / "broken.zip"])


def test_a_broken_image_costs_its_own_study_alone(tmp_path):
    write(tmp_path / "p1/T2w_tse.nii.gz", tmp_path / "p2/T2w_tse.nii.gz")
    (tmp_path / "p1/y.nii").write_bytes(b"")
    found = find_all([tmp_path])
    assert [case.name for case in found.cases] == ["p2"]
    assert found.failures == {"p1": f"{tmp_path / 'p1/y.nii'} is empty (0 bytes); fetch it again"}


def test_two_paths_with_one_name_are_refused(tmp_path):
    write(tmp_path / "a/p1/T2w_tse.nii.gz", tmp_path / "b/p1/T2w_tse.nii.gz")
    found = find_all([tmp_path / "a/p1", tmp_path / "b/p1"])
    assert not found.cases and "case p1 is found twice, in" in found.failures["p1"]


def test_age_and_part_of_the_body_are_known(tmp_path):
    write_series(tmp_path / "p", 1, SeriesDescription="t2", PatientAge="007Y", BodyPartExamined="KNEE")
    (case,) = find_all([tmp_path / "p"]).cases
    assert case.age_years == 7 and case.body_parts == ("KNEE",)


@pytest.mark.parametrize(
    ("names", "model", "reason"),
    [
        (["flair", "t1"], "tumour", "there is no DWI or ADC"),
        (["dwi", "flair"], "stroke", "DWI means stroke"),
        (["dwi", "t1c"], "tumour", "T1 with contrast agent means tumour"),
    ],
)
def test_the_model_of_a_study(names, model, reason, tmp_path):
    tags = {**SEQUENCES, "dwi": {"DiffusionBValue": 1000.0, "ScanningSequence": "EP"}}
    for number, name in enumerate(names, 1):
        write_series(tmp_path / "p", number, SeriesDescription=name, **tags[name])
    (case,) = find_all([tmp_path / "p"]).cases
    choice = choose_model({case.name: know(case)})
    assert (choice.model.card.name, choice.reason) == (model, reason)


def test_progress_is_told(tmp_path, recorder):
    write_dicom(tmp_path / "p", "p", ["t2"])
    heard = recorder()
    find_all([tmp_path / "p"], callback=heard)
    assert heard.events[-1].progress == 1 and len(heard.events) > 10


@pytest.mark.real
def test_real_studies(real_data):
    raw = real_data / "raw"
    assert sequences_of(find_all([raw / "lesjak-p01"])) == {"lesjak-p01": ("flair", "t1", "t2")}
    (case,) = find_all([raw / "tcga-fg-6692"]).cases
    assert case.sequences == ("flair", "t1", "t1c", "t2") and {case.choices["t1c"].findings[0].shape} == {
        (26, 224, 256)
    }
    assert {*sequences_of(find_all([raw]))} >= {"heads", "lesjak-p01", "tcga-fg-6692", "thick_t1c"}
    assert sequences_of(find_all([real_data / "dicom/head_t1"])) == {"head_t1": ("t1",)}
    for folder in ("tumour", "stroke", "ms"):
        found = find_all([real_data / folder])
        assert found.cases and all(isinstance(case, CaseFiles) for case in found.cases) and not found.failures
