"""What a repeat of a scan changes in volumes and diameters: test and retest of one head, segmented by a shipped model.

    brainsegnet simulate SIMULATED --realistic --cases 12 --seed 7000
    python benchmarks/retest.py scan tumour DATA/brats2021 DATA/brats2023 DATA/brats2015 SIMULATED --work WORK
    python benchmarks/retest.py fit tumour --work WORK --out benchmarks/results/retest-tumour.json

`scan` moves each head (up to 10 degrees about any axis, up to 10 mm), resamples it, gives every sequence a new bias
field and new noise, and segments it, `--trials` times. It leaves out what it finds in its folder, so it can be stopped
and started again. `fit` compares all pairs of scans of one head by the law of `brainsegnet.followup.retest`, and writes
its constants into the package too.

Where the model decides whether a scan has a tissue at all, pairs that are decided differently have no part in the
constants of that tissue; `decided` counts them. The constants are fitted on all heads. `coverage` is judged on each
head with the constants of the others, all scans of one patient left out together. The share of pairs at which the law
is fitted is raised in steps until this coverage reaches 95 %, so the coverage had that part in a choice. `itself`
judges each original scan against its own repeats. `others` tells how the constants hold on repeats in another folder
(`--judge`). `trained_on` counts the heads that the card of the model names: their scans may be repeated more steadily
than others.
"""

import argparse
import datetime
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from brainsegnet import Segmenter
from brainsegnet._atomic import replacing, write_text
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet._types import Affine, Array
from brainsegnet.followup.compare import bring_numbers, choose_regions, number_lesions
from brainsegnet.followup.matching import match_lesions
from brainsegnet.followup.retest import COVERAGE, find_radius
from brainsegnet.io.cases import CaseFiles, find_cases, load_case
from brainsegnet.io.patients import patient_of
from brainsegnet.metrics.lesions import Lesion, measure_lesions
from brainsegnet.model.card import Card
from brainsegnet.model.store import resolve_model
from brainsegnet.preprocessing.alignment import resample
from brainsegnet.simulation.simulate import RECORD
from brainsegnet.task import Task
from brainsegnet.volume import Box, Case, LabelMap, Volume, load_itk

MOST_DEGREES, MOST_MM = 10.0, 10.0
FIELD_SD = (0.02, 0.08)
"""Standard deviation of the logarithm of the new bias field: drawn between these. The simulator draws 0.06 on average
for the whole field of a scan, so this is a new field in full, as of another coil."""
LEAST_VOXELS = 10
"""Single lesions of fewer voxels have no part in the fit, because there are thousands of them."""
FIELD_NODES = 4
"""Of the bias field, along each axis of the head."""
NOISE = (0.01, 0.04)
"""Standard deviation of the new noise, as a share of the median of the brain: drawn between these."""
ROOM_MM = 16.0
"""What the new field of view adds on every side, so that the moved head stays inside."""
REAL, SIMULATED = "real", "simulated"
KINDS = ("volumes", "lesions", "diameters", "appearing")
SHARES = np.arange(0, 0.401, 0.01)
"""Values of `share` that are tried."""
LEVELS = (0.95, 0.96, 0.97, 0.98, 0.99, 1.0)
SIZES = (0, 2, 5, 10, 20, 40)
"""Edges of the classes of radius or diameter in mm, by which coverage is told."""
PACKAGE = Path(__file__).parents[1] / "src" / "brainsegnet" / "followup" / "retest.json"


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


def draw_field(rng: np.random.Generator, shape: Sequence[int], sd: tuple[float, float]) -> Array:
    """A smooth field (D, H, W) with mean 1."""
    smooth = rng.normal(size=(FIELD_NODES,) * 3).astype(np.float32)
    for axis, n in enumerate(shape):
        spread = ndimage.zoom(np.eye(FIELD_NODES), (n / FIELD_NODES, 1), order=3, grid_mode=True, mode="nearest")
        smooth = np.moveaxis(np.tensordot(spread.astype(np.float32), smooth, (1, axis)), 0, axis)
    return np.asarray(np.exp(rng.uniform(*sd) / smooth.std() * smooth))


