"""From a case to the input of the network, and from classes back to the grid of the case.

A case is checked, turned upright, cropped to the box of the brain (30 to 40 % of a skull-stripped scan) and normalised.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from brainsegnet._types import Array, Floats, Labels, Mask, Shape
from brainsegnet.errors import ImageError
from brainsegnet.preprocessing.geometry import Turn, find_turn, turn_array
from brainsegnet.task import Normalisation
from brainsegnet.volume import Box, Case, V

NEARLY_ZERO = np.float32(1e-6)
"""Value that replaces the median, so that 0 means outside the brain."""
DECILE = 1.2816
"""Standard deviations from the median of a normal distribution to its tenth percentile."""


def find_background(array: Array) -> float | None:
    """The value outside the brain, if the scan (D, H, W) has one: that of its eight corners if they agree.

    It is 0 in raw scans and below -1 in z-scored ones. A scan with noise in the air has none.

    Examples:
        >>> find_background(np.pad(np.ones((2, 2, 2)), 1, constant_values=-3.5))
        -3.5
        >>> find_background(np.arange(8).reshape(2, 2, 2))
    """
    ends = [[0, n - 1] for n in array.shape]
    corners = array[np.ix_(*ends)].ravel()
    return float(corners[0]) if (corners == corners[0]).all() else None


def brain_mask(case: Case) -> Mask:
    """Voxels (D, H, W) where any sequence differs from its background; all voxels if a sequence has no background.

    Raises:
        ImageError: no voxel differs.
    """
    mask = np.zeros(case.reference.shape, np.bool_)
    for volume in case.images.values():
        mask |= find_foreground(volume.array, find_background(volume.array))
    if not mask.any():
        refuse_no_brain(case.name)
    return mask


def refuse_no_brain(case: str) -> NoReturn:
    """Raise the `ImageError` of a case without a brain."""
    raise ImageError(f"case {case}: no image differs from its background; give it images of a brain")


def find_foreground(array: Array, background: float | None) -> Mask:
    """Voxels of an image (D, H, W) that differ from the background; all of them if there is none."""
    if background is None:
        return np.ones(array.shape, np.bool_)
    return np.asarray(array != array.dtype.type(background))


def crop(volume: V, box: Box) -> V:
    """The part of a volume inside a box, as a view. Its affine keeps the voxels where they are."""
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ box.start
    return replace(volume, array=volume.array[box.slices], affine=affine)


def put_back(array: Array, box: Box, shape: Shape, fill: float = 0) -> Array:
    """Put an array (..., d, h, w) of a box into the whole (..., D, H, W), with `fill` around it.

    Examples:
        >>> put_back(np.ones((1, 1, 2)), Box((0, 1, 1), (1, 2, 3)), (1, 3, 3)).astype(int).tolist()
        [[[0, 0, 0], [0, 1, 1], [0, 0, 0]]]
    """
    whole = np.full((*array.shape[:-3], *shape), fill, array.dtype)
    whole[(..., *box.slices)] = array
    return whole


@dataclass(frozen=True, eq=False)
class OutsideLabels:
    """The lesion outside a box, of which there is little or none, as a list of voxels in place of a whole map.

    Attributes:
        box, shape: Its place in the scan, and the size (D, H, W) of the scan.
        places: Voxels outside the box that are not background, as indices into the flattened scan.
        values: Their classes.

    Examples:
        >>> labels = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
        >>> box = Box((0, 0, 1), (1, 3, 4))
        >>> around = OutsideLabels.of(labels, box)
        >>> around.places.tolist(), around.values.tolist()
        ([4, 8], [4, 8])
        >>> np.array_equal(around.complete(labels[box.slices]), labels)
        True
    """

    box: Box
    shape: Shape
    places: NDArray[np.int64]
    values: Labels

    @classmethod
    def of(cls, classes: Labels, box: Box) -> Self:
        """From the classes (D, H, W) of a whole scan."""
        outside = classes.copy()
        outside[box.slices] = 0
        d, h, w = classes.shape
        places = np.flatnonzero(outside)
        return cls(box, (d, h, w), places, outside.ravel()[places])

    def complete(self, classes: Labels) -> Labels:
        """Classes (D, H, W) of the whole scan, from those (d, h, w) of the box."""
        whole = put_back(classes, self.box, self.shape)
        whole.ravel()[self.places] = self.values
        return whole


def check_case(case: Case) -> None:
    """Check that all images of a case can be normalised.

    Raises:
        ImageError: an image is empty, constant, or holds NaN or infinite values. The text names case and sequence.
    """
    for sequence, volume in case.images.items():
        name, array = f"case {case.name}: {sequence}", volume.array
        if array.size == 0:
            raise ImageError(f"{name} is empty, its shape is {array.shape}; replace it or leave it out")
        low, high = array.min(), array.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            count = array.size - np.count_nonzero(np.isfinite(array))
            raise ImageError(f"{name} holds {count} NaN or infinite values; mend them, or leave it out")
        if low == high:
            raise ImageError(f"{name} is {low:g} everywhere; replace it or leave it out")


def normalise(
    array: Array,
    mask: Mask,
    background: float | None = None,
    name: str = "the image",
    normalisation: Normalisation = "median-sd",
) -> Floats:
    """Normalise an image to median 0 and scale 1 in the brain. Outside it, and only there, it is 0.

    The median is used instead of the mean, because a large lesion moves the mean away from the healthy tissue. If a
    sequence covers less than the brain of the others and is `background` there, these voxels do not count.

    Args:
        array: Intensities (D, H, W).
        mask: The brain (D, H, W).
        background: Value of the sequence outside the brain, or None.
        name: What messages call the image.
        normalisation: What the scale is, see `find_scale`.

    Raises:
        ImageError: the image has only one value in the brain.

    Examples:
        >>> normalise(np.array([[[0, 0, 1, 3]]]), np.array([[[False, True, True, True]]]), 0).tolist()
        [[[0.0, -2.0, -1.0, 1.0]]]
    """
    counted = array[mask & find_foreground(array, background)]
    centre = float(np.median(counted)) if counted.size else 0.0
    scale = find_scale(counted, centre, normalisation) if counted.size else 0.0
    refuse_flat(centre, scale, name)
    scaled = array.astype(np.float32, order="C")
    scaled -= np.float32(centre)
    scaled *= np.float32(1 / scale)
    np.copyto(scaled, NEARLY_ZERO, where=scaled == 0)
    np.copyto(scaled, 0, where=~mask)
    return scaled


def find_scale(counted: Array, centre: float, normalisation: Normalisation) -> float:
    """The scale of the intensities (n,) of a brain, which normalisation brings to 1.

    `median-sd` takes the standard deviation. `median-decile` takes the distance from the median to the tenth
    percentile, divided by 1.2816, its value in a normal distribution. If that distance is 0, it is the standard
    deviation.

    Examples:
        >>> brain = np.arange(-50, 51)
        >>> bright = np.concatenate([brain, np.full(11, 500)])
        >>> [round(find_scale(one, 0.0, "median-decile"), 1) for one in (brain, bright)]
        [31.2, 30.4]
        >>> [round(find_scale(one, 0.0, "median-sd"), 1) for one in (brain, bright)]
        [29.2, 151.4]
    """
    if normalisation == "median-decile":
        tenth = float(np.percentile(counted, 10))
        if (scale := (centre - tenth) / DECILE) > 1e-6 * abs(centre):
            return scale
    return float(counted.std(dtype=np.float64))


def refuse_flat(centre: float, deviation: float, name: str) -> None:
    """Raise the `ImageError` of an image that has only one value in the brain."""
    if not deviation > 1e-6 * abs(centre):
        raise ImageError(f"{name} has one value in the whole brain, {centre:g}; replace it or leave it out")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case that is upright, cropped to the brain and normalised.

    Attributes:
        image: Channels (C, d, h, w) of the box, 0 outside the brain. An image that a GPU prepared stays there, in an
            object that is sliced like an array and converts to one.
        sequences: Name of each channel.
        mask: The brain (d, h, w) in the box.
        box: Place of the box in the upright scan.
        shape: Size (D, H, W) of the upright scan.
        turn: How the scan was turned upright.
    """

    image: Floats
    sequences: tuple[str, ...]
    mask: Mask
    box: Box
    shape: Shape
    turn: Turn


