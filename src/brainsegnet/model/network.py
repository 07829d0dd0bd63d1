"""Any network as a value (how it is built, run and counted), and its weights as a file.

Weights are stored as safetensors, which hold tensors and text only. They can be transferred to a network for other
sequences and classes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet, finalize

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from brainsegnet.errors import ModelError
from brainsegnet.model.architecture import IN_PLANE, BrainSegNet, Stride, find_multiples
from brainsegnet.model.fused import FusedDecoder, fuse

Logits = Callable[[Tensor], Tensor]
"""Scans (N, C, D, H, W) of any size to logits (N, K, D, H, W)."""

SMALLEST_SIDE = 32
"""Voxels along each axis, at least, of the input on which operations and memory are counted."""
FIRST = "blocks.0.0.0.weight"
"""The convolution whose input are the sequences, (out, C, 3, 3, 3)."""
LAST = ("classify.weight", "classify.bias")
"""The classifier, (K, ...)."""
Origins = Sequence[int | None]
"""For each channel or class of the new network, the index of that of the trained one it continues, or None."""


@dataclass(frozen=True)
class Design:
    """Any network that maps scans (N, C, D, H, W) of any size to logits (N, K, D, H, W).

    Attributes:
        name: Name, kept in the state of a training, so that another network cannot resume it.
        build: Makes the network with new weights. Its forward pass must not be random.
        learner: Gives the module that is trained, with the parameters of the network.
        runner: Gives the function that runs on whole scans, from a network in evaluation mode.
        multiples: Sizes (D, H, W) that need no padding are multiples of these.
        layout: Memory format of parameters and inputs in which it computes fastest.
    """

    name: str
    build: Callable[[], nn.Module]
    learner: Callable[[Any], nn.Module] = lambda net: net
    runner: Callable[[Any], Logits] = lambda net: net
    multiples: Stride = (1, 1, 1)
    layout: torch.memory_format = torch.channels_last_3d


def brain_segnet(
    sequences: int, classes: int, widths: Sequence[int], refined: int, stride: Stride = IN_PLANE, nonlinear: bool = True
) -> Design:
    """The design of `BrainSegNet` with these arguments: its decoder fused in training, all of it fused afterwards."""
    return Design(
        "brainsegnet",
        lambda: BrainSegNet(sequences, classes, widths, refined, stride, nonlinear),
        FusedDecoder,
        lambda net: fuse(net).to(memory_format=torch.channels_last_3d).logits,  # type: ignore[call-overload]
        find_multiples(stride, len(widths)),
    )


def as_drawn(design: Design) -> Design:
    """The same network without any fusion, as the paper draws it, in training and afterwards."""
    return Design(f"{design.name}, as drawn", design.build, multiples=design.multiples)


def count_parameters(design: Design) -> int:
    """Number of learnt parameters of a design."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in design.build().parameters())


def multiply_adds(design: Design, sequences: int) -> float:
    """Multiply-adds per voxel of what runs on whole scans, counted from the shapes of its convolutions.

    Examples:
        >>> round(multiply_adds(brain_segnet(4, 5, (32, 64, 128, 256), 128), 4))
        578048
    """
    size = [m * math.ceil(SMALLEST_SIDE / m) for m in design.multiples]
    with torch.device("meta"), torch.inference_mode():
        run = design.runner(design.build().eval())
        with FlopCounterMode(display=False) as counter:
            run(torch.empty(1, sequences, *size))
    return float(counter.get_total_flops()) / 2 / math.prod(size)


def peak_bytes(run: Logits, x: Tensor) -> int:
    """Peak memory in bytes of the tensors that a network makes while it runs, its input not included.

    Examples:
        >>> x = torch.zeros(1, 2, 8, 8, 8)
        >>> peak_bytes(lambda x: (x + 1).mul_(2).sum(1), x) == x.nbytes + x.nbytes // 2
        True
    """
    counter = _StorageCounter()
    with counter:
        run(x)
    return counter.peak


class _StorageCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storage that is made, until it is released."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = self.peak = 0
        self.known: WeakSet[torch.UntypedStorage] = WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        inputs = {tensor.untyped_storage() for tensor in tree_leaves(args) if isinstance(tensor, Tensor)}
        result = func(*args, **(kwargs or {}))
        outputs = {tensor.untyped_storage() for tensor in tree_leaves(result) if isinstance(tensor, Tensor)}
        for storage in outputs - inputs:
            if storage not in self.known:
                self.known.add(storage)
                self._add(storage.nbytes())
                finalize(storage, self._add, -storage.nbytes())
        return result

    def _add(self, count: int) -> None:
        self.total += count
        self.peak = max(self.peak, self.total)


def write_tensors(tensors: Mapping[str, Tensor], path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Write tensors by name, with text `notes` in the header. The caller replaces the file atomically.

    A tensor with two names is written twice, because safetensors refuses tensors that share memory.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    owner: dict[int, str] = {}
    for name, tensor in plain.items():
        if owner.setdefault(tensor.untyped_storage().data_ptr(), name) != name:
            plain[name] = tensor.clone()
    try:
        path.write_bytes(save(plain, dict(notes or {})))
    except SafetensorError as error:
        raise OSError(" ".join(str(error).split())) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors by name, on the CPU, and the notes of the header.

    Raises:
        ModelError: the file does not exist, or is not safetensors (for example a pickle).
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist; name the folder of a trained model") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a safetensors file ({error}); pickled and other formats are refused because loading them "
            "can execute code"
        ) from error


def load_into(net: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Copy tensors by name into the parameters and buffers of `net`.

    Raises:
        ModelError: a tensor is missing, unknown or of another shape; `origin` names the model in the message.
    """
    wanted = net.state_dict()
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise ModelError(f"{origin} lacks {len(missing)} tensors, {missing[0]} first; it is incomplete, copy it again")
    if unknown := sorted(tensors.keys() - wanted.keys()):
        raise ModelError(f"{origin} holds {len(unknown)} tensors that its card does not describe, {unknown[0]} first")
    for name, tensor in wanted.items():
        if tensor.shape != tensors[name].shape:
            raise ModelError(
                f"{origin}: {name} is {tuple(tensors[name].shape)} but the card describes {tuple(tensor.shape)}"
            )
    with torch.no_grad():
        net.load_state_dict(dict(tensors))


def transfer(
    trained: Mapping[str, Tensor], fresh: Mapping[str, Tensor], channels: Origins, classes: Origins
) -> dict[str, Tensor]:
    """Trained weights with the first and last layers rearranged for other channels and classes.

    Args:
        trained: Tensors by name of a trained `BrainSegNet`.
        fresh: Initial tensors of the new network, which has the same widths.
        channels: Origin of each channel of the new network; one without an origin keeps its fresh weights.
        classes: Origin of each class; two may share one.

    Returns:
        Tensors by name in the dtypes of `fresh`.
    """
    moved = {name: trained[name].to(tensor.dtype) for name, tensor in fresh.items() if name in trained}
    moved[FIRST] = _pick(moved[FIRST], fresh[FIRST], channels, axis=1)
    for name in LAST:
        moved[name] = _pick(moved[name], fresh[name], classes, axis=0)
    return moved


def _pick(trained: Tensor, fresh: Tensor, origins: Origins, axis: int) -> Tensor:
    slices = [
        fresh.select(axis, place) if origin is None else trained.select(axis, origin)
        for place, origin in enumerate(origins)
    ]
    return torch.stack(slices, axis)
