"""The loop trains any network: what holds of Brain SegNet holds of others."""

import copy
import os
import signal

import pytest
import torch
from lightning.fabric import Fabric
from torch import nn

from brainsegnet.benchmark.models import BASELINES
from brainsegnet.errors import Interrupted, ModelError
from brainsegnet.model.network import as_drawn, brain_segnet, read_tensors
from brainsegnet.training.checkpoint import TrainState, averaged_twin, steps_and_minutes
from brainsegnet.training.loop import Monitoring, Plan, fit
from brainsegnet.training.recipes import QUICK, Budget

PATCH = (8, 16, 16)
RECIPE = QUICK.fit_to(1).model_copy(
    update={"patch": PATCH, "batch": 1, "averaging": 0.9, "widths": (2, 4, 4, 4), "refined": 4}
)


def plan(design, steps=3, **kwargs):
    return Plan(RECIPE.model_copy(update=kwargs), Budget(steps=steps), 2, 3, PATCH, 3, (), design)


def named(name):
    return BASELINES[name](2, 3, PATCH, (1.0, 1.0, 1.0))


@pytest.fixture
def scans(make_scan):
    return [make_scan(seed=1), make_scan(seed=2)]


@pytest.fixture
def fabric():
    return Fabric(accelerator="cpu", devices=1)


def monitoring(state_file=None, *callbacks):
    return Monitoring(callbacks, state_file=state_file)


@pytest.mark.parametrize("name", ["segresnet", "dynunet"])
def test_resumed_equals_uninterrupted_bit_for_bit(name, scans, fabric, recorder, tmp_path):
    """DynUNet has modules under two names, SegResNet and it normalise without running statistics."""
    stop = recorder(lambda event: os.kill(os.getpid(), signal.SIGTERM) if event.step == 1 else None)
    whole = fit(scans, plan(named(name)), fabric, monitoring(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        fit(scans, plan(named(name)), fabric, monitoring(tmp_path / "state", stop))
    assert steps_and_minutes(tmp_path / "state")[0] == 1
    again = fit(scans, plan(named(name)), fabric, monitoring(tmp_path / "state"), resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    one, two = (read_tensors(tmp_path / file)[0] for file in ("whole", "state"))
    assert one.keys() == two.keys() and all(torch.equal(tensor, two[key]) for key, tensor in one.items())


def test_a_module_under_two_names_is_averaged_once():
    shared = nn.Linear(2, 2)
    net = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)})
    state = TrainState(net, net, torch.optim.SGD(net.parameters(), 1.0), averaged_twin(net, 0.9), 0.9, step=1)
    before, now = copy.deepcopy(shared.weight), torch.ones(2, 2)
    with torch.no_grad():
        shared.weight.copy_(now)
    state.update_average()
    rate = 1 - (1 + 1) / (10 + 1)
    assert torch.allclose(state.average["a"].weight, before + rate * (now - before))


def test_the_state_of_another_network_is_refused(scans, fabric, tmp_path):
    fit(scans, plan(named("unet"), 1), fabric, monitoring(tmp_path / "state"))
    with pytest.raises(ModelError, match="of a training with another recipe"):
        fit(scans, plan(named("segresnet"), 2), fabric, monitoring(tmp_path / "state"), resume=True)


@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 2, 2)])
def test_plain_training_computes_what_training_with_a_fused_decoder_does(stride, scans, fabric, recorder):
    def losses(design):
        heard = recorder()
        fit(scans, plan(design, 2, stride=stride), fabric, monitoring(None, heard))
        return [event.loss for event in heard.events]

    ours = brain_segnet(2, 3, RECIPE.widths, RECIPE.refined, stride)
    fused_decoder = losses(ours)
    assert losses(None) == fused_decoder, "ours is what a plan without a design builds, with the stride of its recipe"
    assert losses(as_drawn(ours)) == pytest.approx(fused_decoder, rel=1e-3)
