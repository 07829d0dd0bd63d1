"""The page of a result as a file: one file that asks for nothing, in which text stays text; and how it is refused."""

import json
import re
from importlib.resources import files

import numpy as np
import pytest

from brainsegnet.errors import BrainSegNetError, ImageError, LabelError, OutputError
from brainsegnet.inference.postprocessing import measure_volumes
from brainsegnet.inference.segmentation import Segmentation
from brainsegnet.io.images import describe_file, write_image
from brainsegnet.model.card import Architecture, Card, Input
from brainsegnet.plotting.result import view
from brainsegnet.plotting.viewer import Shown, show
from brainsegnet.preprocessing.alignment import resample
from brainsegnet.preprocessing.geometry import Turn, turn
from brainsegnet.task import BRATS2021
from brainsegnet.volume import Case, LabelMap, Volume

NASTY = "</script><img src=x onerror=alert(1)>&\"'{{ 7 * 7 }}"
AFFINE = np.diag([2.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]]


def make_shown(**changes):
    rng = np.random.default_rng(2)
    image = np.zeros((8, 20, 16), np.float32)
    image[1:-1, 3:-3, 3:-3] = rng.normal(500, 90, (6, 14, 10))
    labels = np.zeros(image.shape, np.uint8)
    labels[3:5, 6:10, 5:8], labels[3, 7, 6] = 2, 4
    images = {"flair": Volume(image, AFFINE), "t1c": Volume(image[::-1].copy(), AFFINE)}
    return Shown(**{"name": "pat1", "labels": LabelMap(labels, AFFINE), "task": BRATS2021, "images": images} | changes)


def meta_of(html):
    return json.loads(re.search(r'id="meta">(.*?)</script>', html, re.DOTALL)[1])


def test_the_script_is_small_and_everything_is_in_the_page():
    assert len(files("brainsegnet.plotting").joinpath("viewer.js").read_bytes()) <= 20_000
    html = show(make_shown()).html.replace("link.href = URL.createObjectURL(", "").replace("URL.revokeObjectURL(", "")
    assert not re.findall(r"""(?:src|href)\s*=|https?:|url\(|@import|fetch\(|XMLHttp|webgl""", html, re.IGNORECASE)
    assert "default-src 'none'" in html


def test_a_name_with_html_in_it_stays_text():
    note = {"warnings": [NASTY], "model": {"name": NASTY}, "sequences": {"used": [NASTY], "absent": [NASTY]}}
    shown = make_shown(name=NASTY, note=note, file=(NASTY, b"1"), warnings=("odd",))
    html = show(Shown(**vars(shown) | {"images": {NASTY: shown.images["flair"]}})).html
    assert "<img" not in html and "49" not in re.search(r"<title>.*?</title>", html)[0]
    assert html.count("</script>") == html.count("<script")
    assert meta_of(html)["case"] == NASTY and meta_of(html)["file"] == NASTY


def test_warnings_stand_first():
    moved = {"t1c": {"how": "resampled", "warning": "moved far"}}
    page = show(make_shown(note={"warnings": ["unlike"], "geometry": {"moved": moved}}, warnings=("absent",)))
    assert page.warnings == ("unlike", "t1c: moved far", "absent")
    assert page.html.index("unlike") < page.html.index("<canvas") and "3 warnings" in page.html


def test_volumes_intervals_and_scores_are_those_of_the_result():
    shown = make_shown()
    truth = shown.labels.with_array(np.where(shown.labels.array == 4, 2, shown.labels.array))
    ends = {"least_ml": 1.25, "most_ml": 3.5, "coverage": 0.8, "cases": 11}
    note = {"uncertainty": {"volume_intervals": {"whole": ends}}, "validation": {"those used": {"whole": 0.812}}}
    html = show(make_shown(note=note)).html
    row = re.search(r"<tr><td>whole</td>.*?</tr>", html, re.DOTALL)[0]
    whole_ml = np.count_nonzero(shown.labels.array) * 0.002
    assert f"<td>{whole_ml:.1f}</td>" in row and re.search(r"1\.2.3\.5", row) and "0.81" in row
    html = show(make_shown(truth=truth)).html
    assert "<td>1.00</td>" in re.search(r"<tr><td>whole</td>.*?</tr>", html, re.DOTALL)[0]
    assert "<td>0.00</td>" in re.search(r"<tr><td>enhancing</td>.*?</tr>", html, re.DOTALL)[0]


