"""Simulated cases beside real ones in figures: what a network sees that differs is what it will get wrong.

    python benchmarks/simulated_and_real.py SIMULATED --real FOLDER FOLDER --task brats2021 --out looks.json

For every figure the 10th, 50th and 90th percentile over the simulated cases and over the real ones. Intensities are
z-scores within the brain, as a network gets them. `outline` and `surface` are voxel faces over those of a cube of the
same volume (a ball: 1.2). `bright and healthy` is tissue 10 mm and more from the lesion that is brighter by 1.5 sigma
than its median, in the outer 6 mm of the brain and beneath. `noise` is what a mean over 3x3x3 voxels takes
away, `grain` what one over 7x7x7 takes from that. `ring` lies 3 to 12 mm outside the lesion.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from brainsegnet._atomic import write_text
from brainsegnet._types import Array
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.metrics.table import Table, number_columns
from brainsegnet.task import Task, load_task
from brainsegnet.volume import Case

FEWEST = 200
"""Voxels below which nothing is said of a tissue or place."""
HEALTHY = (1, 5, 25, 75, 95, 99)


def surface(mask: Array) -> float:
    """Faces of a mask (D, H, W) over those of a cube of its volume."""
    faces = sum(np.count_nonzero(np.diff(np.pad(mask, 1), axis=axis)) for axis in range(3))
    return float(faces / (6 * np.maximum(1, np.count_nonzero(mask)) ** (2 / 3)))


def look_at(case: Case, task: Task) -> dict[str, float]:
    """The figures of one case."""
    if case.lesion is None:
        return {}
    labels, voxel_ml = case.lesion.array, case.lesion.voxel_ml
    spacing_mm = case.lesion.spacing_mm
    images = {name: volume.array.astype(np.float32) for name, volume in case.images.items()}
    brain = np.any([image != 0 for image in images.values()], axis=0)
    lesion = labels > 0
    beside = ndimage.distance_transform_edt(~lesion, spacing_mm)
    depth = ndimage.distance_transform_edt(np.pad(brain, 1), spacing_mm)[1:-1, 1:-1, 1:-1]
    found = {"brain, ml": brain.sum() * voxel_ml, "outline of the brain": surface(brain)}
    for region, members in task.regions.items():
        mask = np.isin(labels, members)
        found[f"{region}, ml"] = mask.sum() * voxel_ml
        if mask.sum() > FEWEST:
            found[f"{region}, surface"] = surface(mask)
    places = {"ring": brain & (beside > 3) & (beside <= 12), "healthy": brain & (beside > 10)}
    tissues = {task.labels[value]: labels == value for value in np.unique(labels) if value}
    for name, image in images.items():
        z = (image - image[brain].mean()) / image[brain].std()
        found |= {f"{name}, {k}": v for k, v in look_at_image(z, brain, depth, places | tissues, voxel_ml).items()}
    return {key: round(float(value), 3) for key, value in found.items()}


def look_at_image(
    z: Array, brain: Array, depth: Array, places: Mapping[str, Array], voxel_ml: float
) -> dict[str, float]:
    """The figures of one sequence (D, H, W) in z-scores."""
    healthy = places["healthy"]
    middle = np.median(z[healthy])
    found = {
        f"healthy, {share} %": value for share, value in zip(HEALTHY, np.percentile(z[healthy], HEALTHY), strict=True)
    }
    bright = healthy & (z > middle + 1.5)
    found["bright and healthy, outer, ml"] = (bright & (depth <= 6)).sum() * voxel_ml
    found["bright and healthy, inner, ml"] = (bright & (depth > 6)).sum() * voxel_ml
    three, seven = ndimage.uniform_filter(z, 3), ndimage.uniform_filter(z, 7)
    inner = healthy & (depth > 6)
    for name, detail in (("noise", z - three), ("grain", three - seven)):
        found[name] = 1.4826 * np.median(np.abs(detail[inner]))
    for name, mask in places.items():
        inside = z[mask & brain]
        if name != "healthy" and inside.size > FEWEST:
            low, high = np.percentile(inside, (5, 95)) - middle
            found |= {f"{name}, mean": inside.mean() - middle, f"{name}, 5 %": low, f"{name}, 95 %": high}
    return found


def look(folders: Sequence[Path], task: Task, most: int | None) -> list[dict[str, float]]:
    files = find_cases(folders)[:most]
    return [look_at(load_case(file, task.sequences, task, lesion=True), task) for file in files]


def spread(cases: Sequence[Mapping[str, float]], key: str) -> list[float]:
    values = [case[key] for case in cases if key in case]
    return np.percentile(values, (10, 50, 90)).round(2).tolist() if values else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simulated", type=Path, nargs="+")
    parser.add_argument("--real", type=Path, nargs="+", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--cases", type=int, help="so many of the simulated cases only, the first")
    parser.add_argument("--out", type=Path, help="JSON of every case's figures")
    arguments = parser.parse_args()
    task = load_task(arguments.task)
    cases = {"simulated": look(arguments.simulated, task, arguments.cases), "real": look(arguments.real, task, None)}
    keys = dict.fromkeys(key for group in cases.values() for case in group for key in case)
    rows = [[key, *(" / ".join(f"{v:.2f}" for v in spread(group, key)) for group in cases.values())] for key in keys]
    columns = number_columns("", *(f"{name} ({len(group)})" for name, group in cases.items()))
    sys.stdout.write(Table(columns, rows).to_markdown())
    if arguments.out:
        write_text(json.dumps(cases, indent=1) + "\n", arguments.out)


if __name__ == "__main__":
    main()
