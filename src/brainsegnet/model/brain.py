"""The network that finds the brain in a raw scan: a small Brain SegNet on blocks of 2 x 2 x 2 voxels.

The eight voxels of a block are the channels of its input, and the eight logits of its output are those of these voxels.
So the first level works at 4 mm where voxels have 2 mm, and the boundary still has the resolution of the scan.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from brainsegnet.model.architecture import BrainSegNet, Stride, pad, unpad
from brainsegnet.model.fused import FusedDecoder, shuffle

BLOCK: Stride = (2, 2, 2)
"""Voxels (D, H, W) of a block."""
WIDTHS = (16, 32, 40, 32)
REFINED = 28


class BrainNet(nn.Module):
    """One sequence (N, 1, D, H, W) of any size to a logit of brain for every voxel.

    >>> round(sum(p.numel() for p in BrainNet().parameters()) / 1e6, 2)
    0.58
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, refined: int = REFINED) -> None:
        super().__init__()
        voxels = BLOCK[0] * BLOCK[1] * BLOCK[2]
        self.blocks = BrainSegNet(voxels, voxels, widths, refined, stride=BLOCK)
        self.learner = [FusedDecoder(self.blocks)]  # in a list, because it has no parameters beside those of `blocks`
        d, h, w = (b * m for b, m in zip(BLOCK, self.blocks.multiples, strict=True))
        self.multiples: Stride = (d, h, w)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, D, H, W) to logits (N, 1, D, H, W)."""
        padded = pad(x, self.multiples)
        return unpad(shuffle(self.learner[0](gather(padded, BLOCK)), BLOCK), x)


def gather(x: Tensor, block: Stride) -> Tensor:
    """Voxels of each block as channels: (N, 1, P * D, Q * H, R * W) to (N, P * Q * R, D, H, W).

    >>> import torch
    >>> x = torch.rand(2, 1, 4, 6, 8)
    >>> torch.equal(shuffle(gather(x, (2, 2, 2)), (2, 2, 2)), x)
    True
    """
    (n, _, d, h, w), (p, q, r) = x.shape, block
    parts = x.reshape(n, d // p, p, h // q, q, w // r, r)
    return parts.permute(0, 2, 4, 6, 1, 3, 5).reshape(n, p * q * r, d // p, h // q, w // r)
