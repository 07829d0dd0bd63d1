"""What an actor of a Ray cluster does with the numbers it is given, without Ray."""

import importlib.util
import json
import os
import shutil
import sys
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

from brainsegnet.cohort import CohortOptions
from brainsegnet.cohort.manifest import pick_entries, prepare_manifest, read_manifest
from brainsegnet.cohort.places import open_places
from brainsegnet.cohort.ray_actor import Actor, Bell, Row
from brainsegnet.cohort.ray_engine import _check_address, work_on_ray
from brainsegnet.cohort.status import count_cases
from brainsegnet.cohort.work import Job
from brainsegnet.errors import BrainSegNetError, MissingExtra
from brainsegnet.inference import SegmentOptions
from brainsegnet.model.store import resolve_model

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_cohort.py"
SEGMENTING = SegmentOptions(
    device="cpu", threads=1, keep_all_components=True, presence_check=False, extract_brain=False, spacing="keep"
)


@pytest.fixture(autouse=True)
def threshold(monkeypatch):
    spec = importlib.util.spec_from_file_location("kill_cohort", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr("brainsegnet.inference.segmenter.open_engine", script.open_threshold)


@pytest.fixture
def job(phantoms, tmp_path):
    cases = shutil.copytree(phantoms, tmp_path / "cases")
    manifest = prepare_manifest([cases], tmp_path / "out", rescan=False)
    places = open_places(tmp_path / "out", resolve_model("tumour").card, SEGMENTING, "flat")
    return Job(manifest, places, "tumour", SEGMENTING, CohortOptions(engine="ray"))


def segment(job, *numbers, bell=None):
    columns = Actor(job, bell or Bell(job.places.folder / ".stop"))({"item": list(numbers)})
    return [Row(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def statuses(rows):
    return {row.number: row.status for row in rows}


def test_the_cases_of_some_numbers(job):
    entries = list(read_manifest(job.manifest))
    assert pick_entries(job.manifest, [2, 0]) == [entries[0], entries[2]]
    assert pick_entries(job.manifest, []) == []


def test_each_number_gives_a_row_and_each_case_a_result_once(job):
    first = segment(job, 0, 2)
    assert statuses(first) == {0: "done", 2: "done"}
    assert all(row.seconds > 0 for row in first)
    assert count_cases(job.manifest, job.places).done == 2
    assert statuses(segment(job, 0, 1, 2)) == {0: "settled", 1: "done", 2: "settled"}
    assert [*job.places.claims.iterdir()] == []


def test_an_actor_that_is_let_go_leaves_no_thread_and_no_model(job, monkeypatch):
    monkeypatch.setattr("brainsegnet.cohort.ray_actor.LISTEN_SECONDS", 0.01)
    before = set(threading.enumerate())
    actor = Actor(job, Bell(job.places.folder / ".stop"))
    actor({"item": [0]})
    gone = weakref.ref(actor)
    (listener,) = (thread for thread in threading.enumerate() if thread.name == "bell" and thread not in before)
    del actor
    listener.join(10)
    assert gone() is None
    assert not listener.is_alive()


def test_a_case_that_fails_is_a_row(job):
    entry = next(iter(read_manifest(job.manifest)))
    Path(entry.images["flair"]).write_bytes(b"no image")
    failed, done = segment(job, 0, 1)
    assert (failed.status, done.status) == ("failed", "done")
    assert failed.kind == json.loads(job.places.error_of(entry).read_text())["kind"]
    assert entry.case in failed.error
    assert segment(replace(job, started=4e9), 0)[0].status == "settled"


def test_a_case_that_fails_after_it_was_done_has_failed(job):
    entry = next(iter(read_manifest(job.manifest)))
    segment(job, 0)
    Path(entry.images["flair"]).write_bytes(b"no image")
    (failed,) = segment(replace(job, options=replace(job.options, overwrite=True)), 0)
    assert failed.status == "failed"
    assert entry.case in failed.error


def test_a_case_that_another_process_has_comes_later(job):
    job.places.claims.mkdir(parents=True)
    (job.places.claims / "phantom0001~1").write_text('"elsewhere~1~0"')
    assert statuses(segment(job, 0, 1)) == {0: "done", 1: "later"}


def test_a_case_on_which_a_process_ended_is_done_after_the_others(job):
    job.places.claims.mkdir(parents=True)
    (job.places.claims / "phantom0000~1").write_text('"elsewhere~1~0"')
    os.utime(job.places.claims / "phantom0000~1", (0, 0))
    assert statuses(segment(job, 0, 1)) == {0: "done", 1: "done"}
    assert json.loads((job.places.folder / "phantom0000.json").read_text())["cohort"]["attempt"] == 2


def test_when_the_bell_rings_cases_are_left(job):
    bell = Bell(job.places.folder / ".stop")
    assert not bell.is_rung()
    bell.ring()
    assert statuses(segment(job, 0, 1, bell=bell)) == {0: "left", 1: "left"}
    assert count_cases(job.manifest, job.places).done == 0


def test_a_model_that_cannot_be_opened_is_a_row_with_its_sentence(job):
    (row,) = segment(replace(job, model="no-such-model"), 0, 1)
    assert (row.status, row.kind) == ("error", "ModelError")
    assert "no-such-model" in row.error
    other = replace(job.places, folder=job.places.folder.with_name("01234567"))
    (row,) = segment(replace(job, places=other), 0)
    assert "install one release on all nodes" in row.error


def test_a_folder_that_a_node_does_not_see_is_named(job, tmp_path):
    (row,) = segment(replace(job, manifest=tmp_path / "elsewhere.parquet"), 0)
    assert f"does not see {tmp_path / 'elsewhere.parquet'}" in row.error


def test_a_result_whose_images_have_changed_is_named(job):
    segment(job, 0)
    os.utime(next(iter(read_manifest(job.manifest))).images["flair"], (1e9, 1e9))
    assert [row.status for row in segment(job, 0)] == ["settled", "changed"]


@pytest.mark.parametrize(
    ("address", "sentence"),
    [("127.0.0.1:9", "no Ray cluster answers at 127.0.0.1:9"), ("ray://head:10001", "is for Ray Client")],
)
def test_a_cluster_that_does_not_answer_is_named(address, sentence):
    with pytest.raises(BrainSegNetError, match=sentence):
        _check_address(address)


def test_without_ray_one_sentence_names_the_extra(job, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r'pip install "brainsegnet\[ray\]"'):
        work_on_ray(job)
