"""Nothing folds over, and what flows out can flow back."""

import numpy as np
import pytest
import torch

from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.simulation.fields import (
    RandomStreams,
    draw_pose,
    grid,
    integrate,
    jacobian,
    outwards,
    place,
    pose_velocity,
    sample,
    swell,
)


@pytest.mark.parametrize("seed", range(6))
def test_a_pose_is_a_diffeomorphism(head, seed):
    rng = np.random.default_rng(seed)
    pose = draw_pose(rng)
    flow = pose_velocity(RandomStreams.of(rng), pose, torch.as_tensor(head.tissue), head.spacing_mm)
    assert jacobian(integrate(flow)).min() > 0.05


def test_a_flow_and_its_negative_undo_each_other(streams, head):
    pose = draw_pose(streams.numpy_rng)
    flow = pose_velocity(streams, pose, torch.as_tensor(head.tissue), head.spacing_mm)
    there, back = integrate(flow), integrate(-flow)
    left = there + sample(back, grid(head.tissue.shape) + there)
    assert left[:, 6:-6, 6:-6, 6:-6].abs().max() < 0.15 < there.abs().max()


def test_a_pose_without_change_points_each_node_to_itself(streams):
    pose = draw_pose(streams.numpy_rng)
    still = type(pose)(False, (0, 0, 0), (1, 1, 1), 0, 0, 0)
    at = place(still, (9, 11, 13), (1.0, 2.0, 1.5), (9, 11, 13), (9, 11, 13))
    assert torch.allclose(at, grid((9, 11, 13)), atol=1e-5)
    mirrored = place(
        type(pose)(True, (0, 0, 0), (1, 1, 1), 0, 0, 0), (9, 11, 13), (1.0, 2.0, 1.5), (9, 11, 13), (9, 11, 13)
    )
    assert torch.allclose(mirrored.flip(3)[2], at[2], atol=1e-5) and torch.allclose(mirrored[:2], at[:2], atol=1e-5)


def test_ventricles_swell_and_shrink(head):
    tissue = torch.as_tensor(head.tissue)
    size = {}
    for by_mm in (-3.0, 0.0, 4.0):
        at = grid(tissue.shape) + integrate(swell(tissue, by_mm, head.spacing_mm))
        size[by_mm] = int((sample(tissue.float()[None], at, "nearest") == Tissue.VENTRICLE).sum())
    assert size[-3.0] < size[0.0] < size[4.0]


def test_the_push_is_outwards_and_no_further_than_asked():
    at = grid((21, 21, 21)) - 10
    flow = outwards(torch.exp(-at.square().sum(0) / 30), (1.0, 1.0, 1.0), 4.0)
    assert flow.square().sum(0).sqrt().max() == pytest.approx(4.0, rel=1e-3)
    assert (flow * at).sum(0)[at.square().sum(0) > 0].max() <= 0
