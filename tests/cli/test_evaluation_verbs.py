"""The verbs that publish results, as they are typed."""

import numpy as np
import pytest

from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_labels, write_image
from brainsegnet.volume import LabelMap


@pytest.fixture
def predictions(phantoms, tmp_path):
    for name, shift in (("plain", 3), ("focal", 1)):
        (tmp_path / name).mkdir()
        for case in find_cases([phantoms]):
            truth = read_labels(case.lesion)
            write_image(LabelMap(np.roll(truth.array, shift, 2), truth.affine), tmp_path / name / f"{case.name}.nii.gz")
    return tmp_path


def test_from_predictions_to_table_figure_and_report(run, phantoms, predictions):
    plain, focal, task = predictions / "plain", predictions / "focal", ("--task", "brats2015")
    for folder in (plain, focal):
        assert run("evaluate", folder, phantoms, *task, "--out", predictions / f"s-{folder.name}").code == 0
    out = [predictions / "t.md", predictions / "t.tex"]
    done = run("table", predictions / "s-plain", predictions / "s-focal", "--paper", 1, "--out", *out)
    assert done.code == 0 and "| s-focal | ours |" in " ".join(done.out.split()) and done.out == out[0].read_text()
    labels = ("--labels", "without focal", "with focal")
    picture = predictions / "f.png"
    done = run("figure", phantoms, "--predictions", plain, focal, *labels, *task, "--out", picture, "--most", 1)
    assert done.code == 0 and done.out.startswith("phantom0000: slice ") and picture.exists()
    done = run("report", focal, phantoms, *task, "--out", predictions / "r.html")
    assert done.code == 0 and (predictions / "r.html").stat().st_size > 50_000


def test_what_cannot_be_published_ends_in_one_sentence(run, phantoms, predictions):
    ended = run("table", predictions / "none", "--paper", 1)
    assert ended.code == 1 and "cannot be read" in ended.sentence
    ended = run("report", predictions / "plain", "--out", predictions / "r.html")
    assert ended.code == 1 and "name their truth too" in ended.sentence
    missing = run("figure", phantoms, "--predictions", predictions / "absent", "--task", "brats2015", "--out", "f.png")
    assert missing.code == 1 and "absent does not exist" in missing.sentence
    assert run("table", predictions, "--paper", 7).code == 2
