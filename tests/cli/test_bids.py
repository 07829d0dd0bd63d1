"""The command bids: the arguments of a BIDS App, exit codes, and what it says."""

import json
from pathlib import Path

import pytest

from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image, write_image

SUFFIXES = {"flair": "FLAIR", "t1": "T1w", "t1c": "ce-gadolinium_T1w", "t2": "T2w"}


@pytest.fixture
def raw(phantoms: Path, tmp_path: Path) -> Path:
    """A BIDS data set of two participants."""
    for case, name in zip(find_cases([phantoms]), ("sub-01", "sub-02"), strict=False):
        for sequence, path in case.images.items():
            write_image(read_image(path), tmp_path / "raw" / name / "anat" / f"{name}_{SUFFIXES[sequence]}.nii.gz")
    about = json.dumps({"Name": "Phantoms", "BIDSVersion": "1.10.0"})
    (tmp_path / "raw" / "dataset_description.json").write_text(about, encoding="utf-8")
    return tmp_path / "raw"


def test_both_levels(run, raw, trained, tmp_path):
    scan, out = raw / "sub-02" / "anat" / "sub-02_FLAIR.nii.gz", tmp_path / "out"
    scan.write_bytes(scan.read_bytes()[:100])
    end = run("bids", raw, out, "participant", "--model", trained, "--device", "cpu", "--threads", 1)
    assert end.code == 1 and end.out.startswith("sub-01: ")
    assert end.err.endswith("brainsegnet: 1 of 2 cases could not be done; 1 could\n")
    end = run("bids", raw, out, "group")
    assert end.code == 0 and end.out == f"1 result in {out / 'group_tumour_volumes.tsv'}\n"
    assert end.only_line == "group_tumour_volumes.tsv has no volumes of sub-02; they have no result"


@pytest.mark.parametrize(
    "flags",
    [
        ("--participant-label", "01", "--skip-bids-validation", "-v"),
        ("--participant_label", "sub-01", "02", "--skip_bids_validator"),
        ("--session-label", "ses-1", "--session_id", "1"),
    ],
)
def test_the_flags_of_bids_apps_are_known(run, raw, tmp_path, flags):
    end = run("bids", raw, tmp_path / "out", "group", *flags)
    assert end.code == 1 and ("make them first" in end.err or "has a session ses-1" in end.err)


def test_the_version_is_shown(run):
    end = run("bids", "--version")
    assert end.code == 0 and end.out.startswith("brainsegnet ")


@pytest.mark.parametrize(
    ("words", "said"),
    [(("participants",), "participants"), ((), "needs ANALYSIS_LEVEL"), (("group", "--task", "x"), "--task")],
)
def test_what_is_typed_wrong_ends_with_code_2(run, raw, tmp_path, words, said):
    end = run("bids", raw, tmp_path / "out", *words)
    assert end.code == 2 and said in end.sentence
    assert not (tmp_path / "out").exists()
