"""Results over the scan: labels in the paper's colours, probability as colours, and sheets of such pictures."""

import math
from collections.abc import Mapping, Sequence
from itertools import product

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage

from brainsegnet._types import Array
from brainsegnet.errors import GridMismatch, MissingSequence
from brainsegnet.metrics.scores import dice
from brainsegnet.plotting.slices import Picture, Rgb, Scene, Views, arrange, literal
from brainsegnet.task import Task
from brainsegnet.volume import Case

_DIMMED = 0.7
_OPAQUE_FROM = 0.2
"""Lowest probability that hides the scan."""
_SPELT = {"t1c": "T1c", "rcbf": "rCBF", "rcbv": "rCBV", "tmax": "Tmax"}
_PLANES = ("axial", "coronal", "sagittal")
SIDES = (("R", "L"), ("R", "L"), ("A", "P"))
_COLUMN, _EDGE, _TOP, _GAP, _KEY_ROW = 2.4, 0.45, 1.1, 0.06, 0.27
"""Inches: width of a column, edges at left and right, head, gap between pictures, a row of the key."""
_DIM = "0.65"


def colours(task: Task) -> dict[int, Rgb]:
    """Label value to colour of a task as red, green and blue, each 0 to 1."""
    return {value: to_rgb(colour) for value, colour in task.colours.items()}


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


def overlay_figure(
    case: Case, predicted: Array, task: Task, sequences: Sequence[str] | None = None, views: Views = "auto"
) -> Figure:
    """The case beside its prediction and, where known, its truth, in the paper's colours (Figure 4).

    A row is a slice through the most lesion, of the truth if known. A column is a sequence, the prediction or the
    truth. The title gives Dice and predicted volume of each region; volumes alone where the truth is unknown.

    Args:
        case: Images and, if known, the lesion.
        predicted: Labels (D, H, W) in the convention of the task.
        task: Names, colours and regions of the labels.
        sequences: At most four to show, the first under the labels; None takes the first four of the case.
        views: Which slices, see `slices.Views`.

    Raises:
        GridMismatch: prediction and case differ in shape.
        LabelError: a label value outside the task.
        MissingSequence: a sequence to show is absent.
    """
    names = list(sequences or case.images)[:4]
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
    scene = arrange(case.images[names[0]], [*layers.values()][::-1], views)
    greys = [scene.grey(case.images[name]) for name in names]
    maps, palette = [scene.turn(labels) for labels in layers.values()], colours(task)
    rows = []
    for view in scene.views:
        cuts = [view.cut(grey) for grey in greys]
        rows.append([*map(shades, cuts), *(overlay(cuts[0], view.cut(labels), palette) for labels in maps)])
    headings = [*map(spelt, names), *layers]
    tissues = {tissue: palette[value] for value, tissue in task.labels.items()}
    return _sheet(scene, headings, rows, (case.name, _verdict(case, predicted, task)), tissues)


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
    rows: Sequence[Sequence[Picture]],
    titles: tuple[str, str],
    tissues: Mapping[str, Rgb],
) -> Figure:
    """A black sheet of pictures (H, W, 3) of one scale: a row for each view, a column for each heading, a key below.

    The titles are the name of the case and a line on the result.
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
            for place, side, align in zip((0.03, 0.97), SIDES[scene.views[row].plane], ("left", "right"), strict=True):
                axes.text(place, 0.96, side, color=_DIM, size=9, ha=align, va="top", transform=axes.transAxes)
            middle = (bottom + heights[row] / 2) / height
            name = _PLANES[scene.views[row].plane]
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
    for place, side, align in zip((0.03, 0.97), SIDES[plane], ("left", "right"), strict=True):
        axes.text(place, 0.96, side, color=_DIM, size=9, ha=align, va="top", transform=axes.transAxes)
