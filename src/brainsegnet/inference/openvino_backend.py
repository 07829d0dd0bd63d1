"""Backend in OpenVINO on a CPU, in floats, bf16 or 8-bit integers, for exported models; torch is not needed."""

import math
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino
from openvino import opset13 as ops

from brainsegnet._machine import free_memory, require_space, tells_of_memory
from brainsegnet._types import Array, Floats, Labels, Shape
from brainsegnet.errors import ModelError
from brainsegnet.inference.tiling import CONFIDENCE_STEPS, OUT_OF_MEMORY, estimate_floats, find_halo, interleave
from brainsegnet.model.card import Card

OpenVinoModel = Any
OpenVinoRequest = Any
"""`openvino.Model` and `openvino.InferRequest`, which carry no types."""

Arithmetic = Literal["float", "bf16", "int8"]
Output = Literal["classes", "confidence", "certainty", "logits"]
"""What the network is computed in."""


_SETTINGS: dict[Arithmetic, tuple[str, str, int]] = {
    "float": ("32-bit floats", "f32", 4),
    "bf16": ("16-bit floats (bf16)", "bf16", 2),
    "int8": ("8-bit integers", "f32", 1),
}
"""Name in reports, OpenVINO's hint for floats of the file, and bytes of a value. In bf16 OpenVINO keeps the last sum,
which gives the logits, in 32-bit floats. Without a hint it takes bf16 wherever the processor has units for it."""

ENGINE_SPACE = 800_000_000
"""Bytes of address space that OpenVINO takes for its code, its threads and a small network (measured: 780 MB)."""


_core_lock = threading.Lock()


def shared_core() -> openvino.Core:
    """The only OpenVINO core of this process. It is never released.

    The thread that first compiles with a core gets a stack for signal handlers, which is freed with the core. If two
    cores are not released in reverse order, the thread keeps a freed stack, and the next Ctrl-C is a segmentation
    fault.

    Raises:
        MemoryError: the process may not take the address space that OpenVINO needs.
    """
    with _core_lock:  # a cache alone lets two threads that come at once make one each
        return _make_core()


@cache
def _make_core() -> openvino.Core:
    require_space(ENGINE_SPACE)
    return openvino.Core()


