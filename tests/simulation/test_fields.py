"""Matrices along axes do what scipy and grid_sample do."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from brainsegnet.simulation.fields import RandomStreams, blur, grid, noise, resize, sample


def test_a_blur_is_scipys(rng):
    field = np.pad(rng.normal(size=(8, 9, 7)), 9).astype(np.float32)
    ours = blur(torch.as_tensor(field), (1.5, 1.0, 2.0)).numpy()
    theirs = ndimage.gaussian_filter(field, (1.5, 1.0, 2.0), truncate=8, mode="nearest")
    assert np.abs(ours - theirs).max() < 2e-4


def test_a_blur_keeps_a_constant_and_resize_a_ramp():
    assert torch.allclose(blur(torch.full((5, 6, 7), 3.0), 2.0), torch.tensor(3.0))
    ramp = grid((5, 9, 3))[1]
    assert torch.allclose(resize(resize(ramp, (5, 17, 3)), (5, 9, 3)), ramp, atol=1e-5)


@pytest.mark.parametrize("grain_mm", [0.5, 3.0, 20.0])
def test_noise_has_unit_variance_and_the_grain_it_was_asked_for(streams, grain_mm):
    field = noise(streams, (40, 40, 40), (1.0, 1.5, 2.0), grain_mm, 12)
    assert field.shape == (12, 40, 40, 40) and abs(field.square().mean() - 1) < 0.25
    steps = [field.diff(dim=axis).square().mean() for axis in (1, 2, 3)]
    expected = [2 - 2 * np.exp(-((s / max(grain_mm, s)) ** 2) / 4) for s in (1.0, 1.5, 2.0)]
    assert np.allclose(steps, expected, rtol=0.35)


def test_sampling_at_the_grid_changes_nothing_and_between_voxels_is_linear(streams):
    field = streams.normal((2, 4, 5, 6))
    assert torch.allclose(sample(field, grid((4, 5, 6))), field, atol=1e-5)
    half = torch.tensor([0.5, 2.0, 3.0]).view(3, 1, 1, 1)
    assert torch.allclose(sample(field, half).ravel(), (field[:, 0, 2, 3] + field[:, 1, 2, 3]) / 2, atol=1e-5)


def test_the_same_seed_gives_the_same_random_numbers():
    one, other = (RandomStreams.of(np.random.default_rng(9)) for _ in range(2))
    assert torch.equal(one.normal((3, 3)), other.normal((3, 3))) and one.numpy_rng.random() == other.numpy_rng.random()
