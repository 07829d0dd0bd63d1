"""What cutting a scan into slabs costs: the paper's, side by side, and ours, which overlap by the network's reach.

    python benchmarks/seams.py DATA --model RUN --out benchmarks/results/seams.json

For each case with a known lesion: Dice by region in one pass and in slabs of 31 slices, how many voxels of the brain's
box change their label, and where those lie, by their distance in slices from the nearest seam.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from brainsegnet.inference.predict import Engine, LoadedCase, prepare_case
from brainsegnet.inference.segmenter import open_engine
from brainsegnet.inference.tiling import overlapping, side_by_side
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.metrics.scores import dice
from brainsegnet.model.store import open_model
from brainsegnet.preprocessing.prepare import follow

THICKNESS = 31
DISTANCES = ((0, 1), (1, 3), (3, 8), (8, 99))


def overlapped(engine: Engine, image: np.ndarray) -> np.ndarray:
    """The classes (D, H, W) from slabs that keep 31 slices and are computed with the halo."""
    depth, step = image.shape[1], engine.backend.multiples[0]
    parts = []
    for tile in overlapping(depth, THICKNESS, engine.backend.halo, step):
        first = tile.kept.start - tile.computed.start
        parts.append(engine.classify(image[:, tile.computed])[first : first + tile.kept.stop - tile.kept.start])
    return np.concatenate(parts)


def seam_distance(depth: int) -> np.ndarray:
    """Slices between each slice and the nearest seam; 0 beside it."""
    seams = [tile.kept.start for tile in side_by_side(depth, THICKNESS)][1:]
    slices = np.arange(depth)
    return np.min([np.minimum(abs(slices - seam), abs(slices - seam + 1)) for seam in seams], axis=0)


def examine(engine: Engine, image: np.ndarray, truth: np.ndarray) -> dict:
    """One case, all ways; `truth` holds the values of the task in the box."""
    task = engine.card.task
    one, paper, ours = engine.classify(image), engine.classify(image, THICKNESS), overlapped(engine, image)

    def scores(classes: np.ndarray) -> dict[str, float]:
        found = task.decode(classes)
        return {r: round(dice(np.isin(found, v), np.isin(truth, v)), 4) for r, v in task.regions.items()}

    changed, distance = (one != paper).sum((1, 2)), seam_distance(len(one))
    lesion = np.maximum(((one > 0) | (paper > 0)).sum((1, 2)), 1)
    return {
        "slices": len(one),
        "dice": {"one pass": scores(one), "slabs of 31": scores(paper), "overlapping slabs": scores(ours)},
        "voxels_changed": {"slabs of 31": int(changed.sum()), "overlapping slabs": int((one != ours).sum())},
        "share_of_lesion_changed_by_distance": {
            f"{low} to {high - 1}": round(float(changed[near].sum() / lesion[near].sum()), 4)
            for low, high in DISTANCES
            if (near := (distance >= low) & (distance < high)).any()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--cases", nargs="*", help="all by default")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    engine = open_engine(open_model(arguments.model), "cpu", precision="float")
    result = {}
    for files in find_cases(arguments.data):
        if files.lesion is None or (arguments.cases and files.name not in arguments.cases):
            continue
        case = load_case(files, engine.card.sequences, engine.card.task, lesion=True, allow_missing=True)
        prepared_case = prepare_case(LoadedCase(case), engine.card)
        truth = follow(case.lesion.array, prepared_case.prepared)  # type: ignore[union-attr]
        result[files.name] = examine(engine, prepared_case.image, truth)
        print(files.name, json.dumps(result[files.name], indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
