"""Volumes for a page that shows them: turned upright, cropped to the head, 8 bits a voxel, compressed, as text.

Bytes are predicted from their neighbours before they are compressed. This makes a scan about a fifth smaller.
"""

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import numpy as np

from brainsegnet._types import Affine, Array, Labels, Mask, Millimetres, Shape
from brainsegnet.preprocessing.foreground import find_air, find_foreground
from brainsegnet.preprocessing.geometry import Turn, find_turn, turn, turn_array
from brainsegnet.volume import Box, LabelMap

MARGIN_VOXELS = 2
MOST_VOXELS = 12_000_000
"""Voxels of a volume in a page; of larger volumes every second or third voxel is shown."""
LEVELS = 256
SHARE_STEP = 0.02
"""Step of the maps of probability and entropy."""
OUTLIERS = (0.1, 99.9)
"""Percentiles of the head beyond which intensities are clipped, if they do not fit 8 bits."""
CONTRAST = (1.0, 99.5)
"""Percentiles of the head that are black and white at first."""


@dataclass(frozen=True, eq=False)
class Frame:
    """The part of a label map's grid that is shown, upright: axes to superior, posterior and left.

    Attributes:
        how: The turn that makes the grid upright.
        box: Box of the head in the upright grid.
        step: Every how many voxels one is shown, along (D, H, W).
        grid: The label map, as it is stored.
    """

    how: Turn
    box: Box
    step: Shape
    grid: LabelMap

    @property
    def shape(self) -> Shape:
        """Number of voxels (D, H, W) that are shown."""
        d, h, w = (-(-n // step) for n, step in zip(self.box.shape, self.step, strict=True))
        return d, h, w

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distances between the voxels that are shown, in millimetres."""
        sizes = (self.grid.spacing_mm[axis] for axis in self.how.axes)
        return tuple(size * step for size, step in zip(sizes, self.step, strict=True))

    def take(self, array: Array) -> Array:
        """The voxels of an array (D, H, W) on the label map's grid that are shown."""
        steps = tuple(slice(None, None, step) for step in self.step)
        return turn_array(array, self.how)[self.box.slices][steps]

    @property
    def to_ras(self) -> Affine:
        """(4, 4) from an index (w, h, d, 1) of what is shown to millimetres as in nibabel: right, front, up."""
        lps = turn(self.grid, self.how).affine @ self._to_upright
        return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps)

    @property
    def to_voxel(self) -> Affine:
        """(4, 4) from an index (w, h, d, 1) of what is shown to the index (i, j, k, 1) in the file, as in nibabel."""
        stored = np.linalg.inv(self.grid.affine) @ turn(self.grid, self.how).affine @ self._to_upright
        return np.rint(stored[[2, 1, 0, 3]])

    def find(self, voxel: Shape) -> tuple[int, int, int]:
        """Where a voxel (D, H, W) of the stored array is shown: (w, h, d)."""
        place = np.linalg.inv(self.to_voxel) @ (*voxel[::-1], 1)
        w, h, d = np.floor(place[:3] + 1e-6).astype(int).tolist()
        return w, h, d

    @property
    def _to_upright(self) -> Affine:
        matrix = np.zeros((4, 4))
        for axis in range(3):
            matrix[axis, 2 - axis], matrix[axis, 3] = self.step[axis], self.box.start[axis]
        matrix[3, 3] = 1
        return matrix


@dataclass(frozen=True, eq=False)
class Packed:
    """A volume as the page holds it.

    Attributes:
        data: One byte a voxel: predicted, compressed with gzip, in base64.
        scale: What the bytes mean: "table" of values, or "air", "low" and "step"; "window", black and white at first;
            "cut", whether values below and above are clipped.
    """

    data: str
    scale: dict[str, Any]


def frame_head(labels: LabelMap, head: Mask) -> Frame:
    """What is to be shown of a grid: the head (D, H, W), all labels, and a margin of `MARGIN_VOXELS`."""
    how = find_turn(labels.affine)
    inside = turn_array(head | (labels.array != 0), how)
    tight = Box.around(inside if inside.any() else ~inside)
    z, y, x = (max(0, start - MARGIN_VOXELS) for start in tight.start)
    d, h, w = (min(n, stop + MARGIN_VOXELS) for stop, n in zip(tight.stop, inside.shape, strict=True))
    box = Box((z, y, x), (d, h, w))
    sizes = [labels.spacing_mm[axis] for axis in how.axes]
    steps = [1, 1, 1]
    while np.prod(np.divide(box.shape, steps)) > MOST_VOXELS:
        finest = int(np.argmin(np.multiply(sizes, steps)))
        steps[finest] += 1
    return Frame(how, box, (steps[0], steps[1], steps[2]), labels)


def pack(levels: Labels) -> str:
    """Bytes (D, H, W) as text: the difference of each to what the seven voxels before it predict, compressed."""
    wide = np.pad(levels.astype(np.int16), ((1, 0),) * 3)
    d, h, w = levels.shape

    def before(z: int, y: int, x: int) -> Array:
        return np.asarray(wide[1 - z : d + 1 - z, 1 - y : h + 1 - y, 1 - x : w + 1 - x])

    sides = before(0, 0, 1) + before(0, 1, 0) + before(1, 0, 0)
    edges = before(0, 1, 1) + before(1, 0, 1) + before(1, 1, 0)
    predicted = np.clip((5 * sides - 3 * edges + before(1, 1, 1)) // 7, 0, LEVELS - 1)
    return to_text(np.asarray((levels - predicted).astype(np.uint8)).tobytes(), zlib.Z_RLE)


def to_text(content: bytes, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> str:
    """Bytes, compressed as gzip, in base64. The same bytes give the same text."""
    writer = zlib.compressobj(9, zlib.DEFLATED, 31, 9, strategy)
    return base64.b64encode(writer.compress(content) + writer.flush()).decode()


def to_finite(image: Array) -> Array:
    """An image whose NaN and infinite values have become its lowest finite value, and whose truths are 0 and 1.

    Examples:
        >>> to_finite(np.array([3.0, np.nan, 2.0, np.inf])).tolist(), to_finite(np.array([True])).tolist()
        ([3.0, 2.0, 2.0, 2.0], [1])
    """
    if image.dtype == np.bool_:
        return image.astype(np.uint8)
    finite = np.isfinite(image)
    if finite.all():
        return image
    return np.where(finite, image, image[finite].min() if finite.any() else 0).astype(image.dtype)


def pack_image(image: Array, head: Mask) -> Packed:
    """An image (D, H, W) in 8 bits, exact if it has at most `LEVELS` values.

    Otherwise byte 0 is the air, if it has one value, and the others are equal steps between two percentiles of the
    head (D, H, W).
    """
    values, inside = np.unique(image), image[head] if head.any() else image.ravel()
    low, high = (float(value) for value in np.percentile(inside, CONTRAST))
    window = [low, high if high > low else low + 1]
    if len(values) <= LEVELS:
        levels = np.searchsorted(values, image).astype(np.uint8)
        return Packed(pack(levels), {"table": values.tolist(), "window": window, "cut": [False, False]})
    low, high = (float(value) for value in np.percentile(inside, OUTLIERS))
    air = find_air(image)
    first = int(air.kind == "exact")
    step = max(high - low, float(np.finfo(np.float32).tiny)) / (LEVELS - 1 - first)
    levels = (first + np.rint((np.clip(image, low, high) - low) / step)).astype(np.uint8)
    if first:
        levels[image == air.level] = 0
    seen = image[image != air.level] if first else image
    scale = {"air": air.level if first else None, "low": low, "step": step, "window": window}
    return Packed(pack(levels), scale | {"cut": [bool(seen.min() < low), bool(seen.max() > high)]})


def pack_share(share: Array) -> Packed:
    """A map of numbers from 0 to 1 (D, H, W), such as probabilities, in steps of `SHARE_STEP`."""
    levels = np.rint(np.clip(np.nan_to_num(share), 0, 1) / SHARE_STEP).astype(np.uint8)
    return Packed(pack(levels), {"air": None, "low": 0, "step": SHARE_STEP, "window": [0, 1], "cut": [False, False]})


def mask_head(images: Mapping[str, Array], spacing_mm: Millimetres) -> Mask:
    """The head (D, H, W), as at least one of the images on one grid shows it."""
    masks = (find_foreground({name: array}, spacing_mm).mask for name, array in images.items())
    return reduce(or_, masks)
