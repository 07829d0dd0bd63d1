"""Build `src/brainsegnet/anatomy/atlas.npz` from label maps of heads, and measure how often it tells the right place.

Run: python tools/build_atlas.py LABEL_MAPS --out src/brainsegnet/anatomy/atlas.npz \
         --json benchmarks/results/atlas.json

LABEL_MAPS is a folder of the training label maps of SynthSeg (Billot et al. 2023, Medical Image Analysis 86: 102789;
https://github.com/BBillot/SynthSeg, Apache-2.0). The atlas contains no scan. For the figures, atlases are averaged from
three quarters of the maps and tested on the others, moved and turned.
"""

import argparse
import datetime
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from brainsegnet._atomic import replacing, write_text
from brainsegnet._machine import describe_cpu
from brainsegnet._types import Array, Labels
from brainsegnet.anatomy.atlas import LEFT, PARTS, BrainAtlas, average_atlas, describe_site
from brainsegnet.anatomy.heads import find_brain
from brainsegnet.anatomy.label_maps import find_label_maps
from brainsegnet.io.images import read_image
from brainsegnet.preprocessing.geometry import find_turn, turn
from brainsegnet.volume import LabelMap

CORTEX = (3, 42, 17, 18, 53, 54, 19, 20, 55, 56, *range(1000, 1036), *range(2000, 2036))
DEEP = (4, 43, 14, 10, 11, 12, 13, 49, 50, 51, 52, 26, 58, 28, 60, 31, 63, 72)
WHITE = (2, 41, 5, 44, 77, 78, 79, 80, 85, 136, 137, 163, 164, 30, 62, *range(250, 256))
CEREBELLUM, STEM = (7, 8, 46, 47), (16, 15)
LEFT_SIDE = (2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 17, 18, 19, 20, 26, 27, 28, 30, 31, *range(1000, 1036))
RIGHT_SIDE = (41, 42, 43, 44, 46, 47, 49, 50, 51, 52, 53, 54, 55, 56, 58, 59, 60, 62, 63, *range(2000, 2036))
FOLDS = 4
BALLS = 100
"""Lesions that are tried in each head."""
DIAMETERS_MM = (8, 50)
MOST_SHIFT_MM, MOST_DEGREES = 20.0, 15.0


def read_parts(path: Path) -> tuple[LabelMap, LabelMap]:
    """The values of the atlas, 0 outside the brain, and the brain, from a label map of FreeSurfer's values, at 2 mm."""
    volume = read_image(path)
    volume = turn(volume, find_turn(volume.affine))
    values = np.rint(volume.array[::2, ::2, ::2]).astype(np.int32)
    affine = volume.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    solid = np.isin(values, (*CORTEX, *DEEP, *WHITE, *CEREBELLUM, *STEM))
    brain = find_brain(values, solid, LabelMap(values, affine).spacing_mm)
    return LabelMap(_divide(values) * brain, affine), LabelMap(brain.astype(np.uint8), affine)


def _divide(values: Array) -> Labels:
    """Every voxel to the nearest part and side; white matter to cortex or depth, whichever is nearer."""
    seeds = np.zeros(values.shape, np.uint8)
    for number, members in enumerate((CORTEX, DEEP, CEREBELLUM, STEM), start=1):
        seeds[np.isin(values, members)] = number
    cerebral = np.isin(values, (*CORTEX, *DEEP, *WHITE))
    parts = _spread(seeds)
    inner = _spread(np.where(seeds <= 2, seeds, 0).astype(np.uint8))
    parts = np.where(cerebral, inner, parts)
    sides = np.zeros(values.shape, np.uint8)
    sides[np.isin(values, RIGHT_SIDE)], sides[np.isin(values, LEFT_SIDE)] = 1, 2
    return np.asarray(parts + LEFT * (_spread(sides) - 1), np.uint8)


def _spread(seeds: Labels) -> Labels:
    nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    return np.asarray(seeds[tuple(nearest)])


