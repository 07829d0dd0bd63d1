"""A whole phantom from a seed: a case of four sequences and its labels, as a BRATS 2015 scan would be."""

import numpy as np

from brainsegnet.synthesis.anatomy import CENTRE_MM, Millimetres, Shape, grow_anatomy, spacing_for
from brainsegnet.synthesis.appearance import paint
from brainsegnet.synthesis.tumour import grow_tumour
from brainsegnet.volume import Affine, Case, LabelMap, Volume

DEMO_SHAPE: Shape = (72, 136, 112)
"""Voxels of 2.1 x 1.4 x 1.4 mm, 1.1 million in all."""


def grow_phantom(seed: int, shape: Shape = DEMO_SHAPE, name: str | None = None) -> Case:
    """A head with a glioma: flair, t1, t1c and t2 as int16, and labels of BRATS 2015, all (D, H, W).

    Anatomy, tumour and appearance draw from streams of their own, spawned in this order from the seed.

    Args:
        seed: The same seed, shape and kind of processor give the same arrays, bit for bit.
        shape: (D, H, W); the spacing follows, so that the head keeps its size.
        name: Name of the case; `phantom` and the seed in four digits if None.

    Raises:
        ImageError: the shape is below `anatomy.SMALLEST_SHAPE`.

    >>> case = grow_phantom(3, (24, 40, 33))
    >>> case.name, list(case.images), case.reference.shape
    ('phantom0003', ['flair', 't1', 't1c', 't2'], (24, 40, 33))
    >>> np.unique(case.lesion.array).tolist()
    [0, 1, 2, 3, 4]
    """
    for_anatomy, for_tumour, for_appearance = np.random.default_rng(seed).spawn(3)
    spacing_mm = spacing_for(shape)
    growth = grow_tumour(for_tumour, grow_anatomy(for_anatomy, shape), spacing_mm)
    affine = affine_for(shape, spacing_mm)
    images = {sequence: Volume(array, affine) for sequence, array in paint(for_appearance, growth, spacing_mm).items()}
    return Case(f"phantom{seed:04d}" if name is None else name, images, LabelMap(growth.lesion, affine))


def affine_for(shape: Shape, spacing_mm: Millimetres) -> Affine:
    """Index (d, h, w, 1) to (x, y, z) in millimetres: slices run upwards, rows to the back, columns to the left.

    >>> affine_for((3, 5, 5), (2.0, 1.0, 1.0)).tolist()
    [[0.0, 0.0, 1.0, -2.0], [0.0, 1.0, 0.0, -2.0], [2.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]]
    """
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = spacing_mm
    affine[[2, 1, 0], 3] = [c - s * (n - 1) / 2 for c, s, n in zip(CENTRE_MM, spacing_mm, shape, strict=True)]
    affine[3, 3] = 1
    return affine
