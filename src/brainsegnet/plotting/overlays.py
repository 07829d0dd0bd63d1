"""Results over the scan: labels in the paper's colours, and probability as heat.

Everything works on arrays in memory. Figures are built on their own canvas and touch no global state of matplotlib.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy import ndimage

from brainsegnet._types import Array
from brainsegnet.errors import GridMismatch, MissingSequence
from brainsegnet.metrics.scores import dice
from brainsegnet.plotting.slices import Picture, Rgb, Views, arrange, sheet
from brainsegnet.task import Task
from brainsegnet.volume import Case

_DIMMED = 0.7
_SPELT = {"t1c": "T1c", "rcbf": "rCBF", "rcbv": "rCBV", "tmax": "Tmax"}


def colours(task: Task) -> dict[int, Rgb]:
    """Label value to colour of a task as red, green and blue, each 0 to 1.

    >>> from brainsegnet.task import BRATS2023
    >>> colours(BRATS2023)[3]
    (1.0, 1.0, 1.0)
    """
    return {value: to_rgb(colour) for value, colour in task.colours.items()}


def overlay(grey: Array, labels: Array, palette: Mapping[int, Rgb], opacity: float = 0.6) -> Picture:
    """A slice in grey under its labels: outlines opaque, insides at `opacity`.

    The grey is dimmed, so that a bright voxel without a label cannot be taken for one in white.

    Args:
        grey: Slice (H, W) between 0 and 1.
        labels: Label values (H, W); those without a colour stay grey.
        palette: Label value to colour, as of `colours`.
        opacity: Of the insides, 0 to 1.

    Returns:
        Picture (H, W, 3) between 0 and 1.

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
    `render.render` makes a PNG of the figure, for a notebook or a file.

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
    names = _shown(case, sequences)
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
    return sheet(scene, headings, rows, (case.name, _verdict(case, predicted, task)), tissues)


def heat_over(
    grey: Array, probability: Array, colormap: str, opaque_from: float = 0.4, opacity: float = 0.9
) -> Picture:
    """A slice in grey under a probability map that is clear at 0.

    Args:
        grey: Slice (H, W) between 0 and 1.
        probability: (H, W) between 0 and 1.
        colormap: Name of a colour map of matplotlib.
        opaque_from: Lowest probability at which the map has its full opacity.
        opacity: The full opacity, 0 to 1.

    Returns:
        Picture (H, W, 3) between 0 and 1.

    >>> heat_over(np.full((1, 2), 0.5), np.array([[0.0, 1.0]]), "inferno").round(1).tolist()
    [[[0.5, 0.5, 0.5], [0.9, 0.9, 0.6]]]
    """
    weight = opacity * np.clip(probability / opaque_from, 0, 1)[..., None]
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


def _shown(case: Case, sequences: Sequence[str] | None) -> list[str]:
    names = list(sequences or case.images)[:4]
    for name in names:
        if name not in case.images:
            raise MissingSequence(f"case {case.name} has no {name} to show; choose from {', '.join(case.images)}")
    return names


def shades(grey: Array) -> Picture:
    """A grey slice (H, W) as a picture (H, W, 3)."""
    return np.repeat(grey[..., None], 3, axis=-1)


def spelt(name: str) -> str:
    """The name of a sequence as it is written: `FLAIR`, `T1c`."""
    return _SPELT.get(name, name.upper())
