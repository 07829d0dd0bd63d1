"""Gliomas that are grown into the memory of a training, and never lie on a disk."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainsegnet.api.anatomies import ONE_MILLIMETRE, default_anatomy, load_realistic, open_anatomies
from brainsegnet.errors import LabelError, TaskError
from brainsegnet.inference.card import Grown
from brainsegnet.task import BRATS2015, Task
from brainsegnet.volume import Case, LabelMap

if TYPE_CHECKING:
    import torch

    from brainsegnet.api.options import TrainOptions
    from brainsegnet.synthesis.heads import Anatomy
    from brainsegnet.training.pool import Pool

RENEW_STEPS = 40
"""Steps after which a grown case is replaced, where nothing else is said."""
SEED_STEP = 10**9
"""Seeds of grown cases from one training seed to the next, the first of which is that of seed 0.

So no training grows what another one does, nor, unless somebody asks for such a number, what `grow` wrote for testing.
"""


def plan_growth(options: "TrainOptions", task: Task, sequences: Sequence[str]) -> Grown | None:
    """What is grown beside the cases of a training; None where nothing is.

    Raises:
        TaskError: the generator makes no such sequences, or the tissues it makes are unknown to the task.
    """
    if options.grown is None:
        return None
    if lacking := [name for name in sequences if name not in BRATS2015.sequences]:
        made = ", ".join(BRATS2015.sequences)
        common = {*BRATS2015.sequences} & {*sequences}
        remedy = "name some of these with --sequences" if common else "leave out --grown, or choose a task of gliomas"
        raise TaskError(
            f"task {task.name} is trained on {', '.join(sequences)}, and grown gliomas have {made}, no "
            f"{' or '.join(lacking)}; {remedy}"
        )
    try:
        task.translate(np.array(BRATS2015.label_values, np.uint8), BRATS2015)
    except LabelError as error:
        known = ", ".join(task.labels.values())
        raise TaskError(
            f"task {task.name} knows {known}, and grown gliomas consist of {', '.join(BRATS2015.labels.values())}; "
            "leave out --grown, or choose a task of gliomas"
        ) from error
    which = str(options.anatomy or default_anatomy())
    return Grown(
        anatomy=Path(which).resolve().name,
        shape=options.shape,
        seed=SEED_STEP * (1 + options.seed),
        slots=options.grown,
        every=options.renew_steps or RENEW_STEPS,
    )


def describe_growth(grown: Grown) -> str:
    """What is said of it at the start.

    >>> describe_growth(Grown(anatomy="icbm152", seed=1000000000, slots=8, every=40))
    '8 grown gliomas in memory, one new every 40 steps; anatomy icbm152, seeds from 1000000000'
    """
    steps = "step" if grown.every == 1 else f"{grown.every} steps"
    cases = "1 grown glioma" if grown.slots == 1 else f"{grown.slots} grown gliomas"
    return f"{cases} in memory, one new every {steps}; anatomy {grown.anatomy}, seeds from {grown.seed}"


def open_pool(
    grown: Grown, anatomy: str | Path | None, task: Task, sequences: Sequence[str], device: "torch.device"
) -> "Pool":
    """The grown cases of a training, rendered on its device, on a GPU while the training goes on.

    Raises:
        DatasetError, MissingExtra, ImageError: as `open_anatomies`.
    """
    from brainsegnet.training.patches import Scan
    from brainsegnet.training.pool import Pool, beside

    heads = open_anatomies(anatomy or default_anatomy(), grown.shape or ONE_MILLIMETRE)
    grow, ahead = growing(heads, task, sequences, device), device.type == "cuda"

    def make(number: int) -> Scan:
        return Scan.of(grow(grown.seed + number), task)

    return Pool(
        grown.slots,
        grown.every,
        beside(make, device) if ahead else make,
        depth=(grown.shape or ONE_MILLIMETRE)[0],
        origin=grown.model_dump_json(include={"generator", "anatomy", "shape", "seed"}),
        ahead=ahead,
    )


def growing(
    heads: Callable[[int], "Anatomy"], task: Task, sequences: Sequence[str], device: "torch.device"
) -> Callable[[int], Case]:
    """What makes the case of a seed as `grow` does, with some of its sequences and the labels of a task."""
    grow_realistic = load_realistic().grow_realistic

    def grow(seed: int) -> Case:
        case = grow_realistic(seed, heads(seed), f"glioma{seed:04d}", str(device))
        labels = task.bring(case.lesion.array, BRATS2015, case.name)
        images = {name: case.images[name] for name in sequences}
        return Case(case.name, images, LabelMap(labels, case.lesion.affine))

    return grow
