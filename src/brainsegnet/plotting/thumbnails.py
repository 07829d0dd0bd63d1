"""Thumbnails: three small slices of a result side by side, with the lesion in colour and the outline of the brain."""

import io
from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from brainsegnet._types import Array, Mask
from brainsegnet.errors import GridMismatch
from brainsegnet.plotting.overlays import overlay
from brainsegnet.plotting.slices import Picture, Rgb, arrange, enlarge
from brainsegnet.volume import LabelMap, Volume

CELL, VIEWS = 120, 3
"""Pixels of the square for each slice, and the number of slices."""
SIZE = (CELL * VIEWS, CELL)
"""Width and height of a thumbnail in pixels."""
BRAIN: Rgb = (0.2, 1.0, 0.45)
"""Colour of the outline of the brain."""
_FILL = 0.35
"""Opacity of the lesion within its outline."""
_QUALITY = 60


def draw_thumbnail(
    labels: LabelMap, palette: Mapping[int, Rgb], image: Volume | None = None, brain: Mask | None = None
) -> bytes:
    """A WebP of `SIZE` pixels: an axial, a coronal and a sagittal slice, or three parallel ones where slices are thick.

    The slices are those with the most lesion, or with the most brain where there is none. The patient's right is at the
    left of the picture.

    Args:
        labels: The label map.
        palette: Label value to colour.
        image: The scan on the same grid; None draws labels on black.
        brain: Voxels (D, H, W) of the brain on the same grid; None draws no outline.

    Raises:
        GridMismatch: image and label map differ in shape.
    """
    scan = Volume(np.zeros(labels.shape, np.uint8), labels.affine) if image is None else image
    if scan.shape != labels.shape:
        raise GridMismatch(f"the label map is {labels.shape} but the scan is {scan.shape}")
    scene = arrange(scan, [labels.array], "auto")
    lesion, inside = scene.turn(labels.array), None if brain is None else scene.turn(brain)
    sizes_mm = [view.size_mm(scene.spacing_mm, scene.box.shape) for view in scene.views]
    per_mm = CELL / max(mm for size in sizes_mm for mm in size)
    sheet = np.zeros((SIZE[1], SIZE[0], 3))
    for number, (view, grey, size_mm) in enumerate(zip(scene.views, scene.cut_grey(scan), sizes_mm, strict=True)):
        high, wide = (min(max(round(mm * per_mm), 1), CELL) for mm in size_mm)
        top, left = (CELL - high) // 2, CELL * number + (CELL - wide) // 2
        mask = None if inside is None else view.cut(inside)
        sheet[top : top + high, left : left + wide] = _draw(grey, view.cut(lesion), mask, (high, wide), palette)
    return _to_webp(sheet)


def _draw(
    grey: Picture, labels: Array, brain: Mask | None, pixels: tuple[int, int], palette: Mapping[int, Rgb]
) -> Picture:
    """A slice (H, W) with its labels and the outline of the brain, on a grid of `pixels`."""
    blocks = [max(n // wanted, 1) for n, wanted in zip(grey.shape, pixels, strict=True)]
    lesion = enlarge(labels, pixels, smooth=False)
    picture = overlay(enlarge(ndimage.uniform_filter(grey, blocks), pixels, smooth=True), lesion, palette, _FILL)
    if brain is not None:
        mask = enlarge(brain, pixels, smooth=False)
        picture[mask & ~ndimage.binary_erosion(mask) & (lesion == 0)] = BRAIN
    return picture


def _to_webp(picture: Picture) -> bytes:
    from matplotlib.image import imsave

    memory = io.BytesIO()
    imsave(memory, picture, format="webp", pil_kwargs={"quality": _QUALITY})
    return memory.getvalue()
