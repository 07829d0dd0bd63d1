"""One thread, so that results are the same on every machine, and scans small enough to train on in seconds."""

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def always_one_thread(one_thread):
    """As all tests here compute."""


def blob(shape, centre, radius):
    """A ball of ones in zeros (D, H, W)."""
    grid = np.indices(shape) - np.array(centre)[:, None, None, None]
    return (np.square(grid).sum(0) <= radius**2).astype(np.uint8)


@pytest.fixture
def make_scan():
    """Builds a scan of 2 sequences with a lesion of classes 1 and 2; the first sequence shows it plainly."""
    from brainsegnet.training.sampler import Scan

    def make(shape=(8, 24, 24), depth=None, first=0, centre=None, radius=5, seed=0):
        rng = np.random.default_rng(seed)
        centre = centre or tuple(n // 2 for n in shape)
        classes = blob(shape, centre, radius) + blob(shape, centre, radius / 2)
        image = np.stack([classes - 0.5, np.zeros(shape)]) + rng.normal(0, 0.2, (2, *shape))
        image[:, :, :2] = 0
        return Scan(image.astype(np.float32), classes, depth or shape[0], first)

    return make


@pytest.fixture
def mirror():
    """Builds a scan whose only sequence is its own label map: what happens to one must happen to the other."""
    from brainsegnet.training.sampler import Scan

    def make(classes, depth=None, first=0):
        return Scan(classes[None].astype(np.float32), classes.astype(np.uint8), depth or classes.shape[0], first)

    return make
