"""What is compared, and who is told how far it is: what a user of `compare` chooses."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from brainsegnet.api.contenders import MODELS, Contender, ablation, choose_models
from brainsegnet.api.options import TrainOptions
from brainsegnet.errors import TaskError

if TYPE_CHECKING:
    from brainsegnet.training.plan import Record


@dataclass(frozen=True)
class CompareOptions:
    """What is compared, and how.

    Attributes:
        models: Networks by name, all of `MODELS` if none is named; the others are tested against the first.
        ablation: Compare ours with itself, without one part at a time, instead of with other networks.
        folds: So many trainings of each, each tested on the cases that it did not see.
        training: Recipe, budget, sequences, excluded cases, what becomes of other grids, seed and accelerator of every
            training.
        seeds: So many trainings of each model and fold, under the seed of `training` and the numbers after it; the
            folds are dealt by the first.

    Raises:
        TaskError: there is not one seed.
    """

    models: tuple[str, ...] = ()
    ablation: bool = False
    folds: int = 5
    training: TrainOptions = field(default_factory=TrainOptions)
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise TaskError(f"seeds must be 1 or more, not {self.seeds}")

    def contenders(self, cases: int) -> tuple[Contender, ...]:
        """Who takes part, by a recipe for so many training cases.

        Raises:
            TaskError: a model is unknown, or named twice, or named beside an ablation.
        """
        recipe = self.training.chosen_recipe.fit_to(cases)
        if self.ablation and self.models:
            raise TaskError("an ablation compares brainsegnet with itself; name no models, or leave --ablation out")
        return ablation(recipe) if self.ablation else choose_models(self.models or MODELS, recipe)


@dataclass(frozen=True)
class Moment:
    """Where a comparison is.

    Attributes:
        model: Who trains.
        fold, folds: In which fold, counted from 1, of how many.
        progress: Share of the whole comparison that is done.
        minutes_left: Of the whole comparison, as fast as it went since it was started; None if that is not known yet.
        record: Of the training.
        seed: Of the training, None where all have the same.
    """

    model: str
    fold: int
    folds: int
    progress: float
    minutes_left: float | None
    record: "Record"
    seed: int | None = None


@dataclass(frozen=True)
class CompareWatch:
    """Who is told what happens: `say` gets sentences, `step` gets moments of the trainings."""

    say: Callable[[str], None] = lambda text: None
    step: Callable[[Moment], None] = lambda moment: None


class Clock:
    """How far a comparison is, and how long it will take if it goes on as fast."""

    def __init__(self, finished: int, total: int) -> None:
        self.finished, self.total, self.first, self.started = finished, total, finished, time.monotonic()

    def read(self, progress: float) -> tuple[float, float | None]:
        """Share that is done, and minutes left, when the training in hand has come so far."""
        done = self.finished + progress
        minutes = (time.monotonic() - self.started) / 60
        won = done - self.first
        return done / self.total, minutes * (self.total - done) / won if won else None
