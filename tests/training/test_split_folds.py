import numpy as np
import pytest

from brainsegnet.errors import DatasetError
from brainsegnet.training.split import check_distinct, deal_folds, patient_of

COHORT = [f"BraTS-GLI-{patient:05d}-{visit:03d}" for patient in range(7) for visit in range(1 + patient % 3)]


@pytest.mark.parametrize("folds", [2, 3, 5, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_folds_are_a_partition_by_patient(folds, seed):
    dealt = deal_folds(COHORT, folds, seed)
    assert len(dealt) == folds and all(dealt)
    assert sorted(case for fold in dealt for case in fold) == sorted(COHORT)
    patients = [{patient_of(case) for case in fold} for fold in dealt]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 7
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 3, "no fold is larger than another by more than a patient"


def test_the_seed_decides_and_the_order_of_the_cases_does_not():
    assert deal_folds(COHORT, 3, 0) == deal_folds(COHORT[::-1], 3, 0) != deal_folds(COHORT, 3, 1)


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("BraTS-MEN-00012-001", "BraTS 00012"),
        ("BraTS20_Training_012", "BraTS 2020 Training_012"),
        ("BraTS20_Validation_012", "BraTS 2020 Validation_012"),
        ("Brats17_CBICA_AAB_1", "CBICA_AAB"),
        ("BraTS19_2013_10_1", "2013_10"),
        ("brats_2013_pat0003_1", "brats_2013_pat0003"),
        ("HGG_brats_tcia_pat105_1", "HGG_brats_tcia_pat105"),
        ("LGG_brats_tcia_pat105_1", "LGG_brats_tcia_pat105"),
        ("sub-07_ses-02_run-1", "sub-07"),
        ("sub-07", "sub-07"),
        ("phantom0001", "phantom0001"),
        ("training_12", "training_12"),
        ("patient-07-000", "patient-07-000"),
    ],
)
def test_a_patient_is_told_from_names_of_known_schemes_alone(case, patient):
    assert patient_of(case) == patient


@pytest.mark.parametrize(
    ("cases", "folds", "sentence"),
    [
        (["a", "b"], 3, "2 cases of 2 patients cannot be dealt into 3 folds"),
        (["sub-1_ses-1", "sub-1_ses-2", "sub-2"], 3, "3 cases of 2 patients cannot be dealt into 3 folds"),
        (["a", "b"], 1, "a comparison needs at least 2 folds"),
    ],
)
def test_too_few_patients_or_folds_are_refused(cases, folds, sentence):
    with pytest.raises(DatasetError, match=sentence):
        deal_folds(cases, folds, 0)


def test_a_scan_under_two_names_is_refused(rng):
    a, b = rng.normal(size=(2, 1, 3, 4, 5)).astype("f")
    check_distinct({"a": a, "b": b, "c": a + 1})
    with pytest.raises(DatasetError, match="cases a and c hold the same scan"):
        check_distinct({"a": a, "b": b, "c": np.array(a)})
