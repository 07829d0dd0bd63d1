"""Faults of raw studies: what they change, what they leave alone, and that a training without them is as it was."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from brainsegnet.simulation.phantom import simulate_phantom
from brainsegnet.task import BRATS2015
from brainsegnet.training.faults import (
    Cut,
    FaultParams,
    Motion,
    Slices,
    apply_faults,
    draw_faults,
    move,
    remain,
    scan_in_slices,
    slice_matrix,
)
from brainsegnet.training.recipes import RAW, RECIPES, STRONG, Faults, Recipe, Stage
from brainsegnet.training.sampler import Sampler, Scan

ALWAYS = Stage(name="always", share=1, augment=1, gamma=0)
ALL = Faults(thick=1, moved=1, mask=1, pole=1, missing=1, outliers=1)
MM = (1.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def scan():
    return Scan.of(simulate_phantom(3, (42, 76, 64)), BRATS2015)


@pytest.fixture
def image(scan):
    return torch.from_numpy(scan.image)


def sampler(scan, faults):
    augmentation = STRONG.model_copy(update={"faults": faults, "slice_gain": (1, 1), "noise": 0.0, "blur": 0.0})
    recipe = Recipe(name="r", budget_epochs=1, augmentation=augmentation, sampling="lesion")
    return Sampler([scan], recipe, (12, 48, 48), 0, torch.device("cpu"))


def test_only_the_recipes_for_raw_studies_have_faults():
    assert [name for name, one in RECIPES.items() if one.augmentation.faults.any] == ["raw", "transplant"]
    assert RAW.augmentation.model_copy(update={"faults": Faults()}) == STRONG


def test_without_faults_no_random_number_is_drawn(rng):
    before = rng.bit_generator.state
    assert not draw_faults(rng, Faults(), 4) and rng.bit_generator.state == before
    assert draw_faults(rng, ALL, 4)


def test_a_sample_with_faults_is_a_function_of_seed_and_number(scan):
    one, other = sampler(scan, ALL), sampler(scan, ALL)
    specs = [one.draw(k, ALWAYS) for k in range(4)]
    assert specs == [other.draw(k, ALWAYS) for k in reversed(range(4))][::-1]
    images, classes = one.cut(specs)
    assert images.shape == (4, scan.image.shape[0], 12, 48, 48) and images.isfinite().all()
    for k, spec in enumerate(specs):
        image, truth = other.cut([spec])
        assert torch.equal(image[0], images[k]) and torch.equal(truth[0], classes[k])


def test_faults_leave_place_and_truth_alone_except_where_the_mask_ends(scan):
    cutter = sampler(scan, ALL)
    for k in range(6):
        spec = cutter.draw(k, ALWAYS)
        plain = replace(spec, params=replace(spec.params, faults=FaultParams()))
        assert plain == replace(sampler(scan, Faults()).draw(k, ALWAYS), centre=plain.centre, start=plain.start)
        (image,), (found,) = cutter.cut([spec])
        (_,), (truth,) = cutter.cut([plain])
        brain = (image != 0).any(0)
        assert brain.any() and torch.equal(found[brain], truth[brain]) and not found[~brain].any()


@given(n=st.integers(2, 60), step=st.floats(1, 9), gap=st.floats(0, 0.5), phase=st.floats(0, 1))
def test_slices_average_and_interpolate(n, step, gap, phase):
    matrix = slice_matrix(n, step, step * (1 - gap), phase)
    assert matrix.shape == (n, n) and (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(1), 1)
    inner = slice(int(2 * step), n - int(2 * step))
    np.testing.assert_allclose((matrix @ np.arange(n))[inner], np.arange(n)[inner], atol=0.51)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_thick_slices_keep_the_brain_and_its_contrast_and_blur_one_axis(image, axis):
    channel = image[0]
    found = scan_in_slices(channel, Slices(axis, 6.0, 5.0, 0.3), MM)
    brain = channel != 0
    assert torch.equal(found != 0, brain)
    assert abs(found[brain].mean() - channel[brain].mean()) < 1e-3
    assert abs(found[brain].std() - channel[brain].std()) < 1e-3
    rough = [float(x.diff(dim=axis)[4:-4, 4:-4, 4:-4].abs().mean()) for x in (channel, found)]
    assert rough[1] < 0.8 * rough[0]


def test_a_displacement_moves_by_so_many_millimetres():
    ball = torch.zeros((20, 21, 22))
    ball[8:12, 9:13, 10:14] = 1
    moved = move(ball, Motion((0, 0, 0), (2.0, -1.0, 3.0)), (1.0, 1.0, 1.5))
    assert torch.allclose(moved[6:10, 10:14, 8:12], torch.ones(()), atol=1e-4)
    assert torch.equal((moved != 0).nonzero().amin(0), torch.tensor([6, 10, 8]))


@pytest.mark.parametrize(("angles", "plane"), [((90, 0, 0), (1, 2)), ((0, 90, 0), (0, 2)), ((0, 0, 90), (0, 1))])
def test_a_rotation_turns_in_its_plane(angles, plane):
    cube = torch.rand((9, 9, 9), generator=torch.Generator().manual_seed(0)) + 0.1
    turned = move(cube, Motion(angles, (0.0, 0.0, 0.0)), MM)
    both = [torch.rot90(cube, k, plane) for k in (1, -1)]
    assert any(torch.allclose(turned, one, atol=1e-4) for one in both)


def test_a_cut_takes_the_end_of_the_brain():
    brain = torch.zeros((20, 10, 10), dtype=torch.bool)
    brain[3:15] = True
    left = brain & remain(brain, Cut((1.0, 0.0, 0.0), 4.0), (2.0, 1.0, 1.0))
    assert left.any(2).any(1).nonzero().ravel().tolist() == [*range(3, 13)]


def test_a_wrong_mask_is_wrong_near_the_surface_only(image):
    brain = (image != 0).any(0)
    found = (apply_faults(image, FaultParams(margin_mm=4.0, seed=3), MM) != 0).any(0)
    inside, outside = (ndimage.distance_transform_edt(mask) for mask in (brain, ~brain))
    tight, wide = (brain & ~found).numpy(), (found & ~brain).numpy()
    assert tight.any() and wide.any()
    assert inside[tight].max() <= 8 and outside[wide].max() <= 8
    assert tight.sum() < 0.2 * brain.sum() and wide.sum() < 0.2 * brain.sum()


def test_one_sequence_at_least_stays_in_place(rng):
    for _ in range(50):
        drawn = draw_faults(rng, ALL, 3)
        assert drawn.motions.count(None) == 1
        assert all(np.linalg.norm(one.shift_mm) <= 2 for one in drawn.motions if one)


def test_healthy_brain_stays_plausible(image):
    rng, brain = np.random.default_rng(1), (image != 0).any(0)
    for _ in range(20):
        params = draw_faults(rng, RAW.augmentation.faults, len(image))
        found = apply_faults(image, params, MM)
        kept = brain & (found != 0).any(0)
        assert kept.sum() > 0.7 * brain.sum()
        for c, channel in enumerate(found):
            seen = kept & (channel != 0)
            if params.missing[c] is None:
                assert abs(channel[seen].median() - image[c][seen].median()) < 0.4
                assert 0.6 < channel[seen].std() / image[c][seen].std() < 1.4


def test_outliers_are_few_and_within_the_brain(image):
    found = apply_faults(image, FaultParams(outliers=(9, 0, 0, 0), seed=1), MM)
    changed = found != image
    assert 0 < changed[0].sum() <= 9 and not changed[1:].any()
    assert (found[changed] >= 4).all() and (image[changed] != 0).all()
