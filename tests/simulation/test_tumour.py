"""Tumours: four tissues, inside the brain, and pushing aside what is near and only that."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.anatomy.procedural import Tissue, axes_mm, simulate_anatomy, smooth_noise, spacing_for
from brainsegnet.simulation.tumour import FEWEST_VOXELS, REACH, Lesion, Tumour, displace, draw_tumour, grow_tumour

SHAPE = (48, 80, 66)
SPACING = spacing_for(SHAPE)
SEEDS = range(5)


@pytest.fixture(scope="module")
def head():
    return simulate_anatomy(np.random.default_rng(1), SHAPE)


@pytest.fixture(scope="module")
def simulations(head):
    return [grow_tumour(np.random.default_rng(seed), head, SPACING) for seed in SEEDS]


@pytest.fixture
def block():
    """White matter that ends in grey 12 voxels from the centre of the tumour, in voxels of 1 mm."""
    block = np.full((41, 41, 61), Tissue.WHITE, np.uint8)
    block[:, :, 32:] = Tissue.GREY
    tumour = Tumour((20, 20, 20), necrosis=500, oedema=0, non_enhancing=500, enhancing=3000, push=0.3, roughness=0.2)
    return block, tumour


def distances_mm(centre):
    offsets = (np.indices(SHAPE).T - centre) * SPACING
    return np.linalg.norm(offsets, axis=-1).T


def test_same_seed_same_tumour_and_another_seed_another(head, simulations):
    again = grow_tumour(np.random.default_rng(0), head, SPACING)
    assert again.lesion.tobytes() == simulations[0].lesion.tobytes()
    assert again.anatomy.tobytes() == simulations[0].anatomy.tobytes()
    assert simulations[1].lesion.tobytes() != simulations[0].lesion.tobytes()


def test_every_tissue_is_there_in_every_tumour(simulations):
    for growth in simulations:
        counts = np.bincount(growth.lesion.ravel(), minlength=5)
        assert counts.size == len(Lesion)
        assert counts[1:].min() >= FEWEST_VOXELS


def test_even_in_the_coarsest_head():
    shape = (24, 32, 32)
    head = simulate_anatomy(np.random.default_rng(3), shape)
    for seed in range(10):
        lesion = grow_tumour(np.random.default_rng(seed), head, spacing_for(shape)).lesion
        assert np.bincount(lesion.ravel(), minlength=5)[1:].min() >= 50


def test_size_varies_between_1_and_12_per_cent_of_the_brain(head, simulations):
    shares = [np.count_nonzero(g.lesion) / np.count_nonzero(head) for g in simulations]
    assert 0.01 < min(shares) < 0.6 * max(shares)
    assert max(shares) < 0.12


def test_the_tumour_lies_in_the_brain_and_outside_the_ventricles(simulations):
    for growth in simulations:
        assert set(np.unique(growth.anatomy[growth.lesion > 0])).isdisjoint({Tissue.BACKGROUND, Tissue.VENTRICLE})


def test_oedema_prefers_white_matter_and_stops_at_fluid(simulations):
    for growth in simulations:
        beneath = growth.anatomy[growth.lesion == Lesion.OEDEMA]
        assert not (beneath == Tissue.CSF).any()
        assert (beneath == Tissue.WHITE).mean() > 0.6


def test_necrosis_is_enclosed_by_enhancing_tumour(simulations):
    for growth in simulations:
        around = ndimage.binary_dilation(growth.lesion == Lesion.NECROSIS) & (growth.lesion != Lesion.NECROSIS)
        assert (growth.lesion[around] == Lesion.ENHANCING).mean() > 0.7


def test_the_outline_of_the_head_stays_as_it_was(head, simulations):
    for growth in simulations:
        assert np.array_equal(growth.anatomy > 0, head > 0)


def test_anatomy_is_displaced_near_the_tumour_and_nowhere_else(head, simulations):
    for seed, growth in zip(SEEDS, simulations, strict=True):
        tumour = draw_tumour(np.random.default_rng(seed), head, SPACING)
        near = distances_mm(tumour.centre) < REACH * tumour.mass_radius_mm(SPACING)
        changed = growth.anatomy != head
        assert not changed[~near].any()
        assert changed[near].mean() > 0.05


@pytest.mark.parametrize("push", [0.1, 0.3, 0.43])
def test_a_border_moves_outwards_by_the_push_and_never_folds(block, push):
    anatomy, tumour = block
    along = displace(anatomy, replace(tumour, push=push), (1.0, 1.0, 1.0))[20, 20]
    border = int(np.argmax(along == Tissue.GREY))
    expected_mm = push * tumour.mass_radius_mm((1.0, 1.0, 1.0))
    assert border - 32 == pytest.approx(expected_mm, abs=1)
    assert (along[:border] == Tissue.WHITE).all()
    assert (along[border:] == Tissue.GREY).all()


def test_the_skull_does_not_yield(block):
    anatomy, tumour = block
    anatomy[:, :, 34:] = Tissue.BACKGROUND
    after = displace(anatomy, replace(tumour, push=0.43), (1.0, 1.0, 1.0))
    assert np.array_equal(after == Tissue.BACKGROUND, anatomy == Tissue.BACKGROUND)
    assert (after[:, :, 33] == Tissue.GREY).all()


def test_no_push_displaces_nothing(block):
    anatomy, tumour = block
    assert np.array_equal(displace(anatomy, replace(tumour, push=0.0), (1.0, 1.0, 1.0)), anatomy)


def test_the_midline_shifts_away_from_the_tumour(head):
    z, y, x = np.broadcast_arrays(*axes_mm(SHAPE, SPACING))
    centre = np.unravel_index(np.argmin((z - 20) ** 2 + (y - 5) ** 2 + (x - 26) ** 2), SHAPE)
    voxels = int(35_000 / np.prod(SPACING))
    tumour = Tumour(tuple(map(int, centre)), voxels, 0, voxels, voxels, push=0.35, roughness=0.2)
    after = displace(head, tumour, SPACING)
    band = (np.abs(x) < 14) & (z > 30) & (np.abs(y - 5) < 15)
    before_mm, after_mm = (x[band & (anatomy == Tissue.CSF)].mean() for anatomy in (head, after))
    assert before_mm - after_mm > 0.5


def test_noise_has_unit_variance_and_is_smooth(rng):
    noise = smooth_noise(rng, (40, 50, 60), (2.0, 1.0, 1.0), 3.0)
    assert noise.shape == (40, 50, 60)
    assert noise.std() == pytest.approx(1, abs=0.15)
    step = np.diff(noise, axis=2).std()
    assert step == pytest.approx(1 / (3 * np.sqrt(2)), rel=0.15)
