import numpy as np
import pytest

from brainsegnet.preprocessing.alignment import resample
from brainsegnet.preprocessing.geometry import Turn, turn
from brainsegnet.volume import LabelMap, Volume


def grid(spacing, origin=(0, 0, 0), tilt=0.0):
    """Upright, tilted about x; spacing (D, H, W), origin (x, y, z)."""
    c, s = np.cos(tilt), np.sin(tilt)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag(spacing)[::-1]
    affine[:3, 3] = origin
    return affine


def plane(shape, affine, slope=(1.0, 2.0, -0.5), level=100.0):
    """An image that is linear in the world, which linear interpolation renders exactly."""
    index = np.stack([*np.meshgrid(*map(np.arange, shape), indexing="ij"), np.ones(shape)], -1)
    return Volume((index @ affine.T)[..., :3] @ slope + level, affine)


def test_a_plane_is_the_same_plane_on_another_grid():
    moving = plane((20, 24, 28), grid((2, 1.5, 1.5), (-15, -12, -14)))
    reference = plane((6, 9, 11), grid((1.7, 1.2, 0.9), (-5, -4, -3), tilt=0.3))
    moved = resample(moving, reference)
    assert moved.on_grid_of(reference) and moved.array.dtype == np.float32
    np.testing.assert_allclose(moved.array, reference.array, atol=1e-3)


def test_labels_keep_their_values_and_their_type(rng):
    labels = LabelMap(rng.choice([0, 1, 4], (6, 7, 8)).astype(np.uint8), grid((2, 1, 1)))
    moved = resample(labels, Volume(np.zeros((12, 7, 8)), grid((1, 1, 1))))
    assert isinstance(moved, LabelMap) and moved.array.dtype == np.uint8
    np.testing.assert_array_equal(moved.array[::2], labels.array)
    assert set(np.unique(moved.array)) <= {0, 1, 4}


@pytest.mark.parametrize("background", [0, -3.25])
def test_beyond_the_edge_lies_background(rng, background):
    array = np.pad(rng.random((3, 3, 3)), 1, constant_values=background)
    moved = resample(Volume(array, grid((1, 1, 1))), Volume(np.zeros((5, 5, 9)), grid((1, 1, 1))))
    np.testing.assert_allclose(moved.array[:5, :5, :5], array, rtol=1e-6)
    assert (moved.array[:, :, 5:] == background).all()


def test_labels_are_0_and_noisy_images_lowest_beyond_the_edge(rng):
    wide = Volume(np.zeros((2, 2, 4)), grid((1, 1, 1)))
    labels = resample(LabelMap(np.full((2, 2, 2), 3), grid((1, 1, 1))), wide)
    assert labels.array[0, 0].tolist() == [3, 3, 0, 0]
    noisy = Volume(rng.random((2, 2, 2)), grid((1, 1, 1)))
    np.testing.assert_allclose(resample(noisy, wide).array[:, :, 2:], noisy.array.min())


def test_a_volume_on_the_grid_is_left_alone():
    volume = plane((3, 4, 5), grid((1, 1, 1)))
    assert resample(volume, Volume(np.ones((3, 4, 5)), grid((1, 1, 1), (1e-4, 0, 0)))) is volume


@pytest.mark.parametrize("kind", [Volume, LabelMap])
def test_the_same_points_counted_along_other_axes_keep_every_value(rng, kind):
    """Also where the affine is oblique, and where interpolation would smear the edge of the brain by a rounding."""
    volume = kind(rng.integers(0, 99, (4, 5, 6)).astype(np.int16), grid((2, 1.3, 0.7), (-5, 4, 3), tilt=0.3))
    for axes, flips in [((1, 2, 0), (True, False, True)), ((2, 1, 0), (False, True, False))]:
        stored = turn(volume, Turn(axes, flips))
        back = resample(stored, volume)
        assert type(back) is kind and back.array.dtype == np.int16 and back.on_grid_of(volume)
        np.testing.assert_array_equal(back.array, volume.array)
        np.testing.assert_array_equal(resample(volume, stored).array, stored.array)


@pytest.mark.parametrize("background", [0, -3.25])
def test_a_stripped_brain_keeps_a_sharp_edge(rng, background):
    """No voxel is a little of both: interpolation by a rounding would make the brain a voxel larger all around."""
    array = np.full((12, 14, 16), background, np.float32)
    array[3:9, 4:10, 5:11] = rng.uniform(50, 60, (6, 6, 6))
    volume = Volume(array, grid((1, 1, 1)))
    nearly = resample(volume, Volume(np.zeros((12, 14, 17)), grid((1, 1, 1), (1e-7, -1e-7, 1e-7))))
    np.testing.assert_array_equal(nearly.array[:, :, :16] != background, array != background)
    between = resample(volume, Volume(np.zeros((12, 14, 17)), grid((1, 1, 1), (0.25, 0, 0)))).array
    brain = between != background
    assert brain.sum() == 6**3 and between[brain].min() > 0.7 * 50 + 0.3 * background
    tilted = resample(volume, Volume(np.zeros((16, 16, 16)), grid((1, 1, 1), (0, 0, 0), tilt=0.3))).array
    assert abs((tilted != background).sum() - 6**3) < 0.15 * 6**3
