"""One process of a cohort, with a threshold in place of the network."""

import importlib.util
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

from brainsegnet.cohort import CohortOptions
from brainsegnet.cohort.ledger import COLUMNS, VARYING, merge_ledgers, write_ledgers
from brainsegnet.cohort.manifest import prepare_manifest, read_manifest
from brainsegnet.cohort.places import open_places
from brainsegnet.cohort.status import count_cases, look_at
from brainsegnet.cohort.tables import read_parquet
from brainsegnet.cohort.work import Broken, Job, work
from brainsegnet.errors import DatasetError, OutputError
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.segmenter import Segmenter
from brainsegnet.model.store import resolve_model

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_cohort.py"
SEGMENTING = SegmentOptions(device="cpu", threads=1, keep_all_components=True, presence_check=False)
ALL = ["phantom0000", "phantom0001", "phantom0002"]


@pytest.fixture(scope="module")
def open_threshold():
    """Opens a threshold in place of a network."""
    spec = importlib.util.spec_from_file_location("kill_cohort", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.open_threshold


@pytest.fixture
def computed(monkeypatch, open_threshold):
    """Names of the cases that the network was given."""
    names, compute = [], Segmenter.compute

    def note(self, prepared):
        names.append(prepared.loaded.case.name)
        return compute(self, prepared)

    monkeypatch.setattr(Segmenter, "compute", note)
    monkeypatch.setattr("brainsegnet.inference.segmenter.open_engine", open_threshold)
    return names


@pytest.fixture
def cases(phantoms, tmp_path):
    return shutil.copytree(phantoms, tmp_path / "cases")


@pytest.fixture
def make_job(cases, tmp_path):
    def make(**changes):
        options = CohortOptions(**changes)
        out = tmp_path / "out"
        manifest = prepare_manifest([cases], out, rescan=False)
        places = open_places(out, resolve_model("tumour").card, SEGMENTING, options.output_layout)
        return Job(manifest, places, "tumour", SEGMENTING, options)

    return make


def states(job):
    status = count_cases(job.manifest, job.places)
    return status.done, status.failed, status.running, status.waiting


def damage(job, case):
    """Make a file of a case unreadable."""
    entry = next(entry for entry in read_manifest(job.manifest) if entry.case == case)
    file = Path(entry.images["flair"])
    whole = file.read_bytes()
    file.write_bytes(b"no image")
    return lambda: file.write_bytes(whole)


def rows_of(path):
    return {row["case"]: row for row in read_parquet(path)}


def test_each_case_is_segmented_once_and_marked_as_done(make_job, computed):
    job = make_job()
    assert states(job) == (0, 0, 0, 3)
    assert work(job).done == 3
    assert computed == ALL
    assert states(job) == (3, 0, 0, 0)
    assert work(job).done == 0
    assert computed == ALL
    assert list(job.places.claims.iterdir()) == []


@pytest.mark.parametrize("layout", ["flat", "sharded"])
def test_results_lie_where_the_layout_says(make_job, computed, layout):
    job = make_job(output_layout=layout)
    work(job)
    home = job.places.folder / ("0000" if layout == "sharded" else ".")
    assert {path.name for path in home.glob("phantom*")} == {
        f"{case}{end}" for case in ALL for end in (".json", ".nii.gz")
    }
    with pytest.raises(OutputError, match=r"with another --output-layout \(" + layout):
        make_job(output_layout="flat" if layout == "sharded" else "sharded")


def test_folders_hold_a_thousand_cases(make_job, computed):
    places = make_job(output_layout="sharded").places
    assert [places.home_of(number).name for number in (0, 999, 1000, 123_456)] == ["0000", "0000", "0001", "0123"]


def test_other_options_are_not_mixed(make_job, tmp_path):
    job = make_job()
    with pytest.raises(OutputError, match="with another --tta"):
        open_places(tmp_path / "out", resolve_model("tumour").card, replace(SEGMENTING, tta=True), "flat")
    assert (
        open_places(tmp_path / "out", resolve_model("tumour").card, replace(SEGMENTING, threads=7), "flat")
        == job.places
    )


def test_an_option_that_an_older_release_did_not_have_counts_as_by_default(make_job, tmp_path):
    job, card = make_job(), resolve_model("tumour").card
    path = job.places.folder / "about" / "cohort.json"
    known = json.loads(path.read_text())
    assert known["options"].pop("spacing") == "model"
    path.write_text(json.dumps(known))
    assert open_places(tmp_path / "out", card, SEGMENTING, "flat") == job.places
    with pytest.raises(OutputError, match="with another --spacing"):
        open_places(tmp_path / "out", card, replace(SEGMENTING, spacing="keep"), "flat")


def test_a_case_that_fails_is_a_row_and_is_tried_again_only_if_asked(make_job, computed):
    job = make_job()
    mend = damage(job, "phantom0001")
    tally = work(job)
    assert (tally.done, tally.failed) == (2, 1)
    (kind,) = look_at(job.manifest.parent)[0].kinds
    row = rows_of(*write_ledgers(job.manifest.parent))["phantom0001"]
    assert (row["status"], row["kind"]) == ("failed", kind)
    assert "phantom0001" in row["error"]
    assert row["attempt"] == 1
    assert row["seconds"] > 0
    mend()
    assert work(job).done == 0
    again = replace(job, options=replace(job.options, retry="failed"), started=4e9)
    assert work(again).done == 1
    assert states(job) == (3, 0, 0, 0)
    assert not any((job.places.folder / "errors").iterdir())


def test_a_failure_of_this_run_is_not_tried_again(make_job, computed):
    job = make_job(retry="failed")
    damage(job, "phantom0001")
    work(job)
    before = (job.places.folder / "errors" / "phantom0001.json").stat().st_mtime_ns
    work(replace(job, started=1.0))
    assert (job.places.folder / "errors" / "phantom0001.json").stat().st_mtime_ns == before


def test_the_ledger_holds_what_the_jsons_say(make_job, computed):
    job = make_job()
    work(job)
    (path,) = write_ledgers(job.manifest.parent)
    for case, row in rows_of(path).items():
        note = json.loads((job.places.folder / f"{case}.json").read_text())
        assert row["ml_whole"] == note["volumes_ml"]["regions"]["whole"]
        assert row["seconds_network"] == note["seconds"]["network"]
        assert (row["engine"], row["warnings"]) == (note["engine"], note["warnings"])
        assert row["host"] == note["cohort"]["host"]
        assert row["processor"]
        assert row["sha256"].startswith(job.places.folder.name)
        assert {*COLUMNS} < {*row}


def test_a_ledger_can_be_made_before_and_while_cases_are_done(make_job, computed):
    job = make_job()
    assert [row["status"] for row in read_parquet(*write_ledgers(job.manifest.parent))] == ["waiting"] * 3
    seen = []

    def stops():
        (path,) = write_ledgers(job.manifest.parent)
        seen.append([row["status"] for row in read_parquet(path)])
        return False

    work(job, stops=stops)
    assert any("running" in statuses for statuses in seen)


def test_it_stops_after_the_current_case_and_gives_the_others_back(make_job, computed):
    job = make_job()
    work(job, stops=lambda: len(computed) > 0)
    done = states(job)[0]
    assert 1 <= done < 3
    assert list(job.places.claims.iterdir()) == []
    work(job)
    assert sorted(computed) == ALL


def test_the_rate_is_that_of_the_last_ten_minutes_while_a_process_is_at_work(make_job, computed):
    job = make_job()
    work(job)
    now = time.time()
    for case, age_seconds in zip(ALL, (120, 60, 3000), strict=True):
        os.utime(job.places.folder / f"{case}.json", (now - age_seconds,) * 2)
    assert count_cases(job.manifest, job.places).per_hour is None
    (job.places.claims / "another~1").touch()
    status = count_cases(job.manifest, job.places)
    assert status.per_hour == pytest.approx(60, rel=0.1)
    assert status.hours_left == 0


def test_two_results_of_shards_merge_into_the_ledger_of_the_whole(make_job, computed, tmp_path):
    job = make_job()
    for part in ("1/2", "2/2"):
        folder = tmp_path / part.replace("/", "of")
        shutil.copytree(job.manifest.parent, folder)
        places = replace(job.places, folder=folder / job.places.folder.name)
        work(replace(job, manifest=folder / job.manifest.name, places=places, options=CohortOptions(shard=part)))
        assert 1 <= count_cases(folder / job.manifest.name, places).done <= 2
    work(job)
    (whole,) = write_ledgers(job.manifest.parent)
    assert merge_ledgers([tmp_path / "1of2", tmp_path / "2of2"], tmp_path / "all.parquet") == 3

    def kept(path):
        return {case: {k: v for k, v in row.items() if k not in VARYING} for case, row in rows_of(path).items()}

    assert kept(tmp_path / "all.parquet") == kept(whole)


def test_two_different_results_of_a_case_are_not_merged(make_job, computed, tmp_path):
    job = make_job()
    work(job)
    (first,) = write_ledgers(job.manifest.parent)
    shutil.copy(first, tmp_path / "first.parquet")
    path = job.places.folder / "phantom0001.json"
    note = json.loads(path.read_text())
    note["volumes_ml"]["regions"]["whole"] += 1
    path.write_text(json.dumps(note))
    (second,) = write_ledgers(job.manifest.parent)
    with pytest.raises(DatasetError, match="case phantom0001 has two different results"):
        merge_ledgers([tmp_path / "first.parquet", second], tmp_path / "all.parquet")


def test_results_of_two_models_in_one_folder_are_not_merged(make_job, computed, tmp_path):
    job = make_job()
    work(job)
    shutil.copytree(job.places.folder, job.places.folder.with_name("0f0f0f0f"))
    with pytest.raises(DatasetError, match=r"has results of 2 models; name one of the ledgers: .*0f0f0f0f.* and "):
        merge_ledgers([job.manifest.parent], tmp_path / "all.parquet")
    assert merge_ledgers([job.places.ledger], tmp_path / "all.parquet") == 3


def test_a_result_whose_images_have_changed_is_named_and_left(make_job, computed):
    job = make_job()
    work(job)
    entry = next(iter(read_manifest(job.manifest)))
    os.utime(entry.images["flair"], (1e9, 1e9))
    (said,) = work(job).changed
    assert "flair has changed since" in said
    assert computed == ALL
    work(replace(job, options=CohortOptions(overwrite=True)))
    assert computed == [*ALL, "phantom0000"]


def test_a_case_that_fails_after_its_inputs_changed_has_failed_and_keeps_its_old_result(make_job, computed):
    job = make_job()
    work(job)
    files = [job.places.folder / f"phantom0001{end}" for end in (".json", ".nii.gz")]
    before = [file.read_bytes() for file in files]
    mend = damage(job, "phantom0001")
    overwriting = replace(job, options=CohortOptions(overwrite=True))
    assert (work(overwriting).failed, work(overwriting).failed) == (1, 0), "a failure is not tried again unasked"
    assert [file.read_bytes() for file in files] == before
    assert states(job) == (2, 1, 0, 0)
    row = rows_of(*write_ledgers(job.manifest.parent))["phantom0001"]
    assert (row["status"], row["ml_whole"]) == ("failed", None)
    mend()
    again = replace(job, options=CohortOptions(overwrite=True, retry="failed"), started=4e9)
    work(again)
    assert states(job) == (3, 0, 0, 0)
    assert not any((job.places.folder / "errors").iterdir())


def test_a_failure_is_forgotten_where_the_inputs_are_as_before_again(make_job, computed):
    """For example because their disk is there again: the old result is theirs, and nothing is computed."""
    job = make_job()
    work(job)
    file = Path(next(iter(read_manifest(job.manifest))).images["flair"])
    moved = file.rename(file.with_suffix(".away"))
    assert work(replace(job, options=CohortOptions(overwrite=True))).failed == 1
    assert states(job) == (2, 1, 0, 0)
    moved.rename(file)
    work(replace(job, options=CohortOptions(retry="failed"), started=4e9))
    assert states(job) == (3, 0, 0, 0)
    assert computed == ALL


def test_a_process_that_lost_its_case_to_another_waits_and_takes_it_over_if_that_dies(make_job, computed, monkeypatch):
    job, compute, others = make_job(), Segmenter.compute, []
    error = job.places.folder / "errors" / "phantom0001.json"

    def sleep_and_fail(self, prepared):
        if prepared.loaded.case.name == "phantom0001" and not others:
            others.append(job.places.claims / "phantom0001~2")
            others[0].write_text('"elsewhere~1~0"')
            raise OSError("stale file handle")
        if prepared.loaded.case.name == "phantom0002":
            assert not error.exists() and (job.places.claims / "phantom0001~1").exists()
            os.utime(others[0], (0, 0))  # the other is dead
            os.utime(job.places.claims / "phantom0001~1", (0, 0))
        return compute(self, prepared)

    monkeypatch.setattr(Segmenter, "compute", sleep_and_fail)
    tally = work(job)
    assert (tally.done, tally.failed) == (3, 0)
    assert not error.exists()
    assert json.loads((job.places.folder / "phantom0001.json").read_text())["cohort"]["attempt"] == 3
    assert list(job.places.claims.iterdir()) == []


def test_a_process_ends_after_three_faults_with_no_case_done_between_them(make_job, computed, monkeypatch):
    def fail(self, prepared):
        raise ZeroDivisionError(prepared.loaded.case.name)

    monkeypatch.setattr(Segmenter, "compute", fail)
    job = make_job()
    with pytest.raises(Broken) as ended:
        work(job)
    assert isinstance(ended.value.__cause__, ZeroDivisionError)
    assert states(job) == (0, 3, 0, 0)
    assert list(job.places.claims.iterdir()) == []


def test_a_failure_counts_until_the_case_is_done(make_job, computed):
    job = make_job()
    entry = next(iter(read_manifest(job.manifest)))
    json_file, error = job.places.json_of(entry), job.places.error_of(entry)
    assert job.places.find_failure(entry) is None
    error.parent.mkdir(parents=True)
    error.write_text("{}")
    os.utime(error, (200, 200))
    assert job.places.find_failure(entry) == 200
    json_file.write_text("{}")
    for done, failed in ((100, 200), (200, 200), (300, None)):
        os.utime(json_file, (done, done))
        assert job.places.find_failure(entry) == failed


def test_a_fault_of_the_software_fails_its_case_alone_and_is_told_in_full(make_job, computed, monkeypatch):
    job, compute = make_job(), Segmenter.compute

    def fail_one(self, prepared):
        if prepared.loaded.case.name == "phantom0001":
            raise ZeroDivisionError("by nothing")
        return compute(self, prepared)

    monkeypatch.setattr(Segmenter, "compute", fail_one)
    assert work(job).done == 2
    assert states(job) == (2, 1, 0, 0)
    note = json.loads((job.places.folder / "errors" / "phantom0001.json").read_text())
    assert note["kind"] == "ZeroDivisionError"
    assert note["error"] == "case phantom0001: unexpected ZeroDivisionError: by nothing; please report it"
    assert "in fail_one" in note["traceback"]


def test_a_result_that_lost_its_label_map_is_made_again(make_job, computed):
    job = make_job()
    work(job)
    (job.places.folder / "phantom0001.nii.gz").unlink()
    assert work(job).done == 1
    assert computed == [*ALL, "phantom0001"]


def test_a_case_on_which_processes_ended_comes_last_and_fails_in_the_end(make_job, computed):
    job = make_job(attempts=2)
    job.places.claims.mkdir(parents=True)
    for case, times in (("phantom0000", 1), ("phantom0001", 2)):
        for number in range(1, times + 1):
            claim = job.places.claims / f"{case}~{number}"
            claim.write_text('"elsewhere~1~0"')
            os.utime(claim, (0, 0))
    work(job)
    assert computed == ["phantom0002", "phantom0000"]
    assert states(job) == (2, 1, 0, 0)
    assert look_at(job.manifest.parent)[0].kinds == {"ProcessEnded": 1}
    assert json.loads((job.places.folder / "errors" / "phantom0001.json").read_text())["seconds"] is None
    assert json.loads((job.places.folder / "phantom0000.json").read_text())["cohort"]["attempt"] == 2


def test_the_claim_of_a_process_that_died_after_its_case_was_done_is_removed(make_job, computed):
    job = make_job()
    work(job)
    for name in ("phantom0000~1", ".clock~elsewhere~1~0"):
        (job.places.claims / name).write_text('"elsewhere~1~0"')
        os.utime(job.places.claims / name, (0, 0))
    work(job)
    assert list(job.places.claims.iterdir()) == []


def test_what_a_dead_process_of_another_host_left_is_removed(make_job, computed):
    job = make_job()
    job.places.claims.mkdir(parents=True)
    claim = job.places.claims / "phantom0000~1"
    claim.write_text('"elsewhere~77~0"')
    os.utime(claim, (0, 0))
    left = [job.places.folder / f".brainsegnet~elsewhere~{pid}~01234567~phantom0000.nii.gz" for pid in (77, 78)]
    for path in left:
        path.write_bytes(b"half")
    work(job)
    assert [path.exists() for path in left] == [False, True]


def test_a_raw_study_is_segmented_and_stays_done(raw_study, depth_extractor, tmp_path, computed, monkeypatch):
    out = tmp_path / "out"
    manifest = prepare_manifest([raw_study], out, rescan=False)
    places = open_places(out, resolve_model("tumour").card, SEGMENTING, "flat")
    job = Job(manifest, places, "tumour", SEGMENTING)
    assert work(job).done == 1
    (row,) = rows_of(*write_ledgers(out)).values()
    assert (row["status"], row["sequences"]) == ("done", ["flair", "t1c", "t2"])
    monkeypatch.setattr("brainsegnet.cohort.manifest.find_all", lambda *_: pytest.fail("it is looked through again"))
    assert work(job).done == 0
    assert len(computed) == 1
