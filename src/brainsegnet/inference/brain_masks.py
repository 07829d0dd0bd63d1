"""Logits of the brain from several sequences: one brain of them, and where a sequence disagrees with it.

All arrays are upright (D, H, W) with voxels of about 2 mm; NaN means outside the field of view of a sequence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from brainsegnet._types import Floats, ItkObject, Mask, Shape
from brainsegnet.metrics.scores import dice
from brainsegnet.preprocessing.grids import resample_array
from brainsegnet.volume import Box, Volume

FAR = 8.0
"""Logits are cut to this size before they are averaged, so that no sequence outvotes all others."""
AGREE = 0.85
"""Dice with the others below which a sequence of three or more has no vote."""
PATCH_MM = 3.0
"""Disagreement counts where a ball of this radius fits in, so that a shifted surface does not."""
PATCH_ML = 15.0
"""Disagreement of this volume or more in one place is a warning."""
MARGIN = 2
DEEP = 3
"""Voxels below the surface of the brain where detail is measured."""
_OUTSIDE = np.float32(-1e4)
_SIDES = (("bottom", "top"), ("front", "back"), ("right", "left"))
"""Ends of the axes (D, H, W) of an upright scan."""


@dataclass(frozen=True)
class Agreement:
    """How the brain that one sequence shows compares with that of all.

    Attributes:
        dice: Dice of the two where the sequence was scanned.
        lacks_ml: Volume of the places that the sequence lacks, in millilitres.
        adds_ml: Volume of the places that it alone shows.
        unseen_ml: Volume of the brain outside its field of view.
        warning: A sentence if they disagree, else empty.
    """

    dice: float
    lacks_ml: float
    adds_ml: float
    unseen_ml: float
    warning: str

    def to_json(self) -> dict[str, Any]:
        """The figures, for the report of a case."""
        return {
            "agreement": round(self.dice, 3),
            "lacks_ml": round(self.lacks_ml, 1),
            "adds_ml": round(self.adds_ml, 1),
            "outside_field_of_view_ml": round(self.unseen_ml, 1),
        }


def keep_largest(logits: Floats) -> Floats:
    """Logits of the largest component of positive ones, its holes filled; others turn negative.

    >>> keep_largest(np.array([[[1.0, 1.0, -1.0, 1.0]]], np.float32)).tolist()
    [[[1.0, 1.0, -1.0, -1.0]]]
    """
    positive = logits > 0
    parts, count = ndimage.label(positive)
    if not count:
        return logits
    largest = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    filled = ndimage.binary_fill_holes(largest)
    result = np.where(positive & ~filled, -np.abs(logits), logits)
    return np.asarray(np.where(filled & ~largest, np.abs(logits), result), np.float32)


def measure_detail(image: Floats, brain: Mask) -> float:
    """Mean slope per voxel of a smoothed image (D, H, W), deeper than `DEEP` voxels in the brain; 0 without a brain.

    >>> measure_detail(np.ones((12, 12, 12), np.float32), np.ones((12, 12, 12), bool))
    0.0
    """
    if not brain.any():
        return 0.0
    box = Box.around(brain).slices
    deep = ndimage.binary_erosion(brain[box], iterations=DEEP)
    inside = deep if deep.any() else brain[box]
    return float(ndimage.gaussian_gradient_magnitude(image[box], 1.0)[inside].mean())


def sample(logits: Volume, grid: Volume, transform: ItkObject = None) -> Floats:
    """Logits (D, H, W) on another grid by linear interpolation; ends are repeated for `MARGIN` voxels, then comes NaN.

    Args:
        logits: Logits on their own grid.
        grid: Volume that gives the grid.
        transform: Transform of SimpleITK from points of `grid` to points of `logits`; None leaves both in place.
    """
    if transform is None and logits.on_grid_of(grid):
        return np.asarray(logits.array)
    affine = logits.affine.copy()
    affine[:3, 3] -= affine[:3, :3].sum(axis=1) * MARGIN
    padded = Volume(np.pad(np.asarray(logits.array), MARGIN, mode="edge"), affine)
    result = resample_array(padded.array, padded, grid, transform, float(_OUTSIDE))
    result[result <= _OUTSIDE / 2] = np.nan
    return np.asarray(result, np.float32)


def fuse(fields: Mapping[str, Floats]) -> Floats:
    """The logits (D, H, W) of the brain, from those of each sequence on one grid, without NaN.

    The mean over the sequences that see a voxel. A sequence that disagrees with the others has no vote, if there are
    at least three.
    """
    voters = dict(fields)
    while len(voters) > 2:
        scores = {name: _dice_with(field, _mean(voters, name)) for name, field in voters.items()}
        worst = min(scores, key=lambda name: scores[name])
        if scores[worst] >= AGREE:
            break
        del voters[worst]
    return keep_largest(np.nan_to_num(_mean(voters), nan=-FAR))


def _mean(fields: Mapping[str, Floats], without: str = "") -> Floats:
    """The mean over all fields but one, of those that are no NaN; NaN where all are."""
    shape = next(iter(fields.values())).shape
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for name, field in fields.items():
        if name != without:
            seen = ~np.isnan(field)
            total += np.where(seen, np.clip(field, -FAR, FAR), 0)
            count += seen
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan), np.float32)


def _dice_with(field: Floats, others: Floats) -> float:
    seen = ~(np.isnan(field) | np.isnan(others))
    return dice((field > 0) & seen, (others > 0) & seen)


def compare(name: str, field: Floats, fused: Floats, frame: Volume) -> Agreement:
    """Compare the brain of one sequence with that of all, `fused`, both on the grid `frame` (D, H, W)."""
    brain, seen = fused > 0, ~np.isnan(field)
    own = keep_largest(np.where(seen, field, np.float32(-FAR))) > 0
    lacks = find_patches(brain & ~own & seen, frame)
    adds = find_patches(own & ~brain, frame)
    lacks_ml, adds_ml, unseen_ml = (
        float(np.count_nonzero(part)) * frame.voxel_ml for part in (lacks, adds, brain & ~seen)
    )
    said = []
    if lacks_ml >= PATCH_ML:
        said.append(f"lacks {lacks_ml:.0f} ml of brain {find_side(lacks, brain)}")
    if adds_ml >= PATCH_ML:
        said.append(f"adds {adds_ml:.0f} ml {find_side(adds, brain)}")
    if unseen_ml >= PATCH_ML:
        said.append(f"was not scanned in {unseen_ml:.0f} ml of brain {find_side(brain & ~seen, brain)}")
    warning = f"{name} {' and '.join(said)}, compared with the brain of all sequences; look at it" if said else ""
    return Agreement(dice(own, brain & seen), lacks_ml, adds_ml, unseen_ml, warning)


def find_patches(mask: Mask, frame: Volume) -> Mask:
    """The parts of a mask (D, H, W) into which a ball of `PATCH_MM` fits, without layers along a surface."""
    result, core = np.zeros_like(mask), ndimage.binary_erosion(mask, border_value=1)
    if not core.any():
        return result
    box = _widen(Box.around(core), 3, mask.shape).slices
    depth = ndimage.distance_transform_edt(np.pad(mask[box], 1, mode="edge"), frame.spacing_mm)
    core = depth[1:-1, 1:-1, 1:-1] > PATCH_MM
    if core.any():
        near = ndimage.distance_transform_edt(~core, frame.spacing_mm) <= PATCH_MM
        result[box] = mask[box] & near
    return result


def _widen(box: Box, reach: int, shape: Shape) -> Box:
    start = tuple(max(0, a - reach) for a in box.start)
    stop = tuple(min(n, b + reach) for b, n in zip(box.stop, shape, strict=True))
    return Box(start, stop)  # type: ignore[arg-type]


def find_side(part: Mask, brain: Mask) -> str:
    """On which side of the brain a part lies, in words; both are upright (D, H, W).

    >>> brain = np.ones((9, 9, 9), bool)
    >>> find_side(np.arange(9)[:, None, None] * brain == 0, brain)
    'at the bottom'
    """
    middle, own = (np.array(ndimage.center_of_mass(mask)) for mask in (brain, part))
    reach = np.maximum(Box.around(brain).shape, 2) / 2
    shift = (own - middle) / reach
    axis = int(np.abs(shift).argmax())
    if abs(shift[axis]) < 0.3:
        return "in the middle"
    side = _SIDES[axis][int(shift[axis] > 0)]
    return f"on the {side}" if axis == 2 else f"at the {side}"
