import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from brainsegnet._atomic import claiming, replacing, require_space, sweep, unfinished, writable, write_text
from brainsegnet._machine import find_host, is_running
from brainsegnet.errors import OutputError


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_by(process: int, name: str, host: str = "") -> str:
    return f".brainsegnet~{host or find_host()}~{process}~0123abcd~{name}"


def test_text_is_written_as_it_is(tmp_path):
    write_text("Ödem: 3 ml\n", tmp_path / "a.md")
    assert (tmp_path / "a.md").read_bytes() == "Ödem: 3 ml\n".encode()
    assert os.listdir(tmp_path) == ["a.md"]


def test_a_block_that_fails_leaves_everything_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("former")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "former" and os.listdir(tmp_path) == ["a.json"]


def test_nothing_is_seen_before_the_block_ends(tmp_path):
    path = tmp_path / "a.nii.gz"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists() and temporary.parent == tmp_path and temporary.name.endswith(".nii.gz")
    assert path.read_text() == "new"


def test_a_folder_takes_the_place_of_a_folder(tmp_path):
    model = tmp_path / "model"
    for text in ("former", "new"):
        with replacing(model) as temporary:
            temporary.mkdir()
            (temporary / f"{text}.json").write_text(text)
    assert os.listdir(model) == ["new.json"] and os.listdir(tmp_path) == ["model"]
    with pytest.raises(ValueError), replacing(model) as temporary:
        temporary.mkdir()
        raise ValueError
    assert os.listdir(model) == ["new.json"] and os.listdir(tmp_path) == ["model"]


def test_a_file_does_not_replace_a_folder(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(OutputError, match=r"a\.json cannot be written: Is a directory"):
        write_text("x", tmp_path / "a.json")
    assert os.listdir(tmp_path) == ["a.json"]


def test_writable_leaves_no_trace_and_the_folder_comes_with_the_file(tmp_path):
    path = tmp_path / "new" / "folder" / "a.json"
    writable(path, (".json",))
    writable(tmp_path / "new", ())
    assert os.listdir(tmp_path) == []
    write_text("x", path)
    assert os.listdir(path.parent) == ["a.json"]


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("a.png", r"its name must end in one of \.nii\.gz"),
        ("file/a.nii.gz", "cannot be written"),
        ("folder.nii", "is a folder; name a file in it"),
    ],
)
def test_writable_refuses_early(tmp_path, name, sentence):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(OutputError, match=sentence):
        writable(tmp_path / name)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="no folder here that refuses even the superuser")
def test_writable_refuses_a_folder_that_takes_no_files(tmp_path):
    with pytest.raises(OutputError, match=r"/proc/a\.json cannot be written"):
        writable(Path("/proc/a.json"), (".json",))
    with pytest.raises(OutputError, match=r"/proc/a\.json cannot be written"):
        write_text("x", Path("/proc/a.json"))


def test_an_unfinished_file_names_host_process_and_its_place(tmp_path):
    with replacing(tmp_path / "a.nii.gz") as temporary:
        temporary.touch()
        (found,) = unfinished(tmp_path)
        assert found == (temporary, find_host(), os.getpid(), "a.nii.gz") and not found.is_dead
        with replacing(temporary) as same:
            assert same == temporary
        assert temporary.exists()
    assert os.listdir(tmp_path) == ["a.nii.gz"]


def test_a_long_name_gets_an_unfinished_neighbour_too(tmp_path):
    path = tmp_path / f"{'ö' * 120}.nii.gz"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.name.endswith("ö.nii.gz")
    assert path.read_text() == "new"


@pytest.mark.parametrize("start", [lambda path: writable(path, ()), lambda path: write_text("x", path)])
def test_what_dead_processes_left_is_swept_and_the_rest_stays(tmp_path, dead, start):
    folder = tmp_path / left_by(dead, "export")
    folder.mkdir()
    (folder / "fp16.bin").touch()
    (tmp_path / left_by(dead, "a.nii.gz")).touch()
    stay = {left_by(os.getppid(), "b"), left_by(dead, "c", "elsewhere"), ".brainsegnet~x", "mine.nii.gz"}
    for name in stay:
        (tmp_path / name).touch()
    start(tmp_path / "new.txt")
    assert {*os.listdir(tmp_path)} - {"new.txt"} == stay


def test_a_folder_that_was_moved_aside_is_put_back(tmp_path, dead):
    for name in ("export-former", "both-former"):
        (tmp_path / left_by(dead, name)).mkdir()
    (tmp_path / "both").mkdir()
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["both", "export"]


def test_a_process_is_running_until_it_ends(dead):
    assert is_running(os.getpid()) and is_running(os.getppid()) and is_running(1)
    assert not is_running(dead) and not is_running(10**10)


def test_a_place_that_another_run_writes_to_is_refused(tmp_path):
    out = tmp_path / "new" / "out"
    claim = "import sys; from pathlib import Path; from brainsegnet._atomic import claiming\n"
    claim += f"with claiming(Path({str(out)!r}), ['a', 'b']): print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", claim], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(OutputError, match=f"out/b is being written by process {other.pid} on .*; wait for it"):
            with claiming(out, ["b", "c"]):
                pass
        with claiming(out, ["c"]):
            assert len(unfinished(out)) == 2
        other.stdin.close()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("content", ["", "{", "[[]]", "3", json.dumps(["b"])])
def test_a_claim_of_a_dead_process_or_a_broken_one_stops_nothing(tmp_path, dead, content):
    (tmp_path / left_by(dead, "claim")).write_text('["a"]')
    (tmp_path / left_by(os.getppid(), "claim")).write_text(content)
    with claiming(tmp_path, ["a"]):
        assert len(unfinished(tmp_path)) == 2
    assert os.listdir(tmp_path) == [left_by(os.getppid(), "claim")]


def test_a_claim_on_another_host_says_what_to_remove(tmp_path):
    rival = tmp_path / left_by(7, "claim", "node4+12")
    rival.write_text('["a"]')
    with pytest.raises(OutputError, match=r"by process 7 on node4; .* remove .*claim\)"), claiming(tmp_path, ["a"]):
        pass


def test_space_is_asked_for_before_the_work(tmp_path):
    require_space(tmp_path / "new" / "run", 1000, "the models")
    with pytest.raises(OutputError, match=r"run cannot be written: the models may take 10{12}\.0 MB and .* free"):
        require_space(tmp_path / "new" / "run", 10**18, "the models")
