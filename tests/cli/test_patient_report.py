"""`segment --report` and `report LABEL_MAP`: a page beside each label map, also for cases that were done before."""

import json
import shutil

from brainsegnet.inference import SegmentOptions

CPU = ("--device", "cpu", "--threads", 1)


def test_a_page_is_written_beside_each_label_map_and_missing_ones_are_added(run, phantoms, trained, tmp_path):
    out = tmp_path / "out"
    words = ("segment", phantoms / "phantom0000", phantoms / "phantom0001", "--model", trained, "--out", out, *CPU)
    ended = run(*words, "--report")
    pages = [out / f"phantom000{number}.html" for number in (0, 1)]
    assert ended.code == 0 and all(page.is_file() for page in pages)
    assert [line for line in ended.out.splitlines() if line.startswith("report: ")] == [f"report: {p}" for p in pages]
    text = pages[0].read_text()
    assert "phantom0000" not in text and "80 % interval" in text
    note = json.loads((out / "phantom0000.json").read_text())
    assert note["options"] == SegmentOptions(device="cpu", uncertainty=True).to_json()

    labels, kept = (out / "phantom0001.nii.gz").stat().st_mtime_ns, pages[0].stat().st_mtime_ns
    pages[1].unlink()
    again = run(*words, "--report", "--skip-existing")
    assert again.code == 0 and pages[1].is_file()
    assert (out / "phantom0001.nii.gz").stat().st_mtime_ns == labels and pages[0].stat().st_mtime_ns == kept


def test_a_page_that_exists_is_not_replaced_unless_asked_for(run, phantoms, trained, tmp_path):
    out = tmp_path / "a.nii.gz"
    words = ("segment", phantoms / "phantom0000", "--model", trained, "--out", out, *CPU, "--report")
    (tmp_path / "a.html").write_text("mine")
    ended = run(*words)
    assert ended.code == 1 and "a.html is there already" in ended.sentence
    assert (tmp_path / "a.html").read_text() == "mine" and not out.exists()
    assert run(*words, "--overwrite").code == 0 and "Volumes" in (tmp_path / "a.html").read_text()


def test_a_case_whose_images_are_gone_fails_by_itself(run, phantoms, trained, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(phantoms, data)
    words = ("segment", data, "--model", trained, "--out", out, *CPU)
    assert run(*words, "--uncertainty").code == 0
    note = json.loads((out / "phantom0001.json").read_text())
    moved = {name: facts | {"path": "gone"} for name, facts in note["inputs"].items()}
    (out / "phantom0001.json").write_text(json.dumps(note | {"inputs": moved}))
    ended = run(*words, "--report", "--skip-existing")
    assert ended.code == 1 and "phantom0001" in ended.err and "--images" in ended.err
    assert sorted(page.name for page in out.glob("*.html")) == ["phantom0000.html", "phantom0002.html"]


def test_report_takes_one_result(run, phantoms, segmented, tmp_path):
    page = tmp_path / "page.html"
    words = ("report", segmented / "phantom0000.nii.gz", "--out", page)
    ended = run(*words, "--identify")
    assert ended.code == 0 and f"done; open {page}" in ended.out
    assert "<h1>phantom0000</h1>" in page.read_text()
    assert run(*words).code == 1
    assert run(*words, "--overwrite").code == 0 and "phantom0000" not in page.read_text()


def test_identify_without_a_report_is_refused(run, phantoms, tmp_path):
    ended = run("segment", phantoms, "--out", tmp_path / "out", "--identify")
    assert ended.code == 2 and ended.sentence == "--identify is for the report; add --report"
