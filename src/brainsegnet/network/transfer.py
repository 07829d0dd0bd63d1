"""Weights of a trained network for another one of the same widths that sees other sequences or tells other tissues."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

FIRST = "blocks.0.0.0.weight"
"""The convolution that sees the sequences, (out, C, 3, 3, 3)."""
LAST = ("classify.weight", "classify.bias")
"""The classifier, (K, ...)."""
Origins = Sequence[int | None]
"""For each channel or class of the new network, that of the trained one which it continues, or None."""


def transfer(
    trained: Mapping[str, Tensor], fresh: Mapping[str, Tensor], channels: Origins, classes: Origins
) -> dict[str, Tensor]:
    """The trained weights, their first and last layers rearranged for other channels and classes.

    Args:
        trained: Tensors by name of a `BrainSegNet`.
        fresh: Those of the new network, as it starts; of the same widths.
        channels: Origin of each channel of the new network; one without an origin keeps its fresh weights.
        classes: Origin of each class; two may share one.

    Returns:
        Tensors by name in the types of `fresh`.

    >>> w = {FIRST: torch.ones(2, 3, 1, 1, 1), LAST[0]: torch.eye(2), LAST[1]: torch.tensor([5.0, 6.0])}
    >>> new = {FIRST: torch.zeros(2, 2, 1, 1, 1), LAST[0]: torch.zeros(3, 2), LAST[1]: torch.zeros(3)}
    >>> moved = transfer(w, new, channels=(2, None), classes=(0, 1, 1))
    >>> moved[FIRST][0, :, 0, 0, 0].tolist(), moved[LAST[1]].tolist()
    ([1.0, 0.0], [5.0, 6.0, 6.0])
    """
    moved = {name: trained[name].to(tensor.dtype) for name, tensor in fresh.items() if name in trained}
    moved[FIRST] = _pick(moved[FIRST], fresh[FIRST], channels, axis=1)
    for name in LAST:
        moved[name] = _pick(moved[name], fresh[name], classes, axis=0)
    return moved


def _pick(trained: Tensor, fresh: Tensor, origins: Origins, axis: int) -> Tensor:
    slices = [
        fresh.select(axis, place) if origin is None else trained.select(axis, origin)
        for place, origin in enumerate(origins)
    ]
    return torch.stack(slices, axis)
