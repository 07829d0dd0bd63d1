"""Tumours stay where cells can live, and their parts lie within each other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import max_pool3d

from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.simulation import Part
from brainsegnet.simulation.fields import RandomStreams
from brainsegnet.simulation.glioma import depth_mm, draw_glioma, grow_cells, infiltrate, render_labels


def dilated(mask):
    return max_pool3d(mask.float()[None], 3, 1, 1)[0] > 0


def tumour(anatomy, seed, **changes):
    rng = np.random.default_rng(seed)
    glioma = replace(draw_glioma(rng), **{"volume_ml": 120.0, "core": 0.5, "foci": 1} | changes)
    streams, tissue = RandomStreams.of(rng), torch.as_tensor(anatomy.array)
    cells = grow_cells(streams, glioma, tissue, anatomy.spacing_mm)
    water = infiltrate(streams, glioma, cells, tissue, anatomy.spacing_mm)
    return cells, water, render_labels(streams, glioma, cells, water, tissue, anatomy.spacing_mm)


@pytest.mark.parametrize("seed", range(4))
def test_a_tumour_stays_in_the_brain_and_out_of_the_ventricles(anatomy, seed):
    cells, water, lesions = tumour(anatomy, seed)
    closed = torch.as_tensor((anatomy.array == Tissue.BACKGROUND) | (anatomy.array == Tissue.VENTRICLE))
    assert not lesions.labels[closed].any() and not lesions.parts[closed].any()
    assert cells[closed].max() == 0
    for density in (cells, water, lesions.opacity):
        assert density.min() >= 0 and density.max() <= 1
    assert (lesions.labels > 0).sum() > 200


@pytest.mark.parametrize("seed", range(4))
def test_in_high_grade_the_rim_lies_around_the_necrosis(anatomy, seed):
    changes = {"high_grade": True, "rim_mm": 3.0, "margin_mm": 0.0, "cyst": 9.0, "gaps": -3.0, "pockets": -3.0}
    labels = tumour(anatomy, seed, **changes)[2].labels
    necrosis = labels == Part.NECROSIS
    around = labels[dilated(necrosis) & ~necrosis]
    assert necrosis.sum() > 8
    assert (around == Part.ENHANCING).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_small_solid_nodule_enhances_nearly_to_its_surface(anatomy, seed):
    changes = {"high_grade": True, "rim_mm": 3.0, "margin_mm": 0.0, "cyst": 9.0, "gaps": -9.0, "pockets": 9.0}
    labels = tumour(anatomy, seed, **changes, core=0.05, bleeds=9.0)[2].labels
    core = (labels > 0) & (labels != Part.OEDEMA)
    assert core.sum() > 8
    assert (labels == Part.ENHANCING).sum() > 0.6 * core.sum()


@pytest.mark.parametrize("seed", range(3))
def test_the_smallest_focus_grows_too(anatomy, seed):
    slow, fast = (tumour(anatomy, seed, core=0.15 / 120, rho=rho)[0] for rho in (0.05, 0.2))
    assert not torch.equal(slow, fast)


def test_gliomas_are_drawn_as_they_occur_in_patients():
    drawn = [draw_glioma(np.random.default_rng(seed)) for seed in range(600)]
    high, low = ([g for g in drawn if g.high_grade == grade] for grade in (True, False))
    nodules = [g for g in high if g.core < 0.1]
    assert 0.15 < len(nodules) / len(high) < 0.4
    assert all(g.margin_mm < 0.3 * np.cbrt(g.volume_ml * g.core * 250) for g in high)
    assert all(g.core >= 0.15 and g.rim_mm == 0 for g in low)
    assert np.mean([g.pockets > 0.4 for g in nodules]) > 0.4 > np.mean([g.pockets > 0.4 for g in high])


@pytest.mark.parametrize("seed", range(4))
def test_a_low_grade_tumour_without_spots_does_not_enhance(anatomy, seed):
    changes = {"high_grade": False, "rim_mm": 0.0, "spots": 9.0, "bleeds": 9.0}
    solid = tumour(anatomy, seed, **changes, cyst=9.0)[2].labels
    assert set(np.unique(solid.numpy())) == {0, Part.OEDEMA, Part.NON_ENHANCING}
    cystic = tumour(anatomy, seed, **changes, cyst=-0.5)[2]
    assert torch.equal(cystic.parts == Part.CYST, cystic.labels == Part.NECROSIS)
    assert torch.equal(cystic.labels > 0, solid > 0)


def test_oedema_follows_the_white_matter(anatomy):
    labels = tumour(anatomy, 1)[2].labels.numpy()
    shares = [np.mean(labels[anatomy.array == t] == Part.OEDEMA) for t in (Tissue.WHITE, Tissue.GREY, Tissue.CSF)]
    assert shares[0] > 2 * max(shares[1:])


def test_the_outline_of_oedema_is_as_smooth_as_drawn(anatomy):
    rough, smooth = (tumour(anatomy, 3, outline_mm=blur_mm)[2].labels > 0 for blur_mm in (0.1, 8.0))
    faces = [sum((m.diff(dim=axis)).sum() for axis in range(3)) / m.sum() ** (2 / 3) for m in (rough, smooth)]
    assert faces[1] < 0.9 * faces[0]
    assert 0.5 < smooth.sum() / rough.sum() < 2


def test_a_tumour_that_infiltrates_the_cortex_has_oedema_there(anatomy):
    grey = torch.as_tensor(anatomy.array == Tissue.GREY)
    dry, wet = ((tumour(anatomy, 1, wet_cortex=c)[2].labels == Part.OEDEMA) for c in (0.02, 0.9))
    assert (wet & grey).sum() / wet.sum() > 1.2 * (dry & grey).sum() / dry.sum()


def test_holes_are_as_coarse_as_drawn(anatomy):
    changes = {"high_grade": False, "rim_mm": 0.0, "spots": 9.0, "bleeds": 9.0, "cyst": -0.3}
    fine, coarse = (tumour(anatomy, 2, **changes, hole_mm=grain)[2].parts == Part.CYST for grain in (4.0, 20.0))
    faces = [sum(m.diff(dim=axis).sum() for axis in range(3)) / m.sum() for m in (fine, coarse)]
    assert fine.any() and coarse.any() and faces[1] < 0.8 * faces[0]


def test_depth_is_that_of_a_flat_wall():
    mask = torch.zeros((60, 20, 20))
    mask[30:] = 1
    found = depth_mm(mask, (1.0, 1.0, 1.0))[:, 10, 10]
    true = torch.arange(60) + 0.5 - 30
    near = true.abs() < 8
    assert torch.allclose(found[near], true[near], atol=0.1)
