import time

import pytest
import torch

from brainsegnet.training.progress import Mark, Pace

CPU = torch.device("cpu")


def run_step(pace, cutting, learning, samples):
    pace.mark()
    time.sleep(cutting)
    pace.mark()
    time.sleep(learning)
    pace.mark()
    pace.close_step(samples)


def test_nothing_done_is_no_pace():
    pace = Pace(CPU)
    assert (pace.samples_per_second, pace.waiting) == (0, 0)


def test_time_is_split_into_cutting_and_learning():
    pace = Pace(CPU)
    for _ in range(3):
        run_step(pace, 0.01, 0.05, 4)
    assert 0.03 <= pace.cutting < pace.learning and pace.learning >= 0.15
    assert pace.waiting == pytest.approx(pace.cutting / (pace.cutting + pace.learning)) and 0 < pace.waiting < 0.5
    assert pace.samples_per_second == pytest.approx(12 / (pace.cutting + pace.learning)) and pace.samples == 12


def test_a_device_that_only_waits_waits_all_the_time():
    pace = Pace(CPU)
    run_step(pace, 0.03, 0, 1)
    assert pace.waiting > 0.8


def test_what_happens_between_steps_does_not_count():
    pace = Pace(CPU)
    run_step(pace, 0.01, 0.01, 1)
    before = pace.samples_per_second
    time.sleep(0.1)
    assert pace.samples_per_second == before


def test_marks_of_a_cpu_are_reached_at_once():
    a, b = Mark(CPU), Mark(CPU)
    assert a.reached() and b.reached() and a.seconds_to(b) >= 0 >= b.seconds_to(a)
