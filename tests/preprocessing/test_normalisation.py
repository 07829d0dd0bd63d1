"""Scales of normalisation: which of them a bright lesion moves, on the CPU and where torch prepares."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from brainsegnet.inference.torch_prepare import prepare_on
from brainsegnet.preprocessing.prepare import prepare
from brainsegnet.volume import Case, Volume


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    array = np.zeros((8, 20, 20), np.float32)
    array[1:-1, 2:-2, 2:-2] = rng.normal(100, 10, (6, 16, 16))
    return Case("pat1", {"flair": Volume(array, np.eye(4)[[2, 1, 0, 3]])})


def brighten(case):
    """A tenth of the brain becomes much brighter."""
    array = case.images["flair"].array.copy()
    array[1:-1, 2:-2, 2:4] += 300
    return Case(case.name, {"flair": replace(case.images["flair"], array=array)})


def healthy_scale(case, normalisation):
    """Standard deviation of tissue that is the same in both cases, after normalisation."""
    return float(prepare(case, normalisation).image[0][:, :, 4:].std())


def test_a_bright_lesion_moves_the_decile_little_and_the_deviation_much(case):
    change = {
        how: healthy_scale(brighten(case), how) / healthy_scale(case, how) for how in ("median-decile", "median-sd")
    }
    assert change["median-decile"] > 0.85 and change["median-sd"] < 0.2


def test_in_a_normal_distribution_both_scales_agree(case):
    assert healthy_scale(case, "median-decile") == pytest.approx(healthy_scale(case, "median-sd"), rel=0.06)


@pytest.mark.parametrize("how", ["median-decile", "median-sd"])
def test_torch_prepares_alike(case, how):
    ours, theirs = prepare(case, how), prepare_on(case, torch.device("cpu"), how)
    np.testing.assert_allclose(np.asarray(theirs.image), ours.image, rtol=1e-5, atol=1e-6)
