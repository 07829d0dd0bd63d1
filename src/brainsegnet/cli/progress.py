"""What a verb shows while it works: its sentences, and a bar on a terminal or some lines elsewhere."""

from types import TracebackType
from typing import Self

from brainsegnet.cli.app import say
from brainsegnet.progress import Callback, ProgressEvent


class Speaker(Callback):
    """Writes sentences on standard output."""

    def on_message(self, text: str) -> None:
        """Write a line."""
        say(text)


class TrainingBar(Speaker):
    """A bar on a terminal; elsewhere a line every twentieth of the budget, and one for each validation."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True)
        text, left = TextColumn("{task.description}"), TextColumn("{task.fields[left]}")
        columns = (text, BarColumn(), TimeElapsedColumn(), left)
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("reading cases", total=1.0, left="")
        self._shown: object = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def on_progress(self, event: ProgressEvent) -> None:
        """Move the bar, or write a line where there is something new to show."""
        line, left = self.describe(event), describe_minutes_left(event)
        self._bar.update(self._task, completed=event.progress, description=line, left=left)
        place = self.place_of(event)
        if event.dice or (not self._console.is_terminal and place != self._shown):
            self._shown = place
            self._console.print(f"{line}, {left}" if left else line, highlight=False, soft_wrap=True)

    def describe(self, event: ProgressEvent) -> str:
        """The line of an event."""
        return describe_event(event)

    def place_of(self, event: ProgressEvent) -> object:
        """Off a terminal, a line is written where this changes."""
        return int(20 * event.progress)


class BenchmarkBar(TrainingBar):
    """A bar over all trainings on a terminal; elsewhere a line every fifth of a training."""

    def describe(self, event: ProgressEvent) -> str:
        """The line of an event, with model, seed if there are several, and fold."""
        seed = "" if event.seed is None else f", seed {event.seed}"
        return f"{event.model}{seed}, fold {event.fold} of {event.folds}: {describe_event(event)}"

    def place_of(self, event: ProgressEvent) -> object:
        """Model, fold, seed and fifth of the training."""
        return event.model, event.fold, event.seed, int(5 * (event.training or 0))


def describe_minutes_left(event: ProgressEvent) -> str:
    """In words, if it is known."""
    return "" if event.minutes_left is None else f"{event.minutes_left:.0f} minutes left"


def describe_event(event: ProgressEvent) -> str:
    """One line of a training's log in words."""
    scores = "".join(f", {region} {value:.3f}" for region, value in (event.dice or {}).items())
    return (
        f"{event.stage} step {event.step}: loss {event.loss:.3f}{scores}, "
        f"{event.samples_per_second:.1f} samples/s, {event.data_wait:.0%} waiting for data"
    )