def scan_again(case: Case, rng: np.random.Generator, field_sd: tuple[float, float] = FIELD_SD) -> tuple[Case, Affine]:
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
        array = np.where(inside, np.maximum(array * draw_field(rng, array.shape, field_sd) + noise, level / 1000), 0)
        images[name] = grid.with_array(array.astype(np.float32))
    return Case(case.name, images), motion


def scan_all(segmenter: Segmenter, files: CaseFiles, kind: str, how: argparse.Namespace) -> float:
    """Segment a case and its repeats into one file each. Returns the seconds of the processor."""
    card, started, case = segmenter.model.card, time.process_time(), None
    for trial in range(how.trials + 1):
        path = how.work / f"{files.name}.{trial}.npz"
        if path.exists():
            continue
        if case is None:
            case = load_case(files, card.sequences, card.task, lesion=False, allow_missing=True)
        seed = [trial, *files.name.encode()]
        scan, motion = scan_again(case, np.random.default_rng(seed), how.field) if trial else (case, np.eye(4))
        result = segmenter(scan)
        labels, ruled_out = result.labels, bool(result.decision and not result.decision.kept)
        with replacing(path) as part, part.open("wb") as stream:
            np.savez_compressed(
                stream, labels=labels.array, affine=labels.affine, motion=motion, kind=kind, ruled_out=ruled_out
            )
    return time.process_time() - started


def run_scan(how: argparse.Namespace) -> None:
    """Segment all cases and their repeats."""
    how.work.mkdir(parents=True, exist_ok=True)
    with Segmenter(how.model, threads=how.threads, allow_poor=True, device="cpu") as segmenter:
        for files in find_cases(how.data):
            simulated = (next(iter(files.images.values())).parents[1] / RECORD).is_file()
            seconds = scan_all(segmenter, files, SIMULATED if simulated else REAL, how)
            print(f"{files.name}: {seconds:.0f} s of the processor", flush=True)


@dataclass(frozen=True)
class Pair:
    """A radius or diameter in two scans of an unchanged head.

    Attributes:
        patient: Whose head it is.
        kind: `REAL` or `SIMULATED`.
        before, after: In mm.
        itself: Whether the first one is of the original scan.
    """

    patient: str
    kind: str
    before: float
    after: float
    itself: bool

    @property
    def larger(self) -> float:
        """The larger of the two."""
        return max(self.before, self.after)

    @property
    def apart(self) -> float:
        """Their difference."""
        return abs(self.after - self.before)


Measured = dict[str, dict[str, list[Pair]]]
"""One of `KINDS` to region to pairs."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A segmented scan.

    Attributes:
        labels: Its labels.
        motion: (4, 4), from it to the original.
        kind: Of its head.
        ruled_out: Whether it was decided that the scan has none of the tissue of the model's rule.
    """

    labels: LabelMap
    motion: Affine
    kind: str
    ruled_out: bool


def read_scans(work: Path, case: str) -> list[Scan]:
    """The scans of a case, the original first; label maps are cut to the box of their labels."""
    found = []
    for path in sorted(work.glob(f"{case}.*.npz")):
        with np.load(path) as content:
            labels = crop(LabelMap(content["labels"], content["affine"]))
            found.append(Scan(labels, content["motion"], str(content["kind"]), bool(content["ruled_out"])))
    return found


def crop(labels: LabelMap) -> LabelMap:
    """A label map cut to the box of its labels."""
    box = Box.around(labels.array if labels.array.any() else np.ones_like(labels.array))
    affine = labels.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ box.start
    return LabelMap(labels.array[box.slices], affine)


