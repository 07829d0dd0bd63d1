"""The network in torch: on a GPU, or on a CPU while it is in training; the arg-max is taken on the device."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np

from brainsegnet._machine import free_memory
from brainsegnet._types import Floats, Shape
from brainsegnet.errors import BrainSegNetError, MissingExtra
from brainsegnet.inference.components import CERTAIN
from brainsegnet.inference.tiling import Classes, estimate_floats, find_halo, interleave
from brainsegnet.preprocessing.prepare import Prepared, prepare
from brainsegnet.volume import Case

try:
    import torch
    from torch import Tensor, nn

    from brainsegnet.inference.torch_prepare import OnDevice, prepare_on
    from brainsegnet.model.architecture import BrainSegNet
    from brainsegnet.model.design import SMALLEST_SIDE, Design, peak_bytes
    from brainsegnet.model.fused import fuse
except ModuleNotFoundError as error:
    raise MissingExtra(
        f'{str(error.name).split(".")[0]} is not installed; run: pip install "brainsegnet[train]"'
    ) from error

SCRATCH = 1.1
"""What the convolutions take for themselves: the measured peaks are 0.87 to 1.14 times the sum of the maps."""
UNFOLDED = 20480
"""Torch convolves on a CPU without its lean kernels if channels x slices x rows are no more than this."""


class TorchBackend:
    """A network ready to run: fused, in bf16 on GPUs that have it.

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
        self.half = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        self.name = f"torch on {self.device}{', bf16' if self.half else ''}"
        fused = fuse(net).to(self.device, torch.bfloat16 if self.half else torch.float32)
        self.module = fused.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.classes, self.stride, self.multiples = net.classes, net.stride, fused.multiples
        self.widths, self.refined = net.widths, net.classify.in_channels
        self.channels, self.halo = net.sequences, find_halo(len(self.widths), net.stride[0])

    @classmethod
    def of(cls, net: BrainSegNet) -> "TorchBackend":
        """A network where its parameters lie, as it is in training."""
        return cls(net, str(next(net.parameters()).device))

    def prepare(self, case: Case) -> Prepared:
        """As `preprocessing.prepare`; a GPU does it, and keeps the image, if it has room for the whole scan."""
        if self.device.type != "cpu":
            try:
                return prepare_on(case, self.device)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
        return prepare(case)

    def classify(self, image: Floats) -> Classes:
        """Normalised intensities (C, D, H, W) to the likeliest class of each voxel (D, H, W).

        Raises:
            MemoryError: there is too little memory.
        """
        with _running(self.device, self.threads):
            likeliest = self._logits(image).argmax(1).to(torch.uint8)
            return np.asarray(interleave(likeliest, self.stride).cpu().numpy())

    def classify_with_confidence(self, image: Floats) -> Classes:
        """Classes, and the probability of not being background in 255 steps: (2, D, H, W); otherwise as `classify`."""
        with _running(self.device, self.threads):
            both = _labels_and_confidence(self._logits(image))
            return np.asarray(interleave(both, self.stride).cpu().numpy())

    def probabilities(self, image: Floats) -> Floats:
        """Soft-max probabilities (K, D, H, W); arguments and errors as `classify`."""
        with _running(self.device, self.threads):
            probabilities = self._logits(image).float().softmax(1).transpose(0, 1)
            return np.asarray(interleave(probabilities, self.stride).cpu().numpy())

    def estimate_bytes(self, shape: Shape) -> int:
        """About how much memory a pass over (D, H, W) voxels takes beside weights and libraries.

        On a CPU torch adds maps for a while: it unfolds a small input 27 times before it convolves it.
        """
        rows = shape[0] * shape[1]
        most = estimate_floats(self.channels, self.classes, self.widths, self.refined, self.stride)
        width = max(self.channels, self.widths[0])
        if self.device.type == "cpu" and width * rows <= UNFOLDED:
            most += 27 * width
        return int(SCRATCH * math.prod(shape) * most * (2 if self.half else 4))

    def free_bytes(self) -> int | None:
        """Memory that is free for a pass."""
        return _free_bytes(self.device)

    def _logits(self, image: Floats) -> Tensor:
        """(P * Q * R, K, d, h, w), the sub-pixels first."""
        lifted = image.tensor if isinstance(image, OnDevice) else torch.from_numpy(image)
        x = lifted[None].to(self.device, self.module.fine.weight.dtype)
        logits: Tensor = self.module(x.to(memory_format=torch.channels_last_3d))
        return logits[0].reshape(-1, self.classes, *logits.shape[2:])


