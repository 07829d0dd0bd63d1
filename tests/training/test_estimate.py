"""The plan of a training that is not run: its arithmetic, and that nothing is written."""

import math
from dataclasses import replace

import pytest

pytest.importorskip("torch")

from brainsegnet.errors import TaskError
from brainsegnet.io.cases import find_cases
from brainsegnet.training import DryRunOptions, TrainOptions
from brainsegnet.training.estimate import dry_run

GIVEN = DryRunOptions(dry_run=True, samples_per_second=2.0)


@pytest.fixture
def estimate(phantoms, tiny):
    def make(how=GIVEN, **changes):
        return dry_run(phantoms, "brats2015", TrainOptions(tiny, validation=0, accelerator="cpu", **changes), how)

    return make


def test_steps_samples_and_hours_follow_from_the_budget(estimate, phantoms, tiny):
    slabs = math.ceil(24 / tiny.patch[0])
    by_steps, by_epochs, by_minutes = estimate(steps=90), estimate(epochs=10), estimate(minutes=30)
    assert by_steps.samples_per_epoch == len(find_cases([phantoms])) * slabs
    assert (by_steps.steps, by_steps.samples) == (90, 90 * tiny.batch)
    assert by_steps.hours == pytest.approx(90 * tiny.batch / 2.0 / 3600)
    assert by_epochs.samples == pytest.approx(10 * by_epochs.samples_per_epoch, abs=tiny.batch)
    assert (by_minutes.hours, by_minutes.samples) == (0.5, 30 * 60 * 2)


def test_n_processes_take_an_nth_of_the_time_and_it_is_said_that_this_is_computed(estimate):
    one, two = estimate(steps=90), estimate(steps=90, devices=1, nodes=2)
    assert two.hours == pytest.approx(one.hours / 2) and two.steps == one.steps
    said = "\n".join(two.describe())
    assert "1 on each of 2 processes" in said and "computed from that of one, and was not measured" in said
    assert "computed" not in "\n".join(one.describe())
    assert estimate(minutes=3, nodes=2).steps == 2 * estimate(minutes=3).steps


def test_a_batch_that_cannot_be_shared_is_refused_before_any_measurement(estimate):
    with pytest.raises(TaskError, match="cannot be shared evenly by 3 devices"):
        estimate(steps=9, nodes=3)


def test_a_measured_rate_is_that_of_steps_and_their_memory_is_known(estimate, one_thread):
    measured = estimate(DryRunOptions(dry_run=True), steps=90)
    assert measured.measured and measured.samples_per_second > 0 and measured.peak_gb > measured.state_gb > 0
    assert measured.hours == pytest.approx(measured.samples / measured.samples_per_second / 3600)
    assert replace(measured, peak_gb=None, measured=False, samples_per_second=2.0, hours=0) == replace(
        estimate(steps=90), hours=0
    )


def test_several_processes_are_refused(estimate, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TaskError, match="a dry run is one process; start it without torchrun"):
        estimate(steps=3)


@pytest.mark.parametrize(
    ("wrong", "sentence"), [((False, 2.0), "add --dry-run"), ((True, 0.0), "must be above 0, not 0")]
)
def test_a_rate_that_cannot_be_meant_is_refused(wrong, sentence):
    with pytest.raises(TaskError, match=sentence):
        DryRunOptions(*wrong)
