"""What a scan costs, counted and not timed: multiply-adds of an exported network, and bytes that are allocated."""

import tracemalloc

import numpy as np
import pytest
import torch

from brainsegnet.inference.predict import Engine, predict
from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.model.card import Architecture, Card, Input
from brainsegnet.model.graphs import quantise, to_openvino
from brainsegnet.task import BRATS2021
from brainsegnet.volume import Case, Volume

FULL, HALF, COMPACT = ((32, 64, 128, 256), 128), ((16, 32, 64, 128), 64), ((8, 16, 32, 64), 32)
SIZE = (8, 64, 64)


def convolutions(model):
    return [op for op in model.get_ops() if op.get_type_name() == "Convolution"]


def multiply_adds(model):
    """Per voxel of the input."""
    model.reshape([1, 4, *SIZE])
    return sum(
        np.prod(list(op.output(0).shape)) * np.prod(list(op.input(1).get_shape())[1:]) for op in convolutions(model)
    ) / np.prod(SIZE)


@pytest.mark.parametrize(("size", "count"), [(FULL, 578_048), (HALF, 151_616), (COMPACT, 41_456)])
def test_an_exported_network_costs_so_many_multiply_adds_per_voxel(size, count):
    widths, refined = size
    assert multiply_adds(to_openvino(BrainSegNet(4, 5, widths, refined).eval())) == count


@pytest.mark.parametrize("clip", [True, False])
def test_eight_bits_are_multiplied_everywhere_but_in_the_last_convolution_of_signed_numbers(clip):
    torch.manual_seed(0)
    whole = to_openvino(BrainSegNet(4, 5, (4, 4, 8, 8), 8).eval())
    small = quantise(whole, [np.random.default_rng(0).normal(size=(4, *SIZE)).astype("f")], clip)
    assert len(convolutions(small)) == len(convolutions(whole)) == 25
    total = small.get_results()[0].input_value(0).get_node()
    assert "FakeQuantize" not in {total.input_value(i).get_node().get_type_name() for i in range(2)}
    for op in convolutions(small):
        quantised = op.input_value(0).get_node().get_type_name() == "FakeQuantize"
        assert quantised == (weights_of(op).get_element_type().get_type_name() == "i8")
        assert quantised != op.get_friendly_name().startswith("__module.coarse")


PAIR = 2**15 - 1
"""The most that AVX2 holds of two products before it clips the sum."""


@pytest.mark.parametrize("clip", [True, False])
def test_no_pair_of_products_in_eight_bits_overflows_where_there_is_no_vnni(clip):
    torch.manual_seed(0)
    whole = to_openvino(BrainSegNet(4, 5, (4, 4, 8, 8), 8).eval())
    small = quantise(whole, [np.random.default_rng(0).normal(size=(4, *SIZE)).astype("f")], clip)
    integers = [weights_of(op).data for op in convolutions(small) if weights_of(op).data.dtype == np.int8]
    assert len(integers) == 24
    assert all(2 * 255 * np.abs(weights.astype(int)).max() <= PAIR for weights in integers)


def weights_of(op):
    """The constant at the end of the chain that scales it."""
    node = op.input_value(1).get_node()
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    return node


class Silent:
    """A backend that computes nothing, so that only the memory around it is counted."""

    name, classes, multiples, halo = "silent", 4, (1, 8, 8), 21

    def classify(self, image):
        return np.zeros(image.shape[1:], np.uint8)

    def estimate_bytes(self, shape):
        return 0

    def free_bytes(self):
        return None


def test_a_prediction_allocates_little_beside_the_network(rng):
    """The box as floats, padded as floats, and a few bytes more for masks and labels: 40 bytes a voxel, 4 sequences."""
    shape, names = (40, 120, 120), ("flair", "t1", "t1c", "t2")
    arrays = {name: np.where(ball(shape), rng.integers(1, 900, shape), 0).astype(np.int16) for name in names}
    case = Case("ball", {name: Volume(array, np.eye(4)) for name, array in arrays.items()})
    card = Card(
        name="x", task=BRATS2021, input=Input(sequences=names), network=Architecture(widths=(4, 4, 8, 8), refined=8)
    )
    tracemalloc.start()
    try:
        predict(case, Engine(card, Silent()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * np.prod(shape)


def ball(shape):
    """Voxels of an ellipsoid that leaves a margin."""
    axes = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    return sum(axis**2 for axis in axes) < 1
