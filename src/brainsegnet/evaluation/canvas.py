"""A black sheet of pictures to one scale: headings above, names and sides of the slices beside, a key below."""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from brainsegnet.evaluation.slices import PLANES, Scene

Rgb = tuple[float, float, float]
Picture = NDArray[np.float64]

_COLUMN, _EDGE, _TOP, _GAP, _KEY_ROW = 2.4, 0.45, 1.1, 0.06, 0.27
"""Inches: width of a column, edges at left and right, head, gap between pictures, a row of the key."""
_SIDES = (("R", "L"), ("R", "L"), ("A", "P"))
_DIM = "0.65"
_NAME: dict[str, Any] = {"color": "white", "weight": "bold"}
_LINE: dict[str, Any] = {"color": _DIM}


def sheet(scene: Scene, headings: Sequence[str], rows: Sequence[Sequence[Picture]], key_rows: int = 1) -> Figure:
    """Rows of pictures (H, W, 3), a row for each view of the scene and a column for each heading.

    Args:
        scene: Views and spacing; all pictures have one scale in millimetres.
        headings: Above the columns.
        rows: Pictures as the views cut them.
        key_rows: Height to leave below, in rows of the key.
    """
    sizes_mm = [view.size_mm(scene.spacing_mm, scene.box.shape) for view in scene.views]
    inches_per_mm = _COLUMN / max(width for _, width in sizes_mm)
    heights = [height * inches_per_mm for height, _ in sizes_mm]
    tops = [_TOP + sum(heights[:row]) + row * _GAP for row in range(len(rows))]
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
            axes.set_title(_plain(headings[column]), color="white", fontsize=11, pad=6)
        if column == 0:
            _mark_sides(axes, scene.views[row].plane)
            middle = (bottom + heights[row] / 2) / height
            name = PLANES[scene.views[row].plane]
            figure.text(0.22 / width, middle, name, color=_DIM, size=9, rotation=90, ha="center", va="center")
    return figure


def title(figure: Figure, name: str, line: str) -> None:
    """The name of the case and a line on the result, made smaller where the sheet is narrow."""
    width, height = figure.get_size_inches()
    points = (width - 2 * _EDGE) * 72
    for text, top, size, em, style in ((name, 0.32, 14, 0.72, _NAME), (line, 0.60, 10, 0.58, _LINE)):
        fitting = min(size, points / em / max(1, len(text)))
        figure.text(_EDGE / width, 1 - top / height, _plain(text), size=fitting, **style)


def key_rows(entries: int, columns: int) -> int:
    """Rows of a key with one entry below each column of the sheet.

    >>> key_rows(4, columns=6), key_rows(4, columns=3)
    (1, 2)
    """
    return math.ceil(entries / columns)


def key(figure: Figure, tissues: Mapping[str, Rgb], columns: int) -> None:
    """Name and colour of the tissues below the pictures."""
    figure.legend(
        handles=[Patch(facecolor=colour, label=_plain(tissue)) for tissue, colour in tissues.items()],
        loc="lower center",
        ncols=math.ceil(len(tissues) / key_rows(len(tissues), columns)),
        frameon=False,
        labelcolor="white",
        fontsize=10,
        handlelength=1.0,
        handleheight=1.0,
    )


def _mark_sides(axes: Axes, plane: int) -> None:
    for place, side, align in zip((0.03, 0.97), _SIDES[plane], ("left", "right"), strict=True):
        axes.text(place, 0.96, side, color=_DIM, size=9, ha=align, va="top", transform=axes.transAxes)


def _plain(text: str) -> str:
    """Dollar signs as themselves: matplotlib would set what lies between two of them as a formula."""
    return text.replace("$", r"\$")
