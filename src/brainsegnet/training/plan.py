"""What is to be trained, what is logged of it, and what the loop calls."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from brainsegnet.errors import TaskError
from brainsegnet.model.design import Design, brain_segnet
from brainsegnet.training.recipes import Budget, Recipe

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """What is to be trained: a network of `sequences` channels and `classes` classes, how, and for how long.

    Attributes:
        recipe, budget, seed: See `Recipe` and `Budget`.
        sequences, classes: Channels in and out.
        patch: Training sample (D, H, W).
        regions: The classes that each scored region unites, for the Dice loss; none is each class by itself.
        design: Another network than ours; None is Brain SegNet with the widths and the stride of the recipe.
        start: Weights to start from, of that network; None is random ones, drawn by the seed.
        origin: SHA-256 of the file that `start` comes from; a training is resumed with the same one only.
    """

    recipe: Recipe
    budget: Budget
    sequences: int
    classes: int
    patch: tuple[int, int, int]
    seed: int = 0
    regions: tuple[tuple[int, ...], ...] = ()
    design: Design | None = None
    start: Weights | None = None
    origin: str = ""

    @property
    def network(self) -> Design:
        """What is built."""
        recipe = self.recipe
        return self.design or brain_segnet(
            self.sequences, self.classes, recipe.widths, recipe.refined, recipe.stride, recipe.nonlinear
        )


@dataclass(frozen=True)
class Record:
    """One line of the log.

    Attributes:
        step, epoch: Done so far; the epoch in fractions.
        stage: Name of the curriculum's stage.
        progress: Share of the budget that is spent.
        loss: Mean since the last line.
        rate: Learning rate.
        minutes: Since the start, over all resumed parts.
        samples_per_second: Over all devices.
        waiting: Share of the time in which the device waited for samples.
        dice: Whole-scan Dice by region on the validation cases, where they were scored at this step.
    """

    step: int
    epoch: float
    stage: str
    progress: float
    loss: float
    rate: float
    minutes: float
    samples_per_second: float
    data_wait: float
    dice: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Hooks:
    """What the loop calls, on the first process only.

    Attributes:
        report: Gets each record.
        keep: Gets "best" or "last", and the weights.
        validate: Whole-scan Dice by region of a network in evaluation mode, or None.
        state: File for everything that a resumed training needs, or None.
        validations: How often to validate over the whole budget.
        state_minutes: How often to write the state.
    """

    report: Callable[[Record], None]
    keep: Callable[[str, Weights], None]
    validate: Callable[[Any], Mapping[str, float]] | None = None
    state: Path | None = None
    validations: int = 10
    state_minutes: float = 3.0


def check_plan(plan: Plan, processes: int) -> None:
    """Refuse what would fail in the middle of a training.

    Raises:
        TaskError: the plan cannot be carried out, on so many devices or at all.
    """
    recipe, (_, height, width) = plan.recipe, plan.patch
    if recipe.weight_interpolation and plan.start is None:
        raise TaskError(
            f"recipe {recipe.name} keeps a share of the weights that a training starts from, and this one starts anew; "
            "name a model with --from, or another recipe"
        )
    if recipe.batch % processes:
        raise TaskError(
            f"recipe {recipe.name}: a batch of {recipe.batch} cannot be shared evenly by {processes} devices; "
            f"use a number of devices that divides {recipe.batch}"
        )
    if recipe.augmentation.quarter_turns and height != width:
        raise TaskError(
            f"recipe {recipe.name}: quarter turns need square patches, this one is {height} x {width}; "
            "choose a square patch or a recipe without quarter turns"
        )
    if not 0 <= plan.seed < 2**63:
        raise TaskError(f"a seed lies between 0 and 2^63 - 1, not {plan.seed}")
