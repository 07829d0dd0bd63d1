"""The training loop: one function on Lightning Fabric, for a CPU, one GPU, several GPUs or several machines."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from brainsegnet.errors import Interrupted, ModelError, TaskError, TrainingDiverged
from brainsegnet.model.network import Design, brain_segnet, load_into
from brainsegnet.model.store import Weights
from brainsegnet.progress import Callback, ProgressEvent
from brainsegnet.training.checkpoint import (
    TrainState,
    averaged_twin,
    catch_signals,
    read_state,
    write_state,
)
from brainsegnet.training.log import Throughput
from brainsegnet.training.losses import all_max, all_sum, loss_of, share_batch_norm
from brainsegnet.training.recipes import Budget, Recipe
from brainsegnet.training.sampler import Sampler, Scan
from brainsegnet.training.simulated import SimulationBuffer


@dataclass(frozen=True)
class Plan:
    """What is trained, how, and for how long.

    Attributes:
        recipe: How to train.
        budget: How long to train.
        sequences: Number of channels.
        classes: Number of classes.
        patch: Size (D, H, W) of a training sample.
        seed: Seed of everything that is random.
        regions: Classes of each scored region, for the Dice loss; empty means each class by itself.
        design: A network other than Brain SegNet; None is Brain SegNet as in the recipe.
        start: Weights to start from; None is random weights drawn by the seed.
        origin: SHA-256 of the file of `start`. Only a training with the same one is resumed.
        required: Channels that no sample loses.
    """

    recipe: Recipe
    budget: Budget
    sequences: int
    classes: int
    patch: tuple[int, int, int]
    seed: int = 0
    regions: tuple[tuple[int, ...], ...] = ()
    design: Design | None = None
    start: Weights | None = None
    origin: str = ""
    required: tuple[int, ...] = ()

    @property
    def network(self) -> Design:
        """The design of the network."""
        recipe = self.recipe
        return self.design or brain_segnet(
            self.sequences, self.classes, recipe.widths, recipe.refined, recipe.stride, recipe.nonlinear
        )

    def build(self) -> nn.Module:
        """A new network with weights drawn by the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.network.build()

    def check(self, processes: int) -> None:
        """Check the plan before the training, so that it does not fail in the middle.

        Raises:
            TaskError: the plan cannot be carried out, on this number of processes or at all.
        """
        recipe, (_, height, width) = self.recipe, self.patch
        if recipe.weight_interpolation and self.start is None:
            raise TaskError(
                f"recipe {recipe.name} keeps a share of the weights that a training starts from, and this one starts "
                "from none; name a model with --from, or another recipe"
            )
        if recipe.transplant and recipe.sampling != "lesion":
            raise TaskError(
                f"recipe {recipe.name}: lesions are transplanted only with sampling 'lesion', and this one has "
                f"'{recipe.sampling}'; change the sampling, or set transplant to 0"
            )
        if recipe.batch % processes:
            raise TaskError(
                f"recipe {recipe.name}: a batch of {recipe.batch} cannot be shared evenly by {processes} devices; "
                f"use a number of devices that divides {recipe.batch}"
            )
        if recipe.augmentation.quarter_turns and height != width:
            raise TaskError(
                f"recipe {recipe.name}: quarter turns need square patches, this one is {height} x {width}; "
                "choose a square patch or a recipe without quarter turns"
            )
        if not 0 <= self.seed < 2**63:
            raise TaskError(f"a seed lies between 0 and 2^63 - 1, not {self.seed}")


@dataclass(frozen=True)
class Monitoring:
    """What accompanies a training: callbacks, scoring of held-out cases, and saving. Only the first process does it.

    Attributes:
        callbacks: Receive the progress.
        validate: Gives whole-scan Dice by region for a network in evaluation mode. None is never; all processes agree
            on that.
        validations: Number of validations over the whole training.
        keep: Called with "best" or "last", the weights, and the number of steps that made them.
        state_file: File for everything that a resumed training needs.
        state_minutes: Minutes between two writings of that file.
        first_state: Minutes before the first writing of that file.
    """

    callbacks: tuple[Callback, ...] = ()
    validate: Callable[[Any], Mapping[str, float]] | None = None
    validations: int = 10
    keep: Callable[[str, Weights, int], None] = lambda name, weights, steps: None
    state_file: Path | None = None
    state_minutes: float = 3.0
    first_state: float = 0.5


