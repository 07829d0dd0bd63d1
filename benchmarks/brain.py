"""How well the shipped model finds the brain: raw scans of patients, scans that others prepared, and its speed.

    python benchmarks/brain.py DATA --out benchmarks/results/brain.json

DATA is the folder with `raw`, `dicom` and `tumour`. For the four sequences of tcga-fg-6692, one patient who chose
nothing: Dice with the masks of another tool (HD-BET), and the share of the tumour that is kept, by the fused
segmentation of that patient's prepared images, which is registered to each sequence. For BraTS 2021 and 2023, whose
masks chose the threshold: Dice with the brain that was left of each case, and the share of the tumour that is kept. For
the others: volume, share of the largest component, mean probability. `--pictures FOLDER` draws the outline over slices
of every raw scan, to be looked at; those pictures show patients and stay out of the repository.
"""

import argparse
import datetime
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

import numpy as np
from scipy import ndimage

from brainsegnet._atomic import write_text
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet._types import Doubles, Mask
from brainsegnet.inference.brain import BrainExtractor, ExtractedBrain, extract_brain
from brainsegnet.inference.brain_masks import sample
from brainsegnet.io.cases import find_cases
from brainsegnet.io.dicom import read_study
from brainsegnet.io.images import read_image, read_labels
from brainsegnet.metrics.scores import dice
from brainsegnet.model.brain_card import BRAIN_HOME
from brainsegnet.model.store import BRAIN_CARD_FILE, hash_file
from brainsegnet.preprocessing.alignment import align, resample
from brainsegnet.preprocessing.head import to_working_grid
from brainsegnet.volume import LabelMap, Volume

PATIENT = "TCGA-FG-6692"
SEQUENCES = ("flair", "t1", "t1c", "t2")
OTHERS = {
    "lesjak-p01 t1": "raw/lesjak-p01/study1_T1W.nii.gz",
    "lesjak-p01 t2": "raw/lesjak-p01/study1_T2W.nii.gz",
    "lesjak-p01 flair": "raw/lesjak-p01/study1_FLAIR.nii.gz",
    "heads flair": "raw/heads/flair_py_synthsr.nii.gz",
    "heads t1 elderly": "raw/heads/t1_elderly.nii.gz",
    "thick t1c": "raw/thick_t1c/brain1_image.nrrd",
    "dicom head": "dicom/head_t1",
    "dicom test pattern": "dicom/ge_t1",
}
SLICES = 6


REPEATS = 3


def extract(extractor: BrainExtractor, scan: Volume, repeats: int = REPEATS) -> tuple[ExtractedBrain, Mask, float]:
    """The brain in a scan, its mask (D, H, W) on the grid of the scan, and the median of the CPU seconds of all cores.

    CPU seconds do not depend on what else the machine does.
    """
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        found = extractor(scan)
        mask = found.mask_on(scan)
        seconds.append(time.process_time() - started)
    return found, mask, round(median(seconds), 3)


def read_scan(path: Path) -> Volume:
    """A scan from a file, or from a folder of one DICOM series."""
    return read_image(path) if path.is_file() else read_study(path).series[0].read()


def tumour_on(scan: Volume, mask: Mask, sequence: str, prepared: Path) -> Mask:
    """The tumour of the prepared images (D, H, W) on the grid of a raw sequence."""
    moving = read_image(prepared / f"{PATIENT}_{sequence}.nii.gz")
    stripped = scan.with_array(np.where(mask, scan.array, 0).astype(np.float32))
    affine = moving.affine.copy()
    affine[:3, 3] += find_middle(stripped) - find_middle(moving)
    images = {"raw": stripped, "prepared": Volume(moving.array, affine)}
    transform = align(PATIENT, images, reference="raw").motions["prepared"].transform
    labels = read_labels(prepared / f"{PATIENT}_seg_fused_simple.nii.gz")
    return np.asarray(resample(LabelMap(labels.array, affine), scan, transform).array > 0)


def find_middle(stripped: Volume) -> Doubles:
    """Middle (x, y, z) of the brain in millimetres."""
    inside = np.argwhere(np.asarray(stripped.array) > 0).mean(axis=0)
    return np.asarray(stripped.affine[:3] @ (*inside, 1))


def judge_patient(extractor: BrainExtractor, data: Path, pictures: Path | None) -> dict[str, dict]:
    """Dice with the masks of HD-BET, and the share of the tumour that is kept, by sequence and for all together."""
    folder = data / "raw" / PATIENT.lower()
    scans = {name: read_image(folder / f"{PATIENT}_{name}.nii.gz") for name in SEQUENCES}
    alignment, result = align(PATIENT, scans), {}
    started = time.process_time()
    together = extract_brain(PATIENT, scans, alignment, scans[alignment.reference], extractor)
    result["all sequences"] = {"cpu_seconds": round(time.process_time() - started, 3), "reference": alignment.reference}
    for name, scan in scans.items():
        truth = read_labels(folder / f"{PATIENT}_{name}_hdbet_mask.nii.gz").array > 0
        found, mask, seconds = extract(extractor, scan)
        tumour = tumour_on(scan, truth, name, folder / "reference_1mm")
        result[name] = {
            **compare(mask, truth, tumour),
            "tumour_kept_by_hdbet": round(float(truth[tumour].mean()), 4),
            "hdbet_ml": round(float(truth.sum()) * scan.voxel_ml),
            **found.to_json(),
            "cpu_seconds": seconds,
        }
        other = folder / f"{PATIENT}_{name}_bet_mask_brainles.nii.gz"
        if other.exists():
            second = read_labels(other).array > 0
            result[name]["dice_with_second_mask"] = round(dice(mask, second), 4)
            result[name]["dice_of_the_two_masks"] = round(dice(truth, second), 4)
        motion = alignment.motions[name].transform
        from_all = sample(together.logits, scan, motion.GetInverse() if motion else None) > 0
        result[name]["all_sequences"] = compare(from_all, truth, tumour)
        draw(scan, mask, truth, pictures, f"tcga {name}")
    return result


