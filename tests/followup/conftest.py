"""Results of a follow-up on disk, made without a network: heads with balls as lesions, moved and grown."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from brainsegnet.io.images import describe_file, write_image
from brainsegnet.io.results import describe_place
from brainsegnet.task import BRATS2021, Task
from brainsegnet.volume import LabelMap, Volume, load_itk

SPACING = (3.0, 2.0, 2.0)
SHAPE = (56, 96, 84)
Ball = tuple[tuple[float, float, float], float, int]
"""Centre (x, y, z) and radius in mm, and label."""


def make_affine(spacing=SPACING, shape=SHAPE):
    affine = np.diag([*spacing, 1.0])[[2, 1, 0, 3]]
    affine[:3, 3] = [-(n - 1) / 2 * mm for n, mm in zip(shape[::-1], spacing[::-1], strict=True)]
    return affine


def make_motion(degrees=6.0, shift=(5.0, -4.0, 3.0)):
    """From a point of the patient at first to the same point later."""
    motion = load_itk().Euler3DTransform()
    motion.SetRotation(0.0, 0.0, float(np.radians(degrees)))
    motion.SetTranslation(shift)
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(motion.GetMatrix(), (3, 3))
    matrix[:3, 3] = shift
    return matrix


def points_at_first(motion, affine, shape):
    grid = np.stack([*np.indices(shape), np.ones(shape)], axis=-1)
    return (grid @ (np.linalg.inv(motion) @ affine).T)[..., :3]


def paint(points, seed, subject=0):
    """A head of ellipsoids (D, H, W), whose inner parts depend on the subject, in noise."""
    x, y, z = np.moveaxis(points, -1, 0)
    drawn = np.random.default_rng(subject)
    image = np.zeros(x.shape)
    image[(x / 62) ** 2 + (y / 78) ** 2 + (z / 66) ** 2 < 1] = 100
    for _ in range(14):
        centre, radii = drawn.uniform(-38, 38, 3), drawn.uniform(6, 18, 3)
        inside = sum(((a - c) / r) ** 2 for a, c, r in zip((x, y, z), centre, radii, strict=True)) < 1
        image[inside & (image > 0)] = drawn.uniform(40, 220)
    return np.where(image > 0, image + np.random.default_rng(seed).normal(0, 4, image.shape), 0).astype(np.float32)


class Maker:
    """Writes studies as `segment` leaves them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        name: str,
        balls: list[Ball],
        motion=None,
        subject: int = 0,
        task: Task = BRATS2021,
        sequences: tuple[str, ...] = ("flair", "t1c"),
        model: str = "tumour",
        sha256: str | None = None,
        spacing=SPACING,
    ) -> Path:
        """The label map of a study; balls are where they would be at first."""
        from brainsegnet.model.store import resolve_model

        shape = tuple(round(n * mm / new) for n, mm, new in zip(SHAPE, SPACING, spacing, strict=True))
        affine = make_affine(spacing, shape)
        points = points_at_first(np.eye(4) if motion is None else motion, affine, shape)
        labels = np.zeros(shape, np.uint8)
        for centre, radius, value in balls:
            labels[np.linalg.norm(points - centre, axis=-1) < radius] = value
        result = self.folder / name / f"{name}.nii.gz"
        inputs = {}
        for number, sequence in enumerate(sequences):
            path = self.folder / name / f"{sequence}.nii.gz"
            write_image(Volume(paint(points, len(name) + number, subject), affine), path)
            inputs[sequence] = {"path": describe_place(str(path), result.parent), **describe_file(path, content=True)}
        write_image(LabelMap(labels, affine), result)
        weights = resolve_model("tumour").card.weights
        note = {
            "case": name,
            "labels": result.name,
            "task": task.name,
            "convention": {str(value): tissue for value, tissue in task.labels.items()},
            "sequences": {"used": list(sequences), "absent": []},
            "geometry": {"grid": sequences[0], "moved": {}},
            "inputs": inputs,
            "warnings": [f"case {name}: looks odd"],
            "model": {"name": model, "folder": "", "sha256": sha256 or (weights.sha256 if weights else "")},
        }
        result.with_name(f"{name}.json").write_text(json.dumps(note))
        return result


@pytest.fixture
def motion() -> Callable[..., "np.ndarray"]:
    """`make_motion`."""
    return make_motion


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """`Maker` in a folder of its own."""
    return Maker(tmp_path / "results")
