"""A second run into a place that a first one still writes to says so, and touches nothing."""

import json
import os
import shutil

import pytest

from brainsegnet._machine import find_host

RIVAL = os.getppid()


def claim(folder, *names, process=RIVAL):
    folder.mkdir(exist_ok=True)
    path = folder / f".brainsegnet~{find_host()}~{process}~0123abcd~claim"
    path.write_text(json.dumps(names))
    return path


@pytest.fixture
def commands(phantoms, strict, trained, tmp_path):
    """Verb to its arguments, and to what a first run would hold."""
    out = tmp_path / "out"
    model = shutil.copytree(trained / "best", tmp_path / "model")
    cpu = ("--device", "cpu", "--threads", 1)
    task = ("--task", "brats2015")
    return {
        "segment": ((phantoms, "--model", strict, "--out", out, *cpu), out, "phantom0001.nii.gz"),
        "train": ((phantoms, *task, "--out", out, "--steps", 1), out, "state.safetensors"),
        "export": ((model,), model, "export"),
        "simulate": ((out, "--cases", 2, "--seed", 4, "--shape", 24, 40, 40), out, "phantom of seed 5"),
    }


@pytest.mark.parametrize("verb", ["segment", "train", "export", "simulate"])
def test_a_place_where_another_run_writes_is_refused(run, left, quick, commands, verb):
    arguments, place, name = commands[verb]
    rival = claim(place, name)
    before = left(place)
    ended = run(verb, *arguments)
    assert ended.code == 1 and f"{place / name} is being written by process {RIVAL} on " in ended.err.splitlines()[-1]
    assert "wait for it, or name another output" in ended.err and left(place) == before
    rival.unlink()


def test_other_cases_go_into_the_same_folder(run, left, phantoms, commands, tmp_path):
    arguments, place, _ = commands["segment"]
    claim(place, "another.nii.gz")
    ended = run("segment", phantoms / "phantom0000", *arguments[1:])
    assert ended.code == 0 and {"phantom0000.json", "phantom0000.nii.gz"} <= {*left(place)}
