import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from brainsegnet.errors import DatasetError, GridMismatch, LabelError, MissingSequence
from brainsegnet.io.cases import (
    CaseFiles,
    check_dataset,
    check_whole,
    common_sequences,
    find_cases,
    load_case,
    search_cases,
)
from brainsegnet.io.images import write_image
from brainsegnet.io.layouts import vsd_path
from brainsegnet.task import BRATS2015, BRATS2021, BRATS2023, ISLES2022
from brainsegnet.volume import LabelMap, Volume


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def simulated(folder, grade, case, sequences=("flair", "t1", "t1c", "t2", "lesion")):
    touch(folder / grade / case, *(vsd_path(sequence, 54000 + i).as_posix() for i, sequence in enumerate(sequences)))


BRATS2021_NAMES = [f"{{}}_{end}.nii.gz" for end in ("flair", "t1", "t1ce", "t2", "seg")]
BRATS2023_NAMES = [f"{{}}-{end}.nii.gz" for end in ("t1n", "t1c", "t2W", "t2f", "seg")]
FOUR = {"flair", "t1", "t1c", "t2"}


def test_brats_2015_is_found_as_it_was_written(tmp_path):
    simulated(tmp_path, "HGG", "pat1")
    simulated(tmp_path, "LGG", "pat0")
    touch(tmp_path, "HGG/readme.txt", "HGG/pat1/.hidden.mha", f".trash/pat9/{vsd_path('t1', 1)}")
    low, high = find_cases([tmp_path])
    assert (low.name, high.name) == ("pat0", "pat1") and high.convention is BRATS2015
    assert set(high.images) == FOUR
    assert high.images["t1c"] == tmp_path / "HGG/pat1" / vsd_path("t1c", 54002)
    assert high.lesion == tmp_path / "HGG/pat1" / vsd_path("lesion", 54004)


def test_a_label_map_without_3more_and_a_test_case_without_labels_are_found(tmp_path):
    touch(tmp_path, "a/VSD.Brain.XX.O.OT.7/VSD.Brain.XX.O.OT.7.mha", f"a/{vsd_path('t1', 3)}", f"b/{vsd_path('t1', 4)}")
    a, b = find_cases([tmp_path])
    assert a.lesion is not None and a.lesion.name == "VSD.Brain.XX.O.OT.7.mha" and b.lesion is None


@pytest.mark.parametrize("names, convention", [(BRATS2021_NAMES, BRATS2021), (BRATS2023_NAMES, BRATS2023)])
@pytest.mark.parametrize("place", ["{}/", "", "a/b/{}/"])
def test_brats_of_later_years_in_a_folder_each_or_in_one(tmp_path, names, convention, place):
    for case in ("pat-002", "pat_001"):
        touch(tmp_path, *(f"{place}{name}".replace("{}", case) for name in names))
    cases = find_cases([tmp_path])
    assert [case.name for case in cases] == ["pat-002", "pat_001"]
    for found in cases:
        assert set(found.images) == FOUR and found.convention is convention
        assert found.lesion is not None and found.lesion.name.endswith("seg.nii.gz")


def test_a_case_folder_itself_is_enough(tmp_path):
    touch(tmp_path / "pat1", *(name.format("pat1") for name in BRATS2021_NAMES))
    simulated(tmp_path, "HGG", "pat2")
    assert [case.name for case in find_cases([tmp_path / "HGG/pat2", tmp_path / "pat1"])] == ["pat2", "pat1"]


def test_isles_2022_is_not_taken_for_brats_2021(tmp_path):
    touch(tmp_path, *(f"sub-1/sub-1_ses-0001_{end}.nii.gz" for end in ("dwi", "adc", "flair", "msk")))
    (case,) = find_cases([tmp_path])
    assert (case.name, case.convention, set(case.images)) == ("sub-1", ISLES2022, {"dwi", "adc", "flair"})


def test_plainly_named_files_have_no_convention(tmp_path):
    touch(tmp_path, "pat1/FLAIR.nii.gz", "pat1/t1c.nrrd", "pat1/label.nii.gz", "pat1/notes.txt")
    (case,) = find_cases([tmp_path])
    assert (case.name, case.convention, set(case.images)) == (
        "pat1",
        None,
        {"flair", "t1c"},
    ) and case.lesion is not None


