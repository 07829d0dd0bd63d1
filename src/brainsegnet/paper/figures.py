"""The paper's Figures 4 and 5 from anyone's cases: two models beside the truth, and a probability map as colours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure

from brainsegnet._types import Array
from brainsegnet.errors import DatasetError, GridMismatch, ImageError
from brainsegnet.plotting.overlays import colours, heat_over, overlay, rgb, shades, spelt
from brainsegnet.plotting.slices import Picture, Scene, View, arrange, fullest
from brainsegnet.plotting.tiles import EDGE, colour_bar, enlarge, head, name_row, page, write
from brainsegnet.task import TISSUE_COLOURS, Task
from brainsegnet.volume import Case

SEQUENCES = ("flair", "t1c", "t2")
"""The columns of Figure 4 before those of the models."""
TRUTH = "truth"
COLORMAP = "plasma"
_BAR = 0.54
"""Inches for the colour bar at the right."""
_UNNAMED = "with most lesion"


@dataclass(frozen=True)
class Strip:
    """One axial slice of a case, upright in the radiological view, with all that lies on it.

    Attributes:
        case: Name of the case.
        index: Of the slice, counted from 0 at the feet.
        why: Why this slice: what made the choice, in words.
        spacing_mm: Of rows and columns.
        greys: Sequence to slice (H, W) between 0 and 1.
        layers: Heading to labels or probabilities (H, W); the truth, where known, is called `TRUTH`.
    """

    case: str
    index: int
    why: str
    spacing_mm: tuple[float, float]
    greys: Mapping[str, Array]
    layers: Mapping[str, Array] = field(default_factory=dict)


def cut_strip(case: Case, layers: Mapping[str, Array], index: int | None = None) -> Strip:
    """The axial slice of a case that holds most lesion, or the one that is named.

    The lesion is the truth where it is known, else the last layer (a probability counts from a half).

    Args:
        case: Images and, if known, the lesion.
        layers: Heading to labels, or to a probability as floats, each (D, H, W).
        index: Of the slice, counted from 0 at the feet; None is the one with most lesion.

    Raises:
        DatasetError: there is no such slice.
        GridMismatch: a layer differs from the case in shape.
    """
    known = {**layers, **({TRUTH: case.lesion.array} if case.lesion else {})}
    for name, layer in known.items():
        if layer.shape != case.reference.shape:
            raise GridMismatch(f"case {case.name}: {name} is {layer.shape} but the scan is {case.reference.shape}")
    guides = {name: _mask(layer) for name, layer in reversed(known.items())}
    scene = arrange(case.reference, [*guides.values()], "slice")
    view, why = _choose(case.name, scene, guides, index)
    greys = {name: view.cut(scene.grey(image)) for name, image in case.images.items()}
    cuts = {name: view.cut(scene.turn(layer)) for name, layer in known.items()}
    _, down, across = scene.spacing_mm
    return Strip(case.name, view.index + scene.box.start[0], why, (down, across), greys, cuts)


def comparison_figure(strips: Sequence[Strip], task: Task, sequences: Sequence[str] = SEQUENCES) -> Figure:
    """Figure 4: a row for each slice; columns are sequences, what each model found, and the truth.

    A sequence that no slice has is left out; one that some have is marked where it is absent.

    Args:
        strips: Slices whose layers are label values of the task.
        task: Names and colours of the labels.
        sequences: Columns before the models; where there is none of them, the first three that there are.

    Raises:
        DatasetError: there is no slice.
    """
    if not strips:
        raise DatasetError("there is no slice to show; name at least one case")
    there = list(dict.fromkeys(name for strip in strips for name in strip.greys))
    names = [name for name in sequences if name in there] or there[:3]
    layers = list(dict.fromkeys(name for strip in strips for name in strip.layers if name != TRUTH))
    layers += [TRUTH] if any(TRUTH in strip.layers for strip in strips) else []
    rows = [[_grey(s, n) for n in names] + [_labels(s, n, names[0], task) for n in layers] for s in strips]
    tissues = {tissue: colours(task)[value] for value, tissue in task.labels.items()}
    figure, grid = page(rows, describe(strips), tissues)
    for number, heading in enumerate([*map(spelt, names), *layers]):
        head(grid[0][number], f"({chr(97 + number)}) {heading}")
    for strip, tiles in zip(strips, grid, strict=True):
        name_row(tiles[0], strip.case, f"slice {strip.index}")
        for tile, name in zip(tiles, [*names, *layers], strict=True):
            if name not in {**strip.greys, **strip.layers}:
                write(tile, 0.5, 0.5, f"no {spelt(name) if name in there else name}", color="0.6", size=7, ha="center")
    return figure


def probability_row_figure(strips: Sequence[Strip], layer: str, sequence: str | None = None) -> Figure:
    """Figure 5: a column for each slice; the truth above, the predicted probability as a colour map below.

    Args:
        strips: Slices with one layer of probabilities between 0 and 1.
        layer: Its name.
        sequence: Shown in grey below both; None is the first of each case.

    Raises:
        DatasetError: there is no slice.
        ImageError: a probability lies outside 0 to 1.
    """
    if not strips:
        raise DatasetError("there is no slice to show; name at least one case")
    names = [sequence or next(iter(strip.greys)) for strip in strips]
    known = any(TRUTH in strip.layers for strip in strips)
    above = [_truth(strip, name) for strip, name in zip(strips, names, strict=True)]
    below = [_heat(strip, name, layer) for strip, name in zip(strips, names, strict=True)]
    figure, grid = page([above, below], describe(strips), right=EDGE + _BAR)
    for strip, upper in zip(strips, grid[0], strict=True):
        head(upper, strip.case, f"slice {strip.index}")
    name_row(grid[0][0], "truth" if known else spelt(names[0]))
    name_row(grid[1][0], "prediction")
    colour_bar(figure, grid[1][-1], COLORMAP, "probability")
    return figure


def describe(strips: Sequence[Strip]) -> str:
    """Which slices are shown and why, in one sentence.

    >>> blank = np.zeros((2, 2))
    >>> describe([Strip("pat7", 41, "with most lesion in the truth", (1.0, 1.0), {"flair": blank})])
    'Axial slice (0 at the feet) with most lesion in the truth; right side of the patient at the left. pat7: 41.'
    """
    reasons: dict[str, list[str]] = {}
    for strip in strips:
        reasons.setdefault(strip.why, []).append(f"{strip.case}: {strip.index}")
    whys = "; ".join(reasons) if len(reasons) == 1 else "; ".join(f"{w} ({', '.join(r)})" for w, r in reasons.items())
    which = f" {', '.join(next(iter(reasons.values())))}." if len(reasons) == 1 else ""
    return f"Axial slice (0 at the feet) {whys}; right side of the patient at the left.{which}"


def _choose(case: str, scene: Scene, guides: Mapping[str, Array], index: int | None) -> tuple[View, str]:
    first, count = scene.box.start[0], scene.box.shape[0]
    if index is not None:
        if not first <= index < first + count:
            raise DatasetError(
                f"case {case}: slice {index} shows no brain; choose one from {first} to {first + count - 1}"
            )
        return View(0, index - first), "as named"
    for name, guide in guides.items():
        if guide.any():
            return View(0, fullest(scene.turn(guide).sum((1, 2)))), f"{_UNNAMED} in {_article(name)}"
    return View(0, count // 2), "in the middle of the brain, for there is no lesion"


def _article(name: str) -> str:
    return f"the {name}" if name == TRUTH else f"the prediction “{name}”"


def _mask(layer: Array) -> Array:
    return layer >= 0.5 if np.issubdtype(layer.dtype, np.floating) else layer > 0


def _grey(strip: Strip, name: str) -> Picture:
    """A sequence, or black of the same size where the case lacks it."""
    any_of_them = next(iter(strip.greys.values()))
    return shades(enlarge(strip.greys.get(name, np.zeros_like(any_of_them)), strip.spacing_mm, smooth=True))


def _labels(strip: Strip, name: str, under: str, task: Task) -> Picture:
    if name not in strip.layers:
        return _grey(strip, "")
    labels = enlarge(strip.layers[name], strip.spacing_mm, smooth=False)
    return overlay(_grey(strip, under)[..., 0], labels, colours(task), opacity=1.0)


def _truth(strip: Strip, under: str) -> Picture:
    if TRUTH not in strip.layers:
        return _grey(strip, under)
    mask = enlarge((strip.layers[TRUTH] > 0).astype(np.uint8), strip.spacing_mm, smooth=False)
    return np.where(mask[..., None] > 0, rgb(TISSUE_COLOURS["infarct"]), _grey(strip, under))


def _heat(strip: Strip, under: str, layer: str) -> Picture:
    probability = strip.layers[layer]
    low, high = float(probability.min()), float(probability.max())
    if not (low >= 0 and high <= 1):
        raise ImageError(f"case {strip.case}: probabilities lie between 0 and 1, not {low:.3g} and {high:.3g}")
    heat = enlarge(np.asarray(probability, np.float64), strip.spacing_mm, smooth=True)
    return heat_over(_grey(strip, under)[..., 0], heat, COLORMAP, opaque_from=0.2, opacity=1.0)
