"""The first minute: segment a glioma with a model of the package, score it and draw it; torch is not needed.

Run it with `make try`, or: python examples/first_minute.py FOLDER [CASE]

The case in `examples/glioma` is grown by the software itself, nobody's scan; a folder of your own may take its place.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console

import brainsegnet

CASE = Path(__file__).parent / "glioma"


def main(out: Path, case: Path) -> None:
    """Everything into the folder `out`, beside what is there."""
    console = Console()
    options = brainsegnet.SegmentOptions(picture=True, uncertainty=True)
    done = brainsegnet.segment(case, None, out, options)
    for segmented in done.done:
        report = segmented.report
        console.print(f"{segmented.name}, found by {report['model']['name']} in {report['seconds']['network']:.1f} s:")
        for region, interval in report["uncertainty"]["volume_intervals"].items():
            volume, ends = report["volumes_ml"]["regions"][region], (interval["least_ml"], interval["most_ml"])
            console.print(f"  {region} {volume:.1f} ml, probably {ends[0]:.1f} to {ends[1]:.1f} ml")
        for doubt in report["doubts"]:
            console.print(f"  warning: {doubt}")
    if case == CASE:
        found = done.done[0]
        scores = brainsegnet.evaluate(found.path, case, found.report["task"], out / "scores").scores[case.name]
        console.print("Dice against the truth: " + ", ".join(f"{name} {s.dice:.2f}" for name, s in scores.items()))
    pictures = [str(out / f"{segmented.name}.png") for segmented in done.done]
    (out / "first_minute.json").write_text(json.dumps([d.report for d in done.done], indent=2) + "\n", encoding="utf-8")
    console.print(f"Pictures: {', '.join(pictures)}; all figures: {out / 'first_minute.json'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=Path("first"))
    parser.add_argument("case", type=Path, nargs="?", default=CASE)
    arguments = parser.parse_args()
    try:
        main(arguments.out, arguments.case)
    except brainsegnet.BrainSegNetError as error:
        parser.exit(1, f"{error}\n")
