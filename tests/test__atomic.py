import os
from pathlib import Path

import pytest

from brainsegnet._atomic import replacing, writable, write_text
from brainsegnet.errors import OutputError


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
