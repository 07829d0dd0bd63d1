"""Brain SegNet on one page: Figures 2 and 3 of Hu et al., BMC Medical Imaging 20:17 (2020).

x ── block 1 ────── block 2 ────── block 3 ────── block 4       32, 64, 128, 256 channels; 1, 1/2, 1/4, 1/8
     │              │              │              │
     adapt          adapt          adapt          adapt         1x1x1 to 128 channels
     │              │              │              │
     refine 1 ─ up ─ refine 2 ─ up ─ refine 3 ─ up ─ top        1x1x1, sum with the coarser map, 3x3x3
     │
     classify                                                   1x1x1 to K classes
"""

import itertools
import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

Stride = tuple[int, int, int]
IN_PLANE: Stride = (1, 2, 2)
"""The paper keeps the third dimension ("only down-sample in spatial domain"): rows and columns halve, slices do not."""


class BrainSegNet(nn.Module):
    """Brain SegNet: four residual blocks and the 3-D refinement module (the paper's Figures 2 and 3).

    The finest refine unit is linear in either case, so that `model.fused` can replace it by fewer operations.

    Args:
        sequences: Channels of the input, one for each MRI sequence.
        classes: Channels of the output, including the background.
        widths: Channels of the four blocks; the paper's are (32, 64, 128, 256).
        refined: Channels of the refinement module; the paper's are 128.
        stride: Down-sampling (D, H, W) between blocks.
        nonlinear: Whether the sums of the coarser refine units have batch norm and ReLU. False is the linear reading.

    Examples:
        >>> net = BrainSegNet(sequences=4, classes=5)
        >>> sum(isinstance(m, nn.Conv3d) for m in net.blocks.modules())
        17
        >>> round(sum(p.numel() for p in net.parameters()) / 1e6, 1)
        12.4
    """

    def __init__(
        self,
        sequences: int,
        classes: int,
        widths: Sequence[int] = (32, 64, 128, 256),
        refined: int = 128,
        stride: Stride = IN_PLANE,
        nonlinear: bool = True,
    ) -> None:
        super().__init__()
        self.sequences, self.classes, self.widths, self.stride = sequences, classes, tuple(widths), stride
        self.multiples = find_multiples(stride, len(widths))
        first = nn.Sequential(ConvNormReLU(sequences, widths[0]), ConvNormReLU(widths[0], widths[0]))
        pairs = itertools.pairwise(widths)
        deeper = [nn.Sequential(ConvNormReLU(a, b, stride), ResBlock(b), ResBlock(b)) for a, b in pairs]
        self.blocks = nn.ModuleList([first, *deeper])
        self.adapt = nn.ModuleList(nn.Conv3d(width, refined, 1) for width in widths)
        self.top = nn.Sequential(norm_relu(refined, nonlinear), nn.Conv3d(refined, refined, 3, padding=1))
        coarser = [RefineUnit(refined, stride, nonlinear) for _ in widths[2:]]
        self.refine = nn.ModuleList([RefineUnit(refined, stride, nonlinear=False), *coarser])
        self.classify = nn.Conv3d(refined, classes, 1)
        self.apply(initialise)
        nn.init.normal_(self.classify.weight, std=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Scans (N, C, D, H, W) of any size to logits (N, K, D, H, W); zero padding is added and cut off again."""
        levels = self.levels(pad(x, self.multiples))
        y: Tensor = self.top(self.adapt[-1](levels[-1]))
        for level, adapt, unit in reversed(list(zip(levels, self.adapt, self.refine, strict=False))):
            y = unit(adapt(level), y)
        return unpad(self.classify(y), x)

    def levels(self, x: Tensor) -> list[Tensor]:
        """The maps (N, C, D, H, W) of the four blocks, finest first, of a batch (N, C, D, H, W)."""
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps


class RefineUnit(nn.Module):
    """Refine unit (Figure 3b): 1x1x1 convolution of the finer map, plus the coarser map up-sampled, then 3x3x3."""

    def __init__(self, channels: int, stride: Stride, nonlinear: bool) -> None:
        super().__init__()
        self.stride = stride
        self.lateral = nn.Conv3d(channels, channels, 1)
        self.norm = norm_relu(channels, nonlinear)
        self.smooth = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, finer: Tensor, coarser: Tensor) -> Tensor:
        """(N, C, D, H, W) and the map of the next block to (N, C, D, H, W)."""
        return self.merge(self.lateral(finer), coarser)

    def merge(self, side: Tensor, coarser: Tensor) -> Tensor:
        """The unit after its 1x1x1 convolution, whose result is `side`."""
        up = F.interpolate(coarser, scale_factor=[float(s) for s in self.stride], mode="nearest")
        refined: Tensor = self.smooth(self.norm(side + up))
        return refined


class ResBlock(nn.Module):
    """Residual block: two convolutions with a shortcut (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNormReLU(channels, channels)
        self.second = nn.Sequential(nn.Conv3d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm3d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, D, H, W) to the same shape."""
        return F.relu(x + self.second(self.first(x)))


class ConvNormReLU(nn.Sequential):
    """3x3x3 convolution, batch norm, ReLU."""

    def __init__(self, channels: int, out: int, stride: Stride = (1, 1, 1)) -> None:
        super().__init__(
            nn.Conv3d(channels, out, 3, stride, padding=1, bias=False), nn.BatchNorm3d(out), nn.ReLU(inplace=True)
        )


def norm_relu(channels: int, nonlinear: bool) -> nn.Module:
    """Batch norm and ReLU, or the identity."""
    return nn.Sequential(nn.BatchNorm3d(channels), nn.ReLU(inplace=True)) if nonlinear else nn.Identity()


def initialise(module: nn.Module) -> None:
    """Weights after He et al. before a ReLU, variance-preserving in the linear refinement; biases are zero."""
    if isinstance(module, nn.Conv3d):
        gain = math.sqrt(2) if module.bias is None else 1.0
        fan_in = module.weight[0].numel()
        nn.init.normal_(module.weight, std=gain / math.sqrt(fan_in))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def find_multiples(stride: Stride, blocks: int) -> Stride:
    """The sizes whose multiples all blocks can halve: (1, 8, 8) for the paper's network."""
    d, h, w = (s ** (blocks - 1) for s in stride)
    return d, h, w


def pad(x: Tensor, multiples: Stride) -> Tensor:
    """`x` (N, C, D, H, W) with zeros at the far ends, up to the next multiples of the sizes."""
    missing = [-n % m for n, m in zip(x.shape[2:], multiples, strict=True)]
    return F.pad(x, [p for m in reversed(missing) for p in (0, m)]) if any(missing) else x


def unpad(y: Tensor, x: Tensor) -> Tensor:
    """`y` (N, K, ...) cut to the size of `x` (N, C, D, H, W)."""
    d, h, w = x.shape[2:]
    return y[..., :d, :h, :w]
