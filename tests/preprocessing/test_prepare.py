from itertools import permutations, product

import numpy as np
import pytest

from brainsegnet.errors import ImageError
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.preprocessing.foreground import find_air
from brainsegnet.preprocessing.geometry import Turn, find_turn, turn, turn_array
from brainsegnet.preprocessing.prepare import (
    check_case,
    crop,
    find_head,
    follow,
    normalise,
    prepare,
    put_back,
    refuse_labels,
    restore,
)
from brainsegnet.task import BRATS2015, BRATS2021
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
    inside[box_of(other).slices] = True
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


def box_of(case):
    return Box.around(mask_of(case))


def mask_of(case):
    how = find_turn(case.reference.affine)
    return turn_array(find_head(case, how).mask, how.inverse)


def head(rng, background, box=BOX, shape=(6, 8, 10)):
    array = np.full(shape, background, np.float32)
    array[box.slices] = rng.random(box.shape) + 1
    return Volume(array, np.diag([2.0, 1, 1, 1]))


@pytest.mark.parametrize("background", [0, -3.16])
def test_the_box_holds_the_brain_of_every_sequence(rng, background):
    case = Case("a", {"t1": head(rng, background), "t2": head(rng, 0, Box((2, 1, 3), (3, 3, 4)))})
    assert box_of(case) == Box((1, 1, 3), (4, 6, 8))
    assert mask_of(case).sum() == 3 * 4 * 5 + 1


def test_an_image_without_background_fills_its_volume_unless_another_tells_where_the_brain_is(rng):
    noisy = Volume(rng.random((6, 8, 10)), np.diag([2.0, 1, 1, 1]))
    assert box_of(Case("a", {"t2": noisy})) == Box((0, 0, 0), (6, 8, 10))
    assert box_of(Case("a", {"t1": head(rng, 0), "t2": noisy})) == BOX


def test_a_lesion_outside_the_brain_does_not_move_the_box(rng):
    lesion = LabelMap(np.ones((6, 8, 10), np.uint8), np.diag([2.0, 1, 1, 1]))
    assert box_of(Case("a", {"t1": head(rng, 0)}, lesion)) == BOX


def test_nothing_but_background_is_refused():
    with pytest.raises(ImageError, match="case a: no image differs from its background"):
        box_of(Case("a", {"t1": Volume(np.zeros((2, 3, 4)), np.eye(4))}))


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
    assert -4 < find_air(case.reference.array).level < -3
    assert box_of(case) == Box((7, 51, 47), (147, 212, 193))


@pytest.fixture
def mask():
    mask = np.zeros((6, 8, 10), bool)
    mask[1:5, 2:7, 3:9] = True
    return mask


@pytest.fixture
def image(rng, mask):
    return np.where(mask, rng.gamma(3, 100, mask.shape) + 1, 0)


def test_the_brain_has_median_0_and_deviation_1_and_the_rest_alone_is_0(image, mask):
    x = normalise(image, mask)
    assert x.dtype == np.float32 and x.flags.c_contiguous
    assert abs(np.median(x[mask])) < 1e-5 and abs(x[mask].std() - 1) < 1e-5
    assert x[mask].all()
    assert not x[~mask].any() and not np.signbit(x[~mask]).any()


@pytest.mark.parametrize("a, b", [(1, 5), (0.001, 0), (300, -4000), (2.5, 1e5)])
def test_gain_and_offset_of_the_scanner_do_not_matter(image, mask, a, b):
    np.testing.assert_allclose(normalise(a * image + b, mask), normalise(image, mask), atol=2e-4 if b == 1e5 else 2e-5)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int32, np.float32, ">i2"])
def test_every_stored_type_is_normalised(mask, rng, dtype):
    image = (rng.integers(1, 250, mask.shape) * mask).astype(dtype)
    values = image[mask].astype(float)
    np.testing.assert_allclose(normalise(image, mask)[mask], (values - np.median(values)) / values.std(), atol=1e-5)


