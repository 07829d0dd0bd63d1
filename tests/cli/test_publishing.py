import zipfile

import pytest

from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_labels, write_image


@pytest.fixture
def predictions(phantoms, tmp_path):
    """The truths themselves, under the names of predictions."""
    folder = tmp_path / "found"
    folder.mkdir()
    for case in find_cases([phantoms]):
        write_image(read_labels(case.lesion), folder / f"{case.name}.nii.gz")
    return folder


def test_submit_packs_a_zip_and_says_what_is_in_it(run, phantoms, predictions, tmp_path):
    out = tmp_path / "upload.zip"
    common = ("submit", predictions, phantoms, "--task", "brats2015", "--name", "mine", "--out", out)
    ended = run(*common)
    assert ended.code == 0 and not ended.err
    assert ended.out == f"3 cases in {out}, from VSD.mine.0.mha on\n"
    assert run(*common, "--id-from", "t1c").code == 0
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == ["VSD.mine.2.mha", "VSD.mine.12.mha", "VSD.mine.22.mha"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"--task": "brats2021"}, "task brats2021 has no platform to upload to"),
        ({"--task": "nonsense"}, "unknown task 'nonsense'"),
        ({"--name": "a b"}, "'a b' cannot be a part of file names"),
        ({"--id-from": "dwi"}, "case phantom0000 has no dwi, only flair, t1, t1c, t2"),
    ],
)
def test_submit_refuses_in_one_sentence_and_writes_nothing(
    run, left, phantoms, predictions, tmp_path, change, sentence
):
    flags = {"--task": "brats2015", "--name": "mine", "--out": tmp_path / "upload.zip"} | change
    ended = run("submit", predictions, phantoms, *(part for flag in flags.items() for part in flag))
    assert ended.code == 1 and sentence in ended.sentence
    assert left(tmp_path) == [f"found/phantom000{n}.nii.gz" for n in range(3)]


def test_submit_refuses_a_missing_prediction(run, left, phantoms, predictions, tmp_path):
    (predictions / "phantom0001.nii.gz").unlink()
    flags = ("--task", "brats2015", "--name", "mine", "--out", tmp_path / "upload.zip")
    assert "holds no prediction for 1 of 3 cases (phantom0001)" in run("submit", predictions, phantoms, *flags).sentence
    assert "upload.zip" not in left(tmp_path)
