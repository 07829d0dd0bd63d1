"""`brainsegnet measure` on what `segment` wrote: what it says and writes, and how it is refused in one sentence."""

import json

import numpy as np
import pytest

from brainsegnet.io.images import read_labels, write_image


@pytest.fixture
def mask(segmented, tmp_path):
    """A result without its first slices of lesion."""
    labels = read_labels(segmented / "phantom0001.nii.gz")
    array = labels.array.copy()
    array[: np.argwhere(array)[:, 0].min() + 2] = 0
    write_image(labels.with_labels(array), tmp_path / "mask.nii.gz")
    return tmp_path / "mask.nii.gz"


def test_a_correction_is_said_and_written_with_its_report(run, segmented, mask, tmp_path):
    flags = ("--like", segmented / "phantom0001.json", "--out", tmp_path / "new.nii.gz", "--report", "--label-files")
    ended = run("measure", mask, *flags)
    assert ended.code == 0, ended.sentence
    note = json.loads((tmp_path / "new.json").read_text())
    before = note["original"]["volumes_ml"]["regions"]
    for region, ml in note["volumes_ml"]["regions"].items():
        assert f"phantom0001: {region} {ml:.1f} ml, before {before[region]:.1f} ml" in ended.out
    assert f"removed {note['changed']['removed_ml']:.2f} ml" in ended.out and note["changed"]["added_ml"] == 0
    assert "corrected" in (tmp_path / "new.html").read_text()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"mask.nii.gz", *(f"new{end}" for end in (".nii.gz", ".json", ".html"))} | {
        "new_itksnap.txt", "new_slicer.ctbl"
    }  # fmt: skip


def test_what_exists_is_replaced_only_if_told(run, segmented, mask, tmp_path):
    (tmp_path / "new.html").write_text("mine")
    flags = ("--like", segmented / "phantom0001.json", "--out", tmp_path / "new.nii.gz", "--report")
    ended = run("measure", mask, *flags)
    assert ended.code == 1 and "is there already; add --overwrite" in ended.sentence
    assert {path.name for path in tmp_path.iterdir()} == {"mask.nii.gz", "new.html"}


def test_what_cannot_be_measured_is_refused_in_one_sentence(run, segmented, mask, tmp_path):
    gone = run(
        "measure", tmp_path / "gone.nii.gz", "--like", segmented / "phantom0001.json", "--out", tmp_path / "a.mha"
    )
    assert gone.code == 1 and "gone.nii.gz does not exist" in gone.sentence
    for like in (mask, tmp_path / "gone.json"):
        ended = run("measure", mask, "--like", like, "--out", tmp_path / "a.nii.gz")
        assert ended.code == 1 and "is not the JSON of a result of segment; name the one" in ended.sentence
    typed = run("measure", mask, "--like", segmented / "phantom0001.json", "--out", tmp_path / "a.png")
    assert typed.code == 1 and "its name must end in one of .nii.gz" in typed.sentence
    assert [path.name for path in tmp_path.iterdir()] == ["mask.nii.gz"]
