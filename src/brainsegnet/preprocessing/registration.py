"""Rigid registration: a sequence that was taken while the patient lay otherwise, moved onto another.

The mutual information of the two images, Mattes' estimate of it, is climbed from coarse to fine. Samples lie on a
regular grid, the seed is fixed and one thread computes, so that the same scans always give the same result.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import SimpleITK

from brainsegnet.errors import ImageError
from brainsegnet.preprocessing.brain import find_background, find_foreground
from brainsegnet.preprocessing.grid import to_itk
from brainsegnet.volume import Volume

ItkObject = Any
sitk: ItkObject = SimpleITK
"""SimpleITK carries no types."""

_ALONE = Lock()
LEVELS_MM = (8.0, 4.0, 2.0)
"""Voxels are averaged to about these sizes, one after the other; finer voxels than the last add time, not accuracy."""
BINS = 32
SAMPLES = 60_000
ITERATIONS = 100
SEED = 1
PLAUSIBLE_MM = 25.0
PLAUSIBLE_DEGREES = 15.0
"""Within one examination, patients move less than this; scanners of several examinations may place them otherwise."""


@dataclass(frozen=True, eq=False)
class Registration:
    """How one image was laid upon another, and how well that went.

    Attributes:
        transform: SimpleITK's, from points of the reference to points of the moved image.
        before, after: Mutual information in nats, as the headers place the images and as the transform does.
        translation_mm: How far the middle of the reference's grid moves.
        rotation_degrees: About one axis.
    """

    transform: ItkObject
    before: float
    after: float
    translation_mm: float
    rotation_degrees: float

    @property
    def better(self) -> bool:
        """Whether the images agree more than as their headers place them."""
        return self.after > self.before

    @property
    def plausible(self) -> bool:
        """Whether a patient may have moved so far."""
        return self.translation_mm <= PLAUSIBLE_MM and self.rotation_degrees <= PLAUSIBLE_DEGREES

    @property
    def doubt(self) -> str:
        """What speaks against it, in words; empty if nothing does."""
        if not self.better:
            change = f"mutual information {self.before:.3f} before, {self.after:.3f} after"
            return f"registration made it worse ({change}), so it stays where its headers place it"
        if not self.plausible:
            motion = f"{self.translation_mm:.1f} mm and {self.rotation_degrees:.1f} degrees"
            return f"registration moved it by {motion}, more than a patient is likely to move; look at the result"
        return ""

    def to_json(self) -> dict[str, Any]:
        """The figures for the report of a case."""
        return {
            "mutual_information_before": round(self.before, 4),
            "mutual_information_after": round(self.after, 4),
            "translation_mm": round(self.translation_mm, 2),
            "rotation_degrees": round(self.rotation_degrees, 2),
            "applied": self.better,
            "doubt": self.doubt,
        }


def register(moving: Volume, reference: Volume) -> Registration:
    """The rigid motion that lays `moving` upon `reference`.

    It starts from where the headers place the two, or from where their centres of mass meet if they agree more there.

    Raises:
        ImageError: an image is constant, holds NaN or infinite values, or the two do not overlap.
    """
    for volume in (moving, reference):
        _check(volume)
    levels = [(_coarsen(reference, mm), _coarsen(moving, mm), mm) for mm in LEVELS_MM]
    centre = reference.affine[:3] @ (*((n - 1) / 2 for n in reference.shape), 1)
    still = sitk.Euler3DTransform()
    still.SetCenter(centre.tolist())
    fine = levels[-1]
    with _one_thread():
        transform = max(_starts(moving, reference, still), key=lambda start: measure(*levels[0][:2], start))
        for fixed, moved, mm in levels:
            transform = _climb(fixed, moved, transform, mm)
        before, after = measure(*fine[:2], still), measure(*fine[:2], transform)
    shift_mm = float(np.linalg.norm(transform.GetTranslation()))
    return Registration(transform, before, after, shift_mm, _angle(transform))


def measure(fixed: ItkObject, moving: ItkObject, transform: ItkObject) -> float:
    """Mattes mutual information of two images of ITK in nats, all voxels of `fixed` taken; 0 where none overlap."""
    method = _method()
    method.SetInitialTransform(transform)
    try:
        return -float(method.MetricEvaluate(fixed, moving))
    except RuntimeError:
        return 0.0


def _check(volume: Volume) -> None:
    low, high = float(volume.array.min()), float(volume.array.max())
    if not np.isfinite(high - low):
        raise ImageError("NaN or infinite values are in it, or in the first sequence")
    if low == high:
        raise ImageError(f"it, or the first sequence, is {low:g} everywhere")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Several threads would add up the samples in an order of their own; a metric of ITK's heeds no other setting."""
    with _ALONE:
        before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        try:
            yield
        finally:
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _method() -> ItkObject:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _climb(fixed: ItkObject, moving: ItkObject, start: ItkObject, mm: float) -> ItkObject:
    """One level: gradient ascent whose steps begin at half a voxel and are halved whenever they turn back."""
    method = _method()
    method.SetMetricSamplingStrategy(method.REGULAR)
    share = min(1.0, SAMPLES / np.prod(fixed.GetSize()))
    method.SetMetricSamplingPercentage(float(share), SEED)
    method.SetOptimizerAsRegularStepGradientDescent(mm / 2, mm / 200, ITERATIONS)
    method.SetOptimizerScalesFromPhysicalShift()
    transform = sitk.Euler3DTransform(start)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError as error:
        raise ImageError("it does not overlap with the first sequence") from error
    return transform


def _coarsen(volume: Volume, mm: float) -> ItkObject:
    """Voxels averaged in blocks of about `mm`, along each axis by itself, so that thick slices stay."""
    d, h, w = (max(1, round(mm / size)) for size in volume.spacing_mm)
    factors = [min(factor, n) for factor, n in zip((w, h, d), volume.shape[::-1], strict=True)]
    return sitk.BinShrink(to_itk(volume.array.astype(np.float32), volume), factors)


def _starts(moving: Volume, reference: Volume, still: ItkObject) -> list[ItkObject]:
    """As the headers say, and with the centres of mass upon each other."""
    centred = sitk.Euler3DTransform(still)
    centred.SetTranslation((_find_middle(moving) - _find_middle(reference)).tolist())
    return [still, centred]


def _find_middle(volume: Volume) -> np.ndarray[Any, Any]:
    """The centre (x, y, z) of what differs from the background, in millimetres."""
    inside = np.argwhere(find_foreground(volume.array, find_background(volume.array)))
    return volume.affine[:3] @ (*inside.mean(axis=0), 1)


def _angle(transform: ItkObject) -> float:
    matrix = np.reshape(transform.GetMatrix(), (3, 3))
    return float(np.degrees(np.arccos(np.clip((np.trace(matrix) - 1) / 2, -1, 1))))
