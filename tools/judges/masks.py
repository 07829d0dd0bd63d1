"""Pairs of label maps for scoring: special cases by name, and random ones. Labels are those of BraTS 2023: 1, 2, 3."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Labels = NDArray[np.uint8]
Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]

REGIONS: Mapping[str, Sequence[int]] = {"whole": (1, 2, 3), "core": (1, 3), "enhancing": (3,)}
THICK: Spacing = (6.5, 1.2, 1.2)
UNIT: Spacing = (1.0, 1.0, 1.0)
SPACINGS = (UNIT, UNIT, (2.0, 2.0, 2.0), THICK, (3.0, 0.9, 0.9))
LARGE: Shape = (48, 72, 64)
SMALL: Shape = (20, 44, 40)


@dataclass(frozen=True, eq=False)
class Pair:
    """A predicted and a true label map (D, H, W) on one grid."""

    name: str
    predicted: Labels
    truth: Labels
    spacing_mm: Spacing = UNIT

    def masks(self, region: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """The predicted and the true mask of a region."""
        return np.isin(self.predicted, REGIONS[region]), np.isin(self.truth, REGIONS[region])


def make_pairs(random: int = 40) -> list[Pair]:
    """The special cases and so many random ones; always the same."""
    return [*special_pairs(), *random_pairs(random)]


def special_pairs() -> Iterator[Pair]:
    """What definitions differ about: shifts, many foci, thick slices, single voxels, empty masks, borders."""
    nothing = np.zeros(LARGE, np.uint8)
    tumour = _tumour(LARGE, (20, 30, 30), 12.0)
    focus = _tumour(LARGE, (38, 58, 50), 4.0)
    yield Pair("shifted, one focus missed", np.roll(tumour, (1, 1, 1), (0, 1, 2)), tumour | focus)
    truth, predicted = _foci(LARGE)
    yield Pair("twelve foci", predicted, truth)
    yield Pair("thick slices", predicted[::6].copy(), truth[::6].copy(), THICK)
    yield Pair("one voxel each", _voxel((10, 20, 20)), _voxel((12, 24, 20)))
    yield Pair("one voxel, the same", _voxel((10, 20, 20)), _voxel((10, 20, 20)))
    yield Pair("nothing predicted", nothing, tumour)
    yield Pair("nothing true", tumour, nothing)
    yield Pair("nothing at all", nothing, nothing)
    yield Pair("equal", tumour, tumour)
    yield Pair("at the border", _tumour(LARGE, (2, 3, 62), 9.0), _tumour(LARGE, (0, 0, 63), 9.0))
    two = _tumour(LARGE, (20, 20, 24), 6.0) | _tumour(LARGE, (20, 44, 24), 6.0)
    bridge = two.copy()
    bridge[19:22, 20:45, 23:26] = 3
    yield Pair("one prediction over two lesions", bridge, two)
    yield Pair("two predictions in one lesion", two, bridge)
    yield Pair("no overlap", np.roll(focus, -11, 2), focus)


def random_pairs(count: int) -> Iterator[Pair]:
    """Smooth noise above thresholds, the prediction moved and disturbed, on grids of several spacings."""
    for number in range(count):
        rng = np.random.default_rng(number)
        truth = _noise(rng)
        predicted = np.roll(truth, rng.integers(-2, 3, 3), (0, 1, 2)) + rng.uniform(0.1, 1.2) * _noise(rng)
        found, known = (_layers(noise, rng.uniform(0.01, 0.12)) for noise in (predicted, truth))
        yield Pair(f"random {number}", found, known, SPACINGS[number % len(SPACINGS)])


def _noise(rng: np.random.Generator) -> NDArray[np.float64]:
    noise = ndimage.gaussian_filter(rng.standard_normal(SMALL), 2.0)
    return np.asarray(noise / noise.std())


def _layers(noise: NDArray[np.float64], share: float) -> Labels:
    """Oedema, necrosis and enhancement as nested shares of the highest values."""
    edges = np.quantile(noise, (1 - share, 1 - share / 2, 1 - share / 4))
    return np.array((0, 2, 1, 3), np.uint8)[np.searchsorted(edges, noise)]


def _tumour(shape: Shape, centre: Iterable[float], radius: float) -> Labels:
    """Nested balls: oedema, enhancement, necrosis."""
    axes = np.ogrid[tuple(slice(size) for size in shape)]
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)))
    return np.select([distance < 0.3 * radius, distance < 0.6 * radius, distance < radius], [1, 3, 2]).astype(np.uint8)


def _foci(shape: Shape) -> tuple[Labels, Labels]:
    """Twelve true foci, of which two are missed, and three invented ones."""
    rng, truth, predicted = np.random.default_rng(12), np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for number in range(15):
        centre = [10 + 13 * (number % 3), 10 + 16 * (number // 3 % 4), 10 + 20 * (number % 3)]
        focus = _tumour(shape, np.add(centre, rng.uniform(-3, 3, 3)), rng.uniform(2.5, 5.5))
        if number < 12:
            truth = np.maximum(truth, focus)
        if number not in (4, 9):
            predicted = np.maximum(predicted, np.roll(focus, rng.integers(-1, 2, 3), (0, 1, 2)))
    return truth, predicted


def _voxel(place: Shape) -> Labels:
    labels = np.zeros(LARGE, np.uint8)
    labels[place] = 3
    return labels
