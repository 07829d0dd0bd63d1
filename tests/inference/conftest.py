"""Engines of the tiny network, and a tiny head."""

import numpy as np
import pytest

from brainsegnet.inference.predict import Engine
from brainsegnet.model.card import Input
from brainsegnet.model.store import save_model
from brainsegnet.volume import Case, Volume


@pytest.fixture(autouse=True)
def always_one_thread(one_thread):
    """As all tests here compute."""


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
