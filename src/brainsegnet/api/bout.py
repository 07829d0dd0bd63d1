"""One training of a comparison and its test: all that differs between two of them is the contender and the fold."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainsegnet.api.contenders import Contender, design_of
from brainsegnet.api.results import Result, describe_machine
from brainsegnet.evaluation.metrics import score_case
from brainsegnet.task import Task
from brainsegnet.training.curriculum import Budget

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from brainsegnet.training.patches import Scan
    from brainsegnet.training.plan import Plan, Record

Spacing = tuple[float, float, float]


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
    spacing_mm: Spacing = (1.0, 1.0, 1.0)


def plan_bout(contender: Contender, terms: Terms) -> "Plan":
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
class Bout:
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
    bout: Bout,
    scans: Mapping[str, "Scan"],
    task: Task,
    fabric: "Fabric",
    state: Path,
    report: Callable[["Record"], None],
) -> Result:
    """Train on all scans but the tested ones, segment those, and score them within the brain's box.

    Args:
        bout: Who trains, and who is tested.
        scans: Case name to scan.
        task: In which scores are counted.
        fabric: Where to compute.
        state: File for what a resumed training needs; where it is there, the training goes on from it.
        report: Gets each record.

    Raises:
        Interrupted: a signal arrived; the state is written.
    """
    from brainsegnet.inference.torch_backend import classify_whole
    from brainsegnet.network.design import count_parameters, multiply_adds
    from brainsegnet.training.fit import fit
    from brainsegnet.training.plan import Hooks
    from brainsegnet.training.state import spent

    plan, design = bout.plan, bout.plan.network
    known = [scan for name, scan in scans.items() if name not in bout.tested]
    hooks = Hooks(report, lambda name, weights: None, state=state)
    run = design.runner(fit(known, plan, fabric, hooks, resume=state.is_file()))
    scores, seconds = {}, {}
    for name in bout.tested:
        scan, started = scans[name], time.perf_counter()
        found = classify_whole(run, scan.image, design, fabric.device)
        seconds[name] = time.perf_counter() - started
        scores[name] = score_case(task.decode(found), task.decode(scan.classes), task, scan.spacing_mm, name)
    steps, minutes = spent(state)
    return Result(
        model=bout.contender.name,
        fold=bout.fold,
        steps=steps,
        minutes=minutes,
        samples_per_second=steps * plan.recipe.batch / (60 * minutes),
        parameters=count_parameters(design),
        multiply_adds_per_voxel=multiply_adds(design, plan.sequences),
        seconds=seconds,
        scores=scores,
        machine=describe_machine(str(fabric.device)),
    )


def median_spacing(scans: Mapping[str, "Scan"]) -> Spacing:
    """Of scans, along (D, H, W)."""
    d, h, w = np.median([scan.spacing_mm for scan in scans.values()], axis=0).tolist()
    return d, h, w
