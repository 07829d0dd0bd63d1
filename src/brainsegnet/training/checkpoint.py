"""A network in training, and everything about it that a resumed training needs, in one safetensors file."""

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from brainsegnet._atomic import replacing
from brainsegnet.errors import ModelError
from brainsegnet.model.weights import load_into, read_tensors, write_tensors


@dataclass(eq=False)
class Trainee:
    """A network in training.

    Attributes:
        net: The network, shared with `module`, which the devices run.
        module: What computes the logits.
        optimiser: Over the parameters of `net`.
        average: The network with the moving average of the weights; `net` itself where there is none.
        decay: Of that average; 0 is none.
        step: Steps done.
        minutes: Minutes spent, over all resumed parts.
        validations: Validations done.
        best: Highest mean Dice seen, -inf before the first validation.
        start: Weights by name that the training started from; `weight_interpolation`: their share in what is kept, 0 is
            none.
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
    start: Mapping[str, Tensor] = field(default_factory=dict)
    weight_interpolation: float = 0.0

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average towards the weights; the first steps count more, so that it forgets the start."""
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
        """What is validated and kept: the average, or a new network, its mean with the start.

        Statistics of batch norm are in the mean as weights are; counters are the average's. No part of it goes back
        into the training, so a state need not hold it.
        """
        if not self.weight_interpolation:
            return self.average
        mean = copy.deepcopy(self.average)
        for name, tensor in tensors_of(mean).items():
            if tensor.is_floating_point():
                tensor.lerp_(self.start[name].to(tensor), self.weight_interpolation)
        return mean


def tensors_of(net: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once: in a state dict, one that two modules share stands under both their names."""
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}


def averaged_twin(net: nn.Module, decay: float) -> nn.Module:
    """A copy of `net` to hold the average, or `net` itself where there is none."""
    return copy.deepcopy(net).requires_grad_(False) if decay else net


def write_state(trainee: Trainee, path: Path, plan: str) -> None:
    """Write all of it, to a temporary name first: a training killed at any moment leaves a whole file.

    Raises:
        OutputError: the folder cannot be made or written to, or the disk is full; an earlier state stays as it was.
    """
    tensors = {f"net.{name}": tensor for name, tensor in trainee.net.state_dict().items()}
    if trainee.average is not trainee.net:
        tensors |= {f"average.{name}": tensor for name, tensor in trainee.average.state_dict().items()}
    for index, moments in trainee.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": moment for name, moment in moments.items()}
    counters = {
        "plan": plan,
        "step": trainee.step,
        "minutes": trainee.minutes,
        "validations": trainee.validations,
        "best": trainee.best if math.isfinite(trainee.best) else None,
    }
    with replacing(path) as temporary:
        write_tensors(tensors, temporary, {"training": json.dumps(counters)})


def read_state(trainee: Trainee, path: Path, plan: str) -> None:
    """Bring a fresh trainee to where the file says.

    Raises:
        ModelError: no such file, not one of ours, or of another plan.
    """
    tensors, notes = read_tensors(path)
    counters = _counters(notes, path)
    if counters["plan"] != plan:
        raise ModelError(
            f"{path} is of a training with another recipe, task, seed or data, or one that started from other weights; "
            "resume with the arguments it had"
        )
    load_into(trainee.net, _under("net.", tensors), str(path))
    if trainee.average is not trainee.net:
        load_into(trainee.average, _under("average.", tensors), str(path))
    _read_moments(trainee.optimiser, _under("optimiser.", tensors))
    trainee.best = counters["best"] if counters["best"] is not None else -math.inf
    trainee.step, trainee.minutes = counters["step"], counters["minutes"]
    trainee.validations = counters["validations"]


def _read_moments(optimiser: Optimizer, moments: Mapping[str, Tensor]) -> None:
    """Copy moments, named `index.key`, into the memory layout of their parameters, as an unbroken training has them."""
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


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def saved_step(path: Path) -> int:
    """How many steps the training in `path` has done; errors as `spent`."""
    return spent(path)[0]


def spent(path: Path) -> tuple[int, float]:
    """How many steps the training in `path` has done, and in how many minutes.

    Raises:
        ModelError: no such file, or no training in it.
    """
    counters = _counters(read_tensors(path)[1], path)
    return int(counters["step"]), float(counters["minutes"])
