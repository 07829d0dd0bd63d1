"""The frozen network in OpenVINO's format, in floats or in 8 bits: what runs on a CPU without torch."""

import ctypes
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from brainsegnet.errors import MissingExtra
from brainsegnet.network.architecture import BrainSegNet
from brainsegnet.network.frozen import Frozen, freeze

IMAGE, LOGITS = "image", "logits"
"""Names of input (1, C, D, H, W) and output (1, P * Q * R * K, D / P, H / Q, W / R), the logits at sub-pixels."""
OpenVinoModel = Any
OpenVinoNode = Any
"""`openvino.Model` and `openvino.Node`, which carry no types."""


def to_openvino(net: BrainSegNet) -> OpenVinoModel:
    """The network for scans of any size whose sides are multiples of the strides.

    Raises:
        MissingExtra: openvino is not installed.
    """
    with _needed():
        import openvino
    frozen = freeze(net)
    model = openvino.convert_model(frozen, example_input=_example(frozen))
    model.reshape([1, net.sequences, -1, -1, -1])
    model.input(0).get_tensor().set_names({IMAGE})
    model.output(0).get_tensor().set_names({LOGITS})
    return model


def quantise(model: OpenVinoModel, samples: Sequence[NDArray[np.float32]], clip: bool = True) -> OpenVinoModel:
    """The network in 8-bit integers, its ranges taken from what `samples` (C, D, H, W) make of it.

    Weights channel by channel and activations map by map, by NNCF's post-training quantisation. The sum that gives the
    logits stays in floats: a trained network is so sure of most voxels that its logits reach hundreds, and an eighth
    bit then stands for more than what tells two tissues apart. So does the convolution of the coarser map, which has
    grown as far and is signed; that of the finest block takes 8 bits in and gives floats. NNCF's correction of biases
    moves such logits away from those in floats, so it stays off. Weights take half of the 8 bits: processors without
    VNNI add products in pairs in 16 bits, where two of an activation of 255 and a weight of 127 do not fit and would
    be clipped.

    Args:
        model: In floats; it is not changed.
        samples: From its training.
        clip: Whether a range ends where NNCF's usual estimate has it (finer steps) or at the extremes of the samples.

    Raises:
        MissingExtra: nncf is not installed.
    """
    with _needed():
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParameters
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Ranges
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with _signal_stack_kept():
        return nncf.quantize(
            model,
            nncf.Dataset([sample[None] for sample in samples]),
            subset_size=len(samples),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            ignored_scope=nncf.IgnoredScope(names=_kept_in_floats(model)),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                disable_bias_correction=True,
                overflow_fix=nncf.OverflowFix.ENABLE,
                activations_range_estimator_params=RangeEstimatorParameters() if clip else Ranges.MINMAX,
            ),
        )


def _kept_in_floats(model: OpenVinoModel) -> list[str]:
    """Names of the sum of convolutions that gives the logits, and of those of them that take signed numbers.

    None if the last node only adds a bias.
    """
    total = model.get_results()[0].input_value(0).get_node()
    summands = [_unbiased(total.input_value(i).get_node()) for i in range(total.get_input_size())]
    if total.get_type_name() != "Add" or any(node.get_type_name() != "Convolution" for node in summands):
        return []
    signed = [node for node in summands if node.input_value(0).get_node().get_type_name() != "Relu"]
    return [node.get_friendly_name() for node in (total, *signed)]


def _unbiased(node: OpenVinoNode) -> OpenVinoNode:
    """The node whose result gets a bias here, or the node itself."""
    return node.input_value(0).get_node() if node.get_type_name() == "Add" else node


def write_openvino(model: OpenVinoModel, path: Path) -> None:
    """Write `path` (.xml) and the weights (.bin) beside it, floats in 16 bits, in place of what may be open."""
    import openvino

    for old in (path, path.with_suffix(".bin")):
        old.unlink(missing_ok=True)
    openvino.save_model(model, path, compress_to_fp16=True)


def _example(frozen: Frozen) -> torch.Tensor:
    return torch.zeros(1, frozen.sequences, *(2 * multiple for multiple in frozen.multiples))


class _SignalStack(ctypes.Structure):
    """Linux's `stack_t`."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """This thread's stack for signal handlers is afterwards what it was: NNCF's many cores may leave a freed one.

    `brainsegnet.inference.openvino_backend.shared_core` says how.
    """
    if sys.platform != "linux":
        yield
        return
    system, before = ctypes.CDLL(None), _SignalStack()
    system.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        system.sigaltstack(ctypes.byref(before), None)


@contextmanager
def _needed() -> Iterator[None]:
    """Turn the absence of a package into a sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).split(".")[0]
        raise MissingExtra(f'{package} is not installed; run: pip install "brainsegnet[train]"') from error
