"""Focal loss (the paper's equation, after Lin et al. 2017) and soft Dice loss; small lesions may weigh more.

Sums and batch statistics cover all processes, so a training in several processes computes the same as one process.
PyTorch's SyncBatchNorm serves GPUs only; `GlobalBatchNorm3d` also serves CPUs.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
import torch.nn.functional as F
from torch import Tensor, nn

from brainsegnet.training.recipes import Recipe, Stage

AROUND = (5, 9, 9)
"""Voxels (D, H, W) of the box in which a lesion counts as small."""
Regions = Sequence[Sequence[int]]
"""The classes that each region unites."""


def loss_of(logits: Tensor, classes: Tensor, recipe: Recipe, stage: Stage, regions: Regions = ()) -> Tensor:
    """Loss of a stage: focal loss, weighted if the recipe favours small lesions, plus the recipe's share of soft Dice.

    Args:
        logits: (N, K, D, H, W).
        classes: True classes 0 to K-1, (N, D, H, W).
        recipe: Weights of the parts.
        stage: Gives the focusing parameter.
        regions: Classes of each region of the Dice loss; empty means each lesion class.
    """
    weights = weigh_small_lesions(classes, recipe.small_lesion_power) if recipe.small_lesion_power else None
    loss = focal_loss(logits, classes, stage.gamma, weights)
    return loss + recipe.dice * dice_loss(logits, classes, regions) if recipe.dice else loss


def focal_loss(logits: Tensor, classes: Tensor, gamma: float = 2.0, weights: Tensor | None = None) -> Tensor:
    """Focal loss: mean over voxels of -(1 - p_t)^gamma log p_t, with p_t the soft-max probability of the true class.

    Args:
        logits: (N, K, D, H, W).
        classes: True classes 0 to K-1, (N, D, H, W).
        gamma: Focusing parameter; 0 is cross entropy.
        weights: Factor on each voxel, (N, D, H, W).

    Examples:
        >>> import math
        >>> z, y = torch.zeros(1, 4, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.long)
        >>> round(focal_loss(z, y, 0).item() / math.log(4), 6), round(focal_loss(z, y, 2).item() / math.log(4), 6)
        (1.0, 0.5625)
    """
    cross_entropy = F.cross_entropy(logits.float(), classes.long(), reduction="none")
    loss = cross_entropy if weights is None else weights * cross_entropy
    if gamma == 0:
        return loss.mean()
    return ((1 - torch.exp(-cross_entropy)).clamp_min(1e-6) ** gamma * loss).mean()


def weigh_small_lesions(classes: Tensor, power: float) -> Tensor:
    """Factor on each voxel (N, D, H, W): 1 in the background, and larger in a lesion the smaller the lesion is.

    In a lesion it is the share of lesion in the box of `AROUND` voxels, to the power of minus `power`. At a power of
    0.5 it is 1 within a large lesion, and about 6 in a lesion of ten voxels. All tissues count as lesion; voxels beyond
    the sample do not count.

    Examples:
        >>> dots = torch.zeros(1, 9, 9, 9, dtype=torch.long)
        >>> dots[0, 4, 4, 4] = 1
        >>> weigh_small_lesions(dots, 0.5)[0, 4, 4, 3:5].tolist()
        [1.0, 20.12461280822754]
    """
    lesion = (classes > 0).float().unsqueeze(1)
    share = lesion
    for axis, extent in enumerate(AROUND):
        odd = min(extent, classes.shape[axis + 1] - 1 + classes.shape[axis + 1] % 2)
        window = [odd if k == axis else 1 for k in range(3)]
        share = F.avg_pool3d(share, window, 1, [n // 2 for n in window], count_include_pad=False)
    return torch.where(lesion > 0, share.clamp_min(1 / math.prod(AROUND)) ** -power, 1.0).squeeze(1)


def dice_loss(logits: Tensor, classes: Tensor, regions: Regions = ()) -> Tensor:
    """Soft Dice loss: 1 minus the soft Dice of the regions, over the whole batch of all processes.

    Only regions that occur in the batch count. Otherwise any voxel of an absent region would cost as much as a missed
    lesion, and rare tissues would be found too seldom.

    Args:
        logits: (N, K, D, H, W).
        classes: True classes 0 to K-1, (N, D, H, W).
        regions: Classes of each region; empty means each lesion class.
    """
    regions = regions or [[k] for k in range(1, logits.shape[1])]
    rows = [[float(k in region) for k in range(logits.shape[1])] for region in regions]
    members = torch.tensor(rows).to(logits.device, non_blocking=True)
    truth = F.one_hot(classes.long(), logits.shape[1]).movedim(-1, 1).to(members)
    found, true = (torch.einsum("nkdhw,rk->rndhw", x, members).flatten(1) for x in (logits.float().softmax(1), truth))
    overlap, sizes, present = all_sum(torch.stack([(found * true).sum(1), (found + true).sum(1), true.sum(1)]))
    counted = (present > 0).float()
    dice = (2 * overlap + 1) / (sizes + 1)
    loss: Tensor = ((1 - dice) * counted).sum() / counted.sum().clamp_min(1)
    return loss


def is_distributed() -> bool:
    """Whether the training runs in several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_sum(x: Tensor) -> Tensor:
    """Sum over all processes of a tensor of any shape, differentiable; `x` itself in a single process."""
    return cast(Tensor, dist_nn.all_reduce(x.clone())) if is_distributed() else x  # type: ignore[no-untyped-call]


def all_max(value: float, device: torch.device) -> float:
    """The largest value over all processes, so that all take the same decision."""
    if not is_distributed():
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return float(shared)


class GlobalBatchNorm3d(nn.BatchNorm3d):
    """Batch norm with the statistics of the batch over all processes."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, D, H, W) to the same shape."""
        if not (self.training and is_distributed()):
            return super().forward(x)
        wide, axes = x.float(), (0, 2, 3, 4)
        count = torch.full((1,), float(x.numel() // x.shape[1]), device=x.device)
        total = all_sum(torch.cat([wide.sum(axes), count]))
        mean = total[:-1] / total[-1]
        centred = wide - mean[:, None, None, None]
        variance = all_sum(centred.square().sum(axes)) / total[-1]
        with torch.no_grad():
            rate = self.momentum if self.momentum is not None else 0.1
            cast(Tensor, self.running_mean).lerp_(mean, rate)
            cast(Tensor, self.running_var).lerp_(variance * total[-1] / (total[-1] - 1), rate)
            cast(Tensor, self.num_batches_tracked).add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None, None] + self.bias[:, None, None, None]).to(x.dtype)


def share_batch_norm(net: nn.Module) -> None:
    """Replace every batch norm of `net`, in place, by one over all processes. Names of tensors stay the same."""
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm3d:
                shared = GlobalBatchNorm3d(child.num_features, child.eps, child.momentum)
                shared.load_state_dict(child.state_dict())
                setattr(parent, name, shared)
