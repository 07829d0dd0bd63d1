"""Mirroring at test time: the mean of what a network finds in a scan and in its mirror images.

Training mirrors its samples along rows and columns ("Data augmentation", `training.ranges`; most recipes along slices
too), so a mirrored scan is to the network like any other, and its errors there differ. The paper takes one pass; this
takes four.
"""

import numpy as np

from brainsegnet.inference.passes import Floats, Passes

MIRRORS = ((2,), (3,), (2, 3))
"""Axes of (C, D, H, W) along which the passes after the first see the scan mirrored: rows, columns, both."""


def mirrored_probabilities(passes: Passes, image: Floats, slabs: int | None = None) -> Floats:
    """The mean of the soft-max probabilities (K, D, H, W) of four passes, each turned back.

    Arguments, errors and `notes` as `Passes.probabilities`, each note once.
    """
    total = passes.probabilities(image, slabs)
    notes = passes.notes
    for axes in MIRRORS:
        total += np.flip(passes.probabilities(_mirror(image, axes), slabs), axes)
        notes = [*notes, *passes.notes]
    passes.notes = list(dict.fromkeys(notes))
    total /= 1 + len(MIRRORS)
    return total


def _mirror(image: Floats, axes: tuple[int, ...]) -> Floats:
    """The image (C, D, H, W) mirrored along some axes, where it lies."""
    return np.flip(image, axes) if isinstance(image, np.ndarray) else image.mirrored(axes)
