"""Bad input ends in one sentence and an exit code above zero, without a traceback or a partial file."""

import os
import resource
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import SimpleITK as sitk

from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image, read_labels, write_image
from brainsegnet.volume import LabelMap, Volume

CPU = ("--device", "cpu", "--threads", 1)


@pytest.fixture(scope="session")
def plain(phantoms, tmp_path_factory):
    """The first two phantoms as `<case>/<sequence>.nii.gz`, in 32-bit floats."""
    folder = tmp_path_factory.mktemp("plain")
    for case in find_cases([phantoms])[:2]:
        (folder / case.name).mkdir()
        for name, path in case.images.items():
            volume = read_image(path)
            write_image(volume.with_array(volume.array.astype(np.float32)), folder / case.name / f"{name}.nii.gz")
        write_image(read_labels(case.lesion), folder / case.name / "lesion.nii.gz")
    return folder


@pytest.fixture
def data(plain, tmp_path):
    shutil.copytree(plain, tmp_path / "data")
    return tmp_path / "data"


def change(path, edit):
    volume = read_image(path)
    array = volume.array.copy()
    write_image(volume.with_array(edit(array)), path)


def put(value):
    def edit(array):
        array[array.shape[0] // 2, 20, 20] = value
        return array

    return lambda path: change(path, edit)


def fill(value):
    return lambda path: change(path, lambda array: np.full_like(array, value))


def shift(path):
    volume = read_image(path)
    affine = volume.affine.copy()
    affine[:3, 3] += 1
    write_image(Volume(volume.array, affine), path)


def crop(path):
    volume = read_image(path)
    write_image(Volume(volume.array[1:], volume.affine), path)


def join(path):
    image = sitk.ReadImage(str(path))
    sitk.WriteImage(sitk.JoinSeries([image, image]), str(path))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


UNREADABLE = {
    "4-D": (join, "is 4-D (2, 24, 40, 40), a 3-D image is due"),
    "truncated gzip": (truncate, "is cut short or damaged; fetch it again"),
    "cut header": (lambda path: path.write_bytes(path.read_bytes()[:12]), "is cut short or damaged; fetch it again"),
    "no bytes": (lambda path: path.write_bytes(b""), "is empty (0 bytes); fetch it again"),
    "not an image": (lambda path: path.write_text("<html>404</html>"), "is no image: its content does not fit"),
}
IMAGES = UNREADABLE | {
    "zero": (fill(0), "is 0 everywhere"),
    "constant": (fill(7), "is 7 everywhere"),
    "NaN": (put(np.nan), "holds 1 NaN or infinite values"),
    "infinity": (put(-np.inf), "holds 1 NaN or infinite values"),
    "other affine": (shift, "their affines differ by up to 1 mm"),
    "other shape": (crop, "is (23, 40, 40)"),
    "missing": (lambda path: path.unlink(), "has no t1c"),
}
LABELS = UNREADABLE | {
    "outside the task": (put(7), "label values [7] are outside task brats2015"),
    "negative": (lambda path: change(path, lambda array: array.astype(np.int16) - 1), "values from -1 to 3"),
    "fractions": (lambda path: change(path, lambda array: array.astype(np.float32) / 2), "fractions such as"),
    "other affine": (shift, "their affines differ by up to 1 mm"),
    "other shape": (crop, "is (23, 40, 40)"),
}
every_image = pytest.mark.parametrize(("spoil", "sentence"), IMAGES.values(), ids=IMAGES)
every_label_map = pytest.mark.parametrize(("spoil", "sentence"), LABELS.values(), ids=LABELS)


@every_image
def test_segment_refuses_a_bad_case(run, data, strict, tmp_path, spoil, sentence):
    spoil(data / "phantom0000" / "t1c.nii.gz")
    out = tmp_path / "out" / "a.nii.gz"
    ended = run("segment", data / "phantom0000", "--model", strict, "--out", out, "--no-register", *CPU)
    assert ended.code == 1 and sentence in ended.sentence
    assert "phantom0000" in ended.sentence and "t1c" in ended.sentence
    assert not (tmp_path / "out").exists()


@every_image
def test_segment_does_the_other_cases_and_reports_the_bad_one_at_the_end(
    run, left, data, strict, tmp_path, spoil, sentence
):
    spoil(data / "phantom0000" / "t1c.nii.gz")
    ended = run("segment", data, "--model", strict, "--out", tmp_path / "out", "--no-register", *CPU)
    told, count = ended.err.splitlines()
    assert ended.code == 1 and told.startswith("brainsegnet: ") and sentence in told
    assert count == "brainsegnet: 1 of 2 cases could not be done; 1 could"
    assert ended.out.startswith("phantom0001: whole ") and ended.out.count("\n") == 1
    assert left(tmp_path / "out") == ["phantom0001.json", "phantom0001.nii.gz"]


@every_image
def test_train_refuses_a_bad_image(run, quick, data, tmp_path, spoil, sentence):
    spoil(data / "phantom0001" / "t1c.nii.gz")
    out = tmp_path / "run"
    ended = run("train", data, "--task", "brats2015", "--out", out, "--steps", 1, "--sequences", "flair", "t1c")
    assert ended.code == 1 and sentence in ended.sentence
    assert "phantom0001" in ended.sentence and "t1c" in ended.sentence
    assert not out.exists()


@pytest.mark.parametrize("held_out", ["phantom0000", "phantom0001"])
@every_label_map
def test_train_refuses_a_bad_label_map(run, left, quick, data, tmp_path, spoil, sentence, held_out):
    spoil(data / "phantom0001" / "lesion.nii.gz")
    out = tmp_path / "run"
    ended = run("train", data, "--task", "brats2015", "--out", out, "--steps", 1, "--hold-out", held_out)
    assert ended.code == 1 and sentence in ended.sentence and "phantom0001" in ended.sentence
    assert not left(out)


@pytest.mark.parametrize("bad", ["prediction", "truth"])
@every_label_map
def test_evaluate_refuses_a_bad_label_map(run, left, data, tmp_path, spoil, sentence, bad):
    shutil.copy(data / "phantom0000" / "lesion.nii.gz", tmp_path / "phantom0000.nii.gz")
    spoil(tmp_path / "phantom0000.nii.gz" if bad == "prediction" else data / "phantom0000" / "lesion.nii.gz")
    scores = tmp_path / "scores"
    ended = run(
        "evaluate", tmp_path / "phantom0000.nii.gz", data / "phantom0000", "--task", "brats2015", "--out", scores
    )
    if spoil is crop and bad == "truth":
        sentence = "the truth is (23, 40, 40)"
    assert ended.code == 1 and sentence in ended.sentence and "phantom0000" in ended.sentence
    assert not left(scores)


def test_evaluate_scores_the_other_cases_and_reports_the_bad_one_at_the_end(run, left, data, tmp_path):
    (tmp_path / "found").mkdir()
    for name in ("phantom0000", "phantom0001"):
        shutil.copy(data / name / "lesion.nii.gz", tmp_path / "found" / f"{name}.nii.gz")
    put(9)(tmp_path / "found" / "phantom0000.nii.gz")
    ended = run("evaluate", tmp_path / "found", data, "--task", "brats2015", "--out", tmp_path / "scores")
    told, count = ended.err.splitlines()
    assert (
        ended.code == 1
        and "case phantom0000: label values [9]" in told
        and count.endswith("1 of 2 cases could not be done; 1 could")
    )
    assert "phantom0001" in ended.out and left(tmp_path / "scores") == ["scores.csv", "scores.json", "scores.md"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "nowhere", "--task", "brats2015", "--out", "out"),
        ("segment", "nowhere", "--model", "MODEL", "--out", "out"),
        ("evaluate", "nowhere", "nowhere", "--task", "brats2015", "--out", "out"),
        ("inspect", "nowhere"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_folder_that_is_not_there_is_told(run, left, strict, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    ended = run(*(strict if argument == "MODEL" else argument for argument in arguments))
    assert ended.code == 1 and ended.sentence.startswith("nowhere does not exist; name a")
    assert not left(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
@pytest.mark.parametrize("verb", ["train", "segment", "evaluate", "inspect"])
def test_a_folder_that_may_not_be_read_is_told(run, left, quick, data, strict, tmp_path, verb):
    more = {
        "train": ("--task", "brats2015", "--out", tmp_path / "out"),
        "segment": ("--model", strict, "--out", tmp_path / "out"),
        "evaluate": (tmp_path / "data", "--task", "brats2015", "--out", tmp_path / "out"),
        "inspect": (),
    }
    data.chmod(0)
    try:
        ended = run(verb, data, *more[verb])
        assert ended.code == 1 and "Permission denied" in ended.sentence
        assert not (tmp_path / "out").exists() or not left(tmp_path / "out")
    finally:
        data.chmod(0o700)


@pytest.mark.parametrize("verb", ["train", "segment", "evaluate", "simulate"])
def test_an_output_below_a_file_is_told(run, left, quick, data, strict, tmp_path, verb):
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "out"
    arguments = {
        "train": (data, "--task", "brats2015", "--out", out, "--steps", 1),
        "segment": (data, "--model", strict, "--out", out),
        "evaluate": (data / "phantom0000" / "lesion.nii.gz", data / "phantom0000", "--task", "brats2015", "--out", out),
        "simulate": (out, "--cases", 1, "--shape", 24, 40, 40),
    }
    before = left(tmp_path)
    ended = run(verb, *arguments[verb])
    assert ended.code == 1 and ended.sentence.endswith("cannot be written: Not a directory")
    assert left(tmp_path) == before and (tmp_path / "file").read_text() == "mine"


@contextmanager
def full_disk(free):
    """A disk on which no file can grow beyond so many bytes; Python ignores SIGXFSZ, so that writing fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("free", [0, 100, 3000])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_segment_says_that_the_disk_is_full(run, left, data, strict, tmp_path, free, suffix):
    out = tmp_path / "out" / f"a{suffix}"
    with full_disk(free):
        ended = run("segment", data / "phantom0000", "--model", strict, "--out", out, *CPU)
    assert ended.code == 1 and f"a{suffix} cannot be written" in ended.sentence
    assert not left(tmp_path / "out")


@pytest.mark.parametrize("free", [0, 100, 1000, 5000])
def test_train_says_that_the_disk_is_full(run, left, quick, data, tmp_path, free):
    with full_disk(free):
        ended = run("train", data, "--task", "brats2015", "--out", tmp_path / "out", "--steps", 9)
    last = ended.err.splitlines()[-1]
    assert ended.code == 1 and last.startswith("brainsegnet: ") and "cannot be written" in last, ended.err
    assert "Traceback" not in ended.err and ended.err.count("brainsegnet: ") == 1
    assert not [name for name in left(tmp_path / "out") if "safetensors" in name or name.startswith(".")]


def test_evaluate_and_grow_say_that_the_disk_is_full(run, left, data, tmp_path):
    labels = data / "phantom0000" / "lesion.nii.gz"
    with full_disk(100):
        ended = run("evaluate", labels, labels, "--task", "brats2015", "--out", tmp_path / "scores")
    assert ended.code == 1 and "scores.csv cannot be written: File too large" in ended.sentence
    with full_disk(100):
        ended = run("simulate", tmp_path / "simulated", "--cases", 1, "--shape", 24, 40, 40)
    assert ended.code == 1 and "cannot be written" in ended.sentence
    assert not left(tmp_path / "scores") and not left(tmp_path / "simulated")


def test_a_table_in_place_of_predictions_is_told(run, data, tmp_path):
    (tmp_path / "cases.csv").write_text("case,sequence,path\n")
    ended = run("evaluate", tmp_path / "cases.csv", data, "--task", "brats2015")
    assert ended.code == 1 and "cases.csv is no image (.nii.gz, " in ended.sentence


def test_labels_that_no_task_knows_are_told_in_inspect_and_evaluate_alike(run, data):
    labels = LabelMap(np.full((3, 4, 5), 200, np.uint8), np.eye(4))
    write_image(labels, data / "a.nii.gz")
    assert run("inspect", data / "a.nii.gz").code == 0
    assert "[200] are outside" in run("evaluate", data / "a.nii.gz", data / "a.nii.gz", "--task", "brats2015").sentence
