"""What is listed as a false find, and what is not."""

import json

import numpy as np
import pytest

from brainsegnet.task import BRATS2015
from brainsegnet.volume import Case, Volume


@pytest.fixture(scope="module")
def finds(benchmark_called):
    return benchmark_called("false_finds")


def test_finds_that_touch_no_lesion_are_listed_by_size(finds):
    shape = (40, 60, 60)
    brain = np.zeros(shape, np.float32)
    brain[5:35, 5:55, 5:55] = 1
    true, found = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    true[10:20, 10:20, 10:20] = 2
    found[10:20, 10:20, 12:24] = 2  # shifted, no find of its own
    found[25:33, 40:50, 40:50] = 4  # 0.8 ml
    found[10:15, 45:54, 10:16] = 2  # 0.27 ml
    found[8, 30, 30] = 2  # too small
    brain[found == 4] = 3
    case = Case("one", {"flair": Volume(brain, np.eye(4))}, None)
    probability = np.where(found == 4, 0.75, np.where(true > 0, 0.9, 0.6)).astype(np.float32)
    told = finds.describe(case, found, true, probability, BRATS2015)
    assert [find["sure"] for find in told["finds"]] == [0.75, 0.6]
    hit = 800 * 0.9 + 400 * 0.6
    assert told["sure"] == pytest.approx(hit / 1200, abs=1e-3)
    nothing = finds.describe(case, found * 0, true, probability, BRATS2015)
    assert nothing["sure"] is None and nothing["finds"] == []
    assert [find["ml"] for find in told["finds"]] == [0.8, 0.3]
    assert told["finds"][0]["place"] == pytest.approx([0.78, 0.79, 0.79], abs=0.011)
    assert told["finds"][0]["z"]["flair"] > 3 > told["finds"][1]["z"]["flair"]
    assert (told["true_ml"], told["missed_ml"], told["wrong_ml"]) == (1.0, 0.2, 1.5)
    assert told["dice"]["enhancing"] == 0.0 < told["dice"]["whole"] < 1.0


def test_it_goes_through_a_folder_of_cases(finds, trained, phantoms, tmp_path, monkeypatch, capsys):
    out = tmp_path / "finds.json"
    monkeypatch.setattr("sys.argv", ["false_finds.py", str(trained), str(phantoms), "--out", str(out)])
    finds.main()
    document, printed = json.loads(out.read_text()), capsys.readouterr().out
    written = document["cases"]
    assert len(written) > 1 and all(name in printed for name in written)
    assert all(0 <= told["sure"] <= 1 for told in written.values())
    assert all(told["true_ml"] > 0 and set(told["dice"]) == set(BRATS2015.regions) for told in written.values())
    halves = [told["thresholds"]["0.5"] for told in written.values()]
    assert document["thresholds"]["0.5"] == pytest.approx(sum(halves) / len(halves))
    assert sum(there for _, there in document["lesions"].values()) >= len(written)
    assert "lesions: below 0.04 ml: " in printed and f"0.5: {document['thresholds']['0.5']:.3f}" in printed


def test_lesions_are_counted_by_size_and_those_that_are_touched(finds):
    true, found = np.zeros((9, 9, 30), bool), np.zeros((9, 9, 30), bool)
    true[2, 2, 2] = true[4, 4, 10] = True
    true[1:8, 1:8, 18:28] = True
    found[4, 4, 10] = found[5, 5, 20] = found[8, 8, 0] = True
    told = finds.touched(found, true, 0.03)
    assert told["below 0.04 ml"] == [1, 2] and told["larger"] == [1, 1]
    assert sum(there for _, there in told.values()) == 3
    assert set(map(tuple, finds.touched(found, true & False, 0.03).values())) == {(0, 0)}


def test_dice_by_threshold_is_that_of_what_is_more_probable(finds):
    true = np.zeros((12, 12, 12), np.uint8)
    true[4:8, 4:8, 4:8] = 1
    case = Case("one", {"flair": Volume(np.ones(true.shape, np.float32), np.eye(4))}, None)
    probability = np.where(true > 0, 0.32, 0.01).astype(np.float32)
    told = finds.describe(case, np.where(probability > 0.5, 1, 0), true, probability, BRATS2015)["thresholds"]
    assert told["0.3"] == 1.0 and told["0.35"] == 0.0 and told["0.05"] == 1.0
