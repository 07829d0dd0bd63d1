"""`train`: cases on disk to a model folder, with held-out cases scored on the way."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainsegnet.errors import DatasetError, OutputError
from brainsegnet.evaluation.metrics import dice
from brainsegnet.inference.model import (
    Architecture,
    Card,
    Data,
    Input,
    TrainingNote,
    find_versions,
    save_model,
    torch_needed,
)
from brainsegnet.output import writable
from brainsegnet.preprocessing.prepare import follow, prepare
from brainsegnet.scans.datasets import CaseFiles, common_sequences, find_cases, load_case
from brainsegnet.task import Task, load_task
from brainsegnet.training.curriculum import Budget, Recipe, load_recipe

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from brainsegnet.network.architecture import BrainSegNet
    from brainsegnet.training.fit import Hooks, Plan, Record, Weights
    from brainsegnet.training.log import RunLog
    from brainsegnet.training.patches import Scan

STATE = "state.safetensors"


@dataclass(frozen=True)
class TrainOptions:
    """How to train; the defaults suit a CPU.

    Attributes:
        recipe: A recipe, or the name of one of ours.
        budget: How long; None is the recipe's own.
        sequences: Sequences to use; none means those of the task that every case has.
        hold_out: Names of cases that are not trained on but scored during training.
        validation: How many cases to hold out where none are named, drawn by the seed; None is one in eight.
        exclude: Names of cases that are not used at all.
        seed: Governs all that is random.
        devices, nodes: Devices a machine, and machines; under torchrun or Slurm, what was launched.
        accelerator: "auto", "cpu" or "cuda".
        resume: Continue the training that is in the output folder.
        licence: Licence of the weights, for the card.
    """

    recipe: Recipe | str = "quick"
    budget: Budget | None = None
    sequences: tuple[str, ...] = ()
    hold_out: tuple[str, ...] = ()
    validation: int | None = None
    exclude: tuple[str, ...] = ()
    seed: int = 0
    devices: int = 1
    nodes: int = 1
    accelerator: str = "auto"
    resume: bool = False
    licence: str = "not stated; the terms of the training data apply"


@dataclass(frozen=True)
class Watch:
    """Who is told what happens: `say` gets sentences, `step` gets each record of the log."""

    say: Callable[[str], None] = lambda text: None
    step: Callable[["Record"], None] = lambda record: None


@dataclass(frozen=True)
class Roster:
    """Which cases are trained on, which are held out, and the sequences in the order of the channels."""

    task: Task
    sequences: tuple[str, ...]
    training: Sequence[CaseFiles]
    validation: Sequence[CaseFiles]


def train(
    data: Path | Sequence[Path],
    task: Task | str,
    out: Path,
    options: TrainOptions | None = None,
    watch: Watch | None = None,
) -> Path:
    """Train Brain SegNet on cases with known lesions.

    Args:
        data: Folders of cases, or tables, in any naming scheme that `find_cases` knows.
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
    recipe = options.recipe if isinstance(options.recipe, Recipe) else load_recipe(options.recipe)
    roster = call_roll([data] if isinstance(data, Path) else list(data), task, options)
    with torch_needed():
        from brainsegnet.training.fit import Plan, fit
    patch = recipe.patch or task.patch
    budget = options.budget or recipe.budget()
    plan = Plan(recipe, budget, len(roster.sequences), task.classes, patch, options.seed)
    _claim(out, options.resume)
    fabric = launch(options, recipe)
    if fabric.is_global_zero:
        watch.say(describe(roster, plan, fabric))
    hooks, log = _hooks(roster, plan, fabric, out, options, watch)
    scans = load_scans(roster.training, roster)
    fit(scans, plan, fabric, hooks, resume=options.resume)
    if log is not None:
        log.close({"recipe": recipe.model_dump(mode="json"), "budget": asdict(budget), "seed": options.seed})
    return out / ("best" if roster.validation else "last")


def call_roll(data: Sequence[Path], task: Task, options: TrainOptions) -> Roster:
    """Find the cases, and decide which are held out and which sequences are used.

    Raises:
        DatasetError: no case to train on, or a name that no case has.
        MissingSequence: a case lacks a sequence that was named, or all share none.
    """
    found = find_cases(data)
    names = {case.name for case in found}
    if unknown := sorted({*options.hold_out, *options.exclude} - names):
        raise DatasetError(f"no case is called {', '.join(unknown)}; the cases are {', '.join(sorted(names))}")
    cases = [case for case in found if case.name not in options.exclude]
    if unlabelled := [case.name for case in cases if case.lesion is None]:
        raise DatasetError(f"case {unlabelled[0]} has no label map to learn from; add it, or exclude the case")
    held = set(options.hold_out) or _drawn(cases, options)
    training = [case for case in cases if case.name not in held]
    if not training:
        raise DatasetError(f"no case is left to train on: {len(found)} found, {len(held)} held out")
    sequences = options.sequences or common_sequences(cases, task)
    return Roster(task, sequences, training, [case for case in cases if case.name in held])


def _drawn(cases: Sequence[CaseFiles], options: TrainOptions) -> set[str]:
    """Names of the cases held out by the seed: as many as asked for, or one in eight."""
    count = len(cases) // 8 if options.validation is None else options.validation
    order = np.random.default_rng(options.seed).permutation(len(cases))
    return {cases[i].name for i in order[:count]}


