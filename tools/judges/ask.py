"""Ask a tool for its scores of pairs of masks, in a process of its own."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainsegnet.io.images import write_image
from brainsegnet.volume import LabelMap
from judges.masks import REGIONS, Pair
from judges.panel import Judge

Answers = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Pair to region to score to value, in the words of the tool."""


@dataclass(frozen=True)
class Verdict:
    """What a tool answers, and the versions of its libraries."""

    answers: Answers
    versions: Mapping[str, str]


def write_pairs(pairs: Sequence[Pair], folder: Path) -> None:
    """Write pairs for all tools: as .npz, and as NIfTI in the names of BraTS, which 2026's evaluation needs."""
    (folder / "regions.json").write_text(json.dumps({region: list(v) for region, v in REGIONS.items()}))
    for kind in ("predicted", "truth"):
        (folder / kind).mkdir()
    for number, pair in enumerate(pairs):
        spacing_mm = np.array(pair.spacing_mm)
        np.savez_compressed(
            folder / f"{number:05d}.npz", predicted=pair.predicted, truth=pair.truth, spacing_mm=spacing_mm
        )
        affine = np.diag([*spacing_mm, 1.0])[[2, 1, 0, 3]]
        for kind, labels in (("predicted", pair.predicted), ("truth", pair.truth)):
            write_image(LabelMap(labels, affine), folder / kind / f"BraTS-GLI-{number:05d}-000.nii.gz")


def ask(judge: Judge, pairs: Sequence[Pair], folder: Path) -> Verdict:
    """The scores of pairs that `write_pairs` wrote into a folder.

    Raises:
        RuntimeError: the tool failed; the text holds the end of what it said.
    """
    command = [str(judge.python), "-m", f"judges.scorers.{judge.name}", str(folder), *judge.arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{judge.title} failed: {done.stderr[-2000:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    named = {f"{number:05d}": pair.name for number, pair in enumerate(pairs)}
    return Verdict({named[key]: regions for key, regions in said["answers"].items()}, said["versions"])
