"""Dice by the probability from which on a voxel is called lesion."""

import json
import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def threshold(benchmark_called):
    return benchmark_called("threshold")


def test_dice_is_that_of_what_is_more_probable(threshold):
    true = np.array([1, 1, 0, 0], bool)
    dice = threshold.try_all(np.array([0.9, 0.22, 0.32, 0.01]), true)
    assert dice[0.2] == pytest.approx(4 / 5) and dice[0.4] == pytest.approx(2 / 3) and dice[0.3] == pytest.approx(2 / 4)
    assert threshold.try_all(np.zeros(4), true & False) == dict.fromkeys(threshold.THRESHOLDS, 1.0)


def test_a_model_is_tried_on_cases_and_the_mean_written(threshold, trained, phantoms, tmp_path, monkeypatch, capsys):
    out = tmp_path / "threshold.json"
    monkeypatch.setattr(sys, "argv", ["threshold.py", str(trained / "last"), str(phantoms), "--out", str(out)])
    threshold.main()
    found = json.loads(out.read_text())
    assert len(found["cases"]) == 3 and set(found["mean"]) == {str(t) for t in threshold.THRESHOLDS}
    assert found["mean"]["0.5"] == pytest.approx(np.mean([case["0.5"] for case in found["cases"].values()]))
    assert "Dice (3 cases)" in capsys.readouterr().out