def describe(roster: Roster, plan: "Plan", fabric: "Fabric") -> str:
    """What is said at the start."""
    held = ", ".join(case.name for case in roster.validation) or "none"
    length = getattr(plan.budget, plan.budget.kind)
    return (
        f"task {roster.task.name}, sequences {', '.join(roster.sequences)}; {len(roster.training)} training cases, "
        f"held out: {held}; recipe {plan.recipe.name}, {length:g} {plan.budget.kind}, "
        f"{fabric.world_size} x {fabric.device.type}, {fabric.strategy.precision.precision}"
    )


def launch(options: TrainOptions, recipe: Recipe) -> "Fabric":
    """Devices, machines and precision."""
    import torch
    from lightning.fabric import Fabric

    cuda = torch.cuda.is_available() and options.accelerator != "cpu"
    many = options.devices * options.nodes > 1
    fabric = Fabric(
        accelerator="cuda" if cuda or options.accelerator == "cuda" else "cpu",
        devices=options.devices,
        num_nodes=options.nodes,
        strategy="ddp" if many else "auto",
        precision="bf16-mixed" if recipe.bf16 and cuda else "32-true",
    )
    fabric.launch()
    return fabric


def load_scans(cases: Sequence[CaseFiles], roster: Roster) -> list["Scan"]:
    """Read and prepare cases, a few at a time.

    Raises:
        BrainSegNetError: a case cannot be used; one sentence says which and why.
    """
    from brainsegnet.training.patches import Scan

    def load(files: CaseFiles) -> Scan:
        case = load_case(files, roster.sequences, roster.task, lesion=True)
        prepared = prepare(case)
        labels = case.lesion.array if case.lesion is not None else np.zeros(case.reference.shape, np.uint8)
        classes = roster.task.encode(np.ascontiguousarray(follow(labels, prepared)), case.name)
        return Scan(prepared.image, classes, prepared.shape[0], prepared.box.start[0])

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(load, cases))


def _claim(out: Path, resume: bool) -> None:
    """Refuse to train over an earlier training, or to resume where there is none."""
    trained = (out / STATE).is_file()
    if trained and not resume:
        raise OutputError(f"{out} already holds a training; continue it with --resume, or choose another folder")
    if resume and not trained:
        raise OutputError(f"{out} holds no training to resume; start it without --resume")
    writable(out / "log.csv", ())


def _hooks(
    roster: Roster, plan: "Plan", fabric: "Fabric", out: Path, options: TrainOptions, watch: Watch
) -> tuple["Hooks", "RunLog | None"]:
    """Where records and weights go; the log is the first process's alone."""
    from brainsegnet.training.fit import Hooks
    from brainsegnet.training.log import RunLog
    from brainsegnet.training.state import saved_step

    if not fabric.is_global_zero:
        return Hooks(lambda record: None, lambda name, weights: None, lambda net: {}, out / STATE), None
    log = RunLog(out, tuple(roster.task.regions), saved_step(out / STATE) if options.resume else 0)
    held_out = load_scans(roster.validation, roster)
    scores: dict[str, float] = {}

    def report(record: "Record") -> None:
        log(record)
        watch.step(record)

    def keep(name: str, weights: "Weights") -> None:
        save_model(out / name, write_card(f"{out.name}/{name}", roster, plan, options, scores), weights)

    def validate_held_out(net: "BrainSegNet") -> Mapping[str, float]:
        scores.update(score(net, held_out, roster.task))
        return dict(scores)

    return Hooks(report, keep, validate_held_out if held_out else None, out / STATE), log


def write_card(name: str, roster: Roster, plan: "Plan", options: TrainOptions, scores: Mapping[str, float]) -> Card:
    """All about the model that is being trained."""
    recipe, cases = plan.recipe, tuple(case.name for case in roster.training)
    return Card(
        name=name,
        licence=options.licence,
        task=roster.task,
        input=Input(
            sequences=roster.sequences,
            normalisation=roster.task.normalisation,
            any_subset=recipe.drop_sequences > 0 and len(roster.sequences) > 1,
        ),
        network=Architecture(widths=recipe.widths, refined=recipe.refined, nonlinear=recipe.nonlinear),
        training=TrainingNote(
            recipe=recipe.model_dump(mode="json"),
            budget={plan.budget.kind: getattr(plan.budget, plan.budget.kind)},
            seed=plan.seed,
            data=Data(cases=cases, count=len(cases)),
            held_out=tuple(case.name for case in roster.validation),
            scores=dict(scores),
        ),
        versions=find_versions(),
    )


def score(net: "BrainSegNet", scans: Sequence["Scan"], task: Task) -> dict[str, float]:
    """Mean whole-scan Dice of each region."""
    from brainsegnet.inference.engines import TorchEngine

    engine = TorchEngine.of(net)
    found = [task.decode(engine.classify(scan.image)) for scan in scans]
    truth = [task.decode(scan.classes) for scan in scans]
    return {
        region: float(
            np.mean([dice(np.isin(f, values), np.isin(t, values)) for f, t in zip(found, truth, strict=True)])
        )
        for region, values in task.regions.items()
    }
