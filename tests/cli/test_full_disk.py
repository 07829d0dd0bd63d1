"""A disk that is full: one sentence, nothing half under a final name, nothing left over, and earlier results stay."""

import json
import shutil

import pytest

from brainsegnet.io.images import read_labels
from brainsegnet.model.store import open_model
from brainsegnet.training.checkpoint import steps_and_minutes

CPU = ("--device", "cpu", "--threads", 1)
FULL = "No space left on device"


def leave(disk, kilobytes):
    """Fill a disk up to so many kilobytes, in a file."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    ballast.write_bytes(bytes(max(shutil.disk_usage(disk).free - 1024 * kilobytes, 0)))


@pytest.fixture
def unchecked(monkeypatch):
    """Room is not asked for at the start, as where another program fills the disk later."""
    for module in ("train", "export"):
        monkeypatch.setattr(f"brainsegnet.training.{module}.require_space", lambda *arguments: None)


def test_segment_writes_all_files_of_a_case_or_none(run, left, phantoms, strict, small_disk):
    disk, codes = small_disk(1500), []
    command = ("segment", phantoms / "phantom0000", "--model", strict, "--out", disk / "out", "--probabilities", *CPU)
    for room in (0, 12, 60, 160, 1200):
        leave(disk, room)
        shutil.rmtree(disk / "out", ignore_errors=True)
        ended = run(*command)
        codes.append(ended.code)
        if ended.code:
            assert FULL in ended.sentence and not left(disk / "out"), room
        else:
            assert len(left(disk / "out")) == 7, room
    assert codes[0] == 1 and codes[-1] == 0 and codes == sorted(codes, reverse=True)


def test_segment_leaves_an_earlier_result_as_it_was(run, phantoms, strict, small_disk):
    disk = small_disk(1500)
    command = ("segment", phantoms / "phantom0000", "--model", strict, "--out", disk / "out", *CPU)
    assert run(*command).code == 0
    before = {path.name: path.read_bytes() for path in (disk / "out").iterdir()}
    leave(disk, 4)
    assert FULL in run(*command, "--overwrite").sentence
    assert {path.name: path.read_bytes() for path in (disk / "out").iterdir()} == before


def test_simulate_writes_a_case_or_nothing(run, left, small_disk):
    disk = small_disk(2000)
    leave(disk, 300)
    ended = run("simulate", disk / "out", "--cases", 9, "--shape", 24, 40, 40)
    assert "cannot be written: " in ended.sentence and ".brainsegnet" not in ended.sentence
    whole = {name.split("/")[0] for name in left(disk / "out")}
    assert len(left(disk / "out")) == 6 * len(whole) and whole == {*ended.out.split()}


def test_a_training_and_an_export_ask_for_room_first(run, left, quick, phantoms, trained, small_disk):
    disk = small_disk(1000)
    ended = run("train", phantoms, "--task", "brats2015", "--out", disk / "run", "--steps", 2)
    assert "the training may take" in ended.sentence and "MB are free" in ended.sentence and not left(disk)
    shutil.copytree(trained / "best", disk / "model")
    before = left(disk)
    ended = run("export", disk / "model")
    assert "the exports may take" in ended.sentence and left(disk) == before


def test_a_full_disk_ends_a_training_and_the_earlier_state_is_resumed(
    run, left, quick, phantoms, unchecked, small_disk
):
    disk = small_disk(8000)
    out = disk / "run"
    common = ("train", phantoms, "--task", "brats2015", "--out", out, "--hold-out", "phantom0002")
    assert run(*common, "--steps", 2).code == 0
    before = left(out)
    for room in (0, 4, 100, 200):
        leave(disk, room)
        ended = run(*common, "--steps", 4, "--resume")
        assert ended.code == 1 and "cannot be written" in ended.err.splitlines()[-1], ended
        assert [name for name in left(out) if "tfevents" not in name] == [
            name for name in before if "tfevents" not in name
        ]
        assert steps_and_minutes(out / "state.safetensors")[0] == 2
        open_model(out / "best"), open_model(out / "last")
    leave(disk, 4000)
    assert run(*common, "--steps", 4, "--resume").code == 0
    assert steps_and_minutes(out / "state.safetensors")[0] == 4


def test_a_full_disk_ends_an_export_and_the_model_stays(run, left, phantoms, trained, unchecked, small_disk):
    disk, codes = small_disk(3000), []
    shutil.copytree(trained / "best", disk / "model")
    before = left(disk / "model")
    for room in (0, 8, 60, 100, 2000):
        leave(disk, room)
        ended = run("export", disk / "model")
        codes.append(ended.code)
        model = open_model(disk / "model")
        if ended.code:
            assert "cannot be written" in ended.sentence and left(disk / "model") == before, room
        else:
            assert model.exported("fp16") and model.exported("onnx")
            shutil.rmtree(disk / "model")
            shutil.copytree(trained / "best", disk / "model")
    assert codes[0] == 1 and codes[-1] == 0


def test_a_label_map_without_its_json_is_made_again(run, phantoms, strict, tmp_path):
    command = ("segment", phantoms / "phantom0000", "--model", strict, "--out", tmp_path / "out", *CPU)
    assert run(*command).code == 0
    (tmp_path / "out" / "phantom0000.json").unlink()
    (tmp_path / "out" / "phantom0000.nii.gz").write_bytes(b"half")
    assert "is there already; add --skip-existing" in run(*command).sentence
    assert run(*command, "--skip-existing").code == 0
    assert json.loads((tmp_path / "out" / "phantom0000.json").read_text())["labels"] == "phantom0000.nii.gz"
    read_labels(tmp_path / "out" / "phantom0000.nii.gz")
