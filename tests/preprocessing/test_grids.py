import dataclasses

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from brainsegnet.errors import ImageError
from brainsegnet.preprocessing.geometry import Turn, turn
from brainsegnet.preprocessing.grids import bring, bring_back, build_working_grid
from brainsegnet.volume import LabelMap, Volume, measure_gap

SPACINGS = [(2, 2, 2), (0.7, 0.7, 0.7), (3, 0.9, 0.9), (5, 1, 1), (5, 0.5, 0.5), (1, 5, 0.5)]


def grid(shape, spacing, angles=(0, 0, 0)):
    affine = np.diag([*map(float, spacing), 1.0])
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = (-40, 13, 7)
    return Volume(np.zeros(shape, np.float32), affine)


def points(volume):
    """Places (D, H, W, 3) of the voxels of a volume."""
    index = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), -1)
    return index @ volume.affine[:3, :3].T + volume.affine[:3, 3]


def ramp(volume, slope=(0.3, -0.5, 0.2)):
    """A volume whose intensities rise linearly across the world, and that no air surrounds."""
    return volume.with_array((points(volume) @ slope + 500).astype(np.float32))


def inner(array, margin=3):
    return array[..., margin:-margin, margin:-margin, margin:-margin]


@pytest.mark.parametrize("angles", [(0, 0, 0), (10, -25, 15)])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_working_grid_has_the_field_of_view_and_the_axes_of_the_image(spacing, angles):
    image = grid((17, 23, 40), spacing, angles)
    working = build_working_grid(image, 1.0)
    for axis in range(3):
        near = abs(spacing[axis] - 1) <= 0.1
        assert working.spacing_mm[axis] == pytest.approx(spacing[axis] if near else 1)
        ours, theirs = (one.shape[axis] * one.spacing_mm[axis] for one in (working, image))
        assert theirs - 0.02 <= ours < theirs + 1
    middle = [one.affine @ (*((n - 1) / 2 for n in one.shape), 1) for one in (working, image)]
    np.testing.assert_allclose(*middle, atol=1e-9)
    np.testing.assert_allclose(
        working.affine[:3, :3] / working.spacing_mm, image.affine[:3, :3] / image.spacing_mm, atol=1e-9
    )
    assert working.array.strides == (0, 0, 0)


@pytest.mark.parametrize("spacing_mm", [None, 1.0, 0.95])
def test_a_grid_of_the_spacing_of_the_model_stays_and_so_does_every_voxel(rng, spacing_mm):
    image = grid((9, 10, 11), (1.0, 1.04, 0.9), (3, 2, 1))
    image = image.with_array(rng.integers(0, 900, image.shape).astype(np.int16))
    working = build_working_grid(image, spacing_mm)
    assert working.shape == image.shape and measure_gap(working, image) == 0
    assert bring(image, working) is image


def test_a_field_of_view_larger_than_any_head_is_refused():
    with pytest.raises(ImageError, match="20 voxels of 100 mm are 2000 mm"):
        build_working_grid(grid((20, 30, 30), (100, 1, 1)), 1.0)
    assert build_working_grid(grid((20, 30, 30), (100, 1, 1)), None).shape == (20, 30, 30)


def test_only_axes_are_exchanged_where_a_grid_holds_the_same_voxels(rng):
    image = grid((5, 6, 7), (2, 1, 1)).with_array(rng.integers(0, 900, (5, 6, 7)).astype(np.int16))
    turned = turn(image, Turn((2, 0, 1), (True, False, True)))
    np.testing.assert_array_equal(bring(turned, image).array, image.array)


