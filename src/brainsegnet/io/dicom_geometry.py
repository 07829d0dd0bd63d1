"""From slices to a volume: sorted by position, checked, and corrected where that is safe.

A grid of a `Volume` has right angles and even steps. Slices that are tilted against their stacking, as CT with a tilted
gantry has them, are shifted within their plane. Missing or uneven slices are interpolated from their neighbours. What
was done is said in a note.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from brainsegnet._types import Affine, Array, Doubles, Floats, Labels, Shape
from brainsegnet.errors import ImageError
from brainsegnet.io.dicom_headers import Frame
from brainsegnet.volume import LabelMap

MIN_SLICES = 3
SAME_PLACE_MM = 0.01
"""Slices this near to each other are at one place."""
SAME_DIRECTION = 1e-3
"""Direction cosines that differ by less are one orientation: headers round, and some differ by 1e-8 within a series."""
UNEVEN = 0.05
"""Steps are even if every slice is within this share of a step of its place."""
MAX_GAP = 3.5
"""A longer step, in slices, is not bridged: two slices in a row may be missing."""
MAX_MISSING = 1 / 3
"""As a share of the slices that are there."""
MAX_DRIFT = 0.5
"""Voxels by which slices may lie beside each other without being shifted."""
MAX_TILT_DEGREES = 45.0


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices of one volume in ascending order along their normal, and what makes a volume of them.

    Attributes:
        frames: The slices as they are in the files.
        shape, affine: Grid of the volume.
        shifts: (slices, 2) voxels by which each slice goes along its rows' and columns' count in the grid.
        places: (D,) for each slice of the volume, where it is among the slices of the files, in fractions.
        notes: What was corrected, as sentences without a stop.
    """

    frames: tuple[Frame, ...]
    shape: Shape
    affine: Affine
    shifts: Doubles
    places: Doubles
    notes: tuple[str, ...] = ()

    @property
    def corrected(self) -> bool:
        """Whether values are interpolated: the slices are not those of the files."""
        return bool(self.notes)

    def assemble(self, slices: Array) -> Array:
        """The volume (D, H, W) of the slices (n, H, W) of the files, in the order of `frames`."""
        if not self.corrected:
            return slices
        low = float(slices.min())
        shifted = np.full((len(slices), *self.shape[1:]), low, np.float32)
        for out, image, shift in zip(shifted, slices, self.shifts, strict=True):
            _shift_into(out, image, shift, low)
        below = np.clip(np.floor(self.places).astype(int), 0, max(len(slices) - 2, 0))
        weight = np.asarray(self.places - below, np.float32)[:, None, None]
        return np.asarray((1 - weight) * shifted[below] + weight * shifted[below + 1], np.float32)

    def back_to_slices(self, labels: LabelMap) -> Labels:
        """Labels on the grid of this volume, on the slices of the files (n, H, W): the nearest voxel."""
        array = np.asarray(labels.array, np.uint8)
        if not self.corrected:
            return array
        to_index = np.linalg.inv(self.affine)
        found = np.zeros((len(self.frames), self.frames[0].rows, self.frames[0].columns), np.uint8)
        for out, frame in zip(found, self.frames, strict=True):
            corner, row, column = frame_axes(frame)
            start, down, right = (to_index[:3, :3] @ v for v in (corner - self.affine[:3, 3], row, column))
            h, w = np.arange(frame.rows)[:, None, None], np.arange(frame.columns)[None, :, None]
            index = np.rint(start + h * down + w * right).astype(int)
            inside = ((index >= 0) & (index < self.shape)).all(axis=-1)
            out[inside] = array[tuple(index[inside].T)]
        return found


def frame_axes(frame: Frame) -> tuple[Doubles, Doubles, Doubles]:
    """Centre of the first voxel of a slice, and the steps to the next row and to the next column, in millimetres."""
    along_row, along_column = np.reshape(frame.orientation, (2, 3))
    return np.array(frame.position), along_column * frame.spacing_mm[0], along_row * frame.spacing_mm[1]


def find_axes(frames: Sequence[Frame]) -> Doubles:
    """Directions (3, 3) along slices, rows and columns, at right angles, of frames of about one orientation."""
    along_row, along_column = np.mean([frame.orientation for frame in frames], axis=0).reshape(2, 3)
    along_row = along_row / np.linalg.norm(along_row)
    along_column = along_column - (along_column @ along_row) * along_row
    along_column /= np.linalg.norm(along_column)
    return np.array([np.cross(along_row, along_column), along_column, along_row])


def measure_heights(frames: Sequence[Frame], normal: Doubles) -> Doubles:
    """Places of slices along their normal, in millimetres."""
    return np.array([frame.position for frame in frames]) @ normal


def count_places(heights: Doubles) -> int:
    """How many different places there are; see `SAME_PLACE_MM`.

    >>> count_places(np.array([0.0, 5.0, 0.001]))
    2
    """
    return 1 + int((np.diff(np.sort(heights)) > SAME_PLACE_MM).sum())


