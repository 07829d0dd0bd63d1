"""What air beside the brain does to an echo-planar image: signal moves along the phase-encoding axis and piles up.

A cavity of air disturbs the field around it as a ball does, by (R / r)^3 (3 cos^2 - 1) about the axis of the magnet
(Schenck, Medical Physics 1996), and each voxel appears farther along the phase-encoding axis in proportion. Where
neighbours move onto each other signal piles up in bright, sharp sheets; where they move apart it thins out. All images
of a diffusion scan move alike, so the ADC of what piles up is that of the tissue that it comes from.

What goes wrong with an echo-planar scan: the head moves, a ghost half a field of view away, slices are missing.

Such a scan takes a slice at once, so a head that moves is sharp in each slice and lies otherwise in those that come
later. Drawn, then applied: images are (D, H, W), slices first, rows along the phase.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from brainsegnet._types import Affine, Array, Floats, Mask
from brainsegnet.anatomy.procedural import smooth_noise
from brainsegnet.volume import LabelMap

AIR_MM = ((-40, 28, 50), (-44, 2, 42), (-38, -18, 28), (-30, -45, 8), (-18, -68, 10), (-46, 66, 32), (-30, 42, 62))
"""Where air adjoins the brain on the left, in standard coordinates (z, y, x): ears, sinuses, skull base."""
PETROUS_MM = (-38, 17, 50)
"""The air cells of the left petrous bone, above which nearly every scan has bright sheets in the temporal lobe."""
AHEAD = 0.8
"""Of how many scans the phase is encoded so that what lies above air moves to the front."""
EQUATOR = np.float32(-0.35)
"""The field at the equator of a cavity, where a ball has -1: air lies spread along the skull base."""
STILL_MM = 0.4
"""Shifts below that are left out."""
PARTS = 3
"""Into which a voxel is divided before it moves; gaps open only where one of them is stretched to two voxels."""
FAINTEST = 0.65
"""Least of its signal that is left of tissue that is stretched."""
SOLID = 0.3
"""Share of a voxel that brain fills, from which on it counts as brain."""


@dataclass(frozen=True, eq=False)
class Distortion:
    """Where the signal of a head (D, H, W) moves along one of its axes.

    Attributes:
        axis: That axis: 0, 1 or 2.
        columns: Lines along it in which anything moves, (A, B).
        lower: For each part of a voxel of those lines the lower of the two voxels that it moves into, (N, L * PARTS).
        upper: What of it the other one gets.
    """

    axis: int
    columns: Array
    lower: Array
    upper: Floats

    def distort_jacobian(self, field: Array) -> Floats:
        """What a field (D, H, W) becomes; its sum stays, but for what leaves the head's box."""
        moved = np.moveaxis(np.array(field, np.float32), self.axis, -1)
        lines: Array = moved[self.columns]
        parts = np.repeat(lines / PARTS, PARTS, axis=1)
        length = lines.shape[1] + 3  # one voxel before and two behind take what leaves
        start = np.arange(lines.shape[0])[:, None] * length + 1
        low = (start + self.lower).ravel()
        sums = np.bincount(low, (parts * (1 - self.upper)).ravel(), lines.shape[0] * length)
        sums += np.bincount(low + 1, (parts * self.upper).ravel(), lines.shape[0] * length)
        moved[self.columns] = sums.reshape(lines.shape[0], length)[:, 1:-2]
        return np.ascontiguousarray(np.moveaxis(moved, -1, self.axis))

    def acquire(self, signal: Array, share: Floats) -> Floats:
        """What a signal (D, H, W) becomes where `share` is what brain becomes: bright where it piles up, hardly dark.

        Real scans are hardly darker where signal moves apart; in what still counts as brain there is at least
        `FAINTEST` of what there was, and nothing elsewhere.
        """
        brighter = np.where(share > SOLID, np.maximum(share, FAINTEST) / np.maximum(share, SOLID), 0)
        return np.asarray(self.distort_jacobian(signal) * brighter, np.float32)

    def follow(self, mask: Array, brain: Array) -> Mask:
        """Where a part of the brain (D, H, W) appears: voxels to which it gives half of what arrives from the brain.

        A small part that is mingled with others appears where it gives most.
        """
        given = self.distort_jacobian(mask) / np.maximum(self.distort_jacobian(brain), SOLID)
        return given > min(0.5, 0.8 * float(given.max()))


