"""The first minute: segment a glioma with a model of the package, score it and draw it; torch is not needed.

Run it with `make demo` (`make demo CASE=folder` for a case of your own), or: python examples/demo.py FOLDER [CASE]

The case in `examples/glioma` is simulated by the software itself, nobody's scan; a folder of your own may take its
place.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console

import brainsegnet
from brainsegnet.pipeline.batch import SavedCase

CASE = Path(__file__).parent / "glioma"


def main(out: Path, case: Path) -> None:
    """Everything into the folder `out`, beside what is there."""
    console = Console()
    options = brainsegnet.SegmentOptions(picture=True, uncertainty=True)
    found = brainsegnet.segment(case, None, out, options, output=brainsegnet.OutputOptions(overwrite=True))
    for segmented in found.done:
        describe(segmented, console)
        score(segmented, case, out, console)
    for sentence in found.failures.values():
        console.print(sentence)
    pictures = [str(out / f"{segmented.name}.png") for segmented in found.done]
    (out / "demo.json").write_text(json.dumps([d.report for d in found.done], indent=2) + "\n", encoding="utf-8")
    console.print(f"Pictures: {', '.join(pictures)}; all figures: {out / 'demo.json'}")


def describe(segmented: SavedCase, console: Console) -> None:
    """What was found, how sure it is, and what looks odd."""
    report = segmented.report
    console.print(f"{segmented.name}, found by {report['model']['name']} in {report['seconds']['network']:.1f} s:")
    for region, interval in report["uncertainty"]["volume_intervals"].items():
        volume, ends = report["volumes_ml"]["regions"][region], (interval["least_ml"], interval["most_ml"])
        console.print(f"  {region} {volume:.1f} ml, probably {ends[0]:.1f} to {ends[1]:.1f} ml")
    if report["dropped"]["components"]:
        console.print(f"  dropped {report['dropped']['ml']:.1f} ml in places of which it is less sure")
    for warning in report["warnings"]:
        console.print(f"  warning: {warning}")


def score(segmented: SavedCase, case: Path, out: Path, console: Console) -> None:
    """Scores, where the case has a truth."""
    try:
        evaluation = brainsegnet.evaluate(segmented.path, case, segmented.report["task"], out / "scores")
    except brainsegnet.BrainSegNetError as error:
        console.print(f"no scores: {error}")
        return
    for name, scores in evaluation.scores.items():
        regions = "; ".join(f"{region} {s.dice:.2f} ({s.hd95_mm:.0f} mm)" for region, s in scores.items())
        console.print(f"Dice (HD95) of {name} against the truth: {regions}; all scores: {out / 'scores'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=Path("demo"))
    parser.add_argument("case", type=Path, nargs="?", default=CASE)
    arguments = parser.parse_args()
    try:
        main(arguments.out, arguments.case)
    except brainsegnet.BrainSegNetError as error:
        parser.exit(1, f"{error}\n")
