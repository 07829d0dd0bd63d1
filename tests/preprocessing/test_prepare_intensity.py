import numpy as np
import pytest

from brainsegnet.errors import ImageError
from brainsegnet.preprocessing.prepare import check_case, normalise
from brainsegnet.volume import Case, Volume


@pytest.fixture
def mask():
    mask = np.zeros((6, 8, 10), bool)
    mask[1:5, 2:7, 3:9] = True
    return mask


@pytest.fixture
def image(rng, mask):
    return np.where(mask, rng.gamma(3, 100, mask.shape) + 1, 0)


def test_the_brain_has_median_0_and_deviation_1_and_the_rest_alone_is_0(image, mask):
    x = normalise(image, mask, 0)
    assert x.dtype == np.float32 and x.flags.c_contiguous
    assert abs(np.median(x[mask])) < 1e-5 and abs(x[mask].std() - 1) < 1e-5
    assert x[mask].all()
    assert not x[~mask].any() and not np.signbit(x[~mask]).any()


@pytest.mark.parametrize("a, b", [(1, 5), (0.001, 0), (300, -4000), (2.5, 1e5)])
def test_gain_and_offset_of_the_scanner_do_not_matter(image, mask, a, b):
    np.testing.assert_allclose(
        normalise(a * image + b, mask, b), normalise(image, mask, 0), atol=2e-4 if b == 1e5 else 2e-5
    )


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int32, np.float32, ">i2"])
def test_every_stored_type_is_normalised(mask, rng, dtype):
    image = (rng.integers(1, 250, mask.shape) * mask).astype(dtype)
    values = image[mask].astype(float)
    np.testing.assert_allclose(normalise(image, mask, 0)[mask], (values - np.median(values)) / values.std(), atol=1e-5)


def test_where_a_sequence_is_background_it_does_not_count(image, mask):
    half = image.copy()
    half[:, :, :6] = 0
    own = mask.copy()
    own[:, :, :6] = False
    np.testing.assert_array_equal(normalise(half, mask, 0)[own], normalise(half, own, 0)[own])
    assert (normalise(half, mask, 0)[mask & ~own] < 0).all()


def test_an_image_without_background_counts_wholly(rng):
    image = rng.normal(5, 2, (4, 5, 6))
    np.testing.assert_allclose(
        normalise(image, np.ones(image.shape, bool)), (image - np.median(image)) / image.std(), atol=1e-6
    )


def test_a_large_lesion_does_not_move_the_healthy_tissue(image, mask):
    sick = image.copy()
    sick[mask & (image > np.quantile(image[mask], 0.8))] *= 3
    healthy = mask & (sick == image)
    difference = normalise(sick, mask, 0) * sick[mask].std() - normalise(image, mask, 0) * image[mask].std()
    assert np.abs(difference[healthy]).max() < 1e-2


@pytest.mark.parametrize("value", [0, 7, 1e6])
def test_one_value_in_the_whole_brain_is_refused(mask, value):
    with pytest.raises(ImageError, match="case a: t1 has one value in the whole brain"):
        normalise(np.where(mask, value, 0.0), mask, 0, "case a: t1")


@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (lambda x: x * 0 + 3, "case pat1: t2 is 3 everywhere"),
        (lambda x: np.where(x > x.max() - 1e-9, np.nan, x), "case pat1: t2 holds 1 NaN or infinite values"),
        (lambda x: np.where(x == 0, -np.inf, x), r"case pat1: t2 holds 360 NaN or infinite"),
        (lambda x: x.astype(int) * 0, "case pat1: t2 is 0 everywhere"),
    ],
)
def test_unusable_images_are_refused_by_name(image, spoil, sentence):
    case = Case("pat1", {"t1": Volume(image, np.eye(4)), "t2": Volume(spoil(image), np.eye(4))})
    with pytest.raises(ImageError, match=sentence):
        check_case(case)


def test_an_empty_image_is_refused():
    with pytest.raises(ImageError, match=r"case pat1: t1 is empty, its shape is \(0, 4, 4\)"):
        check_case(Case("pat1", {"t1": Volume(np.zeros((0, 4, 4)), np.eye(4))}))


def test_a_usable_case_passes(image):
    check_case(Case("pat1", {"t1": Volume(image, np.eye(4))}))
