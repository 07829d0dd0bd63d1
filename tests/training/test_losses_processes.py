"""Two CPU processes compute what one computes.

Run as a program, `test_losses_processes.py FOLDER PORT`, this file is the two processes: it imports once and forks, and
each of the two sees the environment variables of torchrun.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from torch import nn

from brainsegnet.errors import Interrupted, TaskError
from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.model.network import read_tensors, write_tensors
from brainsegnet.progress import Callback
from brainsegnet.training.loop import Monitoring, Plan, fit
from brainsegnet.training.losses import GlobalBatchNorm3d, all_max, all_sum, is_distributed, share_batch_norm
from brainsegnet.training.recipes import STRONG, Budget, Recipe
from brainsegnet.training.sampler import Scan
from brainsegnet.training.simulated import SimulationBuffer

STEPS, STOP = 8, 3
RECIPE = Recipe(
    name="two",
    widths=(2, 4, 4, 4),
    refined=4,
    sampling="lesion",
    batch=4,
    learning_rate=1e-3,
    dice=1.0,
    averaging=0.5,
    augmentation=STRONG,
    budget_epochs=1,
)
PLAN = Plan(RECIPE, Budget(steps=STEPS), 2, 3, (4, 16, 16), seed=5)


def scans():
    rng = np.random.default_rng(0)
    classes = np.zeros((2, 8, 24, 24), np.uint8)
    classes[0, 2:6, 5:15, 8:18], classes[1, 1:7, 10:20, 3:9], classes[:, 3:5, 11:14, 5:12] = 1, 1, 2
    images = np.stack([classes - 0.5, 0 * classes], 1) + rng.normal(0, 0.3, (2, 2, 8, 24, 24))
    return [Scan(image.astype(np.float32), truth, 8, 0) for image, truth in zip(images, classes, strict=True)]


def buffer():
    """One scan in memory beside the others, another one every three steps."""
    return SimulationBuffer(
        1, 3, lambda number: replace(scans()[number % 2], image=scans()[0].image[:, ::-1].copy()), depth=8
    )


def train(fabric, state, on_step=lambda step: None, resume=False, buffer=None):
    """The last weights, the loss of each step, and the steps that were validated; all processes call it."""
    losses, scored = {}, []

    class Heard(Callback):
        def on_progress(self, event):
            if event.dice:
                scored.append(event.step)
            else:
                losses[event.step] = event.loss
                on_step(event.step)

    state_file = state if fabric.is_global_zero else None
    monitoring = Monitoring((Heard(),), lambda net: {"whole": 0.5}, 4, state_file=state_file)
    return fit(scans(), PLAN, fabric, monitoring, buffer=buffer, resume=resume).state_dict(), losses, scored


def norm_of_a_part(rank, parts):
    """What a batch norm makes of one part of a batch, with gradients, and what sums over the parts are."""
    torch.manual_seed(0)
    x, slopes = torch.randn(2, 4, 3, 2, 5, 6) * 3 + 1
    norm, mine = GlobalBatchNorm3d(3), x[rank::parts].clone().requires_grad_()
    y = norm(mine)
    (y * slopes[rank::parts]).sum().backward()
    number = torch.full((2,), rank + 1.0, requires_grad=True)
    all_sum(number).square().sum().backward()
    return {
        "y": y.detach(), "dx": mine.grad, "weight": norm.weight.grad, "bias": norm.bias.grad,
        "mean": norm.running_mean, "variance": norm.running_var, "count": norm.num_batches_tracked,
        "sum": all_sum(number).detach(), "slope": number.grad,
        "largest": torch.tensor(all_max(rank / 8, torch.device("cpu"))),
    }  # fmt: skip


def be_one_of_two(folder, rank, other):
    """Everything the two processes do; the first one stops the `other` with a signal, and so both."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    write_tensors(norm_of_a_part(fabric.global_rank, fabric.world_size), folder / f"norm{rank}")
    weights, losses, scored = train(fabric, folder / "whole")
    write_tensors(weights, folder / f"whole{rank}", {"found": json.dumps([losses, scored])})
    weights, losses, scored = train(fabric, folder / "buffer", buffer=buffer())
    write_tensors(weights, folder / f"buffer{rank}", {"found": json.dumps([losses, scored])})
    try:
        train(fabric, folder / "part", lambda step: os.kill(other, signal.SIGTERM) if step == STOP else None)
    except Interrupted as stop:
        number = stop.number
    weights, losses, _ = train(fabric, folder / "part", resume=True)
    write_tensors(weights, folder / f"resumed{rank}", {"found": json.dumps([losses, number])})
    try:
        odd = replace(PLAN, recipe=RECIPE.model_copy(update={"batch": 3}))
        fit(scans(), odd, fabric, Monitoring())
    except TaskError as error:
        (folder / f"refusal{rank}").write_text(str(error))


def be_two(folder, port):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0"}
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    child = os.fork()
    be_one_of_two(folder, 0 if child else 1, child)
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder in which two processes have left their results."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder), str(port)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Weights, losses and validated steps of a single process."""
    return train(Fabric(accelerator="cpu", devices=1), tmp_path_factory.mktemp("one") / "state")


