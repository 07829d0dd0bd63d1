"""The network with fewer operations: the same function in training, and the fused network that runs on whole scans.

The finest refine unit and the classifier contain no non-linearity: classify(smooth(lateral(adapt(x)) + up(y))). They
can therefore be composed, a step that is specific to this network and is called the collapse here. The path of x
becomes one 3x3x3 convolution from 32 channels to K. The path of y becomes one from 128 channels to 4K at half the
resolution, followed by a pixel shuffle. The bias of lateral . adapt is added to y, so the zero padding of smooth stays
exact. The maps of 128 channels at full resolution, the largest tensors of all, are never made.

`FusedDecoder` composes these kernels from the weights at every call, so a training has the same gradients. `FusedNet`
is composed once, after the training: batch norms are also fused into the convolutions before them, and each adapt and
lateral into one. Its logits come out at sub-pixels, so the arg-max can be taken before the pixel shuffle. For 4
sequences and 5 classes, 1022 thousand multiply-adds per voxel become 575 and 578 thousand.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from brainsegnet.model.architecture import BrainSegNet, ConvNormReLU, RefineUnit, ResBlock, Stride, pad, unpad


class FusedDecoder(nn.Module):
    """A module that computes what `net` computes, from the same parameters, with fewer operations.

    The finest refine unit and the classifier are composed into two small convolutions.
    """

    def __init__(self, net: BrainSegNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Scans (N, C, D, H, W) to logits (N, K, D, H, W), as `BrainSegNet.forward`."""
        levels = self.net.levels(pad(x, self.net.multiples))
        kernel, bias, side, side_bias = self.compose()
        y = self.coarse(levels)
        y = y + side_bias.to(y.dtype)[:, None, None, None]
        coarse = F.conv3d(y, subpixel(kernel, self.net.stride), padding=1)
        fine = F.conv3d(levels[0], torch.einsum("kodhw,oi->kidhw", kernel, side), bias, padding=1)
        return unpad(fine + shuffle(coarse, self.net.stride), x)

    def coarse(self, levels: list[Tensor]) -> Tensor:
        """The refinement module without its finest unit: the refined map of block 2, (N, 128, D, H/2, W/2)."""
        net = self.net
        y: Tensor = net.top(net.adapt[-1](levels[-1]))
        for level, adapt, unit in reversed(list(zip(levels, net.adapt, net.refine, strict=False))[1:]):
            side, bias = chain(cast(nn.Conv3d, adapt), cast(RefineUnit, unit).lateral)
            y = cast(RefineUnit, unit).merge(F.conv3d(level, side[:, :, None, None, None], bias), y)
        return y

    def compose(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Classify . smooth as a kernel (K, 128, 3, 3, 3) and bias; lateral . adapt as a matrix (128, 32) and bias."""
        unit = cast(RefineUnit, self.net.refine[0])
        classify, classify_bias = matrix(self.net.classify)
        side, side_bias = chain(cast(nn.Conv3d, self.net.adapt[0]), unit.lateral)
        smooth, smooth_bias = unit.smooth.weight, cast(Tensor, unit.smooth.bias)
        kernel = torch.einsum("ko,oidhw->kidhw", classify, smooth)
        return kernel, classify @ smooth_bias + classify_bias, side, side_bias


def matrix(conv: nn.Conv3d) -> tuple[Tensor, Tensor]:
    """A 1x1x1 convolution as a matrix (out, in) and a bias (out)."""
    return conv.weight[:, :, 0, 0, 0], cast(Tensor, conv.bias)


def chain(first: nn.Conv3d, second: nn.Conv3d) -> tuple[Tensor, Tensor]:
    """Two consecutive 1x1x1 convolutions as one matrix (out, in) and bias (out)."""
    (a, a_bias), (b, b_bias) = matrix(first), matrix(second)
    return b @ a, b @ a_bias + b_bias


def subpixel(kernel: Tensor, stride: Stride) -> Tensor:
    """A 3x3x3 kernel for a map up-sampled by repetition, as one kernel for the map itself per sub-pixel.

    (K, C, 3, 3, 3) to (P * Q * R * K, C, 3, 3, 3) for a stride of (P, Q, R).
    """
    d, h, w = (taps(s, kernel.device).to(kernel) for s in stride)
    phases = torch.einsum("kidhw,pad,qbh,rcw->pqrkiabc", kernel, d, h, w)
    return phases.reshape(-1, *kernel.shape[1:])


def taps(stride: int, device: torch.device | None = None) -> Tensor:
    """Which coarse tap the three fine taps fall on, (sub-pixel, coarse tap, fine tap), along one axis."""
    phase, fine = torch.arange(stride, device=device)[:, None], torch.arange(3, device=device)[None]
    coarse = torch.div(phase + fine - 1, stride, rounding_mode="floor") + 1
    return F.one_hot(coarse, 3).transpose(1, 2).float()


def strided(kernel: Tensor, stride: Stride) -> Tensor:
    """A 3x3x3 kernel as longer kernels that step by `stride` and give the sub-pixels of each step.

    (K, C, 3, 3, 3) to (P * Q * R * K, C, P + 2, Q + 2, R + 2), with a padding of 1 in both cases.
    """
    d, h, w = (torch.stack([torch.eye(s + 2)[:, phase : phase + 3] for phase in range(s)]).to(kernel) for s in stride)
    phases = torch.einsum("kidhw,pad,qbh,rcw->pqrkiabc", kernel, d, h, w)
    return phases.reshape(-1, *phases.shape[4:])


def shuffle(x: Tensor, stride: Stride) -> Tensor:
    """Sub-pixels from channels to their places: (N, P * Q * R * K, D, H, W) to (N, K, P * D, Q * H, R * W)."""
    (n, _, d, h, w), (p, q, r) = x.shape, stride
    return x.reshape(n, p, q, r, -1, d, h, w).permute(0, 4, 5, 1, 6, 2, 7, 3).reshape(n, -1, p * d, q * h, r * w)


def fuse(net: BrainSegNet) -> "FusedNet":
    """A copy of `net` in evaluation mode with the fewest operations; `net` is not changed."""
    with torch.no_grad():
        return FusedNet(copy.deepcopy(net).eval())


class FusedNet(nn.Module):
    """`net` without its batch norms and its finest refine unit; it takes over and changes parts of `net`.

    The sizes (D, H, W) of an input to `forward` must be multiples of `multiples`.
    """

    def __init__(self, net: BrainSegNet) -> None:
        super().__init__()
        self.stride, self.multiples = net.stride, net.multiples
        self.classes, self.sequences = net.classes, net.sequences
        self.blocks = nn.ModuleList(nn.Sequential(*map(_fold, cast(nn.Sequential, block))) for block in net.blocks)
        self.sides, self.smooths = nn.ModuleList(), nn.ModuleList()
        for side, norm, smooth in _list_units(net):
            if isinstance(norm, nn.Sequential):
                batch_norm = cast(nn.BatchNorm3d, norm[0])
                side = _scale(side, batch_norm)
                if self.smooths:
                    self.smooths[-1] = _scale(cast(nn.Conv3d, self.smooths[-1]), batch_norm, shift=False)
            self.sides.append(side)
            self.smooths.append(smooth)
        self.activate = nn.ReLU() if isinstance(net.top[0], nn.Sequential) else nn.Identity()
        self._compose_finest(net)
        self.requires_grad_(False).eval()

    def _compose_finest(self, net: BrainSegNet) -> None:
        kernel, bias, side, side_bias = FusedDecoder(net).compose()
        last = cast(nn.Conv3d, self.smooths[-1])
        last.bias = nn.Parameter(cast(Tensor, last.bias) + side_bias)
        self.coarse = _build_conv(subpixel(kernel, self.stride), None, padding=1)
        fine = strided(torch.einsum("kodhw,oi->kidhw", kernel, side), self.stride)
        self.fine = _build_conv(fine, bias.repeat(len(fine) // self.classes), padding=1, stride=self.stride)

    def forward(self, x: Tensor) -> Tensor:
        """Scans (N, C, D, H, W) whose sizes are multiples of `multiples` to logits at sub-pixels.

        (N, P * Q * R * K, D / P, H / Q, W / R) for a stride of (P, Q, R), the classes of a sub-pixel side by side.
        """
        levels = []
        for block in self.blocks:
            x = block(x)
            levels.append(x)
        y = self.smooths[0](self.activate(self.sides[0](levels.pop())))
        for side, smooth in zip(list(self.sides)[1:], list(self.smooths)[1:], strict=True):
            up = F.interpolate(y, scale_factor=[float(s) for s in self.stride], mode="nearest")
            y = smooth(self.activate(side(levels.pop()) + up))
        result: Tensor = self.fine(levels.pop()) + self.coarse(y)
        return result

    def logits(self, x: Tensor) -> Tensor:
        """Scans (N, C, D, H, W) of any size to logits (N, K, D, H, W), as `BrainSegNet.forward`."""
        return unpad(shuffle(self(pad(x, self.multiples)), self.stride), x)


class FoldedResBlock(nn.Module):
    """A residual block without its batch norms."""

    def __init__(self, block: ResBlock) -> None:
        super().__init__()
        self.first = _fold(block.first)
        conv, norm = block.second
        self.second = fuse_conv_bn_eval(cast(nn.Conv3d, conv), cast(nn.BatchNorm3d, norm))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, D, H, W) to the same shape."""
        return F.relu(x + self.second(self.first(x)))


def _fold(module: nn.Module) -> nn.Module:
    """A part of a block without its batch norms."""
    if isinstance(module, ConvNormReLU):
        conv, norm, relu = module
        return nn.Sequential(fuse_conv_bn_eval(cast(nn.Conv3d, conv), cast(nn.BatchNorm3d, norm)), relu)
    return FoldedResBlock(cast(ResBlock, module))


def _list_units(net: BrainSegNet) -> Iterator[tuple[nn.Conv3d, nn.Module, nn.Conv3d]]:
    """The units of the refinement module, the coarsest first, without the finest.

    Of each the 1x1x1 convolutions as one, what follows the sum of two maps, and the 3x3x3 convolution.
    """
    adapts = [cast(nn.Conv3d, module) for module in net.adapt]
    yield adapts[-1], net.top[0], cast(nn.Conv3d, net.top[1])
    for adapt, module in reversed(list(zip(adapts, net.refine, strict=False))[1:]):
        unit = cast(RefineUnit, module)
        weight, bias = chain(adapt, unit.lateral)
        yield _build_conv(weight[:, :, None, None, None], bias), unit.norm, unit.smooth


def _scale(conv: nn.Conv3d, norm: nn.BatchNorm3d, shift: bool = True) -> nn.Conv3d:
    """`conv` and the batch norm after it as one; without `shift`, another summand carries the norm's shift."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    bias = cast(Tensor, conv.bias) * scale
    if shift:
        bias = bias + norm.bias - mean * scale
    return _build_conv(conv.weight * scale[:, None, None, None, None], bias, padding=cast(int, conv.padding[0]))


def _build_conv(weight: Tensor, bias: Tensor | None, padding: int = 0, stride: Sequence[int] = (1, 1, 1)) -> nn.Conv3d:
    (out, channels), kernel = weight.shape[:2], tuple(weight.shape[2:])
    step = (stride[0], stride[1], stride[2])
    with torch.device("meta"):
        conv = nn.Conv3d(channels, out, kernel, step, padding=padding, bias=bias is not None)  # type: ignore[arg-type]
    conv.weight = nn.Parameter(weight.contiguous())
    conv.bias = None if bias is None else nn.Parameter(bias)
    return conv
