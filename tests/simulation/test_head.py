"""Simulated raw scans: one seed governs all, the brain holds its tissue and its lesions, slices repeat their edges."""

from dataclasses import replace

import numpy as np
import pytest

from brainsegnet.anatomy.heads import BRAIN, KINDS, HeadTissue, from_synthseg
from brainsegnet.simulation.head import (
    BRIGHTNESS,
    SEQUENCES,
    draw_contrast,
    draw_growth,
    draw_head_params,
    draw_pose,
    paint,
    place,
    simulate_head,
    simulate_no_head,
)
from brainsegnet.simulation.head_scanner import (
    SliceParams,
    acquire,
    draw_head_scan,
    face,
    ghost,
    move,
    ring,
    slice_matrices,
)

SHAPE = (48, 56, 48)
SEEDS = range(12)


@pytest.fixture(scope="module")
def head(onion):
    return from_synthseg(onion())


def simulate(seed, head):
    return simulate_head(np.random.default_rng(seed), head, SHAPE)


def as_bytes(sample):
    return [part.tobytes() for part in (sample.image, sample.brain, sample.lesion, sample.seen)]


def test_same_seed_same_bytes(head):
    assert as_bytes(simulate(3, head)) == as_bytes(simulate(3, head))


def test_another_seed_differs(head):
    assert as_bytes(simulate(3, head))[:2] != as_bytes(simulate(4, head))[:2]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sample_has_the_shapes_and_ranges_it_promises(head, seed):
    sample = simulate(seed, head)
    assert {part.shape for part in (sample.image, sample.brain, sample.lesion, sample.seen)} == {SHAPE}
    assert sample.image.dtype == sample.brain.dtype == np.float32
    assert sample.lesion.dtype == sample.seen.dtype == np.bool_
    assert np.isfinite(sample.image).all()
    assert sample.brain.min() >= 0 and sample.brain.max() <= 1
    assert not sample.image[~sample.seen].any() and not sample.brain[~sample.seen].any()
    assert (sample.brain[sample.lesion] == 1).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_brain_holds_all_its_tissue_and_nothing_else_but_lesions(head, seed):
    rng = np.random.default_rng(seed)
    placed = place(rng, head, draw_pose(rng), SHAPE)
    _, brain, lesion = paint(rng, placed, draw_contrast(rng))
    inside = np.isin(placed.corners, BRAIN)
    assert (brain[inside.all(axis=0)] == 1).all()
    assert not brain[~inside.any(axis=0) & ~lesion].any()


def test_a_lesion_takes_no_bone_skin_or_air(head):
    rng = np.random.default_rng(5)
    placed = place(rng, head, draw_pose(rng), SHAPE)
    growth = replace(draw_growth(rng, np.ones(KINDS), None), radius_mm=30.0, at_surface=True)
    contrast = replace(draw_contrast(rng), growths=(growth,))
    _, _, lesion = paint(rng, placed, contrast)
    assert lesion.any()
    solid = np.isin(placed.corners, (HeadTissue.BONE, HeadTissue.SKIN, HeadTissue.AIR)).all(axis=0)
    assert not lesion[solid].any()


def test_below_the_map_the_neck_goes_on_without_brain(head):
    pose = replace(draw_pose(np.random.default_rng(1)), matrix=np.eye(3), shift_mm=(60.0, 0, 0), waves_mm=(0, 0))
    low = replace(head, array=head.array[40:])
    placed = place(np.random.default_rng(1), low, pose, (96, 56, 48))
    assert not np.isin(placed.tissue[0], BRAIN).any()
    assert (placed.tissue[0] == HeadTissue.BONE).any()
    assert np.array_equal(placed.tissue[0], placed.tissue[1])


def test_every_tissue_of_every_sequence_has_a_brightness():
    tissues = [tissue.name.lower() for tissue in HeadTissue if tissue < HeadTissue.SOFT]
    assert list(BRIGHTNESS) == [*tissues, "fat", "muscle"]
    assert {len(row) for row in BRIGHTNESS.values()} == {len(SEQUENCES)}


@pytest.mark.parametrize("seed", range(40))
def test_brightness_is_not_negative(seed):
    contrast = draw_contrast(np.random.default_rng(seed))
    assert contrast.values.shape == contrast.mottle.shape == (KINDS,)
    assert contrast.values.min() >= 0 and contrast.mottle.min() >= 0


@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_head_there_is_no_brain(seed):
    sample = simulate_no_head(np.random.default_rng(seed), SHAPE)
    assert not sample.brain.any() and not sample.lesion.any()
    assert np.isfinite(sample.image).all() and sample.image.dtype == np.float32


@pytest.mark.parametrize("step_mm", [2.5, 5.0, 7.5])
def test_slices_keep_a_constant_and_repeat_their_edges(step_mm):
    there, back = slice_matrices(40, (0.1, 0.9), SliceParams(0, step_mm, step_mm, 0))
    assert there @ np.full(40, 3.0) == pytest.approx(3)
    assert back.sum(axis=1) == pytest.approx(1)
    ramp = back @ (there @ np.arange(40.0))
    assert np.ptp(ramp[:4]) == 0 and np.ptp(ramp[-4:]) == 0
    assert ramp[15:25] == pytest.approx(np.arange(15, 25), abs=0.1)


@pytest.mark.parametrize(("distort", "given"), [(move, (0.0, 0.3)), (ghost, (0.0, 3)), (ring, (1.0,))])
def test_an_artefact_of_no_strength_changes_nothing(distort, given, rng):
    image = rng.random((6, 12, 8)).astype(np.float32)
    assert distort(image, 1, *given) == pytest.approx(image, abs=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_removing_a_face_leaves_the_brain(head, seed):
    rng = np.random.default_rng(seed)
    _, brain, _ = paint(rng, place(rng, head, draw_pose(rng), SHAPE), draw_contrast(rng))
    assert not (face(brain, rng.uniform(2, 25), rng.uniform(0.3, 1.6)) & (brain > 0.5)).any()


def test_a_scan_that_was_stripped_holds_the_brain_alone(head):
    rng = np.random.default_rng(2)
    params = draw_head_params(rng)
    image, brain, lesion = paint(rng, place(rng, head, params.pose, SHAPE), params.contrast)
    plain = dict(slices=None, noise=0.0, offset=0.0, motion=None, ghost=None, ringing=None, blur_mm=(0.0,) * 3)
    scan = replace(draw_head_scan(rng), stripped_mm=0.0, **plain)
    scanned, *_ = acquire(rng, image, (brain, lesion), scan)
    assert not scanned[brain <= 0.5].any()
