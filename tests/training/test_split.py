import shutil

import numpy as np
import pytest

from brainsegnet.errors import DatasetError, GridMismatch, LabelError, MissingSequence, ModelError
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.io.images import read_image, read_labels, write_image
from brainsegnet.model.store import open_model
from brainsegnet.preprocessing.alignment import resample
from brainsegnet.preprocessing.prepare import prepare
from brainsegnet.task import BRATS2015, BRATS2021, ISLES2022
from brainsegnet.training import TrainOptions
from brainsegnet.training.sampler import Scan
from brainsegnet.training.split import check_distinct, check_same, deal_folds, load_scans, patient_of, split_cases
from brainsegnet.volume import LabelMap, Volume

COHORT = [f"BraTS-GLI-{patient:05d}-{visit:03d}" for patient in range(7) for visit in range(1 + patient % 3)]
NAMES = ["phantom0000", "phantom0001", "phantom0002"]


def call(data, task=BRATS2015, **options):
    return split_cases([data], task, TrainOptions(**options))


def names(cases):
    return [case.name for case in cases]


def copy(phantoms, tmp_path):
    shutil.copytree(phantoms, tmp_path / "data")
    return tmp_path / "data"


def test_all_cases_train_with_the_sequences_that_every_one_has(phantoms, tmp_path):
    split = call(phantoms)
    assert names(split.training) == NAMES and not split.validation
    assert split.sequences == ("flair", "t1", "t1c", "t2")
    data = copy(phantoms, tmp_path)
    find_cases([data])[1].images["t1"].unlink()
    assert call(data).sequences == ("flair", "t1c", "t2")


def test_an_ambiguous_case_is_refused_unless_it_is_excluded_and_unknown_folders_are_named(phantoms, tmp_path):
    data = copy(phantoms, tmp_path)
    image = find_cases([data])[1].images["t1"]
    shutil.copy(image, image.with_suffix(".nrrd"))
    (data / "odd").mkdir()
    shutil.copy(image, data / "odd" / "odd_0000.mha")
    with pytest.raises(DatasetError, match="case phantom0001 has two files for t1"):
        call(data)
    split = call(data, exclude=("phantom0001",))
    assert names(split.training) == ["phantom0000", "phantom0002"]
    assert split.left_out[0].startswith(f"{data / 'odd'} is left out")


def test_named_sequences_come_in_the_order_of_the_task(phantoms):
    assert call(phantoms, sequences=("t1c", "flair", "t1c")).sequences == ("flair", "t1c")


def test_a_sequence_outside_the_task_or_that_a_case_lacks_is_refused(phantoms, tmp_path):
    with pytest.raises(MissingSequence, match="task brats2015 has no sequence adc; choose from flair, t1, t1c, t2"):
        call(phantoms, sequences=("flair", "adc"))
    data = copy(phantoms, tmp_path)
    find_cases([data])[1].images["t1c"].unlink()
    with pytest.raises(MissingSequence, match="case phantom0001 has no t1c, only flair, t1, t2; exclude the case"):
        call(data, sequences=("flair", "t1c"))
    assert call(data, sequences=("t1c",), exclude=("phantom0001",)).sequences == ("t1c",)
    with pytest.raises(MissingSequence, match="no sequence of task isles2022"):
        call(data, ISLES2022.model_copy(update={"sequences": ("dwi", "adc")}))


def test_cases_are_held_out_by_name_or_drawn_by_the_seed(phantoms):
    split = call(phantoms, hold_out=("phantom0001",))
    assert (names(split.training), names(split.validation)) == (["phantom0000", "phantom0002"], ["phantom0001"])
    drawn = [names(call(phantoms, validation=1, seed=seed).validation) for seed in range(8)]
    assert drawn == [names(call(phantoms, validation=1, seed=seed).validation) for seed in range(8)]
    assert all(len(held) == 1 for held in drawn) and len({held[0] for held in drawn}) > 1


