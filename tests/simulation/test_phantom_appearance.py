"""Sequences: the contrasts of real scans, a background of exactly 0 and a brain above it."""

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.anatomy.procedural import Tissue, simulate_anatomy, spacing_for
from brainsegnet.simulation.phantom import SEQUENCES, draw_scanner, paint
from brainsegnet.simulation.tumour import Lesion, grow_tumour

SHAPE = (48, 80, 66)


@pytest.fixture(scope="module", params=[0, 1, 2])
def scan(request):
    """A growth and its four images."""
    rng = np.random.default_rng(request.param)
    growth = grow_tumour(rng, simulate_anatomy(rng, SHAPE), spacing_for(SHAPE))
    return growth, paint(rng, growth, spacing_for(SHAPE))


def tissue_mean(scan, sequence, tissue):
    growth, images = scan
    return images[sequence][(growth.anatomy == tissue) & (growth.lesion == Lesion.NONE)].mean()


def lesion_mean(scan, sequence, lesion):
    growth, images = scan
    return images[sequence][growth.lesion == lesion].mean()


def test_sequences_in_order_as_int16(scan):
    _, images = scan
    assert tuple(images) == SEQUENCES == ("flair", "t1", "t1c", "t2")
    assert {image.dtype for image in images.values()} == {np.dtype(np.int16)}


def test_background_is_0_and_brain_is_positive(scan):
    growth, images = scan
    for image in images.values():
        assert np.array_equal(image > 0, growth.anatomy != Tissue.BACKGROUND)
        assert image.min() == 0


def test_t1_white_over_grey_over_fluid(scan):
    white, grey, csf = (tissue_mean(scan, "t1", t) for t in (Tissue.WHITE, Tissue.GREY, Tissue.CSF))
    assert white > 1.05 * grey > 1.1 * csf


def test_t2_fluid_over_grey_over_white(scan):
    white, grey, csf = (tissue_mean(scan, "t2", t) for t in (Tissue.WHITE, Tissue.GREY, Tissue.CSF))
    assert csf > 1.05 * grey > 1.1 * white


def test_flair_fluid_dark_and_oedema_bright(scan):
    white = tissue_mean(scan, "flair", Tissue.WHITE)
    assert tissue_mean(scan, "flair", Tissue.VENTRICLE) < 0.7 * white
    assert lesion_mean(scan, "flair", Lesion.OEDEMA) > 1.25 * white


def test_contrast_agent_lights_the_rim_and_not_the_necrosis(scan):
    white = tissue_mean(scan, "t1c", Tissue.WHITE)
    assert lesion_mean(scan, "t1c", Lesion.ENHANCING) > 1.2 * white
    assert lesion_mean(scan, "t1c", Lesion.NECROSIS) < 0.95 * white
    assert lesion_mean(scan, "t1", Lesion.ENHANCING) < white


def test_vessels_shine_after_contrast_only(scan):
    growth, images = scan
    fluid = (growth.anatomy == Tissue.CSF) & (ndimage.distance_transform_cdt(growth.lesion == 0) > 3)
    alphas = {s: np.percentile(images[s][fluid], 99.5) / np.median(images[s][fluid]) for s in ("t1", "t1c")}
    assert alphas["t1c"] > alphas["t1"]


def test_noise_and_texture_leave_no_two_white_voxels_alike(scan):
    growth, images = scan
    for image in images.values():
        white = image[(growth.anatomy == Tissue.WHITE) & (growth.lesion == Lesion.NONE)]
        assert 0.02 < white.std() / white.mean() < 0.25


def test_contrast_differs_from_case_to_case():
    first, second = (draw_scanner(np.random.default_rng(seed), "t1") for seed in (0, 1))
    assert first.gain != second.gain
    assert np.all(np.array(first.tissues)[1:] != np.array(second.tissues)[1:])
    assert first == draw_scanner(np.random.default_rng(0), "t1")