def test_linked_case_folders_are_followed(tmp_path):
    touch(tmp_path / "store/pat1", *(name.format("pat1") for name in BRATS2021_NAMES))
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen/pat1").symlink_to(tmp_path / "store/pat1")
    assert [case.name for case in find_cases([tmp_path / "chosen"])] == ["pat1"]


def test_folders_and_tables_are_joined(tmp_path):
    simulated(tmp_path / "data", "HGG", "pat1")
    touch(tmp_path, "x.mha", "y.mha")
    (tmp_path / "mine.csv").write_text("case,sequence,path\nmine,t1,x.mha\nmine,seg,y.mha\n")
    first, second = find_cases([tmp_path / "mine.csv", tmp_path / "data"])
    assert first == CaseFiles("mine", {"t1": tmp_path / "x.mha"}, tmp_path / "y.mha") and second.name == "pat1"


def test_what_cannot_be_found_is_told(tmp_path):
    touch(tmp_path, "scan.nii.gz", "labels/pat1_seg.nii.gz", "deep/1/2/3/4/5/6/7/a_flair.nii.gz")
    with pytest.raises(DatasetError, match="none does not exist; name a folder of cases"):
        find_cases([tmp_path / "none"])
    with pytest.raises(DatasetError, match="neither a folder nor"):
        find_cases([tmp_path / "scan.nii.gz"])
    for folder in ("labels", "deep"):
        with pytest.raises(DatasetError, match=f"{folder} holds no case of a known layout .BRATS 2015; .*BraTS 2023"):
            find_cases([tmp_path / folder])


def test_a_case_found_twice_is_refused(tmp_path):
    for place in ("a", "b"):
        simulated(tmp_path / place, "HGG", "pat1")
    places = rf"{tmp_path}/a/HGG/pat1 and in {tmp_path}/b/HGG/pat1"
    for data in ([tmp_path / "a", tmp_path / "b"], [tmp_path]):
        with pytest.raises(DatasetError, match=rf"case pat1 is found twice, in {places}; rename or leave out one"):
            find_cases(data)
    touch(tmp_path / "flat", "pat2_flair.nii.gz", "pat2-t2f.nii.gz")
    files = r".*pat2-t2f\.nii\.gz and in .*pat2_flair\.nii\.gz"
    with pytest.raises(DatasetError, match=f"pat2 is found twice, in {files}"):
        find_cases([tmp_path / "flat"])


def test_a_case_that_cannot_be_used_costs_no_other_one(tmp_path):
    for case in ("a/pat1", "b/pat1", "a/pat2", "a/pat3"):
        touch(tmp_path / case, "flair.nii.gz", "t1.nii.gz")
    touch(tmp_path, "a/pat2/t1.mha", "sub-1/anat/sub-1_run-1_T1w.nii.gz", "sub-1/anat/sub-1_run-2_T1w.nii.gz")
    found = search_cases([tmp_path])
    assert [case.name for case in found.cases] == ["pat3"] and not found.left_out
    assert set(found.failures) == {"pat1", "pat2", "sub-1"}
    assert "is found twice, in" in found.failures["pat1"] and "two files for t1" in found.failures["pat2"]
    with pytest.raises(DatasetError, match="case pat2 has two files for t1"):
        find_cases([tmp_path / "a/pat2"])


def test_two_files_for_one_sequence_are_refused(tmp_path):
    touch(tmp_path, "pat1/pat1_t1.nii.gz", "pat1/pat1_t1.nii", "pat1/pat1_t2.nii.gz")
    with pytest.raises(DatasetError, match=r"case pat1 has two files for t1, .*pat1_t1\.nii and .*pat1_t1\.nii\.gz"):
        find_cases([tmp_path])


def test_a_table_case_without_an_image_is_refused(tmp_path):
    touch(tmp_path, "y.mha")
    (tmp_path / "mine.csv").write_text("case,sequence,path\nmine,seg,y.mha\n")
    with pytest.raises(DatasetError, match="case mine has a label map but no image"):
        find_cases([tmp_path / "mine.csv"])


