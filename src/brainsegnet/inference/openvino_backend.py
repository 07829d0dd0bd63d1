"""The network in OpenVINO on a CPU, in floats or 8-bit integers; torch is not needed."""

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from brainsegnet.errors import ModelError
from brainsegnet.inference.card import Card
from brainsegnet.inference.memory import free_memory
from brainsegnet.inference.passes import Classes, Floats, Shape, estimate_floats, find_halo, interleave

INTEGER_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
"""What processors with fast 8-bit products call them in /proc/cpuinfo."""


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
        form: "fp16" or "int8", for the name.
        threads: None is all cores.

    Raises:
        ModelError: OpenVINO cannot read the file.
    """

    def __init__(self, path: Path, card: Card, form: str, threads: int | None = None) -> None:
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            compiled = shared_core().compile_model(str(path), "CPU", settings)
        except RuntimeError as error:
            raise ModelError(f"{path} cannot be run by OpenVINO: {' '.join(str(error).split())[:200]}") from error
        self.request = compiled.create_infer_request()
        self.name = f"OpenVINO on the CPU, {'8-bit integers' if form == 'int8' else '32-bit floats'}"
        shape = card.network
        self.bytes_per_value = 1 if form == "int8" else 4
        self.channels, self.classes, self.stride = len(card.sequences), card.task.classes, shape.stride
        self.widths, self.refined = shape.widths, shape.refined
        d, h, w = (s ** (len(shape.widths) - 1) for s in shape.stride)
        self.multiples, self.halo = (d, h, w), find_halo(len(shape.widths), shape.stride[0])

    def classify(self, image: Floats) -> Classes:
        """Normalised intensities (C, D, H, W) to the likeliest class of each voxel (D, H, W).

        Raises:
            MemoryError: there is too little memory.
        """
        return np.asarray(interleave(likeliest(self._logits(image)), self.stride))

    def probabilities(self, image: Floats) -> Floats:
        """Soft-max probabilities (K, D, H, W); arguments and errors as `classify`."""
        logits = self._logits(image)
        chances = np.exp(logits - logits.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        return np.asarray(interleave(chances.swapaxes(0, 1), self.stride))

    def estimate_bytes(self, shape: Shape) -> int:
        """About how much memory a pass over (D, H, W) voxels takes beside weights and libraries."""
        floats = estimate_floats(self.channels, self.classes, self.widths, self.refined, self.stride)
        ends = self.channels + 2 * self.classes
        return int(math.prod(shape) * (4 * ends + self.bytes_per_value * max(floats - ends, 0)))

    def free_bytes(self) -> int | None:
        """Memory that is free for a pass."""
        return free_memory()

    def _logits(self, image: Floats) -> Floats:
        """(P * Q * R, K, d, h, w), the sub-pixels first; a view that the next pass overwrites."""
        try:
            self.request.infer({0: image[None]}, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            if "alloc" not in str(error) and "memory" not in str(error):
                raise
            raise MemoryError("the memory does not suffice for a pass; cut the scan into (thinner) slabs") from error
        found: NDArray[np.float32] = self.request.get_output_tensor(0).data[0]
        return found.reshape(-1, self.classes, *found.shape[1:])


def likeliest(logits: Floats) -> Classes:
    """The arg-max over the classes of (S, K, d, h, w), the first of equals: (S, d, h, w).

    By comparisons of whole maps, many times as fast as `argmax` over an axis that is not the last.

    >>> likeliest(np.array([[[[[1.0]]], [[[3.0]]], [[[3.0]]]]], np.float32)).tolist()
    [[[[1]]]]
    """
    best = logits[:, 0].copy()
    classes = np.zeros(best.shape, np.uint8)
    for k in range(1, logits.shape[1]):
        better = logits[:, k] > best
        np.copyto(classes, np.uint8(k), where=better)
        np.maximum(best, logits[:, k], out=best)
    return classes


def has_integer_units(description: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies 8-bit integers faster than floats; False where the system does not tell."""
    try:
        words = set(description.read_text().split())
    except OSError:
        return False
    return any(flag in words for flag in INTEGER_FLAGS)
