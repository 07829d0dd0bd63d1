"""How well a network of tools/release/brain.py finds the brain in raw scans of patients.

    python benchmarks/brain.py runs/brain/best.safetensors DATA --out benchmarks/results/brain.json

DATA is the folder with `raw` and `dicom`. For the four sequences of tcga-fg-6692, one patient: Dice with the masks of
another tool (HD-BET), and the share of the tumour that is kept, by the fused segmentation of that patient's prepared
images, which is registered to each sequence. For thick_t1c: the share of its tumour label that is kept. For the others:
volume, share of the largest component, and mean probability in it. `--pictures FOLDER` draws the outline over slices of
every scan, to be looked at; those pictures show patients and stay out of the repository.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from brainsegnet._atomic import write_text
from brainsegnet._machine import describe_cpu
from brainsegnet._types import Floats, Mask
from brainsegnet.io.images import from_sitk, read_image, read_labels
from brainsegnet.metrics.scores import dice
from brainsegnet.model.brain import BrainNet
from brainsegnet.model.network import load_into, read_tensors
from brainsegnet.preprocessing.alignment import resample
from brainsegnet.preprocessing.head import scale_intensities, to_scan_grid, to_working_grid
from brainsegnet.preprocessing.registration import register
from brainsegnet.volume import Volume, load_itk

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


@dataclass(frozen=True)
class Found:
    """The brain in a scan, and what tells whether it is one."""

    mask: Mask  # (D, H, W)
    volume_ml: float
    largest_share: float  # of the voxels above half, those in the largest component
    mean_probability: float  # within it
    seconds: float

    def to_json(self) -> dict[str, float]:
        """The figures."""
        return {
            "volume_ml": round(self.volume_ml),
            "largest_share": round(self.largest_share, 3),
            "mean_probability": round(self.mean_probability, 3),
            "seconds": round(self.seconds, 2),
        }


def find_brain(net: BrainNet, scan: Volume, flip: bool) -> Found:
    """The brain in a raw scan: the largest component without holes where the logit is positive."""
    start = time.perf_counter()
    working = to_working_grid(scan)
    logits = run(net, scale_intensities(working.array), flip)
    native = to_scan_grid(working.with_array(logits), scan)
    parts, _ = ndimage.label(native > 0)
    sizes = np.bincount(parts.ravel(), minlength=2)[1:]
    largest = parts == 1 + int(sizes.argmax())  # no voxel where nothing was found
    mask = np.asarray(ndimage.binary_fill_holes(largest), np.bool_)
    probability = float((1 / (1 + np.exp(-native[mask]))).mean()) if mask.any() else 0.0
    share = float(sizes.max() / max(sizes.sum(), 1))
    return Found(mask, float(mask.sum()) * scan.voxel_ml, share, probability, time.perf_counter() - start)


def run(net: BrainNet, image: Floats, flip: bool) -> Floats:
    """Logits (D, H, W), the mean of the image and of its mirror image if wanted."""
    x = torch.from_numpy(image)[None, None]
    with torch.inference_mode():
        logits = net(x)
        if flip:
            logits = (logits + net(x.flip(-1)).flip(-1)) / 2
    return logits.numpy()[0, 0]


def read_scan(path: Path) -> Volume:
    """A scan from a file, or from a folder of one DICOM series."""
    if path.is_file():
        return read_image(path)
    itk = load_itk()
    return from_sitk(itk.ReadImage(itk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path))))


def tumour_on(scan: Volume, mask: Mask, sequence: str, prepared: Path) -> Mask:
    """The tumour of the prepared images (D, H, W) on the grid of a raw sequence."""
    moving = read_image(prepared / f"{PATIENT}_{sequence}.nii.gz")
    stripped = scan.with_array(np.where(mask, scan.array, 0).astype(np.float32))
    motion = register(moving, stripped)
    labels = read_labels(prepared / f"{PATIENT}_seg_fused_simple.nii.gz")
    return np.asarray(resample(labels, scan, motion.transform).array > 0)


def judge_patient(net: BrainNet, data: Path, flip: bool, pictures: Path | None) -> dict[str, dict[str, float]]:
    """Dice with the masks of HD-BET, and the share of the tumour that is kept, by sequence."""
    folder, result = data / "raw" / PATIENT.lower(), {}
    for sequence in SEQUENCES:
        scan = read_image(folder / f"{PATIENT}_{sequence}.nii.gz")
        truth = read_labels(folder / f"{PATIENT}_{sequence}_hdbet_mask.nii.gz").array > 0
        found = find_brain(net, scan, flip)
        tumour = tumour_on(scan, truth, sequence, folder / "reference_1mm")
        result[sequence] = {
            "dice": round(dice(found.mask, truth), 4),
            "tumour_kept": round(float(found.mask[tumour].mean()), 4),
            "tumour_kept_by_hdbet": round(float(truth[tumour].mean()), 4),
            "hdbet_ml": round(float(truth.sum()) * scan.voxel_ml),
            **found.to_json(),
        }
        other = folder / f"{PATIENT}_{sequence}_bet_mask_brainles.nii.gz"
        if other.exists():
            second = read_labels(other).array > 0
            result[sequence] |= {
                "dice_with_second_mask": round(dice(found.mask, second), 4),
                "dice_of_the_two_masks": round(dice(truth, second), 4),
            }
        draw(scan, found.mask, truth, pictures, f"tcga {sequence}")
    return result


def judge_others(net: BrainNet, data: Path, flip: bool, pictures: Path | None) -> dict[str, dict[str, float]]:
    """Figures of scans that nobody outlined."""
    result = {}
    for name, place in OTHERS.items():
        scan = read_scan(data / place)
        found = find_brain(net, scan, flip)
        result[name] = found.to_json()
        label = (data / place).with_name("brain1_label.nrrd")
        if label.exists():
            result[name]["tumour_kept"] = round(float(found.mask[read_labels(label).array > 0].mean()), 4)
        draw(scan, found.mask, None, pictures, name)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--no-flip", action="store_true", help="without the mean over the mirror image")
    parser.add_argument("--pictures", type=Path, help="a folder outside the repository")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tensors, notes = read_tensors(arguments.weights)
    net = BrainNet().eval()
    load_into(net, tensors, str(arguments.weights))
    flip = not arguments.no_flip
    patient = judge_patient(net, arguments.data, flip, arguments.pictures)
    result = {
        "weights": {"file": arguments.weights.name, **notes},
        "flip": flip,
        "processor": describe_cpu(),
        "threads": arguments.threads,
        "mean_dice": round(float(np.mean([scores["dice"] for scores in patient.values()])), 4),
        PATIENT.lower(): patient,
        "others": judge_others(net, arguments.data, flip, arguments.pictures),
    }
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if arguments.out:
        write_text(text, arguments.out)


if __name__ == "__main__":
    main()
