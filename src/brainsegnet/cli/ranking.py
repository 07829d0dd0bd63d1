"""The verb that compares models by their scores."""

from pathlib import Path

from brainsegnet.cli.app import Paths, app
from brainsegnet.cli.flags import Names


@app.command
def rank(scores: Paths, /, *, out: Path | None = None, metrics: Names = (), seed: int = 0) -> None:
    """Rank models by their scores on the same cases, and test in what they differ.

    Example: brainsegnet rank ours/scores.json unet/scores.json --out ranking/

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
    from brainsegnet.benchmark.ranking import rank as run

    for table in console_tables(run(scores, out, metrics or USUAL_METRICS, seed)):
        Console().print(table.to_rich())
