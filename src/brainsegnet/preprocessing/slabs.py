"""A scan in slabs of slices: the paper samples 12 of 155 slices for training and segments 31 at a time."""

from collections.abc import Sequence

import numpy as np

from brainsegnet.volume import Array


def slab_starts(depth: int, thickness: int) -> tuple[int, ...]:
    """First slice of each slab: side by side, the last slides back to fit; one slab at 0 if the scan is thinner.

    Raises:
        ValueError: `depth` or `thickness` is less than 1.

    The paper's figures ("Training details" and "Testing"), 155 slices in slabs of 12 and of 31:

    >>> len(slab_starts(155, 12)), slab_starts(155, 12)[-2:]
    (13, (132, 143))
    >>> slab_starts(155, 31)
    (0, 31, 62, 93, 124)
    >>> slab_starts(20, 7), slab_starts(5, 7)
    ((0, 7, 13), (0,))
    """
    if depth < 1 or thickness < 1:
        raise ValueError(f"slabs need at least one slice, not {thickness} of {depth}")
    return tuple(min(start, max(depth - thickness, 0)) for start in range(0, depth, thickness))


def cut(x: Array, thickness: int) -> list[Array]:
    """Views of `x` (..., D, H, W), each (..., thickness, H, W), or (..., D, H, W) if the scan is thinner.

    >>> [slab.ravel().tolist() for slab in cut(np.arange(5).reshape(5, 1, 1), 2)]
    [[0, 1], [2, 3], [3, 4]]
    """
    return [x[..., start : start + thickness, :, :] for start in slab_starts(x.shape[-3], thickness)]


def stitch(slabs: Sequence[Array], depth: int) -> Array:
    """The whole (..., D, H, W) from what `cut` made of it; where the last slab overlaps, the last one wins.

    Raises:
        ValueError: these are not the slabs of so many slices.
    """
    starts = slab_starts(depth, slabs[0].shape[-3])
    if len(starts) != len(slabs):
        raise ValueError(f"{depth} slices make {len(starts)} slabs of {slabs[0].shape[-3]}, not {len(slabs)}")
    whole = np.empty((*slabs[0].shape[:-3], depth, *slabs[0].shape[-2:]), slabs[0].dtype)
    for start, slab in zip(starts, slabs, strict=True):
        whole[..., start : start + slab.shape[-3], :, :] = slab
    return whole
