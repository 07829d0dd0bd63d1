import time

import pytest
import torch

from brainsegnet.training.progress import Mark, Throughput

CPU = torch.device("cpu")


def run_step(throughput, cutting, learning, samples):
    throughput.mark()
    time.sleep(cutting)
    throughput.mark()
    time.sleep(learning)
    throughput.mark()
    throughput.close_step(samples)


def test_nothing_done_is_no_pace():
    throughput = Throughput(CPU)
    assert (throughput.samples_per_second, throughput.data_wait) == (0, 0)


def test_time_is_split_into_cutting_and_learning():
    throughput = Throughput(CPU)
    for _ in range(3):
        run_step(throughput, 0.01, 0.05, 4)
    assert 0.03 <= throughput.cutting < throughput.learning and throughput.learning >= 0.15
    assert (
        throughput.data_wait == pytest.approx(throughput.cutting / (throughput.cutting + throughput.learning))
        and 0 < throughput.data_wait < 0.5
    )
    assert (
        throughput.samples_per_second == pytest.approx(12 / (throughput.cutting + throughput.learning))
        and throughput.samples == 12
    )


def test_a_device_that_only_waits_waits_all_the_time():
    throughput = Throughput(CPU)
    run_step(throughput, 0.03, 0, 1)
    assert throughput.data_wait > 0.8


def test_what_happens_between_steps_does_not_count():
    throughput = Throughput(CPU)
    run_step(throughput, 0.01, 0.01, 1)
    before = throughput.samples_per_second
    time.sleep(0.1)
    assert throughput.samples_per_second == before


def test_marks_of_a_cpu_are_reached_at_once():
    a, b = Mark(CPU), Mark(CPU)
    assert a.reached() and b.reached() and a.seconds_to(b) >= 0 >= b.seconds_to(a)
