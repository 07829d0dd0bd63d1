"""Dice of a model on scans of other voxels, cut from real scans of 1 mm as scanners cut slices.

    python benchmarks/spacing.py tumour DATA/tumour/brats2021 --cases A B --methods all --out choice.json
    python benchmarks/spacing.py tumour DATA/tumour/brats2021 DATA/tumour/brats2023 --out spacing.json

A voxel is the mean over its extent along each axis on which it is larger than 1 mm; smaller ones are interpolated. The
skull-stripped zeros count in that mean, and a voxel that is less than half brain becomes 0. A result is brought back to
the grid of 1 mm by the nearest neighbour and scored with the truth there. `ceiling` is the truth itself, on the way
there and back. Methods differ in how the network sees the scan, and in the way of the probabilities back.
"""

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from brainsegnet import Segmenter
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet.inference.postprocessing import choose_classes, suppress_dropped
from brainsegnet.inference.predict import LoadedCase, RawPrediction
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.metrics.scores import region_dice
from brainsegnet.preprocessing.geometry import turn
from brainsegnet.preprocessing.grids import ANTI_ALIAS, FINER, bring, build_working_grid, each_back, find_ratios
from brainsegnet.preprocessing.prepare import crop
from brainsegnet.task import Task
from brainsegnet.volume import Box, Case, LabelMap, V, Volume, build_itk

PLANES = {"flair": (5, 1, 1), "t1": (1, 1, 5), "t1c": (5, 1, 1), "t2": (1, 5, 1)}
GRIDS: Mapping[str, Mapping[str, tuple[float, float, float]]] = {
    "1": {},
    "2": dict.fromkeys(PLANES, (2, 2, 2)),
    "0.7": dict.fromkeys(PLANES, (0.7, 0.7, 0.7)),
    "0.9 x 0.9 x 3": dict.fromkeys(PLANES, (3, 0.9, 0.9)),
    "1 x 1 x 5": dict.fromkeys(PLANES, (5, 1, 1)),
    "0.5 x 0.5 x 5": dict.fromkeys(PLANES, (5, 0.5, 0.5)),
    "5 mm, three planes": PLANES,
}
"""Name to the spacing (D, H, W) of each sequence in millimetres. The first sequence gives the grid of the result."""
METHODS = ("linear", "dark edges", "cubic", "sinc", "steps", "sharpened", "cubic voxels", "native")
"""How the network sees a scan. All but `native` and `cubic voxels` bring it to the grid of `build_working_grid`."""
WAYS = ("linear", "averaged", "labels")
"""How the result comes back: probabilities at the middle of a voxel, or their mean over it; or the nearest label."""
ITERATIONS = 2
RIM = 10


def mix(n: int, ratio: float) -> np.ndarray:
    """Weights (m, n) of n voxels in each of m that are `ratio` times as large, centred on them."""
    m = max(1, round(n / ratio))
    start = (n - m * ratio) / 2 + np.arange(m) * ratio
    if ratio > 1.01:
        ends = np.clip(np.arange(n + 1) - start[:, None], 0, ratio)
        return np.diff(ends, axis=1) / np.diff(ends, axis=1).sum(1, keepdims=True)
    at = np.clip(start + (ratio - 1) / 2, 0, n - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(n)))


def cut_array(array: np.ndarray, ratios: Sequence[float]) -> np.ndarray:
    """Voxels (D, H, W) that are `ratios` times as large."""
    for axis, (n, ratio) in enumerate(zip(array.shape, ratios, strict=True)):
        array = np.moveaxis(np.tensordot(mix(n, ratio).astype(np.float32), array, (1, axis)), 0, axis)
    return array


def cut(image: V, spacing_mm: Sequence[float]) -> V:
    """An image or label map as a scanner with other voxels shows it."""
    ratios = [to / mm for to, mm in zip(spacing_mm, image.spacing_mm, strict=True)]
    counts = [max(1, round(n / ratio)) for n, ratio in zip(image.shape, ratios, strict=True)]
    affine = image.affine.copy()
    first = [(n - (m - 1) * r - 1) / 2 for n, m, r in zip(image.shape, counts, ratios, strict=True)]
    affine[:3, 3] += affine[:3, :3] @ first
    affine[:3, :3] = affine[:3, :3] * ratios
    if isinstance(image, LabelMap):
        values = np.unique(image.array)
        shares = [cut_array((image.array == value).astype(np.float32), ratios) for value in values]
        return replace(image, array=values[np.argmax(shares, 0)].astype(np.uint8), affine=affine)
    array = image.array.astype(np.float32)
    brain = cut_array((array != 0).astype(np.float32), ratios) >= 0.5
    return replace(image, array=np.where(brain, cut_array(array, ratios), 0).astype(np.float32), affine=affine)