class AnyNetwork:
    """A network of any design for `TiledPredictor`, with the numbers that it was trained in.

    Args:
        design: Of the network.
        net: In evaluation mode, on the device that is to compute.
        sequences: Channels in.
        classes: Channels out.
        halo: Slices on either side that a slice depends on. None is where that is not known, or where it is all of
            them, as where a norm takes its mean over the scan: slabs would change the result, so there are none.
    """

    def __init__(self, design: Design, net: nn.Module, sequences: int, classes: int, halo: int | None = None) -> None:
        self.design, self.net, self.run = design, net, design.runner(net)
        self.device = next(net.parameters()).device
        self.name, self.multiples = f"{design.name} in torch on {self.device}", design.multiples
        self.sequences, self.classes, self.halo = sequences, classes, sys.maxsize if halo is None else halo
        self.voxel_bytes = self._count_bytes()

    def on_cpu(self) -> "AnyNetwork":
        """The same network there."""
        with torch.random.fork_rng(devices=[]):
            net = self.design.build().eval()
        net.load_state_dict({name: tensor.cpu() for name, tensor in self.net.state_dict().items()})
        net = net.to(memory_format=self.design.layout)  # type: ignore[call-overload]
        return AnyNetwork(self.design, net, self.sequences, self.classes, self.halo)

    def classify(self, image: Floats) -> Classes:
        """Normalised intensities (C, D, H, W) to the likeliest class of each voxel (D, H, W).

        Raises:
            MemoryError: there is too little memory.
        """
        with _running(self.device):
            return np.asarray(self._logits(image).argmax(0).to(torch.uint8).cpu().numpy())

    def classify_with_confidence(self, image: Floats) -> Classes:
        """Classes, and the probability of not being background in 255 steps: (2, D, H, W); otherwise as `classify`."""
        with _running(self.device):
            return np.asarray(_labels_and_confidence(self._logits(image)[None])[:, 0].cpu().numpy())

    def probabilities(self, image: Floats) -> Floats:
        """Soft-max probabilities (K, D, H, W); arguments and errors as `classify`."""
        with _running(self.device):
            return np.asarray(self._logits(image).softmax(0).cpu().numpy())

    def estimate_bytes(self, shape: Shape) -> int:
        """About how much memory a pass over (D, H, W) voxels takes beside weights and libraries."""
        return int(SCRATCH * self.voxel_bytes * math.prod(shape))

    def free_bytes(self) -> int | None:
        """Memory that is free for a pass."""
        return _free_bytes(self.device)

    def _count_bytes(self) -> float:
        """Memory that a voxel takes of a pass, counted in a small one."""
        size = [m * math.ceil(SMALLEST_SIDE / m) for m in self.multiples]
        with _running(self.device):
            x = torch.zeros(1, self.sequences, *size, device=self.device).to(memory_format=self.design.layout)
            return (x.nbytes + peak_bytes(self.run, x)) / math.prod(size)

    def _logits(self, image: Floats) -> Tensor:
        x = torch.from_numpy(image)[None].to(self.device).to(memory_format=self.design.layout)
        return self.run(x)[0]


def _labels_and_confidence(logits: Tensor) -> Tensor:
    """Of logits (S, K, d, h, w): classes and confidence, (2, S, d, h, w) uint8."""
    lesion = 1 - logits.float().softmax(1)[:, 0]
    return torch.stack([logits.argmax(1).to(torch.uint8), (lesion * CERTAIN).round().to(torch.uint8)])


@contextmanager
def _running(device: torch.device, threads: int | None = None) -> Iterator[None]:
    """No gradients, the same kernels in every run, so many threads, and a sentence where memory is short."""
    same_kernels = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with torch.inference_mode(), same_kernels if device.type == "cuda" else nullcontext():
            yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, RuntimeError) and ("memory" not in text or "illegal" in text):
            raise
        raise MemoryError("the memory does not suffice for a pass; cut the scan into (thinner) slabs") from error
    finally:
        torch.set_num_threads(before)


def _free_bytes(device: torch.device) -> int | None:
    """On a GPU, also what torch keeps of earlier work and does not use."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return free_memory()


def has_gpu() -> bool:
    """Whether torch finds a GPU."""
    return torch.cuda.is_available()


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
