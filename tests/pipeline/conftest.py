"""Every test of this folder computes with one thread."""

import pytest


@pytest.fixture(autouse=True)
def always_one_thread(one_thread):
    """As all tests here compute."""
