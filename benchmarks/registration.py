"""Rigid registration against known motions, and the check of sequences that share a grid, on real scans.

    python benchmarks/registration.py DATA --out benchmarks/results/registration.json

`raw`: the sequences of a raw study are registered to each other, and each is moved further by a known motion. The
error is the mean distance over the head between the two motions that are found, less the known one. `cycles_mm`: how
far the way over a third sequence ends from the direct one. `one_grid`: sequences of prepared cases, as they are and
interpolated after a known motion; how many are registered, and the error against where the prepared case placed them.
The limits of the check were set on the cases of `one_grid` and their motions, so its figures say nothing of others.
"""

import argparse
import datetime
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image
from brainsegnet.preprocessing.alignment import align, resample
from brainsegnet.preprocessing.registration import RADIUS_MM, Pyramid, Registration, build_motion, register, to_matrix
from brainsegnet.volume import Volume

STUDY = "TCGA-FG-6692"
RAW_MOTIONS = ((2, 2), (10, 10), (30, 20))
GRID_MOTIONS = ((0, 0), (0.5, 0.5), (1, 1), (2, 2), (5, 5))
"""Millimetres and degrees, in random directions."""
FOLDERS = ("tumour/brats2015", "tumour/brats2021", "tumour/brats2023", "stroke/isles2022", "ms/lesjak2017")


def draw_motion(rng: np.random.Generator, mm: float, degrees: float, centre: np.ndarray) -> np.ndarray:
    """A motion (4, 4) in random directions."""
    shift, axis = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    return to_matrix(build_motion((*mm * shift, *np.radians(degrees) * RADIUS_MM * axis), centre))


def measure_gap(one: np.ndarray, other: np.ndarray, reference: Pyramid) -> float:
    """Mean distance in mm between two motions (4, 4) over the head of a reference."""
    return float(np.linalg.norm((one - other)[:3, :3] @ reference.places + (one - other)[:3, 3:], axis=0).mean())


def judge_raw(images: Mapping[str, Volume], rng: np.random.Generator) -> dict[str, Any]:
    """Motions, errors and seconds of a raw study."""
    bases = {name: Pyramid(image, name) for name, image in images.items()}
    found: dict[tuple[str, str], Registration] = {}
    seconds: list[float] = []
    errors: dict[str, list[float]] = {f"{mm:g} mm, {degrees:g} degrees": [] for mm, degrees in RAW_MOTIONS}
    for first, name in permutations(images, 2):
        started = time.process_time()
        found[first, name] = register(images[name], images[first])
        seconds.append(time.process_time() - started)
        for (mm, degrees), row in zip(RAW_MOTIONS, errors.values(), strict=True):
            motion = draw_motion(rng, mm, degrees, bases[first].centre)
            known = motion @ np.linalg.inv(found[first, name].matrix)
            again = register(replace(images[name], affine=known @ images[name].affine), bases[first])
            row.append(measure_gap(again.matrix, motion, bases[first]))
    cycles = [
        measure_gap(found[b, c].matrix @ found[a, b].matrix, found[a, c].matrix, bases[a])
        for a, b, c in permutations(images, 3)
    ]
    return {
        "motions": {f"{first} <- {name}": one.to_json() for (first, name), one in found.items()},
        "errors_mm": {name: {"mean": round(mean(row), 2), "most": round(max(row), 2)} for name, row in errors.items()},
        "cycles_mm": {"mean": round(mean(cycles), 2), "most": round(max(cycles), 2)},
        "median_processor_seconds": round(median(seconds), 3),
    }


def judge_one_grid(folders: Sequence[Path], rng: np.random.Generator) -> dict[str, Any]:
    """For each motion: how many sequences on the grid of the first are registered, errors and seconds."""
    rows: dict[str, list[tuple[float | None, float]]] = {
        f"{mm:g} mm, {degrees:g} degrees": [] for mm, degrees in GRID_MOTIONS
    }
    for files in (files for folder in folders for files in find_cases([folder])):
        images = {name: read_image(path) for name, path in files.images.items()}
        first, *others = images
        base = Pyramid(images[first], first)
        for name in (name for name in others if images[name].on_grid_of(base.volume)):
            for (mm, degrees), row in zip(GRID_MOTIONS, rows.values(), strict=True):
                motion, image = draw_motion(rng, mm, degrees, base.centre), images[name]
                if mm:
                    back = Registration(np.linalg.inv(motion), 0, 0, 0, 0).transform
                    image = resample(image, base.volume, back)
                started = time.process_time()
                told = align(files.name, {first: base.volume, name: image}, reference=first).motions[name]
                spent = time.process_time() - started
                gap = measure_gap(told.registration.matrix, motion, base) if told.registration else None
                row.append((gap, spent))
    return {
        name: {
            "sequences": len(row),
            "registered": sum(gap is not None for gap, _ in row),
            "mean_error_mm": round(mean([gap for gap, _ in row if gap is not None] or [0]), 2),
            "median_processor_seconds": round(median(spent for _, spent in row), 3),
        }
        for name, row in rows.items()
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the real scans")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    folder, rng = options.data / "raw" / STUDY.lower(), np.random.default_rng(0)
    images = {name: read_image(folder / f"{STUDY}_{name}.nii.gz") for name in ("flair", "t1", "t1c", "t2")}
    result = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": describe_cpu(),
        "versions": find_versions(),
        "raw": judge_raw(images, rng),
        "one_grid": judge_one_grid([options.data / name for name in FOLDERS], rng),
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
