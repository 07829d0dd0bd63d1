"""The same function with fewer operations.

The finest refine unit and the classifier hold no non-linearity: classify(smooth(lateral(adapt(x)) + up(y))). So the
path of x is one 3x3x3 convolution from 32 channels to K, and the path of y one 3x3x3 convolution from 128 channels
to 4K at half the resolution, followed by a pixel shuffle. The bias of lateral . adapt goes into y, which is added to
the same sum, so the zero padding of smooth stays exact. The 128-channel maps at full resolution, the largest tensors of
all, are never made: for 4 sequences and 5 classes 1022 thousand multiply-adds per voxel become 575. The composed
kernels are computed from the weights at every call, so training gets the same saving and the same gradients.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainsegnet.network.architecture import BrainSegNet, RefineUnit, Stride, unpad


def collapse(net: BrainSegNet) -> "Collapsed":
    """A module that computes what `net` computes, from the same parameters, with fewer operations.

    >>> net = BrainSegNet(2, 3, (4, 4, 4, 4), 8).double().eval()
    >>> x = torch.randn(1, 2, 3, 9, 11, dtype=torch.double)
    >>> torch.allclose(collapse(net)(x), net(x))
    True
    """
    return Collapsed(net)


class Collapsed(nn.Module):
    """`net` with its finest refine unit and its classifier composed into two small convolutions."""

    def __init__(self, net: BrainSegNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Scans (N, C, D, H, W) to logits (N, K, D, H, W), as `BrainSegNet.forward`."""
        levels = self.net.levels(self.net.pad(x))
        kernel, bias, side, side_bias = self.composed()
        y = self.coarse(levels)
        y = y + side_bias.to(y.dtype)[:, None, None, None]
        coarse = F.conv3d(y, subpixel(kernel, self.net.stride), padding=1)
        fine = F.conv3d(levels[0], torch.einsum("kodhw,oi->kidhw", kernel, side), bias, padding=1)
        return unpad(fine + shuffle(coarse, self.net.stride), x)

    def coarse(self, levels: list[Tensor]) -> Tensor:
        """All of the refinement module but its finest unit: the refined map of block 2, (N, 128, D, H/2, W/2)."""
        net = self.net
        y: Tensor = net.top(net.adapt[-1](levels[-1]))
        for level, adapt, unit in reversed(list(zip(levels, net.adapt, net.refine, strict=False))[1:]):
            side, bias = chain(cast(nn.Conv3d, adapt), cast(RefineUnit, unit).lateral)
            y = cast(RefineUnit, unit).merge(F.conv3d(level, side[:, :, None, None, None], bias), y)
        return y

    def composed(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Classify . smooth as a kernel (K, 128, 3, 3, 3) and bias; lateral . adapt as a matrix (128, 32) and bias."""
        unit = cast(RefineUnit, self.net.refine[0])
        head, head_bias = matrix(self.net.classify)
        side, side_bias = chain(cast(nn.Conv3d, self.net.adapt[0]), unit.lateral)
        smooth, smooth_bias = unit.smooth.weight, cast(Tensor, unit.smooth.bias)
        kernel = torch.einsum("ko,oidhw->kidhw", head, smooth)
        return kernel, head @ smooth_bias + head_bias, side, side_bias


def matrix(conv: nn.Conv3d) -> tuple[Tensor, Tensor]:
    """A 1x1x1 convolution as a matrix (out, in) and a bias (out)."""
    return conv.weight[:, :, 0, 0, 0], cast(Tensor, conv.bias)


def chain(first: nn.Conv3d, second: nn.Conv3d) -> tuple[Tensor, Tensor]:
    """Two 1x1x1 convolutions, one after the other, as a matrix (out, in) and a bias (out)."""
    (a, a_bias), (b, b_bias) = matrix(first), matrix(second)
    return b @ a, b @ a_bias + b_bias


def subpixel(kernel: Tensor, stride: Stride) -> Tensor:
    """A 3x3x3 kernel on a map enlarged by repetition, as kernels on the map itself, one per sub-pixel.

    (K, C, 3, 3, 3) to (P * Q * R * K, C, 3, 3, 3) for a stride of (P, Q, R).
    """
    d, h, w = (taps(s, kernel.device).to(kernel) for s in stride)
    phases = torch.einsum("kidhw,pad,qbh,rcw->pqrkiabc", kernel, d, h, w)
    return phases.reshape(-1, *kernel.shape[1:])


def taps(stride: int, device: torch.device | None = None) -> Tensor:
    """Which coarse tap the three fine taps fall on, (sub-pixel, coarse tap, fine tap), along one axis.

    >>> taps(2)[0].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """
    phase, fine = torch.arange(stride, device=device)[:, None], torch.arange(3, device=device)[None]
    coarse = torch.div(phase + fine - 1, stride, rounding_mode="floor") + 1
    return F.one_hot(coarse, 3).transpose(1, 2).float()


def shuffle(x: Tensor, stride: Stride) -> Tensor:
    """Sub-pixels from channels to places: (N, P * Q * R * K, D, H, W) to (N, K, P * D, Q * H, R * W)."""
    (n, _, d, h, w), (p, q, r) = x.shape, stride
    return x.reshape(n, p, q, r, -1, d, h, w).permute(0, 4, 5, 1, 6, 2, 7, 3).reshape(n, -1, p * d, q * h, r * w)
