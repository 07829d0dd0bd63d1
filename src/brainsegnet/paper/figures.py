"""The paper's Figures 4 and 5 drawn from slices of any cases: models beside the truth, and probability as colours.

Both are white pages of equal black tiles, as a journal prints them: headings above, names of the rows at the left.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from brainsegnet._types import Array
from brainsegnet.errors import DatasetError, ImageError
from brainsegnet.plotting import DrawingOptions
from brainsegnet.plotting.marks import Marks, draw_marks
from brainsegnet.plotting.overlays import MARGIN, Tile, draw_outlines, heat_over, overlay, shades, spelt
from brainsegnet.plotting.palettes import colours
from brainsegnet.plotting.slices import Picture, Rgb, enlarge, literal
from brainsegnet.task import ISLES2022, Task

SEQUENCES = ("flair", "t1c", "t2")
"""The columns of Figure 4 before those of the models."""
TRUTH = "truth"
COLORMAP = "plasma"
DPI = 300
PIXELS_PER_MM = 3.0
_TILE, _GAP, _SIDE, _EDGE, _BAR = 1.15, 0.04, 0.36, 0.06, 0.54
"""Inches: width of a tile, gap between two, room for the names of the rows, white border, room for a colour bar."""
_HEAD, _KEY, _NOTE_LINE = 0.22, 0.26, 0.115
_INK, _FAINT = "0.1", "0.42"
_LINE, _NOTE, _MARK, _LETTER = 8.0, 6.5, 5.0, 0.56
"""Points of the text, of the note below and of the marks; the mean width of a letter as a share of them."""
_THIN = 0.5
"""Width of outlines, as a share of that in pictures of one case."""


@dataclass(frozen=True)
class Strip:
    """One axial slice of a case in the radiological view, with the layers that are drawn on it.

    Attributes:
        case: Name of the case.
        index: Number of the slice, counted from 0 at the feet.
        why: Why this slice was chosen.
        spacing_mm: Spacing of rows and columns in mm.
        greys: Sequence to slice (H, W) between 0 and 1.
        layers: Heading to labels or probabilities (H, W). The truth, if known, is called `TRUTH`.
        marks: What is written on each tile of the slice.
    """

    case: str
    index: int
    why: str
    spacing_mm: tuple[float, float]
    greys: Mapping[str, Array]
    layers: Mapping[str, Array] = field(default_factory=dict)
    marks: Marks | None = None


def comparison_figure(
    strips: Sequence[Strip],
    task: Task,
    sequences: Sequence[str] = SEQUENCES,
    drawing: DrawingOptions | None = None,
) -> Figure:
    """Figure 4: a row for each slice; columns are sequences, what each model found, and the truth.

    A sequence that no slice has is left out; one that some have is marked where it is absent. If the slices have none
    of the sequences, the first three that they have are shown.

    Raises:
        DatasetError: there is no slice.
    """
    there = list(dict.fromkeys(name for strip in strips for name in strip.greys))
    names = [name for name in sequences if name in there] or there[:3]
    layers = list(dict.fromkeys(name for strip in strips for name in strip.layers if name != TRUTH))
    layers += [TRUTH] if any(TRUTH in strip.layers for strip in strips) else []
    drawing = drawing or DrawingOptions()
    palette = colours(task, drawing.palette or "paper")
    rows = [
        [Tile(_grey(s, n), marks=s.marks) for n in names]
        + [_draw_labels(s, n, names[0], palette, drawing) for n in layers]
        for s in strips
    ]
    tissues = {tissue: palette[value] for value, tissue in task.labels.items()}
    figure, grid = _page(rows, describe(strips), palette, tissues)
    for number, heading in enumerate([*map(spelt, names), *layers]):
        _head(grid[0][number], f"({chr(97 + number)}) {heading}")
    for strip, tiles in zip(strips, grid, strict=True):
        _name_row(tiles[0], strip.case, f"slice {strip.index}")
        for tile, name in zip(tiles, [*names, *layers], strict=True):
            if name not in {**strip.greys, **strip.layers}:
                _write(tile, 0.5, 0.5, f"no {spelt(name) if name in there else name}", color="0.6", size=7, ha="center")
    return figure


def probability_row_figure(strips: Sequence[Strip], layer: str, drawing: DrawingOptions | None = None) -> Figure:
    """Figure 5: a column for each slice; the truth above, the predicted probability as a colour map below.

    Both lie over the first sequence of each case. `layer` is the name of the probabilities, between 0 and 1.

    Raises:
        DatasetError: there is no slice.
        ImageError: a probability lies outside 0 to 1.
    """
    drawing = drawing or DrawingOptions()
    known = any(TRUTH in strip.layers for strip in strips)
    truth = colours(ISLES2022, drawing.palette or "paper")
    heats = [Tile(_heat(strip, layer), marks=strip.marks) for strip in strips]
    rows = [[_draw_truth(strip, truth, drawing) for strip in strips], heats]
    figure, grid = _page(rows, describe(strips), truth, right=_EDGE + _BAR)
    for strip, upper in zip(strips, grid[0], strict=True):
        _head(upper, strip.case, f"slice {strip.index}")
    _name_row(grid[0][0], "truth" if known else spelt(next(iter(strips[0].greys))))
    _name_row(grid[1][0], "prediction")
    _colour_bar(figure, grid[1][-1], "probability")
    return figure


def describe(strips: Sequence[Strip]) -> str:
    """Which slices are shown and why, in one sentence."""
    reasons: dict[str, list[str]] = {}
    for strip in strips:
        reasons.setdefault(strip.why, []).append(f"{strip.case}: {strip.index}")
    whys = "; ".join(reasons) if len(reasons) == 1 else "; ".join(f"{w} ({', '.join(r)})" for w, r in reasons.items())
    which = f" {', '.join(next(iter(reasons.values())))}." if len(reasons) == 1 else ""
    return f"Axial slice (0 at the feet) {whys}; right side of the patient at the left.{which}"


def _enlarge(strip: Strip, plane: Array, smooth: bool) -> Array:
    """A slice (H, W) at `PIXELS_PER_MM`, square pixels; labels keep their values where `smooth` is off."""
    rows, columns = (max(1, round(n * mm * PIXELS_PER_MM)) for n, mm in zip(plane.shape, strip.spacing_mm, strict=True))
    return enlarge(plane, (rows, columns), smooth)


def _grey(strip: Strip, name: str | None = None) -> Picture:
    """A sequence, by default the first; black of the same size where the case lacks it."""
    first, *_ = strip.greys.values()
    plane = first if name is None else strip.greys.get(name, np.zeros_like(first))
    return shades(_enlarge(strip, plane, smooth=True))


def _draw_labels(strip: Strip, name: str, under: str, palette: Mapping[int, Rgb], drawing: DrawingOptions) -> Tile:
    if name not in strip.layers:
        return Tile(_grey(strip, ""))
    return _draw_over(strip, _grey(strip, under), strip.layers[name], palette, drawing)


def _draw_truth(strip: Strip, palette: Mapping[int, Rgb], drawing: DrawingOptions) -> Tile:
    if TRUTH not in strip.layers:
        return Tile(_grey(strip), marks=strip.marks)
    return _draw_over(strip, _grey(strip), (strip.layers[TRUTH] > 0).astype(np.uint8), palette, drawing)


def _draw_over(
    strip: Strip, under: Picture, labels: Array, palette: Mapping[int, Rgb], drawing: DrawingOptions
) -> Tile:
    if drawing.outline:
        return Tile(under, labels, strip.marks)
    return Tile(overlay(under[..., 0], _enlarge(strip, labels, smooth=False), palette, 1.0), labels, strip.marks)


def _heat(strip: Strip, layer: str) -> Picture:
    probability = strip.layers[layer]
    low, high = float(probability.min()), float(probability.max())
    if not (low >= 0 and high <= 1):
        raise ImageError(f"case {strip.case}: probabilities lie between 0 and 1, not {low:.3g} and {high:.3g}")
    heat = _enlarge(strip, np.asarray(probability, np.float64), smooth=True)
    return heat_over(_grey(strip)[..., 0], heat, COLORMAP)


def _page(
    rows: Sequence[Sequence[Tile]],
    caption: str,
    palette: Mapping[int, Rgb],
    tissues: Mapping[str, Rgb] | None = None,
    right: float = _EDGE,
) -> tuple[Figure, list[list[Axes]]]:
    """A white page of tiles, all of one scale, and their axes. The labels have the colours of the palette.

    The caption is a faint note below, with a key of the tissues above it; `right` inches are left at the right.
    """
    pictures = [tile.picture for row in rows for tile in row]
    if not pictures:
        raise DatasetError("there is no slice to show; name at least one case")
    margin = round(MARGIN * max(p.shape[1] for p in pictures))
    size = max(p.shape[0] for p in pictures) + 2 * margin, max(p.shape[1] for p in pictures) + 2 * margin
    tall, columns = _TILE * size[0] / size[1], max(map(len, rows))
    wide = _SIDE + columns * (_TILE + _GAP) - _GAP + right
    lines = textwrap.wrap(caption, int((wide - _SIDE - _EDGE) * 72 / _NOTE / 0.53))
    foot = (_KEY if tissues else 0.0) + 0.07 + len(lines) * _NOTE_LINE
    high = _EDGE + _HEAD + len(rows) * (tall + _GAP) - _GAP + foot + _EDGE
    figure = Figure(figsize=(wide, high), facecolor="white", dpi=DPI)
    grid = []
    for number, row in enumerate(rows):
        bottom = high - _EDGE - _HEAD - (number + 1) * tall - number * _GAP
        lefts = [_SIDE + column * (_TILE + _GAP) for column in range(len(row))]
        grid.append([figure.add_axes((x / wide, bottom / high, _TILE / wide, tall / high)) for x in lefts])
        for axes, tile in zip(grid[-1], row, strict=True):
            _draw_tile(axes, tile, size, palette)
    for number, line in enumerate(reversed(lines)):
        at = (_EDGE + number * _NOTE_LINE) / high
        figure.text(_SIDE / wide, at, literal(line), color=_FAINT, size=_NOTE, va="bottom")
    if tissues:
        _key(figure, tissues, (_EDGE + len(lines) * _NOTE_LINE + 0.08) / high, (_SIDE + (wide - right)) / 2 / wide)
    return figure, grid


def _draw_tile(axes: Axes, tile: Tile, size: tuple[int, int], palette: Mapping[int, Rgb]) -> None:
    """Draw a tile in the middle of a black picture of a size (H, W) in pixels."""
    room = [whole - part for whole, part in zip(size, tile.picture.shape[:2], strict=True)]
    (above, below), (left, beside) = ((space // 2, space - space // 2) for space in room)
    axes.imshow(np.pad(tile.picture, [(above, below), (left, beside), (0, 0)]), aspect="auto")
    if tile.labels is not None:
        extent = (left - 0.5, size[1] - beside - 0.5, size[0] - below - 0.5, above - 0.5)
        draw_outlines(axes, tile.labels, extent, palette, _THIN)
    axes.set_axis_off()
    if tile.marks:
        draw_marks(axes, tile.marks, _MARK, PIXELS_PER_MM)


def _write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:  # noqa: ANN401
    """Text at a place of a tile, (0, 0) its lower left and (1, 1) its upper right corner."""
    axes.text(x, y, literal(text), transform=axes.transAxes, **style)


def _head(axes: Axes, text: str, line: str = "") -> None:
    """A heading above a tile, followed by `line`."""
    whole = f"{text}  {line}" if line else text
    _write(axes, 0.5, 1.03, whole, color=_INK, size=_fit(whole, _TILE), ha="center", va="bottom")


def _name_row(axes: Axes, text: str, line: str = "") -> None:
    """The name of a row, upright at the left of its first tile; `line` stands fainter beside it."""
    inches = axes.get_position().height * axes.figure.get_figure(root=True).get_size_inches()[1]
    for place, words, colour in ((-0.2, text, _INK), (-0.08, line, _FAINT)):
        at = place if line else -0.12
        _write(axes, at, 0.5, words, color=colour, size=_fit(words, inches), rotation=90, ha="center", va="center")


def _key(figure: Figure, tissues: Mapping[str, Rgb], bottom: float, middle: float) -> None:
    """Colours and their names in a row."""
    figure.legend(
        handles=[Patch(facecolor=c, edgecolor="0.45", linewidth=0.5, label=literal(t)) for t, c in tissues.items()],
        loc="lower center",
        bbox_to_anchor=(middle, bottom),
        ncols=len(tissues),
        frameon=False,
        labelcolor=_INK,
        fontsize=_LINE,
        handlelength=1.0,
        handleheight=1.0,
        handletextpad=0.5,
        columnspacing=1.6,
        borderpad=0,
        borderaxespad=0,
    )


def _colour_bar(figure: Figure, beside: Axes, label: str) -> None:
    """The colours of 0 to 1, upright at the right of a tile."""
    width, height = figure.get_size_inches()
    box = beside.get_position()
    axes = figure.add_axes((box.x1 + 0.06 / width, box.y0, 0.08 / width, box.height))
    bar = figure.colorbar(ScalarMappable(cmap=COLORMAP), cax=axes, ticks=[0, 0.25, 0.5, 0.75, 1], format="%g")
    bar.ax.tick_params(colors=_INK, labelsize=_NOTE, length=0, pad=2)
    bar.ax.spines[:].set_visible(False)
    _write(axes, 0.0, 1 + 0.06 / (box.height * height), label, color=_INK, size=_NOTE, ha="left", va="bottom")


def _fit(text: str, inches: float) -> float:
    """Points at which a line fits into a width."""
    return min(_LINE, inches * 72 / _LETTER / max(1, len(text)))