def read_found(path):
    tensors, notes = read_tensors(path)
    return tensors, *json.loads(notes["found"])


def test_two_processes_have_the_losses_of_one(one, two):
    _, losses, scored = read_found(two / "whole0")
    assert len(losses) == STEPS and scored == one[2] == [2, 4, 6, 8]
    assert [losses[str(s)] for s in one[1]] == pytest.approx(list(one[1].values()), rel=1e-4)
    assert len(set(losses.values())) == STEPS


def test_two_processes_train_on_the_same_simulated_scans(one, two, tmp_path):
    expected = train(Fabric(accelerator="cpu", devices=1), tmp_path / "state", buffer=buffer())[1]
    losses = read_found(two / "buffer0")[1]
    assert [losses[str(step)] for step in expected] == pytest.approx(list(expected.values()), rel=1e-4)
    assert expected != one[1]


def before_a_norm(name):
    """Biases that a batch norm takes away again, and its mean: their gradient is rounding, which Adam magnifies."""
    biases = ("adapt.1", "adapt.2", "adapt.3", "refine.1.lateral", "refine.2.lateral")
    return name.endswith("running_mean") or (name.endswith("bias") and name.startswith(biases))


def test_two_processes_end_with_the_weights_of_one(one, two):
    weights, *_ = read_found(two / "whole0")
    assert weights.keys() == one[0].keys()
    for name, expected in one[0].items():
        tolerance = 2e-3 if before_a_norm(name) else 1e-4
        assert torch.allclose(weights[name].float(), expected.float(), rtol=1e-3, atol=tolerance), name


def test_both_processes_hold_the_same_weights_to_the_bit(two):
    for part in ("whole", "resumed", "buffer"):
        a, b = (read_found(two / f"{part}{rank}")[0] for rank in (0, 1))
        assert all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def test_a_signal_to_one_process_stops_both_and_both_resume_bit_for_bit(two):
    for rank in (0, 1):
        (weights, losses, number), (whole, expected, _) = (
            read_found(two / f"resumed{rank}"),
            read_found(two / f"whole{rank}"),
        )
        assert number == signal.SIGTERM and all(torch.equal(tensor, whole[name]) for name, tensor in weights.items())
        assert losses == {step: loss for step, loss in expected.items() if step in losses}
    assert 0 < len(read_found(two / "resumed0")[1]) <= STEPS - STOP


def test_a_batch_that_cannot_be_shared_evenly_is_refused(two):
    text = (two / "refusal1").read_text()
    assert text == (two / "refusal0").read_text() and "a batch of 3 cannot be shared evenly by 2 devices" in text


def test_a_batch_norm_over_two_processes_is_that_of_the_whole_batch(two):
    whole, parts = norm_of_a_part(0, 1), [read_tensors(two / f"norm{rank}")[0] for rank in (0, 1)]
    for rank, part in enumerate(parts):
        for name in ("y", "dx"):
            assert torch.allclose(part[name], whole[name][rank::2], rtol=1e-4, atol=1e-5), name
        for name in ("mean", "variance", "count"):
            assert torch.allclose(part[name], whole[name]), name
    for name in ("weight", "bias"):
        assert torch.allclose(parts[0][name] + parts[1][name], whole[name], rtol=1e-4), name


def test_sums_and_their_slopes_go_over_all_processes(two):
    """(1 + 2)^2 in each process, so the number of each counts 2 * 2 * 3."""
    for rank in (0, 1):
        part = read_tensors(two / f"norm{rank}")[0]
        assert part["sum"].tolist() == [3, 3] and part["slope"].tolist() == [12, 12] and part["largest"] == 1 / 8


def test_in_one_process_a_sum_is_the_thing_itself():
    x = torch.ones(2)
    assert not is_distributed() and all_sum(x) is x and all_max(0.25, torch.device("cpu")) == 0.25


@pytest.mark.parametrize("train", [True, False])
def test_in_one_process_the_norm_is_that_of_torch(train):
    torch.manual_seed(0)
    ours, theirs = (kind(3, eps=1e-3, momentum=0.3).train(train) for kind in (GlobalBatchNorm3d, nn.BatchNorm3d))
    for _ in range(2):
        x = torch.randn(2, 3, 4, 5, 6) * 2 + 1
        assert torch.equal(ours(x), theirs(x))
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), theirs.buffers(), strict=True))


def test_statistics_are_shared_in_every_norm_and_nothing_else_changes():
    net, other = (BrainSegNet(2, 3, (2, 4, 4, 4), 4) for _ in range(2))
    with torch.no_grad():
        net(torch.randn(2, 2, 2, 8, 8))
    other.load_state_dict(net.state_dict())
    share_batch_norm(other)
    norms = [m for m in other.modules() if isinstance(m, nn.BatchNorm3d)]
    assert len(norms) == 17 + 3 and all(type(m) is GlobalBatchNorm3d for m in norms)
    assert other.state_dict().keys() == net.state_dict().keys()
    x = torch.randn(2, 2, 2, 8, 8)
    assert torch.equal(other(x), net(x)) and torch.equal(other.eval()(x), net.eval()(x))


if __name__ == "__main__":
    be_two(Path(sys.argv[1]), sys.argv[2])
