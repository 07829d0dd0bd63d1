"""What a buffer holds follows from the step alone, so a training on it is the same however it is cut into parts."""

import os
import signal
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

from brainsegnet.errors import Interrupted, ModelError
from brainsegnet.model.network import read_tensors
from brainsegnet.progress import Callback
from brainsegnet.training.loop import Monitoring, Plan, fit
from brainsegnet.training.recipes import STRONG, Budget, Recipe
from brainsegnet.training.sampler import Sampler
from brainsegnet.training.simulated import SimulationBuffer

TINY = Recipe(
    name="tiny",
    widths=(2, 4, 4, 4),
    refined=4,
    sampling="lesion",
    batch=2,
    learning_rate=1e-2,
    averaging=0.9,
    augmentation=STRONG,
    budget_epochs=1,
)


def plan(budget=None):
    return Plan(TINY, budget or Budget(steps=9), 2, 3, (4, 16, 16), seed=3)


@dataclass
class Diary(Callback):
    """Remembers events; a SIGINT is sent to this process when step `stop_at` is reported."""

    stop_at: int = 0
    events: list = field(default_factory=list)

    def on_progress(self, event):
        self.events.append(event)
        if event.step == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    def monitoring(self, state_file=None):
        return Monitoring((self,), state_file=state_file)

    @property
    def losses(self):
        return {event.step: event.loss for event in self.events}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


@pytest.fixture
def fabric():
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture
def buffer_of(make_scan):
    """Builds a buffer of small scans of several depths, and the list of the numbers that it has made."""

    def build(size=2, refresh_every=2, ahead=False, origin="balls", seconds=0.0):
        made = []

        def make(number):
            time.sleep(seconds)
            made.append(number)
            return make_scan((6 + number % 3, 20, 24), seed=number)

        return SimulationBuffer(size, refresh_every, make, depth=7, origin=origin, ahead=ahead), made

    return build


@pytest.mark.parametrize(("size", "refresh_every"), [(1, 1), (1, 5), (3, 1), (4, 7), (5, 2)])
def test_a_place_holds_what_a_ring_would_hold(size, refresh_every, buffer_of):
    ring, buffer = list(range(size)), buffer_of(size, refresh_every)[0]
    for step in range(60):
        if step and step % refresh_every == 0:
            newest = max(ring) + 1
            ring[newest % size] = newest
        assert buffer.numbers_at(step) == ring and buffer.count_at(step) == max(ring) + 1


def test_an_update_makes_no_more_than_changes(buffer_of):
    (buffer, made), held = buffer_of(3, 2), {}
    buffer.fill(0, held.__setitem__)
    assert made == [0, 1, 2] and buffer.seen == 3
    for step in range(5):
        buffer.update(step, held.__setitem__)
    assert made == [0, 1, 2, 3, 4] and buffer.seen == 5
    assert [held[place].image.shape[1] for place in range(3)] == [6 + n % 3 for n in buffer.numbers_at(4)]


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("others", [0, 1])
def test_resumed_equals_uninterrupted_bit_for_bit(make_scan, buffer_of, fabric, tmp_path, ahead, others):
    scans = [make_scan(seed=99)][:others]
    whole, first, second = Diary(), Diary(stop_at=5), Diary()
    buffer, _ = buffer_of()
    net = fit(scans, plan(), fabric, whole.monitoring(tmp_path / "one"), buffer=buffer)
    part, _ = buffer_of(ahead=ahead)
    threads = {*threading.enumerate()}
    with pytest.raises(Interrupted):
        fit(scans, plan(), fabric, first.monitoring(tmp_path / "two"), buffer=part)
    rest, made = buffer_of(ahead=ahead)
    again = fit(scans, plan(), fabric, second.monitoring(tmp_path / "two"), buffer=rest, resume=True)
    assert {*threading.enumerate()} <= threads, "no thread is left behind"
    assert same(again.state_dict(), net.state_dict()) and first.losses | second.losses == whole.losses
    assert made[:4] == [2, 3, 4, 5] and buffer.seen == rest.seen == 6 and part.seen == 4
    (one, _), (two, _) = (read_tensors(tmp_path / name) for name in ("one", "two"))
    assert same(one, two) and {name.split(".")[0] for name in one} == {"net", "average", "optimiser"}
    assert whole.losses != fit_alone(scans, buffer_of, fabric), "the buffer changes while the training goes on"


def fit_alone(scans, buffer_of, fabric):
    """Losses where no scan is ever replaced."""
    diary = Diary()
    fit(scans, plan(), fabric, diary.monitoring(), buffer=buffer_of(refresh_every=100)[0])
    return diary.losses


