"""The in-memory door: every form of input gives the labels of `segment`, in threads, after pickling, and on request."""

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK

from brainsegnet.errors import BrainSegNetError, GridMismatch, ImageError, MissingSequence
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference import segmenter as segmenter_module
from brainsegnet.inference.predict import compute
from brainsegnet.inference.segmenter import Segmenter, to_volume
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image, read_labels
from brainsegnet.pipeline.segment import segment
from brainsegnet.volume import Volume


@pytest.fixture
def images(phantoms):
    """Sequence to file of a phantom."""
    return next(case.images for case in find_cases([phantoms]) if case.name == "phantom0002")


@pytest.fixture
def segmenter(trained):
    return Segmenter(trained, device="cpu", threads=1)


@pytest.fixture
def expected(phantoms, trained, tmp_path):
    (done,) = segment(
        phantoms / "phantom0002", trained, tmp_path / "a.nii.gz", SegmentOptions(device="cpu", threads=1)
    ).done
    return read_labels(done.path)


def as_nibabel(volume):
    """By hand: (I, J, K) and RAS+ of an array (D, H, W) and LPS+."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine[:, [2, 1, 0, 3]]
    return nibabel.Nifti1Image(volume.array.T, affine)


FORMS = {
    "volume": read_image,
    "path": lambda path: path,
    "string": str,
    "pair": lambda path: (lambda image: (np.asarray(image.dataobj), image.affine))(as_nibabel(read_image(path))),
    "nibabel": lambda path: as_nibabel(read_image(path)),
    "sitk": lambda path: SimpleITK.ReadImage(str(path)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_input_gives_the_labels_that_segment_writes(segmenter, images, expected, form):
    found = segmenter({name: FORMS[form](path) for name, path in images.items()}, "pat1")
    np.testing.assert_array_equal(found.labels.array, expected.array)
    assert found.labels.on_grid_of(expected) and found.name == "pat1" and found.used == ("flair", "t1", "t1c", "t2")
    assert found.volumes_ml["regions"]["whole"] > 0 and found.probabilities is None


def test_results_go_back_into_the_frame_of_the_input(segmenter, images, expected):
    inputs = {name: as_nibabel(read_image(path)) for name, path in images.items()}
    found = segmenter(inputs)
    image = found.to_nibabel()
    assert image.shape == inputs["flair"].shape
    np.testing.assert_allclose(image.affine, inputs["flair"].affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(image.dataobj), expected.array.T)
    there = SimpleITK.ReadImage(str(images["flair"]))
    back = found.to_sitk()
    assert back.GetSize() == there.GetSize()
    np.testing.assert_allclose(back.GetOrigin(), there.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(back.GetDirection(), there.GetDirection(), atol=1e-6)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(back), expected.array)


def test_many_threads_share_one_model_and_get_what_one_gets(segmenter, images, expected, monkeypatch):
    loads = []
    opened = segmenter.open()
    monkeypatch.setattr("brainsegnet.inference.segmenter.open_engine", lambda *a: loads.append(a))
    volumes = {name: read_image(path) for name, path in images.items()}
    parts = [volumes, {"flair": volumes["flair"]}] * 4
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(segmenter, parts))
    alone = segmenter({"flair": volumes["flair"]})
    for found in results[::2]:
        np.testing.assert_array_equal(found.labels.array, expected.array)
    for found in results[1::2]:
        np.testing.assert_array_equal(found.labels.array, alone.labels.array)
    assert not loads and segmenter.open() is opened


def test_one_case_at_a_time_is_in_the_network(segmenter, images, monkeypatch):
    inside, most = [], []

    def watched(*arguments):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        try:
            return compute(*arguments)
        finally:
            inside.pop()

    monkeypatch.setattr(segmenter_module, "compute", watched)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(segmenter, [images] * 6))
    assert most == [1] * 6


def test_a_pickled_segmenter_gives_the_same(segmenter, images, expected):
    segmenter(images)
    copy = pickle.loads(pickle.dumps(segmenter))
    assert copy.options == segmenter.options
    np.testing.assert_array_equal(copy(images).labels.array, expected.array)


def test_a_closed_segmenter_says_so(trained, images):
    with Segmenter(trained, device="cpu", threads=1) as segmenter:
        segmenter(images)
    with pytest.raises(BrainSegNetError, match="is closed; make another one"):
        segmenter(images)


def test_nothing_is_written_unless_asked_and_then_what_segment_writes(segmenter, images, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    found = segmenter(images, "pat1")
    assert not list((tmp_path / "empty").iterdir())
    report = found.save(str(tmp_path / "out" / "found.nii.gz"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["found.json", "found.nii.gz"]
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "found.nii.gz").array, found.labels.array)
    assert report["case"] == "pat1" and set(report["seconds"]) == {"align", "brain", "prepare", "network", "write"}


def test_tissues_named_like_places_are_written_beside_the_labels(segmenter, images, tmp_path):
    result = segmenter(images)
    (tmp_path / "in").mkdir()
    names = ("../../up", "a/b", "a b", "A+B", "..")
    maps = {name: result.labels.with_array(np.full(result.labels.shape, i, np.uint8)) for i, name in enumerate(names)}
    report = replace(result, probabilities=maps).save(tmp_path / "in" / "x.nii.gz")
    assert list(report["probabilities"].values()) == [
        f"x_{part}.nii.gz" for part in ("up", "a-b", "a-b-2", "A-B-3", "map")
    ]
    for i, name in enumerate(report["probabilities"].values()):
        assert read_image(tmp_path / "in" / name).array.max() == i
    assert [path.name for path in tmp_path.iterdir()] == ["in"] and len(list((tmp_path / "in").iterdir())) == 7


def test_what_is_odd_about_several_files_is_said_once(segmenter, images):
    volumes = {name: replace(read_image(path), warnings=("it is odd",)) for name, path in images.items()}
    volumes["t2"] = replace(volumes["t2"], warnings=("it is odd", "it is old"))
    assert segmenter(volumes).warnings[:2] == ("flair, t1, t1c, t2: it is odd", "t2: it is old")


def test_maps_come_on_request(trained, images):
    found = Segmenter(trained, SegmentOptions(threads=1), probabilities=True, uncertainty=True)(images)
    stack = np.stack([volume.array for volume in found.probabilities.values()])
    np.testing.assert_allclose(stack.sum(0), 1, atol=1e-5)
    assert found.entropy.on_grid_of(found.labels) and set(found.intervals) == set(found.volumes_ml["regions"])


def test_a_result_is_shown_in_one_line(segmenter, images):
    found = segmenter(images, name="pat1")
    whole = next(iter(found.volumes_ml["regions"].values()))
    assert repr(found).startswith("Segmentation(pat1, model ") and f"{whole:.1f} ml" in repr(found)
    assert "\n" not in repr(found) + repr(found.labels) and "array" not in repr(found.labels)


def test_a_notebook_shows_picture_volumes_and_warnings_as_text(segmenter, images):
    from dataclasses import replace

    found = replace(segmenter(images, "<b>pat</b>"), warnings=("a <script> & more",))
    page = found._repr_html_()
    assert "data:image/png;base64," in page and "whole" in page and " ml</td>" in page
    assert "<script>" not in page and "&lt;script&gt; &amp; more" in page and "<b>pat" not in page


def test_another_grid_is_refused_or_brought_over(trained, images):
    volumes = {name: read_image(path) for name, path in images.items()}
    t2 = volumes["t2"]
    volumes["t2"] = Volume(t2.array[:, ::2], t2.affine @ np.diag([1, 2, 1, 1.0]))
    with pytest.raises(GridMismatch, match="case pat1: t2 is"):
        Segmenter(trained, register=False)(volumes, "pat1")
    found = Segmenter(trained, resample=True)(volumes, "pat1")
    assert found.labels.on_grid_of(volumes["flair"])
    assert found.report()["geometry"]["moved"] == {"t2": {"how": "resampled"}}


def test_unknown_sequences_are_ignored_and_a_case_without_known_ones_is_refused(segmenter, images, expected):
    volumes = {name: read_image(path) for name, path in images.items()}
    found = segmenter({"adc": volumes["t1"], **volumes})
    np.testing.assert_array_equal(found.labels.array, expected.array)
    with pytest.raises(MissingSequence, match="case case has no flair, t1, t1c, t2, only adc"):
        segmenter({"adc": volumes["t1"]})
    with pytest.raises(MissingSequence, match="case pat2 has no image; give one or more of flair, t1, t1c, t2"):
        segmenter({}, "pat2")


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((3, 3, 3)), "case pat1: flair is a ndarray; give a Volume, a nibabel or SimpleITK image, a pair"),
        ((np.zeros((3, 3)), np.eye(4)), r"case pat1: flair is 2-D \(3, 3\), a 3-D image is due"),
        ((np.zeros((3, 3, 3)), np.eye(3)), r"case pat1: flair has an affine of shape \(3, 3\); give one of \(4, 4\)"),
        ((np.zeros((3, 3, 3)), np.eye(4) + np.eye(4, k=1)), "case pat1: flair has axes that are not at right angles"),
        ("nowhere.nii.gz", "nowhere.nii.gz does not exist"),
    ],
)
def test_what_is_no_image_is_refused(segmenter, image, words):
    with pytest.raises(ImageError, match=words):
        segmenter({"flair": image}, "pat1")


def test_options_are_fields_of_segment_options_and_no_others(trained):
    assert Segmenter(trained, SegmentOptions(threads=3), tta=True).options == SegmentOptions(threads=3, tta=True)
    with pytest.raises(TypeError, match="mirror"):
        Segmenter(trained, mirror=True)


def test_a_pair_is_read_as_nibabel_has_it():
    array = np.arange(24.0).reshape(2, 3, 4)
    affine = np.array([[-2.0, 0, 0, 10], [0, 3, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]])
    volume = to_volume((array, affine))
    for index in np.ndindex(array.shape):
        right, anterior, superior = (affine @ (*index, 1))[:3]
        d, h, w = index[::-1]
        np.testing.assert_allclose(volume.affine @ (d, h, w, 1), (-right, -anterior, superior, 1))
        assert volume.array[d, h, w] == array[index]
