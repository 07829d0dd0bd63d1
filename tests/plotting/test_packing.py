"""Laws of what a page holds of a volume: bytes that unpack to themselves, values within half a step, true places."""

import base64
import gzip
from itertools import permutations

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import array_shapes, arrays

from brainsegnet.io.images import to_nibabel
from brainsegnet.plotting.packing import (
    MARGIN_VOXELS,
    MOST_VOXELS,
    frame_head,
    pack,
    pack_image,
    pack_share,
)
from brainsegnet.preprocessing.geometry import Turn, turn
from brainsegnet.volume import LabelMap


def unpack(text, shape):
    """As the script of the page does it."""
    found = np.zeros([n + 1 for n in shape], int)
    found[1:, 1:, 1:] = np.frombuffer(gzip.decompress(base64.b64decode(text)), np.uint8).reshape(shape)
    for d, h, w in np.ndindex(shape):
        (lub, ub), (lb, b) = found[d, h : h + 2, w : w + 2]
        (lu, u), (l, now) = found[d + 1, h : h + 2, w : w + 2]  # noqa: E741
        predicted = int((5 * (l + u + b) - 3 * (lu + lb + ub) + lub) / 7)
        found[d + 1, h + 1, w + 1] = (now + min(255, max(0, predicted))) % 256
    return found[1:, 1:, 1:].astype(np.uint8)


def values_of(packed, shape):
    levels, scale = unpack(packed.data, shape), packed.scale
    if "table" in scale:
        return np.array(scale["table"])[levels]
    if scale["air"] is None:
        return scale["low"] + levels * scale["step"]
    return np.where(levels == 0, scale["air"], scale["low"] + (levels - 1.0) * scale["step"])


@given(arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=6), elements=some.integers(0, 255)))
def test_any_bytes_unpack_to_themselves(levels):
    np.testing.assert_array_equal(unpack(pack(levels), levels.shape), levels)


def head(rng, shape=(6, 12, 10), air=0.0):
    image = rng.normal(800, 200, shape).astype(np.float32)
    image[:, :2], image[:, -2:], image[:, :, :2], image[:, :, -2:] = air, air, air, air
    return image, image != air


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64])
def test_an_image_of_few_values_is_exact(rng, dtype):
    image = rng.choice(np.linspace(-50 if dtype != np.uint8 else 0, 200, 200).astype(dtype), (5, 6, 7))
    packed = pack_image(image, image > 0)
    np.testing.assert_array_equal(values_of(packed, image.shape), image)


@pytest.mark.parametrize("air", [0.0, -1000.0, 5e6])
def test_many_values_are_within_half_a_step_and_air_is_exact(rng, air):
    image, inside = head(rng, air=air)
    packed = pack_image(image, inside)
    found, scale = values_of(packed, image.shape), packed.scale
    np.testing.assert_array_equal(found[~inside], air)
    within = inside & (image >= scale["low"]) & (image <= scale["low"] + 254 * scale["step"])
    assert within.sum() >= 0.99 * inside.sum() and scale["cut"] == [True, True]
    np.testing.assert_allclose(found[within], image[within], atol=scale["step"] * 0.501)


def test_an_image_of_one_value_is_packed():
    image = np.full((3, 4, 5), 7.0, np.float32)
    assert (values_of(pack_image(image, np.zeros(image.shape, bool)), image.shape) == 7.0).all()


def test_shares_keep_two_digits(rng):
    share = rng.uniform(-0.1, 1.1, (4, 5, 6))
    np.testing.assert_allclose(values_of(pack_share(share), share.shape), np.clip(share, 0, 1), atol=0.0101)


def case(shape=(9, 14, 12)):
    """A grid with oblique axes of 2, 1 and 0.8 mm, and a label map with three lesions."""
    angle = 0.2
    turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = (turned @ np.diag([0.8, 1.0, 2.0]))[:, ::-1]
    affine[:3, 3] = (-30, 12, 55)
    labels = np.zeros(shape, np.uint8)
    labels[2:4, 3:6, 2:5], labels[6, 9, 8:10], labels[7, 12, 3] = 1, 4, 2
    return LabelMap(labels, affine)


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("flips", [(False, True, False), (True, True, True), (False, False, False)])
def test_places_are_those_of_nibabel_however_a_file_is_stored(axes, flips):
    labels = turn(case(), Turn(axes, flips))
    frame = frame_head(labels, np.zeros(labels.shape, bool))
    file = to_nibabel(labels)
    shown = frame.take(labels.array)
    assert shown.shape == frame.shape and set(np.unique(shown)) == {0, 1, 2, 4}
    for d, h, w in np.argwhere(shown):
        voxel = (frame.to_voxel @ (w, h, d, 1))[:3].astype(int)
        assert np.asarray(file.dataobj)[tuple(voxel)] == shown[d, h, w]
        expected = nibabel.affines.apply_affine(file.affine, voxel)
        np.testing.assert_allclose((frame.to_ras @ (w, h, d, 1))[:3], expected, atol=1e-4)
    to_left, _, to_head = frame.to_ras[:3, 0], frame.to_ras[:3, 1], frame.to_ras[:3, 2]
    assert to_left[0] < 0 < to_head[2]
    assert [round(mm, 3) for mm in frame.spacing_mm] == [2.0, 1.0, 0.8]


def test_the_frame_holds_head_labels_and_a_margin():
    labels = case((30, 40, 40))
    inside = np.zeros(labels.shape, bool)
    inside[10:20, 15:20, 30:33] = True
    frame = frame_head(labels, inside)
    assert frame.box.start == (2 - MARGIN_VOXELS, 3 - MARGIN_VOXELS, 2 - MARGIN_VOXELS)
    assert frame.box.stop == (20 + MARGIN_VOXELS, 20 + MARGIN_VOXELS, 33 + MARGIN_VOXELS)


def test_a_very_large_grid_is_shown_at_fewer_voxels(monkeypatch):
    monkeypatch.setattr("brainsegnet.plotting.packing.MOST_VOXELS", 500)
    labels = case()
    frame = frame_head(labels, np.ones(labels.shape, bool))
    assert np.prod(frame.shape) <= 1.3 * 500 < MOST_VOXELS and frame.step[0] == 1
    d, h, w = np.argwhere(frame.take(labels.array))[0]
    voxel = (frame.to_voxel @ (w, h, d, 1))[:3].astype(int)
    assert labels.array.T[tuple(voxel)] == frame.take(labels.array)[d, h, w]


def test_a_voxel_of_the_file_is_found_in_what_is_shown():
    labels = case()
    frame = frame_head(labels, np.ones(labels.shape, bool))
    shown = frame.take(labels.array)
    for voxel in np.argwhere(labels.array).tolist():
        assert shown[frame.find(tuple(voxel))[::-1]] == labels.array[tuple(voxel)]
