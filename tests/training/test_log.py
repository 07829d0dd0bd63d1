import json
import subprocess
import sys

import pytest
import torch

from brainsegnet.progress import ProgressEvent
from brainsegnet.training.log import RunLog, Throughput, read_log

CPU = torch.device("cpu")


@pytest.fixture
def clock(clock_of):
    return clock_of("brainsegnet.training.log")


def run_step(clock, throughput, cutting, learning, samples):
    throughput.mark()
    clock.sleep(cutting)
    throughput.mark()
    clock.sleep(learning)
    throughput.mark()
    throughput.close_step(samples)


def test_nothing_done_is_no_throughput():
    throughput = Throughput(CPU)
    assert (throughput.samples_per_second, throughput.data_wait) == (0, 0)


def test_time_is_split_into_cutting_and_learning(clock):
    throughput = Throughput(CPU)
    for _ in range(3):
        run_step(clock, throughput, 0.01, 0.05, 4)
    assert (throughput.cutting, throughput.learning) == pytest.approx((0.03, 0.15))
    assert throughput.data_wait == pytest.approx(1 / 6)
    assert throughput.samples_per_second == pytest.approx(12 / 0.18)
    assert throughput.samples == 12


def test_a_device_that_only_waits_waits_all_the_time(clock):
    throughput = Throughput(CPU)
    run_step(clock, throughput, 0.03, 0, 1)
    assert throughput.data_wait == 1


def test_what_happens_between_steps_does_not_count(clock):
    throughput = Throughput(CPU)
    run_step(clock, throughput, 0.01, 0.01, 1)
    before = throughput.samples_per_second
    clock.sleep(0.1)
    run_step(clock, throughput, 0.01, 0.01, 1)
    assert throughput.samples_per_second == pytest.approx(before)


def event(step, **dice):
    return ProgressEvent(0.1 * step, step=step, epoch=0.5, stage="focal", loss=1.25, learning_rate=1e-3, minutes=0.5,
                         samples_per_second=2.0, data_wait=0.0, dice=dice or None)  # fmt: skip


def test_a_log_is_read_as_it_was_written_and_continued_from_a_step(tmp_path):
    log = RunLog(tmp_path, ("whole",))
    for step in (1, 2, 3):
        log.on_progress(event(step))
    log.on_progress(event(3, whole=0.5))
    log.close({"seed": 4})
    rows = read_log(tmp_path / "log.csv")
    assert [row["step"] for row in rows] == [1, 2, 3, 3] and [row.get("dice_whole") for row in rows][2:] == [None, 0.5]
    assert rows[0]["learning_rate"] == 1e-3 and rows[0]["stage"] == "focal"
    document = json.loads((tmp_path / "log.json").read_text())
    assert document["seed"] == 4 and [row["dice_whole"] for row in document["validations"]] == [0.5]
    RunLog(tmp_path, ("whole",), steps=2).on_progress(event(3))
    assert [row["step"] for row in read_log(tmp_path / "log.csv")] == [1, 2, 3]
    RunLog(tmp_path, ("whole",))
    assert read_log(tmp_path / "log.csv") == read_log(tmp_path / "nothing.csv") == []


def test_reading_a_log_loads_no_torch():
    code = "import sys, brainsegnet.training.log; print({'torch', 'lightning'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