def fit(
    scans: Sequence[Scan],
    plan: Plan,
    fabric: Fabric,
    monitoring: Monitoring,
    *,
    buffer: SimulationBuffer | None = None,
    resume: bool = False,
) -> nn.Module:
    """Train a network. The result has the last weights, averaged and interpolated as the recipe says.

    Args:
        scans: Prepared training scans, all with the sequences of the plan.
        plan: What to train.
        fabric: Devices, machines and precision, launched.
        monitoring: Callbacks, scoring and saving.
        buffer: Further scans, simulated during the training. Every process simulates the same.
        resume: Continue from the state file. On a CPU the result equals that of an uninterrupted training, bit for bit.

    Raises:
        Interrupted: SIGINT or SIGTERM arrived; the state is written.
        ModelError: the state to resume from is absent or belongs to another training.
        TaskError: the plan cannot be carried out.
        TrainingDiverged: the loss is no longer a number.
    """
    plan.check(fabric.world_size)
    training = _Training(scans, plan, fabric, monitoring, buffer or SimulationBuffer(0, 1, scans.__getitem__))
    if resume:
        training.resume()
    with closing(training.buffer):
        training.fill_buffer()
        with catch_signals() as caught:
            while (progress := training.progress()) < 1 and not training.stopped_by(caught):
                training.step(progress)
                training.validate_when_due()
                if time.monotonic() - training.saved > 60 * training.state_minutes:
                    training.save()
        training.save()
    if number := training.stopped_by(caught):
        raise Interrupted(number)
    return training.state.kept().eval()


