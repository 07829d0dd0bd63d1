import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from brainsegnet.cohort import CohortOptions
from brainsegnet.cohort.manifest import (
    COLUMNS,
    MANIFEST,
    Entry,
    choose_shard,
    prepare_manifest,
    read_manifest,
    read_sizes,
)
from brainsegnet.cohort.tables import read_columns, write_parquet
from brainsegnet.errors import DatasetError, OutputError, UsageError
from brainsegnet.io.case_files import CaseFiles
from brainsegnet.pipeline.study_case import StudyCase


def test_a_folder_is_listed_with_files_and_sizes(phantoms, tmp_path):
    path = prepare_manifest([phantoms], tmp_path / "out", rescan=False)
    entries = list(read_manifest(path))
    assert [entry.case for entry in entries] == ["phantom0000", "phantom0001", "phantom0002"]
    assert [entry.number for entry in entries] == [0, 1, 2]
    case = entries[0].open()
    assert isinstance(case, CaseFiles)
    assert entries[0].bytes == sum(file.stat().st_size for file in case.images.values()) > 0
    assert read_columns(path) == COLUMNS


def test_the_same_search_gives_the_same_bytes(phantoms, tmp_path):
    first, second = (prepare_manifest([phantoms], tmp_path / name, rescan=False) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_cases_keep_their_numbers_when_others_are_added(phantoms, tmp_path):
    table, out = tmp_path / "studies.csv", tmp_path / "out"
    table.write_text(f"case,path\nm,{phantoms / 'phantom0001'}\nx,{phantoms / 'phantom0002'}\n")
    prepare_manifest([table], out, rescan=False)
    table.write_text(f"case,path\na,{phantoms / 'phantom0000'}\nx,{phantoms / 'phantom0002'}\n")
    assert [entry.case for entry in read_manifest(prepare_manifest([table], out, rescan=False))] == ["m", "x"]
    assert [entry.case for entry in read_manifest(prepare_manifest([table], out, rescan=True))] == ["m", "x", "a"]
    assert [entry.case for entry in read_manifest(prepare_manifest([], out, rescan=True))] == ["m", "x", "a"]


def test_a_manifest_of_other_sources_is_not_mixed(phantoms, tmp_path):
    prepare_manifest([phantoms], tmp_path / "out", rescan=False)
    with pytest.raises(OutputError, match=r"lists the cases of .*--rescan"):
        prepare_manifest([tmp_path / "others"], tmp_path / "out", rescan=False)


def test_results_are_not_written_where_cases_are_searched(phantoms):
    with pytest.raises(OutputError, match="a later search would take results for cases"):
        prepare_manifest([phantoms], phantoms / "out", rescan=False)
    assert not (phantoms / "out").exists()


def test_a_name_too_long_for_a_file_is_refused_before_the_work(phantoms, tmp_path):
    for name, fits in (("a" * 200, True), ("a" * 201, False), ("\N{GREEK SMALL LETTER ALPHA}" * 101, False)):
        table = write_table([{"case": name, "path": str(phantoms / "phantom0000")}], tmp_path / "studies.csv")
        if fits:
            prepare_manifest([table], tmp_path / "fitting", rescan=False)
            continue
        with pytest.raises(DatasetError, match=r"its name has 20[12] bytes; take at most 200"):
            prepare_manifest([table], tmp_path / "out", rescan=False)
    assert not (tmp_path / "out" / MANIFEST).exists()


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_two_cases_of_one_name_are_refused(phantoms, tmp_path, ending):
    rows = [{"case": "twin", "path": str(phantoms / name)} for name in ("phantom0000", "phantom0001")]
    table = write_table(rows, tmp_path / f"studies{ending}")
    with pytest.raises(DatasetError, match="case twin is found twice; rename or leave out one of the two"):
        prepare_manifest([table], tmp_path / "out", rescan=False)
    assert not (tmp_path / "out" / MANIFEST).exists()


def write_table(rows, path):
    if path.suffix == ".csv":
        path.write_text("\n".join(["case,path", *(f"{row['case']},{row['path']}" for row in rows)]) + "\n")
    else:
        write_parquet(rows, {"case": "text", "path": "text"}, path, {})
    return path


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("name", ["../up", "", ".hidden", "a\\b"])
def test_a_name_that_is_no_file_name_is_refused(phantoms, tmp_path, ending, name):
    table = write_table([{"case": name, "path": str(phantoms)}], tmp_path / f"studies{ending}")
    with pytest.raises(DatasetError, match="row 1"):
        prepare_manifest([table], tmp_path / "out", rescan=False)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_studies_of_a_table_are_looked_through_when_their_turn_comes(raw_heads, tmp_path, ending):
    from brainsegnet.io.images import write_image

    home = tmp_path / "studies" / "olga"
    for name, volume in raw_heads.items():
        write_image(volume, home / f"olga_{name}.nii.gz")
    rows = [{"case": "p1", "path": "studies/olga"}, {"case": "p2", "path": "studies/gone"}]
    path = prepare_manifest([write_table(rows, tmp_path / f"t{ending}")], tmp_path / "out", rescan=False)
    first, second = read_manifest(path)
    case = first.open()
    assert case.name == "p1"
    sequences = case.images if isinstance(case, CaseFiles) else case.sequences
    assert {*sequences} == {*raw_heads}
    assert first.bytes == sum(file.stat().st_size for file in home.iterdir())
    with pytest.raises(DatasetError, match="gone"):
        second.open()


def test_a_row_whose_path_holds_several_cases_is_refused_in_its_turn(phantoms, tmp_path):
    table = write_table([{"case": "p1", "path": str(phantoms)}], tmp_path / "t.csv")
    (entry,) = read_manifest(prepare_manifest([table], tmp_path / "out", rescan=False))
    with pytest.raises(DatasetError, match=r"case p1: .* holds 3 cases; name one a row"):
        entry.open()


def test_raw_studies_of_a_folder_are_opened_again_by_their_place(raw_study, tmp_path):
    path = prepare_manifest([raw_study], tmp_path / "out", rescan=False)
    (entry,) = read_manifest(path)
    case = entry.open()
    assert isinstance(case, StudyCase)
    assert (case.name, case.home) == (entry.case, Path(entry.path))
    assert {*case.choices} == {"flair", "t2", "t1c"}


def test_two_cases_of_one_name_in_two_folders_are_refused(phantoms, tmp_path):
    twin = shutil.copytree(phantoms / "phantom0001", tmp_path / "others" / "phantom0001")
    with pytest.raises(DatasetError, match=r"case phantom0001 is found twice, in .* and in .*; rename"):
        prepare_manifest([phantoms, twin.parent], tmp_path / "out", rescan=False)


def test_a_case_with_a_problem_says_it_in_its_turn():
    entry = Entry("a", problem="case a: two files are t1")
    with pytest.raises(DatasetError, match="case a: two files are t1"):
        Entry.of(entry.to_row()).open()


def test_an_entry_is_its_row():
    entry = Entry(
        "a", 3, images={"flair": "f.nii", "pwi_drop": "p.nii", "t1": "p.nii"}, parts={"pwi_drop": "drop", "t1": 2}
    )
    assert Entry.of(entry.to_row()) == entry


@pytest.mark.parametrize("shards", [1, 3, 7])
def test_shards_are_a_partition_of_about_the_same_size(shards):
    sizes = dict(enumerate(np.random.default_rng(0).integers(1, 1000, 500).tolist()))
    parts = [choose_shard(sizes, number, shards) for number in range(1, shards + 1)]
    assert sorted(number for part in parts for number in part) == sorted(sizes)
    weights = [sum(sizes[number] for number in part) for part in parts]
    assert max(weights) - min(weights) <= max(sizes.values())


def test_cases_of_unknown_size_are_shared_evenly():
    assert [len(choose_shard(dict.fromkeys(range(10), 0), part, 5)) for part in range(1, 6)] == [2] * 5


def test_a_shard_is_read_alone(phantoms, tmp_path):
    path = prepare_manifest([phantoms], tmp_path / "out", rescan=False)
    parts = [[entry.number for entry in read_manifest(path, (part, 2))] for part in (1, 2)]
    assert sorted([*parts[0], *parts[1]]) == sorted(read_sizes(path))


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"])
def test_a_shard_that_is_none_is_refused(shard):
    with pytest.raises(UsageError, match="is no part of a whole"):
        CohortOptions(shard=shard)
