"""The lesions of the training scans, each cut out with its rim, to be transplanted into other scans."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from brainsegnet._types import Array, Doubles, Floats, Labels, Mask, Millimetres

LEAST_MM3 = 100.0
"""Volume below which a lesion is not kept."""
JOINED = 2
"""Parts that are at most twice this number of voxels apart count as one lesion."""
RIM = 6
"""Voxels around a lesion that are kept with it."""
POINTS = 200
"""Voxels of each class that stand for a lesion where a place is sought."""
ENDS = (1, 50, 99)
"""Percentiles of the intensities of the healthy brain that intensities are scaled by."""
LEAST_RANGE = np.float32(1e-3)
"""Smallest distance between them, for an image of almost one value."""
FAR = 100.0
"""Distance in voxels that stands for what belongs neither to a lesion nor to its rim."""


@dataclass(frozen=True, eq=False)
class Tissue:
    """The intensities of the healthy brain in each sequence (C,).

    Attributes:
        median: Their median.
        below, above: Distances from the median to their first and last hundredth. Cerebrospinal fluid, which is at one
            end in most sequences, bounds them. They vary less from scan to scan than the contrast of grey and white
            matter.
    """

    median: Floats
    below: Floats
    above: Floats

    @classmethod
    def of(cls, image: Floats, classes: Labels) -> Self:
        """Measure every eighth voxel of an image (C, D, H, W) where the class (D, H, W) is background."""
        image, classes = image[:, ::2, ::2, ::2], classes[::2, ::2, ::2]
        healthy = image[:, (classes == 0) & (image != 0).any(0)]
        if not healthy.size:
            healthy = np.zeros((len(image), 1), np.float32)
        low, median, high = np.percentile(healthy, ENDS, axis=1).astype(np.float32)
        return cls(median, np.maximum(median - low, LEAST_RANGE), np.maximum(high - median, LEAST_RANGE))

    def scale(self, values: Array) -> Floats:
        """Intensities (C, ...) so that the first hundredth is -1, the median 0, and the last hundredth 1."""
        median, below, above = (x.reshape(-1, *[1] * (values.ndim - 1)) for x in (self.median, self.below, self.above))
        offsets = values - median
        return np.asarray(offsets / np.where(offsets < 0, below, above), np.float32)

    def unscale(self, values: Tensor) -> Tensor:
        """The intensities (C, ...) of scaled ones."""
        shape = (-1, *[1] * (values.ndim - 1))
        median, below, above = (
            torch.from_numpy(x).to(values).view(shape) for x in (self.median, self.below, self.above)
        )
        return values * torch.where(values < 0, below, above) + median


@dataclass(frozen=True, eq=False)
class Lesion:
    """A lesion cut out of a training scan with its rim.

    Attributes:
        patient: Whose lesion it is.
        layers: Intensities as `Tissue.scale` gives them, and last the distance to the lesion in voxels
            (C + 1, d, h, w).
        classes: Classes (d, h, w).
        spacing_mm: Distances between voxel centres along (D, H, W).
        where: Its middle in its own brain, from 0 to 1 along (D, H, W) of the box of the brain.
        points_mm: Voxels of each class that occurs (n, 3), as offsets to the middle.
        volume_mm3: Its volume.
    """

    patient: str
    layers: Tensor
    classes: Tensor
    spacing_mm: Millimetres
    where: tuple[float, float, float]
    points_mm: Sequence[Doubles]
    volume_mm3: float

    @classmethod
    def cut(
        cls, patient: str, mask: Mask, image: Floats, classes: Labels, tissue: Tissue, spacing_mm: Millimetres
    ) -> Self:
        """The lesion of a mask (D, H, W), from the image (C, D, H, W) of its scan."""
        found, extent = np.argwhere(mask), np.array(mask.shape)
        low, high = found.min(0), found.max(0) + 1
        d, h, w = ((low + high) / 2 / extent).tolist()
        image, classes, mask = (_take(x, low, high) for x in (image, classes, mask))
        brain = (image != 0).any(0)
        voxels_apart = [mm / spacing_mm[1] for mm in spacing_mm]
        distance = ndimage.distance_transform_edt(~mask, voxels_apart)
        distance[~brain | (classes > 0) & ~mask] = FAR
        nearest = ndimage.distance_transform_edt(~brain, voxels_apart, return_distances=False, return_indices=True)
        layers = np.concatenate([tissue.scale(image[(slice(None), *nearest)]), distance[None].astype(np.float32)])
        own = np.where(mask, classes, 0).astype(np.uint8)
        middle = (np.array(own.shape) - 1) / 2
        voxels = [np.argwhere(own == k) for k in np.unique(own) if k]
        few = [some[:: max(1, len(some) // POINTS)] for some in voxels]
        points_mm = [(some - middle) * spacing_mm for some in few]
        volume_mm3 = len(found) * math.prod(spacing_mm)
        tensors = torch.from_numpy(layers), torch.from_numpy(own)
        return cls(patient, *tensors, spacing_mm, (d, h, w), points_mm, volume_mm3)

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return replace(self, layers=self.layers.to(device), classes=self.classes.to(device))

    @property
    def middle(self) -> Doubles:
        """The voxel (3,) in its middle, which `points_mm` are counted from."""
        return (np.array(self.classes.shape) - 1) / 2


def find_lesions(patient: str, image: Floats, classes: Labels, spacing_mm: Millimetres) -> list[Lesion]:
    """The lesions of a scan from its image (C, D, H, W) and classes (D, H, W), without the smallest ones."""
    tissue, mask = Tissue.of(image, classes), (classes > 0) & (image != 0).any(0)
    parts, count = ndimage.label(ndimage.binary_dilation(mask, iterations=JOINED))
    parts[~mask] = 0
    volumes = np.bincount(parts.ravel(), minlength=count + 1) * math.prod(spacing_mm)
    kept = [k for k in range(1, count + 1) if volumes[k] >= LEAST_MM3]
    return [Lesion.cut(patient, parts == k, image, classes, tissue, spacing_mm) for k in kept]


def _take(x: Array, low: NDArray[np.int64], high: NDArray[np.int64]) -> Array:
    """The box from `low` to `high` of (..., D, H, W) with a rim, zero where there is nothing."""
    shape = np.array(x.shape[-3:])
    first, last = np.maximum(low - RIM, 0), np.minimum(high + RIM, shape)
    d, h, w = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    inside = x[..., d, h, w]
    pads = [(int(a), int(b)) for a, b in zip(first - (low - RIM), high + RIM - last, strict=True)]
    return np.pad(inside, [(0, 0)] * (x.ndim - 3) + pads)
