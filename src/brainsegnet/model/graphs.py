"""The fused network as a graph for runtimes other than torch: OpenVINO in floats or 8-bit integers, and ONNX.

Both graphs map `image` (1, C, D, H, W) to `logits` (1, P * Q * R * K, D / P, H / Q, W / R) for a stride of (P, Q, R).
The K classes of a sub-pixel are side by side. Sizes are free, but must be multiples of `FusedNet.multiples`.
"""

import ctypes
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from brainsegnet._types import Floats
from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.model.fused import FoldedResBlock, FusedNet, fuse
from brainsegnet.model.store import torch_needed

IMAGE, LOGITS = "image", "logits"
OPSET, IR_VERSION = 13, 8
"""Versions of ONNX that are old enough for the runtimes in use."""
_WEIGHTS_PLACE = re.compile(r'offset="(\d+)" size="(\d+)"')
"""Place of a constant in the .bin file, according to OpenVINO's .xml."""
OpenVinoModel = Any
"""`openvino.Model`, which carries no types."""


def to_openvino(net: BrainSegNet) -> OpenVinoModel:
    """The fused network as an OpenVINO model.

    Raises:
        MissingExtra: openvino is not installed.
    """
    with torch_needed():
        import openvino
    fused = fuse(net)
    example = torch.zeros(1, fused.sequences, *(2 * multiple for multiple in fused.multiples))
    model = openvino.convert_model(fused, example_input=example)
    model.reshape([1, net.sequences, -1, -1, -1])
    model.input(0).get_tensor().set_names({IMAGE})
    model.output(0).get_tensor().set_names({LOGITS})
    return model


def quantise(model: OpenVinoModel, samples: Sequence[Floats], clip: bool = True) -> OpenVinoModel:
    """A copy of the network in 8-bit integers, by NNCF's post-training quantisation.

    Weights are quantised per channel and activations per map. These parts differ from NNCF's defaults:

    - The sum that gives the logits stays in floats, and so does the convolution of the coarser map. Both reach
      hundreds in a trained network, so one of 256 steps would exceed the difference between two classes.
    - The correction of biases is off, because it shifts such logits.
    - Weights take half of the 8 bits. Processors without VNNI add two products in 16 bits, and the sum of two products
      of an activation of 255 and a weight of 127 would be clipped.

    The ranges of activations are taken from training `samples` (C, D, H, W). With `clip` a range ends where NNCF
    estimates it (finer steps), else at the extremes of the samples.

    Raises:
        MissingExtra: nncf is not installed.
    """
    with torch_needed():
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParameters
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Ranges
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with _keep_signal_stack():
        return nncf.quantize(
            model,
            nncf.Dataset([sample[None] for sample in samples]),
            subset_size=len(samples),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            ignored_scope=nncf.IgnoredScope(names=_find_float_nodes(model)),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                disable_bias_correction=True,
                overflow_fix=nncf.OverflowFix.ENABLE,
                activations_range_estimator_params=RangeEstimatorParameters() if clip else Ranges.MINMAX,
            ),
        )


def _find_float_nodes(model: OpenVinoModel) -> list[str]:
    """Names of the sum of convolutions that gives the logits, and of those of them that take signed numbers.

    None if the last node only adds a bias.
    """
    total = model.get_results()[0].input_value(0).get_node()
    summands = [total.input_value(i).get_node() for i in range(total.get_input_size())]
    summands = [node.input_value(0).get_node() if node.get_type_name() == "Add" else node for node in summands]
    if total.get_type_name() != "Add" or any(node.get_type_name() != "Convolution" for node in summands):
        return []
    signed = [node for node in summands if node.input_value(0).get_node().get_type_name() != "Relu"]
    return [node.get_friendly_name() for node in (total, *signed)]