def build_stack(frames: Sequence[Frame]) -> Stack:
    """One volume of the slices of one orientation and size, one at each place.

    Raises:
        ImageError: there are too few slices, several at one place, too long gaps, or slices that are beside each other.
            The text is the end of a sentence: who it is about is the caller's to say.
    """
    axes = find_axes(frames)
    heights = measure_heights(frames, axes[0])
    _check_places(len(frames), count_places(heights))
    order = np.argsort(heights, kind="stable")
    frames, heights = [frames[i] for i in order], heights[order]
    step, places, spread = _space_evenly(heights)
    positions = np.array([frame.position for frame in frames])
    spacing = np.array(frames[0].spacing_mm)
    shifts, size, tilt = _line_up(positions, axes, spacing, (frames[0].rows, frames[0].columns), heights)
    affine = np.eye(4)
    affine[:3, :3] = (axes * np.array([step, *spacing])[:, None]).T
    first = positions - (shifts * spacing) @ axes[1:] - (heights - heights[0])[:, None] * axes[0]
    affine[:3, 3] = first.mean(axis=0) if not tilt else first[0]
    notes = tuple(filter(None, (spread, tilt)))
    return Stack(tuple(frames), (len(places), *size), affine, shifts, places, notes)


def _check_places(count: int, places: int) -> None:
    if places == 1 and count > 1:
        raise ImageError(f"all {count} images are at one place, they make no volume")
    if places < count:
        raise ImageError(f"{count} images are at {places} places, and the headers do not tell them apart")
    if count < MIN_SLICES:
        raise ImageError(f"{'1 slice makes' if count == 1 else f'{count} slices make'} no volume, {MIN_SLICES} are due")


def _space_evenly(heights: Doubles) -> tuple[float, Doubles, str]:
    """Distance of the slices of the volume, where each is among those of the files, and what is said of it."""
    count, total = len(heights), float(heights[-1] - heights[0])
    mean = total / (count - 1)
    if np.abs(heights - heights[0] - mean * np.arange(count)).max() <= UNEVEN * mean:
        return mean, np.arange(count, dtype=float), ""
    steps = np.diff(heights)
    usual = float(np.median(steps[steps < 1.5 * np.percentile(steps, 25)]))
    slices = max(round(total / usual) + 1, count)
    missing = slices - count
    widest = int(np.argmax(steps))
    where = f"between {heights[widest]:.1f} and {heights[widest + 1]:.1f} mm"
    if steps[widest] > MAX_GAP * usual or missing > MAX_MISSING * count:
        remedy = f"the usual step is {usual:.2f} mm; export the series again"
        raise ImageError(f"slices are missing, the widest gap is {where} and {remedy}")
    step = total / (slices - 1)
    places = np.interp(heights[0] + step * np.arange(slices), heights, np.arange(count))
    ratios = steps / usual
    if missing > 0 and np.abs(ratios - np.rint(ratios)).max() < 0.1:
        words = "1 slice is" if missing == 1 else f"{missing} slices are"
        return step, places, f"{words} missing, the first gap is {where}; filled from the neighbours"
    uneven = f"the steps between slices differ, from {steps.min():.2f} to {steps.max():.2f} mm"
    return step, places, f"{uneven}; interpolated to {step:.2f} mm"


def _line_up(
    positions: Doubles, axes: Doubles, spacing: Doubles, size: tuple[int, int], heights: Doubles
) -> tuple[Doubles, tuple[int, int], str]:
    """Shifts of slices within their plane in voxels, rows and columns of the volume, and what is said of it."""
    drift = (positions - positions[0]) @ axes[1:].T / spacing
    if np.ptp(drift, axis=0).max() <= MAX_DRIFT:
        return np.zeros_like(drift), size, ""
    along = heights - heights[0]
    slope = (along @ drift) / (along @ along)
    if np.abs(drift - along[:, None] * slope).max() > MAX_DRIFT:
        raise ImageError("its slices do not follow each other on a line, they make no volume")
    degrees = float(np.degrees(np.arctan(np.linalg.norm(slope * spacing))))
    if degrees > MAX_TILT_DEGREES:
        raise ImageError(f"its slices are tilted by {degrees:.0f} degrees against their order, they make no volume")
    shifts = drift - drift.min(axis=0)
    rows, columns = (n + int(np.ceil(round(s, 3))) for n, s in zip(size, shifts.max(axis=0), strict=True))
    return shifts, (rows, columns), f"slices are tilted by {degrees:.1f} degrees; brought to right angles"


def _shift_into(out: Floats, image: Array, shift: Doubles, outside: float) -> None:
    """Put a slice (H, W) into `out`, moved by fractions of a voxel; linear."""
    whole = np.floor(np.round(shift, 3)).astype(int)
    part = np.asarray(np.round(shift, 3) - whole, np.float32)
    padded = np.pad(image.astype(np.float32), 1, constant_values=np.float32(outside))
    moved = (1 - part[0]) * padded[1:] + part[0] * padded[:-1]
    moved = (1 - part[1]) * moved[:, 1:] + part[1] * moved[:, :-1]
    target = out[whole[0] :, whole[1] :][: moved.shape[0], : moved.shape[1]]
    target[:] = moved[: target.shape[0], : target.shape[1]]
