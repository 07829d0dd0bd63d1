"""How to train, and who is told of it: what a user of `train` chooses."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from brainsegnet.errors import TaskError
from brainsegnet.training.recipes import Budget, Recipe, load_recipe

if TYPE_CHECKING:
    from brainsegnet.training.plan import Record

ACCELERATORS = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class TrainOptions:
    """How to train; the defaults suit a CPU.

    Attributes:
        recipe: A recipe, or the name of one of ours; None is "finetune" for a training that starts from a model,
            "quick" for one that starts anew.
        budget: How long; None is the recipe's own.
        sequences: Sequences to use; none means those of the task that every case has.
        drop_sequences: Share of the samples that lose some of their sequences, so that one model serves any subset;
            None is the recipe's own.
        hold_out: Names of cases that are not trained on but scored during training.
        validation: How many cases to hold out where none are named, drawn by the seed, all scans of a patient
            together; None is one in eight.
        validations: How often the cases held out are scored during training; 0 is never.
        exclude: Names of cases that are not used at all.
        seed: Governs all that is random.
        devices, nodes: Devices a machine, and machines; under torchrun or Slurm, what was launched.
        accelerator: "auto", "cpu" or "cuda".
        resume: Continue the training that is in the output folder.
        licence: Licence of the weights, for the card; `sources`: where the cases come from, under which terms.
        start: Model folder, or the name of a shipped model, whose weights are trained on; its network is taken, its
            patch where the recipe names none, and a quarter of the learning rate. None starts anew.
        resample: Bring label maps and sequences on other grids onto the first sequence's, instead of refusing them.
        register: As `resample`, and first lay what is on another grid upon the first sequence by a rigid motion; a
            sequence on its grid stays as it is, even if the head moved.
        simulated: Realistic gliomas, or strokes for the sequences of ISLES, as `grow` makes them, that are kept in
            memory beside the cases; None is none. Nothing of them is written, and no file is needed: `data` may be
            empty.
        refresh_every: Steps after which the oldest of them is replaced by a new one; None is 40.
        anatomy: The heads that they are simulated in: `icbm152`, `procedural`, or a folder of label maps with
            FreeSurfer's values; None is `icbm152` where nilearn is installed, else `procedural`; for strokes, heads of
            their own.
        shape: Voxels (D, H, W) of a procedural head for gliomas; None is 1 mm.
        shapes: Folder of lesion masks in MNI space that strokes take their shapes from; None grows all.

    Raises:
        TaskError: a number is out of its range, a case is held out and excluded at once, or simulated cases are
            described but not asked for.
    """

    recipe: Recipe | str | None = None
    budget: Budget | None = None
    sequences: tuple[str, ...] = ()
    drop_sequences: float | None = None
    hold_out: tuple[str, ...] = ()
    validation: int | None = None
    validations: int = 10
    exclude: tuple[str, ...] = ()
    seed: int = 0
    devices: int = 1
    nodes: int = 1
    accelerator: str = "auto"
    resume: bool = False
    licence: str = "not stated; the terms of the training data apply"
    resample: bool = False
    register: bool = False
    sources: str = "not stated"
    start: Path | None = None
    simulated: int | None = None
    refresh_every: int | None = None
    anatomy: str | Path | None = None
    shape: tuple[int, int, int] | None = None
    shapes: Path | None = None

    def __post_init__(self) -> None:
        least = {
            "devices": 1,
            "nodes": 1,
            "validation": 0,
            "validations": 0,
            "seed": 0,
            "simulated": 1,
            "refresh_every": 1,
        }
        for name, limit in least.items():
            value = getattr(self, name)
            if value is not None and value < limit:
                raise TaskError(f"{name} must be {limit} or more, not {value}")
        if self.drop_sequences is not None and not 0 <= self.drop_sequences <= 1:
            raise TaskError(f"the share of samples that lose sequences lies from 0 to 1, not at {self.drop_sequences}")
        if self.accelerator not in ACCELERATORS:
            raise TaskError(f"unknown accelerator {self.accelerator!r}; choose one of {', '.join(ACCELERATORS)}")
        for name in ("refresh_every", "anatomy", "shape", "shapes"):
            if self.simulated is None and (value := getattr(self, name)) is not None:
                raise TaskError(
                    f"{name} {value} is for simulated cases, and none are asked for; say how many with --simulated"
                )
        if both := sorted({*self.hold_out} & {*self.exclude}):
            raise TaskError(f"case {both[0]} is to be held out and excluded at once; name it for one of the two")

    @property
    def chosen_recipe(self) -> Recipe:
        """The recipe with what else was chosen.

        Raises:
            TaskError: no recipe has this name.

        >>> TrainOptions().chosen_recipe.name, TrainOptions(start=Path("tumour")).chosen_recipe.name
        ('quick', 'tune')
        """
        chosen = self.recipe or ("finetune" if self.start else "quick")
        recipe = chosen if isinstance(chosen, Recipe) else load_recipe(chosen)
        if self.drop_sequences is None:
            return recipe
        return recipe.model_copy(update={"drop_sequences": self.drop_sequences})


@dataclass(frozen=True)
class Watch:
    """Who is told what happens: `say` gets sentences, `step` gets each record of the log."""

    say: Callable[[str], None] = lambda text: None
    step: Callable[["Record"], None] = lambda record: None
