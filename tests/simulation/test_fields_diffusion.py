"""The laws of the equation: u stays within 0 and 1, mass is kept by diffusion and won by growth, walls are walls."""

import numpy as np
import pytest
import torch

from brainsegnet.simulation.fields import LARGEST, conduct, simulate, step


@pytest.fixture
def ground(streams):
    d = LARGEST * torch.rand((1, 14, 15, 16), generator=streams.torch_rng)
    d[:, :, 9:11] = 0
    u = torch.zeros_like(d)
    u[:, 5:8, 4:7, 6:9] = 1
    return d, u


def test_diffusion_keeps_the_mass_and_growth_adds_to_it(ground):
    d, u = ground
    for rho in (0.0, 0.2):
        now, masses = u, []
        for _ in range(60):
            now = step(now, conduct(d), torch.tensor(rho))
            masses.append(float(now.sum()))
            assert 0 <= now.min() and now.max() <= 1
        if rho:
            assert (np.diff(masses) > 0).all()
        else:
            assert np.allclose(masses, float(u.sum()), rtol=1e-5)


def test_nothing_passes_a_wall(ground):
    d, u = ground
    simulated = simulate(u, d, torch.full_like(d, 0.2) * (d > 0), torch.tensor([1e9]), 120)
    assert simulated[:, :, 9:].abs().max() == 0 and simulated[:, :, 8].max() > 0.1


def test_each_of_a_batch_stops_at_its_own_volume(ground):
    d, u = ground
    pair = [x.expand(2, -1, -1, -1) for x in (u, d, torch.full_like(d, 0.15))]
    simulated = simulate(*pair, volume=torch.tensor([60.0, 400.0]))
    volumes = (simulated > 0.5).sum(dim=(1, 2, 3))
    assert 60 <= volumes[0] < 200 and 400 <= volumes[1] < 800
    alone = simulate(u, d, pair[2][:1], torch.tensor([60.0]))
    assert torch.equal(alone[0], simulated[0])


def test_a_front_runs_at_fishers_speed():
    d, rho = 0.15, 0.05
    u = torch.zeros((1, 1, 1, 400))
    u[..., :5] = 1
    at = []
    for steps in (300, 500):
        simulated = simulate(u, torch.full_like(u, d), torch.full_like(u, rho), torch.tensor([1e9]), steps)
        at.append(int((simulated > 0.5).sum()))
    assert (at[1] - at[0]) / 200 == pytest.approx(2 * np.sqrt(d * rho), rel=0.08)