class OpenVinoBackend:
    """An exported model ready to run on a CPU, without torch.

    `arithmetic` is "int8" for an export in 8 bits, else "float", or "bf16" if the processor has units for it. `threads`
    of None are all cores.

    Raises:
        ModelError: OpenVINO cannot read the file.
    """

    def __init__(self, path: Path, card: Card, arithmetic: Arithmetic, threads: int | None = None) -> None:
        (name, hint, self._bytes_per_value), shape = _SETTINGS[arithmetic], card.network
        self.name, self.classes, self.stride = f"OpenVINO on the CPU, {name}", card.task.classes, shape.stride
        d, h, w = (s ** (len(shape.widths) - 1) for s in shape.stride)
        self.multiples, self.halo = (d, h, w), find_halo(len(shape.widths), shape.stride[0])
        self._ends = len(card.sequences) + 2 * self.classes
        self._floats = estimate_floats(len(card.sequences), self.classes, shape.widths, shape.refined, shape.stride)
        self._options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._requests: dict[str, OpenVinoRequest] = {}
        try:
            self._network = shared_core().read_model(str(path))
            self._check_shapes(path, len(card.sequences), math.prod(shape.stride) * self.classes)
            self._request(choose_output(card))
        except RuntimeError as error:
            if tells_of_memory(error):
                raise MemoryError(OUT_OF_MEMORY) from error
            raise ModelError(f"{path} cannot be run by OpenVINO: {' '.join(str(error).split())[:200]}") from error

    def classify(self, image: Floats) -> Labels:
        """As `Backend.classify`."""
        return np.asarray(interleave(_infer(self._request("classes"), image), self.stride))

    def classify_with_confidence(self, image: Floats, certainty: bool = False) -> Labels:
        """As `Backend.classify_with_confidence`."""
        request = self._request("certainty" if certainty else "confidence")
        return np.asarray(interleave(_infer(request, image), self.stride))

    def probabilities(self, image: Floats) -> Floats:
        """As `Backend.probabilities`."""
        logits = _infer(self._request("logits"), image)[0]
        logits = logits.reshape(-1, self.classes, *logits.shape[1:])
        probabilities = np.exp(logits - logits.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        return np.asarray(interleave(probabilities.swapaxes(0, 1), self.stride))

    def estimate_bytes(self, shape: Shape) -> int:
        """As `Backend.estimate_bytes`."""
        return int(math.prod(shape) * (4 * self._ends + self._bytes_per_value * max(self._floats - self._ends, 0)))

    def free_bytes(self) -> int | None:
        """As `Backend.free_bytes`."""
        return free_memory()

    def _check_shapes(self, path: Path, sequences: int, channels: int) -> None:
        """Check that the file is of the network that the card describes, from the shape it gives for a small image.

        With another network, sums of maps of unequal size would read and write memory that is not theirs.
        """
        shape = [3 * m for m in self.multiples]
        due = [1, channels, *(s // p for s, p in zip(shape, self.stride, strict=True))]
        probe = self._network.clone()
        with suppress(RuntimeError):  # its maps do not fit together
            probe.reshape([1, sequences, *shape])
            if [*probe.get_results()[0].input_value(0).get_shape()] == due:
                return
        raise ModelError(f"{path} is not of the network that its card describes; export the model again")

    def _request(self, output: Output) -> OpenVinoRequest:
        """The network compiled for one kind of output, at its first use."""
        if output not in self._requests:
            network = self._network
            if output != "logits":
                network = with_arg_max(network, self.classes, output)
            compiled = shared_core().compile_model(network, "CPU", self._options)
            self._requests[output] = compiled.create_infer_request()
        return self._requests[output]


def choose_output(card: Card) -> Output:
    """What the network of a card gives by default."""
    if card.presence is not None:
        return "certainty"
    return "classes" if card.components.confidence_margin is None else "confidence"


def with_arg_max(network: OpenVinoModel, classes: int, output: Output = "classes") -> OpenVinoModel:
    """The network with the arg-max inside, so that it runs on all cores and no float leaves the engine.

    Logits (1, S * K, d, h, w) become classes (S, d, h, w) in uint8; of equal logits the first class counts. With
    "confidence", the lesion probability in `CONFIDENCE_STEPS` is added: (2, S, d, h, w). With "certainty", that of the
    class itself is added too: (3, S, d, h, w).
    """
    copied = network.clone()
    logits = copied.get_results()[0].input_value(0)
    subpixels = logits.get_partial_shape()[1].get_length() // classes
    apart = ops.reshape(logits, np.array([subpixels, classes, 0, 0, 0]), True)
    best = ops.topk(apart, np.array(1), 1, "max", "value", "i32", True).output(1)
    result = ops.convert(ops.squeeze(best, np.array([1])), "u8")
    if output != "classes":
        soft = ops.softmax(apart, 1)
        maps = [ops.subtract(np.float32(1), ops.gather(soft, np.array(0), np.array(1)))]
        maps += [ops.reduce_max(soft, np.array([1]))] if output == "certainty" else []
        scaled = [ops.multiply(one, np.float32(CONFIDENCE_STEPS)) for one in maps]
        steps = [ops.convert(ops.round(one, "half_to_even"), "u8") for one in scaled]
        result = ops.concat([ops.unsqueeze(part, np.array([0])) for part in (result, *steps)], 0)
    return openvino.Model([ops.result(result)], copied.get_parameters())


def _infer(request: OpenVinoRequest, image: Floats) -> Array:
    """The output, a view that the next inference overwrites; MemoryError where there is not enough memory."""
    try:
        request.infer({0: image[None]}, share_inputs=True, share_outputs=True)
    except RuntimeError as error:
        if not tells_of_memory(error):
            raise
        raise MemoryError(OUT_OF_MEMORY) from error
    return np.asarray(request.get_output_tensor(0).data)
