"""Laws of the charts: they hold what was measured, where it was measured; curves mark the stages of a training."""

from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex

from brainsegnet.errors import DatasetError
from brainsegnet.plotting.charts import (
    distribution_figure,
    find_ticks,
    point_titles,
    reliability_figure,
    smooth,
    training_curve_figure,
)
from brainsegnet.plotting.slices import inline_svg, render


def log(steps: int = 120, every: int = 20) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for step in range(steps):
        row = {"step": step, "stage": 1 + step // 40, "loss": 2.0 / (1 + step), "dice_whole": None}
        rows.append(row | ({"dice_whole": step / steps, "dice_core": 0.5} if step % every == 0 else {}))
    return rows


def test_loss_and_dice_are_drawn_as_measured():
    loss, dice = training_curve_figure(log()).axes
    steps, values = loss.lines[0].get_data()
    assert np.array_equal(steps, np.arange(120))
    assert values == pytest.approx(2.0 / (1 + np.arange(120)))
    steps, values = dice.lines[0].get_data()
    assert steps.tolist() == [0, 20, 40, 60, 80, 100]
    assert values == pytest.approx(steps / 120)
    assert [text.get_text() for text in dice.get_legend().get_texts()] == ["whole", "core"]
    assert len({to_hex(line.get_color()) for line in dice.lines[:2]}) == 2


def test_a_reliability_diagram_shows_each_bin_that_has_voxels(calibration):
    shares, counts = reliability_figure({"whole": calibration, "$core$": calibration}).axes
    diagonal, whole, core = shares.lines
    assert [*diagonal.get_xdata()] == [*diagonal.get_ydata()] == [0, 1]
    predicted, true = whole.get_data()
    assert predicted == pytest.approx(0.15 + np.arange(9) / 10) and true == pytest.approx(predicted - 0.1)
    assert to_hex(whole.get_color()) != to_hex(core.get_color())
    assert shares.get_legend().get_texts()[0].get_text() == "whole, error 0.100"
    steps: Any = counts.patches[0]
    voxels = steps.get_data().values
    assert np.isnan(voxels[0]) and voxels[1:].tolist() == [100] * 9
    assert b"core" in render(reliability_figure({"$core$": calibration}), "svg")


def test_a_line_marks_where_each_stage_begins():
    for panel in training_curve_figure(log()).axes:
        upright = [line.get_xdata()[0] for line in panel.lines if len(set(line.get_xdata())) == 1]
        assert upright == [40, 80]


def test_every_stage_is_named():
    names = [text.get_text() for text in training_curve_figure(log()).axes[0].texts]
    assert names == ["stage 1", "stage 2", "stage 3"]
    named = training_curve_figure([{"step": 0, "stage": "original", "loss": 1.0}]).axes[0].texts
    assert [text.get_text() for text in named] == ["original"]


def test_without_dice_there_is_one_panel_and_without_rows_none():
    assert len(training_curve_figure([{"step": 5, "loss": 0.3}, {"step": 6, "loss": 0.2}]).axes) == 1
    with pytest.raises(DatasetError, match="no rows"):
        training_curve_figure([])


def test_smoothing_keeps_constants_and_length():
    for window in (1, 3, 7, 99):
        assert smooth(np.full(9, 2.5), window) == pytest.approx(np.full(9, 2.5))
    assert smooth(np.array([]), 3).size == 0


def test_no_single_loss_near_zero_sets_the_scale():
    rows = log()
    for row in rows:
        row["loss"] = 2.0 - row["step"] / 80
    usual = training_curve_figure(rows).axes[0]
    rows[50]["loss"] = 1e-9
    loss = training_curve_figure(rows).axes[0]
    assert loss.get_yscale() == "log" and usual.get_yscale() == "linear"
    assert 0.01 < loss.get_ylim()[0] < 0.5 < 2 < loss.get_ylim()[1]
    assert loss.lines[0].get_data()[1][50] == 1e-9, "it is drawn all the same"
    assert training_curve_figure(log()).axes[0].get_ylim()[0] < 2.0 / 120, "a loss that falls is shown down to its end"


VALUES = {"whole": {"a": 0.0, "b": 0.25, "c": 1.0}, "$x$": {f"p{n}": n / 10 for n in range(11)}}


def lines_of(figure, gid):
    return next(line for line in figure.axes[0].lines if line.get_gid() == gid).get_data()


def test_a_dot_stands_at_its_figure_and_the_mean_below_its_dots():
    figure = distribution_figure(VALUES, ratio=True)
    for row, cases in enumerate(VALUES.values()):
        across, down = lines_of(figure, f"cases-{row}")
        assert across.tolist() == [*cases.values()] and (np.abs(down - row) < 0.25).all()
        across, down = lines_of(figure, f"mean-{row}")
        assert across == pytest.approx(np.mean([*cases.values()])) and row + 0.25 < down < row + 0.5
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["whole", r"\$x\$"]
    assert figure.axes[0].get_xlim() == (0, 1) and figure.axes[0].get_ylim() == (1.5, -0.5)


def test_quartiles_are_drawn_from_five_cases_up():
    box: Any
    (box,) = distribution_figure(VALUES, ratio=True).axes[0].patches
    assert (box.get_x(), box.get_width()) == pytest.approx((0.25, 0.5)) and abs(box.get_y() - 1) < 0.5


def test_intervals_are_drawn_where_they_are_known():
    known, unknown = (distribution_figure(VALUES, True, i) for i in ({"whole": (0.2, 0.7), "$x$": None}, None))
    drawn: list[Any] = [*known.axes[0].collections]
    others: list[Any] = [*unknown.axes[0].collections]
    (interval,) = (s for c in drawn for s in c.get_segments() if to_hex(c.get_color()) == "#d1495b")
    assert interval[:, 0].tolist() == [0.2, 0.7]
    assert not [c for c in others if to_hex(c.get_color()) == "#d1495b"]


def test_the_points_of_a_drawing_have_their_titles():
    root = ElementTree.fromstring(inline_svg(distribution_figure(VALUES, True), "d", "", point_titles(VALUES)))
    titles = [e.text for e in root.iter("title")]
    assert titles[:4] == ["a: 0", "b: 0.25", "c: 1", "mean 0.4167"] and len(titles) == 3 + 1 + 11 + 1


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [3e-4], [-5.0, 2.0], [373.13], [1e5, 2.0]])
def test_every_scale_holds_its_values_and_zero(values):
    marks = find_ticks(values, ratio=False)
    assert marks[0] <= min(0, *values) and marks[-1] >= max(0, *values)
    assert 3 <= len(marks) <= 12 and marks == sorted(set(marks))
