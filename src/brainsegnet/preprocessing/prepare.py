"""From a case to the input of the network, and from classes back to the grid of the case.

A case is checked, turned upright, cropped to the box of the brain (30 to 40 % of a skull-stripped scan) and normalised.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from brainsegnet._types import Array, Floats, Labels, Mask, Shape
from brainsegnet.errors import ImageError
from brainsegnet.preprocessing.foreground import Foreground, SkullState, find_foreground
from brainsegnet.preprocessing.geometry import Turn, find_turn, turn_array
from brainsegnet.task import Normalisation
from brainsegnet.volume import Box, Case, V

FEW = 64
"""Most values that a label map may hold. Those of FreeSurfer hold 54; T1 of `examples/glioma` holds 97."""
_SMALL = 4096
_COUNTED = ("tmax", "ttp", "mtt", "pwi_peak")
NEARLY_ZERO = np.float32(1e-6)
"""Value that replaces the median, so that 0 means outside the brain."""
TAIL = 0.002
"""Share of the brightest voxels, and of the darkest, that does not set the limits of intensity."""
SAMPLE, FEW_VOXELS = 100_000, 10_000
"""Number of voxels, about, that set the limits of intensity, and of those that tell whether outliers are likely."""
SURE = 0.6
"""Share of the limits of few voxels within which an image surely has no outliers."""
REACH = 4.0
"""Factor on the distance from the median to the quantile at `TAIL`, beyond which an intensity is an outlier."""
DECILE = 1.2816
"""Standard deviations from the median of a normal distribution to its tenth percentile."""


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
    """Check that all images of a case can be normalised, and that none is a label map.

    Raises:
        ImageError: an image is empty, constant, holds NaN or infinite values, or only a few whole values. The text
            names case and sequence.
    """
    refuse_labels(case)
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


def refuse_labels(case: Case) -> None:
    """Check that no sequence is a label map. A label map holds a few whole values, a scan has hundreds.

    Small arrays pass, and so do maps of time, which are counted in frames.

    Raises:
        ImageError: an image holds from 2 to `FEW` values, all of them whole and none negative.
    """
    for sequence, volume in case.images.items():
        if sequence in _COUNTED or volume.array.size < _SMALL:
            continue
        steps = tuple(slice(None, None, max(1, n // 32)) for n in volume.shape)
        if len(np.unique(volume.array[steps])) > FEW:
            continue
        values = np.unique(volume.array)
        if 2 <= len(values) <= FEW and values[0] >= 0 and (values == np.rint(values)).all():
            few = ", ".join(f"{value:g}" for value in values[:5]) + (", ..." if len(values) > 5 else "")
            raise ImageError(
                f"case {case.name}: {sequence} holds only {len(values)} values ({few}), as a label map does; name the "
                "file of the image, or leave it out"
            )


def normalise(
    array: Array,
    mask: Mask,
    own: Mask | None = None,
    name: str = "the image",
    normalisation: Normalisation = "median-sd",
) -> Floats:
    """Normalise an image to median 0 and scale 1 in the brain. Outside it, and only there, it is 0.

    The median is used instead of the mean, because a large lesion moves the mean away from the healthy tissue. Outliers
    take the median of the voxels around them, and do not count for the scale.

    Args:
        array: Intensities (D, H, W).
        mask: The brain (D, H, W).
        own: What the sequence itself covers (D, H, W); elsewhere its voxels do not count. None if it covers all.
        name: What messages call the image.
        normalisation: What the scale is, see `find_scale`.

    Raises:
        ImageError: the image has only one value in the brain.

    Examples:
        >>> image = np.array([[[0, 0, 1, 3]]])
        >>> normalise(image, np.array([[[False, True, True, True]]]), image > 0).tolist()
        [[[0.0, -2.0, -1.0, 1.0]]]
    """
    own = mask if own is None or not (mask & own).any() else mask & own
    counted = array[own]
    low, centre, high = find_limits(counted)
    if counted.size and not (low <= counted.min() and counted.max() <= high):
        counted, array = counted[(counted >= low) & (counted <= high)], replace_outliers(array, own, low, high)
    scale = find_scale(counted, centre, normalisation) if counted.size else 0.0
    refuse_flat(centre, scale, name)
    scaled = array.astype(np.float32, order="C")
    scaled -= np.float32(centre)
    scaled *= np.float32(1 / scale)
    scaled[scaled == 0] = NEARLY_ZERO
    np.copyto(scaled, 0, where=~mask)
    return scaled


def find_limits(counted: Array) -> tuple[float, float, float]:
    """Lowest intensity, median, and highest intensity of a brain (n,) without outliers.

    Outliers are further from the median than `REACH` times the quantiles at `TAIL` and 1 - `TAIL`.
    """
    if not counted.size:
        return 0.0, 0.0, 0.0
    centre, extremes = float(np.median(counted)), (float(counted.min()), float(counted.max()))
    low, high = _place_limits(counted, centre, FEW_VOXELS)
    if centre - SURE * (centre - low) <= extremes[0] and extremes[1] <= centre + SURE * (high - centre):
        return low, centre, high  # the limits of more voxels take longer, and would not be reached either
    low, high = _place_limits(counted, centre, SAMPLE)
    return low, centre, high


def _place_limits(counted: Array, centre: float, number: int) -> tuple[float, float]:
    low, high = np.quantile(counted[:: max(1, counted.size // number)], (TAIL, 1 - TAIL))
    return centre - REACH * (centre - float(low)), centre + REACH * (float(high) - centre)


def replace_outliers(array: Array, own: Mask, low: float, high: float) -> Floats:
    """A copy (D, H, W) in which outliers within a mask are the median of the 3 x 3 x 3 voxels, and all are clipped.

    Examples:
        >>> spike = np.ones((3, 3, 3)); spike[1, 1, 1] = 100
        >>> replace_outliers(spike, spike > 0, -5, 5).max()
        np.float32(1.0)
    """
    whole = np.issubdtype(array.dtype, np.integer)  # compared as it is stored, which is faster
    beyond = array > array.dtype.type(np.floor(high) if whole else high)
    beyond |= array < array.dtype.type(np.ceil(low) if whole else low)
    places = np.argwhere(beyond & own)
    steps = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    around = np.clip(places[:, None] + steps, 0, np.array(array.shape) - 1)
    values = np.median(array[tuple(np.moveaxis(around, -1, 0))], axis=1)
    changed = array.astype(np.float32)
    changed[tuple(places.T)] = values
    return np.clip(changed, low, high, out=changed)


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
        mask: Voxels (d, h, w) of the box that are the brain, or the head where the skull is on.
        box: Place of the box in the upright scan.
        shape: Size (D, H, W) of the upright scan.
        turn: How the scan was turned upright.
        skull: Whether the mask is a head or a brain, see `SkullState`; empty if that was not judged.
        around: What surrounds the head in each sequence: `exact` values, `noise`, `ringing`, or `none` if the head
            fills the grid.
    """

    image: Floats
    sequences: tuple[str, ...]
    mask: Mask
    box: Box
    shape: Shape
    turn: Turn
    skull: SkullState | Literal[""] = ""
    around: Mapping[str, str] = field(default_factory=dict)