def interpolate(image: Volume, grid: Volume, how: int, clean: bool = True) -> Volume:
    """An image on a grid through an interpolator of SimpleITK, with the brain that `bring` finds.

    Its edge is `clean` if the background does not blend into it, as with `bring`.
    """
    target = build_itk(np.empty(grid.shape, np.uint8), grid.affine)

    def move(array: np.ndarray) -> np.ndarray:
        for axis, ratio in enumerate(find_ratios(image, grid)):
            if ratio > FINER:
                array = ndimage.gaussian_filter1d(array, ANTI_ALIAS * np.sqrt(ratio**2 - 1), axis, mode="nearest")
        moved = sitk.Resample(build_itk(array, image.affine), target, sitk.Transform(), how, 0.0)
        return np.asarray(sitk.GetArrayFromImage(moved))

    brain = bring(image, grid).array != 0
    moved = move(image.array)
    if clean:
        moved = moved / np.maximum(move((image.array != 0).astype(np.float32)), np.float32(0.5))
    return Volume(np.where(brain, moved, 0).astype(np.float32), grid.affine)


def sharpen(image: Volume, grid: Volume) -> Volume:
    """Linear interpolation, corrected until the means over the slices are those of the image."""
    found, ratios = bring(image, grid), find_ratios(grid, image)
    brain = found.array != 0
    for _ in range(ITERATIONS):
        seen = cut_array(found.array, ratios)
        if seen.shape != image.shape:
            return found
        missing = interpolate(image.with_array(image.array - seen), grid, sitk.sitkLinear, clean=False).array
        found = found.with_array(np.where(brain, found.array + missing, 0).astype(np.float32))
    return found


SEEN: Mapping[str, Callable[[Volume, Volume], Volume]] = {
    "linear": bring,
    "native": bring,
    "cubic voxels": bring,
    "dark edges": lambda image, grid: interpolate(image, grid, sitk.sitkLinear, clean=False),
    "cubic": lambda image, grid: interpolate(image, grid, sitk.sitkBSpline3),
    "sinc": lambda image, grid: interpolate(image, grid, sitk.sitkLanczosWindowedSinc),
    "steps": lambda image, grid: interpolate(image, grid, sitk.sitkNearestNeighbor),
    "sharpened": sharpen,
}


def working_grid(native: Volume, spacing_mm: float, method: str) -> Volume:
    """The grid on which the network works."""
    if method == "native":
        return native
    if method != "cubic voxels":
        return build_working_grid(native, spacing_mm)
    grid = native
    for axis in range(3):  # also the axes that are near enough
        ratio = spacing_mm / grid.spacing_mm[axis]
        count = round(grid.shape[axis] / ratio)
        affine, shape = grid.affine.copy(), [*grid.shape]
        affine[:3, 3] += affine[:3, axis] * (shape[axis] - 1 - (count - 1) * ratio) / 2
        affine[:3, axis] *= ratio
        shape[axis] = count
        grid = Volume(np.broadcast_to(np.uint8(0), shape), affine)
    return grid