def test_common_sequences_keep_the_order_of_the_task():
    cases = [
        CaseFiles("a", dict.fromkeys(("t2", "t1c", "flair"), Path("x"))),
        CaseFiles("b", {"t1c": Path(), "flair": Path()}),
    ]
    assert common_sequences(cases, BRATS2015) == ("flair", "t1c")
    with pytest.raises(
        MissingSequence, match=r"no sequence of task isles2022 \(dwi, adc\) .* case a has t2, t1c, flair"
    ):
        common_sequences(cases, ISLES2022)


GRID = np.diag([2.0, 1, 1, 1])


@pytest.fixture
def files(tmp_path, rng):
    """A case of BRATS 2015 whose t2 lies on another grid."""
    images = {}
    for sequence in ("flair", "t1", "t2"):
        grid = GRID @ np.diag([1, 1, 1.5, 1]) if sequence == "t2" else GRID
        images[sequence] = tmp_path / f"{sequence}.nii.gz"
        write_image(Volume(rng.integers(0, 99, (4, 5, 6)).astype(np.int16), grid), images[sequence])
    labels = np.arange(120).reshape(4, 5, 6) % 5
    write_image(Volume(labels.astype(np.float32), GRID), tmp_path / "lesion.nii.gz")
    return CaseFiles("pat1", images, tmp_path / "lesion.nii.gz", BRATS2015)


def test_sequences_come_in_the_order_asked_for_and_labels_in_the_tasks_convention(files):
    case = load_case(files, ("t1", "flair"), BRATS2021, lesion=True)
    assert (case.name, tuple(case.images)) == ("pat1", ("t1", "flair")) and case.lesion is not None
    assert case.lesion.array.ravel()[:5].tolist() == [0, 1, 2, 1, 4]
    kept = load_case(files, ("t1",), BRATS2015, lesion=True).lesion
    assert kept is not None and kept.array.ravel()[:5].tolist() == [0, 1, 2, 3, 4]
    assert load_case(files, ("t1",), BRATS2021, lesion=False).lesion is None


def test_labels_outside_the_convention_are_refused(files):
    unknown = CaseFiles(files.name, files.images, files.lesion, None)
    with pytest.raises(LabelError, match=r"case pat1: label values \[3\] are outside task brats2021"):
        load_case(unknown, ("t1",), BRATS2021, lesion=True)


def test_missing_parts_are_refused_or_left_out(files):
    with pytest.raises(
        MissingSequence,
        match="case pat1 has no t1c, dwi, only flair, t1, t2; add what is missing, or name those",
    ):
        load_case(files, ("t1", "t1c", "dwi"), BRATS2015, lesion=False)
    assert tuple(load_case(files, ("t1c", "t1"), BRATS2015, lesion=False, allow_missing=True).images) == ("t1",)
    with pytest.raises(MissingSequence, match="case pat1 has no dwi"):
        load_case(files, ("dwi",), BRATS2015, lesion=False, allow_missing=True)
    with pytest.raises(DatasetError, match="case pat1 has no label map"):
        load_case(CaseFiles("pat1", files.images), ("t1",), BRATS2015, lesion=True)


def test_another_grid_is_refused_or_aligned(files):
    with pytest.raises(GridMismatch, match="case pat1: t2 and flair have the same shape"):
        load_case(files, ("flair", "t2"), BRATS2015, lesion=False)
    moved = []

    def align(name, moving, reference):
        moved.append((name, type(moving)))
        return type(moving)(moving.array, reference.affine)

    case = load_case(files, ("flair", "t1", "t2"), BRATS2015, lesion=True, align=align)
    assert moved == [("t1", Volume), ("t2", Volume)] and case.images["t2"].on_grid_of(case.images["flair"])
    assert load_case(files, ("t2",), BRATS2015, lesion=True, align=align).lesion is not None
    assert moved == [("t1", Volume), ("t2", Volume), ("lesion", LabelMap)]


