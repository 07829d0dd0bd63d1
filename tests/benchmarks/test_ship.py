"""The one command that makes what the package carries, on phantoms and for a moment."""

import pytest

from brainsegnet.model.card import Data
from brainsegnet.model.store import open_model, save_model
from brainsegnet.simulation.simulate import SimulateOptions, simulate


@pytest.fixture(scope="module")
def ship(benchmark_called):
    return benchmark_called("ship")


def test_simulated_cases_come_first_and_some_stay_beside_the_real_ones(ship, phantoms, tmp_path, capsys):
    simulated = simulate(tmp_path / "simulated", SimulateOptions(2, 500, (24, 40, 40)))[0].parent
    given = [str(simulated), "--real", str(phantoms), "--task", "brats2015", "--work", str(tmp_path / "work")]
    given += ["--out", str(tmp_path / "tumour"), "--minutes", "0.001", "0.001", "--patch", "8", "16", "16"]
    given += ["--divisor", "8", "--folds", "2", "--beside", "1", "--licence", "CC0-1.0", "--sources", "phantoms"]
    given += ["--simulated-sources", "simulated phantoms"]
    ship.main(given)
    card = open_model(tmp_path / "tumour").card
    assert card.name == "tumour" and card.licence == "CC0-1.0" and set(card.exports) == {"fp16", "int8"}
    real = tuple(f"phantom000{number}" for number in range(3))
    assert card.training.held_out == real and card.training.folds == 2 and len(card.training.subsets) == 15
    assert card.training.data.cases == (*real, "phantom0500")
    assert card.training.started_from.data.cases == ("phantom0500", "phantom0501")
    assert (card.training.data.sources, card.training.started_from.data.sources) == ("phantoms", "simulated phantoms")
    for number in range(2):
        note = open_model(tmp_path / "work" / f"fold{number}").card.training
        assert set(note.data.cases) == {*real, "phantom0500"} - set(note.held_out)
    assert capsys.readouterr().out.count("training /") == 4
    weights = (tmp_path / "tumour" / "weights.safetensors").read_bytes()
    ship.main(given)
    assert "training /" not in capsys.readouterr().out
    assert (tmp_path / "tumour" / "weights.safetensors").read_bytes() == weights


def test_what_changes_a_recipe_is_refused_where_no_training_follows_it(ship, trained, phantoms, tmp_path, capsys):
    given = ["--from", str(trained), "--real", str(phantoms), "--task", "brats2015", "--work", str(tmp_path / "work")]
    given += ["--out", str(tmp_path / "out"), "--licence", "CC0-1.0", "--sources", "phantoms"]
    for change in (["--small-lesion-power", "0.5"], ["--rate", "2"], ["--divisor", "4"]):
        with pytest.raises(SystemExit):
            ship.main([*given, *change])
        assert f"{change[0]} is for a training on simulated cases or from nothing" in capsys.readouterr().err
    given = [
        "--rate",
        "2",
        "--small-lesion-power",
        "0.5",
        "--patch",
        "8",
        "16",
        "16",
        "--divisor",
        "4",
        "--recipe",
        "small-lesions",
    ]
    given += ["--real", "x", "--task", "t", "--work", "w", "--out", "o", "--licence", "l", "--sources", "s"]
    chosen, usual = ship.choose_recipe(ship.read_arguments(given)), ship.resize(ship.RECIPES["small-lesions"], 4)
    assert chosen.small_lesion_power == 0.5 and chosen.patch == (8, 16, 16) and chosen.widths == (8, 16, 32, 64)
    assert chosen.learning_rate == pytest.approx(2 * usual.learning_rate)


def test_real_cases_alone_go_on_from_the_model_that_is_named(ship, trained, phantoms, tmp_path):
    model = open_model(trained)
    note = model.card.training.model_copy(update={"data": Data(), "held_out": ()})
    card = model.card.model_copy(update={"name": "elder", "training": note})
    elder = save_model(tmp_path / "elder", card, model.tensors()).folder
    given = ["--real", str(phantoms), "--task", "brats2015", "--from", str(elder), "--work", str(tmp_path / "work")]
    given += ["--out", str(tmp_path / "tumour"), "--minutes", "1", "0.001", "--folds", "2"]
    ship.main([*given, "--licence", "CC0-1.0", "--sources", "phantoms", "--threshold", "0.3"])
    card = open_model(tmp_path / "tumour").card
    assert card.threshold == open_model(tmp_path / "work" / "fold0-shifted" / "last").card.threshold == 0.3
    assert open_model(tmp_path / "work" / "whole").card.threshold == 0.5 and card.training.scores
    training = card.training
    assert (
        training.started_from.name == "elder" and training.recipe["name"] == "finetune" and training.interpolated == 0.5
    )
    assert not (tmp_path / "work" / "simulated").exists()


def test_it_says_what_it_needs(ship, tmp_path, capsys):
    with pytest.raises(SystemExit):
        ship.main(
            ["--task", "brats2015", "--work", str(tmp_path), "--out", str(tmp_path), "--licence", "", "--sources", ""]
        )
    assert "name --real cases, or simulated ones and --unseen cases" in capsys.readouterr().err
