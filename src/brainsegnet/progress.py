"""How long work reports on itself: sentences, and events that say how far it is. One callback serves every verb."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ProgressEvent:
    """How far a training or a benchmark is; what does not apply is None.

    Attributes:
        progress: Share of the whole work that is done, 0 to 1; `training` is that of one training in a benchmark.
        minutes, minutes_left: Since the start, over all resumed parts; left at the speed so far.
        step, epoch, stage: Of the training; the epoch in fractions.
        loss: Mean since the last event.
        samples_per_second: Over all devices; `data_wait` is the share of the time spent waiting for samples.
        dice: Whole-scan Dice by region on the held-out cases, where they were scored at this step.
        model, fold, folds, seed: Place in a benchmark; folds are counted from 1.
    """

    progress: float
    minutes: float | None = None
    minutes_left: float | None = None
    step: int | None = None
    epoch: float | None = None
    stage: str | None = None
    loss: float | None = None
    learning_rate: float | None = None
    samples_per_second: float | None = None
    data_wait: float | None = None
    dice: Mapping[str, float] | None = None
    model: str | None = None
    fold: int | None = None
    folds: int | None = None
    seed: int | None = None
    training: float | None = None


class Callback:
    """Hears of what happens. Derive a class from it and override what is of interest; by default nothing is done."""

    def on_message(self, text: str) -> None:
        """A sentence for the user."""

    def on_progress(self, event: ProgressEvent) -> None:
        """How far the work is."""

    def on_case(self, name: str, result: Any) -> None:  # noqa: ANN401
        """A case is done; what came of it depends on the verb."""
