"""One training of a benchmark and its test: a network is trained without one fold and scored on that fold."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter, ValidationError

from brainsegnet._atomic import write_text
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet._types import Floats, Labels, Millimetres
from brainsegnet.benchmark.leaderboard import ModelResults
from brainsegnet.benchmark.models import BASELINES, OURS, ModelSpec
from brainsegnet.errors import BrainSegNetError, OutputError
from brainsegnet.inference.tiling import TiledPredictor, find_halo
from brainsegnet.metrics.scores import RegionScore, score_case
from brainsegnet.preprocessing.prepare import put_back
from brainsegnet.progress import Callback
from brainsegnet.task import Task
from brainsegnet.training.recipes import Budget

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from brainsegnet.training.loop import Plan
    from brainsegnet.training.sampler import Scan


@dataclass(frozen=True)
class FoldResult:
    """Result of a network that was trained on all folds except one, and tested on that one.

    It is written as a JSON when the training is finished.

    Attributes:
        model: Name of the network.
        fold: Number of the fold, counted from 1.
        seed: Seed of the training.
        steps: Number of steps.
        minutes: Minutes of training.
        samples_per_second: Training samples per second.
        parameters: Number of learnt parameters.
        multiply_adds_per_voxel: Multiply-adds for one voxel of a scan.
        seconds: Case to seconds of the network for its scan.
        scores: Case to region to score on the whole scan.
        machine: Machine that it ran on. Times of different machines cannot be compared.
        notes: What was done for lack of memory, in sentences.
        versions: Versions of the software.
    """

    model: str
    fold: int
    seed: int
    steps: int
    minutes: float
    samples_per_second: float
    parameters: int
    multiply_adds_per_voxel: float
    seconds: Mapping[str, float]
    scores: Mapping[str, Mapping[str, RegionScore]]
    machine: str
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=find_versions)

    def write(self, path: Path) -> None:
        """Write a JSON, completely or not at all. Errors are those of `write_text`."""
        write_text(_ADAPTER.dump_json(self, indent=1).decode() + "\n", path)

    @staticmethod
    def read(path: Path) -> "FoldResult | None":
        """Read what `write` wrote; None if there is no such file.

        Raises:
            OutputError: the file is damaged.
        """
        if not path.is_file():
            return None
        try:
            return _ADAPTER.validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise OutputError(
                f"{path} is no whole result of a benchmark; delete it, and the training is repeated"
            ) from error

    def describe(self, folds: int, with_seed: bool) -> str:
        """The mean Dice of each region over the tested cases, in one line."""
        regions = next(iter(self.scores.values()))
        means = {region: np.mean([scores[region].dice for scores in self.scores.values()]) for region in regions}
        dice = ", ".join(f"{region} {mean:.3f}" for region, mean in means.items())
        seed = f", seed {self.seed}" if with_seed else ""
        return f"{self.model}{seed}, fold {self.fold} of {folds}: {dice} after {self.steps} steps"


_ADAPTER = TypeAdapter(FoldResult)


def summarise(seeds: Sequence[Sequence[FoldResult]], cases: Sequence[str]) -> ModelResults:
    """The results of one model over its folds, for each seed, for the leaderboard; cases in the given order."""
    merged = [{case: scores for result in of_seed for case, scores in result.scores.items()} for of_seed in seeds]
    first, *repeats = [{case: scores[case] for case in cases if case in scores} for scores in merged]
    results = [result for of_seed in seeds for result in of_seed]
    return ModelResults(
        scores=first,
        parameters=results[0].parameters,
        multiply_adds_per_voxel=results[0].multiply_adds_per_voxel,
        samples_per_second=float(np.mean([result.samples_per_second for result in results])),
        seconds_per_scan=float(np.mean([s for result in results for s in result.seconds.values()])),
        steps=float(np.mean([result.steps for result in results])),
        minutes=float(np.mean([result.minutes for result in results])),
        repeats=repeats,
    )


@dataclass(frozen=True)
class Conditions:
    """What all trainings of a benchmark share.

    Attributes:
        task: The task.
        sequences: Sequences in the order of the channels.
        budget: Length of a training.
        spacing_mm: Median spacing (D, H, W) of the scans.
    """

    task: Task
    sequences: tuple[str, ...]
    budget: Budget
    spacing_mm: Millimetres = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class FoldRun:
    """A training and its test.

    Attributes:
        spec: The network, and how it is trained.
        seed: Seed of the training.
        fold: Number of the fold, counted from 1.
        tested: Names of the cases of this fold, which are not trained on.
    """

    spec: ModelSpec
    seed: int
    fold: int
    tested: tuple[str, ...]

    @property
    def key(self) -> tuple[int, int, str]:
        """Seed, fold and name of the network."""
        return self.seed, self.fold, self.spec.name

    def plan(self, conditions: Conditions) -> "Plan":
        """The plan of the training.

        Raises:
            TaskError: the network cannot be trained under these conditions.
        """
        from brainsegnet.model.network import as_drawn
        from brainsegnet.training.loop import Plan

        spec, task, channels = self.spec, conditions.task, len(conditions.sequences)
        patch = spec.recipe.patch or task.patch
        plan = Plan(spec.recipe, conditions.budget, channels, task.classes, patch, self.seed, task.region_classes)
        plan = replace(plan, required=task.find_required(conditions.sequences))
        if spec.network != OURS:
            plan = replace(plan, design=BASELINES[spec.network](channels, task.classes, patch, conditions.spacing_mm))
        elif not spec.fused_decoder:
            plan = replace(plan, design=as_drawn(plan.network))
        plan.check(processes=1)
        return plan


def train_and_test(
    fold_run: FoldRun,
    conditions: Conditions,
    scans: Mapping[str, "Scan"],
    fabric: "Fabric",
    state_file: Path,
    callback: Callback,
) -> FoldResult:
    """Train on all scans but the tested ones, segment those, and score them on their whole grids.

    A network is run over a whole scan in one pass. Where memory is short, Brain SegNet goes on in slabs with the same
    result, and other networks, whose result slabs would change, on the CPU; notes say so.

    Args:
        fold_run: What is trained and tested.
        conditions: What all trainings share.
        scans: Case name to scan.
        fabric: Where to compute.
        state_file: For what a resumed training needs; where it is there, the training goes on from it.
        callback: Hears of the training.

    Raises:
        Interrupted: a signal arrived; the state is written.
        BrainSegNetError: there is too little memory for a scan.
    """
    from brainsegnet.inference.torch_backend import AnyNetwork
    from brainsegnet.model.network import count_parameters, multiply_adds
    from brainsegnet.training.checkpoint import steps_and_minutes
    from brainsegnet.training.loop import Monitoring, fit

    plan = fold_run.plan(conditions)
    trained = [scan for name, scan in scans.items() if name not in fold_run.tested]
    monitoring = Monitoring((callback,), state_file=state_file)
    net = fit(trained, plan, fabric, monitoring, resume=state_file.is_file())
    backend = AnyNetwork(plan.network, net, plan.sequences, plan.classes, halo_of(fold_run.spec))
    fallback = None if backend.device.type == "cpu" else backend.on_cpu
    scores, seconds, notes = {}, {}, list[str]()
    for name in fold_run.tested:
        predictor, started = TiledPredictor(backend, fallback=fallback), time.perf_counter()
        found = _classify(predictor, scans[name].image, name)
        seconds[name] = time.perf_counter() - started
        scores[name] = score_scan(found, scans[name], conditions.task, name)
        notes += [f"Case {name}: {note}." for note in predictor.notes]
    steps, minutes = steps_and_minutes(state_file)
    return FoldResult(
        model=fold_run.spec.name,
        fold=fold_run.fold,
        seed=plan.seed,
        steps=steps,
        minutes=minutes,
        samples_per_second=steps * plan.recipe.batch / (60 * minutes),
        parameters=count_parameters(plan.network),
        multiply_adds_per_voxel=multiply_adds(plan.network, plan.sequences),
        seconds=seconds,
        scores=scores,
        machine=f"{describe_cpu()}, {fabric.device}",
        notes=tuple(notes),
    )


def halo_of(spec: ModelSpec) -> int | None:
    """Number of slices on either side on which a slice depends; None if it is not known for the network."""
    return find_halo(len(spec.recipe.widths), spec.recipe.stride[0]) if spec.network == OURS else None


def score_scan(found: Labels, scan: "Scan", task: Task, case: str) -> dict[str, RegionScore]:
    """Scores of the labels (d, h, w) of a brain box on the whole grid of its scan, where a lesion outside is missed.

    Where what is around the box is unknown, only the box is scored.
    """
    truth, outside = scan.classes, scan.outside
    if outside is not None:
        found, truth = put_back(found, outside.box, outside.shape), outside.complete(truth)
    return score_case(task.decode(found), task.decode(truth), task, scan.spacing_mm, case)


def _classify(predictor: TiledPredictor, image: Floats, case: str) -> Labels:
    try:
        return predictor.classify(image)
    except MemoryError as error:
        raise BrainSegNetError(
            f"case {case}: {predictor.backend.name} has too little memory for {' x '.join(map(str, image.shape[1:]))} "
            "voxels; leave the model out, or go on where there is more, which repeats no training"
        ) from error
