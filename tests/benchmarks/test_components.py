"""What dropping components is worth and costs, on phantoms."""

import json

import numpy as np
import pytest

from brainsegnet.errors import DatasetError
from brainsegnet.model.card import ComponentFilter, Data
from brainsegnet.model.store import open_model, save_model
from release import validation
from release.calibration import MARGINS


@pytest.fixture(scope="module")
def components(benchmark_called):
    return benchmark_called("components")


def as_stranger(trained, folder, **changes):
    """The trained model with a card that knows none of the phantoms."""
    model = open_model(trained)
    note = model.card.training.model_copy(update={"data": Data(), "held_out": ()})
    card = model.card.model_copy(update={"training": note, **changes})
    return save_model(folder, card, model.tensors()).folder


def test_a_fold_is_tested_on_what_it_held_out_and_another_on_all(components, trained, phantoms, tmp_path, capsys):
    components.main([str(trained / "last"), "--data", str(phantoms)])
    fold = json.loads(capsys.readouterr().out)
    assert fold["cases"] == 1 and list(fold["margins_of_the_others"]) == ["phantom0002"]
    assert set(fold["dice"]) == {"null", *(json.dumps(margin) for margin in MARGINS)}
    components.main([str(as_stranger(trained, tmp_path / "stranger")), "--data", str(phantoms)])
    every = json.loads(capsys.readouterr().out)
    assert every["cases"] == 3 and every["margin"] is None, "three cases are too few to choose one"
    assert every["left_out"] == every["dice"]["null"] and set(every["left_out"]) == {"whole", "core", "enhancing"}


def test_a_model_that_knows_the_cases_is_refused(components, trained, phantoms, tmp_path):
    model = open_model(trained)
    note = model.card.training.model_copy(update={"held_out": ()})
    card = model.card.model_copy(update={"training": note})
    knowing = save_model(tmp_path / "knowing", card, model.tensors()).folder
    with pytest.raises(DatasetError, match="was trained on this patient"):
        components.main([str(knowing), "--data", str(phantoms)])


def test_both_ways_are_timed_where_the_model_drops_any(components, trained, phantoms, tmp_path, capsys):
    dropping = as_stranger(trained, tmp_path / "dropping", components=ComponentFilter(confidence_margin=0.02))
    given = ["--data", str(phantoms), "--repeat", "2", "--threads", "1"]
    components.main([str(dropping), *given])
    result = json.loads(capsys.readouterr().out)
    assert result["engine"].startswith("torch on cpu")
    assert result["ratio"] == pytest.approx(result["dropping_seconds"] / result["arg_max_seconds"], rel=0.1)
    with pytest.raises(SystemExit):
        components.main([str(trained), *given])
    assert "drops no components, so there is nothing to time" in capsys.readouterr().err


def test_mirrored_passes_are_tried_and_timed_with_any_model(
    components, trained, phantoms, tmp_path, capsys, monkeypatch
):
    stranger = as_stranger(trained, tmp_path / "stranger")
    given = [str(stranger), "--data", str(phantoms), "--tta"]
    monkeypatch.setattr(validation, "tta_probabilities", all_oedema)
    components.main(given)
    result = json.loads(capsys.readouterr().out)
    assert result["dice"]["null"]["enhancing"] == 0 < result["dice"]["null"]["whole"] < 0.5
    components.main([*given, "--repeat", "1", "--threads", "1"])
    result = json.loads(capsys.readouterr().out)
    assert result["ratio"] == pytest.approx(result["mirrored_seconds"] / result["arg_max_seconds"], rel=0.1)
    assert result["ratio"] > 1.5


def all_oedema(predictor, image):
    """Probabilities that leave no warning."""
    probabilities = np.zeros((4, *image.shape[1:]), np.float32)
    probabilities[2] = 1
    return probabilities
