"""Sinuses run where anatomy has them, in heads that lean too."""

import pytest
import torch

from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.simulation.confounders import find_sinuses, middle_of


def test_sinuses_run_on_the_midline_and_along_the_tentorium(head):
    tissue = torch.as_tensor(head.tissue)
    inside = tissue != Tissue.BACKGROUND
    thin, thick = (find_sinuses(tissue, radius, head.spacing_mm) for radius in (3.0, 6.0))
    assert 0 < thin.sum() < thick.sum() < 0.02 * inside.sum() and not thick[~inside].any()
    level = torch.nonzero(tissue == Tissue.CEREBELLAR_GREY)[:, 0].max().item()
    slices, rows, columns = torch.nonzero(thin).T
    middle = 0.5 * (tissue.shape[2] - 1)
    above = slices > level + 3
    assert above.any() and ((columns[above] - middle).abs() * head.spacing_mm[2] < 9).all()
    assert (columns - middle).abs().max() * head.spacing_mm[2] > 25
    assert rows[(columns - middle).abs() > 8].min() > 0.5 * tissue.shape[1] - 3
    assert not find_sinuses(tissue, 0.0, head.spacing_mm).any()
    headless = torch.where(tissue == Tissue.CEREBELLAR_GREY, int(Tissue.GREY), tissue)
    assert not find_sinuses(headless, 3.0, head.spacing_mm).any()


def test_the_middle_of_a_head_that_leans_and_turns_is_a_plane():
    up, back, left = torch.meshgrid(*(torch.arange(60).float() for _ in range(3)), indexing="ij")
    plane = 25 + 0.08 * up + 0.05 * back
    inside = (((up - 30) / 20) ** 2 + ((back - 30) / 24) ** 2 + ((left - plane) / 18) ** 2) < 1
    found = middle_of(inside)[..., 0]
    seen = inside.any(2)
    assert found.shape == (60, 60) and found[seen].tolist() == pytest.approx(plane[..., 0][seen].tolist(), abs=0.3)
