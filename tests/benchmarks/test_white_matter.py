"""The scores of a model of white matter lesions by set of sequences."""

import json

import pytest

from brainsegnet.simulation.simulate import SimulateOptions, simulate
from brainsegnet.training import TrainOptions
from brainsegnet.training.train import train


@pytest.fixture(scope="module")
def script(benchmark_called):
    return benchmark_called("white_matter")


def test_flair_comes_with_every_set_of_the_other_sequences(script):
    subsets = list(script.list_subsets(("flair", "t1", "t1c", "t2")))
    assert len(subsets) == len(set(subsets)) == 8 and all(one[0] == "flair" for one in subsets)
    assert list(script.list_subsets(("flair", "t2"))) == [("flair",), ("flair", "t2")]


def test_every_case_is_scored_with_every_set(script, tiny, tmp_path):
    how = SimulateOptions(1, 3, (30, 40, 34), realistic=True, lesion="white-matter", anatomy="procedural")
    simulate(tmp_path / "data", how)
    options = TrainOptions(tiny, steps=1, validation=0, drop_sequences=0.5)
    model = train(tmp_path / "data", "white-matter-lesions", tmp_path / "run", options)
    script.main([str(model), str(tmp_path / "data"), "--out", str(tmp_path / "scores.json"), "--threads", "1"])
    result = json.loads((tmp_path / "scores.json").read_text())
    assert not result["cases_chose_nothing"] and result["trained_on"] == 1
    (row,) = result["scores"].values()
    assert len(row) == 8 and {*row} == {*result["mean"]} and all(0 <= one["dice"] <= 1 for one in row.values())
