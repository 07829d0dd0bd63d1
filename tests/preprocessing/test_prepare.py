from itertools import permutations, product

import numpy as np
import pytest

from brainsegnet.errors import ImageError
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.preprocessing.geometry import Turn, turn
from brainsegnet.preprocessing.prepare import brain_box, follow, prepare, restore
from brainsegnet.task import BRATS2021
from brainsegnet.volume import Box, Case, LabelMap, Volume

UPRIGHT = np.array([[0, 0, 1.2, -90], [0, 0.9, 0, -120], [3.0, 0, 0, -60], [0, 0, 0, 1]])
BOX = Box((1, 2, 3), (4, 6, 8))
TURNS = [Turn(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]


@pytest.fixture
def case(rng):
    def head(background):
        array = np.full((6, 8, 10), background)
        array[BOX.slices] = rng.normal(100, 20, BOX.shape)
        return Volume(array, UPRIGHT)

    lesion = LabelMap(rng.integers(0, 3, (6, 8, 10)).astype(np.uint8), UPRIGHT)
    return Case("pat1", {"t2": head(0.0), "flair": head(-5.0)}, lesion)


def stored(case, how):
    return Case(case.name, {name: turn(volume, how) for name, volume in case.images.items()}, turn(case.lesion, how))


def test_a_prepared_case_is_the_normalised_box(case):
    prepared = prepare(case)
    assert prepared.sequences == ("t2", "flair") and prepared.box == BOX and prepared.shape == (6, 8, 10)
    assert prepared.image.shape == (2, *BOX.shape) and prepared.image.dtype == np.float32 and prepared.mask.all()
    for channel, volume in zip(prepared.image, case.images.values(), strict=True):
        brain = volume.array[BOX.slices]
        np.testing.assert_allclose(channel, (brain - np.median(brain)) / brain.std(), atol=1e-5)


@pytest.mark.parametrize("how", TURNS)
def test_the_network_sees_the_same_however_the_scan_is_stored(case, how):
    one, other = prepare(case), prepare(stored(case, how))
    np.testing.assert_allclose(other.image, one.image, atol=1e-6)
    assert other.image.flags.c_contiguous and other.mask.flags.c_contiguous
    assert (other.box, other.shape) == (one.box, one.shape)


@pytest.mark.parametrize("how", TURNS)
def test_restore_undoes_follow_inside_the_box(case, how):
    other = stored(case, how)
    prepared = prepare(other)
    back = restore(follow(other.lesion.array, prepared), prepared)
    inside = np.zeros(other.reference.shape, bool)
    inside[brain_box(other).slices] = True
    np.testing.assert_array_equal(back, np.where(inside, other.lesion.array, 0))
    assert back.dtype == np.uint8 and back.flags.c_contiguous
    np.testing.assert_array_equal(follow(other.lesion.array, prepared), follow(case.lesion.array, prepare(case)))


def test_probabilities_keep_their_leading_axis(case, rng):
    prepared = prepare(case)
    probabilities = rng.random((4, *prepared.box.shape)).astype(np.float32)
    np.testing.assert_array_equal(follow(restore(probabilities, prepared), prepared), probabilities)
    with pytest.raises(ValueError, match=r"the box is \(3, 4, 5\)"):
        restore(probabilities[..., :-1], prepared)


def test_unusable_images_are_refused_by_name(case):
    spoilt = {"t2": case.images["t2"], "flair": case.images["flair"].with_array(np.full((6, 8, 10), np.nan))}
    with pytest.raises(ImageError, match="case pat1: flair holds 480 NaN"):
        prepare(Case("pat1", spoilt))
    flat = case.images["flair"].with_array(np.where(case.images["flair"].array > 0, 1.0, 0.0))
    with pytest.raises(ImageError, match="case pat1: flair has one value in the whole brain, 1"):
        prepare(Case("pat1", {"t2": case.images["t2"], "flair": flat}))


@pytest.mark.real
def test_a_real_lesion_lies_in_its_box(real_data):
    (files,) = find_cases([real_data / "tumour/brats2021/BraTS2021_00006"])
    case = load_case(files, ("flair", "t1", "t1c", "t2"), BRATS2021, lesion=True)
    prepared = prepare(case)
    assert prepared.image.shape == (4, 136, 177, 134)
    assert (
        abs(float(np.median(prepared.image[:, prepared.mask]))) < 1e-2 and not prepared.image[:, ~prepared.mask].any()
    )
    assert case.lesion is not None
    np.testing.assert_array_equal(restore(follow(case.lesion.array, prepared), prepared), case.lesion.array)
