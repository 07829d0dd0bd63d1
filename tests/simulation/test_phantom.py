"""Phantoms: one seed governs all, tumours lie where they should, and sequences have the contrasts of real scans."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.anatomy.procedural import Tissue, axes_mm, simulate_anatomy, spacing_for
from brainsegnet.errors import ImageError
from brainsegnet.simulation import Part
from brainsegnet.simulation.phantom import (
    DEMO_SHAPE,
    FEWEST_VOXELS,
    REACH,
    Tumour,
    displace,
    draw_scanner,
    draw_tumour,
    paint,
    simulate_phantom,
    simulate_tumour,
)
from brainsegnet.task import BRATS2015

SMALL = (30, 48, 41)
SHAPE = (48, 80, 66)
SPACING = spacing_for(SHAPE)
SEEDS = range(5)


class Scene(NamedTuple):
    anatomy: np.ndarray
    lesion: np.ndarray


def simulate_scene(*given):
    return Scene(*simulate_tumour(*given))


def as_bytes(case):
    return [v.array.tobytes() for v in (*case.images.values(), case.lesion)]


@pytest.fixture(scope="module")
def demo():
    return simulate_phantom(11)


def test_same_seed_same_bytes():
    assert as_bytes(simulate_phantom(4, SMALL)) == as_bytes(simulate_phantom(4, SMALL))


def test_another_seed_differs_in_every_array():
    pairs = zip(as_bytes(simulate_phantom(4, SMALL)), as_bytes(simulate_phantom(5, SMALL)), strict=True)
    assert all(first != second for first, second in pairs)


def test_the_anatomy_is_replayed_from_its_own_stream():
    for_anatomy, *_ = np.random.default_rng(4).spawn(3)
    head = simulate_anatomy(for_anatomy, SMALL).array
    case = simulate_phantom(4, SMALL)
    assert np.array_equal(case.images["t1"].array > 0, head != Tissue.BACKGROUND)


def test_a_phantom_is_a_case_of_the_task(demo):
    assert tuple(demo.images) == BRATS2015.sequences
    assert demo.reference.shape == DEMO_SHAPE
    BRATS2015.check(demo.lesion.array, demo.name)
    counts = np.bincount(demo.lesion.array.ravel(), minlength=5)
    assert counts[1:].min() >= 50


def test_the_lesion_lies_in_the_brain_and_the_background_is_0(demo):
    brain = demo.images["flair"].array > 0
    assert all(np.array_equal(image.array > 0, brain) for image in demo.images.values())
    assert brain[demo.lesion.array > 0].all()


def test_the_grid_is_that_of_a_patient(demo):
    assert demo.lesion.on_grid_of(demo.reference)
    assert demo.reference.spacing_mm == pytest.approx(spacing_for(DEMO_SHAPE))
    up, back, left = demo.reference.affine[:3, :3].T
    assert up[2] > 0
    assert back[1] > 0
    assert left[0] > 0
    litres = np.count_nonzero(demo.images["t1"].array) * demo.reference.voxel_ml / 1000
    assert 1.1 < litres < 1.8


def test_slices_run_upwards_and_rows_to_the_back(demo):
    affine, brain = demo.reference.affine, demo.images["t1"].array > 0
    index = np.argwhere(brain)
    xyz = index @ affine[:3, :3].T + affine[:3, 3]
    low = xyz[xyz[:, 2] < -55]
    assert low[:, 1].mean() > 15, "cerebellum and stem lie low and to the back"
    assert abs(xyz[:, 0].mean()) < 5


@pytest.mark.parametrize("shape", [(25, 33, 35), (31, 97, 40)])
def test_any_shape(shape):
    case = simulate_phantom(0, shape)
    assert case.name == "phantom0000"
    assert case.lesion.shape == case.reference.shape == shape
    assert set(np.unique(case.lesion.array)) == {0, 1, 2, 3, 4}


def test_too_small_a_shape_is_refused():
    with pytest.raises(ImageError, match="too coarse"):
        simulate_phantom(0, (12, 128, 128))


def test_the_classes_can_be_told_apart(demo):
    """A nearest-centroid rule on the four sequences, fitted on half of the voxels, beats chance by far on the rest."""
    labels = demo.lesion.array[demo.lesion.array > 0]
    features = np.stack([np.log(v.array[demo.lesion.array > 0]) for v in demo.images.values()], axis=1)
    features /= features.std(axis=0)
    centroids = np.stack([features[::2][labels[::2] == k].mean(axis=0) for k in (1, 2, 3, 4)])
    guess = 1 + np.argmin(np.linalg.norm(features[1::2, None] - centroids, axis=2), axis=1)
    recalls = [np.mean(guess[labels[1::2] == k] == k) for k in (1, 2, 3, 4)]
    assert 0.5 < np.mean(recalls) < 0.99


@pytest.fixture(scope="module")
def head():
    return simulate_anatomy(np.random.default_rng(1), SHAPE).array


@pytest.fixture(scope="module")
def simulations(head):
    return [simulate_scene(np.random.default_rng(seed), head, SPACING) for seed in SEEDS]


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
    again = simulate_scene(np.random.default_rng(0), head, SPACING)
    assert again.lesion.tobytes() == simulations[0].lesion.tobytes()
    assert again.anatomy.tobytes() == simulations[0].anatomy.tobytes()
    assert simulations[1].lesion.tobytes() != simulations[0].lesion.tobytes()


def test_every_tissue_is_there_in_every_tumour(simulations):
    for scene in simulations:
        counts = np.bincount(scene.lesion.ravel(), minlength=5)
        assert counts.size == 5
        assert counts[1:].min() >= FEWEST_VOXELS


def test_even_in_the_coarsest_head():
    shape = (24, 32, 32)
    head = simulate_anatomy(np.random.default_rng(3), shape).array
    for seed in range(10):
        lesion = simulate_scene(np.random.default_rng(seed), head, spacing_for(shape)).lesion
        assert np.bincount(lesion.ravel(), minlength=5)[1:].min() >= 50


def test_size_varies_between_1_and_12_per_cent_of_the_brain(head, simulations):
    shares = [np.count_nonzero(g.lesion) / np.count_nonzero(head) for g in simulations]
    assert 0.01 < min(shares) < 0.6 * max(shares)
    assert max(shares) < 0.12


def test_the_tumour_lies_in_the_brain_and_outside_the_ventricles(simulations):
    for scene in simulations:
        assert set(np.unique(scene.anatomy[scene.lesion > 0])).isdisjoint({Tissue.BACKGROUND, Tissue.VENTRICLE})


def test_oedema_prefers_white_matter_and_stops_at_fluid(simulations):
    for scene in simulations:
        beneath = scene.anatomy[scene.lesion == Part.OEDEMA]
        assert not (beneath == Tissue.CSF).any()
        assert (beneath == Tissue.WHITE).mean() > 0.6


def test_necrosis_is_enclosed_by_enhancing_tumour(simulations):
    for scene in simulations:
        around = ndimage.binary_dilation(scene.lesion == Part.NECROSIS) & (scene.lesion != Part.NECROSIS)
        assert (scene.lesion[around] == Part.ENHANCING).mean() > 0.7


def test_the_outline_of_the_head_stays_as_it_was(head, simulations):
    for scene in simulations:
        assert np.array_equal(scene.anatomy > 0, head > 0)


def test_anatomy_is_displaced_near_the_tumour_and_nowhere_else(head, simulations):
    for seed, scene in zip(SEEDS, simulations, strict=True):
        tumour = draw_tumour(np.random.default_rng(seed), head, SPACING)
        near = distances_mm(tumour.centre) < REACH * tumour.mass_radius_mm(SPACING)
        changed = scene.anatomy != head
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


@pytest.fixture(scope="module", params=[0, 1, 2])
def scan(request):
    """A scene and its four images."""
    rng = np.random.default_rng(request.param)
    scene = simulate_scene(rng, simulate_anatomy(rng, SHAPE).array, spacing_for(SHAPE))
    return scene, paint(rng, scene.anatomy, scene.lesion, spacing_for(SHAPE))


def tissue_mean(scan, sequence, tissue):
    scene, images = scan
    return images[sequence][(scene.anatomy == tissue) & (scene.lesion == Part.NONE)].mean()


def lesion_mean(scan, sequence, lesion):
    scene, images = scan
    return images[sequence][scene.lesion == lesion].mean()


def test_sequences_in_order_as_int16(scan):
    _, images = scan
    assert tuple(images) == ("flair", "t1", "t1c", "t2")
    assert {image.dtype for image in images.values()} == {np.dtype(np.int16)}


def test_background_is_0_and_brain_is_positive(scan):
    scene, images = scan
    for image in images.values():
        assert np.array_equal(image > 0, scene.anatomy != Tissue.BACKGROUND)
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
    assert lesion_mean(scan, "flair", Part.OEDEMA) > 1.25 * white


def test_contrast_agent_lights_the_rim_and_not_the_necrosis(scan):
    white = tissue_mean(scan, "t1c", Tissue.WHITE)
    assert lesion_mean(scan, "t1c", Part.ENHANCING) > 1.2 * white
    assert lesion_mean(scan, "t1c", Part.NECROSIS) < 0.95 * white
    assert lesion_mean(scan, "t1", Part.ENHANCING) < white


def test_vessels_shine_after_contrast_only(scan):
    scene, images = scan
    fluid = (scene.anatomy == Tissue.CSF) & (ndimage.distance_transform_cdt(scene.lesion == 0) > 3)
    alphas = {s: np.percentile(images[s][fluid], 99.5) / np.median(images[s][fluid]) for s in ("t1", "t1c")}
    assert alphas["t1c"] > alphas["t1"]


def test_noise_and_texture_leave_no_two_white_voxels_alike(scan):
    scene, images = scan
    for image in images.values():
        white = image[(scene.anatomy == Tissue.WHITE) & (scene.lesion == Part.NONE)]
        assert 0.02 < white.std() / white.mean() < 0.25


def test_contrast_differs_from_case_to_case():
    first, second = (draw_scanner(np.random.default_rng(seed), "t1") for seed in (0, 1))
    assert first.gain != second.gain
    assert np.all(np.array(first.tissues)[1:] != np.array(second.tissues)[1:])
    assert first == draw_scanner(np.random.default_rng(0), "t1")