def unite(scans: Sequence[Scan]) -> Volume:
    """An empty volume on the voxels of the original, around the labels of all scans."""
    first, corners = scans[0].labels, []
    for scan in scans:
        ends = np.array(np.meshgrid(*[(0, n - 1) for n in scan.labels.shape], [1], indexing="ij")).reshape(4, -1)
        corners.append((np.linalg.inv(first.affine) @ scan.motion @ scan.labels.affine @ ends)[:3])
    low, high = (np.rint(edge).astype(int) for edge in (np.min(corners, (0, 2)) - 2, np.max(corners, (0, 2)) + 2))
    affine = first.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    return Volume(np.zeros(high - low + 1, np.uint8), affine)


def measure_pairs(case: str, scans: Sequence[Scan], card: Card) -> Measured:
    """All pairs of scans of a case, measured; of a region that was ruled out in one scan alone, they have no part."""
    grid, patient, task = unite(scans), patient_of(case), card.task
    measured: Measured = {kind: {} for kind in KINDS}
    for region, values in task.regions.items():
        counts = [np.count_nonzero(np.isin(scan.labels.array, values)) * scan.labels.voxel_ml for scan in scans]
        radii = [find_radius(ml) for ml in counts]
        pairs = pair_up(scans, card, region)
        measured["volumes"][region] = [Pair(patient, scans[0].kind, radii[a], radii[b], a == 0) for a, b in pairs]
    for region in choose_regions(task):
        found = [measure_lesions(drop_specks(scan.labels, task, region), task, region=region) for scan in scans]
        numbers = [number(scan, lesions, task, region, grid) for scan, lesions in zip(scans, found, strict=True)]
        for a, b in pair_up(scans, card, region):
            matches = match_lesions(numbers[a], numbers[b], grid.spacing_mm)
            matched = [
                (
                    [one for one in found[a] if one.number in match.before],
                    [one for one in found[b] if one.number in match.after],
                )
                for match in matches
            ]
            for kind, lengths in measure_matches(matched).items():
                into = measured[kind].setdefault(region, [])
                into += [Pair(patient, scans[0].kind, before, after, a == 0) for before, after in lengths]
    return measured


def pair_up(scans: Sequence[Scan], card: Card, region: str) -> list[tuple[int, int]]:
    """Pairs of scans that are comparable in a region: not ruled out in one of them alone."""
    decided = card.presence is not None and set(card.task.regions[region]) == {card.presence.label}
    pairs = itertools.combinations(range(len(scans)), 2)
    return [(a, b) for a, b in pairs if not decided or scans[a].ruled_out == scans[b].ruled_out]


def drop_specks(labels: LabelMap, task: Task, region: str) -> LabelMap:
    """A label map with the lesions of a region alone, without those of fewer than `LEAST_VOXELS`."""
    inside = np.isin(labels.array, task.regions[region])
    parts, _ = ndimage.label(inside, np.ones((3, 3, 3)))
    keep = np.bincount(parts.ravel()) >= LEAST_VOXELS
    keep[0] = False
    return labels.with_labels(np.where(keep[parts], labels.array, 0).astype(np.uint8))


def measure_matches(pairs: Sequence[tuple[list[Lesion], list[Lesion]]]) -> dict[str, list[tuple[float, float]]]:
    """Radii and diameters in mm of matched lesions of two scans, and the radius of the largest that has no match."""
    both = [pair for pair in pairs if all(pair)]
    alone = [sum(lesion.volume_ml for lesion in (*before, *after)) for before, after in pairs if not (before and after)]
    return {
        "lesions": [
            (find_radius(sum(one.volume_ml for one in before)), find_radius(sum(one.volume_ml for one in after)))
            for before, after in both
        ],
        "diameters": [
            (max(one.diameters_mm[0] for one in before), max(one.diameters_mm[0] for one in after))
            for before, after in both
        ],
        "appearing": [(0.0, find_radius(max(alone, default=0.0)))],
    }