def test_where_a_sequence_is_background_it_does_not_count(image, mask):
    half = image.copy()
    half[:, :, :6] = 0
    own = mask.copy()
    own[:, :, :6] = False
    np.testing.assert_array_equal(normalise(half, mask, half != 0)[own], normalise(half, own)[own])
    assert (normalise(half, mask, half != 0)[mask & ~own] < 0).all()


def test_an_image_without_background_counts_wholly(rng):
    image = rng.normal(5, 2, (4, 5, 6))
    np.testing.assert_allclose(
        normalise(image, np.ones(image.shape, bool)), (image - np.median(image)) / image.std(), atol=1e-6
    )


def test_a_large_lesion_does_not_move_the_healthy_tissue(image, mask):
    sick = image.copy()
    sick[mask & (image > np.quantile(image[mask], 0.8))] *= 3
    healthy = mask & (sick == image)
    difference = normalise(sick, mask) * sick[mask].std() - normalise(image, mask) * image[mask].std()
    assert np.abs(difference[healthy]).max() < 1e-2


@pytest.mark.parametrize("value", [0, 7, 1e6])
def test_one_value_in_the_whole_brain_is_refused(mask, value):
    with pytest.raises(ImageError, match="case a: t1 has one value in the whole brain"):
        normalise(np.where(mask, value, 0.0), mask, None, "case a: t1")


@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (lambda x: x * 0 + 3, "case pat1: t2 is 3 everywhere"),
        (lambda x: np.where(x > x.max() - 1e-9, np.nan, x), "case pat1: t2 holds 1 NaN or infinite values"),
        (lambda x: np.where(x == 0, -np.inf, x), r"case pat1: t2 holds 360 NaN or infinite"),
        (lambda x: x.astype(int) * 0, "case pat1: t2 is 0 everywhere"),
    ],
)
def test_each_kind_of_unusable_image_is_refused_in_a_sentence(image, spoil, sentence):
    case = Case("pat1", {"t1": Volume(image, np.eye(4)), "t2": Volume(spoil(image), np.eye(4))})
    with pytest.raises(ImageError, match=sentence):
        check_case(case)


def test_an_empty_image_is_refused():
    with pytest.raises(ImageError, match=r"case pat1: t1 is empty, its shape is \(0, 4, 4\)"):
        check_case(Case("pat1", {"t1": Volume(np.zeros((0, 4, 4)), np.eye(4))}))


def test_a_usable_case_passes(image):
    check_case(Case("pat1", {"t1": Volume(image, np.eye(4))}))


@pytest.mark.parametrize("values", [(0, 1), (0, 1, 2, 4), (2, 41, 1035), tuple(range(64))])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_a_label_map_in_place_of_a_sequence_is_refused(rng, values, dtype):
    image = rng.normal(size=(20, 20, 20)).astype(np.float32)
    labels = np.array(values, np.int64).astype(dtype)[rng.integers(0, len(values), image.shape)]
    case = Case("a", {"flair": Volume(image, np.eye(4)), "t1": Volume(labels, np.eye(4))})
    with pytest.raises(ImageError, match=rf"case a: t1 holds only {len(values)} values \({values[0]}, {values[1]}"):
        prepare(case)


@pytest.mark.parametrize("spoil", ["many values", "fractions", "negative", "few in part"])
def test_a_scan_of_few_values_is_no_label_map_unless_all_are_whole(rng, spoil):
    array = rng.integers(0, 60, (20, 20, 20)).astype(np.float32)
    if spoil == "many values":
        array[::2] += 60
    elif spoil == "fractions":
        array /= 2
    elif spoil == "negative":
        array -= 5
    else:
        array[0, 0, 0] = 0.5
    refuse_labels(Case("a", {"t1": Volume(array, np.eye(4))}))


def test_times_in_frames_and_tiny_images_may_have_few_values(rng):
    for name, side in (("tmax", 20), ("ttp", 20), ("mtt", 20), ("pwi_peak", 20), ("t1", 15)):
        array = rng.integers(0, 9, (side, side, side)).astype(np.float32)
        refuse_labels(Case("a", {name: Volume(array, np.eye(4))}))