@pytest.fixture(scope="module")
def sisters(phantoms, tmp_path_factory):
    """Six scans of four patients, under the names of BraTS 2015."""
    data = tmp_path_factory.mktemp("sisters")
    for scan in ("pat1_1", "pat1_2", "pat2_1", "pat3_1", "pat3_2", "pat4_1"):
        shutil.copytree(phantoms / "phantom0000", data / f"brats_tcia_{scan}")
    return data


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_no_patient_is_trained_on_and_held_out_at_once(sisters, count):
    for seed in range(6):
        split = call(sisters, validation=count, seed=seed)
        trained, held = ({patient_of(name) for name in names(cases)} for cases in (split.training, split.validation))
        assert held and not trained & held
        assert abs(len(split.validation) - count) <= 1, "as many scans as patients of one or two allow"
    assert not call(sisters, validation=0).validation


def test_a_held_out_case_whose_sister_is_trained_on_is_refused(sisters):
    one, other = "brats_tcia_pat3_1", "brats_tcia_pat3_2"
    with pytest.raises(DatasetError, match=f"case {one} is held out, but {other} of the same patient is trained on; "):
        call(sisters, hold_out=(one,))
    assert names(call(sisters, hold_out=(one, other)).validation) == [one, other]
    assert names(call(sisters, hold_out=(one,), exclude=(other,)).validation) == [one]


def test_excluded_cases_are_neither_trained_on_nor_held_out(phantoms):
    split = call(phantoms, exclude=("phantom0000",), validation=1)
    assert len(split.training) == len(split.validation) == 1
    assert "phantom0000" not in names(split.training) + names(split.validation)


@pytest.mark.parametrize("option", ["hold_out", "exclude"])
def test_an_unknown_case_is_refused(phantoms, option):
    with pytest.raises(DatasetError, match=f"no case is called nobody; the cases are {', '.join(NAMES)}"):
        call(phantoms, **{option: ("nobody",)})


@pytest.mark.parametrize("options", [{"validation": 3}, {"validation": 99}, {"hold_out": NAMES}, {"exclude": NAMES}])
def test_somebody_must_be_left_to_train_on(phantoms, options):
    with pytest.raises(DatasetError, match="no case is left to train on: 3 found"):
        call(phantoms, **options)


def test_a_case_without_labels_is_refused_unless_excluded(phantoms, tmp_path):
    data = copy(phantoms, tmp_path)
    find_cases([data])[2].lesion.unlink()
    with pytest.raises(DatasetError, match="case phantom0002 has no label map to learn from"):
        call(data)
    assert names(call(data, exclude=("phantom0002",)).training) == NAMES[:2]


def test_another_split_than_the_card_s_is_refused(phantoms, trained, tmp_path):
    card = open_model(trained).card
    check_same(call(phantoms, hold_out=("phantom0002",)), card, trained)
    for options, what in [
        ({}, r"training cases \(phantom0002 differ\)"),
        ({"hold_out": ("phantom0001",)}, r"training cases \(phantom0001, phantom0002 differ\)"),
        ({"exclude": ("phantom0002",)}, r"held-out cases \(phantom0002 differ\)"),
        ({"hold_out": ("phantom0002",), "sequences": ("flair",)}, r"sequences \(t1, t1c, t2 differ\)"),
    ]:
        with pytest.raises(ModelError, match=f"holds a training with other {what}"):
            check_same(call(phantoms, **options), card, trained)


def test_scans_are_prepared_with_their_classes_in_the_task_s_convention(phantoms):
    split = call(phantoms, BRATS2021, sequences=("t1c", "flair"))
    scan = next(iter(load_scans(split.training, split).values()))
    case = load_case(split.training[0], split.sequences, BRATS2021, lesion=True)
    assert np.array_equal(scan.image, prepare(case).image) and scan.image.shape[1:] == scan.classes.shape
    inside = np.count_nonzero(scan.classes)
    assert set(np.unique(scan.classes)) == {0, 1, 2, 3} and inside == np.count_nonzero(case.lesion.array)