def prepare(case: Case, normalisation: Normalisation = "median-sd") -> Prepared:
    """Check a case, turn it upright, crop it to the brain and normalise each sequence.

    Raises:
        ImageError: an image is empty, constant, or holds NaN or infinite values.
    """
    check_case(case)
    how = find_turn(case.reference.affine)
    head = find_head(case, how)
    box = Box.around(head.mask)
    mask = np.ascontiguousarray(head.mask[box.slices])
    image = np.empty((len(case.images), *box.shape), np.float32)

    def fill(channel: int, sequence: str) -> None:
        inside = turn_array(case.images[sequence].array, how)[box.slices]
        own = head.air[sequence].find_foreground(inside)
        image[channel] = normalise(inside, mask, own, f"case {case.name}: {sequence}", normalisation)

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(len(image)), case.images))
    d, h, w = head.mask.shape
    return Prepared(image, tuple(case.images), mask, box, (d, h, w), how, head.skull, head.around)


def find_head(case: Case, how: Turn) -> Foreground:
    """The head or brain of a case, on its upright grid.

    Raises:
        ImageError: no voxel differs from the background.
    """
    d, h, w = (case.reference.spacing_mm[axis] for axis in how.axes)
    found = find_foreground({name: turn_array(volume.array, how) for name, volume in case.images.items()}, (d, h, w))
    if not found.mask.any():
        raise ImageError(f"case {case.name}: no image differs from its background; give it images of a brain")
    return found


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
