"""`brainsegnet paper` as it is typed."""

import zipfile

import numpy as np
import pytest

from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_labels, write_image
from brainsegnet.volume import LabelMap


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
    common = ("paper", "submit", predictions, phantoms, "--task", "brats2015", "--name", "mine", "--out", out)
    ended = run(*common)
    assert ended.code == 0 and not ended.err
    assert ended.out == f"3 cases in {out}, from VSD.mine.0.mha on\n"
    assert run(*common, "--id-from", "t1c", "--overwrite").code == 0
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
    ended = run("paper", "submit", predictions, phantoms, *(part for flag in flags.items() for part in flag))
    assert ended.code == 1 and sentence in ended.sentence
    assert left(tmp_path) == [f"found/phantom000{n}.nii.gz" for n in range(3)]


def test_submit_refuses_a_missing_prediction(run, left, phantoms, predictions, tmp_path):
    (predictions / "phantom0001.nii.gz").unlink()
    flags = ("--task", "brats2015", "--name", "mine", "--out", tmp_path / "upload.zip")
    ended = run("paper", "submit", predictions, phantoms, *flags)
    assert "holds no prediction for 1 of 3 cases (phantom0001)" in ended.sentence
    assert "upload.zip" not in left(tmp_path)


@pytest.fixture
def two_models(phantoms, tmp_path):
    for name, shift in (("plain", 3), ("focal", 1)):
        (tmp_path / name).mkdir()
        for case in find_cases([phantoms]):
            truth = read_labels(case.lesion)
            write_image(LabelMap(np.roll(truth.array, shift, 2), truth.affine), tmp_path / name / f"{case.name}.nii.gz")
    return tmp_path


def test_from_predictions_to_table_figure_and_report(run, phantoms, two_models):
    plain, focal, task = two_models / "plain", two_models / "focal", ("--task", "brats2015")
    for folder in (plain, focal):
        assert run("evaluate", folder, phantoms, *task, "--out", two_models / f"s-{folder.name}").code == 0
    out = [two_models / "t.md", two_models / "t.tex"]
    done = run("paper", "table", two_models / "s-plain", two_models / "s-focal", "--number", 1, "--out", *out)
    assert done.code == 0 and "| s-focal | ours |" in " ".join(done.out.split()) and done.out == out[0].read_text()
    labels = ("--labels", "without focal", "with focal")
    picture = two_models / "f.png"
    done = run(
        "paper", "figure", phantoms, "--predictions", plain, focal, *labels, *task, "--out", picture, "--most", 1
    )
    assert done.code == 0 and done.out.startswith("phantom0000: slice ") and picture.exists()
    done = run("report", focal, phantoms, *task, "--out", two_models / "r.html")
    assert done.code == 0 and (two_models / "r.html").stat().st_size > 50_000


def test_what_cannot_be_published_ends_in_one_sentence(run, phantoms, two_models):
    ended = run("paper", "table", two_models / "none", "--number", 1)
    assert ended.code == 1 and "cannot be read" in ended.sentence
    ended = run("report", two_models / "plain", "--out", two_models / "r.html")
    assert ended.code == 1 and "name their truth too" in ended.sentence
    missing = run(
        "paper", "figure", phantoms, "--predictions", two_models / "absent", "--task", "brats2015", "--out", "f.png"
    )
    assert missing.code == 1 and "absent does not exist" in missing.sentence
    assert run("paper", "table", two_models, "--number", 7).code == 2
