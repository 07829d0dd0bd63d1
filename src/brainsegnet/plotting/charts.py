"""Charts: the course of a training, distributions of scores, and the calibration of probabilities."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from brainsegnet._types import Doubles
from brainsegnet.errors import DatasetError
from brainsegnet.metrics.statistics import Interval
from brainsegnet.model.card import CalibrationNote
from brainsegnet.plotting.slices import literal

Rows = Sequence[Mapping[str, Any]]
Values = Mapping[str, Mapping[str, float]]
"""Group to case to value."""

_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_INK = "0.25"
OUTLYING = 10
"""A loss so many times below the lowest running mean, as of samples without lesion, does not set the scale."""

_WIDTH, _ROW, _AXIS = 460, 46, 34
"""Points: width of a chart of distributions, height of a row, height of the axis below."""
_BOXED = 5
"""From this many cases up quartiles are drawn."""
_GOLDEN = (math.sqrt(5) - 1) / 2
_TEXT, _FAINT, _GRID, _BOX, _DOT, _MEAN = "#1d2733", "#5d6b7a", "#e3e8ed", "#e8eef4", "#0b62a4", "#d1495b"


def training_curve_figure(rows: Rows) -> Figure:
    """Loss and, where it was measured, validation Dice over the steps; the stages of the curriculum are marked.

    Args:
        rows: In the order of the steps, each with `step`, `stage` and any of `loss`, `dice` and `dice_<region>`; what
            is absent or None was not measured.

    Raises:
        DatasetError: there is no row.
    """
    if not rows:
        raise DatasetError("the training log has no rows, so there is no curve; train for at least one step")
    scores = list(dict.fromkeys(key for row in rows for key in row if key.startswith("dice")))
    figure = Figure(figsize=(9, 6.0 if scores else 3.6), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    panels: list[Axes] = figure.subplots(2 if scores else 1, 1, sharex=True, squeeze=False)[:, 0].tolist()
    _draw_loss(panels[0], rows)
    for number, key in enumerate(scores):
        colour = _LINES[(number + 1) % len(_LINES)]
        label = key.removeprefix("dice").strip("_") or "dice"
        panels[1].plot(*_series(rows, key), "o-", color=colour, markersize=3.5, linewidth=1.8, label=literal(label))
    if scores:
        panels[1].set(ylabel="Validation Dice", ylim=(0, 1))
        panels[1].legend(edgecolor="none", loc="lower right", ncols=min(4, len(scores)), labelcolor=_INK)
    _mark_stages(panels, rows)
    for panel in panels:
        panel.grid(axis="y", color="0.9", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color("0.6")
        panel.tick_params(colors=_INK, length=3)
        panel.yaxis.label.set_color(_INK)
    panels[-1].set_xlabel("Step", color=_INK)
    return figure


def smooth(values: Doubles, window: int) -> Doubles:
    """Mean over a centred window of an odd number of values, shorter at the ends."""
    if not len(values):
        return values
    ones = np.ones(min(window, len(values)))
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def distribution_figure(values: Values, ratio: bool, intervals: Mapping[str, Interval] | None = None) -> Figure:
    """A row for each group: a dot for each case, quartiles and median as a box, the mean and its interval below.

    The dots of row 0 have the gid `cases-0` and its mean `mean-0`, see `point_titles`.

    Args:
        values: Group to case to value.
        ratio: Whether the values are shares, on a scale from 0 to 1.
        intervals: Group to the 95 % interval of its mean, where known.
    """
    marks = find_ticks([value for cases in values.values() for value in cases.values()], ratio)
    figure = Figure(figsize=(_WIDTH / 72, (_ROW * len(values) + _AXIS) / 72), facecolor="none")
    figure.set_layout_engine("constrained", w_pad=0.04, h_pad=0.02)
    panel = figure.add_subplot(facecolor="none", xlim=(marks[0], marks[-1]), ylim=(len(values) - 0.5, -0.5))
    panel.set_xticks(marks, [f"{mark:g}" for mark in marks], color=_FAINT, size=11)
    panel.set_yticks(range(len(values)), [literal(group) for group in values], color=_TEXT, size=13)
    panel.grid(axis="x", color=_GRID)
    panel.set_axisbelow(True)
    panel.tick_params(length=0, pad=6)
    panel.spines[:].set_visible(False)
    for row, (group, cases) in enumerate(values.items()):
        _draw_cases(panel, row, np.array([*cases.values()], np.float64), (intervals or {}).get(group))
    return figure


def point_titles(values: Values) -> dict[str, list[str]]:
    """Gid in a figure of distributions to what each of its points stands for."""
    rows = list(enumerate(values.values()))
    dots = {f"cases-{row}": [f"{case}: {value:.4g}" for case, value in cases.items()] for row, cases in rows}
    return dots | {f"mean-{row}": [f"mean {np.mean([*cases.values()]):.4g}"] for row, cases in rows}


def reliability_figure(notes: Mapping[str, CalibrationNote]) -> Figure:
    """Share of true voxels over the predicted probability, a line for each region; below, the voxels of each bin.

    A point above the diagonal is a bin in which more voxels are true than the probability says.

    Args:
        notes: Region to its calibration, as on a card.
    """
    figure = Figure(figsize=(_WIDTH / 72, 7.4), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    shares, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    shares.plot((0, 1), (0, 1), color=_FAINT, linewidth=1, linestyle=(0, (4, 3)))
    for number, (region, note) in enumerate(notes.items()):
        colour = _LINES[number % len(_LINES)]
        points = [(b.probability, b.share) for b in note.bins if b.probability is not None]
        label = literal(region) if note.error is None else f"{literal(region)}, error {note.error:.3f}"
        style: dict[str, Any] = {"color": colour, "markersize": 5, "linewidth": 1.8, "clip_on": False, "zorder": 3}
        shares.plot(*np.array(points).reshape(-1, 2).T, "o-", label=label, **style)
        edges, voxels = np.linspace(0, 1, len(note.bins) + 1), [b.voxels or np.nan for b in note.bins]
        counts.stairs(voxels, edges, baseline=None, color=colour, linewidth=1.6)
    shares.set(xlim=(0, 1), ylim=(0, 1))
    shares.set_ylabel("Share of true voxels", color=_TEXT, size=13)
    shares.legend(edgecolor="none", loc="best", labelcolor=_TEXT, fontsize=12)
    counts.set_yscale("log")
    counts.set_ylabel("Voxels", color=_TEXT, size=13)
    counts.set_xlabel("Predicted probability", color=_TEXT, size=13)
    for panel in (shares, counts):
        panel.grid(color=_GRID)
        panel.set_axisbelow(True)
        panel.tick_params(which="both", length=0, colors=_FAINT, labelsize=11)
        panel.spines[:].set_visible(False)
    return figure


def find_ticks(values: Sequence[float], ratio: bool) -> list[float]:
    """Round numbers on a scale that holds zero and all values: fifths of 1 for ratios, else at most eight steps."""
    low, high = (0.0, 1.0) if ratio else (min(0.0, *values), max(0.0, *values))
    locator = MaxNLocator(nbins=8, steps=[1, 2, 5, 10])
    return [round(float(tick), 10) for tick in locator.tick_values(low, high if high > low else low + 1)]


def _draw_cases(panel: Axes, row: int, values: Doubles, interval: Interval) -> None:
    """The row of a group; dots differ in height, so that equal values stay apart."""
    if len(values) >= _BOXED:
        low, median, high = np.percentile(values, (25, 50, 75)).tolist()
        panel.barh(row, high - low, 0.56, low, color=_BOX, zorder=2)
        panel.vlines(median, row - 0.28, row + 0.28, colors=_FAINT, linewidth=1.5)
    heights = row + (np.arange(len(values)) * _GOLDEN % 1 - 0.5) * 0.44
    style: dict[str, Any] = {"linestyle": "none", "markeredgewidth": 0, "clip_on": False, "zorder": 3}
    panel.plot(values, heights, "o", color=_DOT, alpha=0.6, markersize=6.4, gid=f"cases-{row}", **style)
    if interval is not None:
        panel.hlines(row + 0.41, *interval, colors=_MEAN, linewidth=2, clip_on=False)
    panel.plot(values.mean(), row + 0.41, "d", color=_MEAN, markersize=8, gid=f"mean-{row}", **style)


def _series(rows: Rows, key: str) -> tuple[Doubles, Doubles]:
    known = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    steps, values = np.array(known, np.float64).reshape(-1, 2).T
    return steps, values


def _draw_loss(panel: Axes, rows: Rows) -> None:
    """The loss, and its running mean within each stage; what lies far below the mean leaves the panel."""
    steps, loss = _series(rows, "loss")
    window = len(loss) // 30 // 2 * 2 + 1
    panel.set_ylabel("Loss")
    panel.plot(steps, loss, color=_LINES[0], linewidth=0.8 if window > 1 else 1.8, alpha=0.3 if window > 1 else 1)
    for _, group in groupby(rows, key=_stage) if window > 1 else ():
        steps_of_stage, loss_of_stage = _series(list(group), "loss")
        panel.plot(steps_of_stage, smooth(loss_of_stage, window), color=_LINES[0], linewidth=1.8)
    if len(loss) and loss.min() > 0 and loss.max() > 20 * loss.min():
        panel.set_yscale("log")
        if loss.min() < (floor := smooth(loss, window).min() / OUTLYING):
            panel.set_ylim(bottom=floor)


def _stage(row: Mapping[str, Any]) -> object:
    return row.get("stage")


def _mark_stages(panels: Sequence[Axes], rows: Rows) -> None:
    """A line where each stage begins, its name above; every second stage is shaded."""
    last = float(rows[-1]["step"])
    starts = [(stage, float(next(group)["step"])) for stage, group in groupby(rows, key=_stage)]
    ends = [start for _, start in starts[1:]] + [last]
    for number, ((stage, start), end) in enumerate(zip(starts, ends, strict=True)):
        for panel in panels:
            if number % 2:
                panel.axvspan(start, end, color="0.5", alpha=0.08, linewidth=0)
            if number:
                panel.axvline(start, color="0.5", linewidth=1, linestyle=(0, (4, 3)))
        if stage is not None:
            name = f"stage {stage}" if str(stage).isdigit() else literal(str(stage))
            across = panels[0].get_xaxis_transform()
            panels[0].text((start + end) / 2, 1.03, name, transform=across, ha="center", color=_INK, fontsize=10)
    panels[0].set_xlim(float(rows[0]["step"]), last if last > rows[0]["step"] else last + 1)
