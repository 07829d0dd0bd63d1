"""The whole road on real scans, where they are at hand: train a little, segment, evaluate, in each naming scheme."""

import json

import numpy as np
import pytest

import brainsegnet
from brainsegnet.io.images import read_labels
from brainsegnet.training.recipes import QUICK

TINY = QUICK.fit_to(1).model_copy(update={"name": "tiny", "widths": (4, 4, 8, 8), "refined": 8, "patch": (4, 32, 32)})


@pytest.fixture(scope="module")
def brats2015(real_data, recorder, tmp_path_factory):
    """A model of two training cases of BRATS 2015, and the messages of its training."""
    heard = recorder()
    out = tmp_path_factory.mktemp("real") / "run"
    options = brainsegnet.TrainOptions(TINY, steps=2, exclude=("brats_2013_pat0006_1",), validation=1)
    brainsegnet.train(real_data / "tumour/brats2015", "brats2015", out, options, heard)
    return out, heard.messages


@pytest.mark.real
def test_training_takes_the_sequences_that_every_case_has(brats2015):
    out, said = brats2015
    assert "sequences flair, t1c" in said[0] and "2 training cases" in said[0]
    card = json.loads((out / "best" / "card.json").read_text())
    assert card["input"]["sequences"] == ["flair", "t1c"] and set(card["training"]["scores"]) == {
        "whole",
        "core",
        "enhancing",
    }


@pytest.mark.real
def test_an_unseen_case_is_segmented_on_its_own_grid(real_data, brats2015, tmp_path):
    case = real_data / "tumour/brats2015/brats_2013_pat0006_1"
    out = tmp_path / "pat0006.nii.gz"
    done = brainsegnet.segment(case, brats2015[0], out).done[0]
    found, truth = read_labels(out), read_labels(case / "OTMultiClass.nii.gz")
    assert found.on_grid_of(truth) and set(np.unique(found.array)) <= {0, 1, 2, 3, 4}
    assert done.report["volumes_ml"]["regions"]["whole"] == pytest.approx((found.array > 0).sum() / 1000)
    scores = brainsegnet.evaluate(out, case, "brats2015").scores
    assert set(next(iter(scores.values()))) == {"whole", "core", "enhancing"}


@pytest.mark.real
def test_two_conventions_train_one_model(real_data, tmp_path):
    """Enhancing tumour is label 4 in BraTS 2021 and 3 in 2023; a model of the task brats2021 learns both as one."""
    data = [real_data / "tumour/brats2021/BraTS2021_00006", real_data / "tumour/brats2023/BraTS-GLI-00000-000"]
    options = brainsegnet.TrainOptions(TINY, steps=2, validation=0)
    model = brainsegnet.train(data, "brats2021", tmp_path / "run", options)
    card = json.loads((model / "card.json").read_text())
    assert card["input"]["sequences"] == ["flair", "t1", "t1c", "t2"] and card["training"]["data"]["count"] == 2
