"""`train`: cases on disk to a model folder, with held-out cases scored on the way."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainsegnet._atomic import writable
from brainsegnet._machine import find_versions, has_bf16_units
from brainsegnet.errors import OutputError, TaskError
from brainsegnet.inference.postprocessing import segment_filtered
from brainsegnet.metrics.scores import region_dice
from brainsegnet.model.card import Architecture, Card, ComponentFilter, Data, Input, TrainingNote
from brainsegnet.model.store import BEST, CARD_FILE, LAST, Model, resolve_model, save_model, torch_needed
from brainsegnet.task import Task, load_task
from brainsegnet.training.finetune import (
    adopt,
    follow,
    inherit,
    inherited_confidence_margin,
    settle_interpolation,
    warn_of_forgetting,
)
from brainsegnet.training.options import TrainOptions, Watch
from brainsegnet.training.recipes import Recipe
from brainsegnet.training.simulated import describe_simulation, open_buffer
from brainsegnet.training.split import DataSplit, Read, check_same, load_scans, load_split, split_cases

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from brainsegnet.model.architecture import BrainSegNet
    from brainsegnet.training.plan import Hooks, Plan, Record, Weights
    from brainsegnet.training.progress import RunLog
    from brainsegnet.training.sampler import Scan

STATE = "state.safetensors"
CHATTY = tuple(f"lightning.{package}.utilities.rank_zero" for package in ("fabric", "pytorch"))
"""Loggers that tell what `describe` says already."""
Validate = Callable[["BrainSegNet"], Mapping[str, float]]
Report = Callable[["Record"], None]


def train(
    data: Path | Sequence[Path],
    task: Task | str,
    out: Path,
    options: TrainOptions | None = None,
    watch: Watch | None = None,
) -> Path:
    """Train Brain SegNet on cases with known lesions, on cases that are simulated meanwhile, or on both.

    Args:
        data: Folders of cases, or tables, in any naming scheme that `find_cases` knows; none where cases are simulated.
        task: A task, the name of one of ours, or a YAML file.
        out: Gets `best/` and `last/` (model folders), `log.csv`, `log.json`, `tensorboard/` and the state for resuming.
        options: How to train.
        watch: Who is told.

    Returns:
        The model folder to use: `best` where cases were held out, else `last`.

    Raises:
        BrainSegNetError: data, task, options or output folder cannot be used; one sentence says why.
        Interrupted: SIGINT or SIGTERM; the state is written, and `resume` continues.
    """
    options, watch = options or TrainOptions(), watch or Watch()
    task = task if isinstance(task, Task) else load_task(task)
    split = split_cases([data] if isinstance(data, Path) else list(data), task, options)
    return run(split, load_scans, out, options, watch)


def run(split: DataSplit, read: Read, out: Path, options: TrainOptions, watch: Watch) -> Path:
    """Train on the cases of a split, which `read` reads or has in memory; otherwise as `train`.

    Args:
        split: Who is trained on and who is held out.
        read: Gives the scans of some of its cases; takes what `load_scans` takes.
        out: As for `train`.
        options: As for `train`.
        watch: As for `train`.
    """
    parent = None if options.start is None else resolve_model(options.start)
    split = split if parent is None else follow(split, parent.card)
    with torch_needed():
        from brainsegnet.training.loop import fit
        from brainsegnet.training.plan import check_plan
    _claim(out, split, options.resume)
    plan = make_plan(split, options, parent)
    check_plan(plan, options.devices * options.nodes)
    fabric = launch(options, plan.recipe)
    if fabric.is_global_zero:
        watch.say(describe(split, plan, fabric))
        if split.simulated is not None:
            watch.say(describe_simulation(split.simulated))
        if parent is not None and (warning := warn_of_forgetting(plan.recipe, split, parent.card)):
            watch.say(warning)
    if split.simulated:
        buffer = open_buffer(split.simulated, options, split.task, split.sequences, fabric.device)
        split = replace(split, buffer=buffer)
    scans, held_out = load_split(split, fabric.is_global_zero and _scored(split, options), read, watch.say)
    try:
        hooks, log = _hooks(split, plan, fabric, out, options, held_out)
        hooks = replace(hooks, report=_both(hooks.report, watch.step))
        fit(scans, plan, fabric, hooks, buffer=split.buffer, resume=options.resume)
        if log is not None:
            recipe = plan.recipe.model_dump(mode="json")
            log.close({"recipe": recipe, "budget": asdict(plan.budget), "seed": options.seed})
    except OSError as error:
        raise OutputError(f"{error.filename or out} cannot be written: {error.strerror or error}") from error
    return out / (BEST if (out / BEST).is_dir() else LAST)


def make_plan(split: DataSplit, options: TrainOptions, parent: Model | None) -> "Plan":
    """What is to be trained on these cases, from a model or from nothing.

    Raises:
        TaskError: the recipe is unknown, or cannot train the model.
    """
    from brainsegnet.training.plan import Plan

    recipe, task = options.chosen_recipe, split.task
    if parent is not None:
        recipe = settle_interpolation(adopt(recipe, parent.card, options.drop_sequences), split, parent.card)
    recipe = recipe.fit_to(len(split.training) + (options.simulated or 0))
    budget, patch = options.budget or recipe.budget(), recipe.patch or task.patch
    plan = Plan(recipe, budget, len(split.sequences), task.classes, patch, options.seed, task.region_classes)
    if parent is None or split.parent is None:
        return plan
    return replace(plan, start=inherit(parent, plan, split.sequences, task), origin=split.parent.sha256)


def describe(split: DataSplit, plan: "Plan", fabric: "Fabric") -> str:
    """What is said at the start."""
    held = ", ".join(case.name for case in split.validation) or "none"
    length, count, widths = getattr(plan.budget, plan.budget.kind), len(split.training), plan.recipe.widths
    cases = {0: "no training case on disk", 1: "1 training case"}.get(count, f"{count} training cases")
    return (
        f"task {split.task.name}, sequences {', '.join(split.sequences)}; {cases}, "
        f"held out: {held}; recipe {plan.recipe.name}, {length:g} {plan.budget.kind}, "
        f"{widths[0]} to {widths[-1]} channels, {fabric.world_size} x {fabric.device.type}, "
        f"{fabric.strategy.precision.precision}"
    )


def launch(options: TrainOptions, recipe: Recipe) -> "Fabric":
    """Devices, machines and precision.

    Raises:
        TaskError: there are no such devices, or not as many.
    """
    import torch
    from lightning.fabric import Fabric

    cuda = torch.cuda.is_available() and options.accelerator != "cpu"
    if options.accelerator == "cuda" and not cuda:
        raise TaskError("no GPU that CUDA can use is here; choose accelerator auto or cpu")
    if cuda and options.devices > torch.cuda.device_count():
        raise TaskError(f"there are {torch.cuda.device_count()} GPUs here, not {options.devices}; lower devices")
    many = options.devices * options.nodes > 1
    for logger in CHATTY:
        logging.getLogger(logger).setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=options.devices,
        num_nodes=options.nodes,
        strategy="ddp" if many else "auto",
        precision="bf16-mixed" if recipe.bf16 and (cuda or has_bf16_units()) else "32-true",
    )
    fabric.launch()
    return fabric


def _claim(out: Path, split: DataSplit, resume: bool) -> None:
    """Refuse to train over an earlier training, or to resume where there is none or another."""
    if not resume and any((out / part).exists() for part in (STATE, BEST, LAST)):
        raise OutputError(f"{out} already holds a training; continue it with --resume, or choose another folder")
    if resume and not (out / STATE).is_file():
        raise OutputError(f"{out} holds no state of a training to resume; start one in a new folder without --resume")
    if resume and (card := _last_card(out)):
        check_same(split, card, out)
    writable(out / "log.csv", ())


def _last_card(out: Path) -> Card | None:
    """The card of the last model, if it is there and whole: a training needs but its state to be resumed."""
    try:
        return Card.model_validate_json((out / LAST / CARD_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def _scored(split: DataSplit, options: TrainOptions) -> bool:
    """Whether held-out cases are scored on the way."""
    return bool(split.validation) and options.validations > 0


def _both(one: Report, other: Report) -> Report:
    """Tells both."""

    def tell(record: "Record") -> None:
        one(record)
        other(record)

    return tell


def _hooks(
    split: DataSplit, plan: "Plan", fabric: "Fabric", out: Path, options: TrainOptions, held_out: Sequence["Scan"]
) -> tuple["Hooks", "RunLog | None"]:
    """Where records and weights go; the log is the first process's alone, and a `validate` every one's or none's."""
    from brainsegnet.training.checkpoint import saved_step
    from brainsegnet.training.plan import Hooks
    from brainsegnet.training.progress import RunLog

    scored = _scored(split, options)
    if not fabric.is_global_zero:
        idle: Validate | None = (lambda net: {}) if scored else None
        return Hooks(lambda record: None, lambda name, weights: None, idle, out / STATE, options.validations), None
    log = RunLog(out, tuple(split.task.regions), saved_step(out / STATE) if options.resume else 0)
    card = _last_card(out) if options.resume else None
    scores = {region: value for region, value in card.training.scores.items() if value is not None} if card else {}

    def keep(name: str, weights: "Weights") -> None:
        save_model(out / name, write_card(f"{out.name}/{name}", split, plan, options, scores), weights)

    def validate_held_out(net: "BrainSegNet") -> Mapping[str, float]:
        scores.update(score(net, held_out, split.task, inherited_confidence_margin(split, plan.recipe)))
        return dict(scores)

    return Hooks(log, keep, validate_held_out if scored else None, out / STATE, options.validations), log


