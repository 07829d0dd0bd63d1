"""What goes wrong with an echo-planar scan: the head moves, a ghost half a field of view away, slices are missing.

Such a scan takes a slice at once, so a head that moves is sharp in each slice and lies otherwise in those that come
later. Drawn, then applied: images are (D, H, W), slices first, rows along the phase.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from brainsegnet.synthesis.anatomy import Floats
from brainsegnet.synthesis.tumour import Mask
from brainsegnet.volume import Affine, Array


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
