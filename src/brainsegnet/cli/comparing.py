"""The verb `compare`, and what it shows while it works."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from brainsegnet.cli.app import Paths, app, complain, say
from brainsegnet.cli.flags import BudgetFlags, CaseFlags, Device, Switch
from brainsegnet.cli.progress import describe_record

if TYPE_CHECKING:
    from brainsegnet.benchmark.run import CompareOptions, Moment


@app.command
def compare(
    data: Paths,
    /,
    *,
    task: str,
    out: Path,
    models: Annotated[str, Parameter(show_default=False)] = "",
    ablation: Switch = False,
    folds: int = 5,
    seeds: int = 1,
    recipe: Literal["paper", "quick", "thorough", "small-lesions", "modern"] = "quick",
    budget: BudgetFlags | None = None,
    cases: CaseFlags | None = None,
    seed: int = 0,
    accelerator: Device = "auto",
) -> None:
    """Train and test networks side by side: same folds, samples, loss, augmentation and budget.

    The same command goes on where it was stopped, and repeats nothing; more models, or more seeds, can be named later.

    Example: brainsegnet compare BRATS/ --task brats2015 --models brainsegnet,unet --minutes 7 --folds 4 --out against

    Parameters
    ----------
    data
        Folders of cases, or tables case,sequence,path (.csv, .yaml), all with label maps.
    task
        brats2015, brats2021, brats2023, isles2017, isles2022, or a YAML file.
    out
        Folder for comparison.md, .csv and .json, and for the result of each training.
    models
        Some of brainsegnet,unet,vnet,segresnet,dynunet (all by default), and of brainsegnet-full, -half, -quarter: ours
        at the paper's width, half or a quarter of it. The others are tested against the first.
    ablation
        Compare Brain SegNet with itself without one part at a time, instead of with other networks.
    folds
        Trainings of each model, each tested on the patients that it did not see.
    seeds
        Trainings of each model and fold: under --seed, and the numbers after it. The folds stay, and each case counts
        with its mean over the seeds.
    recipe
        How all of them are trained.
    seed
        Governs all that is random.
    accelerator
        auto takes a GPU where there is one.
    """
    from brainsegnet.benchmark.run import CompareOptions
    from brainsegnet.training.options import TrainOptions
    from brainsegnet.training.recipes import Budget

    budget, chosen = budget or BudgetFlags(), vars(cases or CaseFlags())
    limits = Budget(**vars(budget)) if any(limit is not None for limit in vars(budget).values()) else None
    training = TrainOptions(recipe, limits, seed=seed, accelerator=accelerator, **chosen)
    names = tuple(name.strip() for name in models.split(",")) if models else ()
    _run(data, task, out, CompareOptions(names, ablation, folds, training, seeds))


def _run(data: list[Path], task: str, out: Path, options: "CompareOptions") -> None:
    """Compare, show the table, and say how to go on where a signal stops it."""
    from rich.console import Console

    from brainsegnet.benchmark.leaderboard import console_table
    from brainsegnet.benchmark.run import CompareWatch, compare
    from brainsegnet.training.signals import Interrupted

    try:
        with comparison_progress() as step:
            done = compare(data, task, out, options, CompareWatch(say, step))
    except Interrupted as error:
        complain(f"{error}; what is finished is in {out}, and the same command goes on from here")
        sys.exit(128 + error.number)
    Console().print(console_table(done.entries, done.notes).to_rich())
    say(f"done; see {out / 'comparison.md'}")


@contextmanager
def comparison_progress() -> Iterator[Callable[["Moment"], None]]:
    """A bar over all trainings on a terminal; elsewhere a line every fifth of a training."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}"))
    shown: tuple[str, int, int | None, int] | None = None
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        whole = bar.add_task("reading cases", total=1.0, left="")

        def step(moment: "Moment") -> None:
            nonlocal shown
            line = describe_moment(moment)
            left = "" if moment.minutes_left is None else f"{moment.minutes_left:.0f} minutes left"
            bar.update(whole, completed=moment.progress, description=line, left=left)
            place = moment.model, moment.fold, moment.seed, int(5 * moment.record.progress)
            if not console.is_terminal and place != shown:
                shown = place
                console.print(f"{line}, {left}" if left else line, highlight=False, soft_wrap=True)

        yield step


def describe_moment(moment: "Moment") -> str:
    """Which model, which seed if there are several, which fold, and the line of the training's log."""
    seed = "" if moment.seed is None else f", seed {moment.seed}"
    return f"{moment.model}{seed}, fold {moment.fold} of {moment.folds}: {describe_record(moment.record)}"