def number(scan: Scan, lesions: Sequence[Lesion], task: Task, region: str, grid: Volume) -> Array:
    """The numbers of the lesions of a scan on the grid of the original."""
    numbers = number_lesions(scan.labels, lesions, task, region)
    back = np.asarray(np.linalg.inv(scan.motion), np.float64)
    return bring_numbers(numbers, lesions, back, grid).array


def fit_law(pairs: Sequence[Pair], level: float) -> tuple[float, float]:
    """`mm` and `share` of the law that a share of the pairs keep to, with the smallest quantile loss.

    Where one of the two is always 0, as of lesions without a match, `share` is 0.
    """
    apart, larger = np.array([[pair.apart, pair.larger] for pair in pairs]).T
    rank = min(len(pairs) - 1, int(np.ceil(level * (len(pairs) + 1))) - 1)
    best = (np.inf, 0.0, 0.0)
    for share in SHARES if any(pair.before for pair in pairs) else (0.0,):
        mm = max(0.0, float(np.sort(apart - share * larger)[rank]))
        over = apart - mm - share * larger
        loss = float(np.where(over > 0, level * over, (level - 1) * over).mean())
        best = min(best, (round(loss, 9), float(share), mm))
    return best[2], best[1]


def judge_left_out(pairs: Sequence[Pair], level: float) -> list[bool]:
    """For each pair, whether it keeps to the law that was fitted on the other patients."""
    laws = {
        patient: fit_law([pair for pair in pairs if pair.patient != patient] or pairs, level)
        for patient in {pair.patient for pair in pairs}
    }
    return [pair.apart <= laws[pair.patient][0] + laws[pair.patient][1] * pair.larger for pair in pairs]


