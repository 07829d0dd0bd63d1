"""Rigid registration of one image of a head to another, by Mattes' estimate of their mutual information.

Images are averaged to about 8, 4 and 2 mm, one after another, and compared in and around the head of the reference.
SimpleITK climbs from where the headers place the images, from where their centres of mass meet, and from small
rotations of both. Samples lie on a regular grid, the seed is fixed and one thread computes, so the same scans give the
same motion.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np

from brainsegnet._types import Affine, Doubles, ItkObject, Mask
from brainsegnet.errors import ImageError
from brainsegnet.preprocessing.foreground import find_foreground
from brainsegnet.preprocessing.head import scale_intensities
from brainsegnet.volume import Volume, build_itk, load_itk

LEVELS_MM = (8.0, 4.0, 2.0)
"""Voxel sizes to which the images are averaged, one after another. Thick slices stay as they are."""
HEAD_MM = 4.0
"""Voxel size at which the head is found."""
BINS = 32
MOST_POINTS = (15_000, 30_000, 30_000)
"""Number of points at which the images are compared during a climb, by level."""
AROUND_MM = 10.0
"""Width of the air around the head that counts too: it tells where the surface is."""
RADIUS_MM = 60.0
"""Distance from the centre at which a rotation moves as much as a translation, in the steps of the climb."""
TILTS_DEGREES = (-14.0, 14.0)
"""Rotations about each axis from which the climb starts too."""
CLIMBS = 4
"""Number of the best starts that are climbed from."""
ITERATIONS = 100
SEED = 1
CLEAR_GAIN, LEAST_GAIN = 0.04, 0.01
"""Relative gain of mutual information that is clear, beyond a gain in nats that noise may have. Aligned scans of public
data gain at most 0.034."""
MOVED_MM = 1.0
"""Mean distance, over the head, below which images on one grid count as aligned."""
FEWEST_POINTS = 2400
"""Voxels of `HEAD_MM` in and around the head, below which a check tells nothing."""
LEAST_OVERLAP = 0.2
"""Share of the head of the reference that another image must show."""
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_ALONE = Lock()


@dataclass(frozen=True, eq=False)
class Registration:
    """Result of the registration of one image to another.

    Attributes:
        matrix: (4, 4) in the world, from points of the reference to points of the moved image, in millimetres.
        before: Mutual information in nats, where the headers place the images.
        after: Mutual information in nats after the motion.
        translation_mm: Distance by which the middle of the reference's grid moves, in mm.
        rotation_degrees: Angle of the rotation, about one axis.
    """

    matrix: Affine
    before: float
    after: float
    translation_mm: float
    rotation_degrees: float

    @property
    def better(self) -> bool:
        """Whether the images agree more than where their headers place them."""
        return self.after > self.before

    @property
    def clear(self) -> bool:
        """Whether they agree so much more that interpolating an image again is worth it."""
        return self.after > (1 + CLEAR_GAIN) * self.before + LEAST_GAIN

    @property
    def gain(self) -> str:
        """The gain in words."""
        return f"mutual information {self.before:.3f} before, {self.after:.3f} after"

    @property
    def motion(self) -> str:
        """The motion in words."""
        return f"{self.translation_mm:.1f} mm and {self.rotation_degrees:.1f} degrees"

    @property
    def transform(self) -> ItkObject:
        """The motion as a transform of SimpleITK, from points of the reference to points of the moved image."""
        return load_itk().AffineTransform(self.matrix[:3, :3].ravel().tolist(), self.matrix[:3, 3].tolist())

    def exceeds(self, mm: float, degrees: float) -> bool:
        """Whether the motion is larger than this in either."""
        return self.translation_mm > mm or self.rotation_degrees > degrees

    def to_json(self) -> dict[str, Any]:
        """The values for the report of a case. The matrix maps points of the reference to points of the image (RAS)."""
        return {
            "mutual_information_before": round(self.before, 4),
            "mutual_information_after": round(self.after, 4),
            "translation_mm": round(self.translation_mm, 2),
            "rotation_degrees": round(self.rotation_degrees, 2),
            "matrix_ras": (TO_RAS @ self.matrix @ TO_RAS).round(6).tolist(),
        }


@dataclass(frozen=True, eq=False)
class Pyramid:
    """An image averaged to the sizes of `LEVELS_MM`; each level is made when it is needed.

    Attributes:
        volume: The image.
        name: What messages call it, if it cannot be registered.

    Raises:
        ImageError: on first use, if it is constant, or holds NaN or infinite values.
    """

    volume: Volume
    name: str = "it"
    _levels: dict[int, ItkObject] = field(default_factory=dict)

    def level(self, number: int) -> ItkObject:
        """The image of SimpleITK at a size of `LEVELS_MM`, with values from 0 to 2."""
        if number not in self._levels:
            mm = LEVELS_MM[number]
            image = average(self._coarse if mm >= HEAD_MM else self.volume, mm)
            self._levels[number] = build_itk(scale_intensities(image.array), image.affine)
        return self._levels[number]

    @cached_property
    def _coarse(self) -> Volume:
        """The image at `HEAD_MM`."""
        image = average(self.volume, HEAD_MM)
        low, high = float(image.array.min()), float(image.array.max())
        if not np.isfinite(high - low):
            raise ImageError(f"NaN or infinite values are in {self.name}")
        if low == high:
            raise ImageError(f"{self.name} is {low:g} everywhere")
        return image

    @cached_property
    def _head(self) -> Mask:
        """The head (D, H, W) at `HEAD_MM`."""
        head = find_foreground({"": self._coarse.array}, self._coarse.spacing_mm).mask
        return head if head.any() else np.ones(head.shape, np.bool_)

    @cached_property
    def near(self) -> ItkObject:
        """The head and `AROUND_MM` of air around it, as a mask of SimpleITK."""
        steps = [round(AROUND_MM / mm) for mm in self._coarse.spacing_mm[::-1]]
        head = build_itk(self._head.astype(np.uint8), self._coarse.affine)
        return load_itk().BinaryDilate(head, steps, load_itk().sitkBox)

    @cached_property
    def places(self) -> Doubles:
        """Points (3, N) in and around the head, in millimetres."""
        inside = np.argwhere(load_itk().GetArrayViewFromImage(self.near))
        return _move(self._coarse.affine, inside.T.astype(np.float64))

    @cached_property
    def middle(self) -> Doubles:
        """The centre (3,) of the head in millimetres."""
        return np.asarray(self._coarse.affine[:3] @ (*np.argwhere(self._head).mean(axis=0), 1))

    @cached_property
    def centre(self) -> Doubles:
        """The middle (3,) of the grid in millimetres."""
        return np.asarray(self.volume.affine[:3] @ (*((n - 1) / 2 for n in self.volume.shape), 1))


def average(volume: Volume, mm: float) -> Volume:
    """Voxels averaged in blocks of about `mm`, along each axis by itself, so that thick slices stay."""
    array, affine = volume.array, volume.affine.copy()
    for axis, (n, size) in enumerate(zip(volume.shape, volume.spacing_mm, strict=True)):
        factor = min(n, max(1, round(mm / size)))
        shape = array.shape
        array = array[(slice(None),) * axis + (slice(n - n % factor),)]
        array = array.reshape(*shape[:axis], n // factor, factor, *shape[axis + 1 :]).mean(axis + 1, dtype=np.float32)
        affine[:3, 3] += affine[:3, axis] * (factor - 1) / 2
        affine[:3, axis] *= factor
    return Volume(array, affine)


def register(moving: Volume | Pyramid, reference: Volume | Pyramid) -> Registration:
    """Find the rigid motion that brings an image to a reference.

    Args:
        moving: The image.
        reference: The reference; a `Pyramid` serves for several images.

    Raises:
        ImageError: an image is constant, or holds NaN or infinite values.
    """
    moving = moving if isinstance(moving, Pyramid) else Pyramid(moving)
    reference = reference if isinstance(reference, Pyramid) else Pyramid(reference, "the reference")
    shifts = [np.zeros(3), moving.middle - reference.middle]
    tilts = [np.zeros(3), *(np.radians(t) * axis * RADIUS_MM for t in TILTS_DEGREES for axis in np.eye(3))]
    starts = [build_motion((*shift, *tilt), reference.middle) for shift in shifts for tilt in tilts]

    def judge(motion: ItkObject) -> float:
        return measure(moving, reference, motion, 0)

    with one_thread():
        starts = sorted(starts, key=judge, reverse=True)[:CLIMBS]
        return _refine(moving, reference, max((climb(moving, reference, start, 0) for start in starts), key=judge))


def check(moving: Pyramid, reference: Pyramid) -> Registration | None:
    """Find out whether an image on the grid of a reference has moved: quickly if it has not.

    Returns:
        The registration if the image has clearly moved, else None.
    """
    if reference.places.shape[1] < FEWEST_POINTS:
        return None
    motion = build_motion(np.zeros(6), reference.middle)
    with one_thread():
        for level in (0, 1):
            motion = climb(moving, reference, motion, level)
            if np.linalg.norm(_move(to_matrix(motion) - np.eye(4), reference.places), axis=0).mean() < MOVED_MM:
                return None
        found = _refine(moving, reference, motion)
    return found if found.clear else None


def measure(moving: Pyramid, reference: Pyramid, motion: ItkObject, level: int) -> float:
    """Mattes mutual information in nats in and around the head; 0 if the images hardly overlap."""
    half = np.array(moving.volume.shape)[:, None] / 2
    at = _move(np.linalg.inv(moving.volume.affine) @ to_matrix(motion), reference.places)
    if (np.abs(at + 0.5 - half) < half).all(axis=0).mean() < LEAST_OVERLAP:
        return 0.0
    try:
        return -float(_compare(reference, motion).MetricEvaluate(reference.level(level), moving.level(level)))
    except RuntimeError:
        return 0.0


def climb(moving: Pyramid, reference: Pyramid, start: ItkObject, level: int) -> ItkObject:
    """The best motion near another, by steps that are halved whenever they turn back; `start` if there is none."""
    fixed, mm = reference.level(level), LEVELS_MM[level]
    motion = load_itk().Euler3DTransform(start)
    method = _compare(reference, motion)
    points = reference.places.shape[1] * np.prod(reference.near.GetSpacing()) / np.prod(fixed.GetSpacing())
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(min(1.0, MOST_POINTS[level] / float(points)), SEED)
    method.SetOptimizerAsRegularStepGradientDescent(mm / 4, mm / 50, ITERATIONS)
    method.SetOptimizerScales([RADIUS_MM**2] * 3 + [1.0] * 3)
    try:
        method.Execute(fixed, moving.level(level))
    except RuntimeError:
        return start
    return motion


def build_motion(motion: Sequence[float] | Doubles, centre: Doubles) -> ItkObject:
    """A transform of SimpleITK: mm along x, y, z, and radians about them times `RADIUS_MM`, about a centre (3,)."""
    angles = [float(mm) / RADIUS_MM for mm in motion[3:]]
    return load_itk().Euler3DTransform(centre.tolist(), *angles, [float(mm) for mm in motion[:3]])


def to_matrix(motion: ItkObject) -> Affine:
    """(4, 4) of a transform of SimpleITK."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(motion.GetMatrix(), (3, 3))
    matrix[:3, 3] = motion.TransformPoint((0.0, 0.0, 0.0))
    return matrix


