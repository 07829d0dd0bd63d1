import numpy as np
import pytest

from brainsegnet.errors import ImageError
from brainsegnet.io.case_files import MAPS, find_bolus, map_perfusion
from brainsegnet.io.images import Series

FRAMES, SHAPE = 40, (3, 8, 9)


def contrast(arrival, volume=1.0):
    """Concentration over time: a gamma variate, the usual model of a bolus."""
    t = np.clip(np.arange(FRAMES) - arrival, 0, None) / 3
    return volume * t**3 * np.exp(3 * (1 - t))


@pytest.fixture
def series():
    """A head in air: tissue at 1000, half the blood in the upper rows, and late arrival on the right."""
    late = np.where(np.arange(SHAPE[2]) < 5, 12, 15)
    signal = np.zeros((FRAMES, *SHAPE))
    for row in range(1, 7):
        for column in range(1, 8):
            signal[:, :, row, column] = 1000 * np.exp(-contrast(late[column], 0.5 if row < 4 else 1))[:, None]
    signal[:2] *= 1.2
    return Series(signal.astype(np.float32), np.diag([6.5, 1.8, 1.8, 1]))


def test_maps_say_how_much_contrast_comes_how_late(series):
    maps = {name: volume.array for name, volume in map_perfusion(series).items()}
    assert tuple(maps) == MAPS and all(part.dtype == np.float32 and part.shape == SHAPE for part in maps.values())
    inside = series.array[5] > 0
    assert all((part[~inside] == 0).all() for part in maps.values())
    np.testing.assert_allclose(maps["baseline"][inside], 1000, rtol=0.02)
    np.testing.assert_allclose(maps["drop"][:, 1:4, 1:8], 0.5, atol=0.02)
    np.testing.assert_allclose(maps["drop"][:, 4:7, 1:8], 1, atol=0.02)
    np.testing.assert_allclose(maps["area"][:, 4:7, 1:4] / maps["area"][:, 1:4, 1:4], 2, rtol=0.02)
    assert (maps["peak"][:, 1:7, 5:8] - maps["peak"][:, 1:7, 1:4] == 3).all()


def test_the_scale_of_the_signal_is_in_the_baseline_alone(series):
    ours, scaled = map_perfusion(series), map_perfusion(Series(series.array * 7, series.affine))
    for name in ("drop", "peak", "area"):
        np.testing.assert_allclose(scaled[name].array, ours[name].array, rtol=1e-5)
    np.testing.assert_allclose(scaled["baseline"].array, 7 * ours["baseline"].array, rtol=1e-6)


def test_a_later_bolus_gives_the_same_maps(series):
    later = Series(np.concatenate([series.array[:2], *[series.array[2:3]] * 4, series.array[2:]]), series.affine)
    ours, theirs = map_perfusion(series), map_perfusion(later)
    for name in MAPS:
        np.testing.assert_allclose(theirs[name].array, ours[name].array, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("curve", [np.full(20, 5.0), np.arange(20.0), np.r_[9, 9, np.full(18, 5.0)]])
def test_a_series_without_a_bolus_is_refused(curve):
    with pytest.raises(ImageError, match=r"^p\.nii shows no passage of contrast"):
        find_bolus(curve, "p.nii")


def test_too_few_frames_and_another_shape_are_refused(series):
    with pytest.raises(ImageError, match="has 7 frames, a perfusion series has 8 or more"):
        map_perfusion(Series(series.array[:7], series.affine))
    with pytest.raises(ValueError, match="a series is 4-D"):
        Series(series.array[0], series.affine)
