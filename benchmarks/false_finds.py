"""Where a model is wrong on real scans, and what it sees there: for mending the generator that its cases came from.

    python benchmarks/false_finds.py runs/simulated DATA/tumour/brats2021 --out finds.json

For each case, no component dropped: Dice by region, how much was found and missed, how sure the model is of the largest
find that touches the lesion (`sure`, the mean lesion probability), and the largest finds that touch none, with volume,
place (share of the brain's box from the feet, the forehead and the left or right edge), confidence, depth under the
brain's surface and z-scores by sequence. Only for a model that has not seen the cases.

Then, over all cases: how many true lesions (connected components) are touched, by their size in ml, and Dice of the
whole lesion by the probability from which on a voxel is called lesion (the sum over all tissues). The best threshold
goes into `ship.py --threshold`, which is exact where there is one tissue (`release.threshold`); look for it on other
cases than those it is to be judged on.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from scipy import ndimage

import brainsegnet
from brainsegnet._atomic import write_text
from brainsegnet._types import Array
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.io.images import read_image, read_labels
from brainsegnet.model.store import open_model
from brainsegnet.task import Task
from brainsegnet.volume import Case

THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7)
SIZES_ML = (0.04, 0.1, 0.3, 1.0, 5.0)
"""Sizes that divide lesions."""
LARGEST = 6
LEAST_ML = 0.15


def dice(found: Array, true: Array) -> float:
    total = found.sum() + true.sum()
    return round(float(2 * (found & true).sum() / total), 3) if total else 1.0


def describe(case: Case, found: Array, true: Array, probability: Array, task: Task) -> dict[str, Any]:
    """What was found, missed and found wrongly in one scan, labels (D, H, W) in the convention of the task.

    `probability` (D, H, W) is that of any lesion.
    """
    ml = case.reference.voxel_ml
    parts, sizes = components(found > 0)
    hits = [part for part in np.unique(parts[true > 0]) if part]
    return {
        "dice": {name: dice(np.isin(found, m), np.isin(true, m)) for name, m in task.regions.items()},
        "true_ml": round(float((true > 0).sum() * ml), 1),
        "missed_ml": round(float(((true > 0) & (found == 0)).sum() * ml), 1),
        "wrong_ml": round(float(((true == 0) & (found > 0)).sum() * ml), 1),
        "sure": round(float(probability[parts == max(hits, key=lambda part: sizes[part])].mean()), 3) if hits else None,
        "finds": false_finds(case, found > 0, true > 0, probability),
        "lesions": touched(found > 0, true > 0, ml),
        "thresholds": {str(t): dice(probability > t, true > 0) for t in THRESHOLDS},
    }


def touched(found: Array, true: Array, voxel_ml: float) -> dict[str, list[int]]:
    """How many of the true lesions (D, H, W) were touched, and how many there are, by the size that they are below."""
    parts, sizes = components(true)
    hits = np.isin(np.arange(sizes.size), parts[found & true])
    groups = np.digitize(sizes[1:] * voxel_ml, SIZES_ML)
    names = [*(f"below {ml:g} ml" for ml in SIZES_ML), "larger"]
    return {name: [int(hits[1:][groups == k].sum()), int((groups == k).sum())] for k, name in enumerate(names)}


def over_all(results: Mapping[str, Any]) -> dict[str, Any]:
    """Lesions touched and there in all cases, and mean Dice by threshold."""
    rows = list(results.values())
    lesions = {name: np.sum([row["lesions"][name] for row in rows], axis=0).tolist() for name in rows[0]["lesions"]}
    return {
        "lesions": lesions,
        "thresholds": {str(t): mean(row["thresholds"][str(t)] for row in rows) for t in THRESHOLDS},
    }


def components(found: Array) -> tuple[Array, Array]:
    """Connected components (D, H, W), and the voxels of each; those that touch in a corner are one."""
    parts, _ = ndimage.label(found, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts, sizes


def false_finds(case: Case, found: Array, true: Array, probability: Array) -> list[dict[str, Any]]:
    """The largest parts of what was found (D, H, W) that lie apart from what is there."""
    ml, spacing_mm = case.reference.voxel_ml, case.reference.spacing_mm
    images = {name: volume.array.astype(np.float32) for name, volume in case.images.items()}
    brain = np.any([image != 0 for image in images.values()], axis=0)
    inside = np.argwhere(brain)
    first, extent = inside.min(axis=0), np.ptp(inside, axis=0) + 1
    depth = ndimage.distance_transform_edt(np.pad(brain, 1), spacing_mm)[1:-1, 1:-1, 1:-1]
    parts, sizes = components(found)
    sizes_ml = sizes * ml
    sizes_ml[np.unique(parts[ndimage.binary_dilation(true, iterations=3)])] = 0
    finds = []
    for part in [part for part in np.argsort(sizes_ml)[::-1][:LARGEST] if sizes_ml[part] > LEAST_ML]:
        where = parts == part
        place = (np.argwhere(where).mean(axis=0) - first) / extent
        seen = {
            name: (image[where].mean() - image[brain].mean()) / image[brain].std() for name, image in images.items()
        }
        finds.append(
            {
                "ml": round(float(sizes_ml[part]), 1),
                "place": place.round(2).tolist(),
                "sure": round(float(probability[where].mean()), 3),
                "depth_mm": round(float(depth[where].mean()), 1),
                "z": {name: round(float(value), 1) for name, value in seen.items()},
            }
        )
    return finds


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
            out = Path(folder) / "found.nii.gz"
            brainsegnet.segment(
                files.images,
                arguments.model,
                out,
                brainsegnet.SegmentOptions(probabilities=True, keep_all_components=True, allow_poor=True),
            )
            found = read_labels(out).array
            probability = 1 - read_image(Path(folder) / "found_background.nii.gz").array
        results[case.name] = describe(case, found, case.lesion.array, probability, task)
        told = {key: value for key, value in results[case.name].items() if key not in ("lesions", "thresholds")}
        sys.stdout.write(f"{case.name}: {json.dumps(told)}\n")
        sys.stdout.flush()
    summary = over_all(results) if results else {}
    for what, by in summary.items():
        sys.stdout.write(f"{what}: " + ", ".join(f"{name}: {tell(value)}" for name, value in by.items()) + "\n")
    if arguments.out:
        write_text(json.dumps({"cases": results, **summary}, indent=1) + "\n", arguments.out)


def tell(value: float | list[int]) -> str:
    """A count of a whole, or a mean."""
    return f"{value[0]} of {value[1]}" if isinstance(value, list) else f"{value:.3f}"


if __name__ == "__main__":
    main()
