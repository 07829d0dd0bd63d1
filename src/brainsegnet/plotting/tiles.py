"""A white page of equal black tiles, as a journal prints them: headings above, names of the rows at the left."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage

from brainsegnet._types import Array
from brainsegnet.plotting.slices import Picture, Rgb

PIXELS_PER_MM = 3.0
TILE, GAP, SIDE, EDGE = 1.15, 0.04, 0.36, 0.06
"""Inches: width of a tile, gap between two, room for the names of the rows, white border."""
HEAD, KEY, NOTE_LINE = 0.22, 0.26, 0.115
DPI = 300
INK, FAINT = "0.1", "0.42"
_LINE, _NOTE, _WIDTH = 8.0, 6.5, 0.56
"""Points of the text and of the note below, and the mean width of a letter in those."""


def enlarge(plane: Array, spacing_mm: tuple[float, float], smooth: bool) -> Array:
    """A slice (H, W) at `PIXELS_PER_MM`, square pixels; labels keep their values where `smooth` is off.

    >>> enlarge(np.array([[0, 4]]), (1.0, 1.0), smooth=False).tolist()
    [[0, 0, 0, 4, 4, 4], [0, 0, 0, 4, 4, 4], [0, 0, 0, 4, 4, 4]]
    """
    pixels = [max(1, round(n * mm * PIXELS_PER_MM)) for n, mm in zip(plane.shape, spacing_mm, strict=True)]
    places = [(np.arange(count) + 0.5) * n / count - 0.5 for count, n in zip(pixels, plane.shape, strict=True)]
    grid = np.stack(np.meshgrid(*places, indexing="ij"))
    return np.asarray(ndimage.map_coordinates(plane, grid, order=1 if smooth else 0, mode="nearest"))


def centre(picture: Picture, size: tuple[int, int]) -> Picture:
    """A picture (H, W, 3) in the middle of a black one of `size`, which is no smaller.

    >>> centre(np.ones((1, 1, 3)), (3, 3))[:, :, 0].tolist()
    [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    room = [(whole - part) for whole, part in zip(size, picture.shape[:2], strict=True)]
    return np.pad(picture, [*((space // 2, space - space // 2) for space in room), (0, 0)])


def page(
    rows: Sequence[Sequence[Picture]], caption: str, tissues: Mapping[str, Rgb] | None = None, right: float = EDGE
) -> tuple[Figure, list[list[Axes]]]:
    """A white page with a tile for each picture (H, W, 3), all of one scale.

    Args:
        rows: Pictures row by row, equally many in each.
        caption: A faint note below, wrapped.
        tissues: Names and colours of a key above the note.
        right: Inches to leave at the right.

    Returns:
        The figure and the axes of the tiles.
    """
    pictures = [picture for row in rows for picture in row]
    size = max(p.shape[0] for p in pictures), max(p.shape[1] for p in pictures)
    tall, columns = TILE * size[0] / size[1], max(map(len, rows))
    wide = SIDE + columns * (TILE + GAP) - GAP + right
    lines = textwrap.wrap(caption, int((wide - SIDE - EDGE) * 72 / _NOTE / 0.53))
    foot = (KEY if tissues else 0.0) + 0.07 + len(lines) * NOTE_LINE
    high = EDGE + HEAD + len(rows) * (tall + GAP) - GAP + foot + EDGE
    figure = Figure(figsize=(wide, high), facecolor="white", dpi=DPI)
    grid = []
    for number, row in enumerate(rows):
        bottom = high - EDGE - HEAD - (number + 1) * tall - number * GAP
        lefts = [SIDE + column * (TILE + GAP) for column in range(len(row))]
        tiled = [figure.add_axes((x / wide, bottom / high, TILE / wide, tall / high)) for x in lefts]
        for axes, picture in zip(tiled, row, strict=True):
            axes.imshow(centre(picture, size), aspect="auto")
            axes.set_axis_off()
        grid.append(tiled)
    for place, side, align in ((0.04, "R", "left"), (0.96, "L", "right")):
        write(grid[0][0], place, 0.97, side, color="0.75", size=_NOTE, ha=align, va="top")
    for number, line in enumerate(reversed(lines)):
        at = (EDGE + number * NOTE_LINE) / high
        figure.text(SIDE / wide, at, line.replace("$", r"\$"), color=FAINT, size=_NOTE, va="bottom")
    if tissues:
        _key(figure, tissues, (EDGE + len(lines) * NOTE_LINE + 0.08) / high, (SIDE + (wide - right)) / 2 / wide)
    return figure, grid


def write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:  # noqa: ANN401
    """Text at a place of a tile, (0, 0) its lower left and (1, 1) its upper right corner; dollar signs stay."""
    axes.text(x, y, text.replace("$", r"\$"), transform=axes.transAxes, **style)


def head(axes: Axes, text: str, line: str = "") -> None:
    """A heading above a tile; `line` stands fainter behind it."""
    whole = f"{text}  {line}" if line else text
    write(axes, 0.5, 1.03, whole, color=INK, size=_fit(whole, TILE), ha="center", va="bottom")


def name_row(axes: Axes, text: str, line: str = "") -> None:
    """The name of a row, upright at the left of its first tile; `line` stands fainter beside it."""
    inches = axes.get_position().height * axes.figure.get_figure(root=True).get_size_inches()[1]
    for place, words, colour in ((-0.2, text, INK), (-0.08, line, FAINT)):
        at = place if line else -0.12
        write(axes, at, 0.5, words, color=colour, size=_fit(words, inches), rotation=90, ha="center", va="center")


def _key(figure: Figure, tissues: Mapping[str, Rgb], bottom: float, middle: float) -> None:
    """Colours and their names in a row."""
    figure.legend(
        handles=[Patch(facecolor=c, edgecolor="0.45", linewidth=0.5, label=t) for t, c in tissues.items()],
        loc="lower center",
        bbox_to_anchor=(middle, bottom),
        ncols=len(tissues),
        frameon=False,
        labelcolor=INK,
        fontsize=_LINE,
        handlelength=1.0,
        handleheight=1.0,
        handletextpad=0.5,
        columnspacing=1.6,
        borderpad=0,
        borderaxespad=0,
    )


def colour_bar(figure: Figure, beside: Axes, colormap: str, label: str) -> None:
    """The colours of 0 to 1, upright at the right of a tile."""
    width, height = figure.get_size_inches()
    box = beside.get_position()
    axes = figure.add_axes((box.x1 + 0.06 / width, box.y0, 0.08 / width, box.height))
    bar = figure.colorbar(ScalarMappable(cmap=colormap), cax=axes, ticks=[0, 0.25, 0.5, 0.75, 1], format="%g")
    bar.ax.tick_params(colors=INK, labelsize=_NOTE, length=0, pad=2)
    bar.ax.spines[:].set_visible(False)
    write(axes, 0.0, 1 + 0.06 / (box.height * height), label, color=INK, size=_NOTE, ha="left", va="bottom")


def _fit(text: str, inches: float) -> float:
    """Points at which a line fits into a width."""
    return min(_LINE, inches * 72 / _WIDTH / max(1, len(text)))
