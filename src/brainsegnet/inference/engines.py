"""A model ready to run: which backend, on which device."""

import ctypes
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

from brainsegnet.errors import BrainSegNetError, MissingExtra, ModelError
from brainsegnet.inference.card import Card
from brainsegnet.inference.model import Model
from brainsegnet.inference.openvino_backend import OpenVinoBackend
from brainsegnet.inference.passes import Backend, Passes
from brainsegnet.processor import has_integer_units

Precision = Literal["auto", "float", "int8"]
PRECISIONS = ("auto", "float", "int8")


class Engine(Passes):
    """Passes of a model, with its card."""

    def __init__(
        self, card: Card, backend: Backend, max_bytes: int | None = None, spare: Callable[[], Backend] | None = None
    ) -> None:
        super().__init__(backend, max_bytes, spare)
        self.card = card


def open_engine(
    model: Model,
    device: str = "auto",
    threads: int | None = None,
    precision: Precision = "auto",
    max_bytes: int | None = None,
) -> Engine:
    """The fastest way to run a model here.

    Args:
        model: Its exports run without torch; without exports, torch runs the weights.
        device: "auto" is a GPU if there is one and torch is installed, else the CPU.
        threads: Of the CPU; None is all cores.
        precision: Of the CPU. "auto" is int8 where the processor has instructions for it and the card says that it
            costs no more Dice than is tolerated, else float.
        max_bytes: Memory of a pass; None is what is free.

    Raises:
        ModelError: an export was altered, or int8 was asked for and there is none.
        MissingExtra: there is no export, and no torch.
        BrainSegNetError: there is no such device or precision.
    """
    if precision not in PRECISIONS:
        raise BrainSegNetError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if device == "cpu" or (device == "auto" and not _gpu()):
        return Engine(model.card, _on_cpu(model, threads, precision), max_bytes)
    from brainsegnet.inference.torch_backend import TorchBackend

    backend = TorchBackend(model.build(), device, threads)
    return Engine(model.card, backend, max_bytes, lambda: _on_cpu(model, threads, precision))


def _on_cpu(model: Model, threads: int | None, precision: Precision) -> Backend:
    """OpenVINO on an export, or torch on the weights where there is none."""
    exports = model.card.exports
    if precision == "int8" or (precision == "auto" and _int8_serves(model.card)):
        return OpenVinoBackend(model.exported("int8"), model.card, "int8", threads)
    if "fp16" in exports:
        return OpenVinoBackend(model.exported("fp16"), model.card, "fp16", threads)
    try:
        from brainsegnet.inference.torch_backend import TorchBackend
    except MissingExtra as error:
        raise ModelError(
            f"model {model.folder} has no export, which is needed without torch; where torch is installed, run: "
            f"brainsegnet export {model.folder}"
        ) from error
    return TorchBackend(model.build(), "cpu", threads)


def _int8_serves(card: Card) -> bool:
    """Whether 8-bit integers are fast here and harmless to this model."""
    return "int8" in card.exports and card.exports["int8"].harmless and has_integer_units()


def _gpu() -> bool:
    """Whether torch finds a GPU; torch, which takes seconds to load, is asked only where a CUDA driver is."""
    if find_spec("torch") is None:
        return False
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    from brainsegnet.inference.torch_backend import has_gpu

    return has_gpu()
