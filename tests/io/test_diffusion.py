"""Units of an ADC map, its computation, and the mean over directions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainsegnet.io.diffusion import average_directions, compute_adc, find_adc_factor, read_b_values


def make_adc(median):
    return np.array([0.0, 0.6, 0.95, 1.0, 1.05, 3.0]).reshape(1, 2, 3) * median


@pytest.mark.parametrize(
    ("median", "units", "factor"),
    [
        (800, "", 1),
        (0.8e-3, "", 1e6),
        (0.8, "", 1e3),
        (8e-5, "", 1e7),
        (8000, "", 0.1),
        (800, "um2/s", 1),
        (800, "10^-6 mm²/s", 1),
        (0.8, "10-3 mm2/s", 1000),
        (0.8e-3, "mm2/s", 1e6),
        (800, "mm2/s", 1),
        (1.4, "1e-3 mm2/s", 1e3),
    ],
)
def test_units_are_recognised(median, units, factor):
    found, why = find_adc_factor(make_adc(median), units)
    if factor == 1e7:
        assert found == 0 and "no ADC map" in why
    else:
        assert found == pytest.approx(factor) and why


def test_a_wrong_unit_in_the_header_is_told():
    assert find_adc_factor(make_adc(800), "mm2/s")[1].endswith("although the header gives mm2/s")


def test_an_empty_map_has_no_unit():
    assert find_adc_factor(np.zeros((1, 1, 1))) == (0.0, "no value is above 0")


@given(st.floats(200, 3000), st.floats(0, 100), st.floats(400, 3000))
def test_the_adc_comes_back(adc, b_low, b_high):
    low, high = (np.full((1, 2, 2), 1e4 * np.exp(-b * adc * 1e-6)) for b in (b_low, b_high))
    np.testing.assert_allclose(compute_adc(low, high, b_low, b_high), adc, rtol=1e-3)


def test_voxels_without_signal_have_no_adc():
    low, high = np.array([[[0, 10, 10, 10]]]), np.array([[[5, 0, 20, 5]]])
    np.testing.assert_allclose(compute_adc(low, high, 0, 1000), [[[0, 0, 0, 693.147]]], rtol=1e-4)
    with pytest.raises(ValueError, match="two b-values"):
        compute_adc(low, high, 1000, 1000)


def test_the_mean_of_directions_is_geometric():
    images = [np.full((1, 1, 2), value) for value in (1.0, 10.0, 100.0)]
    np.testing.assert_allclose(average_directions(images), 10, rtol=1e-5)
    images[0][0, 0, 0] = 0
    assert average_directions(images)[0, 0, 0] < 1


def test_b_values_are_numbers():
    assert read_b_values("0 1000\t1000\n").tolist() == [0, 1000, 1000]
    with pytest.raises(ValueError, match="could not convert"):
        read_b_values("0 x")
