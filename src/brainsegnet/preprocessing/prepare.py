"""From a case to what the network sees, and from classes back to the case's grid."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainsegnet.preprocessing.brain import brain_mask, find_background, put_back
from brainsegnet.preprocessing.intensity import check_case, normalise
from brainsegnet.preprocessing.orientation import Turn, find_turn, turn_array
from brainsegnet.volume import Array, Box, Case


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case upright, cropped to the brain and normalised.

    Attributes:
        image: (C, d, h, w) of the box, 0 outside the brain. Where a GPU prepared it, it stays there, in something that
            is sliced like an array and comes down as one where numpy asks for it.
        sequences: Name of each channel.
        mask: The brain (d, h, w) in the box.
        box: Where the box lies in the upright scan.
        shape: (D, H, W) of the upright scan.
        turn: How the scan came upright.
    """

    image: NDArray[np.float32]
    sequences: tuple[str, ...]
    mask: NDArray[np.bool_]
    box: Box
    shape: tuple[int, int, int]
    turn: Turn


def prepare(case: Case) -> Prepared:
    """Check a case, bring it upright, crop it to the brain and normalise each sequence.

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
        image[channel] = normalise(inside, mask, find_background(array), f"case {case.name}: {sequence}")

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(len(image)), case.images))
    d, h, w = whole_mask.shape
    return Prepared(image, tuple(case.images), mask, box, (d, h, w), how)


def follow(array: Array, prepared: Prepared) -> Array:
    """An array (..., D, H, W) on the case's grid, such as its lesion, turned and cropped as the case was: a view."""
    return turn_array(array, prepared.turn)[(..., *prepared.box.slices)]


def restore(array: Array, prepared: Prepared) -> Array:
    """Classes or probabilities (..., d, h, w) of the box on the case's grid (..., D, H, W), 0 outside the box.

    Raises:
        ValueError: the array has not the shape of the box.
    """
    if array.shape[-3:] != prepared.box.shape:
        raise ValueError(f"the box is {prepared.box.shape}, this array is {array.shape}")
    return np.ascontiguousarray(turn_array(put_back(array, prepared.box, prepared.shape), prepared.turn.inverse))
