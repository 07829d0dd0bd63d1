"""The network in OpenVINO on a CPU, in floats, bf16 or 8-bit integers; torch is not needed."""

import math
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13 as ops

from brainsegnet._machine import free_memory
from brainsegnet._types import Floats, Shape
from brainsegnet.errors import ModelError
from brainsegnet.inference.components import CERTAIN
from brainsegnet.inference.tiling import Classes, estimate_floats, find_halo, interleave
from brainsegnet.model.card import Card

OpenVinoModel = Any
OpenVinoRequest = Any
"""`openvino.Model` and `openvino.InferRequest`, whose types say nothing."""

Arithmetic = Literal["float", "bf16", "int8"]
"""What the network is computed in."""


class _Way(NamedTuple):
    """Of an arithmetic: its name in results, OpenVINO's hint for what are floats in the file, and bytes of a value."""

    words: str
    floats: str
    width: int


_WAYS: dict[Arithmetic, _Way] = {
    "float": _Way("32-bit floats", "f32", 4),
    "bf16": _Way("16-bit floats (bf16)", "bf16", 2),
    "int8": _Way("8-bit integers", "f32", 1),
}
"""In bf16 OpenVINO keeps the last sum, which gives the logits, in 32-bit floats. Without a hint it would take bf16 by
itself where the processor has units for it."""


@cache
def shared_core() -> openvino.Core:
    """The one OpenVINO core of this process, which lives as long as it.

    Each core gives the thread that first compiles with it a stack for signal handlers and takes it back when it goes.
    Two that do not go in reverse order leave a stack that is freed, and the next Ctrl-C is a segmentation fault.
    """
    return openvino.Core()


class OpenVinoBackend:
    """An exported model ready to run.

    Args:
        path: The .xml file, checked.
        card: Of the model.
        arithmetic: "int8" for an export in 8 bits, else "float", or "bf16" where the processor has units for it.
        threads: None is all cores.

    Raises:
        ModelError: OpenVINO cannot read the file.
    """

    def __init__(self, path: Path, card: Card, arithmetic: Arithmetic, threads: int | None = None) -> None:
        way = _WAYS[arithmetic]
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": way.floats}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            self._network = shared_core().read_model(str(path))
            surely = card.components.confidence_margin is not None
            self._likeliest = {surely: _ready(with_arg_max(self._network, card.task.classes, surely), settings)}
        except RuntimeError as error:
            raise ModelError(f"{path} cannot be run by OpenVINO: {' '.join(str(error).split())[:200]}") from error
        self._settings = settings
        self._logits: OpenVinoRequest = None
        self.name = f"OpenVINO on the CPU, {way.words}"
        shape = card.network
        self.bytes_per_value = way.width
        self.channels, self.classes, self.stride = len(card.sequences), card.task.classes, shape.stride
        self.widths, self.refined = shape.widths, shape.refined
        d, h, w = (s ** (len(shape.widths) - 1) for s in shape.stride)
        self.multiples, self.halo = (d, h, w), find_halo(len(shape.widths), shape.stride[0])

    def classify(self, image: Floats) -> Classes:
        """Normalised intensities (C, D, H, W) to the likeliest class of each voxel (D, H, W).

        Raises:
            MemoryError: there is too little memory.
        """
        return self._classify(image, surely=False)

    def classify_with_confidence(self, image: Floats) -> Classes:
        """Classes, and the probability of not being background in 255 steps: (2, D, H, W); otherwise as `classify`."""
        return self._classify(image, surely=True)

    def _classify(self, image: Floats, surely: bool) -> Classes:
        if surely not in self._likeliest:
            self._likeliest[surely] = _ready(with_arg_max(self._network, self.classes, surely), self._settings)
        return np.asarray(interleave(_infer(self._likeliest[surely], image), self.stride))

    def probabilities(self, image: Floats) -> Floats:
        """Soft-max probabilities (K, D, H, W); arguments and errors as `classify`."""
        if self._logits is None:
            self._logits = _ready(self._network, self._settings)
        logits = _infer(self._logits, image)[0]
        logits = logits.reshape(-1, self.classes, *logits.shape[1:])
        probabilities = np.exp(logits - logits.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        return np.asarray(interleave(probabilities.swapaxes(0, 1), self.stride))

    def estimate_bytes(self, shape: Shape) -> int:
        """About how much memory a pass over (D, H, W) voxels takes beside weights and libraries."""
        floats = estimate_floats(self.channels, self.classes, self.widths, self.refined, self.stride)
        ends = self.channels + 2 * self.classes
        return int(math.prod(shape) * (4 * ends + self.bytes_per_value * max(floats - ends, 0)))

    def free_bytes(self) -> int | None:
        """Memory that is free for a pass."""
        return free_memory()


def with_arg_max(network: OpenVinoModel, classes: int, surely: bool = False) -> OpenVinoModel:
    """The same network with the arg-max inside, the first of equals: logits (1, S * K, d, h, w) to (S, d, h, w) uint8.

    Inside, it runs on all cores, and no float leaves the engine. With `surely`, the probability of not being background
    in 255 steps comes after it: (2, S, d, h, w).
    """
    twin = network.clone()
    logits = twin.get_results()[0].input_value(0)
    steps = logits.get_partial_shape()[1].get_length() // classes
    apart = ops.reshape(logits, np.array([steps, classes, 0, 0, 0]), True)
    best = ops.topk(apart, np.array(1), 1, "max", "value", "i32", True).output(1)
    result = ops.convert(ops.squeeze(best, np.array([1])), "u8")
    if surely:
        background = ops.gather(ops.softmax(apart, 1), np.array(0), np.array(1))
        lesion = ops.multiply(ops.subtract(np.float32(1), background), np.float32(CERTAIN))
        confidence = ops.convert(ops.round(lesion, "half_to_even"), "u8")
        result = ops.concat([ops.unsqueeze(part, np.array([0])) for part in (result, confidence)], 0)
    return openvino.Model([ops.result(result)], twin.get_parameters())


def _ready(network: OpenVinoModel, settings: dict[str, Any]) -> OpenVinoRequest:
    return shared_core().compile_model(network, "CPU", settings).create_infer_request()


def _infer(request: OpenVinoRequest, image: Floats) -> NDArray[Any]:
    """The output, a view that the next pass overwrites.

    Raises:
        MemoryError: there is too little memory.
    """
    try:
        request.infer({0: image[None]}, share_inputs=True, share_outputs=True)
    except RuntimeError as error:
        if "alloc" not in str(error) and "memory" not in str(error):
            raise
        raise MemoryError("the memory does not suffice for a pass; cut the scan into (thinner) slabs") from error
    return np.asarray(request.get_output_tensor(0).data)
