"""The image itself: how a head is found, cut and measured, and what its fluid tells."""

import numpy as np
import pytest

from brainsegnet.io.images import read_image
from brainsegnet.pipeline import contrast
from brainsegnet.pipeline.contrast import (
    CLASSES,
    COUNT,
    INPUT,
    WEIGHTS,
    classify,
    find_head,
    measure_features,
    prepare_input,
    read_contrast,
)
from brainsegnet.volume import Volume

AXES = np.eye(4)[[2, 1, 0, 3]]


def make_ball(spacing=(2.0, 2.0, 2.0), offset=0.0, scale=1.0, shape=(80, 100, 90)):
    """A bright ball of 70 mm around a darker one of 30 mm."""
    shape = tuple(int(n * 2 / mm) for n, mm in zip(shape, spacing, strict=True))
    z, y, x = (np.arange(n) * mm - n * mm / 2 for n, mm in zip(shape, spacing, strict=True))
    radius = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    image = np.where(radius < 30, 0.5, np.where(radius < 70, 1.0, 0.0)) * scale + offset
    affine = AXES.copy()
    affine[:3, :3] *= spacing
    return Volume(image.astype(np.float32), affine)


def test_the_weights_are_small():
    assert WEIGHTS.stat().st_size < 100_000


def test_the_head_is_found_above_the_level_of_air():
    volume = make_ball((4.0, 4.0, 4.0), offset=7.0)
    air, head = find_head(volume.array)
    assert air == 7 and head.sum() * 0.064 == pytest.approx(4 / 3 * np.pi * 7**3, rel=0.2)
    assert not find_head(np.zeros((8, 8, 8), np.float32))[1].any()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (4.0, 1.0, 1.0)])
def test_the_input_depends_neither_on_the_grid_nor_on_the_scale(spacing):
    first, other = prepare_input(make_ball()), prepare_input(make_ball(spacing, offset=-3.0, scale=250.0))
    assert first.shape == INPUT and np.abs(first - other).mean() < 0.04
    assert first[INPUT[0] // 2, INPUT[1] // 2, INPUT[2] // 2] == pytest.approx(2 / 3, abs=0.1)


def test_the_input_is_upright():
    volume = make_ball()
    volume.array[:40, 20:50, 30:60] *= 3
    turned = Volume(volume.array[::-1].transpose(1, 2, 0), volume.affine)
    affine = np.eye(4)
    affine[:3, :3] = volume.affine[:3, [1, 2, 0]] * (1, 1, -1)
    affine[:3, 3] = volume.affine[:3, 0] * (volume.shape[0] - 1)
    np.testing.assert_allclose(prepare_input(Volume(turned.array, affine)), prepare_input(volume), atol=1e-5)


def test_label_maps_and_empty_images():
    labels = np.zeros((20, 20, 20), np.float32)
    labels[5:15, 5:15, 5:15] = 2
    assert [item.sequence for item in read_contrast(Volume(labels, AXES))] == ["mask"]
    assert not prepare_input(Volume(np.zeros((9, 9, 9)), AXES)).any()


def test_doubt_is_no_evidence(monkeypatch):
    chances = dict.fromkeys(CLASSES, 1 / len(CLASSES))
    monkeypatch.setattr(contrast, "classify", lambda volume: chances)
    volume = make_noisy_ball()
    assert read_contrast(volume) == []
    chances.update(t1=0.02, t2=0.9, flair=0.05, other=0.03)
    (evidence,) = read_contrast(volume)
    assert evidence.sequence == "t2" and evidence.confidence == 0.4 and "fluid bright" in evidence.reason
    chances.update(t2=0.02, other=0.91)
    assert read_contrast(volume) == []


def make_noisy_ball():
    volume = make_ball((4.0, 4.0, 4.0), scale=1000.0)
    volume.array[:] += np.random.default_rng(0).normal(0, 1, volume.shape)
    return volume


def test_an_adc_in_mm2_s_is_known_by_its_values():
    volume = make_noisy_ball()
    (evidence,) = read_contrast(Volume(volume.array * np.float32(0.8e-6), volume.affine))
    assert evidence.sequence == "adc"


def test_features_of_a_head_are_shares_of_its_middle():
    features = measure_features(prepare_input(make_ball()))
    assert features.shape == (COUNT,) and features.any()
    np.testing.assert_allclose(features, measure_features(prepare_input(make_ball(scale=9.0, offset=4.0))), atol=1e-3)
    assert not measure_features(np.zeros(INPUT, np.float32)).any()
    assert classify(Volume(np.zeros((9, 9, 9)), AXES)) == {"t1": 0, "t2": 0, "flair": 0, "other": 1}


def test_probabilities_add_up():
    chances = classify(make_ball())
    assert tuple(chances) == CLASSES and sum(chances.values()) == pytest.approx(1)


@pytest.mark.parametrize("sequence", ["t2", "t1"])
def test_fluid_tells_t2_from_t1(small_anatomy, sequence):
    from brainsegnet.anatomy.procedural import Tissue

    brightness = {"t2": {1: 2.0, 2: 0.8, 3: 0.55, 4: 2.1}, "t1": {1: 0.33, 2: 0.76, 3: 1.0, 4: 0.32}}[sequence]
    table = np.zeros(len(Tissue), np.float32)
    table[list(brightness)] = list(brightness.values())
    table[Tissue.DEEP_GREY], table[Tissue.CEREBELLAR_GREY] = table[Tissue.GREY], table[Tissue.GREY]
    table[Tissue.HINDBRAIN_WHITE] = table[Tissue.WHITE]
    chances = classify(Volume(table[small_anatomy.array], small_anatomy.affine))
    assert (chances["t2"] > 0.5) == (sequence == "t2")


@pytest.mark.real
def test_a_real_t2_without_a_name(real_data):
    image = read_image(real_data / "raw/tcga-fg-6692/TCGA-FG-6692_t2.nii.gz")
    assert all(item.sequence == "t2" for item in read_contrast(image))
