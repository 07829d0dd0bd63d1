"""Recipes: how a model is trained, as values: network width, samples, augmentation, curriculum, loss and length.

The recipe `paper` follows the sections "Learning with Curriculum" and "Implementation Details" of the paper.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from brainsegnet._types import Range
from brainsegnet.errors import TaskError


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Faults(_Value):
    """How often samples have the faults of a raw study, see `faults`. By default none has any.

    Attributes:
        thick: Probability that a study was scanned in thick slices, most of its sequences in other ones.
        step_mm: Range of the distance between slices.
        gap: Range of the gap between slices, as a share of their distance.
        moved: Probability that a sequence is misaligned.
        shift_mm: Largest misalignment.
        angle_deg: Largest rotation of a misaligned sequence in each plane.
        mask: Probability that the brain mask is too tight in some places and too wide in others.
        margin_mm: Largest error of such a mask.
        pole: Probability that the brain mask lacks a part of the brain at its edge.
        pole_mm: Range of the depth of this part.
        missing: Probability that a sequence lacks a slab at one end.
        missing_mm: Range of the depth of this slab.
        outliers: Probability that a sequence has outliers.
    """

    thick: float = Field(default=0.0, ge=0, le=1)
    step_mm: Range = (2.0, 7.0)
    gap: Range = (0.0, 0.3)
    moved: float = Field(default=0.0, ge=0, le=1)
    shift_mm: float = 2.0
    angle_deg: float = 2.0
    mask: float = Field(default=0.0, ge=0, le=1)
    margin_mm: float = Field(default=4.0, ge=1)
    pole: float = Field(default=0.0, ge=0, le=1)
    pole_mm: Range = (3.0, 12.0)
    missing: float = Field(default=0.0, ge=0, le=1)
    missing_mm: Range = (3.0, 30.0)
    outliers: float = Field(default=0.0, ge=0, le=1)

    @property
    def any(self) -> bool:
        """Whether any sample has a fault."""
        return any((self.thick, self.moved, self.mask, self.pole, self.missing, self.outliers))


class Augmentation(_Value):
    """How strongly samples are augmented. The defaults are those of the paper (section "Data Augmentation").

    Attributes:
        slice_gain: Range of a factor on each slice.
        scale: Range of the in-plane magnification of all slices. The paper's "[0:5; 1:2]" is read as 0.5 to 1.2.
        quarter_turns: Whether all slices turn by the same 0, 90, 180 or 270 degrees.
        flips: Probability of mirroring along each of (D, H, W).
        angle_deg: Largest in-plane rotation in degrees, in either direction.
        gain: Range of a factor on the contrast of each sequence.
        shift: Range of an offset to each sequence, in standard deviations.
        gamma: Range of the exponent of a power law on each sequence, rescaled to its range.
        noise: Largest standard deviation of Gaussian noise, in standard deviations of a sequence.
        blur: Probability that a sequence is smoothed in plane.
        faults: How often an augmented sample has the faults of a raw study.
    """

    slice_gain: Range = (0.8, 1.2)
    scale: Range = (0.5, 1.2)
    quarter_turns: bool = True
    flips: tuple[float, float, float] = (0.0, 0.5, 0.5)
    angle_deg: float = 0.0
    gain: Range = (1.0, 1.0)
    shift: Range = (0.0, 0.0)
    gamma: Range = (1.0, 1.0)
    noise: float = 0.0
    blur: float = 0.0
    faults: Faults = Faults()


STRONG = Augmentation(
    slice_gain=(1.0, 1.0),
    scale=(0.75, 1.3),
    quarter_turns=False,
    flips=(0.5, 0.5, 0.5),
    angle_deg=30.0,
    gain=(0.7, 1.4),
    shift=(-0.3, 0.3),
    gamma=(0.7, 1.5),
    noise=0.15,
    blur=0.15,
)


class Stage(_Value):
    """One stage of the curriculum (section "Learning with Curriculum" of the paper).

    Attributes:
        name: Name of the stage, for the log.
        share: Share of the training that it takes. The shares are scaled to a sum of 1.
        augment: Probability that a sample is augmented, 0 to 1.
        gamma: Focusing parameter of the focal loss; 0 is cross entropy.
    """

    name: str
    share: float = Field(gt=0)
    augment: float = Field(ge=0, le=1)
    gamma: float = Field(ge=0)


PAPER_STAGES = (
    Stage(name="original", share=1, augment=0.0, gamma=0.0),
    Stage(name="augmented", share=1, augment=0.5, gamma=0.0),
    Stage(name="focal", share=1, augment=0.75, gamma=2.0),
)


@dataclass(frozen=True)
class Budget:
    """How long to train: exactly one of epochs, steps and minutes.

    Attributes:
        epochs: Passes over the training cases.
        steps: Steps of the optimiser.
        minutes: Minutes of training.

    Raises:
        TaskError: none or several are given, or the value is not a number above zero.

    Examples:
        >>> str(Budget(minutes=2.5))
        '2.5 minutes'
    """

    epochs: float | None = None
    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            raise TaskError(f"a budget is one of epochs, steps and minutes, not {len(given)} of them: {given}")
        ((kind, length),) = given.items()
        if not 0 < length < math.inf:
            raise TaskError(f"a budget is a number above zero, not {length} {kind}")

    def __str__(self) -> str:
        return f"{getattr(self, self.kind):g} {self.kind}"

    @property
    def kind(self) -> Literal["epochs", "steps", "minutes"]:
        """Which of the three is given."""
        return "epochs" if self.epochs is not None else "steps" if self.steps is not None else "minutes"

    def to_json(self) -> dict[str, float]:
        """The length that is given, by its name."""
        return {self.kind: getattr(self, self.kind)}

    def progress(self, steps: int, minutes: float, steps_per_epoch: float) -> float:
        """Share of the budget that is spent, 0 to 1.

        Args:
            steps: Steps so far.
            minutes: Minutes so far.
            steps_per_epoch: Steps of one epoch.
        """
        if self.minutes is not None:
            return min(1.0, minutes / self.minutes)
        total = self.steps if self.steps is not None else math.ceil((self.epochs or 0) * steps_per_epoch)
        return min(1.0, steps / total)


class Recipe(_Value):
    """All values that decide how a model is trained, except data, seed and devices.

    Change a built-in recipe with `model_copy(update={...})`.

    Attributes:
        name: Name of the recipe, for log and card.
        widths: Channels of the four blocks. The paper's are (32, 64, 128, 256).
        refined: Channels of the refinement module. The paper's are 128.
        narrow_below: With fewer training cases than this the network has half the width; see `fit_to`.
        nonlinear: Whether the coarser refine units have batch norm and ReLU.
        stride: Down-sampling along (D, H, W) between blocks.
        patch: Size (D, H, W) of a training sample in voxels. None takes that of the model to start from, else of the
            task.
        sampling: `slabs` cuts each scan into slabs without overlap, as the paper does. `lesion` centres every second
            sample on a voxel of a random lesion class, and the others anywhere in the brain.
        batch: Samples per step, over all devices.
        optimiser: `adam` or `adamw`.
        learning_rate: Highest learning rate. It is reached after `warmup` and kept, or lowered if `decay` is set.
        weight_decay: Weight decay of the optimiser.
        warmup: Share of the training in which the learning rate rises.
        decay: Whether the learning rate falls towards zero along half a cosine.
        dice: Weight of the soft Dice loss, added to the focal loss.
        small_lesion_power: How much more small lesions weigh in the focal loss, 0 to 1; see
            `losses.weigh_small_lesions`.
        averaging: Decay of the moving average of weights that is validated and kept; 0 is no average.
        bf16: Whether devices with units for it (GPUs, CPUs with AMX) compute in bf16 mixed precision.
        drop_sequences: Probability that a sample loses some of its sequences. It keeps at least one.
        transplant: Probability that a sample gets a lesion of another patient of the training, see `transplant`.
            Above 0, the sampling must be `lesion`.
        weight_interpolation: Share of the starting weights in the mean that is validated and kept (Wortsman et al.,
            Robust fine-tuning, CVPR 2022).
        augmentation: How samples are augmented.
        stages: Stages of the curriculum, in order.
        budget_epochs: Length in epochs if the user gives none; None if `budget_minutes` is set.
        budget_minutes: Length in minutes if the user gives none; None if `budget_epochs` is set.

    Examples:
        >>> QUICK.model_copy(update={"name": "mine", "batch": 4}).batch
        4
    """

    name: str
    widths: tuple[int, int, int, int] = (32, 64, 128, 256)
    refined: int = 128
    narrow_below: int = Field(default=0, ge=0)
    nonlinear: bool = True
    stride: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 2, 2)
    patch: tuple[int, int, int] | None = None
    sampling: Literal["slabs", "lesion"] = "slabs"
    batch: int = Field(default=40, gt=0)
    optimiser: Literal["adam", "adamw"] = "adam"
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = 0.0
    warmup: float = Field(default=0.0, ge=0, lt=1)
    decay: bool = False
    dice: float = Field(default=0.0, ge=0)
    small_lesion_power: float = Field(default=0.0, ge=0, le=1)
    averaging: float = Field(default=0.0, ge=0, lt=1)
    bf16: bool = False
    drop_sequences: float = Field(default=0.0, ge=0, le=1)
    transplant: float = Field(default=0.0, ge=0, le=1)
    weight_interpolation: float = Field(default=0.0, ge=0, lt=1)
    augmentation: Augmentation = Augmentation()
    stages: tuple[Stage, ...] = PAPER_STAGES
    budget_epochs: float | None = None
    budget_minutes: float | None = None

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        self.budget()
        return self

    def budget(self) -> Budget:
        """The length of the training that the recipe itself sets."""
        return Budget(epochs=self.budget_epochs, minutes=self.budget_minutes)

    def fit_to(self, cases: int) -> "Recipe":
        """The recipe for a number of training cases. Below `narrow_below`: half the width and twice the learning rate.

        Examples:
            >>> QUICK.fit_to(8).widths, QUICK.fit_to(3).widths, QUICK.fit_to(3).learning_rate
            ((16, 32, 64, 128), (8, 16, 32, 64), 0.004)
        """
        half: dict[str, object] = {
            "widths": tuple(width // 2 for width in self.widths),
            "refined": self.refined // 2,
            "learning_rate": 2 * self.learning_rate,
        }
        return self.model_copy(update={"narrow_below": 0} | (half if cases < self.narrow_below else {}))

    def stage_at(self, progress: float) -> Stage:
        """The stage of the curriculum after a share (0 to 1) of the training.

        Examples:
            >>> PAPER.stage_at(0.4).name, PAPER.stage_at(1.0).name
            ('augmented', 'focal')
        """
        total, passed = sum(stage.share for stage in self.stages), 0.0
        for stage in self.stages:
            passed += stage.share
            if progress < passed / total:
                return stage
        return self.stages[-1]

    def rate_at(self, progress: float) -> float:
        """The learning rate after a share (0 to 1) of the training."""
        if progress < self.warmup:
            return self.learning_rate * max(progress / self.warmup, 0.01)
        if not self.decay:
            return self.learning_rate
        left = (progress - self.warmup) / (1 - self.warmup)
        return self.learning_rate * max(0.5 * (1 + math.cos(math.pi * left)), 1e-3)


PAPER = Recipe(name="paper", budget_epochs=1500, bf16=True)
QUICK = Recipe(
    name="quick",
    widths=(16, 32, 64, 128),
    refined=64,
    narrow_below=6,
    patch=(24, 96, 96),
    sampling="lesion",
    batch=2,
    optimiser="adamw",
    learning_rate=2e-3,
    weight_decay=1e-2,
    warmup=0.05,
    decay=True,
    dice=1.0,
    averaging=0.98,
    bf16=True,
    augmentation=STRONG,
    budget_minutes=15,
)
THOROUGH = QUICK.model_copy(
    update={"name": "thorough", "narrow_below": 0, "averaging": 0.995, "drop_sequences": 0.5, "budget_minutes": 180}
)
SMALL_LESIONS = THOROUGH.model_copy(update={"name": "small-lesions", "small_lesion_power": 0.5})
"""For many small lesions, such as embolic strokes."""
RAW = THOROUGH.model_copy(
    update={
        "name": "raw",
        "augmentation": STRONG.model_copy(
            update={"faults": Faults(thick=0.5, moved=0.25, mask=0.3, pole=0.1, missing=0.05, outliers=0.1)}
        ),
        "stages": PAPER_STAGES[1:],
    }
)
"""For raw studies, whose thick slices, alignment and brain masks are not perfect."""
MODERN = QUICK.model_copy(
    update={
        "name": "modern",
        "widths": PAPER.widths,
        "refined": PAPER.refined,
        "narrow_below": 0,
        "patch": (24, 128, 128),
        "batch": 8,
        "learning_rate": 1e-3,
        "averaging": 0.999,
        "drop_sequences": 0.5,
        "budget_minutes": None,
        "budget_epochs": 300,
    }
)
FINETUNE = THOROUGH.model_copy(
    update={
        "name": "finetune",
        "patch": None,
        "warmup": 0.1,
        "drop_sequences": 0.0,
        "weight_interpolation": 0.5,
        "stages": PAPER_STAGES[-1:],
        "budget_minutes": 10,
    }
)
"""For a trained model, see `finetune.adopt`. It has the last stage only: a network memorises unaugmented scans."""
TRANSPLANT = FINETUNE.model_copy(
    update={
        "name": "transplant",
        "augmentation": RAW.augmentation,
        "drop_sequences": RAW.drop_sequences,
        "transplant": 0.5,
    }
)
"""As `finetune`, with the faults of `raw`, and lesions of real training cases in simulated ones and in each other."""
RECIPES: Mapping[str, Recipe] = {
    one.name: one for one in (PAPER, QUICK, THOROUGH, SMALL_LESIONS, RAW, MODERN, FINETUNE, TRANSPLANT)
}


def load_recipe(name: str) -> Recipe:
    """A built-in recipe by its name.

    Raises:
        TaskError: there is no such recipe.

    Examples:
        >>> load_recipe("paper").budget_epochs
        1500.0
    """
    if name not in RECIPES:
        raise TaskError(f"unknown recipe {name!r}; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
