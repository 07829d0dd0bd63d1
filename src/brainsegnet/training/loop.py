"""The loop: one function on Lightning Fabric, for a CPU, one GPU, several, or several machines."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from brainsegnet.errors import ModelError, TrainingDiverged
from brainsegnet.model.weights import load_into
from brainsegnet.training.checkpoint import Trainee, averaged_twin, read_state, write_state
from brainsegnet.training.losses import all_sum, largest, loss_of, share_statistics
from brainsegnet.training.plan import Hooks, Plan, Record, check_plan
from brainsegnet.training.progress import Throughput
from brainsegnet.training.sampler import Sampler, Scan
from brainsegnet.training.signals import Interrupted, catch_signals
from brainsegnet.training.simulated import SimulationBuffer


def fit(
    scans: Sequence[Scan],
    plan: Plan,
    fabric: Fabric,
    hooks: Hooks,
    *,
    buffer: SimulationBuffer | None = None,
    resume: bool = False,
) -> nn.Module:
    """Train a network; the result holds the last weights, averaged and interpolated where the recipe says so.

    Args:
        scans: Prepared training scans, all with the sequences of the plan.
        plan: What to train.
        fabric: Devices, machines and precision, launched.
        hooks: Where results go; all processes agree on whether there is a `validate`.
        buffer: Further scans, made while the training goes on; every process makes the same.
        resume: Continue from `hooks.state`; on a CPU the result is that of an uninterrupted training, bit for bit.

    Raises:
        Interrupted: SIGINT or SIGTERM arrived; the state is written.
        ModelError: resume is asked for, and the state is absent or of another training.
        TaskError: the plan cannot be carried out, on so many devices or at all.
        TrainingDiverged: the loss is no longer a number.
    """
    training = Training(scans, plan, fabric, hooks, buffer or SimulationBuffer.empty())
    if resume:
        training.resume()
    with closing(training.buffer):
        training.fill_buffer()
        with catch_signals() as caught:
            while (progress := training.progress()) < 1 and not training.stopped_by(caught):
                training.step(progress)
                training.validate_when_due()
                training.save_when_due()
        training.save()
    if number := training.stopped_by(caught):
        raise Interrupted(number)
    return training.finish()


class Training:
    """The parts of the loop, and what they share."""

    def __init__(
        self, scans: Sequence[Scan], plan: Plan, fabric: Fabric, hooks: Hooks, buffer: SimulationBuffer
    ) -> None:
        check_plan(plan, fabric.world_size)
        self.plan, self.recipe, self.fabric, self.hooks, self.buffer = plan, plan.recipe, fabric, hooks, buffer
        self.shapes = [scan.image.shape for scan in scans]
        self.trainee, self.layout = _begin(plan, fabric), plan.network.layout
        self.sampler = Sampler(scans, plan.recipe, plan.patch, plan.seed, fabric.device, (buffer.depth,) * buffer.size)
        self.throughput = Throughput(fabric.device)
        self.started = self.saved = time.monotonic()
        self.losses: list[Tensor] = []
        self.loss = float("nan")
        self.every = 1 if fabric.device.type == "cpu" else 20

    def resume(self) -> None:
        """Continue from the state that was written; every process reads the file that the first one names."""
        path: Path | None = self.fabric.broadcast(self.hooks.state)
        if path is None:
            raise ModelError("there is no state to resume from; start without --resume")
        read_state(self.trainee, path, self._fingerprint())
        self.started -= 60 * self.trainee.minutes
        self.trainee.validations = min(self.trainee.validations, self._validations_due(self.progress()))
        self.buffer.seen = self.buffer.count_at(self.trainee.step - 1)

    def fill_buffer(self) -> None:
        """Make the scans that the next step needs, if there is one; the clock stands still meanwhile."""
        began = time.monotonic()
        if self.progress() < 1:
            self.buffer.fill(self.trainee.step, self._hold)
        self.started += time.monotonic() - began
        self.saved = time.monotonic()

    def _hold(self, slot: int, scan: Scan) -> None:
        """Keep a scan of the pool beside those that stay."""
        self.sampler.put(len(self.shapes) + slot, scan)

    def progress(self) -> float:
        """Share of the budget that is spent, the same on every process."""
        self.trainee.minutes = (time.monotonic() - self.started) / 60
        spent = self.plan.budget.progress(self.trainee.step, self.trainee.minutes, self.steps_per_epoch)
        return largest(spent, self.fabric.device) if self.plan.budget.kind == "minutes" else spent

    def stopped_by(self, caught: Sequence[int]) -> int:
        """The signal that any process has caught, or 0."""
        return int(largest(caught[-1] if caught else 0, self.fabric.device))

    @property
    def steps_per_epoch(self) -> float:
        """An epoch visits as many samples as the scans have slabs."""
        return len(self.sampler.places) / self.recipe.batch

    def step(self, progress: float) -> None:
        """Cut a batch, learn from it, log it."""
        trainee, stage = self.trainee, self.recipe.stage_at(progress)[1]
        rate = self.recipe.rate_at(progress)
        for group in trainee.optimiser.param_groups:
            group["lr"] = rate
        self.throughput.mark()
        self.buffer.update(trainee.step, self._hold)
        images, classes = self.sampler.cut([self.sampler.draw(k, stage) for k in self._numbers()])
        self.throughput.mark()
        trainee.optimiser.zero_grad()
        logits = trainee.module(images.to(memory_format=self.layout))
        loss = loss_of(logits, classes, self.recipe, stage, self.plan.regions)
        self.fabric.backward(loss)
        trainee.optimiser.step()
        trainee.step += 1
        trainee.update_average()
        self.throughput.mark()
        self.throughput.close_step(self.recipe.batch)
        self.losses.append(loss.detach())
        if trainee.step % self.every == 0:
            self._report(progress, stage.name, rate)

    def _numbers(self) -> range:
        """The samples of this process: every so many-th of the global batch."""
        first = self.trainee.step * self.recipe.batch
        return range(first + self.fabric.global_rank, first + self.recipe.batch, self.fabric.world_size)

    def _report(self, progress: float, stage: str, rate: float, dice: Mapping[str, float] | None = None) -> None:
        """Called by every process, since the loss is the mean over all."""
        if self.losses:
            self.loss = float(all_sum(torch.stack(self.losses).mean())) / self.fabric.world_size
            self.losses.clear()
        if not math.isfinite(self.loss) and self.trainee.step:
            raise TrainingDiverged(f"the loss is {self.loss} at step {self.trainee.step}; lower the learning rate")
        if self.fabric.is_global_zero:
            step, throughput = self.trainee.step, self.throughput
            self.hooks.report(
                Record(step, step / self.steps_per_epoch, stage, progress, self.loss, rate, self.trainee.minutes,
                       throughput.samples_per_second, throughput.data_wait, dice or {})
            )  # fmt: skip

    def validate_when_due(self) -> None:
        """Score whole scans at even shares of the budget, and keep the best weights."""
        progress, hooks, dice = self.progress(), self.hooks, None
        due = self._validations_due(progress)
        if hooks.validate is None or due <= self.trainee.validations:
            return
        self.trainee.validations = due
        if self.fabric.is_global_zero:
            kept = self.trainee.kept().eval()
            dice = hooks.validate(kept)
            self.trainee.net.train()
            mean = sum(dice.values()) / len(dice)
            if mean > self.trainee.best:
                self.trainee.best = mean
                hooks.keep("best", kept.state_dict())
        self.fabric.barrier()
        self._report(progress, self.recipe.stage_at(progress)[1].name, self.recipe.rate_at(progress), dice)

    def _validations_due(self, progress: float) -> int:
        """How many validations belong to this share of the budget; a rounding error of it does not matter."""
        return int(progress * self.hooks.validations + 1e-9)

    def save_when_due(self) -> None:
        """Write the state every few minutes."""
        if time.monotonic() - self.saved > 60 * self.hooks.state_minutes:
            self.save()

    def save(self) -> None:
        """Write the state and the last weights."""
        if self.fabric.is_global_zero:
            if self.hooks.state is not None:
                write_state(self.trainee, self.hooks.state, self._fingerprint())
            self.hooks.keep("last", self.trainee.kept().state_dict())
        self.saved = time.monotonic()

    def _fingerprint(self) -> str:
        """What must agree for a training to be resumed: all but the budget, the scans told by their shapes."""
        plan = self.plan
        network = f"{plan.sequences} {plan.classes} {plan.regions}"
        start = plan.origin and f" from {plan.origin}"
        recipe = plan.recipe.model_dump_json()
        place = f"{plan.patch} {plan.seed} {self.shapes} {plan.network.name}"
        return f"{recipe} {network} {place}{start}{self.buffer.fingerprint}"

    def finish(self) -> nn.Module:
        """The trained network, in evaluation mode."""
        return self.trainee.kept().eval()


def _begin(plan: Plan, fabric: Fabric) -> Trainee:
    """A fresh network and optimiser on the devices, the same on every process."""
    recipe, design = plan.recipe, plan.network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        net = design.build()
    if plan.start is not None:
        load_into(net, plan.start, "the model to start from")
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
    elif fabric.world_size > 1:
        share_statistics(net)
    net = net.to(fabric.device).to(memory_format=design.layout).train()  # type: ignore[call-overload]
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    optimiser = kind(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    average = averaged_twin(net, recipe.averaging)
    module, prepared = fabric.setup(design.learner(net), optimiser)
    return Trainee(
        net,
        module,
        prepared,
        average,
        recipe.averaging,
        start=plan.start or {},
        weight_interpolation=recipe.weight_interpolation,
    )