def compare(mask: Mask, truth: Mask, tumour: Mask) -> dict[str, float]:
    """Dice, volume over that of the other mask, and the share of the tumour that is kept."""
    return {
        "dice": round(dice(mask, truth), 4),
        "volume_ratio": round(float(mask.sum() / truth.sum()), 4),
        "tumour_kept": round(float(mask[tumour].mean()), 4),
    }


def judge_prepared(extractor: BrainExtractor, folders: Sequence[Path]) -> dict[str, dict[str, dict[str, float]]]:
    """Case to sequence to the comparison with the brain that another tool left, and with the tumour."""
    result = {}
    for files in find_cases(folders):
        if files.lesion is None:
            continue
        scans = {name: read_image(files.images[name]) for name in SEQUENCES}
        left = ndimage.binary_fill_holes(np.any([scan.array > 0 for scan in scans.values()], axis=0))
        tumour = read_labels(files.lesion).array > 0
        result[files.name] = {
            name: compare(extract(extractor, scan, 1)[1], left, tumour) for name, scan in scans.items()
        }
    return result


def judge_others(extractor: BrainExtractor, data: Path, pictures: Path | None) -> dict[str, dict]:
    """Figures of scans that nobody outlined."""
    result = {}
    for name, place in OTHERS.items():
        scan = read_scan(data / place)
        found, mask, seconds = extract(extractor, scan)
        result[name] = {"accepted": found.is_brain, **found.to_json(), "cpu_seconds": seconds}
        label = (data / place).with_name("brain1_label.nrrd")
        if label.exists():
            result[name]["tumour_kept"] = round(float(mask[read_labels(label).array > 0].mean()), 4)
        draw(scan, mask, None, pictures, name)
    return result


def draw(scan: Volume, mask: Mask, truth: Mask | None, folder: Path | None, name: str) -> None:
    """Slices of the working grid along each axis with the outline in red, and that of `truth` in green."""
    if folder is None:
        return
    from matplotlib.figure import Figure

    image = to_working_grid(scan)
    outlines = [(to_working_grid(scan.with_array(mask.astype(np.float32))).array, "red")]
    if truth is not None:
        outlines.append((to_working_grid(scan.with_array(truth.astype(np.float32))).array, "lime"))
    figure = Figure(figsize=(3 * SLICES, 9.5), facecolor="black", layout="tight")
    panels = figure.subplots(3, SLICES)
    top = float(np.quantile(image.array, 0.995))
    for axis in range(3):
        hits = np.flatnonzero((outlines[0][0] > 0.5).any(axis=tuple({0, 1, 2} - {axis})))
        first, last = (hits[0], hits[-1]) if hits.size else (0, image.shape[axis] - 1)
        for panel, at in zip(panels[axis], np.linspace(first, last, SLICES + 2)[1:-1].round().astype(int), strict=True):
            panel.imshow(image.array.take(at, axis), cmap="gray", vmax=top, origin="lower" if axis else "upper")
            for field, colour in outlines:
                panel.contour(field.take(at, axis), [0.5], colors=colour, linewidths=0.8)
            panel.axis("off")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name.replace(' ', '-')}.png", dpi=50)


def judge(data: Path, threads: int, pictures: Path | None = None) -> dict:
    """What the JSON holds."""
    extractor = BrainExtractor(threads)
    patient = judge_patient(extractor, data, pictures)
    return {
        "date": datetime.date.today().isoformat(),
        "model": extractor.card.name,
        "sha256": hash_file(BRAIN_HOME / BRAIN_CARD_FILE),
        "steps": extractor.card.steps,
        "machine": describe_cpu(),
        "threads": threads,
        "versions": find_versions(),
        "simulated": dict(extractor.card.scores),
        "mean_dice": round(mean(patient[name]["dice"] for name in SEQUENCES), 4),
        "mean_dice_all_sequences": round(mean(patient[name]["all_sequences"]["dice"] for name in SEQUENCES), 4),
        PATIENT.lower(): patient,
        "prepared": judge_prepared(extractor, [data / "tumour/brats2021", data / "tumour/brats2023"]),
        "others": judge_others(extractor, data, pictures),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pictures", type=Path, help="a folder outside the repository")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    text = json.dumps(judge(arguments.data, arguments.threads, arguments.pictures), indent=2) + "\n"
    print(text)
    if arguments.out:
        write_text(text, arguments.out)


if __name__ == "__main__":
    main()
