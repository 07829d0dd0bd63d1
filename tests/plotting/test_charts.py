"""Laws of the training curve: it holds what was measured, where it was measured, and marks the stages."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from brainsegnet.errors import DatasetError
from brainsegnet.plotting.charts import smooth, training_curve_figure


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
