"""`brainsegnet benchmark`: train and test networks in one harness, and rank models by their scores."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from brainsegnet.benchmark.options import BenchmarkOptions
from brainsegnet.cli.app import BenchmarkBar, Names, Paths, app, complain, say

benchmark = App(name="benchmark", help="Train and test networks side by side, and rank models by their scores.")
app.command(benchmark)


@benchmark.command
def run(
    data: Paths,
    /,
    *,
    task: str,
    out: Path,
    options: Annotated[BenchmarkOptions | None, Parameter(name="*")] = None,
) -> None:
    """Train and test networks side by side: same folds, samples, loss, augmentation and budget.

    The same command goes on where it was stopped, and repeats nothing; more models, or more seeds, can be named later.

    Example: brainsegnet benchmark run BRATS/ --task brats2015 --models brainsegnet unet --minutes 7 --out against

    Parameters
    ----------
    data
        Folders of cases, or tables case,sequence,path (.csv, .yaml), all with label maps.
    task
        brats2015, brats2021, brats2023, isles2017, isles2022, or a YAML file.
    out
        Folder for benchmark.md, .csv and .json, and for the result of each training.
    """
    from rich.console import Console

    from brainsegnet.benchmark.leaderboard import console_table
    from brainsegnet.benchmark.run import run_benchmark
    from brainsegnet.errors import Interrupted

    try:
        with BenchmarkBar() as bar:
            done = run_benchmark(data, task, out, options, bar)
    except Interrupted as error:
        complain(f"{error}; what is finished is in {out}, and the same command goes on from here")
        sys.exit(128 + error.number)
    Console().print(console_table(done.results, done.notes).to_rich())
    say(f"done; see {out / 'benchmark.md'}")


@benchmark.command
def rank(scores: Paths, /, *, out: Path | None = None, metrics: Names = (), seed: int = 0) -> None:
    """Rank models by their scores on the same cases, and test in what they differ.

    Example: brainsegnet benchmark rank ours/scores.json unet/scores.json --out ranking/

    Parameters
    ----------
    scores
        The scores.json of each model, as evaluate writes it with --out, or the folder that holds it.
    out
        Folder for ranking.csv, pairs.csv, ranking.json and ranking.md.
    metrics
        What counts, each as much as the others; by default dice and hd95_mm.
    seed
        Governs bootstrap and permutations.
    """
    from rich.console import Console

    from brainsegnet.benchmark.ranking import USUAL_METRICS, console_tables
    from brainsegnet.benchmark.ranking import rank as rank_models

    for table in console_tables(rank_models(scores, out, metrics or USUAL_METRICS, seed)):
        Console().print(table.to_rich())
