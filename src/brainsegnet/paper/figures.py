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
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage

from brainsegnet._types import Array
from brainsegnet.errors import DatasetError, ImageError
from brainsegnet.plotting.overlays import colours, heat_over, overlay, shades, spelt
from brainsegnet.plotting.slices import Picture, Rgb, literal
from brainsegnet.task import TISSUE_COLOURS, Task

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
_LINE, _NOTE, _LETTER = 8.0, 6.5, 0.56
"""Points of the text and of the note below, and the mean width of a letter as a share of them."""


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
    """

    case: str
    index: int
    why: str
    spacing_mm: tuple[float, float]
    greys: Mapping[str, Array]
    layers: Mapping[str, Array] = field(default_factory=dict)


def comparison_figure(strips: Sequence[Strip], task: Task, sequences: Sequence[str] = SEQUENCES) -> Figure:
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
    rows = [[_grey(s, n) for n in names] + [_labels(s, n, names[0], task) for n in layers] for s in strips]
    tissues = {tissue: colours(task)[value] for value, tissue in task.labels.items()}
    figure, grid = _page(rows, describe(strips), tissues)
    for number, heading in enumerate([*map(spelt, names), *layers]):
        _head(grid[0][number], f"({chr(97 + number)}) {heading}")
    for strip, tiles in zip(strips, grid, strict=True):
        _name_row(tiles[0], strip.case, f"slice {strip.index}")
        for tile, name in zip(tiles, [*names, *layers], strict=True):
            if name not in {**strip.greys, **strip.layers}:
                _write(tile, 0.5, 0.5, f"no {spelt(name) if name in there else name}", color="0.6", size=7, ha="center")
    return figure


def probability_row_figure(strips: Sequence[Strip], layer: str) -> Figure:
    """Figure 5: a column for each slice; the truth above, the predicted probability as a colour map below.

    Both lie over the first sequence of each case. `layer` is the name of the probabilities, between 0 and 1.

    Raises:
        DatasetError: there is no slice.
        ImageError: a probability lies outside 0 to 1.
    """
    known = any(TRUTH in strip.layers for strip in strips)
    rows = [[_truth(strip) for strip in strips], [_heat(strip, layer) for strip in strips]]
    figure, grid = _page(rows, describe(strips), right=_EDGE + _BAR)
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


def enlarge(plane: Array, spacing_mm: tuple[float, float], smooth: bool) -> Array:
    """A slice (H, W) at `PIXELS_PER_MM`, square pixels; labels keep their values where `smooth` is off.

    Examples:
        >>> enlarge(np.array([[0, 4]]), (1.0, 1.0), smooth=False).tolist()
        [[0, 0, 0, 4, 4, 4], [0, 0, 0, 4, 4, 4], [0, 0, 0, 4, 4, 4]]
    """
    pixels = [max(1, round(n * mm * PIXELS_PER_MM)) for n, mm in zip(plane.shape, spacing_mm, strict=True)]
    places = [(np.arange(count) + 0.5) * n / count - 0.5 for count, n in zip(pixels, plane.shape, strict=True)]
    grid = np.stack(np.meshgrid(*places, indexing="ij"))
    return np.asarray(ndimage.map_coordinates(plane, grid, order=1 if smooth else 0, mode="nearest"))


def _grey(strip: Strip, name: str | None = None) -> Picture:
    """A sequence, by default the first; black of the same size where the case lacks it."""
    first, *_ = strip.greys.values()
    plane = first if name is None else strip.greys.get(name, np.zeros_like(first))
    return shades(enlarge(plane, strip.spacing_mm, smooth=True))


def _labels(strip: Strip, name: str, under: str, task: Task) -> Picture:
    if name not in strip.layers:
        return _grey(strip, "")
    labels = enlarge(strip.layers[name], strip.spacing_mm, smooth=False)
    return overlay(_grey(strip, under)[..., 0], labels, colours(task), opacity=1.0)


def _truth(strip: Strip) -> Picture:
    if TRUTH not in strip.layers:
        return _grey(strip)
    mask = enlarge((strip.layers[TRUTH] > 0).astype(np.uint8), strip.spacing_mm, smooth=False)
    return np.where(mask[..., None] > 0, to_rgb(TISSUE_COLOURS["infarct"]), _grey(strip))


def _heat(strip: Strip, layer: str) -> Picture:
    probability = strip.layers[layer]
    low, high = float(probability.min()), float(probability.max())
    if not (low >= 0 and high <= 1):
        raise ImageError(f"case {strip.case}: probabilities lie between 0 and 1, not {low:.3g} and {high:.3g}")
    heat = enlarge(np.asarray(probability, np.float64), strip.spacing_mm, smooth=True)
    return heat_over(_grey(strip)[..., 0], heat, COLORMAP)


def _page(
    rows: Sequence[Sequence[Picture]], caption: str, tissues: Mapping[str, Rgb] | None = None, right: float = _EDGE
) -> tuple[Figure, list[list[Axes]]]:
    """A white page with a tile for each picture (H, W, 3), all of one scale, and the axes of the tiles.

    The caption is a faint note below, with a key of the tissues above it; `right` inches are left at the right.
    """
    pictures = [picture for row in rows for picture in row]
    if not pictures:
        raise DatasetError("there is no slice to show; name at least one case")
    size = max(p.shape[0] for p in pictures), max(p.shape[1] for p in pictures)
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
        for axes, picture in zip(grid[-1], row, strict=True):
            room = [whole - part for whole, part in zip(size, picture.shape[:2], strict=True)]
            sides = [(space // 2, space - space // 2) for space in room]
            axes.imshow(np.pad(picture, [*sides, (0, 0)]), aspect="auto")
            axes.set_axis_off()
    for place, side, align in ((0.04, "R", "left"), (0.96, "L", "right")):
        _write(grid[0][0], place, 0.97, side, color="0.75", size=_NOTE, ha=align, va="top")
    for number, line in enumerate(reversed(lines)):
        at = (_EDGE + number * _NOTE_LINE) / high
        figure.text(_SIDE / wide, at, literal(line), color=_FAINT, size=_NOTE, va="bottom")
    if tissues:
        _key(figure, tissues, (_EDGE + len(lines) * _NOTE_LINE + 0.08) / high, (_SIDE + (wide - right)) / 2 / wide)
    return figure, grid


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