def write_openvino(model: OpenVinoModel, path: Path) -> None:
    """Write `path` (.xml) and the weights (.bin) beside it, floats in 16 bits; former files are removed first.

    Raises:
        OSError: the disk is full, or the folder refuses files.
    """
    import openvino

    weights = path.with_suffix(".bin")
    for old in (path, weights):
        old.unlink(missing_ok=True)
    with suppress(RuntimeError):  # OpenVINO does not tell whether the last bytes reached the disk
        openvino.save_model(model, path, compress_to_fp16=True)
        text = path.read_text(encoding="utf-8")
        ends = (int(offset) + int(size) for offset, size in _WEIGHTS_PLACE.findall(text))
        if text.rstrip().endswith("</net>") and weights.stat().st_size >= max(ends, default=0):
            return
    raise OSError("OpenVINO could not write it whole; the disk may be full")


class _SignalStack(ctypes.Structure):
    """Linux's `stack_t`."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def _keep_signal_stack() -> Iterator[None]:
    """Restore this thread's stack for signal handlers, because NNCF's OpenVINO cores may leave one that is freed.

    See `brainsegnet.inference.openvino_backend.shared_core`.
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


def write_onnx(net: BrainSegNet, path: Path) -> None:
    """Write the fused network in 32-bit floats as ONNX, of convolutions, ReLU, sums and repetition only.

    Raises:
        MissingExtra: onnx is not installed.
    """
    with torch_needed():
        import onnx
    fused, sizes = fuse(net).float(), ("slices", "rows", "columns")
    graph = OnnxGraph(onnx.helper.make_node)
    graph.add_network(fused)
    describe, floats = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    image = describe(IMAGE, floats, [1, fused.sequences, *sizes])
    logits = describe(LOGITS, floats, [1, fused.fine.out_channels, *(f"sub-{size}" for size in sizes)])
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in graph.weights.items()]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "brainsegnet", [image], [logits], weights),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="brainsegnet",
    )
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


class OnnxGraph:
    """Nodes and weights of an ONNX graph; every method adds some and returns the name of the map they give."""

    def __init__(self, make_node: Callable[..., Any]) -> None:
        self.make_node = make_node
        self.nodes: list[Any] = []
        self.weights: dict[str, Floats] = {}

    def add_network(self, fused: FusedNet) -> str:
        """The whole network, as `FusedNet.forward`."""
        x, levels = IMAGE, []
        for block in fused.blocks:
            for part in cast(nn.Sequential, block):
                x = self._add_part(x, part)
            levels.append(x)
        y = ""
        repetition = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        for side, smooth in zip(fused.sides, fused.smooths, strict=True):
            total = self._convolve(levels.pop(), cast(nn.Conv3d, side))
            if y:
                scales = self._add_weight(Tensor([1, 1, *fused.stride]))
                total = self._add("Add", [total, self._add("Resize", [y, "", scales], **repetition)])
            if isinstance(fused.activate, nn.ReLU):
                total = self._add("Relu", [total])
            y = self._convolve(total, cast(nn.Conv3d, smooth))
        return self._add("Add", [self._convolve(levels.pop(), fused.fine), self._convolve(y, fused.coarse)], LOGITS)

    def _add_part(self, x: str, part: nn.Module) -> str:
        if not isinstance(part, FoldedResBlock):
            return self._add("Relu", [self._convolve(x, cast(nn.Conv3d, cast(nn.Sequential, part)[0]))])
        inner = self._add_part(x, part.first)
        return self._add("Relu", [self._add("Add", [x, self._convolve(inner, part.second)])])

    def _convolve(self, x: str, conv: nn.Conv3d) -> str:
        weights = [self._add_weight(tensor) for tensor in (conv.weight, conv.bias) if tensor is not None]
        return self._add("Conv", [x, *weights], strides=list(conv.stride), pads=2 * [int(pad) for pad in conv.padding])

    def _add_weight(self, tensor: Tensor) -> str:
        name = f"weight{len(self.weights)}"
        self.weights[name] = tensor.detach().cpu().numpy()
        return name

    def _add(self, kind: str, inputs: list[str], output: str = "", **facts: Any) -> str:  # noqa: ANN401
        name = output or f"map{len(self.nodes)}"
        self.nodes.append(self.make_node(kind, inputs, [name], **facts))
        return name
