"""Fields in torch: filters are those of scipy, nothing folds, and the Fisher-KPP equation keeps its laws."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.simulation.fields import (
    LARGEST,
    Pose,
    RandomStreams,
    advance,
    blur,
    conductances,
    displace,
    draw_pose,
    grid,
    integrate,
    noise,
    outwards,
    place,
    pose_velocity,
    resize,
    sample,
    solve_fisher_kpp,
)


def test_a_blur_is_scipys(rng):
    field = np.pad(rng.normal(size=(8, 9, 7)), 9).astype(np.float32)
    ours = blur(torch.as_tensor(field), 3.0, (2.0, 3.0, 1.5)).numpy()
    theirs = ndimage.gaussian_filter(field, (1.5, 1.0, 2.0), truncate=8, mode="nearest")
    assert np.abs(ours - theirs).max() < 2e-4


def test_a_blur_keeps_a_constant_and_resize_a_ramp():
    assert torch.allclose(blur(torch.full((5, 6, 7), 3.0), 2.0, (1.0, 1.0, 1.0)), torch.tensor(3.0))
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


@pytest.mark.parametrize("seed", range(6))
def test_a_pose_is_a_diffeomorphism(anatomy, seed):
    rng = np.random.default_rng(seed)
    pose = draw_pose(rng)
    flow = pose_velocity(RandomStreams.of(rng), pose, torch.as_tensor(anatomy.array), anatomy.spacing_mm)
    rows = torch.stack([torch.stack(torch.gradient(part)) for part in integrate(flow)])
    assert torch.linalg.det(rows.permute(2, 3, 4, 0, 1) + torch.eye(3)).min() > 0.05


def test_a_flow_and_its_negative_undo_each_other(streams, anatomy):
    pose = draw_pose(streams.numpy_rng)
    flow = pose_velocity(streams, pose, torch.as_tensor(anatomy.array), anatomy.spacing_mm)
    there, back = integrate(flow), integrate(-flow)
    left = there + sample(back, grid(anatomy.shape) + there)
    assert left[:, 6:-6, 6:-6, 6:-6].abs().max() < 0.15 < there.abs().max()


def test_a_pose_without_change_points_each_node_to_itself():
    still = Pose(False, (0, 0, 0), (1, 1, 1), (0, 0), 0)
    at = place(still, (9, 11, 13), (1.0, 2.0, 1.5), (9, 11, 13), (9, 11, 13))
    assert torch.allclose(at, grid((9, 11, 13)), atol=1e-5)
    mirrored = place(
        Pose(True, (0, 0, 0), (1, 1, 1), (0, 0), 0), (9, 11, 13), (1.0, 2.0, 1.5), (9, 11, 13), (9, 11, 13)
    )
    assert torch.allclose(mirrored.flip(3)[2], at[2], atol=1e-5) and torch.allclose(mirrored[:2], at[:2], atol=1e-5)


def test_ventricles_swell_and_shrink(streams, anatomy):
    tissue = torch.as_tensor(anatomy.array)
    size = {}
    for by_mm in (-3.0, 0.0, 4.0):
        pose = Pose(False, (0, 0, 0), (1, 1, 1), (0, 0), by_mm)
        at = displace(grid(tissue.shape), pose_velocity(streams, pose, tissue, anatomy.spacing_mm))
        size[by_mm] = int((sample(tissue.float()[None], at, "nearest") == Tissue.VENTRICLE).sum())
    assert size[-3.0] < size[0.0] < size[4.0]


def test_the_push_is_outwards_and_no_further_than_asked():
    at = grid((21, 21, 21)) - 10
    flow = outwards(torch.exp(-at.square().sum(0) / 30), (1.0, 1.0, 1.0), 4.0)
    assert flow.square().sum(0).sqrt().max() == pytest.approx(4.0, rel=1e-3)
    assert (flow * at).sum(0)[at.square().sum(0) > 0].max() <= 0


@pytest.fixture
def ground(streams):
    d = LARGEST * torch.rand((14, 15, 16), generator=streams.torch_rng)
    d[:, 9:11] = 0
    u = torch.zeros_like(d)
    u[5:8, 4:7, 6:9] = 1
    return d, u


def test_diffusion_keeps_the_mass_and_growth_adds_to_it(ground):
    d, u = ground
    for rho in (0.0, 0.2):
        now, masses = u, []
        for _ in range(60):
            now = advance(now, conductances(d), torch.tensor(rho))
            masses.append(float(now.sum()))
            assert 0 <= now.min() and now.max() <= 1
        if rho:
            assert (np.diff(masses) > 0).all()
        else:
            assert np.allclose(masses, float(u.sum()), rtol=1e-5)


def test_nothing_passes_a_wall(ground):
    d, u = ground
    simulated = solve_fisher_kpp(u, d, torch.full_like(d, 0.2) * (d > 0), 1e9, 120)
    assert simulated[:, 9:].abs().max() == 0 and simulated[:, 8].max() > 0.1


def test_growth_stops_at_the_volume(ground):
    d, u = ground
    small, large = ((solve_fisher_kpp(u, d, torch.full_like(d, 0.15), v) > 0.5).sum() for v in (60.0, 400.0))
    assert 60 <= small < 200 and 400 <= large < 800


def test_a_front_advances_at_the_speed_of_fisher():
    d, rho = 0.15, 0.05
    u = torch.zeros((1, 1, 400))
    u[..., :5] = 1
    at = []
    for steps in (300, 500):
        simulated = solve_fisher_kpp(u, torch.full_like(u, d), torch.full_like(u, rho), 1e9, steps)
        at.append(int((simulated > 0.5).sum()))
    assert (at[1] - at[0]) / 200 == pytest.approx(2 * np.sqrt(d * rho), rel=0.08)
