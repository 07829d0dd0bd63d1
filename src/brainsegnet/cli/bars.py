"""How a command shows its progress: a bar on a terminal, and elsewhere a line now and then, on standard error."""

import time
from types import TracebackType
from typing import Any, Self

from brainsegnet.cli.messages import go_live, is_quiet, note_progress, say
from brainsegnet.progress import Callback, ProgressEvent


class Speaker(Callback):
    """Writes messages and finished cases on standard output."""

    def on_message(self, text: str) -> None:
        """Write the text."""
        say(text)

    def on_case(self, name: str, result: Any) -> None:  # noqa: ANN401
        """Write the name of the case."""
        say(name)


class Bar(Speaker):
    """A progress bar with the time left, on a terminal only, and none if the command is quiet."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True)
        text, left = (TextColumn(form, markup=False) for form in ("{task.description}", "{task.fields[left]}"))
        columns = (text, BarColumn(), TimeElapsedColumn(), left)
        self._shown = self._console.is_terminal and not is_quiet()
        self._bar = Progress(*columns, console=self._console, disable=not self._shown, redirect_stdout=False)
        self._task = self._bar.add_task(title, total=1.0, left="")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        go_live(None)
        self._bar.stop()

    def start(self) -> None:
        """Show the bar."""
        if self._shown:
            self._bar.start()
            go_live(self._console)

    def move(self, event: ProgressEvent, text: str, *, now: bool) -> None:
        """Move the bar to an event.

        Args:
            event: How far the work is.
            text: What is written beside the bar.
            now: Whether a line is written too.
        """
        left = "" if event.minutes_left is None else describe_time_left(event.minutes_left)
        self._bar.update(self._task, completed=event.progress, description=text, left=left)
        if not now:
            return
        line = f"{text}, {left}" if left else text
        note_progress(line)
        if not is_quiet():
            self._console.print(line, highlight=False, soft_wrap=True, markup=False, emoji=False)


class TrainingBar(Bar):
    """A progress bar on a terminal. Elsewhere a line for each twentieth of the training and for each validation."""

    def __init__(self) -> None:
        super().__init__("reading cases")
        self._place: object = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def on_progress(self, event: ProgressEvent) -> None:
        """Move the bar, or write a line if there is something new to show."""
        place = self.place_of(event)
        now = bool(event.dice) or (not self._console.is_terminal and place != self._place)
        self._place = place if now else self._place
        self.move(event, self.describe(event), now=now)

    def describe(self, event: ProgressEvent) -> str:
        """The line of an event."""
        return describe_event(event)

    def place_of(self, event: ProgressEvent) -> object:
        """Without a terminal, a line is written when this value changes."""
        return int(20 * event.progress)


class BenchmarkBar(TrainingBar):
    """A progress bar over all trainings on a terminal. Elsewhere a line for every fifth of a training."""

    def describe(self, event: ProgressEvent) -> str:
        """The line of an event, with model, fold, and the seed if there are several."""
        seed = "" if event.seed is None else f", seed {event.seed}"
        return f"{event.model}{seed}, fold {event.fold} of {event.folds}: {describe_event(event)}"

    def place_of(self, event: ProgressEvent) -> object:
        """Model, fold, seed and fifth of the training."""
        return event.model, event.fold, event.seed, int(5 * (event.training or 0))


class CasesBar(Bar):
    """A progress bar over several cases on a terminal. Elsewhere a line every half minute. One case has neither.

    A long search of files has a bar too.

    Args:
        every_seconds: Least time between two lines.
    """

    def __init__(self, every_seconds: float = 30) -> None:
        super().__init__("")
        self._every, self._last, self._started = every_seconds, time.monotonic(), False

    def on_progress(self, event: ProgressEvent) -> None:
        """Move the bar, or write a line if it is time."""
        if event.cases is None:
            self._show_reading(event)
        if not event.cases or event.cases == 1:
            return
        if not self._started:
            self._started = True
            self.start()
        due = bool(event.done) and time.monotonic() - self._last >= self._every
        now = due and event.done != event.cases and not self._shown
        self._last = time.monotonic() if now else self._last
        self.move(event, self.describe(event), now=now)

    def describe(self, event: ProgressEvent) -> str:
        """The line of an event."""
        rate = f", {event.cases_per_hour:.0f} an hour" if event.cases_per_hour else ""
        return f"{event.done} of {event.cases} cases{rate}"

    def _show_reading(self, event: ProgressEvent) -> None:
        """The bar while files are searched, if that takes longer than a second."""
        if time.monotonic() - self._last > 1:
            if not self._started:
                self._started = True
                self.start()
            self.move(event, "reading headers", now=False)


def describe_event(event: ProgressEvent) -> str:
    """One line of the log of a training in words."""
    scores = "".join(f", {region} {value:.3f}" for region, value in (event.dice or {}).items())
    return (
        f"{event.stage} step {event.step}: loss {event.loss:.3f}{scores}, "
        f"{event.samples_per_second:.1f} samples/s, {event.data_wait:.0%} waiting for data"
    )


def describe_time_left(minutes: float) -> str:
    """How long the work may still take.

    Examples:
        >>> [describe_time_left(minutes) for minutes in (0.2, 1.2, 90)]
        ['12 seconds left', '1 minute left', '90 minutes left']
    """
    if minutes < 1:
        return f"{60 * minutes:.0f} seconds left"
    return f"{minutes:.0f} minute{'' if round(minutes) == 1 else 's'} left"