def prepare(case: Case, normalisation: Normalisation = "median-sd") -> Prepared:
    """Check a case, turn it upright, crop it to the brain and normalise each sequence.

    Raises:
        ImageError: an image is empty, constant, or holds NaN or infinite values.
    """
    check_case(case)
    how = find_turn(case.reference.affine)
    whole_mask = turn_array(brain_mask(case), how)
    box = Box.around(whole_mask)
    mask = np.ascontiguousarray(whole_mask[box.slices])
    image = np.empty((len(case.images), *box.shape), np.float32)

    def fill(channel: int, sequence: str) -> None:
        array = case.images[sequence].array
        inside = turn_array(array, how)[box.slices]
        image[channel] = normalise(inside, mask, find_background(array), f"case {case.name}: {sequence}", normalisation)

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(len(image)), case.images))
    d, h, w = whole_mask.shape
    return Prepared(image, tuple(case.images), mask, box, (d, h, w), how)


def follow(array: Array, prepared: Prepared) -> Array:
    """Turn and crop an array (..., D, H, W) on the grid of a case, such as its lesion, like the case: a view."""
    return turn_array(array, prepared.turn)[(..., *prepared.box.slices)]


def restore(array: Array, prepared: Prepared) -> Array:
    """Bring classes or probabilities (..., d, h, w) of the box to the grid of the case (..., D, H, W).

    Voxels outside the box are 0.

    Raises:
        ValueError: the array does not have the shape of the box.
    """
    if array.shape[-3:] != prepared.box.shape:
        raise ValueError(f"the box is {prepared.box.shape}, this array is {array.shape}")
    return np.ascontiguousarray(turn_array(put_back(array, prepared.box, prepared.shape), prepared.turn.inverse))
