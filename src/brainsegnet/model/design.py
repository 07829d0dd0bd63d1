"""A network as a value: how it is built, what runs in training and on whole scans, and what it costs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet, finalize

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from brainsegnet.model.architecture import IN_PLANE, BrainSegNet, Stride, find_multiples
from brainsegnet.model.fused import fuse, fuse_decoder

Logits = Callable[[Tensor], Tensor]
"""Scans (N, C, D, H, W) of any size to logits (N, K, D, H, W)."""

SMALLEST_SIDE = 32
"""Voxels along each axis, at least, of the input on which operations and memory are counted."""


def unchanged(net: Any) -> Any:  # noqa: ANN401
    """The network itself."""
    return net


@dataclass(frozen=True)
class Design:
    """Any network that maps scans (N, C, D, H, W) of any size to logits (N, K, D, H, W).

    Attributes:
        name: Kept in the state of a training, so that another network cannot resume it.
        build: Makes the network with new weights; its forward pass must not be random.
        learner: Gives the module that runs in training, with the parameters of the network.
        runner: Gives the function that runs on whole scans, from a network in evaluation mode.
        multiples: Sizes (D, H, W) that need no padding are multiples of these.
        channels_last: Whether it computes faster with the channels innermost in memory.
    """

    name: str
    build: Callable[[], nn.Module]
    learner: Callable[[Any], nn.Module] = unchanged
    runner: Callable[[Any], Logits] = unchanged
    multiples: Stride = (1, 1, 1)
    channels_last: bool = True

    @property
    def layout(self) -> torch.memory_format:
        """Memory format of its parameters and its inputs."""
        return torch.channels_last_3d if self.channels_last else torch.contiguous_format


def brain_segnet(
    sequences: int, classes: int, widths: Sequence[int], refined: int, stride: Stride = IN_PLANE, nonlinear: bool = True
) -> Design:
    """`BrainSegNet` with these arguments, its decoder fused in training and all of it fused afterwards."""
    return Design(
        "brainsegnet",
        lambda: BrainSegNet(sequences, classes, widths, refined, stride, nonlinear),
        fuse_decoder,
        lambda net: fuse(net).to(memory_format=torch.channels_last_3d).logits,  # type: ignore[call-overload]
        find_multiples(stride, len(widths)),
    )


def as_drawn(design: Design) -> Design:
    """The same network without any fusion, as the paper draws it, in training and afterwards.

    >>> small = brain_segnet(4, 5, (8, 16, 32, 64), 32)
    >>> [round(multiply_adds(d, 4) / 1000) for d in (small, as_drawn(small))]
    [41, 65]
    """
    return Design(f"{design.name}, as drawn", design.build, multiples=design.multiples)


def count_parameters(design: Design) -> int:
    """Number of parameters that are learnt."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in design.build().parameters())


def multiply_adds(design: Design, sequences: int) -> float:
    """Multiply-adds per voxel of what runs on whole scans, counted from the shapes of its convolutions.

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
