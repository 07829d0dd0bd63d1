"""How long operations report their progress: sentences and events, to one callback that serves every operation."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ProgressEvent:
    """How far a long operation is: a training, a benchmark, or work on many cases. Fields that do not apply are None.

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
        done: Cases that are done or have failed, in `segment`, `evaluate`, `simulate` and `cohort run`.
        cases: Number of all cases.
        cases_per_hour: Cases that this run does in an hour, in `cohort run`.
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
    done: int | None = None
    cases: int | None = None
    cases_per_hour: float | None = None


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
            result: `segment` gives a `SavedCase`, `simulate` the folder of the case, a cohort an `Outcome`.
        """


class CaseCounter:
    """Tells a callback how many of several cases are done, and how long the others may take.

    Args:
        callback: Its `on_progress` is called at the start and after each case; None tells nobody.
        cases: Number of cases.
    """

    def __init__(self, callback: Callback | None, cases: int) -> None:
        self._callback, self._cases, self._done, self._start = callback, cases, 0, time.monotonic()
        if cases:
            self._tell()

    def advance(self) -> None:
        """One more case is done, or has failed."""
        self._done += 1
        self._tell()

    def _tell(self) -> None:
        if self._callback is None:
            return
        minutes = (time.monotonic() - self._start) / 60
        left = minutes / self._done * (self._cases - self._done) if self._done else None
        event = ProgressEvent(self._done / self._cases, minutes, left, done=self._done, cases=self._cases)
        self._callback.on_progress(event)
