"""A tiny network with lively weights, its model folder, and a tiny head."""

import copy

import numpy as np
import pytest

from brainsegnet.inference.engine import Engine
from brainsegnet.model.store import Architecture, Card, Input, save_model
from brainsegnet.task import BRATS2021
from brainsegnet.volume import Case, Volume


@pytest.fixture(autouse=True)
def always_one_thread(one_thread):
    """As all tests here compute."""


@pytest.fixture(scope="session")
def lively():
    """Its batch norms and classifier are drawn at random, so that no part of it is idle."""
    import torch
    from torch import nn

    from brainsegnet.model.architecture import BrainSegNet

    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = BrainSegNet(3, 4, (4, 4, 8, 8), 8)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm3d):
                for tensor in (module.weight, module.running_var):
                    nn.init.uniform_(tensor, 0.5, 1.5)
                for tensor in (module.bias, module.running_mean):
                    nn.init.normal_(tensor)
        nn.init.normal_(net.classify.weight)
    return net.eval()


@pytest.fixture
def net(lively):
    return copy.deepcopy(lively)


@pytest.fixture
def card():
    return Card(
        name="tiny",
        task=BRATS2021,
        input=Input(sequences=("flair", "t1", "t1c")),
        network=Architecture(widths=(4, 4, 8, 8), refined=8),
    )


@pytest.fixture
def model(net, card, tmp_path):
    return save_model(tmp_path / "tiny", card, net.state_dict())


@pytest.fixture
def forgiving(net, card, tmp_path):
    """A model that takes any subset of its sequences."""
    from brainsegnet.inference.torch_backend import TorchBackend

    any_subset = card.model_copy(update={"input": Input(sequences=card.sequences, any_subset=True)})
    save_model(tmp_path / "forgiving", any_subset, net.state_dict())
    return Engine(any_subset, TorchBackend(net, "cpu"))


@pytest.fixture
def engine(model):
    from brainsegnet.inference.torch_backend import TorchBackend

    return Engine(model.card, TorchBackend(model.build(), "cpu"))


@pytest.fixture
def image(rng):
    return rng.normal(size=(3, 7, 17, 13)).astype(np.float32)


@pytest.fixture
def case(rng):
    """Three sequences with a brain of uneven sides off the middle, voxels of 2 x 1 x 0.5 mm, upright."""
    affine = np.array([[0, 0, 0.5, -9], [0, 1, 0, 5], [2, 0, 0, 7], [0, 0, 0, 1.0]])
    brain = np.zeros((10, 22, 20), bool)
    brain[2:9, 3:20, 5:18] = True
    images = {
        name: Volume(np.where(brain, rng.normal(500, 100, brain.shape), 0).astype(np.float32), affine)
        for name in ("flair", "t1", "t1c")
    }
    return Case("pat1", images)