def test_a_buffer_serves_one_training_after_another(buffer_of, fabric):
    buffer, made = buffer_of(ahead=True)
    diaries = Diary(), Diary()
    for diary in diaries:
        fit([], plan(Budget(steps=3)), fabric, diary.monitoring(), buffer=buffer)
    assert diaries[0].losses == diaries[1].losses and made[: len(made) // 2] == made[len(made) // 2 :]


@pytest.mark.parametrize("other", [{"size": 3}, {"refresh_every": 3}, {"origin": "cubes"}, None])
def test_another_buffer_cannot_continue_a_training(make_scan, buffer_of, fabric, tmp_path, other):
    scans = [make_scan()]
    fit(scans, plan(Budget(steps=1)), fabric, Diary().monitoring(tmp_path / "s"), buffer=buffer_of()[0])
    buffer = None if other is None else buffer_of(**other)[0]
    with pytest.raises(ModelError, match="of a training with another recipe, task, seed or data"):
        fit(scans, plan(), fabric, Diary().monitoring(tmp_path / "s"), buffer=buffer, resume=True)
    assert SimulationBuffer(0, 1, [].__getitem__).fingerprint == ""


def test_a_finished_training_resumed_makes_nothing(buffer_of, fabric, tmp_path):
    fit([], plan(Budget(steps=4)), fabric, Diary().monitoring(tmp_path / "s"), buffer=buffer_of()[0])
    buffer, made = buffer_of(ahead=True)
    fit([], plan(Budget(steps=4)), fabric, Diary().monitoring(tmp_path / "s"), buffer=buffer, resume=True)
    assert not made and buffer.seen == 3


def test_what_cannot_be_made_ends_the_training_with_its_own_error(make_scan, fabric):
    def make(number):
        if number == 3:
            raise ModelError("no more")
        return make_scan(seed=number)

    for ahead in (False, True):
        diary, buffer = Diary(), SimulationBuffer(2, 2, make, depth=8, ahead=ahead)
        with pytest.raises(ModelError, match="no more"):
            fit([], plan(), fabric, diary.monitoring(), buffer=buffer)
        assert list(diary.losses) == [1, 2, 3, 4]


def test_making_counts_as_waiting(buffer_of, fabric):
    diary = Diary()
    fit([], plan(Budget(steps=4)), fabric, diary.monitoring(), buffer=buffer_of(refresh_every=1, seconds=0.2)[0])
    last = diary.events[-1]
    spent = 4 * TINY.batch / last.samples_per_second
    assert last.data_wait * spent >= 3 * 0.2, "three scans were replaced before the last of four steps"


def test_the_first_filling_spends_nothing_of_the_budget(buffer_of, fabric):
    diary = Diary()
    fit(
        [],
        plan(Budget(minutes=0.4 / 60)),
        fabric,
        diary.monitoring(),
        buffer=buffer_of(refresh_every=100, seconds=0.3)[0],
    )
    assert diary.losses, "two scans of 0.3 s would have been the end of it"


@pytest.mark.parametrize("depth", [4, 9, 16, 17, 40])
def test_samples_keep_their_numbers_and_reach_over_the_whole_scan(make_scan, depth):
    slabs = TINY.model_copy(update={"sampling": "slabs"})
    sampler = Sampler([make_scan()], slabs, (4, 16, 16), 3, torch.device("cpu"), depths=(16, 16))
    places = list(sampler.places)
    for index in (1, 2):
        sampler.put(index, make_scan((depth, 20, 20), seed=index))
    assert sampler.places == places and len(places) == 2 + 4 + 4
    draws = [sampler.draw(k, slabs.stages[0]) for k in range(len(places))]
    starts = sorted(d.start for d in draws if d.scan == 1)
    assert len(starts) == 4 and starts[0] == 0 and starts[-1] == max(depth - 4, 0)
    assert sampler.cut(draws)[0].shape == (10, 2, 4, 16, 16)


def test_a_new_scan_is_cut_where_the_old_one_was(make_scan):
    slabs = TINY.model_copy(update={"sampling": "slabs"})
    old, new = (make_scan((4, 40, 40), centre=(2, at, at), radius=4) for at in (8, 32))
    sampler = Sampler([], slabs, (4, 16, 16), 3, torch.device("cpu"), depths=(4,))
    for scan in (old, new):
        sampler.put(0, scan)
        images, classes = sampler.cut([sampler.draw(0, slabs.stages[0])])
        fresh = Sampler([scan], slabs, (4, 16, 16), 3, torch.device("cpu"))
        expected = fresh.cut([fresh.draw(0, slabs.stages[0])])
        assert torch.equal(images, expected[0]) and torch.equal(classes, expected[1])
        assert np.count_nonzero(classes) == np.count_nonzero(scan.classes)
