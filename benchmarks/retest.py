"""What a repeat of a scan changes in volumes and diameters: test and retest of one head, segmented by a shipped model.

    python benchmarks/retest.py scan tumour DATA/tumour SIMULATED --work /scratch/retest
    python benchmarks/retest.py fit tumour --work /scratch/retest --out benchmarks/results/retest-tumour.json

`scan` moves each head (up to 10 degrees about any axis, up to 10 mm), resamples it, gives every sequence a new bias
field and new noise, and segments it, `--trials` times. It leaves out what it finds in its folder, so it can be stopped
and started again. `fit` compares all pairs of scans of one head. `brainsegnet.followup.retest` says what is fitted.

The constants are fitted on all heads. `coverage` is judged on each head with the constants of the others, all scans of
one patient left out together. `real` and `simulated` tell it for each kind. `trained_on` counts the heads whose
patients the model was trained on: their scans may be segmented more steadily than others.
"""

import argparse
import datetime
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from brainsegnet import Segmenter
from brainsegnet._atomic import replacing, write_text
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet._types import Affine, Array
from brainsegnet.io.cases import CaseFiles, find_cases, load_case
from brainsegnet.io.patients import patient_of
from brainsegnet.model.store import resolve_model
from brainsegnet.preprocessing.alignment import resample
from brainsegnet.volume import Box, Case, Volume, load_itk

MOST_DEGREES, MOST_MM = 10.0, 10.0
FIELD_SD = (0.02, 0.08)
"""Standard deviation of the logarithm of the new bias field: drawn between these."""
FIELD_NODES = 4
"""Of the bias field, along each axis of the head."""
NOISE = (0.01, 0.04)
"""Standard deviation of the new noise, as a share of the median of the brain: drawn between these."""
ROOM_MM = 16.0
"""What the new field of view adds on every side, so that the moved head stays inside."""
SIMULATED = "simulated"


def draw_motion(rng: np.random.Generator, centre: Array) -> Affine:
    """(4, 4), a rotation about a random axis through `centre` (x, y, z) and a shift in a random direction."""
    axis, direction = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 3)))
    angle = np.radians(rng.uniform(0, MOST_DEGREES))
    cross = np.cross(np.eye(3), axis)
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    motion = np.eye(4)
    motion[:3, :3] = rotation
    motion[:3, 3] = centre - rotation @ centre + rng.uniform(0, MOST_MM) * direction
    return motion


def frame_head(case: Case) -> Volume:
    """An empty volume on the voxels of a case, around its head and `ROOM_MM` on every side."""
    grid = case.reference
    box = Box.around(np.any([image.array != image.array.flat[0] for image in case.images.values()], axis=0))
    steps = [round(ROOM_MM / size) for size in grid.spacing_mm]
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.subtract(box.start, steps)
    return Volume(np.zeros([n + 2 * step for n, step in zip(box.shape, steps, strict=True)], np.float32), affine)


def draw_field(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    """A smooth field (D, H, W) with mean 1."""
    smooth = rng.normal(size=(FIELD_NODES,) * 3).astype(np.float32)
    for axis, n in enumerate(shape):
        spread = ndimage.zoom(np.eye(FIELD_NODES), (n / FIELD_NODES, 1), order=3, grid_mode=True, mode="nearest")
        smooth = np.moveaxis(np.tensordot(spread.astype(np.float32), smooth, (1, axis)), 0, axis)
    return np.asarray(np.exp(rng.uniform(*FIELD_SD) / smooth.std() * smooth))


def scan_again(case: Case, rng: np.random.Generator) -> tuple[Case, Affine]:
    """The case as another scan of the same head, and the motion from the new scan to the old one."""
    grid = frame_head(case)
    centre = grid.affine[:3] @ (*((n - 1) / 2 for n in grid.shape), 1)
    motion = draw_motion(rng, centre)
    transform = load_itk().AffineTransform(motion[:3, :3].ravel().tolist(), motion[:3, 3].tolist())
    images = {}
    for name, image in case.images.items():
        air, lowest = image.array.flat[0], float(image.array.min())
        shifted = image.with_array(np.where(image.array == air, 0, image.array - lowest).astype(np.float32))
        array = resample(shifted, grid, transform).array
        inside = array > 0
        level = float(np.median(array[inside]))
        noise = level * rng.uniform(*NOISE) * rng.standard_normal(array.shape, np.float32)
        array = np.where(inside, np.maximum(array * draw_field(rng, array.shape) + noise, level / 1000), 0)
        images[name] = grid.with_array(array.astype(np.float32))
    return Case(case.name, images), motion


def scan_all(segmenter: Segmenter, files: CaseFiles, kind: str, work: Path, trials: int) -> float:
    """Segment a case and its repeats into one file each. Returns the seconds of the processor."""
    card, started, case = segmenter.model.card, time.process_time(), None
    for trial in range(trials + 1):
        path = work / f"{files.name}.{trial}.npz"
        if path.exists():
            continue
        if case is None:
            case = load_case(files, card.sequences, card.task, lesion=False, allow_missing=True)
        seed = [trial, *files.name.encode()]
        scan, motion = scan_again(case, np.random.default_rng(seed)) if trial else (case, np.eye(4))
        labels = segmenter(scan).labels
        with replacing(path) as part, part.open("wb") as stream:
            np.savez_compressed(stream, labels=labels.array, affine=labels.affine, motion=motion, kind=kind)
    return time.process_time() - started


def run_scan(model: str, data: Sequence[Path], work: Path, trials: int, threads: int) -> None:
    """Segment all cases and their repeats."""
    work.mkdir(parents=True, exist_ok=True)
    with Segmenter(model, threads=threads, allow_poor=True, device="cpu") as segmenter:
        for source in data:
            for files in find_cases([source]):
                kind = SIMULATED if SIMULATED in str(source) or (source / files.name / "simulated.json").is_file() else "real"
                seconds = scan_all(segmenter, files, kind, work, trials)
                print(f"{files.name} ({kind}): {seconds:.0f} s of the processor", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("scan", "fit"))
    parser.add_argument("model")
    parser.add_argument("data", type=Path, nargs="*")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    run_scan(arguments.model, arguments.data, arguments.work, arguments.trials, arguments.threads)


if __name__ == "__main__":
    main()
