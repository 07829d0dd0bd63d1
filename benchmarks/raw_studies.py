"""What `segment` makes of raw studies: Dice, volumes, seconds and memory, from the files of the scanner to a result.

    python benchmarks/raw_studies.py DATA --out benchmarks/results/raw-studies.json

DATA holds `raw/` and `dicom/`. One patient, tcga-fg-6692, has a reference: a fusion of five algorithms on images that
other tools prepared. It is moved onto the raw T1c by a registration of the two T1c. Each study is a run of its own. A
study that is refused for its few sequences runs once more with `--allow-poor`.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet._types import Array
from brainsegnet.io.images import read_image, read_labels
from brainsegnet.model.store import shipped_models
from brainsegnet.preprocessing.alignment import resample
from brainsegnet.preprocessing.registration import register
from brainsegnet.task import load_task
from brainsegnet.volume import LabelMap

PATIENT = "tcga-fg-6692"
STUDIES = {
    "lesjak-p01": "raw/lesjak-p01",
    "head_t1": "dicom/head_t1",
    "heads: FLAIR": "raw/heads/flair_py_synthsr.nii.gz",
    "heads: T1": "raw/heads/t1_elderly.nii.gz",
    "ge_t1": "dicom/ge_t1",
    "thick_t1c": "raw/thick_t1c/brain1_image.nrrd",
}
NAMED = {"heads: FLAIR": "--flair", "heads: T1": "--t1", "thick_t1c": "--t1c"}
"""Studies of one file, whose name says no sequence."""


def segment(source: Sequence[str], out: Path, *flags: str) -> dict:
    """Run `segment` as a process of its own: exit code, last line of an error, seconds, peak memory and the JSON."""
    command = [sys.executable, "-m", "brainsegnet", "segment", *source, "--out", str(out), *flags]
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, text=True)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        errors.seek(0)
        said = errors.read().strip().splitlines()
    report = out.with_name(f"{out.name.removesuffix('.nii.gz')}.json")
    done = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {}
    return {
        "exit_code": os.waitstatus_to_exitcode(status),
        "refused": "" if done else (said[-1] if said else ""),
        "seconds": round(seconds, 1),
        "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 2),
        **{name: done[name] for name in ("volumes_ml", "geometry", "brain", "warnings") if name in done},
    }


def score(found: Array, true: Array, task: str) -> dict[str, float]:
    """Dice by region of two label maps (D, H, W) in the same convention."""
    dice = {}
    for region, labels in load_task(task).regions.items():
        one, other = np.isin(found, labels), np.isin(true, labels)
        dice[region] = round(2 * float((one & other).sum()) / max(int(one.sum() + other.sum()), 1), 4)
    return dice


def judge_patient(folder: Path, out: Path) -> dict:
    """The raw and the prepared images of one patient, against the same reference."""
    prepared = folder / "reference_1mm"
    names = {name: f"TCGA-FG-6692_{name}.nii.gz" for name in ("flair", "t1", "t1c", "t2")}
    fusion = read_labels(prepared / "TCGA-FG-6692_seg_fused_simple.nii.gz")
    raw = read_image(folder / names["t1c"])
    moved = resample(fusion, raw, register(read_image(prepared / names["t1c"]), raw).transform)
    result: dict = {}
    for name, source, reference, true in (
        ("prepared", prepared, "flair", fusion),
        ("raw", folder, "t1c", moved),
    ):
        flags = [word for key, file in names.items() for word in (f"--{key}", str(source / file))]
        target = out / f"{name}.nii.gz"
        result[name] = segment(flags, target, "--reference", reference)
        found = read_labels(target)
        if not (isinstance(true, LabelMap) and found.on_grid_of(true)):
            raise SystemExit(f"the result of the {name} images is not on the grid of {reference}")
        result[name]["dice"] = score(found.array, true.array, "brats2021")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    result: dict = {
        "date": datetime.date.today().isoformat(),
        "machine": describe_cpu(),
        "versions": find_versions(),
        "models": {name: model.card.weights and model.card.weights.sha256 for name, model in shipped_models().items()},
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        result[PATIENT] = judge_patient(arguments.data / "raw" / PATIENT, out)
        for number, (name, place) in enumerate(STUDIES.items()):
            source = [NAMED[name]] if name in NAMED else []
            source.append(str(arguments.data / place))
            target = out / f"{number}.nii.gz"
            result[name] = segment(source, target)
            if "--allow-poor" in result[name]["refused"]:
                result[name]["allowed"] = segment(source, target, "--allow-poor")
            label = arguments.data / "raw/thick_t1c/brain1_label.nrrd"
            if name == "thick_t1c" and target.exists():
                found, true = (read_labels(path).array > 0 for path in (target, label))
                result[name]["dice"] = score(found * 4, true * 4, "brats2021")["whole"]
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
