"""The image itself: the network against PyTorch's, how a head is found and cut, and heads whose names are hidden."""

import numpy as np
import pytest

from brainsegnet.io.images import read_image
from brainsegnet.pipeline import contrast
from brainsegnet.pipeline.contrast import (
    CLASSES,
    INPUT,
    WEIGHTS,
    classify,
    convolve,
    find_head,
    prepare_input,
    read_contrast,
)
from brainsegnet.pipeline.headers import weigh
from brainsegnet.volume import Volume

AXES = np.eye(4)[[2, 1, 0, 3]]


def make_ball(spacing=(2.0, 2.0, 2.0), offset=0.0, scale=1.0, shape=(80, 100, 90)):
    """A bright ball of 70 mm around a darker one of 30 mm."""
    shape = tuple(int(n * 2 / mm) for n, mm in zip(shape, spacing, strict=True))
    z, y, x = (np.arange(n) * mm - n * mm / 2 for n, mm in zip(shape, spacing, strict=True))
    radius = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    image = np.where(radius < 30, 0.5, np.where(radius < 70, 1.0, 0.0)) * scale + offset
    affine = AXES.copy()
    affine[:3, :3] *= spacing
    return Volume(image.astype(np.float32), affine)


def test_a_convolution_is_that_of_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    image, kernel, bias = rng.normal(size=(2, 7, 8, 9)), rng.normal(size=(4, 2, 3, 3, 3)), rng.normal(size=4)
    expected = torch.nn.functional.conv3d(*map(torch.from_numpy, (image[None], kernel, bias)), stride=2, padding=1)
    np.testing.assert_allclose(convolve(image, kernel, bias), expected[0].numpy(), atol=1e-10)


def test_the_weights_are_small():
    assert WEIGHTS.stat().st_size < 100_000


def test_the_head_is_found_above_the_level_of_air():
    volume = make_ball((4.0, 4.0, 4.0), offset=7.0)
    air, head = find_head(volume.array)
    assert air == 7 and head.sum() * 0.064 == pytest.approx(4 / 3 * np.pi * 7**3, rel=0.2)
    assert not find_head(np.zeros((8, 8, 8), np.float32))[1].any()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (4.0, 1.0, 1.0)])
def test_the_input_depends_neither_on_the_grid_nor_on_the_scale(spacing):
    first, other = prepare_input(make_ball()), prepare_input(make_ball(spacing, offset=-3.0, scale=250.0))
    assert first.shape == (2, *INPUT) and np.abs(first - other).mean() < 0.04
    assert first[0, INPUT[0] // 2, INPUT[1] // 2, INPUT[2] // 2] == pytest.approx(2 / 3, abs=0.1)


def test_the_input_is_upright():
    volume = make_ball()
    volume.array[:40, 20:50, 30:60] *= 3
    turned = Volume(volume.array[::-1].transpose(1, 2, 0), volume.affine)
    affine = np.eye(4)
    affine[:3, :3] = volume.affine[:3, [1, 2, 0]] * (1, 1, -1)
    affine[:3, 3] = volume.affine[:3, 0] * (volume.shape[0] - 1)
    np.testing.assert_allclose(prepare_input(Volume(turned.array, affine)), prepare_input(volume), atol=1e-5)


def test_label_maps_and_empty_images():
    labels = np.zeros((20, 20, 20), np.float32)
    labels[5:15, 5:15, 5:15] = 2
    assert [item.sequence for item in read_contrast(Volume(labels, AXES))] == ["mask"]
    assert not prepare_input(Volume(np.zeros((9, 9, 9)), AXES)).any()


def test_doubt_is_no_evidence(monkeypatch):
    chances = dict.fromkeys(CLASSES, 1 / len(CLASSES))
    monkeypatch.setattr(contrast, "classify", lambda volume: chances)
    volume = make_ball((4.0, 4.0, 4.0), scale=1000.0)
    volume.array[:] += np.random.default_rng(0).normal(0, 1, volume.shape)
    assert read_contrast(volume) == []
    for given, expected in ((0.55, "t1c"), (0.44, "t1"), (0.1, "t1")):
        chances.update(dict.fromkeys(CLASSES, 0.01), t1=0.93 - given, t1c=given)
        (evidence,) = read_contrast(volume)
        assert evidence.sequence == "t1" and evidence.confidence == 0.9
    assert evidence.contrast is False and weigh([evidence]).sequence == expected
    chances.update(dict.fromkeys(CLASSES, 0.01), none=0.9)
    assert read_contrast(volume) == []


def test_probabilities_add_up():
    chances = classify(make_ball())
    assert tuple(chances) == CLASSES and sum(chances.values()) == pytest.approx(1)
