import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from brainsegnet.training.augment import AugmentParams, augment_intensity, draw_params, drop_sequences, reorient, window
from brainsegnet.training.recipes import STRONG, Augmentation

EVERYTHING = Augmentation(
    gain=(0.5, 2.0), shift=(-1, 1), gamma=(0.5, 2.0), noise=1.0, blur=0.5, angle_deg=180, flips=(0.5, 0.5, 0.5)
)


def draws(how, count=400, sequences=3, slices=4):
    rng = np.random.default_rng(0)
    return [draw_params(rng, how, sequences, slices) for _ in range(count)]


@pytest.fixture
def brain():
    """A batch (2, 3, 4, 16, 16) of z-scores in an ellipse, zero around it."""
    torch.manual_seed(0)
    r = torch.hypot(*torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 16), indexing="ij"))
    return torch.randn(2, 3, 4, 16, 16) * (r < 0.8)


def test_the_paper_draws_what_the_paper_says():
    batch = draws(Augmentation())
    assert all(0.5 <= c.scale <= 1.2 for c in batch) and {c.turns for c in batch} == {0, 1, 2, 3}
    assert min(c.scale for c in batch) < 0.55 and max(c.scale for c in batch) > 1.15
    assert {c.flips for c in batch} == {(False, a, b) for a in (False, True) for b in (False, True)}
    gains = np.array([c.slice_gain for c in batch])
    assert gains.shape == (400, 4) and 0.8 <= gains.min() < 0.81 and 1.19 < gains.max() <= 1.2
    assert gains.std(1).min() > 0, "each slice has a factor of its own"
    assert all((c.angle_deg, c.noise, c.gain, c.gamma) == (0, 0, (1,) * 3, (1,) * 3) for c in batch)
    assert all((c.shift, c.blur, c.kept) == ((0,) * 3, (0,) * 3, ()) for c in batch)


def test_nothing_asked_for_is_nothing_done(brain):
    still = Augmentation(slice_gain=(1, 1), scale=(1, 1), quarter_turns=False, flips=(0, 0, 0))
    for params in draws(still, 20):
        assert replace(params, noise_seed=0) == AugmentParams(
            slice_gain=(1,) * 4, gain=(1,) * 3, shift=(0,) * 3, gamma=(1,) * 3, blur=(0,) * 3
        )
        assert torch.equal(augment_intensity(brain, [params, params]), brain) and reorient(brain, params) is brain


def test_every_kind_of_change_is_drawn_within_its_limits():
    batch = draws(STRONG)
    for name, low, high in [("gain", *STRONG.gain), ("shift", *STRONG.shift), ("gamma", *STRONG.gamma)]:
        values = np.array([getattr(c, name) for c in batch])
        assert values.shape == (400, 3) and low <= values.min() < values.max() <= high, name
        assert values.min() < low + 0.1 * (high - low) and values.max() > high - 0.1 * (high - low), name
    assert all(0 <= c.noise <= STRONG.noise and abs(c.angle_deg) <= STRONG.angle_deg for c in batch)
    blurred = np.array([c.blur for c in batch])
    assert set(np.unique(blurred > 0)) == {False, True} and blurred[blurred > 0].min() >= 0.5
    assert np.mean(blurred > 0) == pytest.approx(STRONG.blur, abs=4 * math.sqrt(STRONG.blur / 1200))
    assert len({c.noise_seed for c in batch}) == 400


def test_scales_are_uniform():
    simulated = sum(c.scale > 1 for c in draws(Augmentation()))
    share = (1.2 - 1) / (1.2 - 0.5)
    assert abs(simulated - 400 * share) < 4 * math.sqrt(400 * share * (1 - share))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_two_flips_are_none(brain, axis):
    flip = AugmentParams(flips=(axis == 0, axis == 1, axis == 2))
    once = reorient(brain, flip)
    assert torch.equal(once, brain.flip(axis + 2)) and not torch.equal(once, brain)
    assert torch.equal(reorient(once, flip), brain)


