"""The program, and how its commands report: sentences and progress bars, and errors on standard error."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

from cyclopts import App, Parameter, default_name_transform

from brainsegnet._machine import describe_environment
from brainsegnet.progress import Callback, ProgressEvent

Paths = Annotated[list[Path], Parameter(consume_multiple=False)]
Folders = list[Path]
Names = tuple[str, ...]


def _show(default: object) -> str | None:
    """A default as the help shows it: what is off, absent or empty is not shown."""
    return None if default in (False, None, "", ()) else str(default)


def _name_flag(name: str) -> str:
    """The flag of an argument; `from` is a word of Python, so no argument can have that name."""
    return "from" if name == "start" else default_name_transform(name)


app = App(
    name="brainsegnet",
    help="Find brain lesions in multi-modal MRI with Brain SegNet. Research software, not a medical device.",
    version=describe_environment,
    help_format="markdown",
    version_format="plaintext",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(
        negative_bool=(),
        negative_iterable=(),
        consume_multiple=True,
        show_default=_show,
        name_transform=_name_flag,
    ),
)
app.register_install_completion_command(help="Install the completion of this command for your shell.")


def report_failures(failures: Mapping[str, str], done: int) -> None:
    """Print a sentence for each case that failed, and end with exit code 1 if there is one."""
    if failures:
        for sentence in failures.values():
            complain(sentence)
        complain(f"{len(failures)} of {len(failures) + done} cases could not be done; {done or 'none'} could")
        sys.exit(1)


def say(text: str) -> None:
    """Write a line on standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Write a line on standard error."""
    sys.stderr.write(f"brainsegnet: {' '.join(text.splitlines())}\n")


class Speaker(Callback):
    """Writes messages and finished cases on standard output."""

    def on_message(self, text: str) -> None:
        """Write the text."""
        say(text)

    def on_case(self, name: str, result: Any) -> None:  # noqa: ANN401
        """Write the name of the case."""
        say(name)


class TrainingBar(Speaker):
    """A progress bar on a terminal. Elsewhere a line for each twentieth of the training and for each validation."""

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
        """Move the bar, or write a line if there is something new to show."""
        line, minutes = self.describe(event), event.minutes_left
        left = "" if minutes is None else f"{minutes:.0f} minutes left"
        self._bar.update(self._task, completed=event.progress, description=line, left=left)
        place = self.place_of(event)
        if event.dice or (not self._console.is_terminal and place != self._shown):
            self._shown = place
            self._console.print(f"{line}, {left}" if left else line, highlight=False, soft_wrap=True)

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


def describe_event(event: ProgressEvent) -> str:
    """One line of the log of a training in words."""
    scores = "".join(f", {region} {value:.3f}" for region, value in (event.dice or {}).items())
    return (
        f"{event.stage} step {event.step}: loss {event.loss:.3f}{scores}, "
        f"{event.samples_per_second:.1f} samples/s, {event.data_wait:.0%} waiting for data"
    )
