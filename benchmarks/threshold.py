"""Mean Dice by the lesion probability from which on a voxel is called lesion, on cases that a model has not seen.

    python benchmarks/threshold.py runs/stroke/grown/last unseen/stroke --out threshold.json

The probability is the sum over all tissues, no island is dropped, and the lesion is any tissue. The best threshold goes
into `ship.py --threshold` (which is exact where there is one tissue, see `api.leaning`); look for it on cases that are
not those it is to be judged on.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

import brainsegnet
from brainsegnet.evaluation.markdown import markdown_table
from brainsegnet.inference.model import open_model
from brainsegnet.output import write_text
from brainsegnet.scans.datasets import find_cases, load_case
from brainsegnet.scans.files import read_image
from brainsegnet.volume import Array

THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7)


def try_all(chance: Array, true: Array) -> dict[float, float]:
    """Dice of a lesion (D, H, W) by threshold of its probability (D, H, W); 1 where there is none and none is found."""
    found = {threshold: chance > threshold for threshold in THRESHOLDS}
    sizes = {threshold: int(mask.sum() + true.sum()) for threshold, mask in found.items()}
    return {t: float(2 * (found[t] & true).sum() / size) if size else 1.0 for t, size in sizes.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    task, results = open_model(arguments.model).card.task, {}
    for files in find_cases(arguments.data):
        case = load_case(files, task.sequences, task, lesion=True)
        if case.lesion is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            options = brainsegnet.SegmentOptions(probabilities=True, keep_islands=True)
            brainsegnet.segment(files.images, arguments.model, Path(folder) / "found.nii.gz", options)
            chance = 1 - read_image(Path(folder) / "found_background.nii.gz").array
        results[case.name] = try_all(chance, case.lesion.array > 0)
    mean = {t: float(np.mean([row[t] for row in results.values()])) for t in THRESHOLDS}
    rows = [[f"{t:g}", f"{dice:.3f}"] for t, dice in mean.items()]
    sys.stdout.write(markdown_table(["threshold", f"Dice ({len(results)} cases)"], rows) + "\n")
    if arguments.out:
        write_text(json.dumps({"mean": mean, "cases": results}, indent=1) + "\n", arguments.out)


if __name__ == "__main__":
    main()
