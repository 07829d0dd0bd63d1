"""Weights as safetensors files, which hold tensors and text only; and their transfer to other sequences and classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from brainsegnet.errors import ModelError

FIRST = "blocks.0.0.0.weight"
"""The convolution whose input are the sequences, (out, C, 3, 3, 3)."""
LAST = ("classify.weight", "classify.bias")
"""The classifier, (K, ...)."""
Origins = Sequence[int | None]
"""For each channel or class of the new network, the index of that of the trained one it continues, or None."""


def write_tensors(tensors: Mapping[str, Tensor], path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Write tensors by name, with text `notes` in the header; the caller sees to an atomic replacement of the file.

    A tensor with two names is written twice, because safetensors refuses tensors that share memory.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    owner: dict[int, str] = {}
    for name, tensor in plain.items():
        if owner.setdefault(tensor.untyped_storage().data_ptr(), name) != name:
            plain[name] = tensor.clone()
    try:
        path.write_bytes(save(plain, dict(notes or {})))
    except SafetensorError as error:
        raise OSError(" ".join(str(error).split())) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name on the CPU, and the notes of the header.

    Raises:
        ModelError: the file does not exist, or is not safetensors (a pickle, say).
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist; name the folder of a trained model") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a safetensors file ({error}); pickled and other formats are refused because loading them "
            "can execute code"
        ) from error


def load_into(net: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Copy tensors by name into the parameters and buffers of `net`.

    Raises:
        ModelError: a tensor is missing, unknown or of another shape; `origin` names the model in the message.
    """
    wanted = net.state_dict()
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise ModelError(f"{origin} lacks {len(missing)} tensors, {missing[0]} first; it is incomplete, copy it again")
    if unknown := sorted(tensors.keys() - wanted.keys()):
        raise ModelError(f"{origin} holds {len(unknown)} tensors that its card does not describe, {unknown[0]} first")
    for name, tensor in wanted.items():
        if tensor.shape != tensors[name].shape:
            raise ModelError(
                f"{origin}: {name} is {tuple(tensors[name].shape)} but the card describes {tuple(tensor.shape)}"
            )
    with torch.no_grad():
        net.load_state_dict(dict(tensors))


def transfer(
    trained: Mapping[str, Tensor], fresh: Mapping[str, Tensor], channels: Origins, classes: Origins
) -> dict[str, Tensor]:
    """Trained weights with the first and last layers rearranged for other channels and classes.

    Args:
        trained: Tensors by name of a trained `BrainSegNet`.
        fresh: Initial tensors of the new network, which has the same widths.
        channels: Origin of each channel of the new network; one without an origin keeps its fresh weights.
        classes: Origin of each class; two may share one.

    Returns:
        Tensors by name in the dtypes of `fresh`.

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
