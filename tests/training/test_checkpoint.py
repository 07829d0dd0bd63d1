import math
import resource

import pytest
import torch

from brainsegnet.errors import ModelError, OutputError
from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.model.fused import FusedDecoder
from brainsegnet.model.network import write_tensors
from brainsegnet.training.checkpoint import TrainState, averaged_twin, read_state, steps_and_minutes, write_state


def begin(decay=0.9, seed=0, steps=0, kind=torch.optim.AdamW):
    """A network in training after so many steps down a toy loss."""
    torch.manual_seed(seed)
    net = BrainSegNet(2, 3, (2, 4, 4, 4), 4).to(memory_format=torch.channels_last_3d)
    state = TrainState(net, FusedDecoder(net), kind(net.parameters(), lr=0.01), averaged_twin(net, decay), decay)
    for _ in range(steps):
        state.optimiser.zero_grad()
        state.module(torch.randn(2, 2, 2, 8, 8)).square().mean().backward()
        state.optimiser.step()
        state.step += 1
        state.update_average()
    return state


def refusal(action, *arguments):
    with pytest.raises(ModelError) as caught:
        action(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def moments(state):
    return {(i, k): v for i, s in state.optimiser.state_dict()["state"].items() for k, v in s.items()}


@pytest.mark.parametrize("decay", [0, 0.9])
def test_everything_comes_back_bit_for_bit(tmp_path, decay):
    path, first = tmp_path / "state.safetensors", begin(decay, steps=3)
    first.minutes, first.validations, first.best = 1.25, 2, 0.1 + 0.2
    write_state(first, path, "plan")
    second = begin(decay, seed=1)
    read_state(second, path, "plan")
    for a, b in [(first.net, second.net), (first.average, second.average)]:
        assert all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())
    assert (second.average is second.net) == (decay == 0)
    old, new = moments(first), moments(second)
    assert old.keys() == new.keys() and len(old) > 30 and all(torch.equal(x, new[key]) for key, x in old.items())
    assert all(x.stride() == new[key].stride() for key, x in old.items()), (
        "the memory layout, and so the throughput, is kept"
    )
    for name in ("step", "minutes", "validations", "best"):
        assert getattr(first, name) == getattr(second, name)
    assert steps_and_minutes(path) == (3, 1.25)


def test_a_next_step_is_the_same_step(tmp_path):
    path, first = tmp_path / "state.safetensors", begin(steps=2)
    write_state(first, path, "plan")
    second = begin(seed=1)
    read_state(second, path, "plan")
    for state in (first, second):
        torch.manual_seed(5)
        state.optimiser.zero_grad()
        state.module(torch.randn(2, 2, 2, 8, 8)).square().mean().backward()
        state.optimiser.step()
    assert all(torch.equal(x, second.net.state_dict()[name]) for name, x in first.net.state_dict().items())


def test_before_the_first_validation_the_best_is_none(tmp_path):
    path = tmp_path / "state.safetensors"
    write_state(begin(), path, "plan")
    second = begin(seed=1)
    read_state(second, path, "plan")
    assert second.best == -math.inf and second.step == 0


def test_a_state_of_another_training_or_none_is_refused(tmp_path):
    path, other = tmp_path / "state.safetensors", tmp_path / "weights.safetensors"
    write_state(begin(steps=1), path, "plan")
    assert "another recipe, task, seed or data" in refusal(read_state, begin(), path, "plan of another")
    write_tensors(begin().net.state_dict(), other)
    assert "holds no training" in refusal(read_state, begin(), other, "plan")
    assert "holds no training" in refusal(steps_and_minutes, other)
    assert "does not exist" in refusal(read_state, begin(), tmp_path / "nothing", "plan")
    path.write_bytes(path.read_bytes()[:-8])
    assert "not a safetensors file" in refusal(read_state, begin(), path, "plan")


def test_a_state_lies_whole_under_its_name_and_nothing_beside_it(tmp_path):
    path, state = tmp_path / "state.safetensors", begin(steps=1)
    for _ in range(2):
        write_state(state, path, "plan")
        state.step += 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and steps_and_minutes(path)[0] == 2


def test_a_full_disk_is_said_and_leaves_the_earlier_state(tmp_path):
    path, state = tmp_path / "state.safetensors", begin(steps=1)
    write_state(state, path, "plan")
    before, (soft, hard) = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OutputError, match=r"state\.safetensors cannot be written: .*large"):
            write_state(state, path, "plan")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(OutputError, match="cannot be written"):
        write_state(state, path / "state.safetensors", "plan")


def test_the_average_follows_the_weights_and_forgets_the_start():
    """With a decay of 0.9 the first rates are 1 - 2/11, 1 - 3/12, ... until the decay is reached."""
    state = begin(0.9)
    name = "classify.bias"
    mean = state.net.state_dict()[name].clone()
    for step in range(1, 120):
        with torch.no_grad():
            state.net.classify.bias.fill_(step)
        state.step = step
        state.update_average()
        mean = mean.lerp(torch.full_like(mean, step), 1 - min(0.9, (1 + step) / (10 + step)))
        assert torch.allclose(state.average.state_dict()[name], mean)
    assert 119 - mean[0] == pytest.approx(9, rel=0.05), "a lag of decay / (1 - decay) steps"


def test_statistics_are_averaged_and_counters_copied():
    state = begin(0.9, steps=4)
    mine, theirs = state.average.state_dict(), state.net.state_dict()
    assert mine["blocks.0.0.1.num_batches_tracked"] == theirs["blocks.0.0.1.num_batches_tracked"] == 4
    assert not torch.equal(mine["blocks.0.0.1.running_mean"], theirs["blocks.0.0.1.running_mean"])
    assert not any(p.requires_grad for p in state.average.parameters())


def test_without_averaging_the_network_is_its_own_average():
    state = begin(0, steps=1)
    assert state.average is state.net
    before = {name: tensor.clone() for name, tensor in state.net.state_dict().items()}
    state.update_average()
    assert all(torch.equal(before[name], tensor) for name, tensor in state.net.state_dict().items())
