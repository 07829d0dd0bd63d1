import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from brainsegnet._machine import has_bf16_units
from brainsegnet.errors import BrainSegNetError, DatasetError, ModelError
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.postprocessing import FilteredLabels
from brainsegnet.io.images import read_labels
from brainsegnet.model.card import Card, ComponentFilter, is_tolerated
from brainsegnet.model.graphs import quantise
from brainsegnet.model.store import open_model
from brainsegnet.pipeline.segment import segment
from brainsegnet.reporting.inspect import inspect
from brainsegnet.training.export import compare, describe, export, training_scans


@pytest.fixture(scope="module")
def exported(trained, phantoms, recorder, tmp_path_factory):
    """The trained model with its exports, and what was said."""
    home = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(trained, home)
    heard = recorder()
    export(home, phantoms, heard)
    return home, heard.messages


def test_an_export_stands_in_folder_and_card(exported):
    home, said = exported
    model = open_model(home)
    assert sorted(path.name for path in (model.folder / "export").iterdir()) == [
        "fp16.bin", "fp16.xml", "int8.bin", "int8.xml", "model.onnx",
    ]  # fmt: skip
    assert all(model.exported(form).is_file() for form in ("fp16", "int8", "onnx"))
    note = model.card.exports["int8"]
    assert sorted(note.cases) == sorted(model.card.training.data.cases) and "phantom0002" not in note.cases
    bf16 = model.card.exports["fp16"].bf16_change
    assert list(note.dice_change) == ["whole", "core", "enhancing"]
    assert list(bf16) == (["whole", "core", "enhancing"] if has_bf16_units() else [])
    rows = dict(inspect(home).rows)
    assert rows["exports"].startswith("fp16 (in bf16: Dice whole " if bf16 else "fp16, onnx, int8 (Dice whole ")
    assert len(said) == 1 and "change of Dice in 8 bits: whole " in said[0]
    assert ("; in bf16: whole " in said[0]) == bool(bf16)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"), "SHA-256 differs"),
        (lambda path: path.unlink(), "does not exist; make it with: brainsegnet export"),
    ],
)
def test_inspect_says_which_export_segment_would_refuse(exported, tmp_path, spoil, sentence):
    shutil.copytree(exported[0], tmp_path / "run")
    assert not inspect(tmp_path / "run").notes
    spoil(open_model(tmp_path / "run").folder / "export" / "fp16.bin")
    (said,) = inspect(tmp_path / "run").notes
    assert "fp16.bin" in said and sentence in said


@pytest.mark.parametrize(("units", "compared"), [(True, ["int8", "bf16"]), (False, ["int8"])])
def test_bf16_is_compared_with_floats_where_there_are_units(exported, phantoms, monkeypatch, units, compared):
    monkeypatch.setattr("brainsegnet.training.export.has_bf16_units", lambda: units)
    model = open_model(exported[0])
    changes = compare(model, model.folder / "export", training_scans(model, [phantoms]))
    assert list(changes) == compared and all(
        list(change) == ["whole", "core", "enhancing"] for change in changes.values()
    )
    assert changes["int8"] == model.card.exports["int8"].dice_change


def test_arithmetics_are_compared_on_what_segment_would_find(exported, phantoms, monkeypatch):
    model = open_model(exported[0])
    card = model.card.model_copy(update={"components": ComponentFilter(confidence_margin=0.1)})
    margins = []

    def find(predictor, image, margin):
        margins.append(margin)
        return FilteredLabels(predictor.classify(image), 0, 0)

    monkeypatch.setattr("brainsegnet.training.train.segment_filtered", find)
    compare(replace(model, card=card), model.folder / "export", training_scans(model, [phantoms]))
    assert set(margins) == {0.1}


def test_what_each_arithmetic_costs_is_said_and_older_cards_say_nothing_of_bf16(exported):
    model = open_model(exported[0])
    content = json.loads(model.card.model_dump_json())
    content["exports"]["int8"]["dice_change"] = {"whole": -0.0051}
    content["exports"]["fp16"]["bf16_change"] = {"whole": -0.0001}
    object.__setattr__(model, "card", Card.model_validate(content))
    assert describe(model).endswith(
        "8 bits: whole -0.0051; used only if asked for; "
        "in bf16: whole -0.0001; used by default where the processor has the units, but not int8"
    )
    del content["exports"]["fp16"]["bf16_change"]
    older = Card.model_validate(content)
    assert not is_tolerated(older.exports["fp16"].bf16_change)
    object.__setattr__(model, "card", older)
    assert "bf16" not in describe(model)


