"""`brainsegnet follow` segments studies, or takes their results; and refuses in one sentence."""

import json
import shutil

import pytest


@pytest.fixture
def repeated(phantoms, tmp_path):
    """A phantom, and its images again in a folder of another name."""
    first, second = tmp_path / "data" / "before", tmp_path / "data" / "after"
    for folder in (first, second):
        shutil.copytree(phantoms / "phantom0001", folder)
    return first, second


def test_follow_segments_two_studies_and_finds_no_change(run, repeated, trained, tmp_path):
    out = tmp_path / "followup"
    ended = run("follow", *repeated, "--model", trained, "--out", out, "--device", "cpu", "--threads", 1)
    assert ended.code == 0 and f"done; open {out / 'follow-up.html'}" in ended.out
    note = json.loads((out / "follow-up.json").read_text())
    for region in note["regions"].values():
        assert region["volumes_ml"][0] == region["volumes_ml"][1]
    again = run("follow", *repeated, "--model", trained, "--out", out, "--device", "cpu", "--threads", 1)
    assert "--overwrite" in again.sentence


def test_follow_takes_results_and_refuses_one_study(run, segmented, tmp_path):
    result = segmented / "phantom0001.nii.gz"
    ended = run("follow", result, "--out", tmp_path / "out")
    assert ended.sentence.startswith("there is one study, phantom0001") and not (tmp_path / "out").exists()


def test_follow_needs_studies_and_a_folder(run):
    assert run("follow", "--out", "x").code == 2
    assert run("follow", "a", "b").code == 2
