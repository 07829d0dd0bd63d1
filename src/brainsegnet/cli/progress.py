"""What a verb shows while it works."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brainsegnet.training.plan import Record


@contextmanager
def training_progress() -> Iterator[Callable[["Record"], None]]:
    """A bar on a terminal; elsewhere a line every twentieth of the budget."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    shown = -1.0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading cases", total=1.0)

        def step(record: "Record") -> None:
            nonlocal shown
            line = describe_record(record)
            bar.update(task, completed=record.progress, description=line)
            if record.dice or (not console.is_terminal and record.progress >= shown + 0.05):
                shown = record.progress
                console.print(line, highlight=False, soft_wrap=True)

        yield step


def describe_record(record: "Record") -> str:
    """One line of a training's log in words."""
    scores = "".join(f", {region} {value:.3f}" for region, value in record.dice.items())
    return (
        f"{record.stage} step {record.step}: loss {record.loss:.3f}{scores}, "
        f"{record.samples_per_second:.1f} samples/s, {record.data_wait:.0%} waiting for data"
    )
