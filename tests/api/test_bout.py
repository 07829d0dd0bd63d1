from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

from brainsegnet.api.bout import Bout, Terms, median_spacing, plan_bout, train_and_test
from brainsegnet.api.contenders import MODELS, choose_models
from brainsegnet.api.results import read_result, to_entry, write_result
from brainsegnet.errors import TaskError
from brainsegnet.task import BRATS2015
from brainsegnet.training.curriculum import Budget
from brainsegnet.training.patches import Scan

SHAPE = (16, 16, 32)
TERMS = Terms(BRATS2015, ("flair", "t1c"), Budget(steps=2), seed=0)


@pytest.fixture
def recipe(tiny):
    return tiny.model_copy(update={"patch": SHAPE, "batch": 1, "averaging": 0.0})


@pytest.fixture
def scans(rng):
    def scan(shape, spacing_mm):
        return Scan(
            rng.normal(size=(2, *shape)).astype("f"), rng.integers(0, 5, shape).astype("u1"), shape[0], 0, spacing_mm
        )

    return {
        "a": scan(SHAPE, (2.0, 1.0, 1.0)),
        "b": scan((9, 13, 21), (3.0, 1.0, 1.0)),
        "c": scan(SHAPE, (9.0, 1.0, 1.0)),
    }


@pytest.mark.parametrize("name", MODELS)
def test_each_model_trains_and_is_scored_on_what_it_did_not_see(name, recipe, scans, tmp_path):
    (contender,) = choose_models([name], recipe)
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        bout = Bout(contender, plan_bout(contender, TERMS), 1, ("b",))
        fabric = Fabric(accelerator="cpu", devices=1)
        result = train_and_test(bout, scans, BRATS2015, fabric, tmp_path / "state", seen.append)
    finally:
        torch.set_num_threads(before)
    assert [record.step for record in seen] == [1, 2] and result.steps == 2
    assert result.samples_per_second == pytest.approx(2 / (60 * result.minutes))
    assert list(result.scores) == list(result.seconds) == ["b"] and set(result.scores["b"]) == set(BRATS2015.regions)
    truth_ml = np.count_nonzero(scans["b"].classes) * 3 / 1000
    assert result.scores["b"]["whole"].true_volume_ml == pytest.approx(truth_ml), "millimetres are the scan's"
    write_result(result, tmp_path / "result.json")
    assert read_result(tmp_path / "result.json") == result
    entry = to_entry([result, replace(result, fold=2, steps=4, scores={"a": result.scores["b"]})], ["a", "b", "c"])
    assert list(entry.scores) == ["a", "b"] and entry.steps == 3 and entry.parameters == result.parameters


def test_the_spacing_of_a_cohort_is_its_median(scans):
    assert median_spacing(scans) == (3.0, 1.0, 1.0)


def test_the_spacing_shapes_dynunet_and_a_plan_is_checked(recipe):
    (dynunet,) = choose_models(["dynunet"], recipe)
    flat = plan_bout(dynunet, replace(TERMS, spacing_mm=(6.5, 1.0, 1.0))).network
    assert flat.multiples != plan_bout(dynunet, TERMS).network.multiples
    turning = recipe.augmentation.model_copy(update={"quarter_turns": True})
    (wrong,) = choose_models(["unet"], recipe.model_copy(update={"augmentation": turning}))
    with pytest.raises(TaskError, match="quarter turns need square patches"):
        plan_bout(wrong, TERMS)


def test_there_is_no_result_before_it_is_written(tmp_path):
    assert read_result(tmp_path / "nothing.json") is None
