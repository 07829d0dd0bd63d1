"""Standard coordinates and arteries: the same in any grid, symmetric, and near those of an atlas of patients."""

from dataclasses import replace

import numpy as np
import pytest

from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.anatomy.territories import (
    ATLAS,
    EXTENT_MM,
    TOP_MM,
    Territory,
    brain_tissue,
    find_territories,
    sample_template,
    standard_points,
)
from brainsegnet.io.images import read_labels
from brainsegnet.volume import LabelMap


def still(anatomy):
    return np.zeros((3, *anatomy.shape), np.float32)


def test_the_brain_fills_the_standard_extent(small_anatomy):
    z, y, x = standard_points(small_anatomy)
    brain = small_anatomy.array > 0
    assert z[brain].max() == pytest.approx(TOP_MM, abs=8)
    for axis, (low, high) in ((y, EXTENT_MM[0]), (x, EXTENT_MM[1])):
        assert axis[brain].min() == pytest.approx(low, abs=8) and axis[brain].max() == pytest.approx(high, abs=8)


def test_an_anatomy_moved_and_scaled_keeps_its_standard_coordinates(small_anatomy):
    affine = small_anatomy.affine.copy()
    affine[:3] *= 1.2
    affine[:3, 3] += (30, -50, 90)
    there = standard_points(LabelMap(small_anatomy.array, affine))
    assert np.abs(there - standard_points(small_anatomy)).max() < 0.02


def test_turned_axes_turn_the_coordinates_along(small_anatomy):
    turned = replace(small_anatomy, array=small_anatomy.array[:, ::-1], affine=small_anatomy.affine.copy())
    turned.affine[:3, 3] += turned.affine[:3, 1] * (small_anatomy.shape[1] - 1)
    turned.affine[:3, 1] *= -1
    # percentiles are taken over every fifth voxel, so that another order moves them by less than a voxel
    assert np.abs(standard_points(turned)[:, :, ::-1] - standard_points(small_anatomy)).max() < 4


def test_every_artery_feeds_some_brain_on_both_sides(small_anatomy):
    points = standard_points(small_anatomy)
    territory = find_territories(small_anatomy, points, still(small_anatomy))
    assert not territory[small_anatomy.array == 0].any()
    for side in (points[2] > 0, points[2] < 0):
        counts = np.bincount(territory[side], minlength=len(Territory))
        assert counts[1:].min() > 5
        middle = counts[Territory.MIDDLE_FRONTAL : Territory.LENTICULOSTRIATE + 1].sum()
        assert 0.35 < middle / counts[1:].sum() < 0.7


def test_arteries_of_the_hindbrain_feed_the_hindbrain_alone(small_ground):
    behind = np.isin(small_ground.tissue, (Tissue.CEREBELLAR_GREY, Tissue.HINDBRAIN_WHITE))
    assert np.array_equal(
        small_ground.territory[brain_tissue(small_ground.tissue)] >= Territory.BASILAR,
        behind[brain_tissue(small_ground.tissue)],
    )


def test_a_template_is_sampled_at_its_own_voxels():
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    affine = np.array([[0, 0, 2.0, -3], [0, -2.0, 0, 5], [2.0, 0, 0, 1], [0, 0, 0, 1]])
    index = np.indices(values.shape).reshape(3, -1)
    points = (affine[:3, :3] @ index + affine[:3, 3:])[::-1].astype(np.float32)
    for order in (0, 1):
        assert sample_template(LabelMap(values, affine), points, order) == pytest.approx(values.ravel(), abs=1e-4)


@pytest.mark.real
def test_the_arteries_agree_with_an_atlas_of_patients(real_data, small_anatomy):
    atlas = read_labels(real_data / "lesion_shapes" / "ArterialAtlas136.nii.gz")
    points = standard_points(small_anatomy)
    ours, theirs = (find_territories(small_anatomy, points, still(small_anatomy), a) for a in (None, atlas))
    cerebrum = np.isin(small_anatomy.array, (Tissue.GREY, Tissue.WHITE)) & (theirs > 0) & (theirs < Territory.BASILAR)
    assert len(ATLAS) == int(atlas.array.max()) + 1
    assert np.mean(ours[cerebrum] == theirs[cerebrum]) > 0.6
