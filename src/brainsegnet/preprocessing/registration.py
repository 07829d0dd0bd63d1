"""Rigid registration of one image of a head to another, by their normalised mutual information.

Images are averaged to about 8, 4 and 2 mm, one after another, and compared at points in and around the head of the
reference. The intensities of the moved image spread over bins by cubic B-splines (Mattes et al. 2003), which gives a
gradient. The climb starts where the headers place the images, where their centres of mass meet, and from small
rotations of both. All sums have a fixed order and all random numbers a fixed seed, so the same scans give the same
motion, whatever the number of threads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from brainsegnet._types import Affine, Array, Doubles, Floats, ItkObject, Mask
from brainsegnet.errors import ImageError
from brainsegnet.preprocessing.foreground import find_foreground
from brainsegnet.preprocessing.head import scale_intensities
from brainsegnet.volume import Volume, load_itk

LEVELS_MM = (8.0, 4.0, 2.0)
"""Voxel sizes to which the images are averaged, one after another. Thick slices stay as they are."""
HEAD_MM = 4.0
"""Voxel size at which the head is found."""
BINS = 32
MOST_POINTS = 30_000
AROUND_MM = 10.0
"""Width of the air around the head that counts too: it tells where the surface is."""
RADIUS_MM = 60.0
"""Distance from the centre at which a rotation moves as much as a translation, in the steps of the climb."""
TILTS_DEGREES = (-14.0, 14.0)
"""Rotations about each axis from which the climb starts too."""
CLIMBS = 4
"""Number of the best starts that are climbed from."""
SEED = 1
CLEAR_GAIN, LEAST_GAIN = 0.04, 0.01
"""Relative gain of mutual information that is clear, beyond a gain in nats that noise may have. Aligned scans of public
data gain at most 0.028; a motion of 1 mm and 1 degree gains 0.04 to 0.15."""
MOVED_MM = 1.0
"""Mean distance, over the head, below which images on one grid count as aligned."""
FEWEST_POINTS = 300
"""Points below which a check at the coarsest level tells nothing."""
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


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
        transform = load_itk().AffineTransform(3)
        transform.SetMatrix(self.matrix[:3, :3].ravel().tolist())
        transform.SetTranslation(self.matrix[:3, 3].tolist())
        return transform

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
class Points:
    """Where two images are compared: points of the reference, and what it shows there."""

    places: Doubles  # (3, N), mm from `centre`
    centre: Doubles  # (3,)
    rows: Array  # (N,) of the joint histogram, one for each bin of the reference

    def measure(self, motion: Doubles) -> float:
        """Mean distance in mm by which a motion (6,) moves the points."""
        turns = _rotation(motion[3:] / RADIUS_MM) - np.eye(3)
        gap = [(row[:, None] * self.places).sum(0) + s for row, s in zip(turns, motion[:3], strict=True)]
        return float(np.sqrt(np.square(gap).sum(0)).mean())


@dataclass(frozen=True, eq=False)
class Likeness:
    """How much an image tells of a reference after a motion, and the gradient."""

    points: Points
    image: Volume  # its values in bins

    @cached_property
    def _to_index(self) -> Affine:
        return np.asarray(np.linalg.inv(self.image.affine))

    def __call__(self, motion: Doubles) -> tuple[float, Doubles]:
        """Normalised mutual information and its gradient (6,) for a motion (6,); see `matrix_of`."""
        turns = _rotation(motion[3:] / RADIUS_MM)
        values, slopes, seen = self._sample(turns, motion[:3])
        if not seen.sum() > 0.2 * seen.size:
            return 0.0, np.zeros(6)
        table, changes, cells = self._count(values, seen)
        fixed, moved, joint = (_entropy(part) for part in (table.sum(1), table.sum(0), table))
        score = (fixed + moved) / joint
        logs = score * _log(table) - _log(table.sum(1, keepdims=True)) - _log(table.sum(0, keepdims=True))
        pull = (logs.ravel()[cells] * changes).sum(0) * seen / (joint * seen.sum())
        force = slopes * pull
        gradient = np.empty(6)
        gradient[:3] = force.sum(1)
        moment = np.array([[np.sum(f * p) for p in self.points.places] for f in force])
        for axis, step in enumerate(np.eye(3) * 1e-4):
            turn = (_rotation(motion[3:] / RADIUS_MM + step) - _rotation(motion[3:] / RADIUS_MM - step)) / 2e-4
            gradient[3 + axis] = np.sum(turn * moment) / RADIUS_MM
        return float(score), gradient

    def information(self, motion: Doubles) -> float:
        """Mutual information in nats after a motion (6,); 0 where the images hardly overlap."""
        values, _, seen = self._sample(_rotation(motion[3:] / RADIUS_MM), motion[:3])
        if not seen.sum() > 0.2 * seen.size:
            return 0.0
        table = self._count(values, seen)[0]
        return _entropy(table.sum(1)) + _entropy(table.sum(0)) - _entropy(table)

    def _sample(self, turns: Doubles, shift: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """Values (N,) of the image at the moved points, slopes (3, N) per mm, and weights (N,): 0 outside it."""
        to_index = self._to_index
        through = to_index[:3, :3] @ turns
        start = to_index[:3, :3] @ (self.points.centre + shift) + to_index[:3, 3]
        at = np.stack([(row[:, None] * self.points.places).sum(0) + s for row, s in zip(through, start, strict=True)])
        last = np.array(self.image.shape)[:, None] - 1.0
        inside = np.clip(at, 0, last)
        seen = np.clip(1.5 - np.abs(at - inside).max(0), 0, 1)
        values, slopes = interpolate(self.image.array, inside)
        slopes[at != inside] = 0
        return values, np.stack([(row[:, None] * slopes).sum(0) for row in to_index[:3, :3].T]), seen

    def _count(self, values: Doubles, seen: Doubles) -> tuple[Doubles, Doubles, Array]:
        """The joint histogram (BINS, BINS), and for each value the slopes and cells (4, N) of its spline."""
        low = values.astype(np.intp)
        u = values - low
        v = 1 - u
        weights = np.stack([v**3, 3 * u**3 - 6 * u**2 + 4, 3 * v**3 - 6 * v**2 + 4, u**3]) / 6
        changes = np.stack([-(v**2), 3 * u**2 - 4 * u, 4 * v - 3 * v**2, u**2]) / 2
        cells = self.points.rows + low + np.arange(-1, 3)[:, None]
        table = np.bincount(cells.ravel(), (weights * seen).ravel(), BINS * BINS).reshape(BINS, BINS)
        return table / table.sum(), changes, cells


def interpolate(array: Floats, at: Doubles) -> tuple[Doubles, Doubles]:
    """Values (N,) of an array (D, H, W) at indices (3, N) within it, by linear interpolation, and slopes (3, N)."""
    low = np.minimum(at.astype(np.intp), np.maximum(np.array(array.shape) - 2, 0)[:, None])
    d, h, w = at - low
    steps = [
        int(n > 1) * s for n, s in zip(array.shape, (array.shape[1] * array.shape[2], array.shape[2], 1), strict=True)
    ]
    first = (low[0] * array.shape[1] + low[1]) * array.shape[2] + low[2]
    flat = array.ravel()
    corners = [
        flat.take(first + sum(s for s, on in zip(steps, corner, strict=True) if on))
        for corner in product((0, 1), repeat=3)
    ]
    starts, along_w = corners[::2], [b - a for a, b in zip(corners[::2], corners[1::2], strict=True)]
    lines = [a + w * slope for a, slope in zip(starts, along_w, strict=True)]
    upper, lower = lines[0] + h * (lines[1] - lines[0]), lines[2] + h * (lines[3] - lines[2])
    slope_h = (1 - d) * (lines[1] - lines[0]) + d * (lines[3] - lines[2])
    slope_w = (1 - d) * ((1 - h) * along_w[0] + h * along_w[1]) + d * ((1 - h) * along_w[2] + h * along_w[3])
    return upper + d * (lower - upper), np.stack([lower - upper, slope_h, slope_w])


@dataclass(frozen=True, eq=False)
class Pyramid:
    """An image averaged to the sizes of `LEVELS_MM`, with intensities in bins; each level is made when it is needed.

    Attributes:
        volume: The image.
        name: What messages call it, if it cannot be registered.

    Raises:
        ImageError: on first use, if it is constant, or holds NaN or infinite values.
    """

    volume: Volume
    name: str = "it"
    _levels: dict[int, Volume] = field(default_factory=dict)
    _points: dict[int, Points] = field(default_factory=dict)

    def level(self, number: int) -> Volume:
        """The image at a size of `LEVELS_MM`, its values in bins."""
        if number not in self._levels:
            fine = self._head[0] if LEVELS_MM[number] >= HEAD_MM else self.volume
            self._levels[number] = _in_bins(average(fine, LEVELS_MM[number]))
        return self._levels[number]

    @cached_property
    def _head(self) -> tuple[Volume, Mask]:
        """The image at `HEAD_MM`, and the head in it (D, H, W)."""
        image = average(self.volume, HEAD_MM)
        low, high = float(image.array.min()), float(image.array.max())
        if not np.isfinite(high - low):
            raise ImageError(f"NaN or infinite values are in {self.name}")
        if low == high:
            raise ImageError(f"{self.name} is {low:g} everywhere")
        head = find_foreground({"": image.array}, image.spacing_mm).mask
        return image, head if head.any() else np.ones(image.shape, np.bool_)

    @cached_property
    def middle(self) -> Doubles:
        """The centre (3,) of the head in millimetres."""
        image, head = self._head
        return np.asarray(image.affine[:3] @ (*np.argwhere(head).mean(axis=0), 1))

    @cached_property
    def centre(self) -> Doubles:
        """The middle (3,) of the grid in millimetres."""
        return np.asarray(self.volume.affine[:3] @ (*((n - 1) / 2 for n in self.volume.shape), 1))

    def points(self, number: int) -> Points:
        """Points of a level in and around the head, off its grid by chance, so that no motion aligns voxels."""
        if number not in self._points:
            self._points[number] = self._choose_points(number)
        return self._points[number]

    def _choose_points(self, number: int) -> Points:
        image, (coarse, head) = self.level(number), self._head
        near = _widen(head, coarse.spacing_mm)
        for axis, (n, size, mm) in enumerate(zip(image.shape, image.spacing_mm, coarse.spacing_mm, strict=True)):
            at = np.rint(((np.arange(n) + 0.5) * size / mm) - 0.5).astype(np.intp)
            near = near.take(np.clip(at, 0, coarse.shape[axis] - 1), axis)
        places = np.argwhere(near).T
        places = places[:, :: max(1, places.shape[1] // MOST_POINTS)]
        at = places + np.random.default_rng(SEED).uniform(-0.5, 0.5, places.shape)
        at = np.clip(at, 0, np.array(image.shape)[:, None] - 1.0)
        places = np.stack([(row[:3, None] * at).sum(0) + row[3] for row in image.affine[:3]])
        rows = np.rint(interpolate(image.array, at)[0]).astype(np.intp) * BINS
        return Points(places - self.centre[:, None], self.centre, rows)


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


def _in_bins(image: Volume) -> Volume:
    """Values from 1 to BINS - 3, where a cubic spline ends within the histogram."""
    return image.with_array(1 + (BINS - 4.001) / 2 * scale_intensities(image.array).astype(np.float64))


def _widen(head: Array, spacing_mm: Sequence[float]) -> Array:
    near = head.copy()
    for axis, mm in enumerate(spacing_mm):
        steps, along = round(AROUND_MM / mm), np.moveaxis(near, axis, 0)
        before = along.copy()
        for step in range(1, min(steps, len(along) - 1) + 1):
            along[step:] |= before[:-step]
            along[:-step] |= before[step:]
    return near


def climb(likeness: Callable[[Doubles], tuple[float, Doubles]], start: Doubles, mm: float, most: int = 40) -> Doubles:
    """Maximise a function of six numbers by BFGS; steps begin at half a voxel of `mm` and end below a hundredth."""
    at, (value, slope) = start, likeness(start)
    inverse = np.eye(6) * (mm / 2) / max(float(np.linalg.norm(slope)), 1e-12)
    for _ in range(most):
        step = inverse @ slope
        step *= min(1.0, mm / max(float(np.linalg.norm(step)), 1e-12))
        while np.linalg.norm(step) > mm / 100:
            there = at + step
            found, turned = likeness(there)
            if found > value + 1e-4 * step @ slope:
                break
            step = step / 3
        else:
            break
        change = slope - turned
        at, value, slope = there, found, turned
        if (curve := step @ change) > 1e-12:
            left = np.eye(6) - np.outer(step, change) / curve
            inverse = left @ inverse @ left.T + np.outer(step, step) / curve
    return at


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
    coarse = Likeness(reference.points(0), moving.level(0))
    shifts = [np.zeros(3), moving.middle - reference.middle]
    tilts = [np.zeros(3), *(np.radians(t) * axis * RADIUS_MM for t in TILTS_DEGREES for axis in np.eye(3))]
    arm = reference.middle - reference.centre
    starts = [np.concatenate([_about(arm, shift, tilt), tilt]) for shift in shifts for tilt in tilts]
    starts.sort(key=lambda motion: -coarse(motion)[0])
    tops = [climb(coarse, start, LEVELS_MM[0]) for start in starts[:CLIMBS]]
    return refine(max(tops, key=lambda top: coarse(top)[0]), moving, reference)


def check(moving: Pyramid, reference: Pyramid) -> Registration | None:
    """Find out whether an image on the grid of a reference has moved: quickly if it has not.

    Returns:
        The registration if the image has clearly moved, else None.
    """
    points, motion = reference.points(0), np.zeros(6)
    if points.rows.size < FEWEST_POINTS:
        return None
    for number, mm in [*enumerate(LEVELS_MM)][:2]:
        points = reference.points(number)
        motion = climb(Likeness(points, moving.level(number)), motion, mm)
        if points.measure(motion) < MOVED_MM:
            return None
    found = refine(motion, moving, reference)
    return found if found.clear else None


def refine(motion: Doubles, moving: Pyramid, reference: Pyramid) -> Registration:
    """Climb on from a motion (6,) that was found at the coarsest level."""
    for number, mm in [*enumerate(LEVELS_MM)][1:]:
        likeness = Likeness(reference.points(number), moving.level(number))
        motion = climb(likeness, motion, mm)
    before, after = likeness.information(np.zeros(6)), likeness.information(motion)
    matrix = to_matrix(motion, reference.centre)
    angle = np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1)))
    return Registration(matrix, before, after, float(np.linalg.norm(motion[:3])), float(angle))


def _about(arm: Doubles, shift: Doubles, tilt: Doubles) -> Doubles:
    """The translation at the centre of a rotation about a point that is `arm` away."""
    return np.asarray(shift + arm - _rotation(tilt / RADIUS_MM) @ arm)


def to_matrix(motion: Doubles, centre: Doubles) -> Affine:
    """(4, 4) of a motion (6,): mm along x, y, z, and radians about them times `RADIUS_MM`, about `centre`."""
    matrix = np.eye(4)
    matrix[:3, :3] = _rotation(motion[3:] / RADIUS_MM)
    matrix[:3, 3] = centre + motion[:3] - matrix[:3, :3] @ centre
    return matrix


def _rotation(angles: Doubles) -> Doubles:
    """(3, 3), about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _log(shares: Doubles) -> Doubles:
    return np.asarray(np.log(np.maximum(shares, 1e-12)))


def _entropy(shares: Doubles) -> float:
    return float(-np.sum(shares * _log(shares)))
