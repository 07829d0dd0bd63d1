import numpy as np
import pytest

from brainsegnet.errors import ImageError
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.preprocessing.prepare import brain_box, brain_mask, crop, find_background, put_back
from brainsegnet.task import BRATS2015
from brainsegnet.volume import Box, Case, LabelMap, Volume

BOX = Box((1, 2, 3), (4, 6, 8))


def head(rng, background, box=BOX, shape=(6, 8, 10)):
    array = np.full(shape, background, np.float32)
    array[box.slices] = rng.random(box.shape) + 1
    return Volume(array, np.diag([2.0, 1, 1, 1]))


@pytest.mark.parametrize("background", [0, -3.16])
def test_the_box_holds_the_brain_of_every_sequence(rng, background):
    case = Case("a", {"t1": head(rng, background), "t2": head(rng, 0, Box((2, 1, 3), (3, 3, 4)))})
    assert brain_box(case) == Box((1, 1, 3), (4, 6, 8))
    assert brain_mask(case).sum() == 3 * 4 * 5 + 1


def test_an_image_without_background_fills_its_volume(rng):
    noisy = Volume(rng.random((6, 8, 10)), np.diag([2.0, 1, 1, 1]))
    case = Case("a", {"t1": head(rng, 0), "t2": noisy})
    assert find_background(noisy.array) is None and find_background(np.full((2, 2, 2), np.nan)) is None
    assert brain_box(case) == Box((0, 0, 0), (6, 8, 10))


def test_a_lesion_outside_the_brain_does_not_move_the_box(rng):
    lesion = LabelMap(np.ones((6, 8, 10), np.uint8), np.diag([2.0, 1, 1, 1]))
    assert brain_box(Case("a", {"t1": head(rng, 0)}, lesion)) == BOX


def test_nothing_but_background_is_refused():
    with pytest.raises(ImageError, match="case a: no image differs from its background"):
        brain_box(Case("a", {"t1": Volume(np.zeros((2, 3, 4)), np.eye(4))}))


def test_put_back_undoes_crop_inside_the_box(rng):
    array = rng.random((6, 8, 10))
    back = put_back(crop(Volume(array, np.eye(4)), BOX).array, BOX, array.shape, fill=-1)
    inside = np.zeros(array.shape, bool)
    inside[BOX.slices] = True
    np.testing.assert_array_equal(back, np.where(inside, array, -1))


def test_put_back_keeps_leading_axes_and_the_type(rng):
    array = rng.random((2, *BOX.shape)).astype(np.float16)
    back = put_back(array, BOX, (6, 8, 10))
    assert back.dtype == np.float16 and back.shape == (2, 6, 8, 10)
    np.testing.assert_array_equal(back[1], put_back(array[1], BOX, (6, 8, 10)))


def test_what_is_cropped_stays_where_it_was(rng):
    affine = np.array([[0, 0.5, 2, -9], [1.5, 0, 0.1, 3], [0, 3, -1, 7], [0, 0, 0, 1.0]])
    labels = LabelMap(np.zeros((6, 8, 10), np.uint8), affine)
    part = crop(labels, BOX)
    assert isinstance(part, LabelMap) and part.shape == BOX.shape
    np.testing.assert_allclose(part.affine @ (1, 1, 1, 1), affine @ (2, 3, 4, 1))
    np.testing.assert_array_equal(labels.affine, affine)


@pytest.mark.real
def test_the_box_of_a_real_brain(real_data):
    (files,) = find_cases([real_data / "tumour/brats2015/brats_2013_pat0003_1"])
    case = load_case(files, ("flair", "t1c"), BRATS2015, lesion=False)
    background = find_background(case.reference.array)
    assert background is not None and -4 < background < -3
    assert brain_box(case) == Box((7, 51, 47), (147, 212, 193))
