import itertools
import math
import os
import signal
import threading
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

from brainsegnet.errors import Interrupted, ModelError, TaskError, TrainingDiverged
from brainsegnet.model.network import read_tensors
from brainsegnet.progress import Callback
from brainsegnet.training.loop import Monitoring, Plan, fit
from brainsegnet.training.recipes import PAPER_STAGES, STRONG, Budget, Recipe

TINY = Recipe(
    name="tiny",
    widths=(2, 4, 4, 4),
    refined=4,
    sampling="lesion",
    batch=2,
    optimiser="adamw",
    learning_rate=1e-2,
    weight_decay=1e-2,
    warmup=0.2,
    decay=True,
    dice=1.0,
    averaging=0.9,
    drop_sequences=0.3,
    augmentation=STRONG,
    budget_epochs=1,
)


def plan(budget=None, **kwargs):
    return Plan(TINY.model_copy(update=kwargs), budget or Budget(steps=9), 2, 3, (4, 16, 16), seed=3)


@dataclass
class Diary(Callback):
    """Remembers all that the loop calls; a signal is sent to this process when step `stop_at` is reported."""

    stop_at: int = 0
    number: int = signal.SIGTERM
    scores: list = field(default_factory=list)
    events: list = field(default_factory=list)
    kept: list = field(default_factory=list)
    validated: list = field(default_factory=list)

    def on_progress(self, event):
        self.events.append(event)
        if event.step == self.stop_at and not event.dice:
            os.kill(os.getpid(), self.number)

    def keep(self, name, weights, steps):
        self.kept.append((name, {key: tensor.clone() for key, tensor in weights.items()}))

    def validate(self, net):
        assert not net.training
        with torch.inference_mode():
            logits = net(torch.ones(1, 2, 4, 16, 16))
        self.validated.append({key: tensor.clone() for key, tensor in net.state_dict().items()})
        score = self.scores[len(self.validated) - 1] if self.scores else logits.softmax(1)[:, 1].mean().item()
        return {"whole": score, "core": score}

    def monitoring(self, state_file=None, validations=4, **more):
        return Monitoring((self,), self.validate, validations, self.keep, state_file, **more)

    @property
    def losses(self):
        return {event.step: event.loss for event in self.events if not event.dice}


@pytest.fixture
def scans(make_scan):
    return [make_scan(seed=1), make_scan((6, 20, 28), seed=2)]


@pytest.fixture
def fabric():
    return Fabric(accelerator="cpu", devices=1)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_resumed_equals_uninterrupted_bit_for_bit(scans, fabric, tmp_path, number):
    paths = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    whole, first, second = Diary(), Diary(stop_at=4, number=number), Diary()
    net = fit(scans, plan(), fabric, whole.monitoring(paths[0]))
    with pytest.raises(Interrupted, match=signal.Signals(number).name) as caught:
        fit(scans, plan(), fabric, first.monitoring(paths[1]))
    assert caught.value.number == number and paths[1].is_file() and len(first.losses) == 4
    again = fit(scans, plan(), fabric, second.monitoring(paths[1]), resume=True)
    assert same(again.state_dict(), net.state_dict())
    assert first.losses | second.losses == whole.losses and first.losses.keys().isdisjoint(second.losses)
    (one, _), (two, _) = (read_tensors(path) for path in paths)
    assert same(one, two) and {name.split(".")[0] for name in one} == {"net", "average", "optimiser"}
    assert len(whole.validated) == len(first.validated) + len(second.validated) == 4
    assert all(same(a, b) for a, b in zip(first.validated + second.validated, whole.validated, strict=True))


def test_a_signal_leaves_the_last_weights_and_the_handlers_as_they_were(scans, fabric, tmp_path):
    before, diary = signal.getsignal(signal.SIGTERM), Diary(stop_at=2)
    with pytest.raises(Interrupted):
        fit(scans, plan(), fabric, diary.monitoring(tmp_path / "s"))
    assert signal.getsignal(signal.SIGTERM) is before
    averages = {k.removeprefix("average."): v for k, v in read_tensors(tmp_path / "s")[0].items() if k[0] == "a"}
    assert diary.kept[-1][0] == "last" and same(diary.kept[-1][1], averages)