def test_four_quarter_turns_are_none(brain):
    turned, seen = brain, []
    for _ in range(4):
        turned = reorient(turned, AugmentParams(turns=1))
        seen.append(turned)
    assert torch.equal(turned, brain) and not any(torch.equal(t, brain) for t in seen[:3])
    for turns in (1, 2, 3):
        assert torch.equal(reorient(brain, AugmentParams(turns=turns)), seen[turns - 1])


def test_quarter_turns_are_in_plane(brain):
    marked = torch.zeros(1, 3, 4, 4)
    marked[0, 1, 0, 2] = 1
    assert all(reorient(marked, AugmentParams(turns=t))[0, 1].sum() == 1 for t in range(4))


def test_a_window_at_rest_is_a_crop(brain):
    """Centre 7.5, 7 of 5 x 4 pixels holds rows 6 to 9 and columns 5 to 9."""
    x = brain[0, :, 0]
    for nearest in (True, False):
        assert torch.allclose(window(x, (7.5, 7.0), (4, 5), AugmentParams(), nearest), x[:, 6:10, 5:10], atol=1e-5)


def test_a_window_turned_by_90_degrees_is_a_quarter_turn(brain):
    x = brain[0, :, 0]
    for turns in (1, 2, 3):
        turned = window(x, (7.5, 7.5), (16, 16), AugmentParams(angle_deg=90 * turns), False)
        assert torch.allclose(turned, torch.rot90(x, -turns, (1, 2)), atol=1e-4)


def test_magnification_by_two_shows_half_the_length_twice_as_large():
    rows = torch.arange(32.0)[:, None].expand(32, 32)[None]
    seen = window(rows, (15.5, 15.5), (8, 8), AugmentParams(scale=2.0), False)[0, :, 0]
    assert torch.allclose(seen, 15.5 + (torch.arange(8) - 3.5) / 2, atol=1e-4)


def test_outside_the_image_is_zero():
    seen = window(torch.ones(1, 8, 8), (3.5, 3.5), (16, 16), AugmentParams(), True)
    assert torch.equal(seen[0, 4:12, 4:12], torch.ones(8, 8)) and seen.sum() == 64


def test_the_background_stays_exactly_zero(brain):
    batch = draws(EVERYTHING, 100)
    for a, b in zip(batch[::2], batch[1::2], strict=True):
        out = augment_intensity(brain, [a, b])
        assert torch.equal(out == 0, brain == 0) and out.isfinite().all()


def test_a_slice_gain_multiplies_its_slice_in_every_sequence():
    gains = (0.8, 0.9, 1.1, 1.2)
    ones = torch.ones(2, 3, 4, 2, 2)
    out = augment_intensity(ones, [AugmentParams(slice_gain=gains), AugmentParams()])
    assert torch.allclose(out[0], torch.tensor(gains)[None, :, None, None].expand(3, 4, 2, 2))
    assert torch.equal(out[1], torch.ones(3, 4, 2, 2))


def test_gain_and_shift_are_per_sequence(brain):
    out = augment_intensity(brain, [AugmentParams(gain=(2, 1, 0.5)), AugmentParams(shift=(1, 0, -1))])
    inside = brain != 0
    assert torch.allclose(out[0], brain[0] * torch.tensor([2, 1, 0.5])[:, None, None, None])
    assert torch.allclose(out[1], brain[1] + torch.tensor([1.0, 0, -1])[:, None, None, None] * inside[1])


def test_what_a_sample_undergoes_does_not_depend_on_its_neighbour(brain):
    """Bit for bit, so that batches may be shared among processes in any way."""
    batch = draws(EVERYTHING, 20)
    for params, other in zip([AugmentParams(), *batch[:9]], batch[10:], strict=True):
        alone = augment_intensity(brain[:1], [params])
        assert torch.equal(augment_intensity(brain, [params, other])[0], alone[0])
        assert torch.equal(augment_intensity(brain.flip(0), [other, params])[1], alone[0])


