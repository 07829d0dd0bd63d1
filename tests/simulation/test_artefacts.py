"""Every fault is a pure function, each does nothing when it is set to nothing, and outside the brain stays 0."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from brainsegnet.simulation.artefacts import (
    add_bias,
    add_noise,
    cut_view,
    degrade,
    draw_artefacts,
    ghost,
    move,
    near_coil,
    scan_slices,
    slice_matrices,
)
from brainsegnet.simulation.fields import RandomStreams, blur

SPACING = (2.0, 1.0, 1.0)


@pytest.fixture
def image(streams):
    return blur(streams.normal((20, 30, 24)).abs(), 1.0)


@pytest.fixture
def mask():
    mask = torch.zeros((20, 30, 24), dtype=torch.bool)
    mask[3:17, 5:25, 4:20] = True
    return mask


@pytest.mark.parametrize("seed", range(12))
def test_the_background_stays_0_and_the_same_seed_gives_the_same_image(image, mask, seed):
    how = draw_artefacts(np.random.default_rng(seed))
    worst = replace(how, shift_mm=3.0, ghost=0.1, thick_mm=5.0, cut=(0.1, 0.2), coil=0.8)
    near = near_coil(mask, SPACING)
    for one in (how, worst):
        first, again = (
            degrade(image, mask, near, RandomStreams.of(np.random.default_rng(seed)), one, SPACING) for _ in range(2)
        )
        assert torch.equal(first, again) and not first[~mask].any() and first.isfinite().all() and first.min() >= 0


def test_faults_of_no_strength_change_nothing(image, streams, mask):
    assert torch.allclose(add_bias(image, streams, 0.0, 50.0, SPACING), image)
    assert torch.allclose(add_noise(image, streams, 0.0), image)
    assert torch.allclose(move(image, 0.0, 0.4, 1), image, atol=1e-5)
    assert torch.allclose(ghost(image, 0.0, 3, 2), image, atol=1e-5)
    assert torch.equal(cut_view(mask, (0.0, 0.0)), mask)


def test_a_coil_hears_the_surface_better_than_the_midst():
    z, y, x = torch.meshgrid(*(torch.arange(-40, 41).float() for _ in range(3)), indexing="ij")
    mask = (z**2 + y**2 + x**2).sqrt() < 36
    spacing = (2.0, 2.0, 2.0)
    near = near_coil(mask, spacing)
    ray = near[40, 40, 40:76]
    assert ray[0] < 0.1 and 0.75 < ray[-1] < 1.2 and (ray.diff() >= 0).all()
    assert near_coil(mask, (2.1, 2.0, 2.0))[40, 40, 70] == pytest.approx(ray[30].item(), abs=0.1)
    clean = replace(draw_artefacts(np.random.default_rng(1)), bias=0.0, noise=1e-6, blur_mm=0.0, thick_mm=0.0)
    clean = replace(clean, shift_mm=0.0, ghost=0.0, cut=(0.0, 0.0))
    assert clean.coil == 0.0
    flat = torch.ones_like(near)
    found = degrade(flat, mask, near, RandomStreams.of(np.random.default_rng(2)), replace(clean, coil=0.5), spacing)
    assert torch.allclose(found[mask], torch.exp(0.5 * near)[mask], rtol=1e-4)


def test_noise_is_rician(streams):
    still = add_noise(torch.zeros((30, 30, 30)), streams, 0.5)
    assert still.mean() == pytest.approx(0.5 * np.sqrt(np.pi / 2), rel=0.02)
    bright = add_noise(torch.full((30, 30, 30), 10.0), streams, 0.5)
    assert bright.std() == pytest.approx(0.5, rel=0.03)


def test_a_whole_move_is_a_shift(image):
    assert torch.allclose(move(image, 3.0, 1.0, 1), image.roll(3, 1), atol=0.02)


def test_ghosts_stand_at_even_distances():
    image = torch.zeros((2, 24, 2))
    image[:, 4] = 1
    lines = ghost(image, 0.1, 3, 1)[0, :, 0]
    assert set(torch.topk(lines, 3).indices.tolist()) == {4, 12, 20}


def test_thick_slices_keep_a_constant_and_take_detail_away(image, streams):
    down, up = slice_matrices(40, 1.0, 5.0, torch.device("cpu"))
    assert down.shape == (8, 40) and torch.allclose(up @ down @ torch.ones(40), torch.ones(40), atol=1e-5)
    quiet = replace(draw_artefacts(np.random.default_rng(0)), blur_mm=0.0, noise=0.0, axis=1)
    thin, thick = (scan_slices(image, streams, replace(quiet, thick_mm=t), SPACING) for t in (0.0, 5.0))
    assert torch.allclose(thin, image) and thick.diff(dim=1).abs().mean() < 0.6 * thin.diff(dim=1).abs().mean()


def test_a_short_field_of_view_loses_slices_at_its_ends(mask):
    kept = cut_view(mask, (0.15, 0.3))
    assert torch.nonzero(kept.any(dim=-1).any(dim=-1)).ravel().tolist() == list(range(5, 13))


def test_slices_are_not_encoded_in_phase():
    drawn = [draw_artefacts(np.random.default_rng(seed)) for seed in range(300)]
    assert {(how.axis, how.phase) for how in drawn} == {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}
