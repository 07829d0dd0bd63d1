"""Scores of a cohort.

Six phantoms are simulated, segmented from files to files and scored. Each dot is a case, the diamond is the mean with
its 95 % interval, and the box holds the middle half of the cases.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import brainsegnet
from brainsegnet.metrics.statistics import summarise
from brainsegnet.plotting.charts import distribution_figure


def main(out: Path) -> None:
    """Draw the picture into the folder `out`."""
    with TemporaryDirectory() as folder:
        cases, predictions = Path(folder) / "cases", Path(folder) / "predictions"
        brainsegnet.simulate(cases, brainsegnet.SimulateOptions(cases=6, seed=20))
        brainsegnet.segment(cases, "tumour", predictions)
        scores = brainsegnet.evaluate(predictions, cases, "brats2021").scores
    summary = summarise(scores)
    regions = list(next(iter(scores.values())))
    values = {region: {case: rows[region].dice for case, rows in scores.items()} for region in regions}
    intervals = {region: summary.interval(region, "dice") for region in regions}
    figure = distribution_figure(values, ratio=True, intervals=intervals)
    figure.set_facecolor("white")
    figure.axes[0].set_xlabel("Dice", size=12)
    figure.savefig(out / "scores.webp", dpi=180, pil_kwargs={"quality": 90})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