@pytest.fixture
def heard():
    """SIGINT is heard, also where the tests run in the background of a shell, which ignores it there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_a_second_ctrl_c_stops_at_once(scans, fabric, recorder):
    twice = recorder(lambda event: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        fit(scans, plan(), fabric, Monitoring((twice,)))


def test_a_second_sigterm_does_not_keep_the_state_from_being_written(scans, fabric, recorder, tmp_path):
    diary, twice = Diary(), recorder(lambda event: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)])
    with pytest.raises(Interrupted):
        fit(scans, plan(), fabric, replace(diary.monitoring(tmp_path / "s"), callbacks=(twice,)))
    assert (tmp_path / "s").is_file() and diary.kept[-1][0] == "last"


def test_training_works_outside_the_main_thread(scans, fabric):
    diary = Diary()
    thread = threading.Thread(target=fit, args=(scans, plan(Budget(steps=2)), fabric, diary.monitoring()))
    thread.start()
    thread.join(60)
    assert len(diary.losses) == 2


def test_a_finished_training_resumed_does_nothing(scans, fabric, tmp_path):
    net = fit(scans, plan(), fabric, Diary().monitoring(tmp_path / "s"))
    diary = Diary()
    assert same(
        fit(scans, plan(), fabric, diary.monitoring(tmp_path / "s"), resume=True).state_dict(), net.state_dict()
    )
    assert not diary.events and not diary.validated


def test_a_larger_budget_trains_and_validates_further(scans, fabric, tmp_path):
    fit(scans, plan(Budget(steps=4)), fabric, Diary().monitoring(tmp_path / "s"))
    diary = Diary()
    fit(scans, plan(Budget(steps=8)), fabric, diary.monitoring(tmp_path / "s"), resume=True)
    assert list(diary.losses) == [5, 6, 7, 8] and len(diary.validated) == 2


@pytest.mark.parametrize(
    "change", [{"learning_rate": 0.5}, {"dice": 0.0}, {"small_lesion_power": 0.5}, {"stages": PAPER_STAGES[:1]}]
)
def test_the_state_of_another_recipe_is_refused(scans, fabric, tmp_path, change):
    fit(scans, plan(Budget(steps=1)), fabric, Diary().monitoring(tmp_path / "s"))
    with pytest.raises(ModelError, match="another recipe, task, seed or data"):
        fit(scans, plan(**change), fabric, Diary().monitoring(tmp_path / "s"), resume=True)
    with pytest.raises(ModelError, match="another recipe, task, seed or data"):
        fit(scans, replace(plan(), seed=4), fabric, Diary().monitoring(tmp_path / "s"), resume=True)


def test_nothing_to_resume_is_said(scans, fabric, tmp_path):
    for state in (None, tmp_path / "nothing"):
        with pytest.raises(ModelError) as caught:
            fit(scans, plan(), fabric, Diary().monitoring(state), resume=True)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong, sentence",
    [({"patch": (4, 16, 24)}, "quarter turns need square patches"), ({"seed": -1}, "a seed lies between 0 and 2")],
)
def test_a_plan_that_would_fail_half_way_is_refused_at_once(scans, fabric, wrong, sentence):
    turning = TINY.model_copy(update={"augmentation": STRONG.model_copy(update={"quarter_turns": True})})
    with pytest.raises(TaskError, match=sentence):
        fit(scans, replace(plan(), recipe=turning, **wrong), fabric, Diary().monitoring())


def test_the_seed_decides_everything(scans, fabric):
    torch.manual_seed(99)
    a, b, c = Diary(), Diary(), Diary()
    one, two = (fit(scans, plan(), fabric, diary.monitoring()) for diary in (a, b))
    other = fit(scans, replace(plan(), seed=4), fabric, c.monitoring())
    assert same(one.state_dict(), two.state_dict()) and a.losses == b.losses
    assert not same(one.state_dict(), other.state_dict())


def test_training_leaves_the_random_numbers_of_others_alone(scans, fabric):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    fit(scans, plan(Budget(steps=1)), fabric, Diary().monitoring())
    assert torch.equal(torch.rand(1), expected)


def test_the_loss_falls_where_there_is_something_to_learn(make_scan, fabric):
    diary = Diary()
    changes = {"widths": (4, 8, 8, 8), "refined": 8, "drop_sequences": 0.0, "stages": PAPER_STAGES[:1]}
    net = fit([make_scan()], plan(Budget(steps=60), **changes), fabric, diary.monitoring(validations=1))
    losses = list(diary.losses.values())
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:3])
    scan = make_scan()
    with torch.inference_mode():
        found = net(torch.from_numpy(scan.image)[None]).argmax(1)[0].numpy() > 0
    truth = scan.classes > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.8


def test_the_first_loss_is_that_of_a_guess(scans, fabric):
    diary = Diary()
    fit(scans, plan(Budget(steps=1), dice=0.0), fabric, diary.monitoring())
    gamma = TINY.stages[0].gamma
    assert diary.losses[1] == pytest.approx((1 - 1 / 3) ** gamma * math.log(3), rel=0.03)


def test_events_hold_step_epoch_stage_rate_and_throughput(scans, fabric):
    diary, p = Diary(), plan(Budget(steps=9))
    fit(scans, p, fabric, diary.monitoring())
    steps = [r for r in diary.events if not r.dice]
    assert [r.step for r in steps] == list(range(1, 10)) and [r.progress for r in steps] == [s / 9 for s in range(9)]
    assert [r.stage for r in steps] == ["original"] * 3 + ["augmented"] * 3 + ["focal"] * 3
    assert [r.epoch for r in steps] == [s * 2 / 4 for s in range(1, 10)], "two samples a step, four slabs an epoch"
    assert [r.learning_rate for r in steps] == [p.recipe.rate_at(r.progress) for r in steps]
    assert all(r.samples_per_second > 0 and 0 <= r.data_wait <= 1 for r in diary.events)
    assert steps[0].minutes_left is None and all(r.minutes_left > 0 for r in steps[1:])
    minutes = [r.minutes for r in diary.events]
    assert minutes == sorted(minutes) and 0 <= minutes[0] < minutes[-1] < 1
    assert all(math.isfinite(r.loss) for r in diary.events), "also where a validation follows a line at once"


@pytest.mark.parametrize("steps, validations", [(9, 4), (8, 4), (4, 4), (3, 5), (22, 22), (7, 1)])
def test_validations_are_spread_over_the_budget(scans, fabric, steps, validations):
    diary = Diary()
    fit(scans, plan(Budget(steps=steps)), fabric, diary.monitoring(validations=validations))
    scored = [r.step for r in diary.events if r.dice]
    assert len(scored) == len(diary.validated) == min(steps, validations) and scored[-1] == steps
    assert scored == [math.ceil((k + 1) * steps / validations) for k in range(validations)] or steps < validations


def test_the_best_kept_is_the_best(scans, fabric):
    diary = Diary(scores=[0.2, 0.1, 0.5, 0.4])
    net = fit(scans, plan(), fabric, diary.monitoring())
    assert [name for name, _ in diary.kept] == ["best", "best", "last"]
    assert same(diary.kept[0][1], diary.validated[0]) and same(diary.kept[1][1], diary.validated[2])
    assert same(diary.kept[2][1], net.state_dict())
    assert [dict(r.dice) for r in diary.events if r.dice] == [{"whole": s, "core": s} for s in diary.scores]


def test_the_best_of_an_earlier_part_is_remembered(scans, fabric, tmp_path):
    first, second = Diary(stop_at=3, scores=[0.9]), Diary(scores=[0.2, 0.3, 0.4])
    with pytest.raises(Interrupted):
        fit(scans, plan(), fabric, first.monitoring(tmp_path / "s"))
    fit(scans, plan(), fabric, second.monitoring(tmp_path / "s"), resume=True)
    assert [name for name, _ in second.kept] == ["last"]


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_validation_does_not_disturb_training(scans, fabric, averaging):
    validated, undisturbed = Diary(), Diary()
    p = plan(averaging=averaging)
    net = fit(scans, p, fabric, validated.monitoring())
    other = fit(scans, p, fabric, Monitoring((undisturbed,), keep=undisturbed.keep))
    assert validated.losses == undisturbed.losses and same(net.state_dict(), other.state_dict())
    assert net.state_dict()["blocks.0.0.1.num_batches_tracked"] == 9 and not net.training


def test_the_average_is_validated_and_kept(scans, fabric, tmp_path):
    net = fit(scans, plan(), fabric, Diary().monitoring(tmp_path / "s"))
    tensors, _ = read_tensors(tmp_path / "s")
    assert torch.equal(net.classify.weight, tensors["average.classify.weight"])
    assert not torch.equal(net.classify.weight, tensors["net.classify.weight"])


def test_a_budget_in_minutes_ends_in_about_its_time(scans, fabric, clock_of):
    diary, clock = Diary(), clock_of("brainsegnet.training.loop", step=0.02)
    fit(scans, plan(Budget(minutes=1.5 / 60)), fabric, diary.monitoring())
    assert 1.5 <= clock.now < 1.8 and len(diary.validated) <= 4
    assert 60 * diary.events[-1].minutes == pytest.approx(1.5, abs=0.2)
    stages = [r.stage for r in diary.events]
    assert stages[-1] == "focal" and stages == sorted(stages, key=["original", "augmented", "focal"].index)


def test_minutes_go_on_counting_after_resuming(scans, fabric, tmp_path, clock_of):
    clock_of("brainsegnet.training.loop", step=0.02)
    p, first, second = plan(Budget(minutes=2 / 60)), Diary(stop_at=3), Diary()
    with pytest.raises(Interrupted):
        fit(scans, p, fabric, first.monitoring(tmp_path / "s"))
    fit(scans, p, fabric, second.monitoring(tmp_path / "s"), resume=True)
    assert second.events[0].step == 4 and second.events[0].minutes >= first.events[-1].minutes
    assert second.events[0].progress >= first.events[-1].progress


def test_a_budget_in_epochs_visits_so_many_samples(scans, fabric):
    """Scans of 8 and 6 slices are 2 + 2 slabs of 4: three epochs are 12 samples, 6 steps."""
    diary = Diary()
    fit(scans, plan(Budget(epochs=3)), fabric, diary.monitoring())
    assert list(diary.losses) == list(range(1, 7)) and diary.events[-1].epoch == 3


def test_precision_is_the_matter_of_the_fabric(scans, fabric):
    nets = [fit(scans, plan(Budget(steps=3), bf16=bf16), fabric, Diary().monitoring()) for bf16 in (True, False)]
    assert same(nets[0].state_dict(), nets[1].state_dict())


def test_the_state_is_written_on_the_way(scans, fabric, recorder, tmp_path):
    seen = []
    look = recorder(lambda event: seen.append(os.listdir(tmp_path)))
    fit(scans, plan(Budget(steps=3)), fabric, Monitoring((look,), state_file=tmp_path / "s", state_minutes=0))
    assert seen[0] == [] and seen[-1] == ["s"]


@pytest.mark.parametrize("recipe", [{"optimiser": "adam", "weight_decay": 0.0}, {"nonlinear": False}])
def test_recipes_choose_optimiser_and_refinement(scans, fabric, recipe):
    usual, other = (fit(scans, plan(Budget(steps=3), **r), fabric, Diary().monitoring()) for r in ({}, recipe))
    assert not same(usual.state_dict(), other.state_dict())


def test_a_loss_that_is_no_number_stops_the_training(scans, fabric):
    scans[0].image[:] = np.inf
    with pytest.raises(TrainingDiverged, match=r"the loss is nan at step \d; lower the learning rate"):
        fit(scans[:1], plan(stages=PAPER_STAGES[:1]), fabric, Diary().monitoring())


def test_other_scans_cannot_continue_a_training(scans, fabric, tmp_path):
    state = tmp_path / "state.safetensors"
    fit(scans, plan(Budget(steps=2)), fabric, Diary().monitoring(state))
    with pytest.raises(ModelError, match="of a training with another"):
        fit(scans[:1], plan(Budget(steps=4)), fabric, Diary().monitoring(state), resume=True)


def begun(origin, **changes):
    """A plan that starts from other weights than its seed's, and keeps a quarter of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        start = plan().network.build().state_dict()
    return replace(plan(weight_interpolation=0.25, **changes), start=start, origin=origin)


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_what_is_validated_and_kept_is_the_mean_with_the_start_statistics_too(scans, fabric, tmp_path, averaging):
    p, diary = begun("a", averaging=averaging), Diary(scores=[0.1, 0.2, 0.3, 0.4])
    net = fit(scans, p, fabric, diary.monitoring(tmp_path / "s"))
    prefix = "average." if averaging else "net."
    tensors = {n.removeprefix(prefix): t for n, t in read_tensors(tmp_path / "s")[0].items() if n.startswith(prefix)}
    mean = {n: 0.25 * p.start[n] + 0.75 * t if t.is_floating_point() else t for n, t in tensors.items()}
    assert any(name.endswith("running_var") for name in mean)
    for name, tensor in net.state_dict().items():
        assert torch.allclose(tensor, mean[name], atol=1e-6), name
    best, last = (dict(diary.kept)[name] for name in ("best", "last"))
    assert same(best, diary.validated[-1]) and same(last, net.state_dict()) and same(best, last) and not net.training


