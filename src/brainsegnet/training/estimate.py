"""What a training would take: samples, steps, memory and hours, from a few measured steps. Nothing is written."""

import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from brainsegnet.errors import TaskError
from brainsegnet.io.limits import allow_voxels
from brainsegnet.model.store import resolve_model, torch_needed
from brainsegnet.preprocessing.geometry import slab_starts
from brainsegnet.progress import Callback, ProgressEvent
from brainsegnet.task import Task, load_task
from brainsegnet.training import DryRunOptions, TrainOptions
from brainsegnet.training.finetune import check_start
from brainsegnet.training.split import DataSplit, load_scans, split_cases
from brainsegnet.training.train import launch, make_plan

if TYPE_CHECKING:
    import torch
    from lightning.fabric import Fabric

    from brainsegnet.training.loop import Plan
    from brainsegnet.training.sampler import Scan

READ = 2
"""Scans that are read for the measurement; the others count as the mean of these."""
STEPS = {"cpu": 4, "cuda": 60}
"""Steps of the measurement; on a GPU, the loop reports every 20."""


@dataclass(frozen=True)
class Estimate:
    """What a training would take.

    Attributes:
        batch: Samples per step, over all processes.
        processes: Number of devices on all machines.
        samples_per_epoch: Samples of an epoch; of more cases than were read, an estimate.
        samples_per_second: Rate of one process.
        measured: Whether that rate was measured here.
        budget: The length that was asked for.
        steps: Number of steps.
        hours: Length in hours. With several processes, each is taken to be as fast as one alone.
        scans_gb: Memory of all scans, in each process, in GB.
        state_gb: Memory of weights, gradients and optimiser, in each process, in GB.
        peak_gb: Measured peak of the process in all, with all scans, in GB; None without a measurement.
    """

    batch: int
    processes: int
    samples_per_epoch: float
    samples_per_second: float
    measured: bool
    budget: str
    steps: int
    hours: float
    scans_gb: float
    state_gb: float
    peak_gb: float | None = None

    @property
    def samples(self) -> int:
        """Samples of the whole training."""
        return self.steps * self.batch

    def describe(self) -> list[str]:
        """The estimate in sentences."""
        share = f"{self.batch // self.processes} on each of {self.processes} processes"
        origin = "measured here in a few steps" if self.measured else "as given"
        lines = [
            f"batch: {self.batch} samples, {share}",
            f"length: {self.budget}, {self.steps:,} steps, {self.samples:,} samples, "
            f"{self.samples / self.samples_per_epoch:.1f} epochs of about {self.samples_per_epoch:,.0f} samples",
            f"memory of a process: {self.scans_gb:.2f} GB for all scans, {self.state_gb:.2f} GB for weights, gradients "
            "and optimiser"
            + (f"; {self.peak_gb:.2f} GB in all, measured" if self.peak_gb else "; that of a batch was not measured"),
            f"rate of a process: {self.samples_per_second:.3g} samples a second, {origin}",
            f"time: {self.hours:.2f} hours, without reading and scoring",
        ]
        if self.processes > 1:
            lines.append(f"the time on {self.processes} processes is computed from that of one, and was not measured")
        return lines


def dry_run(
    data: Path | Sequence[Path],
    task: Task | str,
    options: TrainOptions | None = None,
    how: DryRunOptions | None = None,
    callback: Callback | None = None,
) -> Estimate:
    """Estimate what `train` would take, without writing anything.

    Args:
        data: As for `train`.
        task: As for `train`.
        options: As for `train`; `devices` and `nodes` may be those of another machine.
        how: A rate, if none is to be measured.
        callback: Receives messages.

    Raises:
        BrainSegNetError: as `train`.
        TaskError: it was started as several processes, or there is no case on disk to measure with.
    """
    options, how = options or TrainOptions(), how or DryRunOptions()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TaskError("a dry run is one process; start it without torchrun, and name --devices and --nodes")
    task = task if isinstance(task, Task) else load_task(task)
    with allow_voxels(options.max_voxels):
        split = split_cases([data] if isinstance(data, Path) else list(data), task, options)
        parent = None if options.start is None else resolve_model(options.start)
        if parent is not None:
            check_start(split, parent.card)
        if not split.training:
            raise TaskError("a dry run measures with cases on disk, and there are none to train on; name some")
        with torch_needed():
            plan = make_plan(split, options, parent)
        processes = options.devices * options.nodes
        plan.check(processes)
        scans = load_scans(split.training[:READ], split, callback.on_message if callback else lambda text: None)
        return _estimate(plan, split, list(scans.values()), options, how.samples_per_second)


def _estimate(
    plan: "Plan", split: DataSplit, scans: "Sequence[Scan]", options: TrainOptions, rate: float | None
) -> Estimate:
    from brainsegnet.model.network import count_parameters

    processes, batch = options.devices * options.nodes, plan.recipe.batch
    count = len(split.training) + (split.simulated.size if split.simulated else 0)
    scale = count / len(scans)
    epoch = scale * sum(len(slab_starts(scan.depth, plan.patch[0])) for scan in scans)
    read_gb = sum(scan.image.nbytes + scan.classes.nbytes for scan in scans) / 1e9
    measured, peak_gb = rate is None, None
    if rate is None:
        rate, peak_gb = measure(plan, scans, launch(plan.recipe, options.accelerator), batch // processes)
        peak_gb = peak_gb and peak_gb + (scale - 1) * read_gb
    steps, hours = count_steps(plan, epoch, rate * processes)
    copies = 4 + bool(plan.recipe.averaging)
    state_gb = 4 * copies * count_parameters(plan.network) / 1e9
    return Estimate(
        batch, processes, epoch, rate, measured, str(plan.budget), steps, hours, scale * read_gb, state_gb, peak_gb
    )


def count_steps(plan: "Plan", samples_per_epoch: float, samples_per_second: float) -> tuple[int, float]:
    """Steps and hours of a training, at a rate of all processes together.

    Args:
        plan: What is trained.
        samples_per_epoch: Samples of an epoch.
        samples_per_second: Samples that all processes see in a second.
    """
    budget, batch = plan.budget, plan.recipe.batch
    if budget.minutes is not None:
        return math.ceil(60 * budget.minutes * samples_per_second / batch), budget.minutes / 60
    steps = budget.steps or math.ceil((budget.epochs or 0) * samples_per_epoch / batch)
    return steps, steps * batch / samples_per_second / 3600


def measure(plan: "Plan", scans: "Sequence[Scan]", fabric: "Fabric", batch: int) -> tuple[float, float | None]:
    """Samples a second of one process after the first report, and the peak of its memory in GB.

    Args:
        plan: What is trained.
        scans: Some of the training scans.
        fabric: One device.
        batch: Samples per step of this process.
    """
    from brainsegnet.training.loop import Monitoring, fit
    from brainsegnet.training.recipes import Budget

    recipe = plan.recipe.model_copy(update={"batch": batch, "transplant": 0.0})
    times: dict[int, float] = {}

    class Clock(Callback):
        def on_progress(self, event: ProgressEvent) -> None:
            times[event.step or 0] = time.perf_counter()

    short = replace(plan, recipe=recipe, budget=Budget(steps=STEPS[fabric.device.type]))
    fit(scans, short, fabric, Monitoring((Clock(),)))
    first, last = min(times), max(times)
    return (last - first) * batch / (times[last] - times[first]), _find_peak(fabric.device)


def _find_peak(device: "torch.device") -> float | None:
    """Largest memory so far, in GB: of a GPU what torch holds there, else of the process. None if unknown."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ImportError:  # on Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