def bring_labels(raw: RawPrediction, task: Task, native: Volume, way: str) -> LabelMap:
    """The label map (D, H, W) of a prediction on the grid `native`."""
    prepared = raw.prepared_case.prepared
    box = crop(turn(raw.prepared_case.loaded.case.reference, prepared.turn), prepared.box)
    if way == "labels":
        return bring(LabelMap(task.decode(raw.filtered.classes), box.affine), native)
    assert raw.probabilities is not None
    soft = suppress_dropped(raw.probabilities, raw.filtered.classes)[1:]
    for axis, ratio in enumerate(find_ratios(box, native) if way == "averaged" else ()):
        if ratio > FINER:
            soft = ndimage.uniform_filter1d(soft, 2 * (round(ratio) // 2) + 1, axis + 1, mode="nearest")
    return native.with_labels(task.decode(choose_classes(each_back(soft, box, native))))


def crop_case(case: Case) -> Case:
    """The box of the brain with `RIM` voxels around it, which changes no result and saves time."""
    brain = np.any([image.array != 0 for image in case.images.values()], axis=0)
    box = Box.around(brain)
    start, stop = (np.clip(np.add(end, by), 0, brain.shape) for end, by in ((box.start, -RIM), (box.stop, RIM)))
    box = Box(tuple(start.tolist()), tuple(stop.tolist()))
    assert case.lesion is not None
    return Case(case.name, {name: crop(image, box) for name, image in case.images.items()}, crop(case.lesion, box))


def try_case(segmenter: Segmenter, case: Case, scan: Mapping[str, Volume], methods: Sequence[str]) -> dict:
    """Dice by method, way back and region, for a scan cut from a case; with its ceiling."""
    task, truth, native = segmenter.model.card.task, case.lesion, next(iter(scan.values()))
    assert truth is not None
    true_classes = task.encode(truth.array, case.name)

    def judge(labels: LabelMap) -> dict[str, float]:
        back = bring(labels, truth).array
        return {region: round(dice, 4) for region, dice in region_dice(task.encode(back), true_classes, task).items()}

    spacing_mm = native.spacing_mm
    dice = {"ceiling": judge(truth if spacing_mm == truth.spacing_mm else cut(truth, spacing_mm))}
    for method in methods:
        grid = working_grid(native, segmenter.model.card.input.spacing_mm or 1.0, method)
        images = {name: SEEN[method](volume, grid) for name, volume in scan.items()}
        loaded = LoadedCase(Case(case.name, images), native=native)
        raw = segmenter.compute(segmenter.prepare(loaded))
        for way in WAYS:
            dice[f"{method}, {way}"] = judge(bring_labels(raw, task, native, way))
    return dice


def judge(
    segmenter: Segmenter, data: Sequence[Path], names: Sequence[str], grids: Sequence[str], methods: Sequence[str]
) -> Iterator[tuple[str, dict]]:
    """The name of each case, and its Dice by grid, way and region."""
    card = segmenter.model.card
    for files in find_cases(data):
        if names and files.name not in names:
            continue
        case = crop_case(load_case(files, card.sequences, card.task, lesion=True, allow_missing=True))
        found = {}
        for grid in grids:
            spacings = GRIDS[grid]
            scan = {name: cut(image, spacings[name]) if spacings else image for name, image in case.images.items()}
            found[grid] = try_case(segmenter, case, scan, methods if spacings else ["linear"])
            sys.stderr.write(f"{files.name} {grid}\n")
        yield files.name, found


def average(dice: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> dict:
    """Mean Dice over the cases by grid, way and region."""
    first = next(iter(dice.values()))
    return {
        grid: {
            way: {region: round(mean(case[grid][way][region] for case in dice.values()), 4) for region in regions}
            for way, regions in ways.items()
        }
        for grid, ways in first.items()
    }


def rank(means: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """Method and way back to the mean whole Dice over all grids but that of 1 mm, the best first."""
    others = [ways for grid, ways in means.items() if grid != "1"]
    ways = [way for way in others[0] if way != "ceiling"] if others else []
    scores = {way: round(mean(ways[way]["whole"] for ways in others), 4) for way in ways}
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--cases", nargs="*", default=(), help="only these")
    parser.add_argument("--grids", nargs="*", default=tuple(GRIDS), help="only these")
    parser.add_argument("--methods", nargs="*", default=("linear", "native"), help=f"of {', '.join(METHODS)}")
    parser.add_argument("--out", type=Path, required=True, help="cases that it holds are not repeated")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(argv)
    dice = json.loads(arguments.out.read_text(encoding="utf-8"))["dice"] if arguments.out.exists() else {}
    wanted = [files.name for files in find_cases(arguments.data) if files.name not in dice]
    wanted = [name for name in wanted if name in (arguments.cases or wanted)]
    with Segmenter(arguments.model, threads=arguments.threads, probabilities=True) as segmenter:
        card = segmenter.model.card
        for name, found in judge(segmenter, arguments.data, wanted, arguments.grids, arguments.methods):
            dice[name] = found
            means = average(dice)
            result = {
                "date": datetime.date.today().isoformat(),
                "machine": describe_cpu(),
                "versions": find_versions(),
                "model": card.name,
                "sha256": card.weights.sha256 if card.weights else None,
                "trained_on": len(card.seen & set(dice)),
                "cases": len(dice),
                "rank": rank(means),
                "mean": means,
                "dice": dice,
            }
            arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
