"""Training a network. This file holds the options, which the command line shows without loading a heavy library."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from brainsegnet.errors import TaskError
from brainsegnet.inference import Device

RecipeName = Literal["paper", "quick", "thorough", "small-lesions", "raw", "modern", "finetune", "transplant"]
if TYPE_CHECKING:
    from brainsegnet.training.recipes import Budget, Recipe

    RecipeChoice = RecipeName | Recipe
else:
    RecipeChoice = RecipeName  # the command line takes names alone


@dataclass(frozen=True)
class FitOptions:
    """Options that every training has, by itself or as a part of a benchmark. The defaults suit a CPU.

    Raises:
        TaskError: a number is out of its range, or more than one budget is given.
    """

    recipe: RecipeChoice | None = None
    """How to train. quick (the default): minutes on a CPU. thorough: hours on a CPU. small-lesions: as thorough, for
    many small lesions. raw: as thorough, for studies as they come from the scanner. modern: for a GPU. paper: as
    published. finetune: continues from a trained model at a low learning rate and keeps half of its weights (the
    default with --from). transplant: as finetune, with the faults of raw, and lesions of the cases in one another and
    in simulated ones. Python also accepts a Recipe."""
    epochs: float | None = None
    "Length of the training in epochs; by default that of the recipe. The stages of the curriculum keep their shares."
    steps: int | None = None
    "Length of the training in steps."
    minutes: float | None = None
    "Length of the training in minutes."
    sequences: tuple[str, ...] = ()
    "Sequences to use; by default those of the task that every case has."
    drop_sequences: float | None = None
    """Share of samples that lose some sequences, 0 to 1. The model then accepts any subset. By default that of the
    recipe."""
    exclude: tuple[str, ...] = ()
    "Names of cases to leave out completely."
    resample: bool = False
    "Resample sequences and label maps on other grids to the grid of the first sequence. By default they are refused."
    register: bool = False
    """Register sequences on other grids rigidly to the first sequence, then resample them. So are sequences on its grid
    that have clearly moved."""
    seed: int = 0
    "Seed of everything that is random."
    accelerator: Device = "auto"
    "Where to train; auto uses a GPU if there is one, else the CPU."
    max_voxels: int | None = None
    "Largest number of voxels that the header of a file may declare; by default 500 million, which is 2 GB in floats."

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
        """The length of the training that was asked for; None means that of the recipe."""
        if self.epochs is None and self.steps is None and self.minutes is None:
            return None
        from brainsegnet.training.recipes import Budget

        return Budget(self.epochs, self.steps, self.minutes)

    @property
    def default_recipe(self) -> RecipeName:
        """Name of the recipe that is used if none is named."""
        return "quick"

    @property
    def chosen_recipe(self) -> "Recipe":
        """The recipe, with the share of dropped sequences that was asked for.

        Raises:
            TaskError: no recipe has this name.

        Examples:
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
    """How to train a model: recipe, length, held-out cases, simulated cases, and the model to start from.

    The fields are the options of `brainsegnet train`; `start` is `--from` there.

    Raises:
        TaskError: a number is out of its range, or more than one budget is given. Or a case is both held out and
            excluded, or options for simulated cases are given without `simulated`.

    Examples:
        >>> str(TrainOptions(recipe="thorough", minutes=30).budget)
        '30 minutes'
    """

    hold_out: tuple[str, ...] = ()
    "Names of held-out cases, which are scored during training instead of trained on."
    validation: int | None = None
    """Number of cases to hold out if none are named, drawn at random, all scans of a patient together. By default one
    in eight."""
    validations: int = 10
    "How often the held-out cases are scored during training; 0 means never."
    simulated: int | None = None
    """Number of simulated cases to keep in memory beside DATA, which may then be left out: gliomas, strokes or white
    matter lesions, by the task. Nothing is written."""
    refresh_every: int | None = None
    "Number of steps after which a new simulated case replaces the oldest; by default 40."
    anatomy: str | Path | None = None
    """Anatomies of simulated cases: a folder of FreeSurfer label maps, icbm152 (from nilearn), or procedural. By
    default icbm152 if nilearn is installed, else procedural; procedural for strokes."""
    shape: tuple[int, int, int] | None = None
    """Voxels of a procedural anatomy along slices, rows and columns, except for strokes; by default as many as voxels
    of 1 mm need."""
    shapes: Path | None = None
    """For simulated strokes: a folder of lesion masks in MNI space that give the shapes. By default all shapes are
    simulated."""
    devices: int = 1
    "Number of devices on each machine."
    nodes: int = 1
    "Number of machines; start one process for each device with torchrun or srun."
    resume: bool = False
    "Continue the training in the output folder."
    start: Path | None = None
    "Trained model to start from: a model folder, or the name of a shipped model. Its network is kept."
    licence: str = "not stated; the terms of the training data apply"
    "Licence of the weights, for the model card."
    sources: str = "not stated"
    "Where the cases come from and under which terms, for the model card."

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
        """Name of the recipe that is used if none is named: `finetune` with a model to start from, else `quick`."""
        return "finetune" if self.start else "quick"


@dataclass(frozen=True)
class DryRunOptions:
    """Whether a training is only estimated. The fields are options of `brainsegnet train`.

    Raises:
        TaskError: a rate is given without dry_run, or is not above zero.
    """

    dry_run: bool = False
    """Show what the training would take: steps, samples, memory, and hours from a few measured steps. Nothing is
    written. --devices and --nodes may be those of another machine."""
    samples_per_second: float | None = None
    "With --dry-run: rate of one device, instead of measuring it."

    def __post_init__(self) -> None:
        if self.samples_per_second is None:
            return
        if not self.dry_run:
            raise TaskError("--samples-per-second is the rate of an estimate; add --dry-run")
        if not 0 < self.samples_per_second < float("inf"):
            raise TaskError(f"--samples-per-second must be above 0, not {self.samples_per_second}")
