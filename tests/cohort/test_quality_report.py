"""The pages of a cohort: copies of a few results of a threshold, with other volumes, warnings and failures."""

import importlib.util
import json
import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from brainsegnet._atomic import write_text
from brainsegnet.cohort import QualityOptions
from brainsegnet.cohort.manifest import COLUMNS, MANIFEST, Entry, read_manifest
from brainsegnet.cohort.places import open_places
from brainsegnet.cohort.quality_report import write_quality_reports
from brainsegnet.cohort.tables import write_parquet
from brainsegnet.errors import DatasetError, OutputError, UsageError
from brainsegnet.io.images import read_labels, write_image
from brainsegnet.model.store import resolve_model
from browser import Browser, find_browser

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cohort_page.py"
MARKUP = '<b onmouseover=alert(1)>"it\'s" & <script>alert(2)</script>'
CASES = 20


@pytest.fixture(scope="module")
def script():
    """The benchmark of the pages, which segments phantoms with a threshold."""
    paths = [*sys.path]
    spec = importlib.util.spec_from_file_location("cohort_page", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = paths


@pytest.fixture(scope="module")
def few(script, tmp_path_factory):
    """Places of the results of two phantoms; to be read only."""
    from brainsegnet.inference import segmenter

    before = segmenter.open_engine
    yield script.make_results(tmp_path_factory.mktemp("few"), 2, script.TINY)
    segmenter.open_engine = before


class Cohort:
    """A cohort of results that are copies of a few."""

    def __init__(self, few, script, folder):
        self.few, self.out, self.entries = few, folder / "out", []
        shutil.copytree(few.folder.parents[1] / "cases", folder / "cases")
        self.known = list(read_manifest(few.folder.parent / MANIFEST))
        self.cases = folder / "cases"
        self.places = open_places(self.out, resolve_model("tumour").card, script.SEGMENTING, "flat")
        self.report = self.places.folder / "report"

    def add(self, name, factor=1.0, error=None, **changes):
        """A case that is done, unless there is an error or it waits."""
        model = self.known[len(self.entries) % 2]
        away = self.few.folder.parents[1] / "cases"
        images = {key: str(self.cases / Path(path).relative_to(away)) for key, path in model.images.items()}
        entry = Entry(name, len(self.entries), images=images)
        self.entries.append(entry)
        if error:
            kind, said = error
            write_text(json.dumps({"kind": kind, "error": said, "cohort": {}}), self.places.error_of(entry))
            return
        if changes.pop("waits", False):
            return
        shutil.copyfile(self.few.target_of(model), self.places.target_of(entry))
        note = json.loads(self.few.json_of(model).read_text())
        regions = {name: 50 * factor * (1 + len(self.entries) % 7 / 10) for name in note["volumes_ml"]["regions"]}
        inputs = {
            name: {**note["inputs"][name], "path": os.path.relpath(images[name], self.places.folder)} for name in images
        }
        note |= {"case": name, "labels": f"{name}.nii.gz", "inputs": inputs, "warnings": [], **changes}
        self.write(entry, {**note, "volumes_ml": {"labels": {}, "regions": regions}})

    def read(self, entry):
        return json.loads(self.places.json_of(entry).read_text())

    def write(self, entry, note):
        write_text(json.dumps(note), self.places.json_of(entry))

    def make(self, **options):
        write_parquet((one.to_row() for one in self.entries), COLUMNS, self.out / MANIFEST, {"sources": "x"})
        (found,) = write_quality_reports(self.out, QualityOptions(threads=1, **options))
        return found

    def pages(self):
        return [self.report / "index.html", *sorted((self.report / "pages").glob("0*.html"))]

    def order(self):
        """Names of the cases in their order on all pages."""
        numbers = [int(number) for page in self.pages() for number in re.findall(r'id="case(\d+)"', page.read_text())]
        return [self.entries[number].case for number in numbers]


@pytest.fixture
def cohort(few, script, tmp_path):
    return Cohort(few, script, tmp_path)


@pytest.fixture
def full(cohort):
    """A cohort with one case of each kind."""
    for number in range(CASES):
        cohort.add(f"b{number:02d}")
    cohort.add("a last", error=("TimedOut", "case a last: it took too long"))
    cohort.add("a huge", factor=40)
    cohort.add("a none", factor=0)
    cohort.add("a rare", warnings=["case a rare: t2 is odd"])
    for number in range(2):
        cohort.add(f"a common{number}", warnings=[f"case a common{number}: slices of {number}.5 mm"])
    cohort.add("z waits", waits=True)
    return cohort


class Parsed(HTMLParser):
    """Tags, texts and addresses of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.links, self.page = [], [], [], page
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src", "action")]
        assert not [name for name, _ in attrs if name.startswith("on")], attrs

    def handle_data(self, data):
        self.texts.append(data)


def fail_with(error):
    """A function that raises."""

    def fail(*_, **__):
        raise error

    return fail


def test_failed_cases_come_first_then_outliers_then_warnings_then_names(full):
    found = full.make()
    expected = ["a last", "a huge", "a none", "a rare", "a common0", "a common1", *(f"b{n:02d}" for n in range(CASES))]
    assert full.order() == expected
    assert (found.cases, found.first, found.drawn, found.kept) == (CASES + 7, 6, CASES + 5, 0)
    text = (full.report / "index.html").read_text()
    assert re.findall(r"<h2>([^<]*)</h2>", text)[-4:] == ["Failed", "Outliers", "With warnings", "The others, by name"]
    assert f"{CASES + 5} of {CASES + 7} cases done, 1 failed" in text
    tiles = dict(re.findall(r'<div class="tile"><span>([^<]*)</span><b>([^<]*)</b>', text))
    assert tiles == {"done": f"{CASES + 5}", "failed": "1", "waiting": "1", "outliers": "2", "with warnings alone": "3"}
    for sentence in (
        "whole tumour of 2200 ml: larger than all others",
        "no lesion was found, as in 4 %",
        "t2 is odd",
    ):
        assert sentence in text
    assert '<td class="word">slices of … mm</td><td>2</td>' in text


def test_each_case_is_on_one_page_and_every_address_is_a_file_of_the_cohort(full):
    full.make(page_cases=7)
    pages = full.pages()
    assert [page.name for page in pages] == ["index.html", *(f"{n:04d}.html" for n in range(2, 5))]
    assert [page.read_text().count("<article") for page in pages] == [7, 7, 7, 5]
    assert sorted(full.order()) == sorted(one.case for one in full.entries if one.case != "z waits")
    names = Parsed(full.report / "pages" / "names.html")
    assert {one.case for one in full.entries} < {*names.texts}
    for parsed in [*map(Parsed, pages), names]:
        for link in parsed.links:
            path, _, place = link.partition("#")
            assert (target := parsed.page.parent / unquote(path)).is_file(), link
            assert not place or f'id="{place}"' in target.read_text()


def test_no_page_asks_another_host_and_only_the_names_have_a_script(full):
    full.make(page_cases=7)
    for page in [*full.pages(), full.report / "pages" / "names.html"]:
        text = page.read_text()
        assert "http:" not in text and "https:" not in text and "//" not in "".join(Parsed(page).links)
        assert ("<script" in text) == (page.name == "names.html")
        assert "default-src 'none'" in text


def test_markup_in_names_and_sentences_is_text(cohort):
    odd = ["<b>x\" '&", "n" * 190, "{{ 7 * 7 }} %2e", "javascript:alert(1)"]
    for name in odd:
        cohort.add(name, warnings=[f"case {name}: {MARKUP}"])
    cohort.add("failed", error=(MARKUP, f"case failed: {MARKUP}"))
    cohort.make()
    for page in (cohort.report / "index.html", cohort.report / "pages" / "names.html"):
        parsed = Parsed(page)
        assert parsed.tags.count("b") == 4 * (page.name == "index.html")  # the figures of the tiles
        assert parsed.tags.count("script") == (page.name == "names.html")
        assert {*odd} < {*parsed.texts}
        assert not [link for link in parsed.links if link.startswith("javascript")]
    assert MARKUP in Parsed(cohort.report / "index.html").texts


def test_a_thumbnail_is_drawn_again_only_if_its_result_has_changed(full, monkeypatch):
    full.make()
    before = {path: path.stat().st_mtime_ns for path in full.report.glob("thumbnails/*/*")}
    with monkeypatch.context() as patch:
        patch.setattr("brainsegnet.cohort.gallery.draw_thumbnail", lambda *_: pytest.fail("it is drawn again"))
        found = full.make()
    assert (found.drawn, found.kept) == (0, CASES + 5)
    entry = full.entries[3]
    labels = read_labels(full.places.target_of(entry))
    write_image(labels.with_array(np.roll(labels.array, 2, 1)), full.places.target_of(entry))
    full.write(full.entries[4], {**full.read(full.entries[4]), "seconds": {"read": 1.0}})
    assert full.make().drawn == 2
    after = {path: path.stat().st_mtime_ns for path in full.report.glob("thumbnails/*/*")}
    assert len(after) == len(before)
    assert {path.name.partition("-")[0] for path, _ in before.items() ^ after.items()} == {"3", "4"}


def test_a_report_that_was_interrupted_keeps_its_thumbnails_and_the_pages_before(full, monkeypatch):
    cohort, stop = full, fail_with(KeyboardInterrupt)
    with monkeypatch.context() as patch:
        patch.setattr("brainsegnet.cohort.quality_report.write_pages", stop)
        with pytest.raises(KeyboardInterrupt):
            cohort.make()
    assert not (cohort.report / "index.html").exists()
    assert cohort.make().kept == CASES + 5
    first = (cohort.report / "index.html").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("brainsegnet.cohort.quality_page._render_names", fail_with(OSError(28, "No space left")))
        with pytest.raises(OutputError, match="No space left"):
            cohort.make()
    assert (cohort.report / "index.html").read_bytes() == first
    assert [path.name for path in (cohort.report / "pages").iterdir()] == ["names.html"]
    assert not [path for path in cohort.places.folder.rglob(".brainsegnet*")]


def test_a_result_whose_scan_is_gone_is_drawn_without_and_again_when_it_is_back(cohort):
    for name in ("p0", "p1"):
        cohort.add(name)
    (scan := Path(cohort.entries[0].images["flair"])).rename(scan.with_name("away"))
    assert cohort.make().drawn == 2
    assert (cohort.report / "index.html").read_text().count("scan not found") == 1
    assert cohort.make().drawn == 0
    scan.with_name("away").rename(scan)
    assert cohort.make().drawn == 1
    assert "scan not found" not in (cohort.report / "index.html").read_text()
    assert len([*cohort.report.glob("thumbnails/*/*")]) == 2


def test_a_scan_that_is_another_now_is_not_shown(cohort):
    cohort.add("p0")
    with Path(cohort.entries[0].images["flair"]).open("ab") as file:
        file.write(b"more")
    cohort.make()
    assert "scan not found" in (cohort.report / "index.html").read_text()


def test_a_moved_cohort_finds_its_scans_by_the_manifest(cohort):
    cohort.add("p0")
    note = cohort.read(cohort.entries[0])
    inputs = {name: {**facts, "path": "../elsewhere/x.nii.gz"} for name, facts in note["inputs"].items()}
    cohort.write(cohort.entries[0], {**note, "inputs": inputs})
    cohort.make()
    assert "scan not found" not in (cohort.report / "index.html").read_text()


def test_of_a_skull_the_outline_is_that_of_the_mask_that_was_saved(cohort):
    raw = {"brain": {"how": "extracted", "volume_ml": 1300.0}, "head": {"skull": "skull on"}}
    for name in ("p0", "p1"):
        cohort.add(name, **raw)
    entry, page = cohort.entries[1], cohort.report / "index.html"
    cohort.make()
    assert page.read_text().count("outline of the brain not saved") == 2
    target = cohort.places.target_of(entry)
    labels = read_labels(target)
    folder = target.with_name("p1_preprocessed")
    write_image(labels.with_array(np.ones_like(labels.array)), folder / "brain_mask.nii.gz")
    saved = {"brain_mask": f"{folder.name}/brain_mask.nii.gz"}
    cohort.write(entry, {**cohort.read(entry), "preprocessed": saved})
    cohort.make()
    assert page.read_text().count("outline of the brain not saved") == 1


def test_a_label_map_that_is_damaged_is_a_sentence(cohort):
    cohort.add("p0")
    cohort.add("p1")
    cohort.places.target_of(cohort.entries[1]).write_bytes(b"no image")
    cohort.make()
    assert (cohort.report / "index.html").read_text().count('class="empty">no picture: ') == 1
    assert cohort.order() == ["p1", "p0"]


def test_a_cohort_without_a_result_has_a_page(cohort):
    cohort.add("waits", waits=True)
    found = cohort.make()
    assert (found.cases, found.first, found.drawn) == (1, 0, 0)
    text = found.page.read_text()
    assert "0 of 1 cases done" in text
    assert "No case is done yet." in text
    assert "waits" in (cohort.report / "pages" / "names.html").read_text()


def test_the_report_on_a_patient_is_linked(cohort):
    cohort.add("p0")
    cohort.places.target_of(cohort.entries[0]).with_name("p0.html").write_text("report")
    cohort.make()
    assert '<a href="../p0.html">report</a>' in (cohort.report / "index.html").read_text()


def test_what_cannot_be_reported_is_a_sentence(tmp_path):
    with pytest.raises(DatasetError, match=r"has no manifest.parquet; begin with brainsegnet cohort run"):
        write_quality_reports(tmp_path)
    with pytest.raises(UsageError, match="--page-cases and --threads must be 1 or more"):
        QualityOptions(page_cases=0)


def test_a_name_is_found_in_a_browser(full, tmp_path):
    if (program := find_browser()) is None:
        pytest.skip("no Chromium is installed")
    full.make(page_cases=7)
    with Browser(program, tmp_path / "profile") as browser:
        browser.open(full.report / "index.html")
        browser.wait("document.images.length && [...document.images].slice(0, 3).every(image => image.naturalWidth)")
        browser.run("document.querySelector('input').value = 'B03'")
        browser.leave("document.querySelector('form').submit()")
        browser.wait("location.pathname.endsWith('names.html') && document.readyState === 'complete'")
        shown = "[...document.querySelectorAll('tbody tr')].filter(row => !row.hidden).map(row => row.innerText)"
        assert browser.run(shown) == ["b03\tdone"]
        browser.leave("document.querySelector('tr:not([hidden]) a').click()")
        browser.wait("document.querySelector(':target') && document.readyState === 'complete'")
        assert browser.run("document.querySelector(':target h3').innerText") == "b03"
        assert (browser.errors, browser.requests) == ([], [])
