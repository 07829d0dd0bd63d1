"""Focal loss (the paper's equation, after Lin et al. 2017) and soft Dice."""

import torch
import torch.nn.functional as F
from torch import Tensor

from brainsegnet.training.curriculum import Recipe, Stage
from brainsegnet.training.processes import all_sum


def loss_of(logits: Tensor, classes: Tensor, recipe: Recipe, stage: Stage) -> Tensor:
    """The stage's focal loss, plus soft Dice where the recipe weighs it."""
    loss = focal_loss(logits, classes, stage.gamma)
    return loss + recipe.dice * dice_loss(logits, classes) if recipe.dice else loss


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


def dice_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """1 minus the soft Dice of the lesion classes, counted over the whole batch of all processes.

    Args:
        logits: (N, K, D, H, W).
        classes: True classes 0 to K-1 (N, D, H, W).

    The background is left out; a class that is absent from batch and prediction counts as found.
    """
    probabilities = logits.float().softmax(1)
    truth = F.one_hot(classes.long(), logits.shape[1]).movedim(-1, 1).to(probabilities)
    axes = (0, 2, 3, 4)
    sums = torch.stack([(probabilities * truth).sum(axes), probabilities.sum(axes) + truth.sum(axes)])
    overlap, sizes = all_sum(sums)[:, 1:]
    dice: Tensor = (2 * overlap + 1) / (sizes + 1)
    return 1 - dice.mean()