def spoil(content, odd):
    """Copies of a JSON, each with another field replaced."""
    for name, value in content.items():
        yield content | {name: odd}
        if isinstance(value, dict):
            yield from (content | {name: spoilt} for spoilt in spoil(value, odd))


@pytest.mark.parametrize("odd", [3, "x", [None], {"a": [1]}, None])
def test_any_json_gives_a_page_or_a_sentence(on_disk, odd):
    note = {
        "case": "pat1",
        "task": "mine",
        "convention": {"2": "odd", "4": "bad"},
        "probabilities": {"odd": "flair.nii.gz"},
        "inputs": {"flair": {"path": "flair.nii.gz", "part": 0, **describe_file(on_disk / "flair.nii.gz", True)}},
        "geometry": {"moved": {"flair": {"how": "registered", "matrix_ras": np.eye(4).tolist(), "warning": "far"}}},
        "uncertainty": {"entropy": "", "volume_intervals": {"all": {"least_ml": 1.0, "most_ml": 2.0}}},
        "validation": {"those used": {"all": 0.5}},
        "sequences": {"used": ["flair"], "absent": ["t1"]},
        "model": {"name": "tiny", "folder": "nowhere"},
        "warnings": ["odd"],
    }
    for number, spoilt in enumerate((note, *spoil(note, odd))):
        (on_disk / "labels.json").write_text(json.dumps(spoilt))
        try:
            view(on_disk / "labels.nii.gz", on_disk / "v.html")
        except BrainSegNetError as error:
            assert number and re.search("--images|segment it again|fetch it again", str(error))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 5, 6), np.float32),
        np.full((4, 5, 6), 7, np.int16),
        np.full((4, 5, 6), np.nan),
        np.ones((1, 1, 1)),
        np.arange(1000).reshape(1, 25, 40) > 500,
        np.where(np.arange(4000).reshape(10, 20, 20) % 7, np.inf, 1e30),
        np.arange(4000).reshape(10, 20, 20) * 1e-30,
    ],
    ids=["zeros", "constant", "nan", "voxel", "truths", "infinite", "tiny"],
)
@pytest.mark.filterwarnings("error")
def test_any_image_gives_a_page(image):
    labels = LabelMap(np.zeros(image.shape, np.uint8), AFFINE)
    page = show(Shown("pat1", labels, BRATS2021, {"flair": Volume(image, AFFINE)}))
    assert np.prod(meta_of(page.html)["shape"]) <= image.size


def test_a_result_in_memory_shows_itself():
    shown = make_shown()
    result = Segmentation(
        case=Case("pat1", shown.images, shown.labels),
        card=Card(
            name="tiny",
            task=BRATS2021,
            input=Input(sequences=("flair", "t1c")),
            network=Architecture(widths=(4, 4, 8, 8), refined=8),
        ),
        labels=shown.labels,
        used=("flair", "t1c"),
        absent=("t1", "t2"),
        volumes_ml=measure_volumes(shown.labels, BRATS2021),
        entropy=shown.images["flair"].with_array(np.full((8, 20, 16), 0.5, np.float32)),
        warnings=("odd",),
    )
    page = result.view()
    assert page.warnings == ("odd",) and [one["name"] for one in meta_of(page.html)["maps"]] == ["entropy"]
    assert "Found by the model tiny in FLAIR, T1c, without T1, T2." in page.html and "Dice to the truth" in page.html


def test_an_empty_label_map_says_so():
    shown = make_shown()
    html = show(make_shown(labels=shown.labels.with_array(np.zeros_like(shown.labels.array)))).html
    assert "<h2>No lesions</h2>" in html and meta_of(html)["lesions"] == []


def test_images_truth_and_maps_may_lie_on_other_grids():
    shown = make_shown()
    how = Turn((2, 0, 1), (True, False, True))
    coarse = Volume(np.full((4, 10, 8), 300.0, np.float32), AFFINE @ np.diag([2.0, 2.0, 2.0, 1.0]))
    other = show(make_shown(images={"flair": turn(shown.images["flair"], how), "t1c": coarse}))
    same = show(make_shown(images={"flair": shown.images["flair"], "t1c": coarse}))
    assert other.html == same.html
    assert [image["resampled"] for image in meta_of(same.html)["images"]] == [False, True]