@settings(max_examples=20, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(0.4, 6)] * 3),
    angles=st.tuples(*[st.floats(-40, 40)] * 3),
    model_mm=st.sampled_from([1.0, 2.0]),
)
def test_a_linear_image_keeps_its_values_there_and_back(spacing, angles, model_mm):
    image = ramp(grid(tuple(round(40 / mm) + 4 for mm in spacing), spacing, angles))
    working = build_working_grid(image, model_mm)
    brought = bring(image, working)
    margin = [round(2 * max(mm, model_mm) / model_mm) + 2 for mm in spacing]
    inside = tuple(slice(m, -m) for m in margin)
    np.testing.assert_allclose(brought.array[inside], ramp(working).array[inside], atol=0.02)
    back = bring_back(ramp(working).array[None], working, image)
    np.testing.assert_allclose(inner(back[0]), inner(image.array), atol=0.02)


def test_a_transform_places_the_image_and_bring_back_undoes_it():
    image, working = ramp(grid((20, 40, 40), (3, 1, 1))), build_working_grid(grid((20, 40, 40), (3, 1, 1)), 1.0)
    motion = sitk.Euler3DTransform((0, 0, 0), 0.05, -0.03, 0.04, (1.5, -2.0, 0.5))
    brought = bring(image, working, motion)
    moved = np.array(motion.GetMatrix()).reshape(3, 3) @ points(working)[30, 20, 20] + motion.GetTranslation()
    assert brought.array[30, 20, 20] == pytest.approx(moved @ (0.3, -0.5, 0.2) + 500, abs=0.02)
    back = bring_back(brought.array[None], working, image, motion)[0]
    np.testing.assert_allclose(back[5:-5, 8:-8, 8:-8], image.array[5:-5, 8:-8, 8:-8], atol=0.05)


def test_the_last_slice_reaches_half_a_slice_further():
    image = grid((4, 8, 8), (6, 1, 1)).with_array(np.full((4, 8, 8), 5, np.float32) + np.arange(4)[:, None, None])
    brought = bring(image, build_working_grid(image, 1.0)).array
    assert brought.shape == (24, 8, 8)
    np.testing.assert_allclose(brought[:3], 5)
    np.testing.assert_allclose(brought[-3:], 8)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("air", [0.0, -1000.0])
def test_air_stays_exact_and_a_stripped_brain_keeps_a_sharp_edge(spacing, air):
    shape = tuple(round(60 / mm) for mm in spacing)
    image = grid(shape, spacing)
    away = np.linalg.norm(points(image) - points(image).mean((0, 1, 2)), axis=-1)
    image = image.with_array(np.where(away < 22, 300.0, air).astype(np.float32))
    brought = bring(image, build_working_grid(image, 1.0))
    assert set(np.unique(brought.array.round(2))) == {air, 300.0}
    before, after = (np.count_nonzero(one.array > air) * one.voxel_ml for one in (image, brought))
    assert after == pytest.approx(before, rel=0.05)


def test_a_finer_image_is_averaged(rng):
    noise = rng.normal(500, 40, (80, 80, 80)).astype(np.float32)
    image = dataclasses.replace(grid((80, 80, 80), (0.5, 0.5, 0.5)), array=noise)
    brought = bring(image, build_working_grid(image, 2.0))
    assert inner(brought.array).std() < 40 / 4


def test_a_label_map_takes_the_nearest_label(rng):
    labels = LabelMap(rng.integers(0, 5, (6, 20, 20)).astype(np.uint8), grid((6, 20, 20), (5, 1, 1)).affine)
    brought = bring(labels, build_working_grid(labels, 1.0))
    assert isinstance(brought, LabelMap)
    np.testing.assert_array_equal(brought.array, labels.array.repeat(5, 0))


def test_maps_are_zero_beyond_their_grid():
    small, large = grid((10, 10, 10), (1, 1, 1)), grid((20, 10, 10), (1, 1, 1))
    back = bring_back(np.ones((2, 10, 10, 10), np.float32), small, large)
    assert back.shape == (2, 20, 10, 10) and back.dtype == np.float32
    assert (back[:, :10] == 1).all() and (back[:, 10:] == 0).all()
