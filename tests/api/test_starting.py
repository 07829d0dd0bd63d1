"""Training that starts from a trained model."""

import numpy as np
import torch

from brainsegnet.api.options import TrainOptions
from brainsegnet.api.starting import adopt, inherit, same_channels
from brainsegnet.api.training_run import train
from brainsegnet.inference.model import open_model
from brainsegnet.network.checkpoint import load_into
from brainsegnet.task import BRATS2015, BRATS2021
from brainsegnet.training.curriculum import QUICK, Budget
from brainsegnet.training.plan import Plan


def child(model, sequences, task):
    plan = Plan(adopt(QUICK, model.card), Budget(steps=1), len(sequences), task.classes, (4, 32, 32))
    net = plan.network.build()
    load_into(net, inherit(model, plan, sequences, task), "the parent")
    return net.eval()


def test_with_fewer_sequences_in_another_order_it_computes_what_the_parent_makes_of_zeros(trained):
    model, chosen = open_model(trained), ("t2", "flair")
    image = torch.randn(1, 2, 4, 16, 16)
    whole = torch.zeros(1, len(model.card.sequences), 4, 16, 16)
    whole[:, same_channels(model.card, chosen)] = image
    with torch.no_grad():
        assert torch.allclose(child(model, chosen, BRATS2015)(image), model.build()(whole), atol=1e-5)


def test_tissues_keep_their_logits(trained):
    model = open_model(trained)
    image = torch.randn(1, len(model.card.sequences), 4, 16, 16)
    with torch.no_grad():
        parent, heir = model.build()(image), child(model, model.card.sequences, BRATS2021)(image)
    assert torch.allclose(heir, parent[:, [0, 1, 2, 4]], atol=1e-5)


def test_widths_are_the_parents_and_the_rate_is_lower(trained):
    recipe = adopt(QUICK, open_model(trained).card)
    assert recipe.widths == (4, 4, 8, 8) and recipe.refined == 8 and recipe.learning_rate < QUICK.learning_rate


def test_one_step_leaves_the_weights_near_the_parents(trained, phantoms, tiny, tmp_path):
    options = TrainOptions(tiny, Budget(steps=1), validation=0, start=trained)
    heir = open_model(train(phantoms, "brats2015", tmp_path / "heir", options))
    assert heir.card.training.started_from == str(trained)
    before, after = open_model(trained).tensors(), heir.tensors()
    moved = [float((after[name] - before[name]).abs().max()) for name in before if name.endswith("weight")]
    assert 0 < np.max(moved) < 0.01
