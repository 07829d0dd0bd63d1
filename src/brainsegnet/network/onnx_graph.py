"""The frozen network as ONNX, for other runtimes: convolutions, ReLU, sums and repetition, nothing else."""

from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from brainsegnet.errors import MissingExtra
from brainsegnet.network.architecture import BrainSegNet, Stride
from brainsegnet.network.frozen import FoldedResBlock, Frozen, freeze

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
    frozen = freeze(net).float()
    graph = Graph()
    graph.draw(frozen)
    sizes = ["slices", "rows", "columns"]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, channels, *free])
        for name, channels, free in (
            ("image", frozen.sequences, sizes),
            ("logits", frozen.fine.out_channels, [f"sub-{size}" for size in sizes]),
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

    def draw(self, frozen: Frozen) -> str:
        """The whole network, as `Frozen.forward`."""
        x, levels = "image", []
        for block in frozen.blocks:
            for part in cast(nn.Sequential, block):
                x = self._part(x, part)
            levels.append(x)
        y = ""
        for side, smooth in zip(frozen.sides, frozen.smooths, strict=True):
            total = self._convolve(levels.pop(), cast(nn.Conv3d, side))
            if y:
                total = self._node("Add", [total, self._repeat(y, frozen.stride)])
            if isinstance(frozen.activate, nn.ReLU):
                total = self._node("Relu", [total])
            y = self._convolve(total, cast(nn.Conv3d, smooth))
        return self._node(
            "Add", [self._convolve(levels.pop(), frozen.fine), self._convolve(y, frozen.coarse)], "logits"
        )

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
