"""The mean over a scan and its mirror images, which does not know left from right or front from back."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from brainsegnet.inference.predict import Options, compute, make_ready, predict
from brainsegnet.inference.tiling import Passes, mirrored_probabilities
from brainsegnet.inference.torch_backend import TorchBackend
from brainsegnet.inference.torch_prepare import OnDevice
from brainsegnet.model.card import IntervalNote


@pytest.fixture
def passes(net):
    return Passes(TorchBackend(net, "cpu"))


@pytest.fixture
def image(rng):
    """As large as the network takes without padding, which would lie on the other side of a mirrored scan."""
    return rng.normal(size=(3, 5, 24, 32)).astype(np.float32)


@pytest.mark.parametrize("axes", [(2,), (3,), (2, 3)])
def test_a_mirrored_scan_gives_the_mirrored_result_which_one_pass_does_not(passes, image, axes):
    turned = np.ascontiguousarray(np.flip(image, axes))
    expected = mirrored_probabilities(passes, image)
    np.testing.assert_allclose(np.flip(mirrored_probabilities(passes, turned), axes), expected, atol=1e-5)
    assert np.abs(np.flip(passes.probabilities(turned), axes) - passes.probabilities(image)).max() > 0.1
    assert np.abs(expected - passes.probabilities(image)).max() > 0.1


def test_it_is_the_mean_of_four_passes_whatever_the_size(passes, rng):
    image = rng.normal(size=(3, 4, 21, 27)).astype(np.float32)
    four = [np.flip(passes.probabilities(np.flip(image, axes)), axes) for axes in ((), (2,), (3,), (2, 3))]
    found = mirrored_probabilities(passes, image)
    np.testing.assert_allclose(found, np.mean(four, 0), atol=1e-6)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_slabs_are_those_of_every_pass(passes, image):
    whole, slabs = mirrored_probabilities(passes, image), mirrored_probabilities(passes, image, 2)
    assert np.abs(whole - slabs).max() > 0.01
    np.testing.assert_allclose(mirrored_probabilities(passes, image, 5), whole, atol=1e-6)


def test_an_image_on_a_device_is_mirrored_there(passes, image):
    lifted = OnDevice(torch.from_numpy(image))
    assert isinstance(lifted.mirrored((2, 3)), OnDevice)
    np.testing.assert_array_equal(mirrored_probabilities(passes, lifted), mirrored_probabilities(passes, image))


def test_what_was_done_for_want_of_memory_is_told_once_and_the_spare_goes_on(net, image):
    class Full(TorchBackend):
        def probabilities(self, image):
            raise MemoryError

    class Spare(TorchBackend):
        def probabilities(self, image):
            assert isinstance(image, np.ndarray)
            return super().probabilities(image)

    passes = Passes(Full(net, "cpu"), spare=lambda: Spare(net, "cpu"))
    found = mirrored_probabilities(passes, OnDevice(torch.from_numpy(image)))
    assert len(passes.notes) == len(set(passes.notes)) and "computes" in passes.notes[-1]
    np.testing.assert_array_equal(found, mirrored_probabilities(Passes(TorchBackend(net, "cpu")), image))


def test_a_case_gets_labels_maps_and_intervals_of_the_mean(engine, case):
    plain, mirrored = (
        predict(case, engine, Options(mirror=mirror, probabilities=True, uncertainty=True)) for mirror in (False, True)
    )
    alone = predict(case, engine, Options(mirror=True))
    np.testing.assert_array_equal(alone.labels.array, mirrored.labels.array)
    assert np.any(plain.labels.array != mirrored.labels.array) and alone.probabilities is None
    stack = np.stack([volume.array for volume in mirrored.probabilities.values()])
    np.testing.assert_array_equal(engine.card.task.decode(stack.argmax(0)), mirrored.labels.array)
    assert mirrored.intervals["whole"] != plain.intervals["whole"]


def test_the_coverage_of_one_pass_over_all_sequences_is_not_told_of_others(engine, case, monkeypatch):
    note = IntervalNote(alpha=0.05, coverage=0.8, cases=11)
    given = engine.card.input.model_copy(update={"any_subset": True})
    card = engine.card.model_copy(update={"intervals": {"whole": note}, "input": given})
    monkeypatch.setattr(engine, "card", card)
    one, four = (predict(case, engine, Options(mirror=mirror, uncertainty=True)) for mirror in (False, True))
    assert (one.intervals["whole"].coverage, one.intervals["whole"].cases) == (0.8, 11)
    assert (four.intervals["whole"].coverage, four.intervals["whole"].cases) == (None, 0)
    part = replace(case, images={name: case.images[name] for name in tuple(case.images)[1:]})
    fewer = predict(part, engine, Options(uncertainty=True))
    assert fewer.absent and (fewer.intervals["whole"].coverage, fewer.intervals["whole"].cases) == (None, 0)


@pytest.mark.parametrize("mirror", [False, True])
def test_probabilities_leave_memory_where_nothing_asks_for_them(engine, case, mirror):
    ready = make_ready(case, engine.card)
    assert compute(ready, engine, Options(mirror=mirror)).probabilities is None
    assert compute(ready, engine, Options(mirror=mirror, uncertainty=True)).probabilities is not None
