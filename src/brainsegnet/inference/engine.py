"""A model ready to run: which backend on which device, with which arithmetic."""

import ctypes
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import get_args

from brainsegnet._machine import has_bf16_units, has_integer_units
from brainsegnet.errors import BrainSegNetError, MissingExtra, ModelError
from brainsegnet.inference.openvino_backend import Arithmetic, OpenVinoBackend
from brainsegnet.inference.options import Precision
from brainsegnet.inference.tiling import Backend, TiledPredictor
from brainsegnet.model.card import Card, Form, is_tolerated
from brainsegnet.model.store import Model
from brainsegnet.preprocessing.prepare import Prepared, prepare
from brainsegnet.volume import Case

PRECISIONS = get_args(Precision)


class Engine(TiledPredictor):
    """A tiled predictor with the card of its model; `prepare` prepares cases for it, on the device if that can."""

    def __init__(
        self, card: Card, backend: Backend, max_bytes: int | None = None, fallback: Callable[[], Backend] | None = None
    ) -> None:
        super().__init__(backend, max_bytes, fallback)
        self.card = card
        self.prepare: Callable[[Case], Prepared] = getattr(backend, "prepare", prepare)


def open_engine(
    model: Model,
    device: str = "auto",
    threads: int | None = None,
    precision: Precision = "auto",
    max_bytes: int | None = None,
) -> Engine:
    """The fastest way to run a model on this machine.

    Args:
        model: Its exports run without torch; without exports, torch runs the weights.
        device: "auto" is a GPU if there is one and torch is installed, else the CPU.
        threads: Of the CPU; None is all cores.
        precision: Of the CPU. "auto" is int8 where the processor has instructions for it and the card says that the
            loss of Dice is tolerated; else bf16 on the same two conditions; else float.
        max_bytes: Memory of a forward pass; None is what is free.

    Raises:
        ModelError: an export was altered, or the model has no export for the chosen precision (int8, bf16).
        MissingExtra: there is no export, and no torch.
        BrainSegNetError: there is no such device or precision, or the processor has no units for bf16.
    """
    if precision not in PRECISIONS:
        raise BrainSegNetError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if stays_on_cpu(device):
        return Engine(model.card, _open_on_cpu(model, threads, precision), max_bytes)
    from brainsegnet.inference.torch_backend import TorchBackend

    backend = TorchBackend(model.build(), device, threads)
    return Engine(model.card, backend, max_bytes, lambda: _open_on_cpu(model, threads, precision))


def stays_on_cpu(device: str) -> bool:
    """Whether `open_engine` computes on the CPU with this device; the engine need not be open."""
    return device == "cpu" or (device == "auto" and not _has_gpu())


def _open_on_cpu(model: Model, threads: int | None, precision: Precision) -> Backend:
    """OpenVINO for an export, or torch for the weights if there is none."""
    arithmetic = _choose_arithmetic(model.card, precision)
    if arithmetic != "float" or "fp16" in model.card.exports:
        form: Form = "int8" if arithmetic == "int8" else "fp16"
        return OpenVinoBackend(model.exported(form), model.card, arithmetic, threads)
    try:
        from brainsegnet.inference.torch_backend import TorchBackend
    except MissingExtra as error:
        raise ModelError(
            f"model {model.folder} has no export, which is needed without torch; where torch is installed, run: "
            f"brainsegnet export {model.folder}"
        ) from error
    return TorchBackend(model.build(), "cpu", threads)


def _choose_arithmetic(card: Card, precision: Precision) -> Arithmetic:
    """The arithmetic of a precision, see `open_engine`.

    Raises:
        BrainSegNetError: bf16 was asked for, and OpenVINO would not compute in it.
    """
    if precision == "bf16" and not has_bf16_units():
        raise BrainSegNetError("this processor has no matrix units for bf16 (AMX); choose precision float or int8")
    if precision != "auto":
        return precision
    exports = card.exports
    if "int8" in exports and is_tolerated(exports["int8"].dice_change) and has_integer_units():
        return "int8"
    return "bf16" if "fp16" in exports and is_tolerated(exports["fp16"].bf16_change) and has_bf16_units() else "float"


def _has_gpu() -> bool:
    """Whether torch finds a GPU; torch takes seconds to load, so it is asked only if there is a CUDA driver."""
    if find_spec("torch") is None:
        return False
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    from brainsegnet.inference.torch_backend import has_gpu

    return has_gpu()
