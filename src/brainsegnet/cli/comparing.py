"""The verb `compare`: networks trained and tested side by side."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from brainsegnet.benchmark.options import BenchmarkOptions
from brainsegnet.cli.app import Paths, app, complain, say
from brainsegnet.cli.progress import BenchmarkBar


@app.command
def compare(
    data: Paths,
    /,
    *,
    task: str,
    out: Path,
    options: Annotated[BenchmarkOptions | None, Parameter(name="*")] = None,
) -> None:
    """Train and test networks side by side: same folds, samples, loss, augmentation and budget.

    The same command goes on where it was stopped, and repeats nothing; more models, or more seeds, can be named later.

    Example: brainsegnet compare BRATS/ --task brats2015 --models brainsegnet unet --minutes 7 --folds 4 --out against

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
