"""Shared by all tests: where the real scans are, and a generator seeded once."""

import os
from pathlib import Path

import numpy as np
import pytest

BESIDE_THE_CHECKOUT = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = Path(os.environ.get("BRAINSEGNET_TEST_DATA", BESIDE_THE_CHECKOUT))
    if not folder.is_dir():
        pytest.skip(f"real scans are not at {folder}; name their folder in BRAINSEGNET_TEST_DATA")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