def test_noise_has_its_standard_deviation_and_comes_from_its_seed():
    x = torch.ones(3, 2, 4, 64, 64)
    out = augment_intensity(x, [AugmentParams(noise=0.3, noise_seed=s) for s in (1, 1, 2)]) - 1
    assert out[0].std().item() == pytest.approx(0.3, rel=0.02) and abs(out[0].mean()) < 0.01
    assert torch.equal(out[0], out[1]) and not torch.equal(out[0], out[2])


def test_blur_smooths_the_chosen_sequence_in_plane_and_keeps_its_mean():
    torch.manual_seed(0)
    x = 1 + torch.rand(1, 2, 3, 32, 32)
    out = augment_intensity(x, [AugmentParams(blur=(1.0, 0.0))])
    inner = (..., slice(2, -2), slice(2, -2))
    assert torch.equal(out[0, 1], x[0, 1])
    assert out[inner][0, 0].std() < 0.5 * x[0, 0].std()
    assert torch.allclose(out[inner][0, 0].mean((1, 2)), x[inner][0, 0].mean((1, 2)), atol=0.02)


def test_a_power_law_keeps_zero_and_the_order(brain):
    out = augment_intensity(brain, [AugmentParams(gamma=(0.5, 1.0, 2.0)), AugmentParams(gamma=(2.0, 3.0, 0.3))])
    assert torch.equal(out[0, 1], brain[0, 1]), "an exponent of 1 changes no bit"
    for n, c in np.ndindex(2, 3):
        a, b = brain[n, c].flatten(), out[n, c].flatten()
        assert (b[a.argsort()].diff() >= -1e-5).all() and torch.equal(b == 0, a == 0)
    assert not torch.allclose(out[0, 0], brain[0, 0], atol=0.1)


@pytest.mark.parametrize("gamma", [1e-3, 0.5, 1.5, 50.0])
@pytest.mark.parametrize(
    "image",
    [torch.zeros(8), torch.full((8,), 3.0), torch.full((8,), -3.0), torch.arange(8.0) + 5, -torch.arange(8.0) - 5,
     torch.tensor([0.0] * 7 + [1e6]), torch.tensor([0.0] * 7 + [-1e6]), torch.tensor([1e-20, -1e-20] * 4)],
)  # fmt: skip
def test_a_power_law_of_anything_is_finite_and_within_the_range(image, gamma):
    x = image.reshape(1, 1, 2, 2, 2)
    out = augment_intensity(x, [AugmentParams(gamma=(gamma,))])
    assert out.isfinite().all() and out.abs().max() <= 1.001 * max(x.max().clamp_min(0) - x.min().clamp_max(0), 1e-6)


def test_dropped_sequences_are_exactly_zero(brain):
    loud = replace(draws(EVERYTHING, 1)[0], kept=(True, False, False))
    out = augment_intensity(brain, [loud, AugmentParams(kept=(False, True, True))])
    assert not out[0, 1:].any() and out[0, 0].any()
    assert not out[1, 0].any() and torch.equal(out[1, 1:], brain[1, 1:])


def test_any_sequence_may_be_dropped_but_never_all_nor_none():
    rng = np.random.default_rng(0)
    kept = {drop_sequences(rng, AugmentParams(), 4).kept for _ in range(400)}
    assert len(kept) == 2**4 - 2 and (False,) * 4 not in kept and (True,) * 4 not in kept
    assert drop_sequences(rng, AugmentParams(), 1).kept == (True,)
    assert drop_sequences(rng, AugmentParams(turns=3), 2).turns == 3


def test_required_sequences_are_never_dropped():
    rng = np.random.default_rng(0)
    kept = {drop_sequences(rng, AugmentParams(), 4, (0, 2)).kept for _ in range(200)}
    assert kept == {(True, b, True, d) for b in (True, False) for d in (True, False)} - {(True,) * 4}
    assert drop_sequences(rng, AugmentParams(), 2, (0, 1)).kept == (True, True)
    assert {drop_sequences(rng, AugmentParams(), 2, (1,)).kept for _ in range(9)} == {(False, True)}
