"""Text of others is read up to a size and a depth, wherever it is read."""

import os
import time

import pytest
import yaml

from brainsegnet import _documents
from brainsegnet._documents import MAX_DEPTH, UnreadableText, compose_yaml, load_json, load_yaml, read_text
from brainsegnet.errors import BrainSegNetError
from brainsegnet.io.case_files import read_table
from brainsegnet.io.described import collect_described
from brainsegnet.io.layouts import read_note
from brainsegnet.model.store import open_model
from brainsegnet.task import load_task

DEEP = {
    "lists": 100_000 * "[" + 100_000 * "]",
    "mappings": 50_000 * '{"a":' + "1" + 50_000 * "}",
    "open": 1_000_000 * "[",
    "just too deep": (MAX_DEPTH + 1) * "[" + (MAX_DEPTH + 1) * "]",
}
deep = pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
BOMB = "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: &c {<<: [*b, *b]}\n"


@pytest.mark.parametrize("load", [load_json, load_yaml, compose_yaml])
@deep
def test_a_deep_text_is_refused_at_once(load, text):
    began = time.process_time()
    with pytest.raises(ValueError):
        load(text)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("load", [load_json, load_yaml, compose_yaml])
def test_what_is_deep_enough_is_read(load):
    assert load(MAX_DEPTH * "[" + MAX_DEPTH * "]")


@pytest.mark.parametrize("load", [load_yaml, compose_yaml])
def test_references_in_yaml_are_refused(load):
    with pytest.raises(UnreadableText, match="has references"):
        load(BOMB)


@pytest.mark.parametrize("text", ["a: 2026-13-45", "!!int x", "!!float ''", "!!timestamp x", "? [a]\n: b"])
def test_what_is_no_value_is_no_yaml(text):
    with pytest.raises((UnreadableText, yaml.YAMLError)):
        load_yaml(text)


@pytest.mark.parametrize("load", [load_json, load_yaml, compose_yaml])
def test_half_a_character_is_refused(load):
    with pytest.raises(UnreadableText, match="half a character"):
        load('{"a": ["\\ud800"]}')
    assert load('{"a": ["\\u00e9"]}')


def test_a_large_file_and_what_is_no_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_documents, "MAX_YAML_BYTES", 100)
    (tmp_path / "a.json").write_bytes(bytes(2_000_000))
    with pytest.raises(UnreadableText, match="holds 2 MB, and 1 MB are read at most"):
        read_text(tmp_path / "a.json", max_bytes=1_000_000)
    with pytest.raises(UnreadableText, match=r"of YAML; write a \.csv table"):
        load_yaml(200 * "#")
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(BrainSegNetError, match=r"pipe\.yaml is no regular file"):
        load_task(tmp_path / "pipe.yaml")


@deep
def test_no_place_fails_on_depth(text, tmp_path, model):
    for name in ("a.yaml", "dataset.json", "note.json"):
        (tmp_path / name).write_text(text)
    (model.folder / "card.json").write_text(text)
    (tmp_path / "imagesTr").mkdir()
    assert read_note(tmp_path / "note.json") == {}
    for read in (
        lambda: load_task(tmp_path / "a.yaml"),
        lambda: read_table(tmp_path / "a.yaml"),
        lambda: collect_described(tmp_path),
        lambda: open_model(model.folder),
    ):
        with pytest.raises(BrainSegNetError) as refused:
            read()
        assert len(str(refused.value)) < 500 and str(tmp_path) in str(refused.value)
