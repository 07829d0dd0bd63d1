"""How long operations report their progress: sentences and events, to one callback that serves every operation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ProgressEvent:
    """How far a training or a benchmark is. Fields that do not apply are None.

    Attributes:
        progress: Share of the whole work that is done, 0 to 1.
        minutes: Minutes since the start, including those before it was resumed.
        minutes_left: Expected minutes to the end, at the mean speed so far.
        step: Training steps so far.
        epoch: Epochs so far, with fractions.
        stage: Name of the current stage of the curriculum.
        loss: Mean loss since the last event.
        learning_rate: Current learning rate.
        samples_per_second: Training samples per second, over all devices.
        data_wait: Share of the time that was spent waiting for samples, 0 to 1.
        dice: Whole-scan Dice by region on the held-out cases, if they were scored at this step.
        model: Name of the network in a benchmark.
        fold: Fold of a benchmark, counted from 1.
        folds: Number of folds of a benchmark.
        seed: Seed of this training in a benchmark with several seeds.
        training: Share of the current training of a benchmark that is done, 0 to 1.
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
    """Receives the progress of long operations. Subclass it and override the methods that you need.

    By default the methods do nothing.

    Examples:
        >>> class Printer(Callback):
        ...     def on_message(self, text):
        ...         print(text)
        >>> Printer().on_message("8 training cases")
        8 training cases
    """

    def on_message(self, text: str) -> None:
        """Receive a sentence for the user."""

    def on_progress(self, event: ProgressEvent) -> None:
        """Receive how far the work is."""

    def on_case(self, name: str, result: Any) -> None:  # noqa: ANN401
        """Receive the result of a case that is done.

        Args:
            name: Name of the case.
            result: `segment` gives a `SavedCase`, `simulate` the folder of the case.
        """
