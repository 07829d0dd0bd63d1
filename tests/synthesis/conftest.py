"""One small head, and a stream of luck, for the tests of the realistic generator."""

import numpy as np
import pytest
import torch

from brainsegnet.synthesis.fields import Luck
from brainsegnet.synthesis.heads import Anatomy, from_seed


@pytest.fixture(scope="session")
def head() -> Anatomy:
    torch.set_num_threads(1)
    return from_seed(np.random.default_rng(3), (48, 64, 52))


@pytest.fixture
def luck() -> Luck:
    return Luck.of(np.random.default_rng(5))
