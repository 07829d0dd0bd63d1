"""The report on one patient: what it says, that it names nobody unless asked, and that it holds all it shows."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from brainsegnet.anatomy.atlas import load_atlas
from brainsegnet.cli.app import app
from brainsegnet.errors import ImageError, OutputError
from brainsegnet.inference import SegmentOptions
from brainsegnet.io.images import describe_file, write_image
from brainsegnet.reporting import ReportOptions
from brainsegnet.reporting.patient import write_patient_report
from brainsegnet.reporting.provenance import describe_commands
from brainsegnet.volume import LabelMap, Volume
from browser import Browser, find_browser

EVIL = "Doe_<script>alert(1)</script>&Jane"
IDENTITY = r"doe[^s]|jane|clinic|alert|gone"


def lay_down(folder, name="Doe_Jane", lesion=True, **more):
    """A result on disk: a brain of two sequences, an enhancing lesion with oedema at the left, and a JSON."""
    atlas = load_atlas()
    brain, affine = atlas.brain.array > 0.5, atlas.brain.affine
    rng, labels = np.random.default_rng(3), np.zeros(brain.shape, np.uint8)
    index = np.indices(brain.shape).reshape(3, -1)
    x, y, z = (affine[:3, :3] @ index + affine[:3, 3:]).reshape(3, *brain.shape)
    near = np.sqrt((x - 40) ** 2 + (y + 5) ** 2 + (z - 25) ** 2)
    if lesion:
        labels[brain & (near < 25)], labels[brain & (near < 15)] = 2, 4
    images = {}
    home = folder / "Clinic" / "Doe_Jane scans"
    home.mkdir(parents=True)
    for sequence, gain in (("flair", 300), ("t1c", 500)):
        image = np.where(brain, 200 + gain * (labels > 0) + rng.normal(0, 20, brain.shape), 0).astype(np.int16)
        images[sequence] = home / f"Doe_Jane_{sequence}.nii.gz"
        write_image(Volume(image, affine), images[sequence])
    result = folder / "out" / "result.nii.gz"
    result.parent.mkdir()
    write_image(LabelMap(labels, affine), result)
    note = {
        "case": name,
        "labels": result.name,
        "task": "brats2021",
        "convention": {"1": "necrosis + non-enhancing", "2": "oedema", "4": "enhancing"},
        "sequences": {"used": ["flair", "t1c"], "absent": ["t1"]},
        "geometry": {"grid": "flair", "spacing_mm": [2, 2, 2], "moved": {}},
        "brain": {"how": "as given", "skull": {"flair": "stripped", "t1c": "stripped"}},
        "inputs": {
            sequence: {"path": f"../Clinic/Doe_Jane scans/{path.name}", "series": f"Doe Jane {sequence} tra"}
            | describe_file(path, content=True)
            for sequence, path in images.items()
        },
        "uncertainty": {"volume_intervals": {"whole": {"least_ml": 60, "most_ml": 71, "coverage": 0.909, "cases": 11}}},
        "validation": {"those used": {"whole": 0.81, "core": 0.6, "enhancing": 0.47}},
        "options": SegmentOptions().to_json() | {"spacing": "keep", "register": False},
        "model": {"name": "tumour", "folder": "/gone/Doe_Jane/tumour", "sha256": "0" * 64},
        "warnings": [f"case {name}: {images['flair']} looks odd, as Doe_Jane_flair.nii.gz does"],
        **more,
    }
    (result.parent / "result.json").write_text(json.dumps(note))
    return result


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return lay_down(tmp_path_factory.mktemp("patient"), EVIL)


@pytest.fixture(scope="module")
def page(result):
    write_patient_report(result, result.with_suffix(".html"))
    return result.with_suffix(".html").read_text(encoding="utf-8")


class Texts(HTMLParser):
    """Elements, addresses, and the text that is seen."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.addresses, self.text = set(), [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action") and value]

    def handle_data(self, data):
        self.text += f"{data} "


def test_the_page_tells_where_how_large_and_how_sure(page):
    text = " ".join(Texts(page).text.split())
    assert (
        "Left cerebrum" in text
        and re.search("3[0-2] \N{MULTIPLICATION SIGN} (29|30) mm", text)
        and "measurable (RANO)" in text
    )
    assert "Dice 0.47" in text and "80 % interval 60.0 to 71.0 ml" in text and "in 10 of 11 cases" in text
    assert "T1c, axial" in text and "FLAIR, T1c; without T1" in text
    assert text.index("Warning") < text.index("Where")
    assert "Research software, not a medical device" in text


def test_the_volumes_are_those_of_the_label_map(page, result):
    from brainsegnet.io.images import read_labels

    labels = read_labels(result)
    whole, enhancing = (np.count_nonzero(np.isin(labels.array, values)) * 0.008 for values in ((2, 4), (4,)))
    assert f"<td>{whole:.1f}</td>" in page and f"<td>{enhancing:.1f}</td>" in page


def test_the_page_holds_all_it_shows_and_runs_nothing(page):
    found = Texts(page)
    assert not found.tags & {"script", "link", "iframe", "object", "form"}
    assert found.addresses and all(address.startswith("data:image/png;base64,") for address in found.addresses)
    assert "url(" not in page


def test_nobody_is_named(page):
    shown = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.findall(IDENTITY, shown.casefold())
    assert "case [case]: [file] looks odd, as flair does" in page
    assert re.search(r"<h1>Case [0-9a-f]{8}</h1>", page)


