"""Results that exist already: nothing is replaced unasked, and a stopped run continues where it was."""

import hashlib
import json
import os
import shutil
from dataclasses import replace

import pytest

from brainsegnet._atomic import OutputOptions
from brainsegnet.errors import BrainSegNetError, OutputError, UsageError
from brainsegnet.inference import SegmentOptions
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import describe_file, read_image, write_image
from brainsegnet.pipeline.inputs import describe_inputs
from brainsegnet.pipeline.segment import segment

CPU = SegmentOptions(device="cpu", threads=1)
OVERWRITE, CONTINUE = OutputOptions(overwrite=True), OutputOptions(skip_existing=True)
VERIFY = OutputOptions(skip_existing=True, verify=True)
BOTH = OutputOptions(overwrite=True, skip_existing=True)


@pytest.fixture
def data(phantoms, tmp_path):
    return shutil.copytree(phantoms, tmp_path / "data")


@pytest.fixture
def results(data, trained, tmp_path):
    """Results of all cases, whose inputs are those of `data`."""
    out = tmp_path / "out"
    segment(data, trained, out, CPU)
    return out


def stamps(folder):
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def flair_of(data, name="phantom0001"):
    return next(case for case in find_cases([data]) if case.name == name).images["flair"]


def test_results_are_not_replaced_unless_asked_for(results, data, trained):
    before = stamps(results)
    sentence = r"phantom0000.nii.gz is there already \(and 2 more\); add --skip-existing .* or --overwrite"
    with pytest.raises(OutputError, match=sentence):
        segment(data, trained, results, CPU)
    assert stamps(results) == before
    assert len(segment(data, trained, results, CPU, output=OVERWRITE).done) == 3
    assert stamps(results).keys() == before.keys() and stamps(results) != before


def test_a_json_of_the_user_is_not_replaced_either(data, trained, tmp_path):
    (tmp_path / "lesion.json").write_text("{}")
    with pytest.raises(OutputError, match=r"lesion.json is there already; "):
        segment(data / "phantom0000", trained, tmp_path / "lesion.nii.gz", CPU)
    assert (tmp_path / "lesion.json").read_text() == "{}"


def test_a_stopped_run_continues(results, data, trained, recorder):
    (results / "phantom0001.json").unlink()
    (results / "phantom0002.json").unlink()
    (results / "phantom0002.nii.gz").unlink()
    before, heard = stamps(results), recorder()
    batch = segment(data, trained, results, CPU, heard, CONTINUE)
    assert [case.name for case in batch.done] == ["phantom0001", "phantom0002"]
    assert [case.name for case in batch.skipped] == ["phantom0000"] and not batch.failures
    assert heard.messages == ["1 of 3 cases are done already and are left out"]
    assert [(event.done, event.cases) for event in heard.events] == [(0, 2), (1, 2), (2, 2)]
    after = stamps(results)
    assert after["phantom0000.json"] == before["phantom0000.json"] and len(after) == 6
    again = segment(data, trained, results, CPU, output=CONTINUE)
    assert len(again.skipped) == 3 and not again.done and stamps(results) == after


def test_the_record_holds_the_hash_of_each_file_that_was_read(results, data):
    report = json.loads((results / "phantom0001.json").read_text())
    path = flair_of(data)
    content = path.read_bytes()
    facts = report["inputs"]["flair"]
    assert facts["sha256"] == hashlib.sha256(content).hexdigest() and facts["bytes"] == len(content)
    assert facts["header_sha256"] == hashlib.sha256(content[:4096]).hexdigest()
    assert facts["modified"] == pytest.approx(path.stat().st_mtime)
    assert report["options"]["device"] == "cpu" and "threads" not in report["options"]


def test_a_copied_file_is_another_input_unless_its_content_is_compared(results, data, trained):
    os.utime(flair_of(data), (1, 1))
    with pytest.raises(OutputError, match=r"phantom0001.nii.gz is there .* is another result: flair has changed since"):
        segment(data, trained, results, CPU, output=CONTINUE)
    assert len(segment(data, trained, results, CPU, output=VERIFY).skipped) == 3
    assert [case.name for case in segment(data, trained, results, CPU, output=BOTH).done] == ["phantom0001"]


def test_a_changed_file_of_the_same_size_and_time_is_found_by_its_content(results, data, trained):
    path = flair_of(data)
    facts, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert len(segment(data, trained, results, CPU, output=CONTINUE).skipped) == 3
    with pytest.raises(OutputError, match="flair has changed since"):
        segment(data, trained, results, CPU, output=VERIFY)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [("tta", "another --tta"), ("sequence", "other sequences"), ("model", "another model"), ("old", "the options")],
)
def test_other_options_inputs_and_models_are_another_result(results, data, trained, strict, tmp_path, change, sentence):
    options, model = CPU, trained
    if change == "tta":
        options = replace(CPU, tta=True)
    elif change == "sequence":
        flair_of(data, "phantom0000").unlink()
    else:
        key = "model" if change == "model" else "options"
        path = results / "phantom0000.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: None}))
    before = stamps(results)
    with pytest.raises(OutputError, match=sentence):
        segment(data, model, results, options, output=CONTINUE)
    assert stamps(results) == before


def test_a_limit_on_threads_or_memory_changes_no_result(results, data, trained):
    other = SegmentOptions(device="cpu", threads=2, max_memory_gb=1, max_voxels=10**8)
    assert len(segment(data, trained, results, other, output=CONTINUE).skipped) == 3


@pytest.mark.parametrize("text", ["", "[]", "{", '{"labels": 3}', '{"labels": "phantom0000.nii.gz", "model": []}'])
def test_a_json_that_says_nothing_is_no_result(results, data, trained, text):
    (results / "phantom0000.json").write_text(text)
    assert len(segment(data, trained, results, CPU, output=BOTH).skipped) == 2


def test_a_file_that_changes_while_it_is_read_is_refused(data, trained, tmp_path, monkeypatch):
    def change(files, sequences, content, mask):
        if content:
            os.utime(files.images["t1"], (5, 5))
        return describe_inputs(files, sequences, content, mask)

    monkeypatch.setattr("brainsegnet.pipeline.load.describe_inputs", change)
    with pytest.raises(BrainSegNetError, match="t1 was changed while it was read"):
        segment(data / "phantom0000", trained, tmp_path / "a.nii.gz", CPU)
    assert not list(tmp_path.glob("a.*"))


def test_both_files_of_an_image_are_described(phantoms, tmp_path):
    volume = read_image(flair_of(phantoms))
    write_image(volume, tmp_path / "a.mha", compress=False)
    header, _, voxels = (tmp_path / "a.mha").read_bytes().partition(b"LOCAL\n")
    (tmp_path / "a.mhd").write_bytes(header + b"a.raw\n")
    (tmp_path / "a.raw").write_bytes(voxels)
    before = describe_file(tmp_path / "a.mhd", content=True)
    (tmp_path / "a.raw").write_bytes(voxels[:-1] + b"\x01")
    after = describe_file(tmp_path / "a.mhd", content=True)
    assert before["sha256"] != after["sha256"] and before["bytes"] == after["bytes"] == len(
        header + b"a.raw\n" + voxels
    )


def test_verify_needs_something_to_verify():
    with pytest.raises(UsageError, match="add --skip-existing"):
        OutputOptions(verify=True)
