"""What is no infarct: old lesions beside the core."""

import numpy as np
import pytest

from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.anatomy.territories import brain_tissue
from brainsegnet.simulation.stroke_appearance import Mimic, add_mimics


@pytest.fixture(scope="module")
def core(small_ground):
    return brain_tissue(small_ground.tissue) & (np.linalg.norm(small_ground.points.T - (30, 0, 40), axis=-1).T < 20)


def test_same_seed_same_mimics(small_ground, core):
    first, again, other = (add_mimics(np.random.default_rng(seed), small_ground, core) for seed in (3, 3, 4))
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_mimics_lie_in_the_brain_and_never_in_the_core(small_ground, core):
    seen = set()
    for seed in range(15):
        mimics = add_mimics(np.random.default_rng(seed), small_ground, core)
        assert core.any() and not mimics[core].any() and not mimics[~brain_tissue(small_ground.tissue)].any()
        assert set(np.unique(small_ground.tissue[mimics == Mimic.HYPERINTENSITY])) <= {Tissue.WHITE}
        seen |= set(np.unique(mimics))
    assert seen == set(Mimic)
