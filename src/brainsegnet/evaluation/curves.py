"""The training curve: loss and validation Dice over the steps, with the stages of the curriculum marked."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from brainsegnet.errors import DatasetError

Rows = Sequence[Mapping[str, Any]]
Series = tuple[NDArray[np.float64], NDArray[np.float64]]

_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_INK = "0.25"
OUTLYING = 10
"""A loss so many times lower than the running mean ever is, as of samples without lesion, does not set the scale."""


def training_curve_figure(rows: Rows) -> Figure:
    """Loss and, where it was measured, validation Dice over the steps.

    Args:
        rows: In the order of the steps, each with `step`, `stage` and any of `loss`, `dice` and `dice_<region>`; what
            a row lacks or holds as None was not measured then.

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
        panels[1].plot(*_series(rows, key), "o-", color=colour, markersize=3.5, linewidth=1.8, label=label)
    if scores:
        panels[1].set(ylabel="Validation Dice", ylim=(0, 1))
        panels[1].legend(edgecolor="none", loc="lower right", ncols=min(4, len(scores)), labelcolor=_INK)
    _mark_stages(panels, rows)
    for panel in panels:
        _quiet(panel)
    panels[-1].set_xlabel("Step", color=_INK)
    return figure


def smooth(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean over a centred window of an odd number of values, shorter at the ends.

    >>> smooth(np.array([0.0, 3.0, 0.0, 3.0]), 3).tolist()
    [1.5, 1.0, 2.0, 1.5]
    """
    if not len(values):
        return values
    ones = np.ones(min(window, len(values)))
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def _series(rows: Rows, key: str) -> Series:
    known = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    steps, values = np.array(known, np.float64).reshape(-1, 2).T
    return steps, values


def _draw_loss(panel: Axes, rows: Rows) -> None:
    """The loss as it was, and its running mean within each stage; what lies far below the mean leaves the panel."""
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
            name = f"stage {stage}" if str(stage).isdigit() else str(stage)
            across = panels[0].get_xaxis_transform()
            panels[0].text((start + end) / 2, 1.03, name, transform=across, ha="center", color=_INK, fontsize=10)
    panels[0].set_xlim(float(rows[0]["step"]), last if last > rows[0]["step"] else last + 1)


def _quiet(panel: Axes) -> None:
    panel.grid(axis="y", color="0.9", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color("0.6")
    panel.tick_params(colors=_INK, length=3)
    panel.yaxis.label.set_color(_INK)
