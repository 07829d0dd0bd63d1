"""Training a network. Here is what a user chooses of it; the command line takes the options as they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from brainsegnet.errors import TaskError
from brainsegnet.inference import Device

RecipeName = Literal["paper", "quick", "thorough", "small-lesions", "modern", "finetune"]
if TYPE_CHECKING:
    from brainsegnet.training.recipes import Budget, Recipe

    RecipeChoice = RecipeName | Recipe
else:
    RecipeChoice = RecipeName  # the command line takes names alone


@dataclass(frozen=True)
class FitOptions:
    """What every training takes, by itself or as one of a benchmark; the defaults suit a CPU.

    Raises:
        TaskError: a number is out of its range, or more than one budget is given.
    """

    recipe: RecipeChoice | None = None
    """paper: as published. quick (the default): a CPU in minutes. thorough: a CPU in hours. small-lesions: the same
    where lesions are many and small. modern: what we found best, for a GPU. finetune (for train --from, and its
    default): gently on from a trained model, keeping half of its weights. In Python, a Recipe too."""
    epochs: float | None = None
    "Budget in epochs; by default the recipe's own. The stages of the curriculum keep their shares of any budget."
    steps: int | None = None
    "Budget in steps."
    minutes: float | None = None
    "Budget in minutes."
    sequences: tuple[str, ...] = ()
    "Sequences to use; by default those of the task that every case has."
    drop_sequences: float | None = None
    "Share of samples that lose sequences, so that one model serves any subset; by default the recipe's own."
    exclude: tuple[str, ...] = ()
    "Cases not to use at all."
    resample: bool = False
    "Bring label maps and sequences on other grids onto the first sequence's, instead of refusing them."
    register: bool = False
    "As --resample, after a rigid registration of sequences on other grids; those on the first one's grid stay."
    seed: int = 0
    "Governs all that is random."
    accelerator: Device = "auto"
    "auto takes a GPU where there is one."
    max_voxels: int | None = None
    "Voxels in a file above which it is refused, by what its header declares; by default 500 million, 2 GB in floats."

    def __post_init__(self) -> None:
        self._require(seed=0, max_voxels=1)
        if self.drop_sequences is not None and not 0 <= self.drop_sequences <= 1:
            raise TaskError(f"the share of samples that lose sequences lies from 0 to 1, not at {self.drop_sequences}")
        if self.accelerator not in get_args(Device):
            raise TaskError(f"unknown accelerator {self.accelerator!r}; choose one of {', '.join(get_args(Device))}")
        _ = self.budget

    def _require(self, **least: int) -> None:
        """Refuse a number below its least value."""
        for name, limit in least.items():
            if (value := getattr(self, name)) is not None and value < limit:
                raise TaskError(f"{name} must be {limit} or more, not {value}")

    @property
    def budget(self) -> "Budget | None":
        """The budget that was asked for; None is the recipe's own."""
        if self.epochs is None and self.steps is None and self.minutes is None:
            return None
        from brainsegnet.training.recipes import Budget

        return Budget(self.epochs, self.steps, self.minutes)

    @property
    def default_recipe(self) -> RecipeName:
        """What is taken where no recipe is named."""
        return "quick"

    @property
    def chosen_recipe(self) -> "Recipe":
        """The recipe with what else was chosen.

        Raises:
            TaskError: no recipe has this name.

        >>> TrainOptions().chosen_recipe.name, TrainOptions(start=Path("tumour")).chosen_recipe.name
        ('quick', 'finetune')
        """
        from brainsegnet.training.recipes import Recipe, load_recipe

        chosen = self.recipe or self.default_recipe
        recipe = chosen if isinstance(chosen, Recipe) else load_recipe(chosen)
        if self.drop_sequences is None:
            return recipe
        return recipe.model_copy(update={"drop_sequences": self.drop_sequences})


@dataclass(frozen=True)
class TrainOptions(FitOptions):
    """How to train a model.

    Raises:
        TaskError: a number is out of its range, more than one budget is given, a case is held out and excluded at once,
            or simulated cases are described but not asked for.
    """

    hold_out: tuple[str, ...] = ()
    "Held-out cases: scored during training instead of trained on."
    validation: int | None = None
    "How many cases to hold out where none are named, drawn by the seed, patient by patient; by default one in eight."
    validations: int = 10
    "How often the held-out cases are scored during training; 0 is never."
    simulated: int | None = None
    "Simulated gliomas or strokes to keep in memory beside DATA, which may then be left out; nothing is written."
    refresh_every: int | None = None
    "Steps after which the oldest of them is replaced by a new one; by default 40."
    anatomy: str | Path | None = None
    """Anatomies to simulate in, as in simulate: a folder of FreeSurfer label maps, icbm152 (from nilearn; the default
    with it), or procedural."""
    shape: tuple[int, int, int] | None = None
    "Voxels of a procedural anatomy along slices, rows and columns, for gliomas; by default 1 mm."
    shapes: Path | None = None
    "For strokes: a folder of lesion masks in MNI space to take shapes from; by default all are simulated."
    devices: int = 1
    "Devices of each machine."
    nodes: int = 1
    "Machines; start one process a device with torchrun or srun."
    resume: bool = False
    "Continue the training in --out."
    start: Path | None = None
    "Trained model to start from: a folder, or the name of a shipped model; its network is kept."
    licence: str = "not stated; the terms of the training data apply"
    "Licence of the weights, for the card."
    sources: str = "not stated"
    "Where the cases come from and under which terms, for the card."

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(devices=1, nodes=1, validation=0, validations=0, simulated=1, refresh_every=1)
        for name in ("refresh_every", "anatomy", "shape", "shapes"):
            if self.simulated is None and (value := getattr(self, name)) is not None:
                raise TaskError(
                    f"{name} {value} is for simulated cases, and none are asked for; say how many with --simulated"
                )
        if both := sorted({*self.hold_out} & {*self.exclude}):
            raise TaskError(f"case {both[0]} is to be held out and excluded at once; name it for one of the two")

    @property
    def default_recipe(self) -> RecipeName:
        """Gentle where a trained model is the start."""
        return "finetune" if self.start else "quick"
