"""Training that starts from a trained model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from brainsegnet.errors import DatasetError, ModelError, TaskError
from brainsegnet.io.cases import find_cases
from brainsegnet.model.card import ComponentFilter, Data
from brainsegnet.model.network import load_into, read_tensors
from brainsegnet.model.store import open_model, save_model
from brainsegnet.task import BRATS2015, BRATS2021
from brainsegnet.training import TrainOptions
from brainsegnet.training import train as training_run
from brainsegnet.training.finetune import adopt, check_start, inherit_weights, match_channels, settle_interpolation
from brainsegnet.training.loop import Plan
from brainsegnet.training.recipes import FINETUNE, QUICK, SMALL_LESIONS, Budget
from brainsegnet.training.split import DataSplit
from brainsegnet.training.train import STATE, train


def child(model, sequences, task):
    plan = Plan(adopt(QUICK, model.card), Budget(steps=1), len(sequences), task.classes, (4, 32, 32))
    net = plan.network.build()
    load_into(net, inherit_weights(model, plan, sequences, task), "the parent")
    return net.eval()


def test_with_fewer_sequences_in_another_order_it_computes_what_the_parent_makes_of_zeros(trained):
    model, chosen = open_model(trained), ("t2", "flair")
    image = torch.randn(1, 2, 4, 16, 16)
    whole = torch.zeros(1, len(model.card.sequences), 4, 16, 16)
    whole[:, match_channels(model.card, chosen)] = image
    with torch.no_grad():
        assert torch.allclose(child(model, chosen, BRATS2015)(image), model.build()(whole), atol=1e-5)


def test_tissues_keep_their_logits(trained):
    model = open_model(trained)
    image = torch.randn(1, len(model.card.sequences), 4, 16, 16)
    with torch.no_grad():
        parent, finetuned = model.build()(image), child(model, model.card.sequences, BRATS2021)(image)
    assert torch.allclose(finetuned, parent[:, [0, 1, 2, 4]], atol=1e-5)


def test_widths_are_the_parents_and_the_rate_is_lower(trained):
    recipe = adopt(QUICK, open_model(trained).card)
    assert recipe.widths == (4, 4, 8, 8) and recipe.refined == 8 and recipe.learning_rate < QUICK.learning_rate


def test_a_model_of_any_subset_stays_one_unless_asked_otherwise(trained, strict):
    card, dropping = open_model(trained).card, QUICK.model_copy(update={"drop_sequences": 0.75})
    assert QUICK.drop_sequences == 0 and card.input.any_subset
    assert adopt(QUICK, card).drop_sequences == 0.5 and adopt(dropping, card).drop_sequences == 0.75
    assert adopt(QUICK, card, 0.0).drop_sequences == 0 and adopt(QUICK, card, 0.25).drop_sequences == 0.25
    assert adopt(QUICK, open_model(strict).card).drop_sequences == 0


def test_a_model_of_another_depth_is_refused(trained):
    card = open_model(trained).card
    deeper = card.model_copy(update={"network": card.network.model_copy(update={"widths": (4, 4, 8)})})
    with pytest.raises(TaskError, match="has 3 blocks of widths 4, 4, 8, and a recipe trains 4; start from another"):
        adopt(QUICK, deeper)


def test_a_model_of_other_sequences_is_refused(trained, phantoms, tiny, tmp_path):
    card = open_model(trained).card
    other = card.model_copy(update={"input": card.input.model_copy(update={"sequences": ("dwi", "adc", "b0", "b5")})})
    save_model(tmp_path / "other", other, open_model(trained).tensors())
    options = TrainOptions(tiny, steps=1, validation=0, start=tmp_path / "other")
    with pytest.raises(TaskError, match="takes dwi, adc, b0, b5, and the cases are trained on with flair, t1, t1c, t2"):
        train(phantoms, "brats2015", tmp_path / "finetuned", options)
    assert not (tmp_path / "finetuned").exists()


def test_what_the_parent_or_its_parents_have_seen_is_not_held_out(trained, phantoms, tiny, tmp_path):
    options = TrainOptions(tiny, steps=1, hold_out=("phantom0001",), start=trained)
    sentence = "case phantom0001 is held out, but model .* was trained on this patient, so its score would be of what"
    with pytest.raises(DatasetError, match=sentence):
        train(phantoms, "brats2015", tmp_path / "finetuned", options)
    grandparent = open_model(trained).card
    note = grandparent.training.model_copy(
        update={"data": Data(cases=("BraTS-GLI-00001-000",), count=1), "started_from": grandparent.as_parent()}
    )
    card = grandparent.model_copy(update={"name": "finetuned", "training": note})
    assert card.as_parent().ancestors == (grandparent.name,)
    assert card.as_parent().seen == ("BraTS-GLI-00001-000", "phantom0000", "phantom0001")
    cases = {case.name: case for case in find_cases([phantoms])}
    with pytest.raises(
        DatasetError, match="case phantom0000 is held out, but model finetuned was trained on this patient"
    ):
        check_start(DataSplit(BRATS2015, card.sequences, (), [cases["phantom0000"]]), card)
    sister = replace(cases["phantom0002"], name="BraTS-GLI-00001-001")
    with pytest.raises(DatasetError, match="trained on this patient, as BraTS-GLI-00001-000, so its score"):
        check_start(DataSplit(BRATS2015, card.sequences, (), [sister]), card)
    check_start(DataSplit(BRATS2015, card.sequences, (), [cases["phantom0002"]]), card)


def test_a_training_is_not_resumed_from_other_weights(trained, phantoms, tiny, tmp_path):
    options = TrainOptions(tiny, steps=1, validation=0, start=trained)
    train(phantoms, "brats2015", tmp_path / "finetuned", options)
    model = open_model(trained)
    moved = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in model.tensors().items()}
    save_model(tmp_path / "other", model.card, moved)
    for start in (tmp_path / "other", None):
        recipe = tiny if start else adopt(tiny, model.card)
        other = replace(options, recipe=recipe, start=start, resume=True, steps=2)
        with pytest.raises(ModelError, match="or one that started from other weights"):
            train(phantoms, "brats2015", tmp_path / "finetuned", other)
    train(phantoms, "brats2015", tmp_path / "finetuned", replace(options, resume=True, steps=2))


def test_one_step_leaves_the_weights_near_the_parents(trained, phantoms, tiny, tmp_path):
    options = TrainOptions(tiny, steps=1, validation=0, start=trained)
    finetuned = open_model(train(phantoms, "brats2015", tmp_path / "finetuned", options))
    assert finetuned.card.training.started_from == open_model(trained).card.as_parent()
    before, after = open_model(trained).tensors(), finetuned.tensors()
    moved = [float((after[name] - before[name]).abs().max()) for name in before if name.endswith("weight")]
    assert 0 < np.max(moved) < 0.01


def test_the_gentle_recipe_takes_network_patch_and_dropping_of_its_parent(trained, strict):
    card = open_model(trained).card
    recipe = adopt(FINETUNE, card)
    assert recipe.patch == (4, 32, 32) and recipe.widths == (4, 4, 8, 8) and recipe.learning_rate == 5e-4
    assert recipe.drop_sequences == card.training.recipe["drop_sequences"] == 0.5 and recipe.weight_interpolation == 0.5
    assert adopt(QUICK, card).patch == QUICK.patch and adopt(FINETUNE, open_model(strict).card).drop_sequences == 0


def test_small_lesions_weigh_as_in_the_parents_training_or_as_the_recipe_says(trained):
    card = open_model(trained).card
    note = card.training.model_copy(update={"recipe": {**card.training.recipe, "small_lesion_power": 0.3}})
    keen = card.model_copy(update={"training": note})
    assert (adopt(FINETUNE, card).small_lesion_power, adopt(FINETUNE, keen).small_lesion_power) == (0, 0.3)
    assert adopt(SMALL_LESIONS, keen).small_lesion_power == SMALL_LESIONS.small_lesion_power == 0.5
    assert adopt(QUICK, keen).small_lesion_power == 0


def test_by_default_a_training_from_a_model_keeps_half_of_it_and_the_card_says_so(
    trained, phantoms, recorder, tmp_path
):
    heard, options = recorder(), TrainOptions(steps=2, validation=0, start=trained)
    finetuned = open_model(train(phantoms, "brats2015", tmp_path / "finetuned", options, heard))
    note, before, after = finetuned.card.training, open_model(trained).tensors(), finetuned.tensors()
    assert note.recipe["name"] == "finetune" and note.interpolated == note.recipe["weight_interpolation"] == 0.5
    assert "recipe finetune" in heard.messages[0]
    assert not any("keeps no share" in sentence for sentence in heard.messages)
    average, _ = read_tensors(tmp_path / "finetuned" / STATE)
    for name, tensor in after.items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, 0.5 * (before[name] + average[f"average.{name}"]), atol=1e-6), name


def test_a_training_that_keeps_a_share_of_the_weights_keeps_the_margin_of_components_too(
    trained, phantoms, tiny, tmp_path, monkeypatch
):
    scored = []
    half = {"whole": np.array([0.5])}
    monkeypatch.setattr(training_run, "score", lambda net, scans, task, margin: scored.append(margin) or half)
    model = open_model(trained)
    components = ComponentFilter(confidence_margin=0.12, kept={"flair": {"whole": 0.5}})
    parent = save_model(
        tmp_path / "parent", model.card.model_copy(update={"components": components}), model.tensors()
    ).folder
    for recipe, margin in ((None, 0.12), (tiny, None)):
        options = TrainOptions(recipe, steps=1, hold_out=("phantom0002",), validations=1, start=parent)
        child = open_model(train(phantoms, "brats2015", tmp_path / f"{margin}", options))
        assert child.card.components == ComponentFilter(confidence_margin=margin)
        assert {*scored} == {margin}, "held-out cases are scored as segment would find them"
        scored.clear()


def test_a_recipe_that_keeps_nothing_of_the_model_is_taken_with_a_warning(trained, phantoms, tiny, recorder, tmp_path):
    heard = recorder()
    options = TrainOptions(tiny, steps=1, validation=0, start=trained)
    finetuned = open_model(train(phantoms, "brats2015", tmp_path / "finetuned", options, heard))
    assert finetuned.card.training.recipe["name"] == "quick" and finetuned.card.training.interpolated == 0
    assert sum("recipe quick keeps no share of the weights" in sentence for sentence in heard.messages) == 1


def test_what_the_model_does_not_know_is_not_averaged_with_random_weights(trained):
    card = open_model(trained).card
    known = card.sequences[:2]
    assert settle_interpolation(FINETUNE, card, known, BRATS2021) == FINETUNE
    assert settle_interpolation(FINETUNE, card, ("flair", "pet"), BRATS2021).weight_interpolation == 0
    vessels = BRATS2021.model_copy(update={"labels": {1: "vessel"}})
    assert settle_interpolation(FINETUNE, card, known, vessels).weight_interpolation == 0


def test_a_gentle_recipe_without_a_model_is_refused(phantoms, tmp_path):
    with pytest.raises(TaskError, match=r"recipe finetune keeps a share of the weights .*; name a model with --from"):
        train(phantoms, "brats2015", tmp_path / "run", TrainOptions("finetune", steps=1, validation=0))