def test_a_truth_on_other_voxels_and_a_correction_are_told():
    shown = make_shown()
    how = Turn((2, 0, 1), (True, False, True))
    same = show(make_shown(truth=turn(shown.labels, how)))
    moved = LabelMap(shown.labels.array, shown.labels.affine + np.eye(4)[:, 3:] @ np.array([[0, 0, 0, 0]]))
    moved.affine[:3, 3] += 0.5
    other = show(make_shown(truth=moved))
    assert not same.warnings and len(other.warnings) == 1 and "other voxels" in other.warnings[0]
    note = {"model": {"name": "tiny"}, "corrected": True}
    assert "Found by the model tiny, corrected by hand" in show(make_shown(note=note)).html


def test_what_was_registered_is_registered_again():
    """By the matrix of the JSON: millimetres to the right, front and top, from the grid of the labels to the image."""
    shown = make_shown()
    moved = Volume(shown.images["t1c"].array, AFFINE + np.eye(4)[:, 3:] @ np.array([[0, 0, 0, 0]]))
    moved.affine[:3, 3] = (3.0, -2.0, 4.0)
    matrix = np.eye(4)
    matrix[:3, 3] = (-3.0, 2.0, 4.0)
    motions = {"t1c": {"how": "registered", "matrix_ras": matrix.tolist()}}
    found = show(make_shown(images={"flair": shown.images["flair"], "t1c": moved}, motions=motions)).html
    straight = show(shown).html
    data = [re.search(r'id="data-image1">([^<]*)<', html)[1] for html in (found, straight)]
    assert data[0] == data[1]
    assert [image["resampled"] for image in meta_of(found)["images"]] == [False, True]
    aligned = show(make_shown(note={"geometry": {"moved": motions}})).html
    assert re.search(r'id="data-image1">([^<]*)<', aligned)[1] == data[1], "what is aligned is moved no more"
    unmoved = resample(moved, shown.labels).array
    assert not np.array_equal(unmoved, shown.images["t1c"].array)


def test_the_same_result_gives_the_same_page():
    assert show(make_shown()).html == show(make_shown()).html


def test_a_notebook_shows_the_page_in_a_frame():
    html = show(make_shown())._repr_html_()
    assert html.startswith("<iframe") and html.count("<") == 2 and html.endswith("</iframe>")


@pytest.fixture
def on_disk(tmp_path):
    shown = make_shown()
    write_image(shown.images["flair"], tmp_path / "flair.nii.gz")
    write_image(shown.labels, tmp_path / "labels.nii.gz")
    return tmp_path


def test_a_label_map_without_a_json_is_shown_with_the_images_named(on_disk):
    page = view(on_disk / "labels.nii.gz", on_disk / "v.html", [on_disk / "flair.nii.gz"])
    assert (on_disk / "v.html").read_text() == page.html
    assert [label["name"] for label in meta_of(page.html)["labels"]] == ["label 2", "label 4"]
    page = view(on_disk / "labels.nii.gz", on_disk / "v.html", [on_disk / "flair.nii.gz"], task="brats2021")
    assert [label["name"] for label in meta_of(page.html)["labels"]][2] == "enhancing"


def test_what_cannot_be_shown_is_refused_and_nothing_is_written(on_disk):
    labels, flair = on_disk / "labels.nii.gz", on_disk / "flair.nii.gz"
    with pytest.raises(OutputError, match="html"):
        view(labels, on_disk / "v.txt", [flair])
    with pytest.raises(ImageError, match="--images"):
        view(labels, on_disk / "v.html")
    with pytest.raises(LabelError, match="3"):
        write_image(LabelMap(np.full((8, 20, 16), 3, np.uint8), AFFINE), on_disk / "truth.nii.gz")
        view(labels, on_disk / "v.html", [flair], on_disk / "truth.nii.gz", "brats2021")
    with pytest.raises(BrainSegNetError, match="does not exist"):
        view(on_disk / "none.nii.gz", on_disk / "v.html", [flair])
    with pytest.raises(ImageError, match="case pat1: there is no image to show"):
        show(make_shown(images={}))
    assert sorted(path.name for path in on_disk.iterdir()) == ["flair.nii.gz", "labels.nii.gz", "truth.nii.gz"]
