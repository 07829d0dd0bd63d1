"""The head or brain is found whatever surrounds it, and the result of a case stays where it was."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from brainsegnet import Segmenter
from brainsegnet.inference.torch_prepare import prepare_on
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.io.images import read_image
from brainsegnet.metrics.scores import dice
from brainsegnet.preprocessing.foreground import choose_block, count_in_blocks, find_air, find_foreground
from brainsegnet.preprocessing.geometry import Turn, find_turn, turn, turn_array
from brainsegnet.preprocessing.prepare import find_limits, prepare, replace_outliers
from brainsegnet.simulation.phantom import simulate_phantom
from brainsegnet.task import BRATS2021
from brainsegnet.volume import Case, Volume

GLIOMA = Path(__file__).parents[2] / "examples" / "glioma"
SEQUENCES = ("flair", "t1", "t1c", "t2")
SHAPE = (42, 76, 64)


def add_strays(array, air, signal, rng):
    array[0, 0, 0] += 1
    places = np.argwhere(air)
    array[tuple(places[rng.integers(0, len(places), 100)].T)] += signal * rng.uniform(0.01, 3, 100)


def add_tiny_values(array, air, signal, rng):
    array[air] += 1e-5 * signal * rng.random(np.count_nonzero(air))


def add_noise(array, air, signal, rng):
    noise = rng.standard_normal((2, np.count_nonzero(air)))
    array[air] += rng.uniform(0.005, 0.05) * signal * np.hypot(*noise)


def add_ringing(array, air, signal, rng):
    """What a resampler leaves around a brain: the highest frequencies of each axis are missing there."""
    waves = np.fft.fftn(array)
    for axis, n in enumerate(array.shape):
        waves *= (np.abs(np.fft.fftfreq(n)) < 0.4).reshape([n if other == axis else 1 for other in range(3)])
    array[air] = np.fft.ifftn(waves).real[air]


def add_offset(array, air, signal, rng):
    array += rng.uniform(-5, 5) * signal


def add_rim(array, air, signal, rng):
    rim = np.ones(array.shape, bool)
    rim[1:-1, 1:-1, 1:-1] = False
    array[rim & air] += rng.choice([-1, 0.5, 3]) * signal


def add_wedges(array, air, signal, rng):
    """Where a turned field of view ends."""
    _, h, w = np.meshgrid(*[np.linspace(-1, 1, n) for n in array.shape], indexing="ij")
    array[air & (np.abs(h) + np.abs(w) > 1.6)] -= 0.5 * signal


def add_outliers(array, air, signal, rng):
    places = np.argwhere(~air)
    chosen = places[rng.integers(0, len(places), len(places) // 5000)]
    array[tuple(chosen.T)] = 10 ** rng.uniform(1, 6) * signal


FAULTS = (
    add_strays,
    add_tiny_values,
    add_noise,
    add_ringing,
    add_offset,
    add_rim,
    add_wedges,
    add_outliers,
)


def spoil(case, fault, seed, which=SEQUENCES):
    rng, images = np.random.default_rng(seed), {}
    for name, volume in case.images.items():
        array = volume.array.astype(np.float32)
        air, signal = volume.array == 0, float(np.median(volume.array[volume.array != 0]))
        if name in which:
            fault(array, air, signal, rng)
        images[name] = volume.with_array(array)
    return Case(case.name, images)


def find(case):
    return find_foreground({name: volume.array for name, volume in case.images.items()}, case.reference.spacing_mm)


@pytest.fixture(scope="module")
def phantom():
    return simulate_phantom(3, SHAPE)


@given(fault=st.sampled_from(FAULTS), seed=st.integers(0, 99), one=st.booleans())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_brain_is_found_whatever_surrounds_it(phantom, fault, seed, one):
    clean, spoilt = find(phantom), find(spoil(phantom, fault, seed, SEQUENCES[:1] if one else SEQUENCES))
    assert clean.skull == "stripped" and spoilt.skull in ("stripped", "stripped, noise around")
    assert dice(spoilt.mask, clean.mask) > 0.97


@pytest.fixture(scope="module")
def glioma():
    return load_case(find_cases([GLIOMA])[0], SEQUENCES, BRATS2021, lesion=True)


@pytest.fixture(scope="module")
def segmenter():
    with Segmenter("tumour", threads=1) as opened:
        yield opened


def score(case, truth, segmenter):
    found = segmenter(case).labels.array
    return [dice(np.isin(found, part), np.isin(truth, part)) for part in ((1, 2, 4), (1, 4), (4,))]


@pytest.fixture(scope="module")
def clean_dice(glioma, segmenter):
    return score(glioma, glioma.lesion.array, segmenter)


@pytest.mark.parametrize("fault", FAULTS)
@given(seed=st.integers(0, 99))
@settings(max_examples=2)
def test_the_dice_of_a_case_stays_within_a_hundredth(glioma, segmenter, clean_dice, fault, seed):
    spoilt = spoil(glioma, fault, seed)
    np.testing.assert_allclose(score(spoilt, glioma.lesion.array, segmenter), clean_dice, atol=0.01)


@pytest.mark.real
@pytest.mark.parametrize("fault", [add_strays, add_noise, add_ringing, add_outliers])
def test_the_dice_of_a_real_case_stays_within_a_hundredth(real_data, segmenter, fault):
    (files,) = find_cases([real_data / "tumour/brats2021/BraTS2021_00006"])
    case = load_case(files, SEQUENCES, BRATS2021, lesion=True)
    clean, spoilt = (score(one, case.lesion.array, segmenter) for one in (case, spoil(case, fault, 0)))
    np.testing.assert_allclose(spoilt, clean, atol=0.01)


def test_an_outlier_beyond_the_limits_of_a_few_voxels_is_seen(rng):
    counted = np.append(rng.normal(100, 10, 200_000), 250.0)
    assert find_limits(counted)[2] < 250


@pytest.mark.parametrize("fault", FAULTS)
def test_torch_prepares_alike(phantom, fault):
    case = spoil(phantom, fault, 1)
    ours, theirs = prepare(case), prepare_on(case, torch.device("cpu"))
    assert (ours.box, ours.skull, ours.around) == (theirs.box, theirs.skull, theirs.around)
    np.testing.assert_array_equal(theirs.mask, ours.mask)
    np.testing.assert_allclose(np.asarray(theirs.image), ours.image, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", [Turn((2, 0, 1), (True, False, True)), Turn((1, 0, 2), (False, True, False))])
@pytest.mark.parametrize("fault", [add_strays, add_noise, add_ringing])
def test_a_spoilt_scan_is_prepared_alike_however_it_is_stored(phantom, fault, how):
    case = spoil(phantom, fault, 2)
    other = Case(case.name, {name: turn(volume, how) for name, volume in case.images.items()})
    np.testing.assert_allclose(prepare(other).image, prepare(case).image, atol=1e-5)


def test_a_clean_scan_keeps_every_voxel(phantom):
    mask = np.any([volume.array != 0 for volume in phantom.images.values()], axis=0)
    np.testing.assert_array_equal(find(phantom).mask, mask)


def with_head(case):
    """The brain of a phantom within bone and scalp."""
    brain = np.any([volume.array != 0 for volume in case.images.values()], axis=0)
    depth_mm = ndimage.distance_transform_edt(~np.pad(brain, 12), sampling=case.reference.spacing_mm)
    images, texture = {}, 1 + 0.1 * np.random.default_rng(0).standard_normal(depth_mm.shape)
    for name, volume in case.images.items():
        array = np.pad(volume.array, 12).astype(np.float32)
        signal = np.median(volume.array[brain])
        bone, scalp = (depth_mm > 0) & (depth_mm <= 7), (depth_mm > 7) & (depth_mm <= 14)
        array[bone], array[scalp] = 0.05 * signal * texture[bone], 1.6 * signal * texture[scalp]
        images[name] = Volume(array, volume.affine)
    return Case(case.name, images)


@pytest.mark.parametrize("fault", [None, add_noise, add_strays])
def test_a_head_is_told_from_a_brain(phantom, fault):
    head = with_head(phantom)
    assert find(head if fault is None else spoil(head, fault, 0)).skull == "skull on"
    low = Case("low", {name: Volume(v.array[20:40], v.affine) for name, v in head.images.items()})
    assert find(low).skull == "skull on"


def test_an_image_that_fills_its_grid_has_no_background(rng):
    found = find_foreground({"t1": rng.random((16, 20, 24))}, (1.0, 1.0, 1.0))
    assert found.skull == "no background" and found.mask.all() and found.around == {"t1": "none"}


def test_padding_around_noise_is_seen(rng):
    array = np.abs(rng.normal(0, 3, (40, 48, 48)))
    array[12:28, 12:36, 12:36] += 200
    array = np.pad(array, 3, constant_values=-1000)
    air = find_air(array)
    assert air.kind == "noise" and air.values == (-1000,) and 0 < air.level < 5
    assert dice(find_foreground({"t1": array}, (1.0, 1.0, 1.0)).mask, array > 100) > 0.97


@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 4)] * 3), st.integers(0, 9))
def test_blocks_count_every_voxel_once(shape, block, seed):
    mask = np.random.default_rng(seed).random(shape) < 0.5
    counts = count_in_blocks(mask, block)
    assert counts.sum() == mask.sum() and counts.shape == tuple(-(-n // b) for n, b in zip(shape, block, strict=True))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.5, 0.5), (0.3, 0.3, 0.3)])
def test_a_block_is_four_millimetres_where_the_grid_allows(spacing):
    block = choose_block((400, 400, 400), spacing)
    assert all(size == 1 or abs(size * mm - 4) < 0.5 for size, mm in zip(block, spacing, strict=True))


def test_outliers_take_the_median_around_them(rng):
    image = rng.normal(100, 10, (20, 20, 20))
    spoilt = image.copy()
    spoilt[5, 5, 5], spoilt[0, 0, 0] = 1e7, -1e7
    low, centre, high = find_limits(spoilt.ravel())
    assert -50 < low < centre < high < 250
    found = replace_outliers(spoilt, np.ones(image.shape, bool), low, high)
    changed = found != spoilt.astype(np.float32)
    assert changed.sum() == 2 and np.abs(found[changed] - 100).max() < 15


@pytest.mark.real
@pytest.mark.parametrize(
    "path, skull",
    [
        ("raw/tcga-fg-6692/TCGA-FG-6692_flair.nii.gz", "skull on"),
        ("raw/tcga-fg-6692/TCGA-FG-6692_t1.nii.gz", "skull on"),
        ("raw/tcga-fg-6692/TCGA-FG-6692_t1c.nii.gz", "skull on"),
        ("raw/tcga-fg-6692/TCGA-FG-6692_t2.nii.gz", "skull on"),
        ("raw/lesjak-p01/study1_FLAIR.nii.gz", "skull on"),
        ("raw/lesjak-p01/study1_T1W.nii.gz", "skull on"),
        ("raw/lesjak-p01/study1_T2W.nii.gz", "skull on"),
        ("raw/heads/flair_py_synthsr.nii.gz", "skull on"),
        ("raw/heads/t1_elderly.nii.gz", "skull on"),
        ("raw/thick_t1c/brain1_image.nrrd", "skull on"),
        ("raw/tcga-fg-6692/reference_1mm/TCGA-FG-6692_flair.nii.gz", "stripped"),
        ("raw/tcga-fg-6692/reference_1mm/TCGA-FG-6692_t2.nii.gz", "stripped"),
        ("tumour/brats2021/BraTS2021_00006/BraTS2021_00006_t1.nii.gz", "stripped"),
        ("tumour/brats2021/BraTS2021_01482/BraTS2021_01482_t1.nii.gz", "stripped"),
    ],
)
def test_real_heads_are_told_from_real_brains(real_data, path, skull):
    volume = read_image(real_data / path)
    how = find_turn(volume.affine)
    d, h, w = (volume.spacing_mm[axis] for axis in how.axes)
    assert find_foreground({"image": turn_array(volume.array, how)}, (d, h, w)).skull == skull


def test_an_image_darker_than_its_air_has_no_signal(recwarn):
    z, y, x = np.ix_(*(np.arange(40) - 19.5,) * 3)
    dark = np.where(z**2 + y**2 + x**2 < 15**2, -300, 0) + np.arange(40) % 7
    found = find_foreground({"a": np.where(dark < 0, dark, 0)}, (1, 1, 1))
    assert not found.ringing and not recwarn.list
