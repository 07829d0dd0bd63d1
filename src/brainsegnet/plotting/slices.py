"""Which slices of a case to show, how they are cut, and a black sheet of such pictures to one scale.

Slices are turned by the affine into the radiological view, whatever the order of the file: the patient's right is at
the left of the picture, the nose is up in axial slices and at the left in sagittal ones.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from brainsegnet._types import Array
from brainsegnet.plotting.render import literal
from brainsegnet.preprocessing.geometry import Turn, find_turn, turn_array
from brainsegnet.volume import Box, Volume

Picture = NDArray[np.float64]
"""(H, W) or (H, W, 3), between 0 and 1."""
Rgb = tuple[float, float, float]
Views = Literal["auto", "planes", "slices", "slice"]
"""One "slice", three parallel "slices", the three "planes"; "auto": planes unless the slices of the scan are thick."""

PLANES = ("axial", "coronal", "sagittal")
MARGIN_VOXELS = 4
THICK = 2.5
"""Slices this many times as far apart as their pixels make poor pictures in the other two planes."""


@dataclass(frozen=True)
class View:
    """One slice of a turned array: `plane` 0 axial, 1 coronal, 2 sagittal, and the index along it."""

    plane: int
    index: int

    def cut(self, array: Array) -> Array:
        """The slice (H, W) as it is shown, of a turned array (superior, posterior, left)."""
        plane: Array = array.take(self.index, self.plane)
        return plane if self.plane == 0 else plane[::-1]

    def size_mm(self, spacing_mm: Sequence[float], shape: Sequence[int]) -> tuple[float, float]:
        """Height and width of the slice, of a turned array of this shape."""
        height, width = (shape[axis] * spacing_mm[axis] for axis in range(3) if axis != self.plane)
        return height, width


@dataclass(frozen=True)
class Scene:
    """How arrays on one grid are cut for a picture.

    Attributes:
        how: The turn that makes the axes of an array run to superior, posterior and left.
        spacing_mm: Distance of voxel centres along the turned axes.
        box: Of the brain, in the turned array.
        views: The slices to show, in the turned and cropped array.
    """

    how: Turn
    spacing_mm: tuple[float, ...]
    box: Box
    views: Sequence[View]

    def turn(self, array: Array) -> Array:
        """An array (D, H, W) of the file as (superior, posterior, left), cropped to the brain."""
        return turn_array(array, self.how)[self.box.slices]

    def grey(self, image: Volume) -> Picture:
        """An image between 0 and 1, from the 1st to the 99.5th percentile of the brain; what surrounds it is black."""
        turned = self.turn(image.array)
        brain = turned != image.array[0, 0, 0]
        low, high = np.percentile(turned[brain], (1, 99.5)) if brain.any() else (0.0, 1.0)
        grey = (turned - low) / max(high - low, 1e-12)
        return np.asarray(np.where(brain, np.clip(grey, 0, 1), 0.0), np.float64)


def arrange(image: Volume, guides: Sequence[Array], views: Views) -> Scene:
    """Choose slices through the most voxels of the first guide that is not empty, or of the brain if all are.

    Args:
        image: What differs from its corner is the brain.
        guides: Masks or labels (D, H, W), most important first.
        views: How many slices, in which planes.
    """
    how = find_turn(image.affine)
    known, *turned = (turn_array(array, how) > 0 for array in (image.array != image.array[0, 0, 0], *guides))
    brain = known | np.any(turned, axis=0)
    box = _box(brain)
    guide = next((guide for guide in turned if guide.any()), brain)[box.slices]
    spacing_mm = tuple(image.spacing_mm[axis] for axis in how.axes)
    return Scene(how, spacing_mm, box, _choose(guide, spacing_mm, views))


def _box(mask: Array) -> Box:
    d, h, w = mask.shape
    tight = Box.around(mask) if mask.any() else Box((0, 0, 0), (d, h, w))
    z, y, x = (max(0, a - MARGIN_VOXELS) for a in tight.start)
    d, h, w = (min(n, b + MARGIN_VOXELS) for b, n in zip(tight.stop, mask.shape, strict=True))
    return Box((z, y, x), (d, h, w))


def _choose(guide: Array, spacing_mm: Sequence[float], views: Views) -> list[View]:
    counts = [guide.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    thick = int(np.argmax(spacing_mm))
    is_thick = spacing_mm[thick] > THICK * min(spacing_mm)
    if views == "planes" or (views == "auto" and not is_thick):
        return [View(axis, fullest(counts[axis])) for axis in range(3)]
    axis = thick if is_thick else 0
    best = fullest(counts[axis])
    if views == "slice":
        return [View(axis, best)]
    return [View(axis, index) for index in _three(np.flatnonzero(counts[axis]), best, guide.shape[axis])]


def fullest(counts: Array) -> int:
    """The middle one of the slices that hold the most.

    >>> fullest(np.array([0, 3, 5, 5, 5, 1]))
    3
    """
    best = np.flatnonzero(counts == counts.max())
    return int(best[len(best) // 2])


def _three(hits: Array, fullest: int, slices: int) -> list[int]:
    """The fullest slice and two beside it, a third of the lesion's depth apart, from head to foot.

    >>> _three(np.arange(10, 40), 25, 60), _three(np.array([0]), 0, 20)
    ([35, 25, 15], [2, 1, 0])
    """
    step = max(1, len(hits) // 3)
    shift = int(fullest < step) - int(fullest + step >= slices)
    indices = (fullest + (place + shift) * step for place in (1, 0, -1))
    return [index for index in indices if 0 <= index < slices]


_COLUMN, _EDGE, _TOP, _GAP, _KEY_ROW = 2.4, 0.45, 1.1, 0.06, 0.27
"""Inches: width of a column, edges at left and right, head, gap between pictures, a row of the key."""
_SIDES = (("R", "L"), ("R", "L"), ("A", "P"))
_DIM = "0.65"


def sheet(
    scene: Scene,
    headings: Sequence[str],
    rows: Sequence[Sequence[Picture]],
    titles: tuple[str, str],
    tissues: Mapping[str, Rgb],
) -> Figure:
    """A black sheet of pictures (H, W, 3): a row for each view of the scene, a column for each heading.

    Args:
        scene: Views and spacing; all pictures have one scale in millimetres.
        headings: Above the columns.
        rows: Pictures as the views cut them.
        titles: Name of the case, and a line on the result.
        tissues: Names and colours of a key below, with at most one entry for each column in a row.
    """
    sizes_mm = [view.size_mm(scene.spacing_mm, scene.box.shape) for view in scene.views]
    inches_per_mm = _COLUMN / max(width for _, width in sizes_mm)
    heights = [height * inches_per_mm for height, _ in sizes_mm]
    tops = [_TOP + sum(heights[:row]) + row * _GAP for row in range(len(rows))]
    key_rows = math.ceil(len(tissues) / len(headings))
    width = 2 * _EDGE + len(headings) * (_COLUMN + _GAP) - _GAP
    height = tops[-1] + heights[-1] + 0.3 + key_rows * _KEY_ROW
    figure = Figure(figsize=(width, height), facecolor="black")
    for row, column in product(range(len(rows)), range(len(headings))):
        left, bottom = _EDGE + column * (_COLUMN + _GAP), height - tops[row] - heights[row]
        axes = figure.add_axes((left / width, bottom / height, _COLUMN / width, heights[row] / height))
        tall, wide = sizes_mm[row]
        axes.imshow(rows[row][column], extent=(0, wide, tall, 0), interpolation="bicubic")
        axes.set_axis_off()
        if row == 0:
            axes.set_title(literal(headings[column]), color="white", fontsize=11, pad=6)
        if column == 0:
            _mark_sides(axes, scene.views[row].plane)
            middle = (bottom + heights[row] / 2) / height
            name = PLANES[scene.views[row].plane]
            figure.text(0.22 / width, middle, name, color=_DIM, size=9, rotation=90, ha="center", va="center")
    _write_titles(figure, *titles)
    _draw_key(figure, tissues, key_rows)
    return figure


def _write_titles(figure: Figure, name: str, line: str) -> None:
    """The name of the case and a line on the result, made smaller where the sheet is narrow."""
    width, height = figure.get_size_inches()
    points = (width - 2 * _EDGE) * 72
    for text, top, size, em, colour in ((name, 0.32, 14, 0.72, "white"), (line, 0.60, 10, 0.58, _DIM)):
        fitting, weight = min(size, points / em / max(1, len(text))), "bold" if text is name else "normal"
        figure.text(_EDGE / width, 1 - top / height, literal(text), size=fitting, color=colour, weight=weight)


def _draw_key(figure: Figure, tissues: Mapping[str, Rgb], rows: int) -> None:
    figure.legend(
        handles=[Patch(facecolor=colour, label=literal(tissue)) for tissue, colour in tissues.items()],
        loc="lower center",
        ncols=math.ceil(len(tissues) / rows),
        frameon=False,
        labelcolor="white",
        fontsize=10,
        handlelength=1.0,
        handleheight=1.0,
    )


def _mark_sides(axes: Axes, plane: int) -> None:
    for place, side, align in zip((0.03, 0.97), _SIDES[plane], ("left", "right"), strict=True):
        axes.text(place, 0.96, side, color=_DIM, size=9, ha=align, va="top", transform=axes.transAxes)