def _move(matrix: Affine, points: Doubles) -> Doubles:
    return np.asarray(matrix[:3, :3] @ points + matrix[:3, 3:])


def _refine(moving: Pyramid, reference: Pyramid, motion: ItkObject) -> Registration:
    """Climb on from a motion that was found at the coarsest level."""
    still = build_motion(np.zeros(6), reference.middle)
    for level in (1, 2):
        motion = climb(moving, reference, motion, level)
    before, after = (measure(moving, reference, each, 2) for each in (still, motion))
    matrix, centre = to_matrix(motion), reference.centre[:, None]
    angle = np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1)))
    return Registration(matrix, before, after, float(np.linalg.norm(_move(matrix, centre) - centre)), float(angle))


def _compare(reference: Pyramid, motion: ItkObject) -> ItkObject:
    """SimpleITK's method with the metric, in and around the head; it changes `motion` if it is executed."""
    method = load_itk().ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricFixedMask(reference.near)
    method.SetMetricUseFixedImageGradientFilter(False)
    method.SetMetricUseMovingImageGradientFilter(False)
    method.SetInterpolator(load_itk().sitkLinear)
    method.SetInitialTransform(motion, inPlace=True)
    return method


@contextmanager
def one_thread() -> Iterator[None]:
    """Several threads would add up the samples in another order each time; ITK's metric heeds no other setting."""
    with _ALONE:
        before = load_itk().ProcessObject.GetGlobalDefaultNumberOfThreads()
        load_itk().ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        try:
            yield
        finally:
            load_itk().ProcessObject.SetGlobalDefaultNumberOfThreads(before)
