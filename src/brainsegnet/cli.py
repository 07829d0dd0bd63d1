"""The command line: one verb per function of the API, one flag per argument. Heavy libraries load when a verb runs."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from brainsegnet.api.segmentation import Segmentation, Segmented
    from brainsegnet.training.fit import Record

app = App(
    name="brainsegnet",
    help="Find brain lesions in multi-modal MRI with Brain SegNet. Research software, not a medical device.",
    version=lambda: __import__("importlib.metadata").metadata.version("brainsegnet"),
    help_format="plaintext",
)
Names = Annotated[tuple[str, ...], Parameter(negative_iterable=(), consume_multiple=True)]


@app.command
def train(
    data: Annotated[list[Path], Parameter(negative_iterable=())],
    /,
    *,
    task: str,
    out: Path,
    recipe: Literal["paper", "quick", "modern"] = "quick",
    epochs: float | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    sequences: Names = (),
    hold_out: Names = (),
    validation: int | None = None,
    exclude: Names = (),
    seed: int = 0,
    devices: int = 1,
    nodes: int = 1,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
    resume: bool = False,
    licence: str = "not stated; the terms of the training data apply",
) -> None:
    """Train a model on cases with known lesions.

    Example: brainsegnet train BRATS/ --task brats2015 --out runs/first --minutes 15

    Parameters
    ----------
    data
        Folders of cases (BRATS 2015, BraTS 2021 or 2023 names), or tables case,sequence,path (.csv, .yaml).
    task
        brats2015, brats2021, brats2023, isles2017, isles2022, or a YAML file.
    out
        Folder for the models best/ and last/, the log and the state.
    recipe
        paper: as published. quick: a CPU in minutes. modern: what we find best, for a GPU.
    epochs
        Budget in epochs; the stages of the curriculum keep their shares.
    steps
        Budget in steps.
    minutes
        Budget in minutes.
    sequences
        Sequences to use; by default those of the task that every case has.
    hold_out
        Cases to score during training instead of training on them.
    validation
        How many cases to hold out, drawn by the seed; by default one in eight.
    exclude
        Cases not to use at all.
    seed
        Governs all that is random.
    devices
        Devices of each machine.
    nodes
        Machines; start one process a device with torchrun or srun.
    accelerator
        auto takes a GPU where there is one.
    resume
        Continue the training in --out.
    licence
        Licence of the weights, for the model's card.
    """
    from brainsegnet.api.training_run import TrainOptions, Watch
    from brainsegnet.api.training_run import train as run
    from brainsegnet.training.curriculum import Budget

    budget = None
    if (epochs, steps, minutes) != (None, None, None):
        budget = Budget(epochs, steps, minutes)
    options = TrainOptions(
        recipe, budget, sequences, hold_out, validation, exclude, seed, devices, nodes, accelerator, resume, licence
    )
    with training_progress() as step:
        model = run(data, task, out, options, Watch(_say, step))
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        _say(f"model in {model}; try: brainsegnet segment CASE --model {out} --out lesion.nii.gz")


@Parameter(name="*")
@dataclass(frozen=True)
class SequenceFiles:
    """One case as named files."""

    flair: Path | None = None
    "FLAIR image of one case, with --t1 and the like instead of CASES."
    t1: Path | None = None
    "T1 image."
    t1c: Path | None = None
    "T1 image after contrast agent."
    t2: Path | None = None
    "T2 image."
    dwi: Path | None = None
    "Diffusion-weighted image."
    adc: Path | None = None
    "Apparent diffusion coefficient map."


@app.command
def segment(
    cases: Annotated[list[Path] | None, Parameter(negative_iterable=())] = None,
    /,
    *,
    model: Path,
    out: Path,
    files: SequenceFiles | None = None,
    slabs: int | None = None,
    probabilities: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int | None = None,
    resample: bool = False,
    picture: bool = False,
) -> None:
    """Segment one case or many with a trained model.

    Example: brainsegnet segment BRATS/pat0003 --model runs/first --out pat0003_lesion.nii.gz

    Parameters
    ----------
    cases
        Folders of cases, folders of one case, or tables.
    model
        Model folder, or the output folder of train.
    out
        Label map to write; for more than one case, the folder that gets one for each.
    slabs
        Slices per pass (the paper's 31); by default the whole brain in one.
    probabilities
        Write a probability map per tissue too.
    device
        auto takes a GPU where there is one.
    threads
        Threads of the CPU; by default all cores.
    resample
        Bring sequences on other grids onto the first one's instead of refusing them.
    picture
        Draw the result over the scan, as a PNG beside the label map.
    """
    from brainsegnet.api.segmentation import SegmentOptions
    from brainsegnet.api.segmentation import segment as run
    from brainsegnet.errors import DatasetError

    named = {name: path for name, path in vars(files).items() if path is not None} if files else {}
    if bool(named) == bool(cases):
        raise DatasetError("name either folders of cases or the files of one case (--flair, --t1c, ...), not both")
    options = SegmentOptions(slabs, probabilities, device, threads, resample, picture)
    _finish(run(named or cases or [], model, out, options, _show_segmented))


@app.command
def evaluate(predicted: Path, truth: Path, /, *, task: str, out: Path | None = None) -> None:
    """Score predicted label maps against true ones, region by region.

    Example: brainsegnet evaluate predictions/ BRATS/ --task brats2015 --out scores/

    Parameters
    ----------
    predicted
        A label map, or a folder of them named after their cases.
    truth
        A label map, a folder of label maps of the same names, or a folder or table of cases.
    task
        In whose label convention the predictions are.
    out
        Folder for scores.csv, scores.json and scores.md.
    """
    from rich.console import Console

    from brainsegnet.api.scoring import evaluate as run
    from brainsegnet.evaluation.tables import to_rich

    evaluation = run(predicted, truth, task, out)
    Console().print(to_rich(evaluation.scores, evaluation.task))
    _report_failures(evaluation.failures)


@app.command
def grow(out: Path, /, *, cases: int = 8, seed: int = 0, shape: tuple[int, int, int] | None = None) -> None:
    """Grow phantoms: heads with a tumour, in the folders of BRATS 2015. The same seed gives the same bytes.

    Example: brainsegnet grow phantoms/ --cases 8 --seed 0

    Parameters
    ----------
    out
        Folder that gets a folder for each case.
    cases
        How many.
    seed
        Case i is grown from seed + i.
    shape
        Voxels along slices, rows and columns; the head keeps its size.
    """
    from brainsegnet.api.phantoms import grow as run
    from brainsegnet.synthesis.phantom import DEMO_SHAPE

    run(out, cases, seed, shape or DEMO_SHAPE, _say)


@app.command
def inspect(model_or_case: Path, /) -> None:
    """Show what is in a model folder, a case or a folder of cases.

    Example: brainsegnet inspect runs/first

    Parameters
    ----------
    model_or_case
        Model folder, output folder of train, folder of cases, table, or image file.
    """
    from rich.console import Console
    from rich.table import Table

    from brainsegnet.api.inspection import inspect as run

    inventory = run(model_or_case)
    table = Table(*inventory.headings, title=inventory.title, title_justify="left")
    for row in inventory.rows:
        table.add_row(*row)
    Console().print(table)


def _show_segmented(done: "Segmented") -> None:
    volumes = ", ".join(f"{name} {ml:.1f} ml" for name, ml in done.report["volumes_ml"]["regions"].items())
    absent = f"; without {', '.join(done.report['sequences']['absent'])}" if done.report["sequences"]["absent"] else ""
    _say(f"{done.name}: {volumes}; {sum(done.report['seconds'].values()):.1f} s{absent} -> {done.path}")


def _finish(segmentation: "Segmentation") -> None:
    _report_failures(segmentation.failures)


def _report_failures(failures: "dict[str, str] | object") -> None:
    if failures and isinstance(failures, dict):
        for sentence in failures.values():
            _complain(sentence)
        _complain(f"{len(failures)} of the cases could not be done")
        sys.exit(1)


@contextmanager
def training_progress() -> "Iterator[Callable[[Record], None]]":
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
                console.print(line, highlight=False)

        yield step


def describe_record(record: "Record") -> str:
    """One line of a training's log in words."""
    scores = "".join(f", {region} {value:.3f}" for region, value in record.dice.items())
    return (
        f"{record.stage} step {record.step}: loss {record.loss:.3f}{scores}, "
        f"{record.samples_per_second:.1f} samples/s, {record.waiting:.0%} waiting"
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _complain(text: str) -> None:
    sys.stderr.write(f"brainsegnet: {text}\n")


def main() -> None:
    """Run a verb; what a user can mend is one sentence and exit code 1, a signal 128 plus its number."""
    from brainsegnet.errors import BrainSegNetError

    try:
        app(result_action="return_value")
    except BrainSegNetError as error:
        _complain(str(error))
        sys.exit(1)
    except MemoryError:
        _complain("there is not enough memory; segment with --slabs 31, or train with a smaller recipe")
        sys.exit(1)
    except OSError as error:
        _complain(f"{error.filename or 'a file'}: {error.strerror or error}")
        sys.exit(1)
    except KeyboardInterrupt:
        _complain("interrupted")
        sys.exit(130)
    except Exception as error:
        if type(error).__name__ != "Interrupted":
            raise
        _complain(f"{error}; continue with --resume")
        sys.exit(128 + getattr(error, "number", 2))
