"""Groups of commands: `brainsegnet benchmark` (run, rank) and `brainsegnet paper` (table, figure, submit)."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from brainsegnet.benchmark import BenchmarkOptions
from brainsegnet.cli.app import Folders, Names, Overwrite, Paths, app, flatten, keep_existing, verb
from brainsegnet.cli.bars import BenchmarkBar
from brainsegnet.cli.messages import complain, say, show, show_table
from brainsegnet.paper import FigureOptions

flatten(FigureOptions)
benchmark = App(name="benchmark", help="Train and test networks side by side, and rank models by their scores.")
app.command(benchmark)


@verb(benchmark)
def run(
    data: Paths,
    /,
    *,
    task: str,
    out: Path,
    options: Annotated[BenchmarkOptions | None, Parameter(name="*")] = None,
) -> None:
    """Train and test networks under the same conditions: folds, samples, loss, augmentation and length.

    The same command continues a benchmark that was stopped. Networks and seeds can be added later.

    Example: brainsegnet benchmark run BRATS/ --task brats2015 --models brainsegnet unet --minutes 7 --out against

    Parameters
    ----------
    data
        Folders of cases, or tables case,sequence,path (.csv, .yaml), all with label maps.
    task
        brats2015, brats2021, brats2023, isles2017, isles2022, white-matter-lesions, or a YAML file.
    out
        Folder for benchmark.md, .csv and .json, and for the result of each training.
    """
    from brainsegnet.errors import Interrupted
    from brainsegnet.model.store import torch_needed

    with torch_needed():
        from brainsegnet.benchmark.leaderboard import console_table
        from brainsegnet.benchmark.run import run_benchmark
    try:
        with BenchmarkBar() as bar:
            done = run_benchmark(data, task, out, options, bar)
    except Interrupted as error:
        complain(f"{error}; what is finished is in {out}, and the same command goes on from here")
        sys.exit(128 + error.number)
    show_table(console_table(done.results, done.notes))
    say(f"done; see {out / 'benchmark.md'}")


@verb(benchmark)
def rank(
    scores: Paths,
    /,
    *,
    out: Path | None = None,
    metrics: Names = (),
    seed: int = 0,
    overwrite: Overwrite = False,
) -> None:
    """Rank models by their scores on the same cases, and test their differences.

    Example: brainsegnet benchmark rank brainsegnet/scores.json unet/scores.json --out ranking/

    Parameters
    ----------
    scores
        The scores.json of each model, as evaluate writes it with --out, or the folder that holds it.
    out
        Folder for ranking.csv, pairs.csv, ranking.json and ranking.md.
    metrics
        Metrics to rank by, with equal weight; by default dice and hd95_mm.
    seed
        Seed of the bootstrap and the permutations.
    """
    from brainsegnet.benchmark.ranking import RANKING_FILES, USUAL_METRICS, console_tables
    from brainsegnet.benchmark.ranking import rank as rank_models

    keep_existing([out / name for name in RANKING_FILES] if out else [], overwrite)
    for table in console_tables(rank_models(scores, out, metrics or USUAL_METRICS, seed)):
        show_table(table)


paper = App(name="paper", help="The paper's tables and figures with your results, and upload files of its challenges.")
app.command(paper)


@verb(paper)
def table(
    scores: Paths,
    /,
    *,
    number: Literal[1, 2],
    out: Folders | None = None,
    labels: Names = (),
    overwrite: Overwrite = False,
) -> None:
    """Put your scores below the rows of the paper's Table 1 (BRATS 2015) or Table 2 (ISLES 2017).

    Example: brainsegnet paper table scores/plain scores/focal --number 1 --out table.md table.tex

    Parameters
    ----------
    scores
        Each scores.json of evaluate, or the folder that holds it; one row each.
    number
        Number of the table.
    out
        Files to write, in the format of their endings: .md, .csv, .tex.
    labels
        Names of the rows; by default those of the folders.
    """
    from brainsegnet.paper.tables import table as run

    keep_existing(out or [], overwrite)
    show(run(scores, number, out or [], labels).rstrip("\n"))


@verb(paper)
def figure(
    data: Paths,
    /,
    *,
    predictions: Folders,
    task: str,
    out: Folders,
    number: Literal[4, 5] = 4,
    options: Annotated[FigureOptions | None, Parameter(name="*")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw the paper's Figure 4 (models beside the truth) or Figure 5 (probabilities as colours).

    Example: brainsegnet paper figure BRATS/ --predictions plain/ focal/ --task brats2015 --out figure4.png

    Parameters
    ----------
    data
        Folders of cases, or tables.
    predictions
        Output folder of segment for each model. For Figure 5 one folder, segmented with --probabilities.
    task
        Label convention of the predictions.
    out
        Files to write: .png, .svg.
    number
        Number of the figure.
    """
    from brainsegnet.paper.figure_cases import figure as run

    keep_existing(out, overwrite)
    for strip in run(data, predictions, task, out, number, options):
        say(f"{strip.case}: slice {strip.index}, {strip.why}")


@verb(paper)
def submit(
    predictions: Path,
    data: Paths,
    /,
    *,
    task: str,
    name: str,
    out: Path,
    id_from: str | None = None,
    overwrite: Overwrite = False,
) -> None:
    """Pack predictions for the platform of a challenge. Everything is checked before a file is written.

    Example: brainsegnet paper submit predictions/ BRATS2015_Testing/ --task brats2015 --name mymethod --out upload.zip

    Parameters
    ----------
    predictions
        Folder of label maps named after their cases, as segment writes them.
    data
        Folders of the cases under their original names, which hold the numbers that the platform knows.
    task
        brats2015, isles2017, or a task file that names a platform (examples/tasks/isles2017_perfusion.yaml).
    name
        Name of the method: letters, digits, - and _.
    out
        The zip to write.
    id_from
        Sequence whose number stands for the case. By default that of the task: flair for brats2015, mtt for isles2017.
    """
    from brainsegnet.paper.submission import submit as run

    keep_existing([out], overwrite)
    uploads = run(predictions, data, task, name, out, id_from)
    say(f"{len(uploads)} {'case' if len(uploads) == 1 else 'cases'} in {out}, from {uploads[0].file} on")
