"""What a training of a comparison came to, as a JSON that appears when it is finished.

One training of a comparison and its test: all that differs between two of them is the contender and the fold.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter, ValidationError

from brainsegnet._atomic import write_text
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet._types import Floats, Labels, Millimetres
from brainsegnet.benchmark.leaderboard import ModelResults
from brainsegnet.benchmark.models import OURS, Contender, design_of
from brainsegnet.errors import BrainSegNetError, OutputError
from brainsegnet.inference.tiling import TiledPredictor, find_halo
from brainsegnet.metrics.scores import RegionScore, score_case
from brainsegnet.preprocessing.prepare import put_back
from brainsegnet.task import Task
from brainsegnet.training.recipes import Budget

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from brainsegnet.training.plan import Plan, Record
    from brainsegnet.training.sampler import Scan


@dataclass(frozen=True)
class Result:
    """A network trained on all folds but one, and tested on that.

    Attributes:
        model: Name of the contender.
        fold: Counted from 1.
        steps, minutes, samples_per_second: Of the training.
        parameters, multiply_adds_per_voxel: Of the network.
        seconds: Case to seconds of the pass over its scan.
        scores: Case to region to score.
        machine: Where it ran; figures of different machines cannot be compared.
        versions: Of the libraries.
        seed: Of the training; None in a result from before comparisons had several.
        whole_grid: Whether scores count the whole scan; those from before did the brain's box alone.
        notes: What was done for want of memory, in sentences.
    """

    model: str
    fold: int
    steps: int
    minutes: float
    samples_per_second: float
    parameters: int
    multiply_adds_per_voxel: float
    seconds: Mapping[str, float]
    scores: Mapping[str, Mapping[str, RegionScore]]
    machine: str
    versions: Mapping[str, str] = field(default_factory=find_versions)
    seed: int | None = None
    whole_grid: bool = False
    notes: tuple[str, ...] = ()


_ADAPTER = TypeAdapter(Result)


def write_result(result: Result, path: Path) -> None:
    """Write it whole or not at all.

    Raises:
        OutputError: the folder is not writable, or the disk is full.
    """
    write_text(_ADAPTER.dump_json(result, indent=1).decode() + "\n", path)


def read_result(path: Path) -> Result | None:
    """What `write_result` wrote, None if there is no such file.

    Raises:
        OutputError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise OutputError(
            f"{path} is no whole result of a comparison; delete it, and the training is repeated"
        ) from error


def to_entry(seeds: Sequence[Sequence[Result]], cases: Sequence[str]) -> ModelResults:
    """The results of one model over its folds, seed by seed, as one entry, the cases in the order given."""
    first, *repeats = [
        {case: scores[case] for case in cases if case in scores}
        for of_seed in seeds
        for scores in [{case: scores for result in of_seed for case, scores in result.scores.items()}]
    ]
    results = [result for of_seed in seeds for result in of_seed]
    seconds = [s for result in results for s in result.seconds.values()]
    samples = [result.samples_per_second for result in results]
    return ModelResults(
        first,
        results[0].parameters,
        results[0].multiply_adds_per_voxel,
        float(np.mean(samples)),
        float(np.mean(seconds)),
        float(np.mean([result.steps for result in results])),
        float(np.mean([result.minutes for result in results])),
        repeats,
    )


def describe_result(result: Result, folds: int, seed: int | None = None) -> str:
    """A line in words: the mean Dice of each region over the tested cases; a seed is named if there are several."""
    regions = next(iter(result.scores.values()))
    means = {region: np.mean([scores[region].dice for scores in result.scores.values()]) for region in regions}
    dice = ", ".join(f"{region} {mean:.3f}" for region, mean in means.items())
    place = f"{result.model}{'' if seed is None else f', seed {seed}'}, fold {result.fold} of {folds}"
    return f"{place}: {dice} after {result.steps} steps"


def describe_results(results: Sequence[Result]) -> list[str]:
    """Sentences for the notes of a table: where all ran, and what is peculiar about some."""
    notes = [f"Machine: {'; '.join(sorted({result.machine for result in results}))}."]
    if boxed := sum(not result.whole_grid for result in results):
        notes.append(
            f"{boxed} of {len(results)} trainings were tested by an earlier version, which scored the brain's box "
            "alone: specificity, and what touches lesions outside it, differ from scores of whole scans."
        )
    return [*notes, *(f"{result.model}: {note}" for result in results for note in result.notes)]


def describe_machine(device: str) -> str:
    """Processor, cores and device in words."""
    return f"{describe_cpu()}, {device}"


@dataclass(frozen=True)
class Terms:
    """What all trainings of a comparison share.

    Attributes:
        task, sequences: What is segmented, and from what.
        budget, seed: Of each training.
        spacing_mm: Of the scans (D, H, W), the median over them.
    """

    task: Task
    sequences: tuple[str, ...]
    budget: Budget
    seed: int
    spacing_mm: Millimetres = (1.0, 1.0, 1.0)