@pytest.mark.real
def test_real_folders_are_found(real_data):
    cases = {case.name: case for case in find_cases([real_data / "tumour"])}
    for convention, count in ((BRATS2015, 4), (BRATS2021, 9), (BRATS2023, 2)):
        assert sum(case.convention is convention for case in cases.values()) == count
    assert all(case.lesion for case in cases.values())
    assert cases["BraTS-GLI-00000-000"].images["t2"].name == "BraTS-GLI-00000-000-t2W.nii.gz"
    assert common_sequences(list(cases.values()), BRATS2015) == ("flair", "t1c")


@pytest.mark.real
def test_a_real_case_of_2015_is_read_in_the_convention_of_2021(real_data):
    (files,) = find_cases([real_data / "tumour/brats2015/brats_2013_pat0003_1"])
    case = load_case(files, ("flair", "t1c"), BRATS2021, lesion=True)
    assert case.reference.shape == (155, 240, 240) and case.lesion is not None
    assert np.unique(case.lesion.array).tolist() == [0, 1, 2, 4]


def test_an_unreadable_folder_is_told(tmp_path):
    touch(tmp_path / "data", "pat1/x.mha")
    (tmp_path / "data").chmod(0)
    try:
        list((tmp_path / "data").iterdir())
        pytest.skip("the superuser may read everything")
    except PermissionError:
        with pytest.raises(DatasetError, match="data cannot be read: Permission denied"):
            find_cases([tmp_path / "data"])
    finally:
        (tmp_path / "data").chmod(0o700)
        shutil.rmtree(tmp_path / "data")


@pytest.fixture
def image(rng):
    return Volume(rng.integers(0, 999, (5, 6, 7)).astype(np.int16), np.eye(4))


@pytest.fixture
def cases(tmp_path, image):
    """Four whole cases of one layout, with two sequences and a label map each."""
    paths = {(n, s): tmp_path / f"{n}_{s}.nii.gz" for n in "abcd" for s in ("t1", "t2", "seg")}
    for path in paths.values():
        write_image(image, path)
    return [CaseFiles(n, {s: paths[n, s] for s in ("t1", "t2")}, paths[n, "seg"], layout="x") for n in "abcd"]


def test_whole_cases_have_no_defects(cases):
    found = check_dataset(cases)
    assert (found.layouts, found.sequences, found.labelled) == ({"x": 4}, {"t1": 4, "t2": 4}, 4)
    assert not found.defects
    check_whole(cases, ("t1", "t2"))


def test_each_kind_of_incompleteness_is_told(cases):
    a, b, c, d = cases
    a.images["t1"].write_bytes(b"")
    b.images["t2"].write_bytes(b.images["t2"].read_bytes()[:-9])
    c.images["t2"].unlink()
    lacking = CaseFiles(d.name, {"t1": d.images["t1"]}, layout="x")
    defects = check_dataset([a, b, c, lacking]).defects
    assert {name: len(found) for name, found in defects.items()} == {"a": 1, "b": 1, "c": 1, "d": 2}
    assert "is empty (0 bytes)" in defects["a"][0] and "cut short" in defects["b"][0]
    assert "does not exist" in defects["c"][0] and defects["d"] == ("no t2", "no label map")


def test_layouts_are_compared_with_themselves(cases):
    other = CaseFiles("e", {"adc": cases[0].images["t1"]}, layout="y")
    assert not check_dataset([*cases, other]).defects


def test_training_is_told_of_what_it_needs_alone(cases):
    cases[1].images["t2"].write_bytes(b"")
    cases[2].lesion.write_bytes(b"")
    with pytest.raises(
        DatasetError, match=r"case b: .*b_t2.* is empty .*exclude the case \(and 1 more; see brainsegnet"
    ):
        check_whole(cases, ("t1", "t2"))
    with pytest.raises(DatasetError, match=r"case c: .*c_seg[^(]*\(0 bytes\); fetch it again, or exclude the case$"):
        check_whole(cases, ("t1",))
    check_whole(cases[:2], ("t1",))


