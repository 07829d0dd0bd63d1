"""How far a scan and a training run walk through the house: files that the data itself passes, counted in a run."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

import brainsegnet
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.predict import PreparedCase, RawPrediction
from brainsegnet.inference.segmentation import Segmentation
from brainsegnet.pipeline.segment import segment
from brainsegnet.preprocessing.prepare import Prepared
from brainsegnet.training import TrainOptions
from brainsegnet.training.sampler import Scan
from brainsegnet.training.train import train
from brainsegnet.volume import Case, Volume

SOURCE = str(Path(brainsegnet.__file__).parent)
CARRIERS = (Volume, Case, Prepared, PreparedCase, RawPrediction, Segmentation, Scan)
MOST_FILES = {"scan": 20, "study": 30, "training": 20}
"""Of a prepared case, of a raw study of DICOM with all that can be asked for, and of a training run."""


def carries_voxels(value: object) -> bool:
    """Whether an argument is a scan, or what it has become."""
    grids = isinstance(value, (np.ndarray, torch.Tensor)) and value.ndim >= 3
    return grids or isinstance(value, (CARRIERS, torch.nn.Module))


@contextmanager
def walked() -> Iterator[set[str]]:
    """Files of the package in which a function was given voxels, from all threads."""
    files: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        name, code = frame.f_code.co_filename, frame.f_code
        if event != "call" or not name.startswith(SOURCE) or name in files:
            return
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if any(carries_voxels(frame.f_locals.get(argument)) for argument in arguments):
            files.add(name)

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield files
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


def names(files: set[str]) -> list[str]:
    return sorted(str(Path(file).relative_to(SOURCE)) for file in files)


def test_a_scan_walks_through_few_files(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "glioma"
    with walked() as files:
        segment(example, "tumour", tmp_path / "found.nii.gz", SegmentOptions(device="cpu", threads=1))
    assert 5 < len(files) <= MOST_FILES["scan"], "\n".join(names(files))


def test_a_raw_study_walks_through_few_more(
    raw_study: Path, trained: Path, depth_extractor: Any, tmp_path: Path
) -> None:
    everything = SegmentOptions(device="cpu", threads=1, all_grids=True, save_preprocessed=True, dicom=True)
    with walked() as files:
        segment(raw_study, trained, tmp_path / "found.nii.gz", everything)
    assert {"inference/brain.py", "io/dicom_out.py", "preprocessing/registration.py"} <= {*names(files)}
    assert len(files) <= MOST_FILES["study"], "\n".join(names(files))


def test_a_training_run_walks_through_few_files(phantoms: Path, tiny: Any, tmp_path: Path) -> None:
    options = TrainOptions(tiny, steps=2, hold_out=("phantom0002",))
    with walked() as files:
        train(phantoms, "brats2015", tmp_path / "run", options)
    assert 5 < len(files) <= MOST_FILES["training"], names(files)
