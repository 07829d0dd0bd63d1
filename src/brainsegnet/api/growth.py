"""Gliomas or strokes that are grown into the memory of a training, and never lie on a disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainsegnet.api.anatomies import ONE_MILLIMETRE, default_anatomy, load_realistic, open_anatomies
from brainsegnet.api.stroke_phantoms import open_library
from brainsegnet.errors import LabelError, TaskError
from brainsegnet.inference.origin import Grown
from brainsegnet.synthesis.stroke_phantom import StrokeTask, grow_stroke_case
from brainsegnet.task import BRATS2015, ISLES2017, ISLES2022, Task
from brainsegnet.volume import Case, LabelMap

if TYPE_CHECKING:
    import torch

    from brainsegnet.api.options import TrainOptions
    from brainsegnet.training.pool import Pool

RENEW_STEPS = 40
"""Steps after which a grown case is replaced, where nothing else is said."""
SEED_STEP = 10**9
"""Seeds of grown cases from one training seed to the next, the first of which is that of seed 0.

So no training grows what another one does, nor, unless somebody asks for such a number, what `grow` wrote for testing.
"""


@dataclass(frozen=True)
class Kind:
    """What can be grown.

    Attributes:
        stroke: Which strokes, as in `grow --stroke`; None is gliomas.
        convention: Sequences and labels of a case.
        depth: Slices that a case counts in an epoch, where its shape is not chosen.
    """

    stroke: StrokeTask | None
    convention: Task
    depth: int

    @property
    def name(self) -> str:
        """Of many such cases."""
        return "strokes" if self.stroke else "gliomas"


KINDS = (Kind(None, BRATS2015, ONE_MILLIMETRE[0]), Kind("isles2022", ISLES2022, 73), Kind("isles2017", ISLES2017, 22))


def plan_growth(options: "TrainOptions", task: Task, sequences: Sequence[str]) -> Grown | None:
    """What is grown beside the cases of a training; None where nothing is.

    Raises:
        TaskError: no such sequences can be grown, the tissues that are grown are unknown to the task, or the options
            are for another kind of case.
    """
    if options.grown is None:
        return None
    kind = _choose_kind(task, sequences)
    try:
        task.translate(np.array(kind.convention.label_values, np.uint8), kind.convention)
    except LabelError as error:
        known, made = (", ".join(convention.labels.values()) for convention in (task, kind.convention))
        raise TaskError(
            f"task {task.name} knows {known}, and grown {kind.name} consist of {made}; leave out --grown, or choose a "
            f"task of {kind.name}"
        ) from error
    if (stray := options.shape if kind.stroke else options.shapes) is not None:
        raise TaskError(
            f"{stray} is for grown {'gliomas (--shape)' if kind.stroke else 'strokes (--shapes)'}, and task "
            f"{task.name} gets {kind.name}; leave it out"
        )
    which = str(options.anatomy or ("" if kind.stroke else default_anatomy()))
    return Grown(
        generator=kind.stroke or "realistic",
        anatomy=which and Path(which).resolve().name,
        shapes=options.shapes.resolve().name if options.shapes else "",
        shape=options.shape,
        seed=SEED_STEP * (1 + options.seed),
        slots=options.grown,
        every=options.renew_steps or RENEW_STEPS,
    )


def _choose_kind(task: Task, sequences: Sequence[str]) -> Kind:
    """What has all these sequences; if there is a choice, what has just those of the task.

    Raises:
        TaskError: nothing has.
    """
    fitting = [kind for kind in KINDS if {*sequences} <= {*kind.convention.sequences}]
    if fitting:
        return next((kind for kind in fitting if kind.convention.sequences == task.sequences), fitting[0])
    made = "; ".join(f"{kind.name} with {', '.join(kind.convention.sequences)}" for kind in KINDS)
    common = any({*sequences} & {*kind.convention.sequences} for kind in KINDS)
    remedy = "name those of one of them with --sequences" if common else "leave out --grown"
    raise TaskError(f"task {task.name} is trained on {', '.join(sequences)}; what can be grown is {made}; {remedy}")


def describe_growth(grown: Grown) -> str:
    """What is said of it at the start.

    >>> describe_growth(Grown(anatomy="icbm152", seed=1000000000, slots=8, every=40))
    '8 grown gliomas in memory, one new every 40 steps; anatomy icbm152, seeds from 1000000000'
    """
    steps = "step" if grown.every == 1 else f"{grown.every} steps"
    cases = f"1 grown {grown.kind[:-1]}" if grown.slots == 1 else f"{grown.slots} grown {grown.kind}"
    return f"{cases} in memory, one new every {steps}; {grown.origin}"


def open_pool(
    grown: Grown, options: "TrainOptions", task: Task, sequences: Sequence[str], device: "torch.device"
) -> "Pool":
    """The grown cases of a training, gliomas rendered on its device; on a GPU while the training goes on.

    Raises:
        DatasetError, MissingExtra, ImageError: as `open_anatomies` and `open_shapes`.
    """
    from brainsegnet.training.patches import Scan
    from brainsegnet.training.pool import Pool, beside

    kind = next(kind for kind in KINDS if (kind.stroke or "realistic") == grown.generator)
    grow = _strokes(kind.stroke, options) if kind.stroke else _gliomas(options, device)
    ahead = device.type == "cuda"

    def make(number: int) -> Scan:
        case = grow(grown.seed + number)
        if case.lesion is None:
            raise ValueError(f"{case.name} was grown without a lesion")
        labels = LabelMap(task.bring(case.lesion.array, kind.convention, case.name), case.lesion.affine)
        return Scan.of(Case(case.name, {name: case.images[name] for name in sequences}, labels), task)

    return Pool(
        grown.slots,
        grown.every,
        beside(make, device) if ahead else make,
        depth=grown.shape[0] if grown.shape else kind.depth,
        origin=grown.model_dump_json(include={"generator", "anatomy", "shapes", "shape", "seed"}),
        ahead=ahead,
    )


def _gliomas(options: "TrainOptions", device: "torch.device") -> Callable[[int], Case]:
    """What makes the case of a seed as `grow --realistic` does."""
    heads = open_anatomies(options.anatomy or default_anatomy(), options.shape)
    grow_realistic = load_realistic().grow_realistic
    return lambda seed: grow_realistic(seed, heads(seed), f"glioma{seed:04d}", str(device))


def _strokes(stroke: StrokeTask, options: "TrainOptions") -> Callable[[int], Case]:
    """What makes the case of a seed as `grow --stroke` does."""
    library = open_library(options.shapes, None if options.anatomy is None else str(options.anatomy))
    return lambda seed: grow_stroke_case(seed, stroke, library)
