"""Small heads, and a stream of luck, for the tests of the generators."""

import numpy as np
import pytest
import torch

from brainsegnet.synthesis.anatomy import grow_anatomy, spacing_for
from brainsegnet.synthesis.fields import Luck
from brainsegnet.synthesis.heads import Anatomy, from_seed
from brainsegnet.synthesis.phantom import affine_for
from brainsegnet.synthesis.territories import lay_ground
from brainsegnet.volume import LabelMap

SMALL = (38, 49, 40)


@pytest.fixture(scope="session")
def head() -> Anatomy:
    torch.set_num_threads(1)
    return from_seed(np.random.default_rng(3), (48, 64, 52))


@pytest.fixture
def luck() -> Luck:
    return Luck.of(np.random.default_rng(5))


@pytest.fixture(scope="session")
def small_head():
    """A head of voxels of about 4 mm."""
    return LabelMap(grow_anatomy(np.random.default_rng(1), SMALL), affine_for(SMALL, spacing_for(SMALL)))


@pytest.fixture(scope="session")
def small_ground(small_head):
    return lay_ground(np.random.default_rng(2), small_head)
