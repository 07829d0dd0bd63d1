"""Pictures of results: overlays in the paper's colours (its Figure 4) and probability maps (its Figure 5).

Figures are built on their own canvas and touch no global state of matplotlib.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from brainsegnet.errors import GridMismatch, MissingSequence, OutputError
from brainsegnet.evaluation.canvas import Picture, Rgb, colour_bar, key, key_rows, sheet, title
from brainsegnet.evaluation.metrics import dice
from brainsegnet.evaluation.slices import Views, arrange
from brainsegnet.task import Task
from brainsegnet.volume import Array, Case

_RED, _GREEN, _BLUE, _WHITE = (0.93, 0.16, 0.16), (0.16, 0.76, 0.33), (0.22, 0.47, 1.0), (1.0, 1.0, 1.0)
_TISSUES: Mapping[str, Rgb] = {
    "necrosis": _RED,
    "oedema": _GREEN,
    "non-enhancing": _BLUE,
    "enhancing": _WHITE,
    "necrosis + non-enhancing": _RED,
    "infarct": _RED,
}
_OTHERS: Sequence[Rgb] = (
    (1.0, 0.80, 0.16),
    (0.20, 0.83, 0.90),
    (0.93, 0.38, 0.80),
    (1.0, 0.53, 0.17),
    (0.62, 0.50, 1.0),
    (0.68, 0.86, 0.20),
)
_DIMMED = 0.7
_SPELT = {"t1c": "T1c", "rcbf": "rCBF", "rcbv": "rCBV", "tmax": "Tmax"}


def colours(task: Task) -> dict[int, Rgb]:
    """Label value to colour (red, green, blue; each 0 to 1): the paper's where it names the tissue (Figure 4).

    Other tissues take the colours of a palette of six in the order of their labels, again from the first after the
    sixth.

    >>> from brainsegnet.task import BRATS2023
    >>> colours(BRATS2023)[3]
    (1.0, 1.0, 1.0)
    """
    others = [value for value, tissue in task.labels.items() if tissue not in _TISSUES]
    palette = {value: _OTHERS[place % len(_OTHERS)] for place, value in enumerate(others)}
    return {value: _TISSUES.get(tissue, palette.get(value, _WHITE)) for value, tissue in task.labels.items()}


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
    picture = _DIMMED * _rgb(grey)
    for value, colour in palette.items():
        mask = labels == value
        weight = np.where(mask & ~ndimage.binary_erosion(mask), 1.0, opacity * mask)[..., None]
        picture = (1 - weight) * picture + weight * np.array(colour)
    return picture


def overlay_figure(
    case: Case, predicted: Array, task: Task, sequences: Sequence[str] | None = None, views: Views = "auto"
) -> Figure:
    """The case beside its prediction and, where known, its truth, in the paper's colours (Figure 4).

    A row is a slice through the most lesion, of the truth if known; a column is a sequence, the prediction or the
    truth. The title gives Dice by region, or the predicted volumes where the truth is unknown.

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
        _require_grid(case, labels)
        task.check(labels, case.name)
    scene = arrange(case.images[names[0]], [*layers.values()][::-1], views)
    greys = [scene.grey(case.images[name]) for name in names]
    maps, palette = [scene.turn(labels) for labels in layers.values()], colours(task)
    rows = []
    for view in scene.views:
        cuts = [view.cut(grey) for grey in greys]
        rows.append([*map(_rgb, cuts), *(overlay(cuts[0], view.cut(labels), palette) for labels in maps)])
    headings = [*map(_spelt, names), *layers]
    figure = sheet(scene, headings, rows, key_rows(len(task.labels), len(headings)))
    title(figure, case.name, _verdict(case, predicted, task))
    key(figure, {tissue: palette[value] for value, tissue in task.labels.items()}, len(headings))
    return figure


def probability_figure(
    case: Case, probability: Array, sequence: str | None = None, views: Views = "slice", colormap: str = "inferno"
) -> Figure:
    """A probability map in colour over a sequence, beside the truth where it is known (Figure 5).

    Args:
        case: Images and, if known, the lesion (every label above 0 is shown alike).
        probability: Of the lesion (D, H, W), between 0 and 1.
        sequence: Shown in grey; None takes the first.
        views: Which slices, see `slices.Views`.
        colormap: Name of a colour map of matplotlib.

    Raises:
        GridMismatch: probability and case differ in shape.
        MissingSequence: the sequence is absent.
        ValueError: a probability lies outside 0 to 1.
    """
    (name,) = _shown(case, [sequence or next(iter(case.images))])
    _require_grid(case, probability)
    if not (probability.min() >= 0 and probability.max() <= 1):
        raise ValueError(f"probabilities lie between 0 and 1, not {probability.min():.3g} and {probability.max():.3g}")
    truth = [case.lesion.array > 0] if case.lesion else []
    scene = arrange(case.images[name], [*truth, probability >= 0.5], views)
    grey, heat = scene.grey(case.images[name]), scene.turn(probability)
    masks = [scene.turn(mask) for mask in truth]
    rows = []
    for view in scene.views:
        under = view.cut(grey)
        known = [overlay(under, view.cut(mask), {1: _RED}) for mask in masks]
        rows.append([_rgb(under), *known, heat_over(under, view.cut(heat), colormap)])
    figure = sheet(scene, [_spelt(name), *["Truth"] * len(truth), "Probability"], rows)
    title(figure, case.name, "Predicted probability of the lesion")
    colour_bar(figure, colormap)
    return figure


def heat_over(grey: Array, probability: Array, colormap: str) -> Picture:
    """A slice in grey under a probability map that is clear at 0 and all but opaque from 0.4.

    Args:
        grey: Slice (H, W) between 0 and 1.
        probability: (H, W) between 0 and 1.
        colormap: Name of a colour map of matplotlib.

    Returns:
        Picture (H, W, 3) between 0 and 1.

    >>> heat_over(np.full((1, 2), 0.5), np.array([[0.0, 1.0]]), "inferno").round(1).tolist()
    [[[0.5, 0.5, 0.5], [0.9, 0.9, 0.6]]]
    """
    weight = 0.9 * np.clip(probability / 0.4, 0, 1)[..., None]
    heat = np.asarray(matplotlib.colormaps[colormap](probability))[..., :3]
    return np.asarray((1 - weight) * _rgb(grey) + weight * heat)


def save_figure(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a PNG whole or not at all; the same figure gives the same bytes.

    Args:
        figure: What to draw.
        path: Where to; an older file is replaced.
        dpi: Pixels per inch.

    Raises:
        OutputError: the file cannot be written, or is not called .png.
    """
    if path.suffix.lower() != ".png":
        raise OutputError(f"picture {path} is not called .png, the one format of pictures; call it {path.stem}.png")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        figure.savefig(part, format="png", dpi=dpi, facecolor=figure.get_facecolor(), metadata={"Software": None})
        os.replace(part, path)
    except OSError as error:
        raise OutputError(
            f"picture {path} cannot be written: {error.strerror or error}; choose another place"
        ) from error
    finally:
        if part.is_file():
            part.unlink()


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


def _require_grid(case: Case, array: Array) -> None:
    if array.shape != case.reference.shape:
        raise GridMismatch(
            f"case {case.name}: the result is {array.shape} but the scan is {case.reference.shape}; "
            "show a result on the scan that it was made from"
        )


def _rgb(grey: Array) -> Picture:
    return np.repeat(grey[..., None], 3, axis=-1)


def _spelt(name: str) -> str:
    return _SPELT.get(name, name.upper())
