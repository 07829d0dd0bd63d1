"""A network as a value: how it is made, what the devices run of it in training, and what runs over whole scans."""

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

from brainsegnet.model.architecture import IN_PLANE, BrainSegNet, Stride
from brainsegnet.model.fused import fuse, fuse_decoder

Logits = Callable[[Tensor], Tensor]
"""Scans (N, C, D, H, W) of any size to logits (N, K, D, H, W)."""

LEAST = 32
"""Voxels along each axis, at least, of the input on which multiply-adds are counted."""


def as_it_is(net: Any) -> Any:  # noqa: ANN401
    """The network itself."""
    return net


@dataclass(frozen=True)
class Design:
    """Any network that maps scans (N, C, D, H, W) of any size to logits (N, K, D, H, W).

    Attributes:
        name: For the states of trainings, so that one network does not continue the training of another.
        build: A fresh network; nothing in its forward pass is random.
        learner: What the devices run in training, on the parameters of the network.
        runner: What runs over whole scans, from a network in evaluation mode.
        multiples: Sizes (D, H, W) that need no padding are multiples of these.
        channels_last: Whether it computes faster with the channels innermost in memory.
    """

    name: str
    build: Callable[[], nn.Module]
    learner: Callable[[Any], nn.Module] = as_it_is
    runner: Callable[[Any], Logits] = as_it_is
    multiples: Stride = (1, 1, 1)
    channels_last: bool = True

    @property
    def layout(self) -> torch.memory_format:
        """Of its parameters and its inputs."""
        return torch.channels_last_3d if self.channels_last else torch.contiguous_format


def brain_segnet(
    sequences: int, classes: int, widths: Sequence[int], refined: int, stride: Stride = IN_PLANE, nonlinear: bool = True
) -> Design:
    """Ours, collapsed in training and fused afterwards; arguments as those of `BrainSegNet`."""
    return Design(
        "brainsegnet",
        lambda: BrainSegNet(sequences, classes, widths, refined, stride, nonlinear),
        fuse_decoder,
        lambda net: fuse(net).to(memory_format=torch.channels_last_3d).logits,  # type: ignore[call-overload]
        _multiples(stride, len(widths)),
    )


def as_drawn(design: Design) -> Design:
    """The same network with no operation spared: as the paper draws it, in training and afterwards.

    >>> small = brain_segnet(4, 5, (8, 16, 32, 64), 32)
    >>> [round(multiply_adds(d, 4) / 1000) for d in (small, as_drawn(small))]
    [41, 65]
    """
    return Design(f"{design.name}, as drawn", design.build, multiples=design.multiples)


def count_parameters(design: Design) -> int:
    """Numbers that are learnt."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in design.build().parameters())


def multiply_adds(design: Design, sequences: int) -> float:
    """Multiply-adds per voxel of what runs over whole scans, counted in its convolutions without computing any.

    >>> round(multiply_adds(brain_segnet(4, 5, (32, 64, 128, 256), 128), 4))
    578048
    """
    size = [m * math.ceil(LEAST / m) for m in design.multiples]
    with torch.device("meta"), torch.inference_mode():
        run = design.runner(design.build().eval())
        with FlopCounterMode(display=False) as counter:
            run(torch.empty(1, sequences, *size))
    return float(counter.get_total_flops()) / 2 / math.prod(size)


def peak_bytes(run: Logits, x: Tensor) -> int:
    """Bytes of the tensors that live at once, where most do, while a network runs; the input is not among them.

    >>> x = torch.zeros(1, 2, 8, 8, 8)
    >>> peak_bytes(lambda x: (x + 1).mul_(2).sum(1), x) == x.nbytes + x.nbytes // 2
    True
    """
    live = _Live()
    with live:
        run(x)
    return live.most


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storage that is made, until it is given up."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self.known: WeakSet[torch.UntypedStorage] = WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        given = {tensor.untyped_storage() for tensor in tree_leaves(args) if isinstance(tensor, Tensor)}
        made = func(*args, **(kwargs or {}))
        for storage in {tensor.untyped_storage() for tensor in tree_leaves(made) if isinstance(tensor, Tensor)} - given:
            if storage not in self.known:
                self.known.add(storage)
                self._grow(storage.nbytes())
                finalize(storage, self._grow, -storage.nbytes())
        return made

    def _grow(self, count: int) -> None:
        self.now += count
        self.most = max(self.most, self.now)


def _multiples(stride: Stride, blocks: int) -> Stride:
    d, h, w = (s ** (blocks - 1) for s in stride)
    return d, h, w
