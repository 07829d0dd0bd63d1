"""The fused network in OpenVINO's format, in floats or in 8 bits: what runs on a CPU without torch.

The fused network as ONNX, for other runtimes: convolutions, ReLU, sums and repetition, nothing else.
"""

import ctypes
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainsegnet.errors import MissingExtra
from brainsegnet.model.architecture import BrainSegNet, Stride
from brainsegnet.model.fused import FoldedResBlock, FusedNet, fuse

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
    fused = fuse(net)
    model = openvino.convert_model(fused, example_input=_example(fused))
    model.reshape([1, net.sequences, -1, -1, -1])
    model.input(0).get_tensor().set_names({IMAGE})
    model.output(0).get_tensor().set_names({LOGITS})
    return model


def quantise(model: OpenVinoModel, samples: Sequence[NDArray[np.float32]], clip: bool = True) -> OpenVinoModel:
    """The network in 8-bit integers, its ranges taken from what `samples` (C, D, H, W) make of it.

    Weights channel by channel and activations map by map, by NNCF's post-training quantisation. The sum that gives the
    logits stays in floats: a trained network is so sure of most voxels that its logits reach hundreds, and an eighth
    bit then stands for more than what tells two tissues apart. So does the convolution of the coarser map, which has
    simulated as far and is signed; that of the finest block takes 8 bits in and gives floats. NNCF's correction of
    biases moves such logits away from those in floats, so it stays off. Weights take half of the 8 bits: processors
    without VNNI add products in pairs in 16 bits, where two of an activation of 255 and a weight of 127 do not fit and
    would be clipped.

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


def _example(fused: FusedNet) -> torch.Tensor:
    return torch.zeros(1, fused.sequences, *(2 * multiple for multiple in fused.multiples))


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


OPSET, IR_VERSION = 13, 8
"""Old enough for the runtimes in use."""


def write_onnx(net: BrainSegNet, path: Path) -> None:
    """Write the network in 32 bits: `image` (1, C, D, H, W) to `logits` (1, P * Q * R * K, D / P, H / Q, W / R).

    The sizes are free, but multiples of the strides; the K classes of a sub-pixel stand side by side.

    Raises:
        MissingExtra: onnx is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtra('onnx is not installed; run: pip install "brainsegnet[train]"') from error
    fused = fuse(net).float()
    graph = Graph()
    graph.draw(fused)
    sizes = ["slices", "rows", "columns"]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, channels, *free])
        for name, channels, free in (
            ("image", fused.sequences, sizes),
            ("logits", fused.fine.out_channels, [f"sub-{size}" for size in sizes]),
        )
    ]
    nodes = [onnx.helper.make_node(kind, takes, [gives], **facts) for kind, takes, gives, facts in graph.nodes]
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in graph.weights.items()]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "brainsegnet", ends[:1], ends[1:], weights),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="brainsegnet",
    )
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


class Graph:
    """Nodes and weights as they are drawn; every method returns the name of the map it makes."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        self.weights: dict[str, np.ndarray[Any, np.dtype[np.float32]]] = {}

    def draw(self, fused: FusedNet) -> str:
        """The whole network, as `FusedNet.forward`."""
        x, levels = "image", []
        for block in fused.blocks:
            for part in cast(nn.Sequential, block):
                x = self._part(x, part)
            levels.append(x)
        y = ""
        for side, smooth in zip(fused.sides, fused.smooths, strict=True):
            total = self._convolve(levels.pop(), cast(nn.Conv3d, side))
            if y:
                total = self._node("Add", [total, self._repeat(y, fused.stride)])
            if isinstance(fused.activate, nn.ReLU):
                total = self._node("Relu", [total])
            y = self._convolve(total, cast(nn.Conv3d, smooth))
        return self._node("Add", [self._convolve(levels.pop(), fused.fine), self._convolve(y, fused.coarse)], "logits")

    def _part(self, x: str, part: nn.Module) -> str:
        if not isinstance(part, FoldedResBlock):
            return self._node("Relu", [self._convolve(x, cast(nn.Conv3d, cast(nn.Sequential, part)[0]))])
        inner = self._part(x, part.first)
        return self._node("Relu", [self._node("Add", [x, self._convolve(inner, part.second)])])

    def _convolve(self, x: str, conv: nn.Conv3d) -> str:
        names = [x, self._weight(conv.weight)] + ([] if conv.bias is None else [self._weight(conv.bias)])
        pads = 2 * [int(pad) for pad in conv.padding]
        return self._node("Conv", names, strides=list(conv.stride), pads=pads)

    def _repeat(self, x: str, stride: Stride) -> str:
        scales = self._weight(Tensor([1, 1, *stride]))
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self._node("Resize", [x, "", scales], **how)

    def _weight(self, tensor: Tensor) -> str:
        name = f"weight{len(self.weights)}"
        self.weights[name] = tensor.detach().cpu().numpy()
        return name

    def _node(self, kind: str, takes: list[str], gives: str = "", **facts: Any) -> str:  # noqa: ANN401
        name = gives or f"map{len(self.nodes)}"
        self.nodes.append((kind, takes, name, facts))
        return name
