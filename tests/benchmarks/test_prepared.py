"""Simulated scans as challenges give them."""

import numpy as np
import pytest

from brainsegnet.inference.raw import find_skull_state
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image
from brainsegnet.preprocessing.grids import build_working_grid


@pytest.fixture(scope="module")
def images(benchmark_called, tmp_path_factory):
    (case,) = find_cases([benchmark_called("prepared").simulate_prepared(tmp_path_factory.mktemp("prepared"), 1)])
    return {name: read_image(path) for name, path in case.images.items()}


def test_the_network_takes_them_as_they_are(images):
    reference = images["flair"]
    assert sorted(images) == ["flair", "t1", "t1c", "t2"]
    assert build_working_grid(reference, 1.0).on_grid_of(reference)
    for image in images.values():
        assert image.shape == (155, 240, 240)
        assert image.on_grid_of(reference)
        assert find_skull_state(image) == "stripped"


def test_all_of_the_head_is_inside_an_empty_border(images):
    for image in images.values():
        inside = np.argwhere(image.array)
        assert (inside.min(0) >= (0, 22, 22)).all()
        assert (inside.max(0) < (154, 218, 218)).all()
