"""How scans of other voxels are cut from scans of 1 mm."""

import numpy as np
import pytest

from brainsegnet.volume import LabelMap, Volume


@pytest.fixture(scope="module")
def spacing(benchmark_called):
    return benchmark_called("spacing")


def test_a_thick_slice_is_the_mean_over_its_extent(spacing, rng):
    image = Volume(rng.uniform(100, 200, (20, 6, 8)).astype(np.float32), np.eye(4)[[2, 1, 0, 3]])
    thick = spacing.cut(image, (5, 1, 1))
    np.testing.assert_allclose(thick.array, image.array.reshape(4, 5, 6, 8).mean(1), rtol=1e-5)
    assert thick.spacing_mm == (5, 1, 1)
    np.testing.assert_allclose(thick.affine[:3, 3], image.affine[:3, :3] @ (2, 0, 0))


def test_a_voxel_that_is_less_than_half_brain_is_background(spacing):
    image = Volume(np.zeros((4, 2, 2), np.float32), np.eye(4)[[2, 1, 0, 3]])
    image.array[1] = 8
    image.array[2:] = 6
    np.testing.assert_allclose(spacing.cut(image, (2, 1, 1)).array[:, 0, 0], [4, 6])
    np.testing.assert_allclose(spacing.cut(image, (4, 1, 1)).array[:, 0, 0], [5])
    image.array[2:] = 0
    assert not spacing.cut(image, (4, 1, 1)).array.any()


def test_a_label_takes_most_of_its_voxel_and_small_voxels_repeat_it(spacing):
    labels = LabelMap(np.array([[[0, 4, 4, 2, 2, 2]]], np.uint8), np.eye(4)[[2, 1, 0, 3]])
    assert spacing.cut(labels, (1, 1, 3)).array.tolist() == [[[4, 2]]]
    fine = spacing.cut(labels, (1, 1, 0.5)).array
    assert fine.shape == (1, 1, 12) and set(np.unique(fine)) == {0, 2, 4}


@pytest.mark.parametrize("ratio", [0.5, 0.7, 1.0, 2.0, 3.3])
def test_weights_sum_to_one(spacing, ratio):
    weights = spacing.mix(23, ratio)
    assert weights.shape == (round(23 / ratio), 23)
    np.testing.assert_allclose(weights.sum(1), 1)
