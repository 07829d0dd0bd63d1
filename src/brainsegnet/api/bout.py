"""One training of a comparison and its test: all that differs between two of them is the contender and the fold."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainsegnet.api.contenders import OURS, Contender, design_of
from brainsegnet.api.results import Result, describe_machine
from brainsegnet.errors import BrainSegNetError
from brainsegnet.evaluation.metrics import RegionScore, score_case
from brainsegnet.inference.passes import Classes, Floats, Passes, find_halo
from brainsegnet.preprocessing.brain import put_back
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
    """Train on all scans but the tested ones, segment those, and score them on their whole grids.

    A network is run over a whole scan in one pass. Where memory is short, ours goes on in slabs with the same result,
    and others, for which slabs would change it, on the CPU; notes say so.

    Args:
        bout: Who trains, and who is tested.
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
    from brainsegnet.network.design import count_parameters, multiply_adds
    from brainsegnet.training.fit import fit
    from brainsegnet.training.plan import Hooks
    from brainsegnet.training.state import spent

    plan, design = bout.plan, bout.plan.network
    known = [scan for name, scan in scans.items() if name not in bout.tested]
    hooks = Hooks(report, lambda name, weights: None, state=state)
    net = fit(known, plan, fabric, hooks, resume=state.is_file())
    backend = AnyNetwork(design, net, plan.sequences, plan.classes, halo_of(bout.contender))
    spare = None if backend.device.type == "cpu" else backend.on_cpu
    scores, seconds, notes = {}, {}, list[str]()
    for name in bout.tested:
        passes, started = Passes(backend, spare=spare), time.perf_counter()
        found = _classify(passes, scans[name].image, name)
        seconds[name] = time.perf_counter() - started
        scores[name] = score_scan(found, scans[name], task, name)
        notes += [f"Case {name}: {note}." for note in passes.notes]
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
        seed=plan.seed,
        whole_grid=all(scans[name].surround is not None for name in bout.tested),
        notes=tuple(notes),
    )


def halo_of(contender: Contender) -> int | None:
    """Slices on either side that a slice depends on, as far as we know the network."""
    recipe = contender.recipe
    return find_halo(len(recipe.widths), recipe.stride[0]) if contender.network == OURS else None


def score_scan(found: Classes, scan: "Scan", task: Task, case: str) -> dict[str, RegionScore]:
    """Scores on the whole grid of a scan: nothing is found outside the brain's box, and what is true there is missed.

    Args:
        found: Classes (d, h, w) of the box.
        scan: With the truth; where it does not know what is around the box, the box is all that is scored.
        task: In which scores are counted.
        case: What the case is called in messages.
    """
    truth, around = scan.classes, scan.surround
    if around is not None:
        found, truth = put_back(found, around.box, around.shape), around.complete(truth)
    return score_case(task.decode(found), task.decode(truth), task, scan.spacing_mm, case)


def _classify(passes: Passes, image: Floats, case: str) -> Classes:
    try:
        return passes.classify(image)
    except MemoryError as error:
        raise BrainSegNetError(
            f"case {case}: {passes.backend.name} has too little memory for {' x '.join(map(str, image.shape[1:]))} "
            "voxels; leave the model out, or go on where there is more, which trains nothing anew"
        ) from error


def median_spacing(scans: Mapping[str, "Scan"]) -> Spacing:
    """Of scans, along (D, H, W)."""
    d, h, w = np.median([scan.spacing_mm for scan in scans.values()], axis=0).tolist()
    return d, h, w