@pytest.mark.real
def test_real_data_is_whole(real_data):
    found = check_dataset(find_cases([real_data / place for place in ("tumour", "stroke", "ms")]))
    assert not found.defects and found.labelled == sum(found.layouts.values()) == 20


@pytest.mark.parametrize(
    "unknown, first, count",
    [
        (["pat2/pat2_0000.nii.gz", "pat2/pat2_0001.nii.gz"], "pat2_0000.nii.gz", 2),
        (["other/deep/x.mgz"], "x.mgz", 1),
        (["half/x.img", "half/x.hdr"], "x.hdr", 1),
    ],
)
def test_a_folder_that_no_layout_knows_is_named_beside_those_that_are_known(tmp_path, unknown, first, count):
    touch(tmp_path / "pat1", "flair.nii.gz", "t1.nii.gz")
    touch(tmp_path, *unknown)
    found = search_cases([tmp_path])
    (sentence,) = found.left_out
    images, them = (f"image {first} is", "it") if count == 1 else (f"{count} images ({first}, ...) are", "them")
    folder = (tmp_path / unknown[0]).parent
    assert sentence == f"{folder} is left out: its {images} named in no known way; list {them} in a .csv table"
    assert [case.name for case in found.cases] == ["pat1"] == [case.name for case in find_cases([tmp_path])]


@pytest.mark.parametrize(
    "others",
    [
        ["pat1/mask_of_mine.nii.gz", "pat1/old/x.nii.gz"],
        ["notes/readme.txt", "notes/.x.nii.gz", "__MACOSX/x.nii.gz", ".trash/x.nii.gz", "notes/Thumbs.db"],
        ["sub-1/anat/sub-1_T1w.nii.gz", "derivatives/x/sub-1/sub-1_desc-brain_mask.nii.gz"],
    ],
)
def test_what_lies_in_a_case_is_hidden_or_has_a_name_of_bids_is_not_named(tmp_path, others):
    touch(tmp_path, "pat1/flair.nii.gz", "pat1/t1.nii.gz", *others)
    assert not search_cases([tmp_path]).left_out


def test_a_case_of_brats_2015_holds_what_lies_beside_its_folders(tmp_path):
    simulated(tmp_path, "HGG", "pat1")
    touch(tmp_path, "HGG/pat1/mine.nii.gz")
    assert not search_cases([tmp_path]).left_out


def test_files_beside_many_cases_in_one_folder_are_named(tmp_path):
    touch(tmp_path, *(f"{case}_{end}.nii.gz" for case in ("pat1", "pat2") for end in ("flair", "t1")))
    touch(tmp_path, "pat3_0000.nii.gz")
    assert "its image pat3_0000.nii.gz is named in no known way" in search_cases([tmp_path]).left_out[0]


def test_what_segment_wrote_is_not_named(tmp_path, image):
    touch(tmp_path / "pat1", "flair.nii.gz")
    touch(tmp_path / "out", "pat1.nii.gz", "pat1_entropy.nii.gz")
    said = {"labels": "pat1.nii.gz", "uncertainty": {"entropy": "pat1_entropy.nii.gz"}}
    (tmp_path / "out" / "pat1.json").write_text(json.dumps(said))
    assert not search_cases([tmp_path]).left_out
    (tmp_path / "out" / "pat1.json").rename(tmp_path / "out" / "._pat1.json")
    assert len(search_cases([tmp_path]).left_out) == 1


def test_pairs_and_images_of_freesurfer_are_cases_too(tmp_path):
    touch(tmp_path, "pat1/flair.hdr", "pat1/flair.img", "pat1/t1.mgz", "pat2/pat2_t1.hdr.gz", "pat2/pat2_t1.img.gz")
    touch(tmp_path, "sub-1/anat/sub-1_T1w.hdr", "sub-1/anat/sub-1_T1w.img")
    found = search_cases([tmp_path])
    assert not found.failures and not found.left_out
    assert {case.name: [path.name for path in case.images.values()] for case in found.cases} == {
        "pat1": ["flair.hdr", "t1.mgz"],
        "pat2": ["pat2_t1.hdr.gz"],
        "sub-1": ["sub-1_T1w.hdr"],
    }