def fit(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The constants of a measure of a region, and how well they hold."""
    for level in LEVELS:
        kept = judge_left_out(pairs, level)
        if np.mean(kept) >= COVERAGE:
            break
    mm, share = fit_law(pairs, level)
    return {
        "mm": round(mm, 3),
        "share": round(share, 3),
        "coverage": round(float(np.mean(kept)), 4),
        "pairs": len(pairs),
        "patients": len({pair.patient for pair in pairs}),
        "level": level,
        "by_kind": _share_by(pairs, kept, lambda pair: pair.kind),
        "by_size_mm": _share_by(pairs, kept, lambda pair: _name_size(pair.larger)),
        "itself": _judge_itself(pairs, kept),
    }


def _judge_itself(pairs: Sequence[Pair], kept: Sequence[bool]) -> dict[str, Any]:
    """The original scans against their own repeats: how many, and which share shows neither change nor growth."""
    own = [(pair, inside) for pair, inside in zip(pairs, kept, strict=True) if pair.itself]
    grown = [not inside and pair.after > pair.before for pair, inside in own]
    return {
        "pairs": len(own),
        "no_change": round(float(np.mean([inside for _, inside in own])), 4),
        "no_growth": round(1 - float(np.mean(grown)), 4),
    }


def _share_by(pairs: Sequence[Pair], kept: Sequence[bool], key: Callable[[Pair], str]) -> dict[str, Any]:
    groups: dict[str, list[bool]] = {}
    for pair, inside in zip(pairs, kept, strict=True):
        groups.setdefault(key(pair), []).append(inside)
    return {name: {"pairs": len(found), "coverage": round(float(np.mean(found)), 4)} for name, found in groups.items()}


def _name_size(mm: float) -> str:
    low = max(edge for edge in SIZES if edge <= mm)
    return f"{low} and more" if low == SIZES[-1] else f"{low} to {SIZES[SIZES.index(low) + 1]}"


def collect(model: str, work: Path) -> tuple[Measured, dict[str, int]]:
    """All pairs of scans in a folder, and the number of scans by case. What was measured before is read."""
    card = resolve_model(model).card
    pairs: Measured = {kind: {} for kind in KINDS}
    scans = Counter(path.name.rsplit(".", 2)[0] for path in sorted(work.glob("*.npz")))
    for case, count in scans.items():
        cache = work / f"{case}.pairs-{count}.json"
        if not cache.is_file():
            found = measure_pairs(case, read_scans(work, case), card)
            rows = {kind: {r: [list(vars(pair).values()) for pair in one] for r, one in regions.items()}
                    for kind, regions in found.items()}  # fmt: skip
            write_text(json.dumps(rows), cache)
            print(case, flush=True)
        for kind, regions in json.loads(cache.read_text(encoding="utf-8")).items():
            for region, rows_of in regions.items():
                pairs[kind].setdefault(region, []).extend(Pair(*row) for row in rows_of)
    return pairs, dict(scans)


def run_fit(how: argparse.Namespace) -> None:
    """Fit the constants, and write the results and those that ship."""
    card, (pairs, scans) = resolve_model(how.model).card, collect(how.model, how.work)
    fitted = {kind: {r: fit(found) for r, found in regions.items() if found} for kind, regions in pairs.items()}
    date = datetime.date.today().isoformat()
    result = {
        "date": date,
        "machine": describe_cpu(),
        "versions": find_versions(),
        "model": card.name,
        "sha256": card.weights.sha256 if card.weights else None,
        "scans": scans,
        "heads": count_heads(pairs),
        "trained_on": len(set(card.as_parent().seen) & set(scans)),
        "motion": {"degrees": MOST_DEGREES, "mm": MOST_MM},
        "field_sd": how.field,
        "noise": NOISE,
        "decided": count_decisions(how.work),
        **fitted,
    }
    if how.judge:
        result["others"] = judge_others(fitted, collect(how.model, how.judge)[0])
    write_text(json.dumps(result, indent=1) + "\n", how.out)
    shipped = json.loads(how.package.read_text(encoding="utf-8")) if how.package.is_file() else {}
    keep = ("mm", "share", "coverage", "pairs", "patients")
    short = {kind: {r: {key: one[key] for key in keep} for r, one in found.items()} for kind, found in fitted.items()}
    shipped[card.name] = {"sha256": result["sha256"], "date": date, **short}
    write_text(json.dumps(dict(sorted(shipped.items())), indent=1) + "\n", how.package)


def count_heads(pairs: Measured) -> dict[str, int]:
    """Number of patients and of simulated heads."""
    every = {(pair.kind, pair.patient) for one in pairs["volumes"].values() for pair in one}
    return dict(Counter(kind for kind, _ in every))


def count_decisions(work: Path) -> dict[str, int]:
    """Pairs of scans of one head, and in how many of them the tissue was ruled out in one scan alone."""
    cases: dict[str, list[bool]] = {}
    for path in sorted(work.glob("*.npz")):
        with np.load(path) as content:
            cases.setdefault(path.name.rsplit(".", 2)[0], []).append(bool(content["ruled_out"]))
    pairs = [pair for scans in cases.values() for pair in itertools.combinations(scans, 2)]
    return {"pairs": len(pairs), "differ": sum(a != b for a, b in pairs), "both": sum(a and b for a, b in pairs)}


def judge_others(fitted: Mapping[str, Mapping[str, Any]], pairs: Measured) -> dict[str, Any]:
    """The share of other pairs of the same heads that keep to the constants, such as those with stronger fields."""
    return {
        kind: {
            region: round(
                float(np.mean([p.apart <= law["mm"] + law["share"] * p.larger for p in pairs[kind][region]])), 4
            )
            for region, law in regions.items()
        }
        for kind, regions in fitted.items()
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("scan", "fit"))
    parser.add_argument("model")
    parser.add_argument("data", type=Path, nargs="*")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--field", type=float, nargs=2, default=FIELD_SD)
    parser.add_argument("--judge", type=Path, help="folder of other repeats, with another --field")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--package", type=Path, default=PACKAGE)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    how = parser.parse_args(argv)
    (run_scan if how.step == "scan" else run_fit)(how)


if __name__ == "__main__":
    main()
