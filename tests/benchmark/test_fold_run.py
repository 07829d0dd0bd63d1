import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

from brainsegnet.benchmark.fold_run import (
    Conditions,
    FoldResult,
    FoldRun,
    halo_of,
    score_scan,
    summarise,
    train_and_test,
)
from brainsegnet.benchmark.models import MODELS, choose_models
from brainsegnet.errors import TaskError
from brainsegnet.inference.segmenter import open_engine
from brainsegnet.inference.tiling import find_halo
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image, read_labels, write_image
from brainsegnet.metrics.evaluate import evaluate
from brainsegnet.model.store import open_model
from brainsegnet.pipeline.segment import segment
from brainsegnet.task import BRATS2015
from brainsegnet.training import TrainOptions
from brainsegnet.training.recipes import Budget
from brainsegnet.training.sampler import Scan
from brainsegnet.training.split import load_scans, split_cases
from brainsegnet.volume import LabelMap, Volume

SHAPE = (16, 16, 32)
CONDITIONS = Conditions(BRATS2015, ("flair", "t1c"), Budget(steps=2))


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
def test_each_model_trains_and_is_scored_on_what_it_did_not_see(name, recipe, scans, recorder, tmp_path):
    (spec,) = choose_models([name], recipe)
    before, heard = torch.get_num_threads(), recorder()
    torch.set_num_threads(1)
    try:
        fabric = Fabric(accelerator="cpu", devices=1)
        result = train_and_test(FoldRun(spec, 0, 1, ("b",)), CONDITIONS, scans, fabric, tmp_path / "state", heard)
    finally:
        torch.set_num_threads(before)
    assert [event.step for event in heard.events] == [1, 2] and result.steps == 2
    assert result.samples_per_second == pytest.approx(2 / (60 * result.minutes))
    assert list(result.scores) == list(result.seconds) == ["b"] and set(result.scores["b"]) == set(BRATS2015.regions)
    truth_ml = np.count_nonzero(scans["b"].classes) * 3 / 1000
    assert result.scores["b"]["whole"].true_volume_ml == pytest.approx(truth_ml), "millimetres are the scan's"
    result.write(tmp_path / "result.json")
    assert FoldResult.read(tmp_path / "result.json") == result
    assert (result.model, result.fold, result.seed, result.notes) == (name, 1, 0, ())
    other = replace(result, fold=2, steps=4, scores={"a": result.scores["b"]})
    entry = summarise([[result, other], [replace(result, steps=9)]], ["a", "b", "c"])
    assert list(entry.scores) == ["a", "b"] and entry.steps == 5 and entry.parameters == result.parameters
    assert [list(scores) for scores in entry.repeats] == [["b"]]


def test_a_lesion_around_the_brain_box_is_missed_as_segment_and_evaluate_say(phantoms, trained, tmp_path):
    shutil.copytree(phantoms, tmp_path / "data")
    files = find_cases([tmp_path / "data"])[2]
    for path in (*files.images.values(), files.lesion):
        image = read_labels(path) if path == files.lesion else read_image(path)
        affine = image.affine @ np.array([[-1, 0, 0, image.shape[0] - 1], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
        array = image.array[::-1].swapaxes(1, 2).copy()
        if path == files.lesion:
            array[:3, :5, :2] = 4
            array[-1, -1, -1] = 1
        write_image((LabelMap if path == files.lesion else Volume)(array, affine), path)
    segment(tmp_path / "data", trained, tmp_path / "found")
    expected = evaluate(tmp_path / "found", tmp_path / "data", "brats2015").scores[files.name]
    split = split_cases([tmp_path / "data"], BRATS2015, TrainOptions(validation=0))
    (scan,) = load_scans([files], split).values()
    assert len(scan.outside.places) == 31
    engine = open_engine(open_model(trained), "cpu")
    scores = score_scan(engine.classify(scan.image), scan, BRATS2015, files.name)
    for region, score in expected.items():
        found, known = asdict(scores[region]), asdict(score)
        assert found.pop("empty") == known.pop("empty") and found == pytest.approx(known, rel=1e-9), region
    boxed = score_scan(engine.classify(scan.image), replace(scan, outside=None), BRATS2015, files.name)
    assert boxed["whole"].true_volume_ml < scores["whole"].true_volume_ml


def test_brain_segnet_may_be_cut_and_others_may_not(recipe):
    ours, unet = choose_models(["brainsegnet", "unet"], recipe)
    assert halo_of(ours) == find_halo(4, 1) and halo_of(unet) is None
    assert halo_of(replace(ours, recipe=recipe.model_copy(update={"stride": (2, 2, 2)}))) == find_halo(4, 2)


def test_the_spacing_shapes_dynunet_and_a_plan_is_checked(recipe):
    (dynunet,) = choose_models(["dynunet"], recipe)
    fold_run = FoldRun(dynunet, 0, 1, ("b",))
    flat = fold_run.plan(replace(CONDITIONS, spacing_mm=(6.5, 1.0, 1.0))).network
    assert flat.multiples != fold_run.plan(CONDITIONS).network.multiples
    turning = recipe.augmentation.model_copy(update={"quarter_turns": True})
    (wrong,) = choose_models(["unet"], recipe.model_copy(update={"augmentation": turning}))
    with pytest.raises(TaskError, match="quarter turns need square patches"):
        replace(fold_run, spec=wrong).plan(CONDITIONS)


def test_there_is_no_result_before_it_is_written(tmp_path):
    assert FoldResult.read(tmp_path / "nothing.json") is None
