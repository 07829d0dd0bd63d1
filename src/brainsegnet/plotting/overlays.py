"""Results over the scan: labels in colours, probability as colours, and sheets of such pictures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage

from brainsegnet._types import Array
from brainsegnet.errors import GridMismatch, MissingSequence
from brainsegnet.metrics.scores import dice
from brainsegnet.plotting import DrawingOptions
from brainsegnet.plotting.marks import Marks, draw_marks
from brainsegnet.plotting.palettes import colours
from brainsegnet.plotting.slices import Picture, Rgb, Scene, View, Views, arrange, enlarge, literal
from brainsegnet.task import Task
from brainsegnet.volume import Case

DPI = 150
_DIMMED = 0.7
_OPAQUE_FROM = 0.2
"""Lowest probability that hides the scan."""
_SPELT = {"t1c": "T1c", "rcbf": "rCBF", "rcbv": "rCBV", "tmax": "Tmax"}
_PLANES = ("axial", "coronal", "sagittal")
_COLUMN, _EDGE, _TOP, _GAP, _KEY_ROW = 2.4, 0.45, 1.1, 0.06, 0.27
"""Inches: width of a column, edges at left and right, head, gap between pictures, a row of the key."""
MARGIN = 0.07
"""Black border around a slice, as a share of the width of the widest, for what is written on it."""
_INSET = 0.75
"""Level of a mask at which its outline is drawn: a quarter of a voxel inside, so that those of neighbours are seen."""
_LINE, _CASING = 0.8, 1.9
"""Points of an outline, and with its black edge."""
_LETTER = 7.5
_DIM = "0.65"


@dataclass(frozen=True, eq=False)
class Tile:
    """A slice as it is drawn.

    Attributes:
        picture: (H, W, 3).
        labels: Labels (H, W) on any grid over the same area, whose outlines are drawn.
        marks: What is written on it.
    """

    picture: Picture
    labels: Array | None = None
    marks: Marks | None = None


def overlay_figure(
    case: Case,
    predicted: Array,
    task: Task,
    sequences: Sequence[str] | None = None,
    views: Views = "auto",
    drawing: DrawingOptions | None = None,
) -> Figure:
    """The case beside its prediction and, where known, its truth, arranged as in the paper's Figure 4.

    A row is a slice through the most lesion, of the truth if known. A column is a sequence, the prediction or the
    truth. The title gives Dice and predicted volume of each region; volumes alone where the truth is unknown.

    Args:
        case: Images and, if known, the lesion.
        predicted: Labels (D, H, W) in the convention of the task.
        task: Names, colours and regions of the labels.
        sequences: At most four to show, the first under the labels; None takes the first four of the case.
        views: Which slices, see `slices.Views`.
        drawing: How the labels are drawn.

    Raises:
        GridMismatch: prediction and case differ in shape.
        LabelError: a label value outside the task.
        MissingSequence: a sequence to show is absent.
    """
    drawing = drawing or DrawingOptions()
    names = list(sequences or case.images)[:4]
    layers = _check_layers(case, predicted, task, names)
    scene = arrange(case.images[names[0]], [*layers.values()][::-1], views)
    greys = [scene.grey(case.images[name]) for name in names]
    maps, palette = [scene.turn(labels) for labels in layers.values()], colours(task, drawing.palette or "safe")
    rows = [_draw_row(scene, view, greys, maps, palette, drawing) for view in scene.views]
    headings = [*map(spelt, names), *layers]
    tissues = {tissue: palette[value] for value, tissue in task.labels.items()}
    return _sheet(scene, headings, rows, (case.name, _verdict(case, predicted, task)), palette, tissues)


def _check_layers(case: Case, predicted: Array, task: Task, names: Sequence[str]) -> dict[str, Array]:
    """The prediction and, if known, the truth. Errors are those of `overlay_figure`."""
    if absent := [name for name in names if name not in case.images]:
        raise MissingSequence(f"case {case.name} has no {absent[0]} to show; choose from {', '.join(case.images)}")
    layers = {"Prediction": predicted} | ({"Truth": case.lesion.array} if case.lesion else {})
    for labels in layers.values():
        if labels.shape != case.reference.shape:
            raise GridMismatch(
                f"case {case.name}: the result is {labels.shape} but the scan is {case.reference.shape}; "
                "show a result on the scan that it was made from"
            )
        task.check(labels, case.name)
    return layers


def _draw_row(
    scene: Scene,
    view: View,
    greys: Sequence[Picture],
    maps: Sequence[Array],
    palette: Mapping[int, Rgb],
    drawing: DrawingOptions,
) -> list[Tile]:
    """The tiles of a slice: the sequences, then the label maps over the first of them."""
    width = max(view.size_mm(scene.spacing_mm, scene.box.shape)[1] for view in scene.views)
    per_mm = (drawing.dpi or DPI) * _COLUMN / (width * (1 + 2 * MARGIN))
    rows, columns = (max(1, round(mm * per_mm)) for mm in view.size_mm(scene.spacing_mm, scene.box.shape))
    cuts, marks = [enlarge(view.cut(grey), (rows, columns), smooth=True) for grey in greys], scene.mark(view)
    tiles = [Tile(shades(cut), marks=marks) for cut in cuts]
    for labels in map(view.cut, maps):
        large = enlarge(labels, (rows, columns), smooth=False)
        drawn = shades(cuts[0]) if drawing.outline else overlay(cuts[0], large, palette)
        tiles.append(Tile(drawn, labels, marks))
    return tiles


def overlay(grey: Array, labels: Array, palette: Mapping[int, Rgb], opacity: float = 0.6) -> Picture:
    """A slice in grey (H, W) under its labels as a picture (H, W, 3): outlines opaque, insides at `opacity`.

    The grey is dimmed, so that a bright voxel without a label cannot be taken for one in white. Labels that the palette
    lacks stay grey.

    Examples:
        >>> overlay(np.zeros((3, 3)), np.eye(3, dtype=int) * 4, {4: (1.0, 1.0, 1.0)})[1, 1].tolist()
        [1.0, 1.0, 1.0]
    """
    picture = _DIMMED * shades(grey)
    for value, colour in palette.items():
        mask = labels == value
        weight = np.where(mask & ~ndimage.binary_erosion(mask), 1.0, opacity * mask)[..., None]
        picture = (1 - weight) * picture + weight * np.array(colour)
    return picture


def draw_outlines(
    axes: Axes, labels: Array, extent: Sequence[float], palette: Mapping[int, Rgb], scale: float = 1.0
) -> None:
    """Draw the outline of each label (H, W), with a black edge, so that it is seen on any grey.

    Args:
        axes: Axes of the picture.
        labels: Labels (H, W).
        extent: Left, right, lower and upper end of the labels in the coordinates of the axes.
        palette: Label to colour.
        scale: Factor of the widths of lines.
    """
    left, right, lower, upper = extent
    high, wide = labels.shape
    x = left + (np.arange(-1, wide + 1) + 0.5) * (right - left) / wide
    y = upper + (np.arange(-1, high + 1) + 0.5) * (lower - upper) / high
    found = [(value, np.pad(labels == value, 1).astype(np.float64)) for value in palette if (labels == value).any()]
    for width, edge in ((_CASING, "black"), (_LINE, None)):
        for value, mask in found:
            axes.contour(x, y, mask, levels=[_INSET], colors=[edge or palette[value]], linewidths=width * scale)


def heat_over(grey: Array, probability: Array, colormap: str) -> Picture:
    """A slice in grey (H, W) under a probability map (H, W) that is clear at 0, as a picture (H, W, 3).

    Examples:
        >>> heat_over(np.full((1, 2), 0.5), np.array([[0.0, 1.0]]), "inferno").round(1).tolist()
        [[[0.5, 0.5, 0.5], [1.0, 1.0, 0.6]]]
    """
    weight = np.clip(probability / _OPAQUE_FROM, 0, 1)[..., None]
    heat = np.asarray(matplotlib.colormaps[colormap](probability))[..., :3]
    return np.asarray((1 - weight) * shades(grey) + weight * heat)


def _verdict(case: Case, predicted: Array, task: Task) -> str:
    parts = []
    for region, values in task.regions.items():
        mask = np.isin(predicted, values)
        truth = np.isin(case.lesion.array, values) if case.lesion else None
        score = "" if truth is None else f"{dice(mask, truth):.2f}, "
        parts.append(f"{region} {score}{np.count_nonzero(mask) * case.reference.voxel_ml:.1f} ml")
    return ("Dice and predicted volume:  " if case.lesion else "Predicted volume:  ") + "   ·   ".join(parts)


def shades(grey: Array) -> Picture:
    """A grey slice (H, W) as a picture (H, W, 3)."""
    return np.repeat(grey[..., None], 3, axis=-1)


def spelt(name: str) -> str:
    """The name of a sequence as it is usually written: `FLAIR`, `T1c`."""
    return _SPELT.get(name, name.upper())


def _sheet(
    scene: Scene,
    headings: Sequence[str],
    rows: Sequence[Sequence[Tile]],
    titles: tuple[str, str],
    palette: Mapping[int, Rgb],
    tissues: Mapping[str, Rgb],
) -> Figure:
    """A black sheet of tiles of one scale: a row for each view, a column for each heading, a key below.

    The titles are the name of the case and a line on the result.
    """
    sizes_mm = [view.size_mm(scene.spacing_mm, scene.box.shape) for view in scene.views]
    margin_mm = MARGIN * max(width for _, width in sizes_mm)
    inches_per_mm = _COLUMN / (max(width for _, width in sizes_mm) + 2 * margin_mm)
    heights = [(height + 2 * margin_mm) * inches_per_mm for height, _ in sizes_mm]
    tops = [_TOP + sum(heights[:row]) + row * _GAP for row in range(len(rows))]
    key_rows = math.ceil(len(tissues) / len(headings))
    width = 2 * _EDGE + len(headings) * (_COLUMN + _GAP) - _GAP
    height = tops[-1] + heights[-1] + 0.3 + key_rows * _KEY_ROW
    figure = Figure(figsize=(width, height), facecolor="black")
    for row, column in product(range(len(rows)), range(len(headings))):
        left, bottom = _EDGE + column * (_COLUMN + _GAP), height - tops[row] - heights[row]
        axes = figure.add_axes((left / width, bottom / height, _COLUMN / width, heights[row] / height))
        _draw_tile(axes, rows[row][column], sizes_mm[row], (_COLUMN / inches_per_mm, margin_mm), palette)
        if row == 0:
            axes.set_title(literal(headings[column]), color="white", fontsize=11, pad=6)
        if column == 0:
            middle = (bottom + heights[row] / 2) / height
            name = _PLANES[scene.views[row].plane]
            figure.text(0.22 / width, middle, name, color=_DIM, size=9, rotation=90, ha="center", va="center")
    _write_titles(figure, *titles)
    _draw_key(figure, tissues, key_rows)
    return figure


def _draw_tile(
    axes: Axes, tile: Tile, size_mm: tuple[float, float], room_mm: tuple[float, float], palette: Mapping[int, Rgb]
) -> None:
    """Draw a tile in millimetres, in the middle of its axes, which have this width and margin."""
    tall, wide = size_mm
    (width, margin), extent = room_mm, (0.0, wide, tall, 0.0)
    axes.imshow(tile.picture, extent=extent, interpolation="bilinear")
    if tile.labels is not None:
        draw_outlines(axes, tile.labels, extent, palette)
    axes.set_xlim((wide - width) / 2, (wide + width) / 2)
    axes.set_ylim(tall + margin, -margin)
    axes.set_axis_off()
    if tile.marks:
        draw_marks(axes, tile.marks, _LETTER)


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