def distort(rng: np.random.Generator, head: LabelMap, points: Floats, strength_mm: float) -> Distortion:
    """How a scan distorts a head (D, H, W) whose voxels have standard coordinates `points` (3, D, H, W).

    Args:
        rng: For where air lies, how much of it, and which way the phase is encoded.
        head: Tissue map; the phase is encoded along its axis from front to back.
        points: In mm, z up, y to the back, x to the left.
        strength_mm: Typical scale of the shift by one cavity: twice that above and below it, a third the other way
            beside it.
    """
    axis = int(np.argmax(np.abs(head.affine[1, :3]) / head.spacing_mm))
    shift = _draw_shift(rng, head, points, strength_mm)
    backwards = float(np.sign(np.diff(points[1], axis=axis).sum()))
    towards = -backwards if rng.random() < AHEAD else backwards
    return move(shift * np.float32(towards / head.spacing_mm[axis]), axis)


def move(shift: Floats, axis: int) -> Distortion:
    """The distortion that moves each voxel along an axis by so many voxels (D, H, W)."""
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


def _draw_shift(rng: np.random.Generator, head: LabelMap, points: Floats, strength_mm: float) -> Floats:
    """Millimetres (D, H, W) by which signal moves, 0 far from air."""
    shift = np.zeros(head.shape, np.float32)
    for centre, radius, amplitude in _draw_air(rng, strength_mm):
        reach = radius * max(1.0, 2 * amplitude / STILL_MM) ** (1 / 3)
        near = np.all(np.abs(points - centre.reshape(3, 1, 1, 1)) < reach, axis=0)
        away = points[:, near] - centre[:, None]
        squared = np.maximum(np.square(away).sum(axis=0), 1e-3)
        ratio = squared / np.float32(radius**2)
        fall = np.where(ratio > 1, np.maximum(ratio, 1) ** -1.5, ratio)
        shift[near] += amplitude * fall * np.maximum(3 * np.square(away[0]) / squared - 1, EQUATOR)
    coarse, fine = (smooth_noise(rng, head.shape, head.spacing_mm, blur_mm) for blur_mm in (8.0, 3.0))
    shift *= 1 + 0.2 * (coarse + np.float32(0.6) * fine)
    return np.sign(shift) * np.maximum(np.abs(shift) - np.float32(STILL_MM), 0)


def _draw_air(rng: np.random.Generator, strength_mm: float) -> Iterator[tuple[Array, float, float]]:
    """Centre in standard coordinates, radius and scale of the shift of each cavity, in mm."""
    bone, size = strength_mm * rng.uniform(0.7, 1.6), rng.uniform(15, 20)
    for z, y, x in (PETROUS_MM, *AIR_MM):
        petrous = (z, y, x) == PETROUS_MM
        for side in (1, -1):
            centre = (np.array((z, y, side * x)) + rng.normal(0, 3.5, 3)).astype(np.float32)
            amplitude = bone * rng.uniform(0.6, 1.2) if petrous else strength_mm * rng.exponential(1.0)
            yield centre, float(size if petrous else rng.uniform(6, 10)), float(amplitude)


@dataclass(frozen=True)
class Jolt:
    """A head that moves once, while the slices with diffusion weighting are taken: every other first, then the rest.

    Attributes:
        moment: When, from 0 (before the first slice) to 1.
        rows: By how many rows.
        columns: By how many columns.
        dark: Share of their signal that the slices of that moment lose: of three directions at most one fails.
    """

    moment: float
    rows: float
    columns: float
    dark: float


@dataclass(frozen=True)
class Ghost:
    """A faint copy of the image half a field of view away along its rows (Nyquist, N/2).

    Attributes:
        angle: Half of that between odd and even lines of k-space, in radians; its sine is the strength of the copy.
        phase: Angle between copy and image in the first voxel, in radians: where they agree the image gets brighter.
        turns: By how many turns that changes from end to end along (D, H, W).
    """

    angle: float
    phase: float
    turns: tuple[float, float, float]


@dataclass(frozen=True)
class Faults:
    """What befalls a scan; most have nothing of it.

    Attributes:
        jolt: How the head moves, if it does.
        ghost: The ghost, if there is one.
        cut: Share of the slices that were not taken, at the bottom and at the top.
    """

    jolt: Jolt | None = None
    ghost: Ghost | None = None
    cut: tuple[float, float] = (0.0, 0.0)


