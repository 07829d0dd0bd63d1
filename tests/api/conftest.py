import numpy as np
import pytest
from scipy import ndimage


class Islands:
    """Passes that find noise: many islands, of which they are more or less sure, the same in every image."""

    def __init__(self, classes):
        self.classes = classes

    def probabilities(self, image):
        noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(self.classes, *image.shape[1:])), 1.5)
        noise[0] += 0.1
        chances = np.exp(12 * noise)
        return (chances / chances.sum(0)).astype(np.float32)

    def classify(self, image, slabs=None):
        return self.probabilities(image).argmax(0).astype(np.uint8)

    def classify_surely(self, image, slabs=None):
        return self.classify(image), np.rint(255 * (1 - self.probabilities(image)[0])).astype(np.uint8)


@pytest.fixture
def many_islands():
    """`Islands`, for a number of classes."""
    return Islands