def move(volume: LabelMap, rng: np.random.Generator) -> LabelMap:
    """The same voxels at another place of the world: shifted and turned, as a patient lies in a scanner."""
    angles = np.radians(rng.uniform(-MOST_DEGREES, MOST_DEGREES, 3))
    matrix = np.eye(4)
    for axis, angle in enumerate(angles):
        step = np.eye(4)
        a, b = [other for other in range(3) if other != axis]
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = -np.sin(angle), np.sin(angle)
        matrix = step @ matrix
    matrix[:3, 3] = rng.uniform(-MOST_SHIFT_MM, MOST_SHIFT_MM, 3)
    return LabelMap(volume.array, matrix @ volume.affine)


def try_head(atlas: BrainAtlas, parts: LabelMap, brain: LabelMap, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Balls at random places of a brain: what the atlas says of each, and what the label map of the head says."""
    parts = move(parts, rng)
    placed = atlas.fit(LabelMap(brain.array, parts.affine))
    inside = np.argwhere(parts.array)
    points = inside @ parts.affine[:3, :3].T + parts.affine[:3, 3]
    truths, found = parts.array[tuple(inside.T)], placed.look_up(points)
    tried = []
    for middle in points[rng.integers(len(points), size=BALLS)]:
        diameter = float(rng.uniform(*DIAMETERS_MM))
        ball = ((points - middle) ** 2).sum(axis=1) <= (diameter / 2) ** 2
        truth, said = describe_site(truths[ball]), describe_site(found[ball])
        tried.append({"mm": diameter, "truth": truth, "said": said, "dice": placed.agreement})
    return tried


def score(tried: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares of the balls with the right side and place."""

    def share(rows: list[dict[str, Any]], *names: str) -> float:
        return round(
            float(np.mean([all(getattr(r["truth"], n) == getattr(r["said"], n) for n in names) for r in rows])), 3
        )

    coarse = np.mean([r["truth"].place.split(",")[0] == r["said"].place.split(",")[0] for r in tried])
    opposite = np.mean([{r["truth"].side, r["said"].side} == {"left", "right"} for r in tried])
    sure = [r for r in tried if r["said"].share >= 0.7]
    return {
        "lesions": len(tried),
        "side": share(tried, "side"),
        "opposite side": round(float(opposite), 4),
        "cerebrum, cerebellum or brain stem alone": round(float(coarse), 3),
        "part": share(tried, "place"),
        "part and side": share(tried, "place", "side"),
        "part, where its share is at least 0.7": {"lesions": len(sure), "right": share(sure, "place")},
        "by truth": {
            part: {"lesions": len(rows), "right": share(rows, "place")}
            for part in PARTS
            if (rows := [r for r in tried if r["truth"].place == part])
        },
    }


def main() -> None:
    """Build, test, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("label_maps", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    heads = [read_parts(path) for path in find_label_maps(options.label_maps)]
    tried = test(heads)
    result = {
        "what": f"balls of {DIAMETERS_MM[0]} to {DIAMETERS_MM[1]} mm at random places of {len(heads)} label maps, each "
        "left out of the average, shifted and turned; no score had a part in a choice",
        "date": datetime.date.today().isoformat(),
        "processor": describe_cpu(),
        "versions": {"numpy": np.__version__, "python": platform.python_version()},
        "dice_of_the_brains": [round(float(end(row["dice"] for row in tried)), 3) for end in (min, max)],
        **score(tried),
    }
    write_text(json.dumps(result, indent=2) + "\n", options.json)
    print(json.dumps(result, indent=2))
    atlas = average_atlas(heads)
    deep = result["by truth"][PARTS[1]]["right"]
    tested = np.array([result["lesions"], result["side"], result["part"], deep])
    brain = np.rint(atlas.brain.array * 15).astype(np.uint8) * 17
    with replacing(options.out) as temporary:
        np.savez_compressed(temporary, parts=atlas.parts.array, brain=brain, affine=atlas.parts.affine, tested=tested)
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB")


def test(heads: Sequence[tuple[LabelMap, LabelMap]]) -> list[dict[str, Any]]:
    """Try balls in each head, with an atlas of the other folds."""
    rng, tried = np.random.default_rng(26), []
    for fold in range(FOLDS):
        atlas = average_atlas([head for number, head in enumerate(heads) if number % FOLDS != fold])
        for parts, brain in heads[fold::FOLDS]:
            tried += try_head(atlas, parts, brain, rng)
    return tried


if __name__ == "__main__":
    main()
