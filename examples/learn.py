"""The first training: simulate phantoms, train on some, segment the others, score and draw them.

Run it with `make learn`, or: python examples/learn.py FOLDER [--minutes 2]
"""

import argparse
import json
import shutil
import time
from pathlib import Path

from rich.console import Console

import brainsegnet
from brainsegnet.cli.bars import TrainingBar
from brainsegnet.metrics.score_tables import console_table
from brainsegnet.plotting.charts import training_curve_figure
from brainsegnet.plotting.slices import save_figure
from brainsegnet.training.log import read_log
from brainsegnet.training.recipes import QUICK

TRAINING, UNSEEN = 8, 3
PARTS = {"training", "unseen", "run", "predictions", "scores", "training.png", "learn.json"}
RECIPE = QUICK.fit_to(1).model_copy(update={"name": "quick, small patches", "patch": (12, 96, 96)})


def main(out: Path, minutes: float) -> None:
    """Everything into the folder `out`, in place of what an earlier run left there."""
    console, started = Console(), time.monotonic()
    clear(out)
    console.print(f"Growing {TRAINING + UNSEEN} phantoms: heads with a tumour, none of them a patient.")
    brainsegnet.simulate(out / "training", brainsegnet.SimulateOptions(TRAINING, seed=0))
    brainsegnet.simulate(out / "unseen", brainsegnet.SimulateOptions(UNSEEN, seed=1000))

    console.print(f"Training for {minutes:g} minutes on {TRAINING} of them.")
    options = brainsegnet.TrainOptions(RECIPE, minutes=minutes, validation=0)
    with TrainingBar() as bar:
        model = brainsegnet.train(out / "training", "brats2015", out / "run", options, bar)

    console.print(f"Segmenting {UNSEEN} phantoms that it has not seen.")
    segmentation = brainsegnet.segment(
        out / "unseen", model, out / "predictions", brainsegnet.SegmentOptions(picture=True)
    )
    evaluation = brainsegnet.evaluate(out / "predictions", out / "unseen", "brats2015", out / "scores")
    console.print(console_table(evaluation, per_case=False).to_rich())
    save_figure(training_curve_figure(read_log(out / "run" / "log.csv")), out / "training.png")

    summary = {
        "seconds": round(time.monotonic() - started, 1),
        "cases": {done.name: done.report for done in segmentation.done},
        "dice": {
            name: {region: score.dice for region, score in scores.items()} for name, scores in evaluation.scores.items()
        },
    }
    (out / "learn.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    pictures = sorted((out / "predictions").glob("*.png"))
    console.print(
        f"Pictures: {', '.join(map(str, pictures))} and {out / 'training.png'}; figures: {out / 'learn.json'}"
    )


def clear(out: Path) -> None:
    """Remove an earlier run; a folder that holds anything else is not touched.

    Raises:
        BrainSegNetError: it does.
    """
    if out.exists() and (others := sorted({path.name for path in out.iterdir()} - PARTS)):
        raise brainsegnet.BrainSegNetError(f"{out} holds {others[0]}, which no run made; name another folder")
    shutil.rmtree(out, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=Path("learnt"))
    parser.add_argument("--minutes", type=float, default=2.0)
    arguments = parser.parse_args()
    try:
        main(arguments.out, arguments.minutes)
    except brainsegnet.BrainSegNetError as error:
        parser.exit(1, f"{error}\n")
