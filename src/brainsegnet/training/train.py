"""`train`: from cases on disk to a model folder. Held-out cases are scored during the training."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainsegnet._atomic import claiming, is_unicode, require_space, writable
from brainsegnet._machine import find_versions, has_bf16_units
from brainsegnet._types import Doubles
from brainsegnet.errors import OutputError, TaskError
from brainsegnet.inference import Device
from brainsegnet.inference.postprocessing import segment_filtered
from brainsegnet.inference.tiling import TiledPredictor
from brainsegnet.io.limits import allow_voxels
from brainsegnet.metrics.scores import region_dice
from brainsegnet.model.card import Architecture, Card, ComponentFilter, Data, Hashes, Input, TrainingNote
from brainsegnet.model.store import (
    BEST,
    CARD_FILE,
    LAST,
    WEIGHTS_FILE,
    Model,
    resolve_model,
    save_model,
    settle,
    torch_needed,
)
from brainsegnet.preprocessing.grids import find_common_spacing
from brainsegnet.progress import Callback
from brainsegnet.task import Task, load_task
from brainsegnet.training import TrainOptions
from brainsegnet.training.finetune import (
    adopt,
    check_start,
    inherit_weights,
    settle_interpolation,
    warn_of_forgetting,
)
from brainsegnet.training.log import LOG_FILE, RunLog
from brainsegnet.training.recipes import Recipe
from brainsegnet.training.simulated import describe_simulation, open_buffer
from brainsegnet.training.split import (
    DataSplit,
    Reader,
    check_distinct,
    check_same,
    hash_images,
    load_scans,
    split_cases,
)

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from brainsegnet.model.architecture import BrainSegNet
    from brainsegnet.model.store import Weights
    from brainsegnet.training.loop import Plan
    from brainsegnet.training.sampler import Scan
    from brainsegnet.training.simulated import SimulationBuffer

STATE = "state.safetensors"
LOG_BYTES = 2_000_000
"""Approximate size of cards and logs."""


def train(
    data: Path | Sequence[Path],
    task: Task | str,
    out: Path,
    options: TrainOptions | None = None,
    callback: Callback | None = None,
) -> Path:
    """Train Brain SegNet on cases with known lesions, on cases that are simulated during the training, or on both.

    Args:
        data: Folders of cases, or tables, in any layout that `inspect` recognises. Empty if all cases are simulated.
        task: A task, the name of a built-in task, or a YAML file.
        out: Folder that gets `best/` and `last/` (model folders), `log.csv`, `log.json`, `tensorboard/` and the state
            for resuming.
        options: How to train.
        callback: Receives messages and progress.

    Returns:
        The model folder to use: `best` if cases were held out and scored, else `last`. The scores of `best` are
        optimistic, because the held-out cases chose it.

    Raises:
        BrainSegNetError: data, task, options or output folder cannot be used; one sentence says why.
        Interrupted: SIGINT or SIGTERM arrived. The state is written, and `resume` continues.
    """
    options = options or TrainOptions()
    task = task if isinstance(task, Task) else load_task(task)
    with allow_voxels(options.max_voxels):
        split = split_cases([data] if isinstance(data, Path) else list(data), task, options)
        return train_split(split, out, options, callback or Callback())


def train_split(
    split: DataSplit, out: Path, options: TrainOptions, callback: Callback, read: Reader = load_scans
) -> Path:
    """As `train`, on cases that are already chosen. `read` reads them, or has them in memory."""
    parent = None if options.start is None else resolve_model(options.start)
    if parent is not None:
        check_start(split, parent.card)
    with torch_needed():
        from brainsegnet.training.loop import Monitoring, fit
    _claim(out, split, options.resume)
    plan = make_plan(split, options, parent)
    require_space(out, count_bytes(plan, out), "the training")
    plan.check(options.devices * options.nodes)
    fabric = launch(plan.recipe, options.accelerator, options.devices, options.nodes)
    with claiming(out, [STATE]) if fabric.is_global_zero else nullcontext():
        for sentence in _announce(split, plan, fabric, parent) if fabric.is_global_zero else ():
            callback.on_message(sentence)
        buffer = None
        if split.simulated:
            buffer = open_buffer(split.simulated, options, split.task, split.sequences, fabric.device)
        scored = bool(split.validation) and options.validations > 0
        scans = read(split.training, split, callback.on_message)
        held_out = read(split.validation, split, callback.on_message) if scored and fabric.is_global_zero else {}
        check_distinct(held_out, scans)
        hashes = hash_images(split) if fabric.is_global_zero else {}
        spacing_mm = find_common_spacing(scan.spacing_mm for scan in scans.values())
        if parent is not None and not scans:
            spacing_mm = parent.card.input.spacing_mm
        run = _Run(out, split, plan, options, parent, buffer, list(held_out.values()), hashes, spacing_mm)
        try:
            log = run.open_log() if fabric.is_global_zero else None
            monitoring = Monitoring(
                callbacks=(log, callback) if log else (),
                validate=run.validate if scored else None,
                validations=options.validations,
                keep=run.keep,
                state_file=out / STATE,
            )
            fit(list(scans.values()), plan, fabric, monitoring, buffer=buffer, resume=options.resume)
            if log is not None:
                recipe = plan.recipe.model_dump(mode="json")
                log.close({"recipe": recipe, "budget": asdict(plan.budget), "seed": options.seed})
        except OSError as error:
            raise OutputError(f"{error.filename or out} cannot be written: {error.strerror or error}") from error
        return out / (BEST if (out / BEST).is_dir() else LAST)


def make_plan(split: DataSplit, options: TrainOptions, parent: Model | None) -> "Plan":
    """What is trained on these cases, from a model or from random weights.

    Raises:
        TaskError: the recipe is unknown, or cannot train the model.
    """
    from brainsegnet.training.loop import Plan

    recipe, task = options.chosen_recipe, split.task
    if parent is not None:
        adopted = adopt(recipe, parent.card, options.drop_sequences)
        recipe = settle_interpolation(adopted, parent.card, split.sequences, task)
    recipe = recipe.fit_to(len(split.training) + (options.simulated or 0))
    budget, patch = options.budget or recipe.budget(), recipe.patch or task.patch
    plan = Plan(recipe, budget, len(split.sequences), task.classes, patch, options.seed, task.region_classes)
    plan = replace(plan, required=task.find_required(split.sequences))
    if parent is None:
        return plan
    start = inherit_weights(parent, plan, split.sequences, task)
    return replace(plan, start=start, origin=parent.card.as_parent().sha256)


def count_bytes(plan: "Plan", out: Path) -> int:
    """Approximate bytes of disk that a training needs in addition, while new files exist beside those they replace.

    The state holds weights, two moments and an average. Two models hold the weights.
    """
    from brainsegnet.model.network import count_parameters

    weights = 4 * count_parameters(plan.network)
    old = sum(path.stat().st_size for path in (out / STATE, *out.glob(f"*/{WEIGHTS_FILE}")) if path.is_file())
    return 2 * (3 + bool(plan.recipe.averaging) + 2) * weights - old + LOG_BYTES


def launch(recipe: Recipe, accelerator: Device, devices: int = 1, nodes: int = 1) -> "Fabric":
    """Choose devices, machines and precision.

    Raises:
        TaskError: there are no such devices, or not as many.
    """
    import torch
    from lightning.fabric import Fabric

    cuda = torch.cuda.is_available() and accelerator != "cpu"
    if accelerator == "cuda" and not cuda:
        raise TaskError("no GPU that CUDA can use is here; choose accelerator auto or cpu")
    if cuda and devices > torch.cuda.device_count():
        raise TaskError(f"there are {torch.cuda.device_count()} GPUs here, not {devices}; lower devices")
    for package in ("fabric", "pytorch"):  # what they say is announced already
        logging.getLogger(f"lightning.{package}.utilities.rank_zero").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        precision="bf16-mixed" if recipe.bf16 and (cuda or has_bf16_units()) else "32-true",
    )
    fabric.launch()
    return fabric


def _announce(split: DataSplit, plan: "Plan", fabric: "Fabric", parent: Model | None) -> Iterator[str]:
    """What is trained and simulated, and what a model to start from may forget, in sentences."""
    held_out = ", ".join(case.name for case in split.validation) or "none"
    count, widths = len(split.training), plan.recipe.widths
    cases = {0: "no training case on disk", 1: "1 training case"}.get(count, f"{count} training cases")
    yield (
        f"task {split.task.name}, sequences {', '.join(split.sequences)}; {cases}, "
        f"held out: {held_out}; recipe {plan.recipe.name}, {plan.budget}, "
        f"{widths[0]} to {widths[-1]} channels, {fabric.world_size} x {fabric.device.type}, "
        f"{fabric.strategy.precision.precision}"
    )
    yield from split.left_out
    if split.simulated is not None:
        yield describe_simulation(split.simulated)
    if parent is not None and (warning := warn_of_forgetting(plan.recipe, parent.card, split.sequences, split.task)):
        yield warning


def _claim(out: Path, split: DataSplit, resume: bool) -> None:
    """Refuse to train over an earlier training, or to resume where there is none or another."""
    if not is_unicode(out):
        raise OutputError(f"{out} has a name that is not UTF-8, which the log of a training cannot have; rename it")
    if not resume and any((out / part).exists() for part in (STATE, BEST, LAST)):
        raise OutputError(f"{out} already holds a training; continue it with --resume, or choose another folder")
    if resume and not (out / STATE).is_file():
        raise OutputError(f"{out} holds no state of a training to resume; start one in a new folder without --resume")
    for name in (BEST, LAST):
        settle(out / name)
    if resume and (card := _last_card(out)):
        check_same(split, card, out)
    writable(out / LOG_FILE, ())


def _last_card(out: Path) -> Card | None:
    """The card of the last model, if it is there and whole; a training is resumed without it too."""
    try:
        return Card.model_validate_json((out / LAST / CARD_FILE).read_bytes())
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class _Run:
    """A training and its folder: it writes the log and the models, and scores the held-out cases for their cards."""

    out: Path
    split: DataSplit
    plan: "Plan"
    options: TrainOptions
    parent: Model | None
    buffer: "SimulationBuffer | None"
    held_out: Sequence["Scan"]
    hashes: Hashes
    spacing_mm: float | None = None
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def margin(self) -> float | None:
        """The confidence margin of components: that of the model to start from, if a share of its weights is kept."""
        kept = self.plan.recipe.weight_interpolation
        return self.parent.card.components.confidence_margin if self.parent and kept else None

    def open_log(self) -> RunLog:
        """The log, and the scores, continued where the training is."""
        from brainsegnet.training.checkpoint import steps_and_minutes

        steps = steps_and_minutes(self.out / STATE)[0] if self.options.resume else 0
        if steps and (card := _last_card(self.out)):
            self.scores.update({region: dice for region, dice in card.training.scores.items() if dice is not None})
        return RunLog(self.out, tuple(self.split.task.regions), steps)

    def validate(self, net: "BrainSegNet") -> Mapping[str, float]:
        from brainsegnet.inference.torch_backend import TorchBackend

        found = score(TiledPredictor(TorchBackend.of(net)), self.held_out, self.split.task, self.margin)
        self.scores.update({region: float(dice.mean()) for region, dice in found.items()})
        return dict(self.scores)

    def keep(self, name: str, weights: "Weights", steps: int) -> None:
        save_model(self.out / name, self.make_card(f"{self.out.name}/{name}", steps), weights)

    def make_card(self, name: str, steps: int | None = None) -> Card:
        split, plan, recipe = self.split, self.plan, self.plan.recipe
        cases = tuple(case.name for case in split.training)
        simulated = split.simulated and self.buffer and split.simulated.model_copy(update={"seen": self.buffer.seen})
        return Card(
            name=name,
            licence=self.options.licence,
            task=split.task,
            input=Input(
                sequences=split.sequences,
                normalisation=split.task.normalisation,
                any_subset=recipe.drop_sequences > 0 and len(split.sequences) > 1,
                spacing_mm=self.spacing_mm,
            ),
            network=Architecture.model_validate(recipe.model_dump(include=set(Architecture.model_fields))),
            training=TrainingNote(
                recipe=recipe.model_dump(mode="json"),
                budget=plan.budget.to_json(),
                steps=steps,
                seed=plan.seed,
                started_from=self.parent.card.as_parent() if self.parent else None,
                data=Data(cases=cases, count=len(cases), sources=self.options.sources, hashes=self.hashes),
                simulated=simulated,
                held_out=tuple(case.name for case in split.validation),
                interpolated=recipe.weight_interpolation,
                scores=self.scores,
            ),
            components=ComponentFilter(confidence_margin=self.margin),
            versions=find_versions(),
        )


def score(
    predictor: TiledPredictor, scans: Iterable["Scan"], task: Task, margin: float | None = None
) -> dict[str, Doubles]:
    """Whole-scan Dice of each region, one value for each scan. A margin drops components of low confidence."""
    scores = [
        region_dice(segment_filtered(predictor, scan.image, margin).classes, scan.classes, task) for scan in scans
    ]
    return {region: np.array([one[region] for one in scores]) for region in task.regions}
