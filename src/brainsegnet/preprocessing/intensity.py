"""Intensities as the network sees them, and the images that no network should see."""

import numpy as np
from numpy.typing import NDArray

from brainsegnet.errors import ImageError
from brainsegnet.preprocessing.brain import find_foreground
from brainsegnet.volume import Array, Case

NEARLY_ZERO = np.float32(1e-6)
"""What the median becomes, so that 0 says outside the brain."""


def check_case(case: Case) -> None:
    """Refuse images that cannot be normalised.

    Raises:
        ImageError: an image is empty, constant, or holds NaN or infinite values; the text names case and sequence.
    """
    for sequence, volume in case.images.items():
        _check_image(volume.array, f"case {case.name}: {sequence}")


def normalise(
    array: Array, mask: NDArray[np.bool_], background: float | None = None, name: str = "the image"
) -> NDArray[np.float32]:
    """Median 0 and standard deviation 1 over the brain; exactly 0 outside it and nowhere else.

    The median, and not the mean, is brought to 0: a large lesion moves the mean away from the healthy tissue. A
    sequence may cover less than the brain of the others: where it is `background` it does not count.

    Args:
        array: Intensities (D, H, W).
        mask: The brain (D, H, W).
        background: The sequence's value outside the brain, or None.
        name: What it is called in the message.

    Raises:
        ImageError: the image has but one value in the brain.

    >>> normalise(np.array([[[0, 0, 1, 3]]]), np.array([[[False, True, True, True]]]), 0).tolist()
    [[[0.0, -2.0, -1.0, 1.0]]]
    """
    counted = array[mask & find_foreground(array, background)]
    centre = float(np.median(counted)) if counted.size else 0.0
    deviation = counted.std(dtype=np.float64) if counted.size else 0.0
    refuse_flat(centre, float(deviation), name)
    scaled = array.astype(np.float32, order="C")
    scaled -= np.float32(centre)
    scaled *= np.float32(1 / deviation)
    np.copyto(scaled, NEARLY_ZERO, where=scaled == 0)
    np.copyto(scaled, 0, where=~mask)
    return scaled


def refuse_flat(centre: float, deviation: float, name: str) -> None:
    """Refuse an image that has no contrast, of this median and standard deviation in the brain.

    Raises:
        ImageError: it has but one value there.
    """
    if not deviation > 1e-6 * abs(centre):
        raise ImageError(f"{name} has one value in the whole brain, {centre:g}; replace it or leave it out")


def _check_image(array: Array, name: str) -> None:
    if array.size == 0:
        raise ImageError(f"{name} is empty, its shape is {array.shape}; replace it or leave it out")
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        count = array.size - np.count_nonzero(np.isfinite(array))
        raise ImageError(f"{name} holds {count} NaN or infinite values; mend them, or leave it out")
    if low == high:
        raise ImageError(f"{name} is {low:g} everywhere; replace it or leave it out")
