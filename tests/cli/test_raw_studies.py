"""`segment STUDY`: what it says, and the one sentence where it refuses."""

import pytest

from brainsegnet.inference.steps import describe_motion, describe_steps
from brainsegnet.io.images import write_image

CPU = ("--device", "cpu", "--threads", 1)


@pytest.fixture(autouse=True)
def without_network(depth_extractor):
    """The brain is found by depth in all tests here."""


def test_a_study_is_told_in_a_few_lines(run, raw_study, trained, tmp_path):
    out = tmp_path / "a.nii.gz"
    ended = run("segment", raw_study, "--model", trained, "--out", out, "--timings", *CPU)
    assert ended.code == 0, ended.err
    sequences, alignment, brain, volumes = ended.out.splitlines()[:4]
    assert sequences == "olga: flair is series 1 (flair); t1c is series 3 (t1c); t2 is series 2 (t2)"
    assert alignment.startswith("olga: on the grid of t2: flair ") and "t1c moved by 8." in alignment
    assert "mutual information" in alignment and brain.startswith("olga: brain 1") and "found in the scans" in brain
    assert volumes.startswith("olga: whole ") and volumes.endswith(f"; without t1; {out}")
    assert "align" in ended.out and "brain" in ended.out.splitlines()[-4:][0] + ended.out


def test_a_series_is_named_by_its_number(run, raw_study, trained, tmp_path):
    ended = run("segment", raw_study, "--t1", "2", "--model", trained, "--out", tmp_path / "a.nii.gz", *CPU)
    assert ended.code == 0 and "t1 is series 2 (t2)" in ended.out
    ended = run("segment", raw_study, "--t1", "77", "--model", trained, "--out", tmp_path / "b.nii.gz", *CPU)
    assert ended.code == 1 and "t1: '77' is none of the study, which has series 1 (flair)" in ended.sentence


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--no-register",), "case ida: flair is "),
        (("--dicom",), "case ida: its reference t2 is not DICOM"),
        (("--reference", "adc"), "adc cannot be the reference"),
        (("--brain-mask", "nowhere.nii.gz"), "nowhere.nii.gz does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_leaves_nothing(
    run, left, raw_heads, trained, tmp_path, flags, sentence
):
    for name, volume in raw_heads.items():
        write_image(volume, tmp_path / "ida" / f"{name}.nii.gz")
    ended = run("segment", tmp_path / "ida", "--model", trained, "--out", tmp_path / "out/a.nii.gz", *flags, *CPU)
    assert ended.code == 1 and sentence in ended.sentence and not left(tmp_path / "out")


def test_a_prepared_case_has_nothing_to_tell():
    report = {"inputs": {"flair": {"path": "a"}}, "geometry": {"moved": {}}, "brain": {"how": "as given"}}
    assert describe_steps(report) == []
    assert describe_motion({"how": "resampled"}) == "resampled by its header"
