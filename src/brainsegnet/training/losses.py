"""Focal loss (the paper's equation, after Lin et al. 2017) and soft Dice of regions."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from brainsegnet.training.curriculum import Recipe, Stage
from brainsegnet.training.processes import all_sum

Regions = Sequence[Sequence[int]]
"""The classes that each region unites."""


def loss_of(logits: Tensor, classes: Tensor, recipe: Recipe, stage: Stage, regions: Regions = ()) -> Tensor:
    """The stage's focal loss, plus soft Dice where the recipe weighs it."""
    loss = focal_loss(logits, classes, stage.gamma)
    return loss + recipe.dice * dice_loss(logits, classes, regions) if recipe.dice else loss


def focal_loss(logits: Tensor, classes: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean over voxels of -(1 - p_t)^gamma log p_t, with p_t the soft-max probability of the true class.

    Args:
        logits: (N, K, D, H, W).
        classes: True classes 0 to K-1 (N, D, H, W).
        gamma: Focusing parameter; 0 is cross entropy.

    >>> import math
    >>> z, y = torch.zeros(1, 4, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.long)
    >>> round(focal_loss(z, y, 0).item() / math.log(4), 6), round(focal_loss(z, y, 2).item() / math.log(4), 6)
    (1.0, 0.5625)
    """
    cross_entropy = F.cross_entropy(logits.float(), classes.long(), reduction="none")
    if gamma == 0:
        return cross_entropy.mean()
    return ((1 - torch.exp(-cross_entropy)).clamp_min(1e-6) ** gamma * cross_entropy).mean()


def dice_loss(logits: Tensor, classes: Tensor, regions: Regions = ()) -> Tensor:
    """1 minus the soft Dice of the regions that are scored, counted over the whole batch of all processes.

    Args:
        logits: (N, K, D, H, W).
        classes: True classes 0 to K-1 (N, D, H, W).
        regions: Such as whole, core, enhancing; none is each lesion class by itself.

    Only regions that occur in the batch count. Where one does not, any voxel of it would cost as much as a missed
    lesion, and rare tissues would be found too seldom; the focal loss alone keeps such samples clean.
    """
    members = membership(regions or [[k] for k in range(1, logits.shape[1])], logits)
    truth = F.one_hot(classes.long(), logits.shape[1]).movedim(-1, 1).to(members)
    found, true = (torch.einsum("nkdhw,rk->rndhw", x, members).flatten(1) for x in (logits.float().softmax(1), truth))
    overlap, sizes, present = all_sum(torch.stack([(found * true).sum(1), (found + true).sum(1), true.sum(1)]))
    counted = (present > 0).float()
    dice = (2 * overlap + 1) / (sizes + 1)
    loss: Tensor = ((1 - dice) * counted).sum() / counted.sum().clamp_min(1)
    return loss


def membership(regions: Regions, logits: Tensor) -> Tensor:
    """Which of the K classes each region unites, ones and zeros (R, K), on the device of the logits."""
    rows = [[float(k in region) for k in range(logits.shape[1])] for region in regions]
    return torch.tensor(rows).to(logits.device, non_blocking=True)
