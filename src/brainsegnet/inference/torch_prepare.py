"""`preprocessing.prepare` on a GPU, where the network is: the scan is turned, cropped and normalised there."""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from brainsegnet._types import Array, Floats
from brainsegnet.preprocessing.geometry import Turn, find_turn
from brainsegnet.preprocessing.prepare import (
    DECILE,
    NEARLY_ZERO,
    Prepared,
    check_case,
    find_background,
    refuse_flat,
    refuse_no_brain,
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
    """As `preprocessing.prepare`, computed on a device, where the image stays; the mask is copied to the CPU.

    Raises:
        ImageError: as `prepare`.
        torch.OutOfMemoryError: the scan does not fit on the device.
    """
    with torch.inference_mode():
        how = find_turn(case.reference.affine)
        scans = [_upload(volume.array, how, device) for volume in case.images.values()]
        if not all(_varies(scan) for scan in scans):
            check_case(case)
        backgrounds = [find_background(volume.array) for volume in case.images.values()]
        whole = torch.zeros(scans[0].shape, dtype=torch.bool, device=device)
        for scan, background in zip(scans, backgrounds, strict=True):
            whole |= _foreground(scan, background)
        box = _box_around(whole, case.name)
        mask = whole[box.slices]
        image = torch.empty((len(scans), *box.shape), device=device)
        for channel, (sequence, scan, background) in enumerate(zip(case.images, scans, backgrounds, strict=True)):
            name = f"case {case.name}: {sequence}"
            image[channel] = _normalise(scan[box.slices], mask, background, name, normalisation)
    d, h, w = whole.shape
    return Prepared(cast("Floats", OnDevice(image)), tuple(case.images), mask.cpu().numpy(), box, (d, h, w), how)


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


def _foreground(scan: Tensor, background: float | None) -> Tensor:
    return torch.ones_like(scan, dtype=torch.bool) if background is None else scan != background


def _box_around(mask: Tensor, name: str) -> Box:
    lines = [mask.any(one).any(two - 1).cpu().numpy().nonzero()[0] for one, two in ((1, 2), (0, 2), (0, 1))]
    if not lines[0].size:
        refuse_no_brain(name)
    (d0, h0, w0), (d1, h1, w1) = ([int(line[end]) + more for line in lines] for end, more in ((0, 0), (-1, 1)))
    return Box((d0, h0, w0), (d1, h1, w1))


def _normalise(scan: Tensor, mask: Tensor, background: float | None, name: str, normalisation: Normalisation) -> Tensor:
    """As `preprocessing.normalise`: median 0 and scale 1 in the brain, 0 outside it and nowhere else."""
    counted = scan[mask & _foreground(scan, background)]
    centre = scale = 0.0
    if counted.numel():
        ordered, middle = counted.sort().values, counted.numel() // 2
        centre = float(ordered[[-1 - middle, middle]].double().mean())
        scale = _find_scale(ordered, centre, normalisation)
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
