"""Echo-planar imaging: distortion by air beside the brain, head motion, Nyquist ghosts and missing slices.

A cavity of air disturbs the magnetic field around it as a ball does, by (R / r)^3 (3 cos^2 - 1) about the axis of the
magnet (Schenck, Medical Physics 1996). Each voxel is displaced along the phase-encoding axis in proportion. Signal
piles up in bright, sharp sheets where neighbours converge; their ADC is that of the tissue that they come from.

A slice is acquired at once, so a head that moves is sharp in each slice and displaced in later ones. Images are
(D, H, W): slices first, rows along the phase-encoding axis.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from brainsegnet._types import Affine, Array, Floats, Mask
from brainsegnet.anatomy.procedural import smooth_noise
from brainsegnet.volume import LabelMap

AIR_MM = ((-40, 28, 50), (-44, 2, 42), (-38, -18, 28), (-30, -45, 8), (-18, -68, 10), (-46, 66, 32), (-30, 42, 62))
"""Air beside the left half of the brain, in standard coordinates (z, y, x): ears, sinuses, skull base."""
PETROUS_MM = (-38, 17, 50)
"""Air cells of the left petrous bone, above which nearly every scan has bright sheets in the temporal lobe."""
FORWARD_SHARE = 0.8
"""Share of the scans in which signal above air moves forwards."""
EQUATOR = np.float32(-0.35)
"""Field at the equator of a cavity; -1 for a ball, but air is spread along the skull base."""
LEAST_SHIFT_MM = 0.4
"""Shifts below this are left out."""
PARTS = 3
"""Parts of a voxel that move separately; gaps open only where one of them is stretched to two voxels."""
LEAST_SIGNAL = 0.65
"""Least share of its signal that stretched tissue keeps."""
LEAST_BRAIN = 0.3
"""Share of brain above which a voxel counts as brain."""


@dataclass(frozen=True, eq=False)
class Distortion:
    """Displacement of the signal of a head (D, H, W) along one of its axes."""

    axis: int  # that axis: 0, 1 or 2
    columns: Array  # mask of the lines along it in which anything moves, (A, B)
    lower: Array  # lower of the two voxels into which each part of a voxel of those lines moves, (N, L * PARTS)
    upper: Floats  # share of the part that the other voxel receives, (N, L * PARTS)

    def distort_jacobian(self, field: Array) -> Floats:
        """A distorted field (D, H, W), with its sum kept but for what leaves the array."""
        moved = np.moveaxis(np.array(field, np.float32), self.axis, -1)
        lines: Array = moved[self.columns]
        parts = np.repeat(lines / PARTS, PARTS, axis=1)
        length = lines.shape[1] + 3  # one voxel before and two behind receive what leaves
        start = np.arange(lines.shape[0])[:, None] * length + 1
        low = (start + self.lower).ravel()
        sums = np.bincount(low, (parts * (1 - self.upper)).ravel(), lines.shape[0] * length)
        sums += np.bincount(low + 1, (parts * self.upper).ravel(), lines.shape[0] * length)
        moved[self.columns] = sums.reshape(lines.shape[0], length)[:, 1:-2]
        return np.ascontiguousarray(np.moveaxis(moved, -1, self.axis))

    def acquire(self, signal: Array, share: Floats) -> Floats:
        """A distorted signal (D, H, W), given the `share` of brain in each voxel after distortion.

        Real scans are hardly darker where signal diverges: brain keeps at least `LEAST_SIGNAL` of it, the rest is 0.
        """
        brighter = np.where(share > LEAST_BRAIN, np.maximum(share, LEAST_SIGNAL) / np.maximum(share, LEAST_BRAIN), 0)
        return np.asarray(self.distort_jacobian(signal) * brighter, np.float32)

    def follow(self, mask: Array, brain: Array) -> Mask:
        """Where a part of the brain (D, H, W) appears: voxels that receive half of their brain from it.

        A small part that is mixed with others appears where its share is largest.
        """
        share = self.distort_jacobian(mask) / np.maximum(self.distort_jacobian(brain), LEAST_BRAIN)
        return share > min(0.5, 0.8 * float(share.max()))


def draw_distortion(rng: np.random.Generator, anatomy: LabelMap, points: Floats, strength_mm: float) -> Distortion:
    """Draw how a scan distorts an anatomy along its axis from front to back.

    `points` are standard coordinates z, y, x in mm, (3, D, H, W). `strength_mm` is the typical shift by one cavity of
    air: twice that above and below it, a third beside it the other way.
    """
    axis = int(np.argmax(np.abs(anatomy.affine[1, :3]) / anatomy.spacing_mm))
    shift = np.zeros(anatomy.shape, np.float32)
    for centre, radius, amplitude in _draw_air(rng, strength_mm):
        reach = radius * max(1.0, 2 * amplitude / LEAST_SHIFT_MM) ** (1 / 3)
        near = np.all(np.abs(points - centre.reshape(3, 1, 1, 1)) < reach, axis=0)
        away = points[:, near] - centre[:, None]
        squared = np.maximum(np.square(away).sum(axis=0), 1e-3)
        ratio = squared / np.float32(radius**2)
        fall = np.where(ratio > 1, np.maximum(ratio, 1) ** -1.5, ratio)
        shift[near] += amplitude * fall * np.maximum(3 * np.square(away[0]) / squared - 1, EQUATOR)
    coarse, fine = (smooth_noise(rng, anatomy.shape, anatomy.spacing_mm, blur_mm) for blur_mm in (8.0, 3.0))
    shift *= 1 + 0.2 * (coarse + np.float32(0.6) * fine)
    shift = np.sign(shift) * np.maximum(np.abs(shift) - np.float32(LEAST_SHIFT_MM), 0)
    backwards = float(np.sign(np.diff(points[1], axis=axis).sum()))
    towards = -backwards if rng.random() < FORWARD_SHARE else backwards
    return distort(shift * np.float32(towards / anatomy.spacing_mm[axis]), axis)


def distort(shift: Floats, axis: int) -> Distortion:
    """The distortion that shifts each voxel (D, H, W) along an axis by a number of voxels."""
    voxels: Array = np.moveaxis(shift, axis, -1)
    columns = np.any(voxels != 0, axis=-1)
    lines: Array = voxels[columns]
    length = lines.shape[1]
    edges = np.arange(length * PARTS + 1) / PARTS - 0.5
    low = np.clip(np.floor(edges).astype(np.int64), 0, length - 2)
    between = np.clip(edges - low, 0, 1)
    arrival = np.clip(edges + lines[:, low] * (1 - between) + lines[:, low + 1] * between, -1, length)
    first, last = (pick(arrival[:, :-1], arrival[:, 1:]) for pick in (np.minimum, np.maximum))
    lower = np.floor(first + 0.5).astype(np.int32)
    upper = np.clip((last - lower - 0.5) / np.maximum(last - first, 1e-6), 0, 1)
    return Distortion(axis, columns, lower, upper.astype(np.float32))


def _draw_air(rng: np.random.Generator, strength_mm: float) -> Iterator[tuple[Array, float, float]]:
    """Centre in standard coordinates, radius, and scale of the shift of each cavity, in mm."""
    bone, size = strength_mm * rng.uniform(0.7, 1.6), rng.uniform(15, 20)
    for z, y, x in (PETROUS_MM, *AIR_MM):
        petrous = (z, y, x) == PETROUS_MM
        for side in (1, -1):
            centre = (np.array((z, y, side * x)) + rng.normal(0, 3.5, 3)).astype(np.float32)
            amplitude = bone * rng.uniform(0.6, 1.2) if petrous else strength_mm * rng.exponential(1.0)
            yield centre, float(size if petrous else rng.uniform(6, 10)), float(amplitude)


@dataclass(frozen=True)
class HeadMotion:
    """One sudden motion of the head, during the acquisition of the diffusion-weighted slices."""

    moment: float  # time, from 0 (before the first slice) to 1; even slices are acquired first, then odd ones
    rows: float  # displacement in voxels
    columns: float  # displacement in voxels
    dark: float  # share of the signal that the two slices of that moment lose; at most one of three directions fails


@dataclass(frozen=True)
class Ghost:
    """A faint copy of the image, displaced by half the field of view along its rows (Nyquist or N/2 ghost)."""

    angle: float  # half the phase between odd and even lines of k-space, rad; its sine is the strength of the copy
    phase: float  # phase of the copy relative to the image in the first voxel, in radians
    turns: tuple[float, float, float]  # turns of that phase from end to end along (D, H, W)


@dataclass(frozen=True)
class Faults:
    """Faults of a scan; most scans have none."""

    motion: HeadMotion | None = None  # motion of the head, or None
    ghost: Ghost | None = None  # the ghost, or None
    cut: tuple[float, float] = (0.0, 0.0)  # share of the slices that are missing at the bottom and at the top


def draw_faults(rng: np.random.Generator) -> Faults:
    """Draw a motion in 7 % of the scans, a ghost in 10 %, and missing slices at each end in 5 %."""
    motion = ghost = None
    if rng.random() < 0.07:
        rows, columns = rng.normal(0, 0.9, 2).tolist()
        motion = HeadMotion(rng.uniform(0.05, 0.95), rows, columns, rng.uniform(0, 0.33))
    if rng.random() < 0.1:
        deep, high, wide = rng.normal(0, 1, 3).tolist()
        ghost = Ghost(rng.uniform(0.02, 0.12), rng.uniform(0, 2 * np.pi), (deep, high, wide))
    bottom, top = (rng.uniform(0.03, 0.15) if rng.random() < 0.05 else 0.0 for _ in range(2))
    return Faults(motion, ghost, (bottom, top))


def shift_slices(image: Array, motion: HeadMotion | None) -> Floats:
    """An image (D, H, W) whose slices after a motion are displaced; what enters from outside is 0."""
    if motion is None:
        return np.asarray(image, np.float32)
    out = np.array(image, np.float32)
    late = _slices_in_order(len(out))[round(motion.moment * len(out)) :]
    out[late] = ndimage.shift(out[late], (0, motion.rows, motion.columns), order=1)
    return out


def darken_slices(image: Floats, motion: HeadMotion | None) -> Floats:
    """A diffusion-weighted image (D, H, W), less bright in the two slices that were acquired during a motion."""
    if motion is None:
        return image
    out, at = image.copy(), round(motion.moment * len(image))
    out[_slices_in_order(len(image))[max(0, at - 1) : at + 1]] *= 1 - motion.dark
    return out


def _slices_in_order(count: int) -> Array:
    """Indices of slices in the order of acquisition: 0, 2, 4 and so on, then 1, 3, 5."""
    return np.concatenate([np.arange(0, count, 2), np.arange(1, count, 2)])


def add_ghost(image: Floats, ghost: Ghost | None) -> Floats:
    """Magnitude (D, H, W) of an image with its ghost; they add and cancel in bands."""
    if ghost is None:
        return image
    lines = [np.linspace(0, turns, n) for turns, n in zip(ghost.turns, image.shape, strict=True)]
    phase = ghost.phase + 2 * np.pi * sum(np.ix_(*lines))
    copy = np.sin(ghost.angle) * np.roll(image, image.shape[1] // 2, axis=1)
    return np.asarray(np.abs(np.cos(ghost.angle) * image + copy * np.exp(1j * phase)), np.float32)


def cut_slices(brain: Mask, cut: tuple[float, float], kept: int | None) -> Mask:
    """A brain mask (D, H, W) without a share of its slices at the bottom and at the top; slice `kept` remains."""
    slices = np.flatnonzero(brain.any(axis=(1, 2)))
    low, high = (round(share * slices.size) for share in cut)
    below, above = slices[:low], slices[slices.size - high :]
    seen = brain.copy()
    seen[below if kept is None else below[below < kept]] = False
    seen[above if kept is None else above[above > kept]] = False
    return seen


def fullest_slice(mask: Mask, affine: Affine, scan: Affine) -> int | None:
    """The slice of a scan that shows most of a mask (D, H, W), from both affines (4, 4); None of an empty mask."""
    onto = np.linalg.inv(scan) @ affine
    slices = np.rint(np.argwhere(mask) @ onto[0, :3] + onto[0, 3]).astype(int)
    return int(np.bincount(np.maximum(slices, 0)).argmax()) if slices.size else None