def test_labels_outside_the_task_are_refused(phantoms, tmp_path):
    data = copy(phantoms, tmp_path)
    split = call(data)
    path = split.training[1].lesion
    labels = read_labels(path)
    write_image(LabelMap(labels.array + np.uint8(3), labels.affine), path)
    with pytest.raises(LabelError, match=r"case phantom0001: label values \[5, 6, 7\] are outside task brats2015"):
        load_scans(split.training, split)


def test_other_grids_are_refused_or_brought_onto_the_first_sequence_s(phantoms, tmp_path):
    """The t2 on slices of half the thickness, the label map of half the rows: both come onto FLAIR's grid."""
    data = copy(phantoms, tmp_path)
    files = find_cases([data])[0]
    (plain,) = load_scans([files], call(data)).values()
    t2, lesion = read_image(files.images["t2"]), read_labels(files.lesion)
    finer = Volume(np.zeros((48, 40, 40), np.uint8), t2.affine @ np.diag([0.5, 1, 1, 1]))
    write_image(resample(t2, finer), files.images["t2"])
    with pytest.raises(GridMismatch, match=r"case phantom0000: t2 is \(48, 40, 40\) but flair is .* --resample"):
        load_scans([files], call(data))
    (scan,) = load_scans([files], call(data, resample=True)).values()
    np.testing.assert_allclose(scan.image, plain.image, atol=2e-3, err_msg="every other slice of it is the old one")
    np.testing.assert_array_equal(scan.classes, plain.classes)
    write_image(LabelMap(lesion.array[:, ::2], lesion.affine @ np.diag([1, 2, 1, 1])), files.lesion)
    (scan,) = load_scans([files], call(data, resample=True)).values()
    assert scan.classes.shape == plain.classes.shape
    kept = ((scan.classes == plain.classes) & (plain.classes > 0)).sum() / (plain.classes > 0).sum()
    assert kept > 0.6, "half the rows are the old ones, most of the others are like their neighbours"


def test_a_sequence_that_moved_is_registered_with_the_labels_drawn_on_it(phantoms, tmp_path):
    data, said = copy(phantoms, tmp_path), []
    files = find_cases([data])[0]
    t1c, lesion = read_image(files.images["t1c"]), read_labels(files.lesion)
    far = np.eye(4)
    far[:3, 3] = (300, -200, 150)
    write_image(Volume(t1c.array, far @ t1c.affine), files.images["t1c"])
    write_image(LabelMap(lesion.array, far @ lesion.affine), files.lesion)
    (scan,) = load_scans([files], call(data, register=True), said.append).values()
    (plain,) = load_scans([find_cases([phantoms])[0]], call(phantoms)).values()
    volumes = [(one.classes > 0).sum() for one in (scan, plain)]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.15), "without registration the label map lies in the air"
    inside = [one.image[0][one.classes > 0].mean() for one in (scan, plain)]
    assert inside[0] == pytest.approx(inside[1], rel=0.15), "and FLAIR is as bright within it"
    assert len(said) == 1 and said[0].startswith("case phantom0000: t1c: registration moved it by ")


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
        (["a", "b"], 1, "there must be at least 2 folds"),
    ],
)
def test_too_few_patients_or_folds_are_refused(cases, folds, sentence):
    with pytest.raises(DatasetError, match=sentence):
        deal_folds(cases, folds, 0)


def test_a_scan_under_two_names_is_refused(rng):
    one, two = rng.normal(size=(2, 1, 3, 4, 5)).astype("f")
    a, b, c, again = (Scan(image, np.zeros((3, 4, 5), np.uint8), 3, 0) for image in (one, two, one + 1, np.array(one)))
    check_distinct({"a": a, "b": b, "c": c}, {"a": a, "b": b, "c": c})
    check_distinct({"a": a}, {"b": b, "c": c})
    for scored, trained in (({"a": a, "b": b, "c": again},) * 2, ({"a": a}, {"b": b, "c": again})):
        with pytest.raises(DatasetError, match="cases a and c hold the same scan"):
            check_distinct(scored, trained)
