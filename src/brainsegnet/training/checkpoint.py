"""A network in training, the file from which a training is resumed, and the signals that stop it between two steps."""

import copy
import json
import math
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from brainsegnet._atomic import replacing
from brainsegnet.errors import ModelError
from brainsegnet.model.network import load_into, read_tensors, write_tensors
from brainsegnet.model.store import Weights

COUNTERS = ("step", "minutes", "validations")


@dataclass(eq=False)
class TrainState:
    """A network in training.

    Attributes:
        net: The network.
        module: Computes the logits with the parameters of `net` on the devices.
        optimiser: Optimiser of the parameters of `net`.
        average: Network with the moving average of the weights, or `net` itself.
        decay: Decay of that average.
        step: Steps so far, including those before the training was resumed.
        minutes: Minutes so far, counted likewise.
        validations: Validations so far, counted likewise.
        best: Highest mean Dice so far, -inf before the first validation.
        start: Weights that the training started from.
        weight_interpolation: Share of `start` in the weights that are kept.
    """

    net: nn.Module
    module: nn.Module
    optimiser: Optimizer
    average: nn.Module
    decay: float
    step: int = 0
    minutes: float = 0.0
    validations: int = 0
    best: float = -math.inf
    start: Weights = field(default_factory=dict)
    weight_interpolation: float = 0.0

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average towards the weights. The first steps count more, so that it forgets the start."""
        if self.average is self.net:
            return
        rate = 1 - min(self.decay, (1 + self.step) / (10 + self.step))
        mine, theirs = tensors_of(self.average), tensors_of(self.net)
        floating = [name for name, tensor in mine.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([mine[n] for n in floating], [theirs[n] for n in floating], rate)
        for name in mine.keys() - set(floating):
            mine[name].copy_(theirs[name])

    @torch.no_grad()
    def kept(self) -> nn.Module:
        """The network that is validated and kept: the average, or its mean with the start in a new network.

        Statistics of batch norm are averaged like weights; counters are those of the average.
        """
        if not self.weight_interpolation:
            return self.average
        mean = copy.deepcopy(self.average)
        for name, tensor in tensors_of(mean).items():
            if tensor.is_floating_point():
                tensor.lerp_(self.start[name].to(tensor), self.weight_interpolation)
        return mean


def tensors_of(net: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once. A state dict holds one that two modules share twice."""
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}


def averaged_twin(net: nn.Module, decay: float) -> nn.Module:
    """A copy of `net` that holds the average, or `net` itself if there is none."""
    return copy.deepcopy(net).requires_grad_(False) if decay else net


def write_state(state: TrainState, path: Path, plan: str) -> None:
    """Write the state into a safetensors file, completely or not at all. `plan` identifies the training.

    Raises:
        OutputError: the folder cannot be created or written to, or the disk is full. An earlier state stays.
    """
    tensors = {f"net.{name}": tensor for name, tensor in state.net.state_dict().items()}
    if state.average is not state.net:
        tensors |= {f"average.{name}": tensor for name, tensor in state.average.state_dict().items()}
    for index, moments in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": moment for name, moment in moments.items()}
    counters = {"plan": plan} | {name: getattr(state, name) for name in COUNTERS}
    counters["best"] = state.best if math.isfinite(state.best) else None
    with replacing(path) as temporary:
        write_tensors(tensors, temporary, {"training": json.dumps(counters)})


def read_state(state: TrainState, path: Path, plan: str) -> None:
    """Set a new state to that of a file.

    Raises:
        ModelError: there is no such file, it holds no training, or one with another plan.
    """
    tensors, notes = read_tensors(path)
    counters = _counters(notes, path)
    if counters["plan"] != plan:
        raise ModelError(
            f"{path} is of a training with another recipe, task, seed or data, or one that started from other weights; "
            "resume with the arguments it had"
        )
    load_into(state.net, _under("net.", tensors), str(path))
    if state.average is not state.net:
        load_into(state.average, _under("average.", tensors), str(path))
    _read_moments(state.optimiser, _under("optimiser.", tensors))
    for name in COUNTERS:
        setattr(state, name, counters[name])
    state.best = counters["best"] if counters["best"] is not None else -math.inf


def _read_moments(optimiser: Optimizer, moments: Weights) -> None:
    """Copy moments, named `index.key`, into the memory layout of their parameters."""
    state = optimiser.state_dict()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for name, moment in moments.items():
        index, key = name.split(".")
        like = parameters[int(index)]
        laid = torch.empty_like(like, requires_grad=False).copy_(moment) if moment.shape == like.shape else moment
        state["state"].setdefault(int(index), {})[key] = laid
    optimiser.load_state_dict(state)


def _counters(notes: Mapping[str, str], path: Path) -> dict[str, Any]:
    if "training" not in notes:
        raise ModelError(f"{path} holds no training to resume; start without --resume")
    counters: dict[str, Any] = json.loads(notes["training"])
    return counters


def _under(prefix: str, tensors: Weights) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def steps_and_minutes(path: Path) -> tuple[int, float]:
    """Number of steps and minutes of the training in a state file.

    Raises:
        ModelError: there is no such file, or it holds no training.
    """
    counters = _counters(read_tensors(path)[1], path)
    return int(counters["step"]), float(counters["minutes"])


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of ending at once; a second Ctrl-C acts as usual.

    A second SIGTERM does not: launchers and batch systems each send one, and can still send SIGKILL.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    previous = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def remember(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        if number == signal.SIGINT:
            signal.signal(number, previous[number])

    for number in previous:
        signal.signal(number, remember)
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