def test_a_name_is_shown_on_request_and_stays_text(result, tmp_path):
    write_patient_report(result, tmp_path / "named.html", ReportOptions(report=True, identify=True))
    page = (tmp_path / "named.html").read_text(encoding="utf-8")
    assert "<h1>Doe_&lt;script&gt;alert(1)&lt;/script&gt;&amp;Jane</h1>" in page
    assert "script" not in Texts(page).tags and "Doe Jane t1c tra" in page


def test_a_corrected_result_says_so(tmp_path):
    result = lay_down(tmp_path, corrected=True, warnings=[])
    write_patient_report(result, tmp_path / "c.html")
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "The label map was corrected by hand." in page and "brainsegnet measure MASK" in page
    assert "80 % interval, ml" not in page and "Dice on unseen cases" not in page


def test_a_folder_named_out_does_not_change_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = lay_down(tmp_path).relative_to(tmp_path)
    write_patient_report(result, tmp_path / "p.html")
    assert "--out result.nii.gz" in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_nothing_found_is_said(tmp_path):
    result = lay_down(tmp_path, lesion=False, warnings=[])
    write_patient_report(result, tmp_path / "none.html")
    text = Texts((tmp_path / "none.html").read_text(encoding="utf-8")).text
    assert "None found" in text and "No lesion was found." in text and "Warning" not in text


def test_where_no_brain_is_found_no_place_is_told(tmp_path, monkeypatch):
    from brainsegnet.anatomy import atlas

    monkeypatch.setattr(atlas, "LEAST_AGREEMENT", 1.01)
    write_patient_report(lay_down(tmp_path), tmp_path / "p.html")
    text = Texts((tmp_path / "p.html").read_text(encoding="utf-8")).text
    assert "The places of the lesions are not told" in text and "Place not known" in text


def test_a_result_whose_images_are_gone_writes_no_page(tmp_path):
    result = lay_down(tmp_path)
    for image in (tmp_path / "Clinic").rglob("*.nii.gz"):
        image.unlink()
    with pytest.raises(ImageError, match="name the images, or their folder, with --images"):
        write_patient_report(result, tmp_path / "p.html")
    with pytest.raises(OutputError, match=r"its name must end in one of \.html"):
        write_patient_report(result, tmp_path / "p.pdf")
    assert not list(tmp_path.glob("*.html"))


def test_a_page_is_written_where_the_images_were_moved(tmp_path):
    result = lay_down(tmp_path)
    (tmp_path / "Clinic").rename(tmp_path / "moved")
    write_patient_report(result, tmp_path / "p.html", images=[tmp_path / "moved"])
    assert (tmp_path / "p.html").exists()


def test_a_label_map_without_a_json_names_nobody_either(tmp_path):
    result = lay_down(tmp_path)
    result.with_name("result.json").unlink()
    images = sorted((tmp_path / "Clinic").rglob("*.nii.gz"))
    write_patient_report(result, tmp_path / "p.html", images=images)
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "IMAGE 1, axial" in page
    assert not re.findall(IDENTITY, re.sub(r"base64,[A-Za-z0-9+/=]+", "", page).casefold())


@pytest.mark.parametrize(
    "wrong",
    [
        {"uncertainty": 7, "validation": [1], "model": "x", "sequences": None, "dropped": "no", "brain": 3},
        {"geometry": {"grid": 5, "spacing_mm": "wide"}},
        {"geometry": {"moved": {"t1c": {"how": "registered"}}}},
        {"options": [], "warnings": {"a": 1}, "notes": 5, "corrected": "yes"},
        {"uncertainty": {"volume_intervals": {"whole": {"least_ml": "a", "cases": "b"}}}, "inputs": {"flair": 7}},
    ],
)
def test_a_damaged_json_gives_a_page_or_one_sentence(tmp_path, wrong):
    result = lay_down(tmp_path, **wrong)
    try:
        write_patient_report(result, tmp_path / "p.html", images=[tmp_path / "Clinic"])
    except ImageError as error:
        assert str(error).count("\n") == 0 and not (tmp_path / "p.html").exists()
    else:
        assert "Volumes" in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_the_command_that_repeats_it_can_be_typed(result):
    (command,) = describe_commands(json.loads(result.with_suffix("").with_suffix(".json").read_text()), str)
    assert "--spacing keep" in command and "--no-register" in command and "--uncertainty" not in command
    app.parse_args(command.split()[1:], exit_on_error=False, print_error=False)


def test_in_a_browser_nothing_is_asked_for_and_nothing_is_wider_than_the_screen(page, result, tmp_path):
    if (program := find_browser()) is None:
        pytest.skip("no Chromium is installed; the page is not opened")
    with Browser(program, tmp_path) as browser:
        for width in (1280, 400):
            browser.resize(width, 900)
            browser.open(result.with_suffix(".html"))
            ready = "new Promise(done => document.readyState == 'complete' ? done(1) : addEventListener('load', done))"
            browser.run(ready)
            assert browser.run("document.documentElement.scrollWidth") <= width
            drawn = "[...document.querySelectorAll('svg.panel')].map(e => e.getBoundingClientRect().width)"
            assert all(wide > 80 for wide in browser.run(drawn))
        assert not browser.errors and not browser.requests