class _Training:
    """The parts of the loop, and what they share."""

    def __init__(
        self, scans: Sequence[Scan], plan: Plan, fabric: Fabric, monitoring: Monitoring, buffer: SimulationBuffer
    ) -> None:
        self.plan, self.recipe, self.fabric, self.monitoring = plan, plan.recipe, fabric, monitoring
        self.buffer, self.shapes = buffer, [scan.image.shape for scan in scans]
        self.state, self.layout = _begin(plan, fabric), plan.network.layout
        depths = (buffer.depth,) * buffer.size
        self.sampler = Sampler(scans, plan.recipe, plan.patch, plan.seed, fabric.device, depths, plan.required)
        self.throughput = Throughput(fabric.device)
        self.started = self.saved = time.monotonic()
        self.has_state, self.state_minutes = False, min(monitoring.first_state, monitoring.state_minutes)
        self.losses: list[Tensor] = []
        self.loss = math.nan
        self.report_every = 1 if fabric.device.type == "cpu" else 20

    def resume(self) -> None:
        path: Path | None = self.fabric.broadcast(self.monitoring.state_file)
        if path is None:
            raise ModelError("there is no state to resume from; start without --resume")
        read_state(self.state, path, self._fingerprint())
        self.started -= 60 * self.state.minutes
        self.state.validations = min(self.state.validations, self._validations_due(self.progress()))
        self.has_state = True
        self.buffer.seen = self.buffer.count_at(self.state.step - 1)

    def fill_buffer(self) -> None:
        """Simulate the scans that the next step needs, if there is one; that time does not count."""
        began = time.monotonic()
        if self.progress() < 1:
            self.buffer.fill(self.state.step, self._put)
        self.started += time.monotonic() - began
        self.saved = time.monotonic()

    def _put(self, place: int, scan: Scan) -> None:
        self.sampler.put(len(self.shapes) + place, scan)

    def progress(self) -> float:
        """Share of the budget that is spent, the same on every process."""
        self.state.minutes = (time.monotonic() - self.started) / 60
        spent = self.plan.budget.progress(self.state.step, self.state.minutes, self.steps_per_epoch)
        return all_max(spent, self.fabric.device) if self.plan.budget.kind == "minutes" else spent

    def stopped_by(self, caught: Sequence[int]) -> int:
        """The signal that any process has caught, or 0."""
        return int(all_max(caught[-1] if caught else 0, self.fabric.device))

    @property
    def steps_per_epoch(self) -> float:
        """An epoch visits as many samples as the scans have slabs."""
        return len(self.sampler.places) / self.recipe.batch

    def step(self, progress: float) -> None:
        """Cut this process's share of a batch, learn from it, report it."""
        state, stage = self.state, self.recipe.stage_at(progress)
        for group in state.optimiser.param_groups:
            group["lr"] = self.recipe.rate_at(progress)
        self.throughput.mark()
        self.buffer.update(state.step, self._put)
        first = state.step * self.recipe.batch
        mine = range(first + self.fabric.global_rank, first + self.recipe.batch, self.fabric.world_size)
        images, classes = self.sampler.cut([self.sampler.draw(number, stage) for number in mine])
        self.throughput.mark()
        state.optimiser.zero_grad()
        logits = state.module(images.to(memory_format=self.layout))
        loss = loss_of(logits, classes, self.recipe, stage, self.plan.regions)
        self.fabric.backward(loss)
        state.optimiser.step()
        state.step += 1
        state.update_average()
        self.throughput.mark()
        self.throughput.close_step(self.recipe.batch)
        self.losses.append(loss.detach())
        if state.step % self.report_every == 0:
            self._report(progress)

    def _report(self, progress: float, dice: Mapping[str, float] | None = None) -> None:
        """Called by every process, since the loss is the mean over all."""
        if self.losses:
            self.loss = float(all_sum(torch.stack(self.losses).mean())) / self.fabric.world_size
            self.losses.clear()
        state = self.state
        if not math.isfinite(self.loss) and state.step:
            raise TrainingDiverged(f"the loss is {self.loss} at step {state.step}; lower the learning rate")
        event = ProgressEvent(
            progress=progress,
            minutes=state.minutes,
            minutes_left=state.minutes * (1 - progress) / progress if progress else None,
            step=state.step,
            epoch=state.step / self.steps_per_epoch,
            stage=self.recipe.stage_at(progress).name,
            loss=self.loss,
            learning_rate=self.recipe.rate_at(progress),
            samples_per_second=self.throughput.samples_per_second,
            data_wait=self.throughput.data_wait,
            dice=dice,
        )
        for callback in self.monitoring.callbacks if self.fabric.is_global_zero else ():
            callback.on_progress(event)

    def validate_when_due(self) -> None:
        """Score whole scans at even shares of the budget, and keep the best weights."""
        validate, progress, dice = self.monitoring.validate, self.progress(), None
        due = self._validations_due(progress)
        if validate is None or due <= self.state.validations:
            return
        if not self.has_state:  # no model is kept before a state from which its training goes on
            self._write_state()
        self.state.validations = due
        if self.fabric.is_global_zero:
            kept = self.state.kept().eval()
            dice = validate(kept)
            self.state.net.train()
            mean = sum(dice.values()) / len(dice)
            if mean > self.state.best:
                self.state.best = mean
                self.monitoring.keep("best", kept.state_dict(), self.state.step)
        self.fabric.barrier()
        self._report(progress, dice)

    def _validations_due(self, progress: float) -> int:
        """How many validations belong to this share of the budget; a rounding error of it does not matter."""
        return int(progress * self.monitoring.validations + 1e-9)

    def save(self) -> None:
        """Write the state and keep the model. If the disk has no room for one, the other is still tried."""
        if self.fabric.is_global_zero:
            try:
                self._write_state()
            finally:
                self.monitoring.keep("last", self.state.kept().state_dict(), self.state.step)
        self.saved, self.state_minutes = time.monotonic(), self.monitoring.state_minutes

    def _write_state(self) -> None:
        if self.fabric.is_global_zero and self.monitoring.state_file is not None:
            write_state(self.state, self.monitoring.state_file, self._fingerprint())
        self.has_state = True

    def _fingerprint(self) -> str:
        """What must agree for a training to be resumed: all but the budget; scans count by their shapes."""
        plan = self.plan
        network = f"{plan.sequences} {plan.classes} {plan.regions} {plan.patch}"
        start = plan.origin and f" from {plan.origin}"
        data = f"{plan.seed} {self.shapes} {plan.network.name}{start}{self.buffer.fingerprint}"
        return f"{plan.recipe.model_dump_json()} {network} {data}"


def _begin(plan: Plan, fabric: Fabric) -> TrainState:
    """A new network and optimiser on the devices, the same on every process."""
    recipe, design, net = plan.recipe, plan.network, plan.build()
    if plan.start is not None:
        load_into(net, plan.start, "the model to start from")
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
    elif fabric.world_size > 1:
        share_batch_norm(net)
    net = net.to(fabric.device).to(memory_format=design.layout).train()  # type: ignore[call-overload]
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    optimiser = kind(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    average = averaged_twin(net, recipe.averaging)
    module, prepared = fabric.setup(design.learner(net), optimiser)
    state = TrainState(net, module, prepared, average, recipe.averaging)
    state.start, state.weight_interpolation = plan.start or {}, recipe.weight_interpolation
    return state
