"""Backends in torch, on a GPU or a CPU: the fused network of this package, or any other network."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from brainsegnet._machine import free_memory, tells_of_memory
from brainsegnet._types import Array, Floats, Labels, Shape
from brainsegnet.errors import BrainSegNetError
from brainsegnet.inference.tiling import CONFIDENCE_STEPS, OUT_OF_MEMORY, estimate_floats, find_halo, interleave
from brainsegnet.model.store import torch_needed
from brainsegnet.preprocessing.prepare import Prepared, prepare
from brainsegnet.task import Normalisation
from brainsegnet.volume import Case

with torch_needed():
    import torch
    from torch import Tensor, nn

    from brainsegnet.inference.torch_prepare import OnDevice, prepare_on
    from brainsegnet.model.architecture import BrainSegNet
    from brainsegnet.model.fused import fuse
    from brainsegnet.model.network import SMALLEST_SIDE, Design, peak_bytes

SCRATCH = 1.1
"""Factor for the working memory of convolutions: measured peaks are 0.87 to 1.14 times the sum of the maps."""
UNFOLDED = 20480
"""On a CPU torch unfolds an input before it convolves it if channels x slices x rows are at most this."""


class _TorchNetwork:
    """What both backends share: classes and probabilities from logits at sub-pixels, taken on the device."""

    device: torch.device
    name: str
    threads: int | None = None
    stride: Shape = (1, 1, 1)
    plain = False
    """Whether torch computes without oneDNN, which failed: slower, and with more memory."""

    def classify(self, image: Floats) -> Labels:
        """As `Backend.classify`."""
        return self._run(image, lambda logits: logits.argmax(1).to(torch.uint8))

    def classify_with_confidence(self, image: Floats, certainty: bool = False) -> Labels:
        """As `Backend.classify_with_confidence`."""

        def grade(logits: Tensor) -> Tensor:
            soft = logits.float().softmax(1)
            maps = [1 - soft[:, 0], *([soft.amax(1)] if certainty else [])]
            steps = [(one * CONFIDENCE_STEPS).round().to(torch.uint8) for one in maps]
            return torch.stack([logits.argmax(1).to(torch.uint8), *steps])

        return self._run(image, grade)

    def probabilities(self, image: Floats) -> Floats:
        """As `Backend.probabilities`."""
        return self._run(image, lambda logits: logits.float().softmax(1).transpose(0, 1))

    def free_bytes(self) -> int | None:
        """As `Backend.free_bytes`; on a GPU with what torch keeps of earlier work."""
        if self.device.type == "cuda":
            unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            return int(torch.cuda.mem_get_info(self.device)[0]) + unused
        return free_memory()

    def _run(self, image: Floats, finish: Callable[[Tensor], Tensor]) -> Array:
        """The voxels of what `finish` makes of the logits. After a failure of oneDNN all goes on without it.

        A kernel that oneDNN could not create for lack of memory may be refused as long as the process lives.
        """
        try:
            with _running(self.device, self.threads, self.plain):
                subpixels = finish(self._logits(image))
                return np.asarray(interleave(subpixels, self.stride).cpu().numpy())
        except MemoryError as error:
            if self.plain or "primitive" not in str(error.__cause__):
                raise
        self.plain, self.name = True, f"{self.name}, without oneDNN"
        return self._run(image, finish)

    def _logits(self, image: Floats) -> Tensor:
        """Logits (P * Q * R, K, d, h, w) of an image (C, D, H, W), the sub-pixels first."""
        raise NotImplementedError


class TorchBackend(_TorchNetwork):
    """A `BrainSegNet` ready to run in torch: a fused copy, in bf16 on GPUs with units for it.

    On one device with one number of threads, the same image always gives the same result. `device` and errors are those
    of `choose_device`. Without `threads`, torch chooses their number.
    """

    def __init__(self, net: BrainSegNet, device: str = "auto", threads: int | None = None) -> None:
        self.device, self.threads = choose_device(device), threads
        self.half = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        self.name = f"torch on {self.device}{', bf16' if self.half else ''}"
        fused = fuse(net).to(self.device, torch.bfloat16 if self.half else torch.float32)
        self.module = fused.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.classes, self.stride, self.multiples = net.classes, net.stride, net.multiples
        self.halo = find_halo(len(net.widths), net.stride[0])
        self._widest = max(net.sequences, net.widths[0])
        self._floats = estimate_floats(net.sequences, net.classes, net.widths, net.classify.in_channels, net.stride)

    @classmethod
    def of(cls, net: BrainSegNet) -> "TorchBackend":
        """A network on the device of its parameters, as it is in training."""
        return cls(net, str(next(net.parameters()).device))

    def prepare(self, case: Case, normalisation: Normalisation = "median-sd") -> Prepared:
        """Prepare a case, on the GPU if it has room for the whole scan. The image then stays there."""
        if self.device.type != "cpu":
            try:
                return prepare_on(case, self.device, normalisation)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
        return prepare(case, normalisation)

    def estimate_bytes(self, shape: Shape) -> int:
        """As `Backend.estimate_bytes`; on a CPU torch unfolds a small input, and without oneDNN each, 27-fold."""
        unfolds = self.device.type == "cpu" and (self.plain or self._widest * shape[0] * shape[1] <= UNFOLDED)
        floats = self._floats + 27 * self._widest * unfolds
        return int(SCRATCH * math.prod(shape) * floats * (2 if self.half else 4))

    def _logits(self, image: Floats) -> Tensor:
        tensor = image.tensor if isinstance(image, OnDevice) else torch.from_numpy(image)
        x = tensor[None].to(self.device, self.module.fine.weight.dtype)
        logits: Tensor = self.module(x.to(memory_format=torch.channels_last_3d))
        return logits[0].reshape(-1, self.classes, *logits.shape[2:])


class AnyNetwork(_TorchNetwork):
    """A network of any design, in the number type in which it was trained.

    Args:
        design: Design of the network.
        net: The network in evaluation mode, on the device that computes.
        sequences: Number of channels in.
        classes: Number of channels out.
        halo: Number of slices on either side on which a slice depends. None if it is not known or is the whole scan, as
            with a norm over the scan. Then the scan is never cut, because slabs would change the result.
    """

    def __init__(self, design: Design, net: nn.Module, sequences: int, classes: int, halo: int | None = None) -> None:
        self.design, self.net, self.run = design, net, design.runner(net)
        self.device = next(net.parameters()).device
        self.name, self.multiples = f"{design.name} in torch on {self.device}", design.multiples
        self.sequences, self.classes, self.halo = sequences, classes, sys.maxsize if halo is None else halo
        size = [m * math.ceil(SMALLEST_SIDE / m) for m in self.multiples]
        with _running(self.device):
            x = torch.zeros(1, sequences, *size, device=self.device).to(memory_format=design.layout)
            self._bytes_per_voxel = (x.nbytes + peak_bytes(self.run, x)) / math.prod(size)

    def on_cpu(self) -> "AnyNetwork":
        """A copy of the network on the CPU."""
        with torch.random.fork_rng(devices=[]):
            net = self.design.build().eval()
        net.load_state_dict({name: tensor.cpu() for name, tensor in self.net.state_dict().items()})
        net = net.to(memory_format=self.design.layout)  # type: ignore[call-overload]
        return AnyNetwork(self.design, net, self.sequences, self.classes, self.halo)

    def estimate_bytes(self, shape: Shape) -> int:
        """As `Backend.estimate_bytes`, from the peak memory with a small image."""
        return int(SCRATCH * self._bytes_per_voxel * math.prod(shape))

    def _logits(self, image: Floats) -> Tensor:
        return self.run(torch.from_numpy(image)[None].to(self.device).to(memory_format=self.design.layout))


@contextmanager
def _running(device: torch.device, threads: int | None = None, plain: bool = False) -> Iterator[None]:
    """No gradients, deterministic kernels, a number of threads, and a sentence where memory is short.

    Args:
        device: Device that computes.
        threads: Number of threads; None leaves it as it is.
        plain: Compute without oneDNN.
    """
    same_kernels = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with (
            torch.inference_mode(),
            same_kernels if device.type == "cuda" else nullcontext(),
            _without_onednn() if plain else nullcontext(),
        ):
            yield
    except (MemoryError, RuntimeError) as error:
        if not tells_of_memory(error):
            raise
        raise MemoryError(OUT_OF_MEMORY) from error
    finally:
        torch.set_num_threads(before)


@contextmanager
def _without_onednn() -> Iterator[None]:
    """As `torch.backends.mkldnn.flags`, which also sets what makes torch warn."""
    mkldnn: Any = torch.backends.mkldnn
    before = mkldnn.enabled
    mkldnn.enabled = False
    try:
        yield
    finally:
        mkldnn.enabled = before


def choose_device(name: str) -> torch.device:
    """The device for a name: "auto", or a name of torch such as "cpu", "cuda" or "cuda:1".

    Raises:
        BrainSegNetError: there is no such device.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BrainSegNetError(f"device {name} is not available here; use auto or cpu") from error
    return device
