"""Networks of others to compare with, as MONAI makes them, each padded to sizes that it takes.

Their published defaults, but for what makes them fit samples of few slices. V-Net's drop-out, which its authors did
not use, is off: in a short training it only costs accuracy.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from brainsegnet.errors import MissingExtra, TaskError
from brainsegnet.network.architecture import IN_PLANE, Stride, unpad
from brainsegnet.network.design import Design

try:
    from monai.networks.nets.dynunet import DynUNet
    from monai.networks.nets.segresnet import SegResNet
    from monai.networks.nets.unet import UNet
    from monai.networks.nets.vnet import VNet
except ModuleNotFoundError as error:
    raise MissingExtra(
        f'{str(error.name).split(".")[0]} is not installed; run: pip install "brainsegnet[compare]"'
    ) from error

SMALLEST = 4
"""nnU-Net halves an axis as long as no fewer voxels than these are left."""
FILTERS = (32, 64, 128, 256, 320)
"""nnU-Net's channels; deeper stages keep the last."""
VNET_CHANNELS = (1, 2, 4, 8, 16)
"""V-Net repeats its input until it has 16 channels."""

Spacing = tuple[float, float, float]
Maker = Callable[[int, int, Stride, Spacing], Design]


class Padded(nn.Module):
    """`net` on any size: zeros at the far ends, and their logits cut off.

    Args:
        net: Takes sizes (D, H, W) that are multiples of `multiples`.
        multiples: See `net`.
        channels: Channels that it takes; those beyond the sequences are zeros. None is as many as there are sequences.
    """

    def __init__(self, net: nn.Module, multiples: Stride, channels: int | None = None) -> None:
        super().__init__()
        self.net, self.multiples, self.channels = net, multiples, channels

    def forward(self, x: Tensor) -> Tensor:
        """Scans (N, C, D, H, W) to logits (N, K, D, H, W)."""
        missing = [-n % m for n, m in zip(x.shape[2:], self.multiples, strict=True)]
        missing.insert(0, (self.channels or x.shape[1]) - x.shape[1])
        logits = self.net(F.pad(x, [p for m in reversed(missing) for p in (0, m)]) if any(missing) else x)
        return unpad(logits, x)


def peer(name: str, sequences: int, classes: int, patch: Stride, spacing_mm: Spacing) -> Design:
    """A network of others by name.

    Args:
        name: One of `PEERS`.
        sequences: Channels in.
        classes: Channels out.
        patch: Training sample (D, H, W), which shapes DynUNet.
        spacing_mm: Of the scans (D, H, W), which shapes DynUNet too.

    Raises:
        TaskError: it does not take so many sequences.
    """
    return PEERS[name](sequences, classes, patch, spacing_mm)


def unet(sequences: int, classes: int, patch: Stride, spacing_mm: Spacing) -> Design:
    """UNet with 32 to 256 channels, slices kept, two residual units a stage, batch norm."""
    strides: Any = [IN_PLANE] * 3
    multiples = (1, 8, 8)
    return Design(
        "unet",
        lambda: Padded(UNet(3, sequences, classes, FILTERS[:4], strides, num_res_units=2, norm="batch"), multiples),
        multiples=multiples,
    )


def vnet(sequences: int, classes: int, patch: Stride, spacing_mm: Spacing) -> Design:
    """V-Net with 16 to 256 channels; it halves all axes four times.

    Raises:
        TaskError: more sequences than it takes.
    """
    channels = next((n for n in VNET_CHANNELS if n >= sequences), None)
    if channels is None:
        raise TaskError(f"V-Net takes up to {VNET_CHANNELS[-1]} sequences, not {sequences}; leave vnet out")
    multiples = (16, 16, 16)
    return Design(
        "vnet",
        lambda: Padded(
            VNet(3, channels, classes, dropout_prob_down=None, dropout_prob_up=(None, 0.0)), multiples, channels
        ),
        multiples=multiples,
        channels_last=False,
    )


def segresnet(sequences: int, classes: int, patch: Stride, spacing_mm: Spacing) -> Design:
    """SegResNet with 16 to 128 channels; it halves all axes three times."""
    multiples = (8, 8, 8)
    return Design(
        "segresnet",
        lambda: Padded(SegResNet(3, init_filters=16, in_channels=sequences, out_channels=classes), multiples),
        multiples=multiples,
    )


def dynunet(sequences: int, classes: int, patch: Stride, spacing_mm: Spacing) -> Design:
    """DynUNet in the shape that nnU-Net plans for such samples: 32 to 320 channels, instance norm."""
    strides, kernels = plan_stages(patch, spacing_mm)
    filters = [*FILTERS, *[FILTERS[-1]] * len(strides)][: len(strides)]
    d, h, w = (2 ** sum(stride[axis] == 2 for stride in strides) for axis in range(3))
    return Design(
        "dynunet",
        lambda: Padded(
            DynUNet(3, sequences, classes, kernels, strides, strides[1:], filters=filters, norm_name="instance"),
            (d, h, w),
        ),
        multiples=(d, h, w),
    )


PEERS: Mapping[str, Maker] = {"unet": unet, "vnet": vnet, "segresnet": segresnet, "dynunet": dynunet}


def plan_stages(patch: Sequence[int], spacing_mm: Sequence[float]) -> tuple[list[Stride], list[Stride]]:
    """Strides and kernels of the stages that nnU-Net gives to samples of this size (Isensee et al. 2021).

    An axis is halved while it has twice `SMALLEST` voxels and its voxels are less than twice as long as the shortest;
    its kernels are 1 as long as its voxels are longer than that.

    >>> strides, kernels = plan_stages((24, 96, 96), (1.0, 1.0, 1.0))
    >>> strides
    [(1, 1, 1), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2)]
    >>> plan_stages((16, 64, 64), (6.5, 1.0, 1.0))[1]
    [(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)]
    """
    size, spacing, kernel = list(patch), list(spacing_mm), [1, 1, 1]
    strides, kernels = [[1, 1, 1]], []
    while True:
        large = [axis for axis in range(3) if size[axis] >= 2 * SMALLEST]
        halved = [axis for axis in large if spacing[axis] < 2 * min(spacing[a] for a in large)]
        if not halved or (len(halved) == 1 and size[halved[0]] < 3 * SMALLEST):
            break
        kernel = [3 if spacing[axis] < 2 * min(spacing) else kernel[axis] for axis in range(3)]
        kernels.append(kernel)
        strides.append([2 if axis in halved else 1 for axis in range(3)])
        spacing = [mm * stride for mm, stride in zip(spacing, strides[-1], strict=True)]
        size = [-(-n // stride) for n, stride in zip(size, strides[-1], strict=True)]
    return [_triple(stride) for stride in strides], [_triple(k) for k in [*kernels, [3, 3, 3]]]


def _triple(values: Sequence[int]) -> Stride:
    d, h, w = values
    return d, h, w
