"""The mean over a scan and its mirror images, which does not know left from right or front from back."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from brainsegnet.inference.options import SegmentOptions
from brainsegnet.inference.predict import compute, predict, prepare_case
from brainsegnet.inference.tiling import TiledPredictor, tta_probabilities
from brainsegnet.inference.torch_backend import TorchBackend
from brainsegnet.inference.torch_prepare import OnDevice
from brainsegnet.model.card import IntervalNote


@pytest.fixture
def predictor(net):
    return TiledPredictor(TorchBackend(net, "cpu"))


@pytest.fixture
def image(rng):
    """As large as the network takes without padding, which would lie on the other side of a mirrored scan."""
    return rng.normal(size=(3, 5, 24, 32)).astype(np.float32)


@pytest.mark.parametrize("axes", [(2,), (3,), (2, 3)])
def test_a_mirrored_scan_gives_the_mirrored_result_which_one_pass_does_not(predictor, image, axes):
    turned = np.ascontiguousarray(np.flip(image, axes))
    expected = tta_probabilities(predictor, image)
    np.testing.assert_allclose(np.flip(tta_probabilities(predictor, turned), axes), expected, atol=1e-5)
    assert np.abs(np.flip(predictor.probabilities(turned), axes) - predictor.probabilities(image)).max() > 0.1
    assert np.abs(expected - predictor.probabilities(image)).max() > 0.1


def test_it_is_the_mean_of_four_passes_whatever_the_size(predictor, rng):
    image = rng.normal(size=(3, 4, 21, 27)).astype(np.float32)
    four = [np.flip(predictor.probabilities(np.flip(image, axes)), axes) for axes in ((), (2,), (3,), (2, 3))]
    found = tta_probabilities(predictor, image)
    np.testing.assert_allclose(found, np.mean(four, 0), atol=1e-6)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_slabs_are_those_of_every_pass(predictor, image):
    whole, slabs = tta_probabilities(predictor, image), tta_probabilities(predictor, image, 2)
    assert np.abs(whole - slabs).max() > 0.01
    np.testing.assert_allclose(tta_probabilities(predictor, image, 5), whole, atol=1e-6)


def test_an_image_on_a_device_is_mirrored_there(predictor, image):
    lifted = OnDevice(torch.from_numpy(image))
    assert isinstance(lifted.flipped((2, 3)), OnDevice)
    np.testing.assert_array_equal(tta_probabilities(predictor, lifted), tta_probabilities(predictor, image))


def test_what_was_done_for_want_of_memory_is_told_once_and_the_spare_goes_on(net, image):
    class Full(TorchBackend):
        def probabilities(self, image):
            raise MemoryError

    class Spare(TorchBackend):
        def probabilities(self, image):
            assert isinstance(image, np.ndarray)
            return super().probabilities(image)

    predictor = TiledPredictor(Full(net, "cpu"), spare=lambda: Spare(net, "cpu"))
    found = tta_probabilities(predictor, OnDevice(torch.from_numpy(image)))
    assert len(predictor.notes) == len(set(predictor.notes)) and "computes" in predictor.notes[-1]
    np.testing.assert_array_equal(found, tta_probabilities(TiledPredictor(TorchBackend(net, "cpu")), image))


def test_a_case_gets_labels_maps_and_intervals_of_the_mean(engine, case):
    plain, flipped = (
        predict(case, engine, SegmentOptions(tta=tta, probabilities=True, uncertainty=True)) for tta in (False, True)
    )
    alone = predict(case, engine, SegmentOptions(tta=True))
    np.testing.assert_array_equal(alone.labels.array, flipped.labels.array)
    assert np.any(plain.labels.array != flipped.labels.array) and alone.probabilities is None
    stack = np.stack([volume.array for volume in flipped.probabilities.values()])
    np.testing.assert_array_equal(engine.card.task.decode(stack.argmax(0)), flipped.labels.array)
    assert flipped.intervals["whole"] != plain.intervals["whole"]


def test_the_coverage_of_one_pass_over_all_sequences_is_not_told_of_others(engine, case, monkeypatch):
    note = IntervalNote(alpha=0.05, coverage=0.8, cases=11)
    given = engine.card.input.model_copy(update={"any_subset": True})
    card = engine.card.model_copy(update={"intervals": {"whole": note}, "input": given})
    monkeypatch.setattr(engine, "card", card)
    one, four = (predict(case, engine, SegmentOptions(tta=tta, uncertainty=True)) for tta in (False, True))
    assert (one.intervals["whole"].coverage, one.intervals["whole"].cases) == (0.8, 11)
    assert (four.intervals["whole"].coverage, four.intervals["whole"].cases) == (None, 0)
    part = replace(case, images={name: case.images[name] for name in tuple(case.images)[1:]})
    fewer = predict(part, engine, SegmentOptions(uncertainty=True))
    assert fewer.absent and (fewer.intervals["whole"].coverage, fewer.intervals["whole"].cases) == (None, 0)


@pytest.mark.parametrize("tta", [False, True])
def test_probabilities_leave_memory_where_nothing_asks_for_them(engine, case, tta):
    ready = prepare_case(case, engine.card)
    assert compute(ready, engine, SegmentOptions(tta=tta)).probabilities is None
    assert compute(ready, engine, SegmentOptions(tta=tta, uncertainty=True)).probabilities is not None
