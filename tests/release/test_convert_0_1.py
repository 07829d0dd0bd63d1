"""Cards and states as version 0.1 wrote them are read after the conversion, and a training goes on to the bit."""

import json
from shutil import copytree

import pytest

from brainsegnet.model.card import Card
from brainsegnet.model.network import read_tensors, write_tensors
from brainsegnet.model.store import CARD_FILE, open_model, shipped_models
from brainsegnet.training.recipes import FINETUNE, SMALL_LESIONS
from brainsegnet.training.train import STATE
from release.convert_0_1 import convert_card, convert_fingerprint, convert_folder

NAMES = {"components": "islands", "confidence_margin": "margin", "alpha": "tail", "simulated": "grown"}
NAMES |= {"size": "slots", "refresh_every": "every", "interpolated": "blended"}
NAMES |= {"small_lesion_power": "small", "weight_interpolation": "blend"}
VALUES = {"finetune": "tune", "small-lesions": "foci"}


def as_0_1(content):
    """A card or a recipe in the words of 0.1."""
    if isinstance(content, dict):
        return {NAMES.get(name, name): as_0_1(value) for name, value in content.items()}
    if isinstance(content, list):
        return [as_0_1(value) for value in content]
    return VALUES.get(content, content) if isinstance(content, str) else content


def without_new_fields(recipe):
    """A recipe as fingerprints of 0.1 had it: two values stood behind it, where they were set."""
    return {name: value for name, value in as_0_1(recipe).items() if name not in ("small", "blend")}


@pytest.mark.parametrize("name", sorted(shipped_models()))
def test_cards_of_the_package_come_back_from_the_words_of_0_1(name):
    card = shipped_models()[name].card
    old = as_0_1(card.model_dump(mode="json"))
    assert "islands" in old and "components" not in old
    converted = Card.model_validate(convert_card(old))
    assert converted == card and Card.model_validate(convert_card(converted.model_dump(mode="json"))) == card


@pytest.mark.parametrize("recipe", [FINETUNE, SMALL_LESIONS], ids=lambda recipe: recipe.name)
def test_a_fingerprint_of_0_1_told_some_values_apart(recipe):
    old = {
        name: value for name, value in as_0_1(recipe.model_dump(mode="json")).items() if name not in ("small", "blend")
    }
    told = f" blended {recipe.weight_interpolation}" if recipe.weight_interpolation else ""
    told += f" small {recipe.small_lesion_power}" if recipe.small_lesion_power else ""
    text = f"{json.dumps(old, separators=(',', ':'))} 4 5 () (8, 8, 8) 0 x from abc{told} 3 made by cubes"
    assert convert_fingerprint(text) == f"{recipe.model_dump_json()} 4 5 () (8, 8, 8) 0 x from abc 3 made by cubes"


def test_a_run_of_0_1_has_its_models_and_its_state_converted(trained, tmp_path):
    run = tmp_path / "run"
    copytree(trained, run)
    tensors, notes = read_tensors(run / STATE)
    counters = json.loads(notes["training"])
    content, end = json.JSONDecoder().raw_decode(counters["plan"])
    old = without_new_fields(content)
    expected = counters["plan"]
    counters["plan"] = json.dumps(old, separators=(",", ":")) + expected[end:]
    write_tensors(tensors, run / STATE, {**notes, "training": json.dumps(counters)})
    cards = sorted(run.glob(f"*/{CARD_FILE}"))
    before = [Card.model_validate_json(path.read_bytes()) for path in cards]
    for path in cards:
        path.write_text(json.dumps(as_0_1(json.loads(path.read_text()))))
    log = (run / "log.csv").read_text()
    (run / "log.csv").write_text(log.replace("learning_rate", "rate", 1).replace("data_wait", "waiting", 1))
    assert len(convert_folder(run)) == 2 + len(cards)
    assert (run / "log.csv").read_text() == log
    assert json.loads(read_tensors(run / STATE)[1]["training"])["plan"] == expected
    assert [Card.model_validate_json(path.read_bytes()) for path in cards] == before
    assert open_model(run).folder == run / "best"