def plan_fold_run(contender: Contender, terms: Terms) -> "Plan":
    """What a contender is trained by.

    Raises:
        MissingExtra: a library is absent.
        TaskError: the plan cannot be carried out.
    """
    from brainsegnet.training.plan import Plan, check_plan

    task, recipe, channels = terms.task, contender.recipe, len(terms.sequences)
    patch = recipe.patch or task.patch
    design = design_of(contender, channels, task.classes, patch, terms.spacing_mm)
    plan = Plan(recipe, terms.budget, channels, task.classes, patch, terms.seed, task.region_classes, design)
    check_plan(plan, 1)
    return plan


@dataclass(frozen=True)
class FoldRun:
    """A training and its test.

    Attributes:
        contender: Who trains, by which `plan`.
        fold: Counted from 1.
        tested: Names of the cases that are not trained on.
    """

    contender: Contender
    plan: "Plan"
    fold: int
    tested: tuple[str, ...]


def train_and_test(
    fold_run: FoldRun,
    scans: Mapping[str, "Scan"],
    task: Task,
    fabric: "Fabric",
    state: Path,
    report: Callable[["Record"], None],
) -> Result:
    """Train on all scans but the tested ones, segment those, and score them on their whole grids.

    A network is run over a whole scan in one pass. Where memory is short, ours goes on in slabs with the same result,
    and others, for which slabs would change it, on the CPU; notes say so.

    Args:
        fold_run: Who trains, and who is tested.
        scans: Case name to scan.
        task: In which scores are counted.
        fabric: Where to compute.
        state: File for what a resumed training needs; where it is there, the training goes on from it.
        report: Gets each record.

    Raises:
        Interrupted: a signal arrived; the state is written.
        BrainSegNetError: there is too little memory for a scan.
    """
    from brainsegnet.inference.torch_backend import AnyNetwork
    from brainsegnet.model.design import count_parameters, multiply_adds
    from brainsegnet.training.checkpoint import spent
    from brainsegnet.training.loop import fit
    from brainsegnet.training.plan import Hooks

    plan, design = fold_run.plan, fold_run.plan.network
    known = [scan for name, scan in scans.items() if name not in fold_run.tested]
    hooks = Hooks(report, lambda name, weights: None, state=state)
    net = fit(known, plan, fabric, hooks, resume=state.is_file())
    backend = AnyNetwork(design, net, plan.sequences, plan.classes, halo_of(fold_run.contender))
    fallback = None if backend.device.type == "cpu" else backend.on_cpu
    scores, seconds, notes = {}, {}, list[str]()
    for name in fold_run.tested:
        predictor, started = TiledPredictor(backend, fallback=fallback), time.perf_counter()
        found = _classify(predictor, scans[name].image, name)
        seconds[name] = time.perf_counter() - started
        scores[name] = score_scan(found, scans[name], task, name)
        notes += [f"Case {name}: {note}." for note in predictor.notes]
    steps, minutes = spent(state)
    return Result(
        model=fold_run.contender.name,
        fold=fold_run.fold,
        steps=steps,
        minutes=minutes,
        samples_per_second=steps * plan.recipe.batch / (60 * minutes),
        parameters=count_parameters(design),
        multiply_adds_per_voxel=multiply_adds(design, plan.sequences),
        seconds=seconds,
        scores=scores,
        machine=describe_machine(str(fabric.device)),
        seed=plan.seed,
        whole_grid=all(scans[name].outside is not None for name in fold_run.tested),
        notes=tuple(notes),
    )


def halo_of(contender: Contender) -> int | None:
    """Slices on either side that a slice depends on, as far as we know the network."""
    recipe = contender.recipe
    return find_halo(len(recipe.widths), recipe.stride[0]) if contender.network == OURS else None


def score_scan(found: Labels, scan: "Scan", task: Task, case: str) -> dict[str, RegionScore]:
    """Scores on the whole grid of a scan: nothing is found outside the brain's box, and what is true there is missed.

    Args:
        found: Classes (d, h, w) of the box.
        scan: With the truth; where it does not know what is around the box, the box is all that is scored.
        task: In which scores are counted.
        case: What the case is called in messages.
    """
    truth, around = scan.classes, scan.outside
    if around is not None:
        found, truth = put_back(found, around.box, around.shape), around.complete(truth)
    return score_case(task.decode(found), task.decode(truth), task, scan.spacing_mm, case)


def _classify(predictor: TiledPredictor, image: Floats, case: str) -> Labels:
    try:
        return predictor.classify(image)
    except MemoryError as error:
        raise BrainSegNetError(
            f"case {case}: {predictor.backend.name} has too little memory for {' x '.join(map(str, image.shape[1:]))} "
            "voxels; leave the model out, or go on where there is more, which trains nothing anew"
        ) from error


def median_spacing(scans: Mapping[str, "Scan"]) -> Millimetres:
    """Of scans, along (D, H, W)."""
    d, h, w = np.median([scan.spacing_mm for scan in scans.values()], axis=0).tolist()
    return d, h, w