FLAWLESS = Faults()


def draw_faults(rng: np.random.Generator) -> Faults:
    """A jolt in one scan of fourteen, a ghost in one of ten, slices missing at each end in one of twenty."""
    return Faults(
        jolt=_draw_jolt(rng) if rng.random() < 0.07 else None,
        ghost=_draw_ghost(rng) if rng.random() < 0.1 else None,
        cut=(_draw_cut(rng), _draw_cut(rng)),
    )


def _draw_jolt(rng: np.random.Generator) -> Jolt:
    rows, columns = rng.normal(0, 0.9, 2).tolist()
    return Jolt(float(rng.uniform(0.05, 0.95)), rows, columns, float(rng.uniform(0, 0.33)))


def _draw_ghost(rng: np.random.Generator) -> Ghost:
    deep, high, wide = rng.normal(0, 1, 3).tolist()
    return Ghost(float(rng.uniform(0.02, 0.12)), float(rng.uniform(0, 2 * np.pi)), (deep, high, wide))


def _draw_cut(rng: np.random.Generator) -> float:
    return float(rng.uniform(0.03, 0.15)) if rng.random() < 0.05 else 0.0


def shift_slices(image: Array, jolt: Jolt | None) -> Floats:
    """An image (D, H, W) whose slices lie otherwise from a moment on; what comes from outside is 0.

    >>> steady = np.arange(12, dtype=np.float32).reshape(4, 1, 3)
    >>> shift_slices(steady, Jolt(0.5, 0, 1, 0))[:, 0].tolist()
    [[0.0, 1.0, 2.0], [0.0, 3.0, 4.0], [6.0, 7.0, 8.0], [0.0, 9.0, 10.0]]
    """
    if jolt is None:
        return np.asarray(image, np.float32)
    out = np.array(image, np.float32)
    late = _slices_in_order(len(out))[round(jolt.moment * len(out)) :]
    out[late] = ndimage.shift(out[late], (0, jolt.rows, jolt.columns), order=1)
    return out


def darken_slices(image: Floats, jolt: Jolt | None) -> Floats:
    """An image (D, H, W) with diffusion weighting, less bright in the two slices that were taken at the jolt."""
    if jolt is None:
        return image
    out, at = image.copy(), round(jolt.moment * len(image))
    out[_slices_in_order(len(image))[max(0, at - 1) : at + 1]] *= 1 - jolt.dark
    return out


def _slices_in_order(count: int) -> Array:
    """Indices of slices as they are taken: 0, 2, 4 and so on, then 1, 3, 5."""
    return np.concatenate([np.arange(0, count, 2), np.arange(1, count, 2)])


def add_ghost(image: Floats, ghost: Ghost | None) -> Floats:
    """The magnitude (D, H, W) of an image and its ghost, which add and cancel in bands."""
    if ghost is None:
        return image
    lines = [np.linspace(0, turns, n) for turns, n in zip(ghost.turns, image.shape, strict=True)]
    phase = ghost.phase + 2 * np.pi * sum(np.ix_(*lines))
    there = np.sin(ghost.angle) * np.roll(image, image.shape[1] // 2, axis=1)
    return np.asarray(np.abs(np.cos(ghost.angle) * image + there * np.exp(1j * phase)), np.float32)


def cut_slices(brain: Mask, cut: tuple[float, float], kept: int | None) -> Mask:
    """A brain (D, H, W) without a share of its slices at the bottom and at the top, but never without slice `kept`."""
    slices = np.flatnonzero(brain.any(axis=(1, 2)))
    low, high = (round(share * slices.size) for share in cut)
    below, above = slices[:low], slices[slices.size - high :]
    seen = brain.copy()
    seen[below if kept is None else below[below < kept]] = False
    seen[above if kept is None else above[above > kept]] = False
    return seen


def fullest_slice(mask: Mask, head: Affine, scan: Affine) -> int | None:
    """Which slice shows most of a mask (D, H, W), from the affines (4, 4) of head and scan; None of an empty one."""
    onto = np.linalg.inv(scan) @ head
    slices = np.rint(np.argwhere(mask) @ onto[0, :3] + onto[0, 3]).astype(int)
    return int(np.bincount(np.maximum(slices, 0)).argmax()) if slices.size else None
