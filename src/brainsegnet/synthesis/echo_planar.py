"""What air beside the brain does to an echo-planar image: signal moves along the phase-encoding axis and piles up.

A cavity of air disturbs the field around it as a ball does, by (R / r)^3 (3 cos^2 - 1) about the axis of the magnet
(Schenck, Medical Physics 1996), and each voxel appears farther along the phase-encoding axis in proportion. Where
neighbours move onto each other signal piles up in bright, sharp sheets; where they move apart it thins out. All images
of a diffusion scan move alike, so the ADC of what piles up is that of the tissue that it comes from.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from brainsegnet.synthesis.anatomy import Floats
from brainsegnet.synthesis.tumour import Mask, smooth_noise
from brainsegnet.volume import Array, LabelMap

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

    def pile(self, field: Array) -> Floats:
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

    def expose(self, signal: Array, share: Floats) -> Floats:
        """What a signal (D, H, W) becomes where `share` is what brain becomes: bright where it piles up, hardly dark.

        Real scans are hardly darker where signal moves apart; in what still counts as brain there is at least
        `FAINTEST` of what there was, and nothing elsewhere.
        """
        brighter = np.where(share > SOLID, np.maximum(share, FAINTEST) / np.maximum(share, SOLID), 0)
        return np.asarray(self.pile(signal) * brighter, np.float32)

    def follow(self, mask: Array, brain: Array) -> Mask:
        """Where a part of the brain (D, H, W) appears: voxels to which it gives half of what arrives from the brain.

        A small part that is mingled with others appears where it gives most.
        """
        given = self.pile(mask) / np.maximum(self.pile(brain), SOLID)
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