def test_an_interpolation_changes_nothing_of_the_training_itself(scans, fabric, tmp_path):
    p, interpolated, usual = begun("a"), Diary(), Diary()
    fit(scans, p, fabric, interpolated.monitoring(tmp_path / "a"))
    fit(
        scans,
        replace(p, recipe=p.recipe.model_copy(update={"weight_interpolation": 0.0})),
        fabric,
        usual.monitoring(tmp_path / "b"),
    )
    assert interpolated.losses == usual.losses
    assert same(*(read_tensors(tmp_path / name)[0] for name in "ab"))


def test_an_interpolated_training_resumed_equals_an_uninterrupted_one_bit_for_bit(scans, fabric, tmp_path):
    p, whole, first, second = begun("a"), Diary(), Diary(stop_at=4), Diary()
    net = fit(scans, p, fabric, whole.monitoring(tmp_path / "one"))
    with pytest.raises(Interrupted):
        fit(scans, p, fabric, first.monitoring(tmp_path / "two"))
    again = fit(scans, p, fabric, second.monitoring(tmp_path / "two"), resume=True)
    assert same(again.state_dict(), net.state_dict())
    assert all(same(a, b) for a, b in zip(first.validated + second.validated, whole.validated, strict=True))


def test_another_interpolation_is_another_training_and_none_needs_no_start(scans, fabric, tmp_path):
    p = begun("a")
    fit(scans, replace(p, budget=Budget(steps=1)), fabric, Diary().monitoring(tmp_path / "s"))
    other = replace(p, recipe=p.recipe.model_copy(update={"weight_interpolation": 0.5}))
    with pytest.raises(ModelError, match="another recipe"):
        fit(scans, other, fabric, Diary().monitoring(tmp_path / "s"), resume=True)
    with pytest.raises(TaskError, match=r"recipe tiny keeps a share of the weights .* name a model with --from"):
        fit(scans, replace(p, start=None), fabric, Diary().monitoring())


def test_the_first_state_comes_early_and_before_the_first_model(scans, fabric, tmp_path, monkeypatch):
    """On a clock that goes on by five seconds whenever it is read."""
    clock, written, times = itertools.count(0, 5), [], []

    def note(state, path, plan):
        written.append(state.step)
        times.append(next(clock))

    monkeypatch.setattr("brainsegnet.training.loop.time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr("brainsegnet.training.loop.write_state", note)
    fit(scans, plan(Budget(steps=24)), fabric, Monitoring(state_file=tmp_path / "s"))
    assert 30 < times[0] < 90 and 180 < times[1] - times[0] < 240 and written[-1] == 24

    written.clear()
    kept = []
    monitoring = Monitoring(
        validate=lambda net: {"whole": 0.5}, validations=2, keep=lambda name, weights, steps: kept.append(len(written)),
        state_file=tmp_path / "s", first_state=1e9, state_minutes=1e9,
    )  # fmt: skip
    fit(scans, plan(Budget(steps=4)), fabric, monitoring)
    assert written == [2, 4] and kept == [1, 2]
