"""A case made ready where the network is: copied, cropped and normalised on the GPU, with the result of `prepare`."""

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from brainsegnet._types import Array
from brainsegnet.preprocessing.geometry import Turn, find_turn
from brainsegnet.preprocessing.prepare import (
    NEARLY_ZERO,
    Prepared,
    check_case,
    find_background,
    refuse_flat,
    refuse_no_brain,
)
from brainsegnet.volume import Box, Case

KNOWN = frozenset({"uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"})
"""Types of numbers that torch has in full; others go through 64-bit floats, which hold them."""


class OnDevice:
    """Channels (C, D, H, W) that lie on a device, sliced like an array, and copied down where numpy asks for one.

    >>> image = OnDevice(torch.arange(8.0).reshape(1, 2, 2, 2))
    >>> np.asarray(image[:, 1:].padded([(0, 0), (0, 0), (0, 0), (0, 1)])).tolist()
    [[[[4.0, 5.0, 0.0], [6.0, 7.0, 0.0]]]]
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return tuple(self.tensor.shape)

    def __getitem__(self, at: Any) -> "OnDevice":  # noqa: ANN401
        """A view, at whatever a tensor can be asked for."""
        return OnDevice(self.tensor[at])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: ANN401
        """The same in the memory of the CPU."""
        return np.asarray(self.tensor.cpu().numpy(), dtype)

    def padded(self, ends: list[tuple[int, int]]) -> "OnDevice":
        """With so many zeros before and after, axis by axis."""
        return OnDevice(functional.pad(self.tensor, [n for pair in reversed(ends) for n in pair]))

    def flipped(self, axes: tuple[int, ...]) -> "OnDevice":
        """A copy, mirrored along some axes."""
        return OnDevice(self.tensor.flip(axes))

    def spread(self, rows: list[int], count: int) -> "OnDevice":
        """Its channels as the `rows` of `count` channels; the others are zero."""
        whole = self.tensor.new_zeros(count, *self.tensor.shape[1:])
        whole[rows] = self.tensor
        return OnDevice(whole)


def prepare_on(case: Case, device: torch.device) -> Prepared:
    """As `preprocessing.prepare`, computed on a device, where the image stays; the mask comes back.

    Raises:
        ImageError: as `prepare`.
        torch.OutOfMemoryError: the device has no room for the scan.
    """
    with torch.inference_mode():
        how = find_turn(case.reference.affine)
        scans = [_lift(volume.array, how, device) for volume in case.images.values()]
        if not all(_varies(scan) for scan in scans):
            check_case(case)
        backgrounds = [find_background(volume.array) for volume in case.images.values()]
        whole = torch.zeros(scans[0].shape, dtype=torch.bool, device=device)
        for scan, background in zip(scans, backgrounds, strict=True):
            whole |= _foreground(scan, background)
        box = _box_around(whole, case.name)
        mask = whole[box.slices]
        image = torch.empty((len(scans), *box.shape), device=device)
        for channel, (sequence, background) in enumerate(zip(case.images, backgrounds, strict=True)):
            name = f"case {case.name}: {sequence}"
            image[channel] = _normalise(scans[channel][box.slices], mask, background, name)
    d, h, w = whole.shape
    lifted = cast("NDArray[np.float32]", OnDevice(image))
    return Prepared(lifted, tuple(case.images), mask.cpu().numpy(), box, (d, h, w), how)


def _lift(array: Array, how: Turn, device: torch.device) -> Tensor:
    """A scan (D, H, W) on the device, upright."""
    known = array if array.dtype.name in KNOWN and array.dtype.isnative else array.astype(np.float64)
    scan = torch.from_numpy(np.require(known, requirements=("C", "W"))).to(device).permute(how.axes)
    return scan.flip([axis for axis, flip in enumerate(how.flips) if flip])


def _varies(scan: Tensor) -> bool:
    """Whether there are two values and all are finite."""
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


def _normalise(scan: Tensor, mask: Tensor, background: float | None, name: str) -> Tensor:
    """As `intensity.normalise`: median 0, standard deviation 1, and 0 outside the brain alone."""
    counted = scan[mask & _foreground(scan, background)]
    centre = deviation = 0.0
    if counted.numel():
        ordered, middle = counted.sort().values, counted.numel() // 2
        centre = float(ordered[[-1 - middle, middle]].double().mean())
        deviation = float(counted.double().std(unbiased=False))
    refuse_flat(centre, deviation, name)
    scaled = (scan.float() - float(np.float32(centre))) * float(np.float32(1 / deviation))
    scaled[scaled == 0] = float(NEARLY_ZERO)
    return torch.where(mask, scaled, 0.0)
