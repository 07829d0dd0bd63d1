"""Confounders lie where anatomy has them, in rotated heads too, and fluid and cortex are shares of a voxel."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.simulation.confounders import (
    Extra,
    draw_confounders,
    find_sinuses,
    fold_cerebellum,
    middle_of,
    mix_cerebellum,
    tilt_cerebellum,
)
from brainsegnet.simulation.fields import RandomStreams


def test_sinuses_run_on_the_midline_and_along_the_tentorium(anatomy):
    tissue = torch.as_tensor(anatomy.array)
    inside = tissue != Tissue.BACKGROUND
    thin, thick = (find_sinuses(tissue, radius, anatomy.spacing_mm) for radius in (3.0, 6.0))
    assert 0 < thin.sum() < thick.sum() < 0.02 * inside.sum() and not thick[~inside].any()
    level = torch.nonzero(tissue == Tissue.CEREBELLAR_GREY)[:, 0].max().item()
    slices, rows, columns = torch.nonzero(thin).T
    middle = 0.5 * (tissue.shape[2] - 1)
    above = slices > level + 3
    assert above.any() and ((columns[above] - middle).abs() * anatomy.spacing_mm[2] < 9).all()
    assert (columns - middle).abs().max() * anatomy.spacing_mm[2] > 25
    assert rows[(columns - middle).abs() > 8].min() > 0.5 * tissue.shape[1] - 3
    assert not find_sinuses(tissue, 0.0, anatomy.spacing_mm).any()
    headless = torch.where(tissue == Tissue.CEREBELLAR_GREY, int(Tissue.GREY), tissue)
    assert not find_sinuses(headless, 3.0, anatomy.spacing_mm).any()


def test_the_middle_of_a_rotated_head_is_a_plane():
    up, back, left = torch.meshgrid(*(torch.arange(60).float() for _ in range(3)), indexing="ij")
    plane = 25 + 0.08 * up + 0.05 * back
    inside = (((up - 30) / 20) ** 2 + ((back - 30) / 24) ** 2 + ((left - plane) / 18) ** 2) < 1
    found = middle_of(inside)[..., 0]
    seen = inside.any(2)
    assert found.shape == (60, 60) and found[seen].tolist() == pytest.approx(plane[..., 0][seen].tolist(), abs=0.3)


def test_confounders_lie_where_they_belong(anatomy):
    tissue = torch.as_tensor(anatomy.array)
    rng = np.random.default_rng(1)
    drawn = replace(draw_confounders(rng), infarct_mm=0.0, hyperintensities=1.0, caps=0.6, meninges=0.5, choroid=0.0)
    streams = RandomStreams.of(rng)
    brain = replace(drawn, stripping_mm=0.0).strip(streams, tissue, anatomy.spacing_mm)
    assert torch.equal(brain, tissue != Tissue.BACKGROUND)
    drawn = replace(drawn, sinus_mm=6.0)
    extras, opacity = drawn.scatter(streams, tissue, brain, anatomy.spacing_mm)
    assert torch.equal(extras == Extra.SINUS, find_sinuses(tissue, 6.0, anatomy.spacing_mm) & brain)
    assert not extras[~brain].any() and opacity.min() >= 0 and opacity.max() <= 1
    assert set(tissue[extras == Extra.HYPERINTENSITY].tolist()) == {Tissue.WHITE}
    assert set(tissue[extras == Extra.CHOROID].tolist()) == {Tissue.VENTRICLE}
    sulci = drawn.fill_sulci(streams, tissue, anatomy.spacing_mm)
    assert sulci.min() >= 0 and sulci.max() <= 1


def test_thin_sulci_hold_less_fluid_than_wide_ones_which_are_all_fluid():
    tissue = torch.full((12, 40, 40), int(Tissue.GREY), dtype=torch.uint8)
    tissue[:, 10] = Tissue.CSF
    tissue[:, 20:32] = Tissue.CSF
    thin = []
    for level in (0.3, 0.55, 0.92):
        drawn = replace(draw_confounders(np.random.default_rng(0)), sulci=level)
        fluid = drawn.fill_sulci(RandomStreams.of(np.random.default_rng(0)), tissue, (1.0, 1.0, 1.0))
        assert fluid[6, 26, 20] == pytest.approx(1.0, abs=1e-4) and fluid[6, 15, 20] == 0
        thin.append(float(fluid[6, 10, 20]))
    assert thin == sorted(thin, reverse=True) and thin[0] > 0.2 and thin[-1] == 0


def faces(mask):
    return sum(int((mask.diff(dim=axis) != 0).sum()) for axis in range(3))


def test_extraction_leaves_fluid_around_the_brain_and_a_smooth_outline(anatomy):
    tissue = torch.as_tensor(anatomy.array)
    drawn = draw_confounders(np.random.default_rng(0))
    little, much = (replace(drawn, csf_level=level).add_csf(tissue, anatomy.spacing_mm) for level in (0.6, 0.35))
    before, few, many = (t != Tissue.BACKGROUND for t in (tissue, little, much))
    assert torch.equal(much[before], tissue[before]) and set(much[many & ~before].tolist()) == {Tissue.CSF}
    assert not (before & ~few).any() and not (few & ~many).any() and few.sum() < many.sum()
    assert faces(many) / many.sum() ** (2 / 3) < faces(before) / before.sum() ** (2 / 3)


def test_folia_are_as_far_apart_as_drawn_and_bend_around_the_brain_stem():
    tissue = torch.full((40, 80, 80), int(Tissue.CEREBELLAR_GREY), dtype=torch.uint8)
    tissue[18:22, 8:12, 38:42] = Tissue.HINDBRAIN_WHITE
    sheets = fold_cerebellum(RandomStreams.of(np.random.default_rng(3)), 5.0, tissue, (1.0, 1.0, 1.0))
    assert sheets.min() == 0 and 0.95 < sheets.max() <= 1 and 0.2 < sheets.mean() < 0.35
    ray = sheets[20, 14:, 40] > 0.5
    starts = torch.nonzero(ray[1:] & ~ray[:-1]).ravel()
    assert starts.diff().float().mean() == pytest.approx(5.0, rel=0.2)
    drawn = replace(draw_confounders(np.random.default_rng(0)), folia=0.3, folia_mm=5.0)
    fluid = drawn.fill_sulci(RandomStreams.of(np.random.default_rng(3)), tissue, (1.0, 1.0, 1.0))
    assert 0.28 < fluid[tissue == Tissue.CEREBELLAR_GREY].max() <= 0.3


def test_cortex_and_white_matter_of_the_cerebellum_mix():
    tissue = torch.full((30, 40, 40), int(Tissue.CEREBELLAR_GREY), dtype=torch.uint8)
    tissue[:, :20] = Tissue.HINDBRAIN_WHITE
    row = mix_cerebellum(3.0, tissue, (1.0, 1.0, 1.0))[15, :, 20]
    assert row[10] < 0.01 and row[29] > 0.99 and (row.diff() >= -1e-6).all()
    assert row[19] == pytest.approx(0.5 * (1 - math.erf(0.5 / 3 / math.sqrt(2))), abs=0.02)
    assert row[22] == pytest.approx(0.5 * (1 + math.erf(2.5 / 3 / math.sqrt(2))), abs=0.02)


def test_the_cerebellum_is_even_or_rises_from_the_brain_stem(anatomy):
    tissue = torch.as_tensor(anatomy.array)
    even, tilted = (tilt_cerebellum(slope, tissue, anatomy.spacing_mm) for slope in (0.0, 1.0))
    hindbrain = (tissue == Tissue.CEREBELLAR_GREY) | (tissue == Tissue.HINDBRAIN_WHITE)
    assert set(even[hindbrain].tolist()) == {1.0} and not even[~hindbrain].any() and not tilted[~hindbrain].any()
    stem, cortex = (tilted[tissue == kind] for kind in (Tissue.HINDBRAIN_WHITE, Tissue.CEREBELLAR_GREY))
    assert stem.mean() < 0.8 * cortex.mean() and 0.6 < cortex.mean() < 1.4 and tilted.max() <= 1.6


def test_an_imperfect_extraction_errs_by_millimetres(anatomy):
    tissue = torch.as_tensor(anatomy.array)
    inside = tissue != Tissue.BACKGROUND
    drawn = replace(draw_confounders(np.random.default_rng(0)), stripping_mm=1.5, stripping_bias=0.0)
    brain = drawn.strip(RandomStreams.of(np.random.default_rng(2)), tissue, anatomy.spacing_mm)
    wrong = (brain != inside).sum() / inside.sum()
    assert 0.005 < wrong < 0.3 and (brain & ~inside).any() and (~brain & inside).any()
