"""The network on a device: intensities in, classes out, and no float map of more than one pass in between."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brainsegnet.errors import BrainSegNetError, MissingExtra
from brainsegnet.preprocessing.prepare import Prepared
from brainsegnet.preprocessing.slabs import slab_starts

try:
    import torch
    from torch import Tensor, nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    from brainsegnet.network.architecture import BrainSegNet
    from brainsegnet.network.collapse import collapse
except ModuleNotFoundError as error:
    raise MissingExtra(
        f'{str(error.name).split(".")[0]} is not installed; run: pip install "brainsegnet[train]"'
    ) from error

if TYPE_CHECKING:
    from brainsegnet.inference.card import Card
    from brainsegnet.inference.model import Model


SCRATCH = 1.1
"""What the convolutions take for themselves: the measured peaks are 0.87 to 1.14 times the sum of the maps."""
UNFOLDED = 20480
"""Torch convolves on a CPU without its lean kernels if channels x slices x rows are no more than this."""


class TorchPasses:
    """A network ready to run: collapsed, its batch norms folded into the convolutions, bf16 on GPUs that have it.

    The same image gives the same result, always, on the same device with as many threads.

    Args:
        net: Copied, so that a network in training can be used.
        device: `auto` is a GPU if there is one, else the CPU.
        threads: Of the CPU; None leaves torch's choice.

    Raises:
        BrainSegNetError: there is no such device.
    """

    def __init__(self, net: BrainSegNet, device: str = "auto", threads: int | None = None) -> None:
        self.device, self.threads = choose_device(device), threads
        self.channels, self.classes, self.stride = net.sequences, net.classes, net.stride
        self.widths, self.refined = [conv.in_channels for conv in _adapters(net)], net.classify.in_channels
        folded = fold_norms(copy.deepcopy(net).eval()).to(self.device)
        self.module = collapse(folded.to(memory_format=torch.channels_last_3d))  # type: ignore[call-overload]
        self.half = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

    def classify(self, image: NDArray[np.float32], slabs: int | None = None) -> NDArray[np.uint8]:
        """The likeliest class of each voxel.

        Args:
            image: Normalised intensities (C, D, H, W).
            slabs: Slices per pass; None is one pass, which has no seams.

        Returns:
            Classes 0 to K-1 (D, H, W).

        Raises:
            MemoryError: a pass needs more than there is.

        The paper cuts the 155 slices of the scan into five slabs of 31 ("Testing"); here the image is the brain's box,
        with fewer slices, so the seams lie elsewhere. Slabs do not overlap, but for the last, which slides back to fit.
        """
        with self._running():
            classes = np.empty(image.shape[1:], np.uint8)
            for where in _cut(image.shape[1], slabs):
                classes[where] = self._run(image[:, where]).argmax(0).to(torch.uint8).cpu().numpy()
        return classes

    def probabilities(self, image: NDArray[np.float32], slabs: int | None = None) -> NDArray[np.float32]:
        """Soft-max probabilities (K, D, H, W); arguments and errors as `classify`."""
        with self._running():
            result = np.empty((self.classes, *image.shape[1:]), np.float32)
            for where in _cut(image.shape[1], slabs):
                result[:, where] = self._run(image[:, where]).float().softmax(0).cpu().numpy()
        return result

    def estimate_bytes(self, shape: tuple[int, int, int]) -> int:
        """About how much memory a pass over (D, H, W) voxels takes beside weights and libraries.

        The most is held in one of the five places listed: in the first block (two), in the second finest refine unit,
        and at the end (two). The factors count the maps that live at once; `SCRATCH` is the library's own on top.
        """
        multiples = [s ** (len(self.widths) - 1) for s in self.stride]
        d, h, w = (-(-n // m) * m for n, m in zip(shape, multiples, strict=True))
        share, width = 1 / math.prod(self.stride), self.widths[0]
        held = self.channels + sum(width * share**i for i, width in enumerate(self.widths))
        rows = d * h // math.prod(self.stride[:2])
        most = max(
            self.channels + width + self._unfolded(self.channels, d * h),
            self.channels + 2 * width + self._unfolded(width, d * h),
            held + share * ((5 + share) * self.refined + self._unfolded(self.refined, rows)),
            held + self.classes + self._unfolded(width, d * h),
            held + 6 * self.classes,
        )
        return int(SCRATCH * d * h * w * most * (2 if self.half else 4))

    def _unfolded(self, channels: int, rows: int) -> int:
        """Channels that torch adds on a CPU for a while: it unfolds a small input 27 times before it convolves it."""
        return 27 * channels if self.device.type == "cpu" and channels * rows <= UNFOLDED else 0

    def _run(self, image: NDArray[np.float32]) -> Tensor:
        """Logits (K, d, H, W) of one pass."""
        x = torch.from_numpy(image)[None].to(self.device, memory_format=torch.channels_last_3d)
        with torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext():
            logits: Tensor = self.module(x)[0]
        return logits

    @contextmanager
    def _running(self) -> Iterator[None]:
        """No gradients, the same kernels in every run, so many threads, and a sentence where memory is short."""
        same_kernels = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            with torch.inference_mode(), same_kernels:
                yield
        except (MemoryError, RuntimeError) as error:
            text = str(error)
            if isinstance(error, RuntimeError) and ("memory" not in text or "illegal" in text):
                raise
            raise MemoryError("the memory does not suffice for a pass; cut the scan into (thinner) slabs") from error
        finally:
            torch.set_num_threads(before)


class TorchEngine(TorchPasses):
    """A model ready to run.

    Args:
        model: Its card is kept as `card`.
        device, threads: As `TorchPasses`.

    Raises:
        ModelError: the weights do not fit the card.
        BrainSegNetError: there is no such device.
    """

    def __init__(self, model: "Model", device: str = "auto", threads: int | None = None) -> None:
        super().__init__(model.build(), device, threads)
        self.card: Card = model.card

    @staticmethod
    def of(net: BrainSegNet, device: str | None = None) -> TorchPasses:
        """A network without a card, as it is in training; it runs where its parameters lie, unless told otherwise."""
        return TorchPasses(net, device or str(next(net.parameters()).device))


def segment_prepared(net: BrainSegNet, prepared: Prepared, slabs: int | None = None) -> NDArray[np.uint8]:
    """Classes (d, h, w) of the brain box, from a network in memory; training validates with it."""
    return TorchEngine.of(net).classify(prepared.image, slabs)


def choose_device(name: str) -> torch.device:
    """`auto` or a name of torch's, such as `cpu`, `cuda` or `cuda:1`.

    Raises:
        BrainSegNetError: there is no such device.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BrainSegNetError(f"device {name} is not available here; use auto or cpu") from error
    return device


def fold_norms(net: BrainSegNet) -> BrainSegNet:
    """Fold, in place, each batch norm that follows a convolution in a sequence into it: the same function, less work.

    Those of the refinement follow a sum and stay.
    """
    for sequence in [module for module in net.modules() if isinstance(module, nn.Sequential)]:
        for i, (conv, norm) in enumerate(zip(list(sequence), list(sequence)[1:], strict=False)):
            if isinstance(conv, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d):
                sequence[i], sequence[i + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return net


def _cut(depth: int, slabs: int | None) -> Iterator[slice]:
    """The slices of each pass."""
    thickness = slabs or depth
    for start in slab_starts(depth, thickness):
        yield slice(start, min(start + thickness, depth))


def _adapters(net: BrainSegNet) -> list[nn.Conv3d]:
    return [module for module in net.adapt if isinstance(module, nn.Conv3d)]