def test_a_model_with_an_export_segments_as_without_and_needs_no_torch(exported, trained, phantoms, tmp_path):
    home, _ = exported
    program = f"""
import sys
sys.modules["torch"] = sys.modules["safetensors"] = sys.modules["lightning"] = None
from pathlib import Path
import brainsegnet
options = brainsegnet.SegmentOptions(device="cpu", threads=1, precision="float")
brainsegnet.segment(Path({str(phantoms / "phantom0002")!r}), Path({str(home)!r}), Path("a.nii.gz"), options)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    segment(phantoms / "phantom0002", trained, tmp_path / "b.nii.gz", SegmentOptions(device="cpu", threads=1))
    fast, slow = (read_labels(tmp_path / f"{name}.nii.gz").array for name in "ab")
    assert np.mean(fast == slow) > 0.999
    reports = [json.loads((tmp_path / f"{name}.json").read_text()) for name in "ab"]
    assert [report["engine"] for report in reports] == ["OpenVINO on the CPU, 32-bit floats", "torch on cpu"]
    assert all(0 < report["memory"]["one_pass_gb"] < 0.1 for report in reports)


@pytest.mark.parametrize(
    ("clipped", "whole", "tried"),
    [
        (-0.004, None, [True]),
        (-0.2, -0.001, [True, False]),
        (-0.2, -0.1, [True, False]),
        (-0.1, -0.2, [True, False, True]),
    ],
)
def test_ranges_are_clipped_unless_whole_ones_cost_less(
    trained, phantoms, tmp_path, monkeypatch, clipped, whole, tried
):
    """What the ranges cost is put in by hand, since which of them costs more depends on the model."""
    home, clips, costs = tmp_path / "run", [], {True: clipped, False: whole}
    shutil.copytree(trained, home)

    def noted(model, samples, clip):
        clips.append(clip)
        return quantise(model, samples, clip)

    monkeypatch.setattr("brainsegnet.model.graphs.quantise", noted)
    monkeypatch.setattr(
        "brainsegnet.training.export.compare", lambda *_: {"int8": {"whole": costs[clips[-1]], "core": 0}}
    )
    note = export(home, phantoms).card.exports["int8"]
    assert clips == tried and note.dice_change["whole"] == costs[tried[-1]]
    assert is_tolerated(note.dice_change) == (costs[tried[-1]] >= -0.005)


def test_a_signal_after_an_export_reaches_its_handler(trained, phantoms, tmp_path):
    home = tmp_path / "run"
    shutil.copytree(trained, home)
    program = f"""
import faulthandler, gc, os, signal
faulthandler.enable()
from pathlib import Path
from brainsegnet.training.export import export
for _ in range(2):
    export(Path({str(home)!r}), Path({str(phantoms)!r}))
    gc.collect()
caught = []
signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
os.kill(os.getpid(), signal.SIGTERM)
assert caught == [signal.SIGTERM]
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


def test_too_little_memory_is_one_sentence_and_leaves_nothing(exported, phantoms, tmp_path):
    short = SegmentOptions(device="cpu", threads=1, max_memory_gb=0.001)
    with pytest.raises(
        BrainSegNetError, match=r"case phantom0002: the thinnest slab takes about .* MB, more than 1.0 MB"
    ):
        segment(phantoms / "phantom0002", exported[0], tmp_path / "a.nii.gz", short)
    assert not list(tmp_path.iterdir())
    with pytest.raises(BrainSegNetError, match="the memory for the network must be above 0 GB, not 0"):
        SegmentOptions(max_memory_gb=0)


def test_without_data_there_are_floats_only_and_that_is_said(trained, recorder, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    heard = recorder()
    model = export(tmp_path / "run", callback=heard)
    assert list(model.card.exports) == ["fp16", "onnx"]
    assert "name the training cases to get int8" in heard.messages[0]


def test_cases_that_it_was_not_trained_on_are_refused_and_nothing_changes(trained, phantoms, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    before = written(tmp_path / "run")
    with pytest.raises(DatasetError, match=r"none of the 2 cases that model .* was trained on is in the data"):
        export(tmp_path / "run", phantoms / "phantom0002")
    with pytest.raises(ModelError, match="does not exist"):
        export(tmp_path / "absent")
    assert before == written(tmp_path / "run")


def written(folder):
    """The files of a folder, hidden ones too, and when each was written."""
    return sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file())
