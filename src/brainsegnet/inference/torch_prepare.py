"""`preprocessing.prepare` on a GPU, where the network is: the scan is turned, cropped and normalised there.

The CPU finds the brain.
"""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from brainsegnet._types import Array, Floats
from brainsegnet.preprocessing.geometry import Turn, find_turn, turn_array
from brainsegnet.preprocessing.prepare import (
    DECILE,
    NEARLY_ZERO,
    Prepared,
    check_case,
    find_head,
    find_limits,
    refuse_flat,
    refuse_labels,
    replace_outliers,
)
from brainsegnet.task import Normalisation
from brainsegnet.volume import Box, Case

TORCH_TYPES = frozenset({"uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"})
"""Types of numbers that torch supports fully; others are converted to 64-bit floats, which hold them."""


class OnDevice:
    """Channels (C, D, H, W) on a device, sliced like an array, and copied to the CPU where numpy needs one."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, D, H, W)."""
        return tuple(self.tensor.shape)

    def __getitem__(self, at: Any) -> "OnDevice":  # noqa: ANN401
        """A view, at any index of a tensor."""
        return OnDevice(self.tensor[at])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:  # noqa: ANN401
        """A copy in the memory of the CPU."""
        return np.asarray(self.tensor.cpu().numpy(), dtype)

    def padded(self, ends: list[tuple[int, int]]) -> "OnDevice":
        """A copy with so many zeros before and after, axis by axis."""
        return OnDevice(functional.pad(self.tensor, [n for pair in reversed(ends) for n in pair]))

    def flipped(self, axes: tuple[int, ...]) -> "OnDevice":
        """A copy, mirrored along some axes."""
        return OnDevice(self.tensor.flip(axes))

    def spread(self, rows: list[int], count: int) -> "OnDevice":
        """A copy of `count` channels: its channels at `rows`, zeros elsewhere."""
        channels = self.tensor.new_zeros(count, *self.tensor.shape[1:])
        channels[rows] = self.tensor
        return OnDevice(channels)


def prepare_on(case: Case, device: torch.device, normalisation: Normalisation = "median-sd") -> Prepared:
    """As `preprocessing.prepare`, computed on a device, where the image stays.

    The CPU finds the brain and the limits of intensity, so both ways agree.

    Raises:
        ImageError: as `prepare`.
        torch.OutOfMemoryError: the scan does not fit on the device.
    """
    with torch.inference_mode():
        how = find_turn(case.reference.affine)
        scans = [_upload(volume.array, how, device) for volume in case.images.values()]
        if not all(_varies(scan) for scan in scans):
            check_case(case)
        refuse_labels(case)
        head = find_head(case, how)
        box = Box.around(head.mask)
        mask = np.ascontiguousarray(head.mask[box.slices])
        inside = torch.from_numpy(mask).to(device)
        image = torch.empty((len(scans), *box.shape), device=device)
        for channel, (sequence, scan) in enumerate(zip(case.images, scans, strict=True)):
            array, name = turn_array(case.images[sequence].array, how)[box.slices], f"case {case.name}: {sequence}"
            own = mask & head.air[sequence].find_foreground(array)
            own = own if own.any() else mask
            low, centre, high = find_limits(array[own])
            part = scan[box.slices]
            counted = part[torch.from_numpy(own).to(device)].sort().values
            if counted.numel() and not (low <= counted[0] and counted[-1] <= high):
                counted = counted[(counted >= low) & (counted <= high)]
                part = torch.from_numpy(replace_outliers(array, own, low, high)).to(device)
            image[channel] = _normalise(part, inside, counted, centre, name, normalisation)
    d, h, w = head.mask.shape
    whole = cast("Floats", OnDevice(image))
    return Prepared(whole, tuple(case.images), mask, box, (d, h, w), how, head.skull, head.around)


def _upload(array: Array, how: Turn, device: torch.device) -> Tensor:
    """A scan (D, H, W) on the device, upright."""
    supported = array.dtype.name in TORCH_TYPES and array.dtype.isnative
    array = np.require(array if supported else array.astype(np.float64), requirements=("C", "W"))
    scan = torch.from_numpy(array).to(device).permute(how.axes)
    return scan.flip([axis for axis, flip in enumerate(how.flips) if flip])


def _varies(scan: Tensor) -> bool:
    """Whether all values are finite, and not all the same."""
    if not scan.numel():
        return False
    low, high = scan.aminmax()
    return bool(torch.isfinite(low) & torch.isfinite(high) & (low < high))


def _normalise(
    scan: Tensor, mask: Tensor, ordered: Tensor, centre: float, name: str, normalisation: Normalisation
) -> Tensor:
    """As `preprocessing.normalise`, from intensities (n,) in ascending order and their median."""
    scale = _find_scale(ordered, centre, normalisation) if ordered.numel() else 0.0
    refuse_flat(centre, scale, name)
    scaled = (scan.float() - float(np.float32(centre))) * float(np.float32(1 / scale))
    scaled[scaled == 0] = float(NEARLY_ZERO)
    return torch.where(mask, scaled, 0.0)


def _find_scale(ordered: Tensor, centre: float, normalisation: Normalisation) -> float:
    """As `preprocessing.find_scale`, of intensities (n,) in ascending order."""
    if normalisation == "median-decile":
        place = 0.1 * (ordered.numel() - 1)
        low, high = ordered[int(place)].item(), ordered[min(int(place) + 1, ordered.numel() - 1)].item()
        tenth = low + (place - int(place)) * (high - low)
        if (scale := (centre - tenth) / DECILE) > 1e-6 * abs(centre):
            return scale
    return float(ordered.double().std(unbiased=False))
