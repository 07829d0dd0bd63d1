"""Bring the sequences of a case to one grid: resample them where their headers place them, or register them first.

Rigid registration corrects motion of the head between two sequences. It maximises Mattes' estimate of the mutual
information of two images, from coarse to fine. Samples lie on a regular grid, the seed is fixed and one thread
computes, so the same scans always give the same result.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np

from brainsegnet._types import Array, Doubles, ItkObject
from brainsegnet.errors import GridMismatch, ImageError
from brainsegnet.preprocessing.foreground import find_air, find_foreground
from brainsegnet.preprocessing.geometry import find_turn, turn
from brainsegnet.volume import LabelMap, V, Volume, build_itk, load_itk

LEVELS_MM = (8.0, 4.0, 2.0)
"""Approximate voxel sizes to which the images are averaged, one after another. Finer levels add time, not accuracy."""
BINS = 32
SAMPLES = 60_000
ITERATIONS = 100
SEED = 1
PLAUSIBLE_MM = 25.0
PLAUSIBLE_DEGREES = 15.0
"""Within one examination, patients move less than this; scanners of several examinations may place them otherwise."""
_ALONE = Lock()


@dataclass(frozen=True, eq=False)
class Registration:
    """Result of the registration of one image to another.

    Attributes:
        transform: Transform of SimpleITK from points of the reference to points of the moved image.
        before: Mutual information in nats, where the headers place the images.
        after: Mutual information in nats after the transform.
        translation_mm: Distance by which the middle of the reference's grid moves, in mm.
        rotation_degrees: Angle of the rotation, about one axis.
    """

    transform: ItkObject
    before: float
    after: float
    translation_mm: float
    rotation_degrees: float

    @property
    def better(self) -> bool:
        """Whether the images agree more than where their headers place them."""
        return self.after > self.before

    @property
    def warning(self) -> str:
        """Why the registration is doubtful, in words; empty if it is not."""
        if not self.better:
            change = f"mutual information {self.before:.3f} before, {self.after:.3f} after"
            return f"registration made it worse ({change}), so it stays where its headers place it"
        if self.translation_mm > PLAUSIBLE_MM or self.rotation_degrees > PLAUSIBLE_DEGREES:
            motion = f"{self.translation_mm:.1f} mm and {self.rotation_degrees:.1f} degrees"
            return f"registration moved it by {motion}, more than a patient is likely to move; look at the result"
        return ""

    def to_json(self) -> dict[str, Any]:
        """The values for the report of a case."""
        return {
            "mutual_information_before": round(self.before, 4),
            "mutual_information_after": round(self.after, 4),
            "translation_mm": round(self.translation_mm, 2),
            "rotation_degrees": round(self.rotation_degrees, 2),
            "applied": self.better,
            "warning": self.warning,
        }


@dataclass
class Aligner:
    """Brings volumes of one case to the grid of its first sequence; see `io.cases.Align`.

    A label map moves with the sequence whose grid it has: what was drawn on a moved FLAIR stays on its lesion.

    Attributes:
        case: Name of the case, for messages.
        registers: Whether images are registered. Otherwise they are only resampled where their headers place them.
        first: Name of the first sequence, for messages.
        moved: Each sequence that was moved, to its registration; None if it was only resampled.
    """

    case: str
    registers: bool = False
    first: str = "the first sequence"
    moved: dict[str, Registration | None] = field(default_factory=dict)
    _grids: list[tuple[Volume, ItkObject]] = field(default_factory=list)

    def __call__(self, name: str, moving: Volume, reference: Volume) -> Volume:
        """The volume on the grid of `reference`.

        Raises:
            ImageError: it cannot be registered.
            GridMismatch: by their headers, the two do not overlap.
        """
        if isinstance(moving, LabelMap):
            transforms = (transform for grid, transform in self._grids if moving.on_grid_of(grid))
            transform = next(transforms, None)
            if transform is None:
                self._check_overlap("the label map", moving, reference)
            return resample(moving, reference, transform)
        try:
            found = register(moving, reference) if self.registers else None
        except ImageError as error:
            raise ImageError(
                f"case {self.case}: {name} cannot be registered: {error}; mend it, or leave it out"
            ) from error
        transform = found.transform if found and found.better else None
        if transform is None:
            self._check_overlap(name, moving, reference)
        self.moved[name] = found
        self._grids.append((moving.with_array(np.broadcast_to(np.uint8(0), moving.shape)), transform))
        result = resample(moving, reference, transform)
        if result.array.min() == result.array.max() and moving.array.min() < moving.array.max():
            raise GridMismatch(
                f"case {self.case}: {name} shows nothing where {self.first} lies; check the headers, or leave it out"
            )
        return result

    def _check_overlap(self, name: str, moving: Volume, reference: Volume) -> None:
        if apart_mm := measure_distance(moving, reference):
            raise GridMismatch(
                f"case {self.case}: {name} does not overlap {self.first}: the headers put them {apart_mm:.0f} mm "
                "apart; check the headers, or leave it out"
            )

    @property
    def warnings(self) -> dict[str, str]:
        """Sequence to the reason why its registration is doubtful, for those that are."""
        return {name: found.warning for name, found in self.moved.items() if found and found.warning}

    def to_json(self) -> dict[str, Any]:
        """How each sequence came to the grid, for the report of a case."""
        return {
            name: {"how": "registered", **found.to_json()} if found else {"how": "resampled"}
            for name, found in self.moved.items()
        }


def measure_distance(one: Volume, other: Volume) -> float:
    """Distance in millimetres between two grids, along the axis that separates them most; 0 if they overlap.

    Two boxes are disjoint exactly if one of 15 axes separates them: the axes of each, and the normals of each pair.
    """
    frames = [volume.affine[:3, :3] / np.array(volume.spacing_mm) for volume in (one, other)]
    normals = np.cross(frames[0].T[:, None], frames[1].T[None]).reshape(-1, 3)
    lengths = np.linalg.norm(normals, axis=1)
    axes = np.vstack([frames[0].T, frames[1].T, normals[lengths > 1e-6] / lengths[lengths > 1e-6, None]])
    ends = []
    for volume in (one, other):
        outside = [(-0.5, n - 0.5) for n in volume.shape]
        corners = np.array(np.meshgrid(*outside, [1], indexing="ij")).reshape(4, -1)
        places = axes @ (volume.affine @ corners)[:3]
        ends.append((places.min(axis=1), places.max(axis=1)))
    (low, high), (other_low, other_high) = ends
    return float(max(np.maximum(low - other_high, other_low - high).max(), 0))


def resample(moving: V, reference: Volume, transform: ItkObject = None) -> V:
    """Resample a volume to the grid of another, where the headers place the two, or after a transform.

    If the grids hold the same voxels along other axes, axes are only exchanged and reversed. Otherwise images are
    interpolated linearly into float32. Beyond their edge they are background (or their lowest value if they have none).
    A voxel that is at least half background becomes background, so that a stripped brain keeps a sharp edge. Label maps
    take the nearest label, and 0 beyond their edge.

    Args:
        moving: An image, or a label map.
        reference: Volume that gives the grid.
        transform: Transform of SimpleITK from points of `reference` to points of `moving`; None leaves both in place.
    """
    if transform is None:
        stored = turn(turn(moving, find_turn(moving.affine)), find_turn(reference.affine).inverse)
        if stored.on_grid_of(reference):
            return stored
    if isinstance(moving, LabelMap):
        nearest = _interpolate(moving.array, moving, reference, transform, load_itk().sitkNearestNeighbor, 0)
        return type(moving)(nearest, reference.affine, reference.forms, moving.warnings)
    array = moving.array.astype(np.float32)
    air = find_air(array)
    beyond = float(array.min()) if air.kind == "none" else air.level
    moved = _interpolate(array, moving, reference, transform, load_itk().sitkLinear, beyond)
    if air.kind == "exact":
        brain = air.find_foreground(array).astype(np.float32)
        moved[_interpolate(brain, moving, reference, transform, load_itk().sitkLinear, 0) < 0.5] = air.level
    return type(moving)(moved, reference.affine, reference.forms, moving.warnings)


def _interpolate(
    array: Array, grid: Volume, reference: Volume, transform: ItkObject, how: ItkObject, beyond: float
) -> Array:
    """An array (D, H, W) on `grid`, brought onto the grid of `reference`, with `beyond` outside."""
    image = build_itk(array, grid.affine)
    target = build_itk(np.empty(reference.shape, np.uint8), reference.affine)
    moved = load_itk().Resample(image, target, transform or load_itk().Transform(), how, beyond)
    return np.asarray(load_itk().GetArrayFromImage(moved))


def register(moving: Volume, reference: Volume) -> Registration:
    """Find the rigid motion that brings `moving` to `reference`.

    It starts where the headers place the two, or where their centres of mass meet if they agree more there.

    Raises:
        ImageError: an image is constant, holds NaN or infinite values, or the two do not overlap.
    """
    for volume in (moving, reference):
        low, high = float(volume.array.min()), float(volume.array.max())
        if not np.isfinite(high - low):
            raise ImageError("NaN or infinite values are in it, or in the first sequence")
        if low == high:
            raise ImageError(f"it, or the first sequence, is {low:g} everywhere")
    levels = [(_coarsen(reference, mm), _coarsen(moving, mm), mm) for mm in LEVELS_MM]
    centre = reference.affine[:3] @ (*((n - 1) / 2 for n in reference.shape), 1)
    still = load_itk().Euler3DTransform()
    still.SetCenter(centre.tolist())
    centred = load_itk().Euler3DTransform(still)
    centred.SetTranslation((_find_middle(moving) - _find_middle(reference)).tolist())
    with _one_thread():
        transform = max((still, centred), key=lambda start: measure(*levels[0][:2], start))
        for fixed, moved, mm in levels:
            transform = _climb(fixed, moved, transform, mm)
        before, after = (measure(*levels[-1][:2], motion) for motion in (still, transform))
    shift_mm = float(np.linalg.norm(transform.GetTranslation()))
    cosine = (np.trace(np.reshape(transform.GetMatrix(), (3, 3))) - 1) / 2
    return Registration(transform, before, after, shift_mm, float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))))


def measure(fixed: ItkObject, moving: ItkObject, transform: ItkObject) -> float:
    """Mattes mutual information of two images of ITK in nats, over all voxels of `fixed`; 0 if they do not overlap."""
    method = _method()
    method.SetInitialTransform(transform)
    try:
        return -float(method.MetricEvaluate(fixed, moving))
    except RuntimeError:
        return 0.0


@contextmanager
def _one_thread() -> Iterator[None]:
    """Several threads would add up the samples in another order each time; ITK's metric heeds no other setting."""
    with _ALONE:
        before = load_itk().ProcessObject.GetGlobalDefaultNumberOfThreads()
        load_itk().ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        try:
            yield
        finally:
            load_itk().ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _method() -> ItkObject:
    method = load_itk().ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetInterpolator(load_itk().sitkLinear)
    return method


def _climb(fixed: ItkObject, moving: ItkObject, start: ItkObject, mm: float) -> ItkObject:
    """One level: gradient ascent whose steps begin at half a voxel and are halved whenever they turn back."""
    method = _method()
    method.SetMetricSamplingStrategy(method.REGULAR)
    share = min(1.0, SAMPLES / np.prod(fixed.GetSize()))
    method.SetMetricSamplingPercentage(float(share), SEED)
    method.SetOptimizerAsRegularStepGradientDescent(mm / 2, mm / 200, ITERATIONS)
    method.SetOptimizerScalesFromPhysicalShift()
    transform = load_itk().Euler3DTransform(start)
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
    return load_itk().BinShrink(build_itk(volume.array.astype(np.float32), volume.affine), factors)


def _find_middle(volume: Volume) -> Doubles:
    """The centre (x, y, z) of what differs from the background, in millimetres."""
    inside = np.argwhere(find_foreground({"": volume.array}, volume.spacing_mm).mask)
    return np.asarray(volume.affine[:3] @ (*inside.mean(axis=0), 1))
