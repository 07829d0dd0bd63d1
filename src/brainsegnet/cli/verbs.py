"""The verbs: one per function of the API, one flag per argument. Heavy libraries load when a verb runs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from brainsegnet.cli.app import Paths, app, report_failures, say
from brainsegnet.cli.flags import BudgetFlags, CaseFlags, MachineFlags, SegmentFlags, SequenceFlags, Switch
from brainsegnet.cli.progress import training_progress

if TYPE_CHECKING:
    from brainsegnet.api.segmentation import Segmentation, Segmented

Shape = Annotated[tuple[int, int, int], Parameter(negative_iterable=(), show_default=False)]
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
"""Where launchers say which of several processes this one is; it is the first if all that are set are 0."""


@app.command
def train(
    data: Paths,
    /,
    *,
    task: str,
    out: Path,
    recipe: Literal["paper", "quick", "modern"] = "quick",
    budget: BudgetFlags | None = None,
    cases: CaseFlags | None = None,
    seed: int = 0,
    machine: MachineFlags | None = None,
    resume: Switch = False,
    licence: Annotated[str, Parameter(show_default=False)] = "not stated; the terms of the training data apply",
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
    seed
        Governs all that is random.
    resume
        Continue the training in --out.
    licence
        Licence of the weights, for the model's card.
    """
    from brainsegnet.api.options import TrainOptions, Watch
    from brainsegnet.api.training_run import train as run
    from brainsegnet.training.curriculum import Budget

    budget, cases, machine = budget or BudgetFlags(), cases or CaseFlags(), machine or MachineFlags()
    limits = Budget(**vars(budget)) if any(limit is not None for limit in vars(budget).values()) else None
    options = TrainOptions(recipe, limits, seed=seed, resume=resume, licence=licence, **vars(cases), **vars(machine))
    with training_progress() as step:
        run(data, task, out, options, Watch(say, step))
    if all(os.environ.get(rank, "0") == "0" for rank in RANKS):
        say(f"done; try: brainsegnet segment CASE --model {out} --out lesion.nii.gz")
        say(f"and for speed on a CPU, once: brainsegnet export {out} {' '.join(map(str, data))}")


@app.command
def segment(
    cases: Paths | None = None,
    /,
    *,
    model: Path,
    out: Path,
    files: SequenceFlags | None = None,
    how: SegmentFlags | None = None,
    timings: Switch = False,
) -> None:
    """Segment one case or many with a trained model.

    Example: brainsegnet segment BRATS/pat3 --model runs/first --out pat3.nii.gz

    Parameters
    ----------
    cases
        Folders of cases, folders of one case, or tables.
    model
        Model folder, or the output folder of train.
    out
        Label map to write; for more than one case, the folder that gets one for each.
    timings
        Show the seconds of each stage as a table at the end.
    """
    from brainsegnet.api.segmentation import SegmentOptions
    from brainsegnet.api.segmentation import segment as run
    from brainsegnet.errors import DatasetError

    named = {name: path for name, path in vars(files or SequenceFlags()).items() if path is not None}
    if bool(named) == bool(cases):
        raise DatasetError("name either folders of cases or the files of one case (--flair, --t1c, ...), not both")
    done = run(named or cases or [], model, out, SegmentOptions(**vars(how or SegmentFlags())), _show_segmented)
    if timings:
        _show_timings(done)
    report_failures(done.failures, len(done.done))


@app.command
def export(model: Path, data: Paths | None = None, /) -> None:
    """Put a model into formats that run fast on a CPU, without torch: OpenVINO (floats and 8-bit integers), and ONNX.

    Example: brainsegnet export runs/first BRATS/

    Parameters
    ----------
    model
        Model folder, or the output folder of train; gets a folder export/.
    data
        Cases that the model was trained on: the ranges of 8-bit integers come from them. Without data, floats only.
    """
    from brainsegnet.api.exporting import export as run

    run(model, data or [], say)


@app.command
def evaluate(predicted: Path, truth: Paths, /, *, task: str, out: Path | None = None) -> None:
    """Score predicted label maps against true ones, region by region.

    Example: brainsegnet evaluate predictions/ BRATS/ --task brats2015 --out scores/

    Parameters
    ----------
    predicted
        A label map, or a folder of them named after their cases.
    truth
        A label map, a folder of label maps of the same names, or folders or tables of cases.
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
    report_failures(evaluation.failures, len(evaluation.scores))


@app.command
def grow(
    out: Path,
    /,
    *,
    cases: int = 8,
    seed: int = 0,
    shape: Shape | None = None,
    stroke: Literal["isles2022", "isles2017"] | None = None,
    shapes: Path | None = None,
) -> None:
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
    stroke
        Grow an ischaemic stroke instead: isles2022 (DWI, ADC) or isles2017 (the six maps), in the names of that data.
    shapes
        With --stroke: a folder of lesion masks in MNI space to take shapes from; all are grown without.
    """
    if stroke or shapes:
        return _grow_strokes(out, stroke, (cases, seed), shape, shapes)
    from brainsegnet.api.phantoms import grow as run
    from brainsegnet.synthesis.phantom import DEMO_SHAPE

    run(out, cases, seed, shape or DEMO_SHAPE, say)


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


def _grow_strokes(
    out: Path,
    stroke: Literal["isles2022", "isles2017"] | None,
    numbers: tuple[int, int],
    shape: Shape | None,
    shapes: Path | None,
) -> None:
    from brainsegnet.api.stroke_phantoms import grow_strokes as run
    from brainsegnet.api.stroke_phantoms import open_shapes
    from brainsegnet.errors import TaskError

    if stroke is None:
        raise TaskError("--shapes are those of strokes; add --stroke isles2022 or isles2017")
    if shape is not None:
        raise TaskError("a stroke is scanned on the grid of its data set; leave out --shape or --stroke")
    run(out, stroke, *numbers, open_shapes(shapes) if shapes else None, say)


def _show_segmented(done: "Segmented") -> None:
    report = done.report
    volumes = ", ".join(f"{name} {ml:.1f} ml" for name, ml in report["volumes_ml"]["regions"].items())
    absent = f"; without {', '.join(report['sequences']['absent'])}" if report["sequences"]["absent"] else ""
    say(f"{done.name}: {volumes}; {sum(report['seconds'].values()):.1f} s{absent}; {done.path}")


def _show_timings(segmentation: "Segmentation") -> None:
    from rich.console import Console
    from rich.table import Table

    stages = ("read", "prepare", "network", "write")
    table = Table("case", *stages, "sum", title="seconds", title_justify="left")
    for case in segmentation.done:
        seconds = case.report["seconds"]
        table.add_row(case.name, *(f"{seconds[stage]:.2f}" for stage in stages), f"{sum(seconds.values()):.2f}")
    Console().print(table)
    say(f"{segmentation.seconds:.2f} s in all, the network at work for {segmentation.computing:.2f} s of them")
