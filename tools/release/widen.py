"""A trained network at twice its width that computes the same, to train on from (Chen et al., Net2Net, ICLR 2016)."""

from pathlib import Path

import torch
from torch import Tensor

from brainsegnet.model.card import Architecture
from brainsegnet.model.store import Model, save_model

FIRST, LAST = "blocks.0.0.0.", "classify."
"""The convolutions that read the sequences and give the classes, whose numbers stay."""
SHARE = (0.3, 0.7)
"""What one of two equal channels passes on of their sum. It differs from a half, so that the two learn things apart."""


def widen(model: Model, out: Path, seed: int = 0) -> Model:
    """Write a model with twice the channels everywhere and the same function.

    Every channel is doubled. What reads a doubled channel takes a random share of one and the rest of the other.

    Args:
        model: A trained model.
        out: Model folder to write.
        seed: Of the shares.

    Raises:
        OutputError: the folder cannot be written to.
    """
    card = model.card
    network = card.network.model_copy(
        update={"widths": tuple(2 * width for width in card.network.widths), "refined": 2 * card.network.refined}
    )
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: _widen(name, tensor, generator) for name, tensor in model.tensors().items()}
    wide = card.model_copy(update={"name": out.name, "network": Architecture(**network.model_dump()), "exports": {}})
    return save_model(out, wide, tensors)


def _widen(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    """A weight (out, in, ...) or a value for each channel (out,) with twice the channels."""
    if tensor.ndim == 0:
        return tensor
    wide = tensor.float()
    if not name.startswith(LAST):
        wide = torch.cat([wide, wide])
    if wide.ndim > 1 and not name.startswith(FIRST):
        low, high = SHARE
        share = low + (high - low) * torch.rand(wide.shape[:2], generator=generator)
        share = share.view(*share.shape, *(1 for _ in wide.shape[2:]))
        wide = torch.cat([wide * share, wide * (1 - share)], 1)
    return wide.contiguous()
