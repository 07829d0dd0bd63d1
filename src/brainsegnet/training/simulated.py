"""Cases that are simulated in memory during a training, and never written to disk."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from brainsegnet.anatomy.label_maps import default_anatomy
from brainsegnet.anatomy.procedural import FIELD_MM
from brainsegnet.errors import LabelError, TaskError
from brainsegnet.model.card import Simulated
from brainsegnet.simulation import StrokeTask
from brainsegnet.simulation.simulate import SimulateOptions, open_simulator
from brainsegnet.task import BRATS2015, ISLES2017, ISLES2022, WHITE_MATTER_LESIONS, Task
from brainsegnet.training import TrainOptions
from brainsegnet.volume import Case, LabelMap

if TYPE_CHECKING:
    import torch

    from brainsegnet.training.sampler import Scan

Generator = Literal["realistic", "isles2022", "isles2017", "white-matter"]
Put = Callable[[int, "Scan"], None]
"""Takes a place in the buffer and the scan that is in it from now on."""
REFRESH_EVERY = 40
"""Steps after which a simulated case is replaced, by default."""
SEED_STEP = 10**9
"""Seeds of simulated cases from one training seed to the next, so that no case is simulated twice, nor by `simulate`
under a usual seed."""


@dataclass(eq=False)
class SimulationBuffer:
    """A number of simulated scans in memory. The oldest is replaced after a fixed number of steps.

    The step alone decides which scans it holds. So no state file has to hold it, and all processes hold the same.

    Attributes:
        size: Number of scans at a time; 0 is an empty buffer.
        refresh_every: Number of steps after which the oldest is replaced.
        make: Simulates the scan with a number from 0, always the same scan for a number.
        depth: Number of slices that each scan counts in an epoch.
        origin: Identifies what simulates the scans. A training is resumed only with the same origin.
        ahead: Simulate the next scan in a thread during the training, instead of when it is needed.
        seen: Number of scans that the training has held so far, including those before it was resumed.

    Examples:
        >>> buffer = SimulationBuffer(3, 40, make=lambda number: ...)
        >>> buffer.numbers_at(39), buffer.numbers_at(40), buffer.numbers_at(200), buffer.count_at(200)
        ([0, 1, 2], [3, 1, 2], [6, 7, 5], 8)
    """

    size: int
    refresh_every: int
    make: Callable[[int], "Scan"]
    depth: int = 1
    origin: str = ""
    ahead: bool = False
    seen: int = 0
    _held: list[int | None] = field(default_factory=list)
    _thread: ThreadPoolExecutor | None = None
    _next: "tuple[int, Future[Scan]] | None" = None

    def count_at(self, step: int) -> int:
        """Number of scans that have been held up to a step, which is counted from 0."""
        return self.size + max(step, 0) // self.refresh_every if self.size else 0

    def numbers_at(self, step: int) -> list[int]:
        """The number of the scan in each place at a step."""
        newest = self.count_at(step) - 1
        return [newest - (newest - place) % self.size for place in range(self.size)]

    @property
    def fingerprint(self) -> str:
        """Text that must agree for a training to be resumed."""
        made = f" {self.size} made by {self.origin}, {self.depth} deep, a new one every {self.refresh_every} steps"
        return made if self.size else ""

    def fill(self, step: int, put: Put) -> None:
        """Simulate all scans of a step, independent of what was held before."""
        self.close()
        self._held = [None] * self.size
        self._thread = ThreadPoolExecutor(1) if self.ahead and self.size else None
        self.update(step, put)

    def update(self, step: int, put: Put) -> None:
        """Hold the scans of a step, and start simulating the next one if scans are simulated ahead."""
        for place, number in enumerate(self.numbers_at(step)):
            if self._held[place] != number:
                put(place, self._obtain(number))
                self._held[place] = number
        self.seen = self.count_at(step)
        if self._thread and (self._next is None or self._next[0] != self.seen):
            self._next = self.seen, self._thread.submit(self.make, self.seen)

    def close(self) -> None:
        """End the thread after the scan that it is simulating."""
        if self._thread:
            self._thread.shutdown(cancel_futures=True)
        self._thread = self._next = None

    def _obtain(self, number: int) -> "Scan":
        """A scan that the thread has begun, or that is simulated now, in the thread if there is one."""
        if self._next and self._next[0] == number:
            return self._next[1].result()
        return self._thread.submit(self.make, number).result() if self._thread else self.make(number)


@dataclass(frozen=True)
class Kind:
    """A kind of case that can be simulated, its sequences and labels, and the slices that it counts in an epoch."""

    name: str
    convention: Task
    depth: int

    def suits(self, task: Task) -> bool:
        """Whether a task knows the simulated tissues."""
        try:
            task.translate(np.array(self.convention.label_values, np.uint8), self.convention)
        except LabelError:
            return False
        return True


KINDS: Mapping[Generator, Kind] = {
    "realistic": Kind("gliomas", BRATS2015, FIELD_MM[0]),
    "isles2022": Kind("strokes", ISLES2022, 73),
    "isles2017": Kind("strokes", ISLES2017, 22),
    "white-matter": Kind("white matter lesions", WHITE_MATTER_LESIONS, FIELD_MM[0]),
}


def plan_simulation(options: TrainOptions, task: Task, sequences: Sequence[str]) -> Simulated | None:
    """What is simulated in addition to the cases of a training; None if nothing is.

    Raises:
        TaskError: no such sequences can be simulated, the task does not know the simulated tissues, or an option is for
            another kind of case.
    """
    if options.simulated is None:
        return None
    generator = _choose_generator(task, sequences)
    kind, stroke = KINDS[generator], generator in get_args(StrokeTask)
    if not kind.suits(task):
        known, simulated = (", ".join(convention.labels.values()) for convention in (task, kind.convention))
        raise TaskError(
            f"task {task.name} knows {known}, and simulated {kind.name} consist of {simulated}; leave out --simulated, "
            f"or choose a task of {kind.name}"
        )
    if (stray := options.shape if stroke else options.shapes) is not None:
        raise TaskError(
            f"{stray} is for simulated {'gliomas (--shape)' if stroke else 'strokes (--shapes)'}, and task "
            f"{task.name} gets {kind.name}; leave it out"
        )
    anatomy = str(options.anatomy or ("" if stroke else default_anatomy()))
    return Simulated(
        generator=generator,
        anatomy=anatomy and Path(anatomy).resolve().name,
        shapes=options.shapes.resolve().name if options.shapes else "",
        shape=options.shape,
        seed=SEED_STEP * (1 + options.seed),
        size=options.simulated,
        refresh_every=options.refresh_every or REFRESH_EVERY,
    )


def _choose_generator(task: Task, sequences: Sequence[str]) -> Generator:
    """What simulates cases with all these sequences; if several do, one that suits the task and has its sequences."""
    offered = {name: kind.convention.sequences for name, kind in KINDS.items()}
    fitting = [name for name, them in offered.items() if {*sequences} <= {*them}]
    fitting = [name for name in fitting if KINDS[name].suits(task)] or fitting
    if fitting:
        return next((name for name in fitting if offered[name] == task.sequences), fitting[0])
    kinds = "; ".join(f"{kind.name} with {', '.join(offered[name])}" for name, kind in KINDS.items())
    common = any({*sequences} & {*them} for them in offered.values())
    remedy = "name those of one of them with --sequences" if common else "leave out --simulated"
    raise TaskError(
        f"task {task.name} is trained on {', '.join(sequences)}; what can be simulated is {kinds}; {remedy}"
    )


def describe_simulation(simulated: Simulated) -> str:
    """What is simulated, in one sentence.

    Examples:
        >>> describe_simulation(Simulated(anatomy="icbm152", seed=1000000000, size=8, refresh_every=40))
        '8 simulated gliomas in memory, one new every 40 steps; anatomy icbm152, seeds from 1000000000'
    """
    steps = "step" if simulated.refresh_every == 1 else f"{simulated.refresh_every} steps"
    kind = simulated.kind[:-1] if simulated.size == 1 else simulated.kind
    return f"{simulated.size} simulated {kind} in memory, one new every {steps}; {simulated.origin}"


def open_buffer(
    simulated: Simulated, options: TrainOptions, task: Task, sequences: Sequence[str], device: "torch.device"
) -> SimulationBuffer:
    """The buffer of simulated cases of a training. Gliomas are rendered on its device.

    On a GPU they are simulated ahead, on a stream that does not wait for the work of the training.

    Raises:
        DatasetError: as `open_simulator`.
        MissingExtra: as `open_simulator`.
        ImageError: as `open_simulator`.
    """
    import torch

    from brainsegnet.training.sampler import Scan

    kind, ahead, generator = KINDS[simulated.generator], device.type == "cuda", simulated.generator
    stroke = generator if generator == "isles2022" or generator == "isles2017" else None
    chosen = SimulateOptions(
        realistic=stroke is None,
        lesion="white-matter" if generator == "white-matter" else "glioma",
        stroke=stroke,
        anatomy=options.anatomy,
        shape=options.shape,
        shapes=options.shapes,
    )
    simulate = open_simulator(chosen, str(device))
    stream = torch.cuda.Stream(device) if ahead else None  # type: ignore[no-untyped-call]

    def make(number: int) -> Scan:
        with torch.cuda.stream(stream):
            case = simulate(simulated.seed + number)
            if case.lesion is None:
                raise ValueError(f"{case.name} was simulated without a lesion")
            labels = LabelMap(task.bring(case.lesion.array, kind.convention, case.name), case.lesion.affine)
            return Scan.of(Case(case.name, {name: case.images[name] for name in sequences}, labels), task)

    return SimulationBuffer(
        simulated.size,
        simulated.refresh_every,
        make,
        depth=simulated.shape[0] if simulated.shape else kind.depth,
        origin=simulated.model_dump_json(include={"generator", "anatomy", "shapes", "shape", "seed"}),
        ahead=ahead,
    )
