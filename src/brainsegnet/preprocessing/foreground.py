"""Where the head or brain is in a scan, and what surrounds it: a method that stray voxels or noise do not upset.

The air of each sequence is measured along the twelve edges of its grid. Padding and air may have several exact values,
or noise. What differs from them is foreground, if it is solid: blocks of about 4 mm are at least half full and hang
together. Values near those of the air that surround the brain, as a resampler leaves, do not count.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from operator import and_
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainsegnet._types import Array, Floats, Mask, Millimetres
from brainsegnet.volume import Box

Surroundings = Literal["exact", "noise", "none"]
"""What is outside the head: `exact` values, `noise`, or `none` if the head fills the grid."""
SkullState = Literal["skull on", "stripped", "stripped, noise around", "no background"]
"""What the foreground is.

`skull on` is a head, and `stripped` is a brain. `stripped, noise around` is a brain in noise or ringing, which needs no
extraction either. `no background` is a head or brain that fills the grid, so that nothing can be said.
"""

BLOCK_MM = 4.0
"""Size of the blocks in which voxels are counted."""
BLOCKS_PER_AXIS = 16
"""Fewest blocks along an axis; small images have smaller blocks."""
MOST_VALUES = 3
"""Most exact values that may surround a head: padding, the air, and what a resampler adds."""
STRAY = 0.01
"""Share of the edges of a grid up to which voxels are stray."""
THIN = 0.005
"""Share of a plane up to which voxels are stray."""
NOISE = 5.0
"""Standard deviations of the noise in air, above its median, where the head starts."""
LOUD = 0.35
"""Share of the signal above which noise is no air."""
FAR = 3.0
"""Multiple of the signal from which the value of padding says nothing about that of air."""
WEAK = 0.05
"""Share of the signal below which a voxel may be ringing."""
EDGE = 0.34
"""Share of the signal, sharpened, where the surface of a brain with ringing around it lies."""
NOISY = 0.05
"""Share of the edges above which values that differ may be noise."""
ENOUGH_BLOCKS = 50_000
"""Number of blocks above which every second one along each axis tells whether there is ringing or a skull."""
FEW_BLOCKS = 500
"""Number of stray blocks above which it is faster to remove all at once."""
MUCH_WEAK = 0.04
"""Share of the foreground around its solid part that is weak in all sequences, above which that is ringing."""
BELOW = 0.1
"""Share of ringing that is darker than the air."""
HEAD_ML = 1900.0
"""Volume above which a foreground is no brain alone; brains of adults with the fluid around them have less."""
SKULL_MM = 20.0
"""Depth below the surface of a head within which the skull lies."""
DARK, MUCH_DARK = 0.25, 0.08
"""Share of the signal inside below which a voxel may be bone, and the share of such voxels that bone makes up."""
BRIGHT = 1.2
"""Multiple of the signal inside that the upper quartile of the outermost layer exceeds in scalp, which holds fat."""
PART = 0.005
"""Share of the largest solid part that other parts need, or they are stray."""


@dataclass(frozen=True)
class Air:
    """What a sequence shows outside the head.

    Attributes:
        kind: What it is.
        values: The exact values, such as those of padding, if there are any.
        level: The most common value, or the median of the noise.
        limit: Distance from `level` within which a voxel is noise; 0 if there is none.
    """

    kind: Surroundings
    values: tuple[float, ...] = ()
    level: float = 0.0
    limit: float = 0.0

    def find_foreground(self, array: Array) -> Mask:
        """Voxels (D, H, W) that are not air; all of them if the kind is `none`."""
        if self.kind == "none":
            return np.ones(array.shape, np.bool_)
        if self.kind == "noise":
            mask = np.abs(array.astype(np.float32) - np.float32(self.level)) > self.limit
        else:
            stored = tuple(slice(None, None, -1 if step < 0 else 1) for step in array.strides)  # faster than reversed
            mask = np.asarray(array[stored] != array.dtype.type(self.level))[stored]
        for value in self.values:
            if value != self.level:
                mask &= ~_reach_border(array == array.dtype.type(value))
        return np.asarray(mask)


@dataclass(frozen=True, eq=False)
class Foreground:
    """The head or brain of a case, on the grid that all its sequences share.

    Attributes:
        mask: Voxels (D, H, W) that at least one sequence shows as head or brain. Stray voxels are left out.
        air: What surrounds the head, by sequence.
        ringing: Whether a resampler left weak values around the brain, which the mask leaves out.
        skull: Whether the mask is a head or a brain.
    """

    mask: Mask
    air: Mapping[str, Air]
    ringing: bool = False
    skull: SkullState = "no background"

    @property
    def around(self) -> dict[str, str]:
        """What surrounds the head, by sequence: the kind of the air, or `ringing`."""
        return {name: "ringing" if self.ringing and air.kind != "none" else air.kind for name, air in self.air.items()}


def find_foreground(arrays: Mapping[str, Array], spacing_mm: Millimetres) -> Foreground:
    """Find the head or brain that some sequences show.

    Args:
        arrays: Each sequence on one grid (D, H, W).
        spacing_mm: Distances between voxels along (D, H, W).

    Returns:
        The foreground. Its mask is empty if no image differs from its background.
    """
    air = {name: find_air(array) for name, array in arrays.items()}
    telling = [name for name in arrays if air[name].kind != "none"]
    if not telling:
        return Foreground(np.ones(next(iter(arrays.values())).shape, np.bool_), air)
    mask = air[telling[0]].find_foreground(arrays[telling[0]])
    for name in telling[1:]:
        mask |= air[name].find_foreground(arrays[name])
    mask = np.ascontiguousarray(mask)
    seen = {name: (arrays[name], air[name].level) for name in telling}
    block = choose_block(mask.shape, spacing_mm)
    noisy = any(air[name].kind == "noise" for name in telling)
    if sharp := find_sharp(seen, mask, block, noisy):
        found = Foreground(keep_filled(*sharp, block), air, ringing=True)
    elif noisy:
        found = Foreground(keep_filled(mask, mask, block), air)
    else:
        found = Foreground(keep_solid(mask, block), air)
    return replace(found, skull=find_skull(found, arrays, spacing_mm))


def find_air(array: Array) -> Air:
    """Find what surrounds the head in an image (D, H, W).

    Examples:
        >>> find_air(np.pad(np.ones((8, 8, 8)), 4, constant_values=-3.5))
        Air(kind='exact', values=(-3.5,), level=-3.5, limit=0.0)
        >>> find_air(np.random.default_rng(0).normal(size=(16, 16, 16))).kind
        'none'
    """
    values: list[float] = []
    part = array
    for _ in range(MOST_VALUES):
        lines = list_edges(part)
        rest = [_other_than(line, values) for line in lines]
        number = sum(map(len, rest))
        if number <= max(1, STRAY * sum(map(len, lines))):
            break
        found, counts = np.unique(np.concatenate(rest), return_counts=True)
        if counts.max() <= number / 2:
            noise = _measure_noise(part, rest, values) if number > NOISY * sum(map(len, lines)) else None
            if noise is None or noise.limit > 0:
                return noise or _exact(array, values)
            values.append(noise.level)
        else:
            value = float(found[counts.argmax()])
            if values and not _other_than(sample_sparsely(part), [*values, value]).size:
                break  # a head of one value
            values.append(value)
        part = _crop_sparsely(part, values)
    return _exact(array, values)


def _exact(array: Array, values: Sequence[float]) -> Air:
    if not values:
        return Air("none")
    if len(values) == 1:
        return Air("exact", tuple(values), values[0])
    sample = sample_sparsely(array)
    return Air("exact", tuple(values), max(values, key=lambda value: np.count_nonzero(sample == value)))


def list_edges(array: Array) -> list[Array]:
    """The voxels along the twelve edges of an array (D, H, W)."""
    ends = product((0, -1), repeat=2)
    return [line for a, b in ends for line in (array[:, a, b], array[a, :, b], array[a, b, :])]


def sample_sparsely(array: Array) -> Array:
    """A view of about 32 voxels along each axis of an array (D, H, W)."""
    d, h, w = (slice(None, None, max(1, n // 32)) for n in array.shape)
    return array[d, h, w]


def _other_than(array: Array, values: Sequence[float]) -> Array:
    return array[reduce(and_, (array != value for value in values), np.ones(array.shape, np.bool_))]


def _reach_border(mask: Mask) -> Mask:
    """The connected parts of a mask (D, H, W) that touch the border of the grid."""
    parts, number = ndimage.label(mask)
    touching = np.zeros(number + 1, np.bool_)
    for axis, end in product(range(3), (0, -1)):
        touching[np.take(parts, end, axis)] = True
    touching[0] = False
    return np.asarray(touching[parts])


def _crop_sparsely(array: Array, values: Sequence[float]) -> Array:
    """The part of an array (D, H, W) whose planes hold more than stray voxels of other values; a view."""
    steps = [max(1, n // 32) for n in array.shape]
    sample = sample_sparsely(array)
    other = reduce(and_, (sample != value for value in values))
    inside = []
    for axis, step in enumerate(steps):
        shares = other.mean(axis=tuple({0, 1, 2} - {axis}))
        (planes,) = np.nonzero(shares > THIN)
        if not planes.size:
            return array
        inside.append(slice(planes[0] * step, planes[-1] * step + 1))
    return array[tuple(inside)]


def _measure_noise(array: Array, lines: Sequence[Array], values: Sequence[float]) -> Air | None:
    """The noise of the quieter half of some edges; None if it is as loud as the inside, so that it is no air."""
    quiet = sorted((line for line in lines if len(line)), key=lambda line: float(np.median(line)))
    noise = np.concatenate(quiet[: max(1, len(quiet) // 2)]).astype(np.float64)
    level = float(np.median(noise))
    limit = NOISE * 1.4826 * float(np.median(np.abs(noise - level)))
    away = np.abs(_other_than(sample_sparsely(array), values).astype(np.float64) - level)
    head = away[away > limit]
    if head.size < THIN * away.size or not limit < LOUD * float(np.median(head)):
        return None
    for value in values:  # a brain that reaches the edges is not the air between it and the padding
        gap, signal = abs(level - value), float(np.median(head))
        if gap < FAR * signal and not gap + limit < LOUD * (gap + signal):
            return None
    return Air("noise", tuple(values), level, limit)


def find_sharp(
    seen: Mapping[str, tuple[Array, float]], mask: Mask, block: tuple[int, int, int], noisy: bool
) -> tuple[Mask, Mask] | None:
    """What of a mask is not ringing: up to its surface, and what is not weak; None without ringing.

    There is ringing if much of the mask is weak in all images and lies around its solid part. The skull is as weak, but
    lies within the scalp. Fluid at the surface of a brain may be as weak too, but ringing is partly below the air.

    Args:
        seen: Each image (D, H, W), and the level of its air.
        mask: The foreground.
        block: Voxels of a block along each axis.
        noisy: Whether the air of an image has noise, so that ringing may be anywhere.
    """
    step = 1 if mask.size < ENOUGH_BLOCKS * np.prod(block) else 2
    sparse = tuple(slice(size // 2, None, step * size) for size in block)
    within = mask[sparse]
    weak, signals = within.copy(), {}
    for name, (array, level) in seen.items():
        sample = array[sparse].astype(np.float32)
        signals[name] = _measure_signal(sample[within] - np.float32(level))
        weak &= sample <= level + WEAK * signals[name]
    if np.count_nonzero(weak) <= MUCH_WEAK * np.count_nonzero(within):
        return None
    bright = np.full(mask.shape, -np.inf, np.float32)
    for name, (array, level) in seen.items():
        np.maximum(bright, (array - np.float32(level)) / np.float32(max(signals[name], 1e-30)), out=bright)
    strong = mask & (bright > 2 * WEAK)
    solid = _fill(find_solid(strong, block))[::step, ::step, ::step]
    around = weak & ~solid[tuple(map(slice, weak.shape))]
    below = np.any([(array[sparse] < level) & around for array, level in seen.values()], axis=0)
    if np.count_nonzero(around) <= MUCH_WEAK * np.count_nonzero(within):
        return None
    if not noisy and np.count_nonzero(below) < BELOW * np.count_nonzero(around):
        return None
    return mask & (sharpen(bright) > EDGE), strong


def sharpen(image: Floats) -> Floats:
    """An image (D, H, W), with its difference from the mean of the six neighbours of each voxel added.

    A resampler smooths. So ringing is darker than its neighbours towards the brain, and becomes darker still.

    Examples:
        >>> sharpen(np.array([[[1, 1, 0.25, 0.25]]], np.float32)).tolist()
        [[[1.0, 1.125, 0.125, 0.25]]]
    """
    around = np.zeros_like(image)
    for axis in range(3):
        along, total = np.moveaxis(image, axis, 0), np.moveaxis(around, axis, 0)
        total[1:] += along[:-1]
        total[:-1] += along[1:]
        total[0] += along[0]
        total[-1] += along[-1]
    return np.asarray(2 * image - around / 6, np.float32)


def _measure_signal(values: Array) -> float:
    """The median of the values (n,) that are not far below the brightest; NaN if nearly all are below zero."""
    if not values.size:
        return 0.0
    bright = values[values >= 0.25 * np.percentile(values, 99)]
    return float(np.median(bright)) if bright.size else math.nan


def find_skull(found: Foreground, arrays: Mapping[str, Array], spacing_mm: Millimetres) -> SkullState:
    """Whether a foreground is a head with its skull, or a brain.

    A head is larger than a brain. A part of a head may not be, but has bright scalp around dark bone.

    Args:
        found: The foreground.
        arrays: Each sequence on its grid (D, H, W).
        spacing_mm: Distances between voxels along (D, H, W).
    """
    if all(air.kind == "none" for air in found.air.values()):
        return "no background"
    if np.count_nonzero(found.mask) * np.prod(spacing_mm) > 1000 * HEAD_ML:
        return "skull on"
    block = choose_block(found.mask.shape, spacing_mm)
    solid = np.asarray(count_in_blocks(found.mask, block) * 2 >= np.prod(block))
    if not solid.any():
        return "stripped"
    box = Box.around(solid)
    solid = np.pad(solid[box.slices], 1)
    steps = max(1, round(SKULL_MM / min(size * mm for size, mm in zip(block, spacing_mm, strict=True))))
    inner = (slice(1, -1),) * 3
    outermost, shallow = (solid & _spread(~solid, number) for number in (1, steps))
    deep = (solid & ~shallow)[inner]
    outermost, shallow = outermost[inner], shallow[inner]
    every = 1 if solid.size < ENOUGH_BLOCKS else 2
    outermost, shallow, deep = (part[::every, ::every, ::every] for part in (outermost, shallow, deep))
    starts, stops = (np.array(end) * block + np.array(block) // 2 for end in (box.start, box.stop))
    sparse = tuple(slice(a, b, every * size) for a, b, size in zip(starts, stops, block, strict=True))
    for name, array in arrays.items():
        sample = array[sparse].astype(np.float32) - np.float32(found.air[name].level)
        parts = [part[tuple(map(slice, sample.shape))] for part in (outermost, shallow, deep)]
        if not all(part.any() for part in parts):
            continue
        rim, shell, middle = (sample[part] for part in parts)
        signal = float(np.median(middle))
        if np.percentile(rim, 75) > BRIGHT * signal and (shell < DARK * signal).mean() > MUCH_DARK:
            return "skull on"
    noisy = found.ringing or any(air.kind == "noise" for air in found.air.values())
    return "stripped, noise around" if noisy else "stripped"


def choose_block(shape: Sequence[int], spacing_mm: Millimetres) -> tuple[int, int, int]:
    """Voxels (D, H, W) of a block: about `BLOCK_MM`, less in small images.

    Examples:
        >>> choose_block((155, 240, 240), (1.0, 1.0, 1.0)), choose_block((26, 448, 448), (5.5, 0.5, 0.5))
        ((4, 4, 4), (1, 8, 8))
    """
    d, h, w = (max(1, min(round(BLOCK_MM / mm), n // BLOCKS_PER_AXIS)) for n, mm in zip(shape, spacing_mm, strict=True))
    return d, h, w


def count_in_blocks(mask: Mask, block: Sequence[int]) -> NDArray[np.integer]:
    """The number of voxels of a mask (D, H, W) in each block; those at the end may be smaller.

    Examples:
        >>> count_in_blocks(np.ones((1, 2, 5), bool), (1, 2, 2)).tolist()
        [[[4, 4, 2]]]
    """
    counts: NDArray[np.integer] = mask.view(np.uint8) if np.prod(block) < 256 else mask.astype(np.uint16)
    for axis, size in enumerate(block):
        if size > 1:
            along = [slice(None)] * 3
            along[axis] = slice(0, None, size)
            total = counts[tuple(along)].copy()
            for first in range(1, size):
                along[axis] = slice(first, None, size)
                other = counts[tuple(along)]
                part = [slice(None)] * 3
                part[axis] = slice(other.shape[axis])
                total[tuple(part)] += other
            counts = total
    return counts


def find_solid(mask: Mask, block: tuple[int, int, int]) -> Mask:
    """The blocks that a mask (D, H, W) fills to a half, without parts much smaller than the largest one."""
    solid = np.asarray(count_in_blocks(mask, block) * 2 >= np.prod(block))
    parts, number = ndimage.label(solid)
    if number < 2:
        return solid
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= PART * sizes.max())[parts] & solid)


def keep_solid(mask: Mask, block: tuple[int, int, int]) -> Mask:
    """The solid parts of a mask (D, H, W), which is changed, and what lies within three blocks of them."""
    solid = find_solid(mask, block)
    if not solid.any():
        return np.asarray(mask)
    near = _spread(solid, 3)
    places = np.argwhere((count_in_blocks(mask, block) > 0) & ~near) * block
    if len(places) > FEW_BLOCKS:
        return mask & _enlarge(near, block, mask.shape)
    for d, h, w in places:
        mask[d : d + block[0], h : h + block[1], w : w + block[2]] = False
    return mask


def keep_filled(surface: Mask, mask: Mask, block: tuple[int, int, int]) -> Mask:
    """The solid parts of a mask (D, H, W) with all that is inside them, up to a surface.

    Args:
        surface: Voxels of the head near its surface.
        mask: Voxels of the head, with holes.
        block: Voxels of a block along each axis.
    """
    solid = find_solid(mask, block)
    if not solid.any():
        return np.asarray(mask)
    inside = ndimage.binary_erosion(_fill(solid), np.ones((3, 3, 3), np.bool_))
    near = _spread(solid, 2)
    return (surface & _enlarge(near, block, mask.shape)) | _enlarge(inside, block, mask.shape)


def _spread(blocks: Mask, steps: int) -> Mask:
    """Blocks, and those that so many steps along the axes lead to."""
    for _ in range(steps):
        before, blocks = blocks, blocks.copy()
        for axis in range(3):
            along, old = np.moveaxis(blocks, axis, 0), np.moveaxis(before, axis, 0)
            along[1:] |= old[:-1]
            along[:-1] |= old[1:]
    return blocks


def _fill(blocks: Mask) -> Mask:
    """Blocks with the holes in them, and in each slice: a head is open where the field of view cuts it."""
    return np.array([ndimage.binary_fill_holes(plane) for plane in ndimage.binary_fill_holes(blocks)])


def _enlarge(blocks: Mask, block: Sequence[int], shape: Sequence[int]) -> Mask:
    """A mask of blocks as one of voxels (D, H, W)."""
    d, h, w = shape
    for axis, size in enumerate(block):
        blocks = blocks.repeat(size, axis)
    return blocks[:d, :h, :w]
