"""`brainsegnet view` on what `segment` wrote: the page, and how it is refused in one sentence."""

import re
import shutil

import pytest

from brainsegnet.io.cases import find_cases


@pytest.fixture
def result(segmented, phantoms, tmp_path):
    """A copy of a result and its images, in places of the same relation."""
    shutil.copytree(segmented, tmp_path / "results" / "model")
    shutil.copytree(phantoms, tmp_path / "data" / "phantoms")
    return tmp_path / "results" / "model" / "phantom0001.nii.gz"


def test_view_finds_images_and_maps_and_writes_one_page(run, segmented, tmp_path):
    ended = run("view", segmented / "phantom0001.nii.gz", "--out", tmp_path / "v.html")
    assert ended.code == 0 and f"done; open {tmp_path / 'v.html'}" in ended.out
    html = (tmp_path / "v.html").read_text()
    assert [id for id in re.findall(r'id="data-(\w+)"', html) if id.startswith("image")] == [
        f"image{k}" for k in range(4)
    ]
    assert "any lesion" in html and "phantom0001" in html
    assert [path.name for path in tmp_path.iterdir()] == ["v.html"]


def test_view_takes_several_images_and_a_truth(run, segmented, phantoms, tmp_path):
    case = find_cases([phantoms])[1]
    flags = ("--images", *case.images.values(), "--truth", case.lesion)
    assert run("view", segmented / "phantom0001.nii.gz", *flags, "--out", tmp_path / "v.html").code == 0
    assert "Dice to the truth" in (tmp_path / "v.html").read_text()


def test_a_page_that_exists_is_replaced_only_if_told(run, segmented, tmp_path):
    (tmp_path / "v.html").write_text("mine")
    ended = run("view", segmented / "phantom0001.nii.gz", "--out", tmp_path / "v.html")
    assert "is there already; add --overwrite" in ended.sentence and (tmp_path / "v.html").read_text() == "mine"
    assert run("view", segmented / "phantom0001.nii.gz", "--out", tmp_path / "v.html", "--overwrite").code == 0


def test_a_changed_image_is_one_sentence(run, result, phantoms, tmp_path):
    flair = find_cases([phantoms])[1].images["flair"]
    copied = tmp_path / "data" / "phantoms" / flair.relative_to(phantoms)
    shutil.copy(find_cases([phantoms])[0].images["flair"], copied)
    folder = tmp_path / "data"
    ended = run("view", result, "--images", folder, "--out", tmp_path / "v.html")
    assert re.match(r"case phantom0001: flair .*--images", ended.sentence) and not (tmp_path / "v.html").exists()
    others = [path for name, path in find_cases([phantoms])[1].images.items() if name != "flair"]
    ended = run("view", result, "--images", copied, *others, "--out", tmp_path / "v.html")
    assert ended.code == 0 and "flair has changed since it was segmented" in ended.err