def write_card(name: str, split: DataSplit, plan: "Plan", options: TrainOptions, scores: Mapping[str, float]) -> Card:
    """All about the model that is being trained."""
    recipe, cases = plan.recipe, tuple(case.name for case in split.training)
    simulated = split.simulated and split.buffer and split.simulated.model_copy(update={"seen": split.buffer.seen})
    return Card(
        name=name,
        licence=options.licence,
        task=split.task,
        input=Input(
            sequences=split.sequences,
            normalisation=split.task.normalisation,
            any_subset=recipe.drop_sequences > 0 and len(split.sequences) > 1,
        ),
        network=Architecture(
            widths=recipe.widths, refined=recipe.refined, nonlinear=recipe.nonlinear, stride=recipe.stride
        ),
        training=TrainingNote(
            recipe=recipe.model_dump(mode="json"),
            budget={plan.budget.kind: getattr(plan.budget, plan.budget.kind)},
            seed=plan.seed,
            started_from=split.parent,
            data=Data(cases=cases, count=len(cases), sources=options.sources),
            simulated=simulated,
            held_out=tuple(case.name for case in split.validation),
            interpolated=recipe.weight_interpolation,
            scores=dict(scores),
        ),
        components=ComponentFilter(confidence_margin=inherited_confidence_margin(split, recipe)),
        versions=find_versions(),
    )


def score(net: "BrainSegNet", scans: Sequence["Scan"], task: Task, margin: float | None = None) -> dict[str, float]:
    """Mean whole-scan Dice of each region, without the components that a margin drops."""
    from brainsegnet.inference.tiling import TiledPredictor
    from brainsegnet.inference.torch_backend import TorchBackend

    predictor = TiledPredictor(TorchBackend.of(net))
    scores = [
        region_dice(segment_filtered(predictor, scan.image, margin).classes, scan.classes, task) for scan in scans
    ]
    return {region: float(np.mean([one[region] for one in scores])) for region in task.regions}
