"""Heads of strokes: voxels stay in their places, nothing folds over, age takes tissue and gives none."""

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.anatomy.procedural import Tissue, smooth_noise
from brainsegnet.anatomy.territories import brain_tissue
from brainsegnet.simulation.fields import draw_pose
from brainsegnet.simulation.stroke_case import SWAY_MM, age_head, coarsen, deform, integrate, vary_head
from brainsegnet.volume import LabelMap


def test_coarsening_keeps_every_voxel_in_its_place():
    fine = np.zeros((40, 44, 48), np.uint8)
    fine[10:30, 12:30, 8:40] = 3
    coarse = coarsen(LabelMap(fine, np.diag([0.5, 0.5, 3.0, 1.0])), 1.0)
    assert coarse.spacing_mm == (1.0, 1.0, 3.0)
    centres = [np.argwhere(v.array).mean(axis=0) @ v.affine[:3, :3].T + v.affine[:3, 3] for v in (coarse,)]
    assert centres[0] == pytest.approx([19.5 * 0.5, 20.5 * 0.5, 23.5 * 3], abs=0.3)
    assert np.count_nonzero(coarse.array) * 3 == pytest.approx(np.count_nonzero(fine) * 0.75, rel=0.15)


def test_age_takes_tissue_for_fluid_and_gives_none(small_head):
    for seed in range(6):
        aged = age_head(np.random.default_rng(seed), small_head)
        before, after = small_head.array, aged.array
        changed = before != after
        assert set(np.unique(after[changed])) <= {Tissue.CSF, Tissue.VENTRICLE}
        assert not (after[before != Tissue.BACKGROUND] == Tissue.BACKGROUND).any()
        assert np.mean(brain_tissue(after)) > 0.7 * np.mean(brain_tissue(before))


@pytest.mark.parametrize("seed", range(4))
def test_another_head_has_the_same_tissues_elsewhere_and_another_size(small_head, seed):
    varied, again = (vary_head(np.random.default_rng(seed), small_head) for _ in range(2))
    assert varied.array.tobytes() == again.array.tobytes() and varied.array.dtype == small_head.array.dtype
    assert set(np.unique(varied.array)) == set(np.unique(small_head.array))
    before, after = (np.bincount(head.array.ravel(), minlength=8)[2:] for head in (small_head, varied))
    assert after / before == pytest.approx(1, abs=0.45) and (before != after).all()
    middles = [np.argwhere(head.array).mean(axis=0) @ head.affine[:3, :3].T + head.affine[:3, 3]
               for head in (small_head, varied)]  # fmt: skip
    assert middles[1] == pytest.approx(middles[0], abs=15)


def test_heads_are_as_large_in_the_mean_and_never_cut_flat(small_head):
    heads = [vary_head(np.random.default_rng(seed), small_head) for seed in range(30)]
    litres = [np.count_nonzero(head.array) * head.voxel_ml for head in heads]
    assert np.mean(litres) == pytest.approx(np.count_nonzero(small_head.array) * small_head.voxel_ml, rel=0.06)
    assert 0.04 < np.std(litres) / np.mean(litres) < 0.2
    for head in heads:
        assert not any(np.take(head.array, end, axis).any() for axis in range(3) for end in (0, -1))


def test_lobes_and_gyri_move_as_far_as_those_of_heads_with_gliomas():
    poses = [draw_pose(np.random.default_rng(seed)) for seed in range(300)]
    for (_, low, high), drawn in zip(SWAY_MM, ([p.slow_mm for p in poses], [p.fine_mm for p in poses]), strict=True):
        assert (min(drawn), max(drawn)) == pytest.approx((low, high), abs=0.05)


def test_half_of_the_heads_are_mirrored(small_head):
    marked = LabelMap(small_head.array.copy(), small_head.affine)
    left = np.indices(marked.shape)[2] > marked.shape[2] // 2
    marked.array[left & (marked.array == Tissue.GREY)] = Tissue.CEREBELLAR_GREY
    at = []
    for seed in range(30):
        head = vary_head(np.random.default_rng(seed), marked)
        at.append(np.argwhere(head.array == Tissue.GREY)[:, 2].mean() > np.argwhere(head.array)[:, 2].mean())
    assert 7 < sum(at) < 23


@pytest.mark.parametrize("amplitude", [0.2, 1.5, 4.0])
def test_a_flow_that_is_integrated_never_folds(amplitude):
    rng = np.random.default_rng(0)
    flow = np.stack([amplitude * smooth_noise(rng, (24, 26, 28), (1.0, 1.0, 1.0), 6.0) for _ in range(3)])
    where = np.indices(flow.shape[1:]) + integrate(flow)
    rows = np.stack([np.stack(np.gradient(part)) for part in where])
    assert np.linalg.det(rows[:, :, 3:-3, 3:-3, 3:-3].transpose(2, 3, 4, 0, 1)).min() > 0


def test_a_flow_that_is_the_same_everywhere_moves_by_itself():
    flow = np.broadcast_to(np.array([1.0, -2.0, 0.5]).reshape(3, 1, 1, 1), (3, 8, 9, 10))
    assert integrate(flow) == pytest.approx(flow)
    labels = np.random.default_rng(0).integers(0, 5, (22, 25, 28)).astype(np.uint8)
    moved = deform(labels, np.round(flow))
    assert np.array_equal(moved[:-1, 2:], ndimage.shift(labels, (-1, 2, 0), order=0)[:-1, 2:])
    assert np.array_equal(deform(labels, 0 * flow), labels)
