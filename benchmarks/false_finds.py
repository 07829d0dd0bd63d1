"""Where a model is wrong on real scans, and what it sees there: for mending the generator that its cases came from.

    python benchmarks/false_finds.py runs/grown DATA/tumour/brats2021 --out finds.json

For each case, no island dropped: Dice by region, how much was found and missed, how sure the model is of the largest
find that touches the lesion (`sure`, the mean lesion probability), and the largest finds that touch none, with volume,
place (share of the brain's box from the feet, the forehead and the left or right edge), sureness, depth under the
brain's surface and z-scores by sequence. Only for a model that has not seen the cases.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

import brainsegnet
from brainsegnet.inference.model import open_model
from brainsegnet.output import write_text
from brainsegnet.scans.datasets import find_cases, load_case
from brainsegnet.scans.files import read_image, read_labels
from brainsegnet.task import Task
from brainsegnet.volume import Array, Case

LARGEST = 6
LEAST_ML = 0.15


def dice(found: Array, true: Array) -> float:
    total = found.sum() + true.sum()
    return round(float(2 * (found & true).sum() / total), 3) if total else 1.0


def describe(case: Case, found: Array, true: Array, chance: Array, task: Task) -> dict[str, Any]:
    """What was found, missed and found wrongly in one scan, labels (D, H, W) in the convention of the task.

    `chance` is the probability (D, H, W) of any lesion.
    """
    ml = case.reference.voxel_ml
    parts, sizes = islands(found > 0)
    hits = [part for part in np.unique(parts[true > 0]) if part]
    return {
        "dice": {name: dice(np.isin(found, m), np.isin(true, m)) for name, m in task.regions.items()},
        "true_ml": round(float((true > 0).sum() * ml), 1),
        "missed_ml": round(float(((true > 0) & (found == 0)).sum() * ml), 1),
        "wrong_ml": round(float(((true == 0) & (found > 0)).sum() * ml), 1),
        "sure": round(float(chance[parts == max(hits, key=lambda part: sizes[part])].mean()), 3) if hits else None,
        "finds": false_finds(case, found > 0, true > 0, chance),
    }


def islands(found: Array) -> tuple[Array, Array]:
    """Connected components (D, H, W), and the voxels of each; those that touch in a corner are one."""
    parts, _ = ndimage.label(found, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts, sizes


def false_finds(case: Case, found: Array, true: Array, chance: Array) -> list[dict[str, Any]]:
    """The largest parts of what was found (D, H, W) that lie apart from what is there."""
    ml, spacing_mm = case.reference.voxel_ml, case.reference.spacing_mm
    images = {name: volume.array.astype(np.float32) for name, volume in case.images.items()}
    brain = np.any([image != 0 for image in images.values()], axis=0)
    inside = np.argwhere(brain)
    first, extent = inside.min(axis=0), np.ptp(inside, axis=0) + 1
    depth = ndimage.distance_transform_edt(np.pad(brain, 1), spacing_mm)[1:-1, 1:-1, 1:-1]
    parts, sizes = islands(found)
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
                "sure": round(float(chance[where].mean()), 3),
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
                files.images, arguments.model, out, brainsegnet.SegmentOptions(probabilities=True, keep_islands=True)
            )
            found = read_labels(out).array
            chance = 1 - read_image(Path(folder) / "found_background.nii.gz").array
        results[case.name] = describe(case, found, case.lesion.array, chance, task)
        sys.stdout.write(f"{case.name}: {json.dumps(results[case.name])}\n")
        sys.stdout.flush()
    if arguments.out:
        write_text(json.dumps(results, indent=1) + "\n", arguments.out)


if __name__ == "__main__":
    main()
