"""A scan in passes: cut where memory asks for it, padded, run by a backend, put together; only classes leave a pass.

Mirroring at test time: the mean of what a network finds in a scan and in its mirror images.

Training mirrors its samples along rows and columns ("Data augmentation", `training.ranges`; most recipes along slices
too), so a mirrored scan is to the network like any other, and its errors there differ. The paper takes one pass; this
takes four.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from brainsegnet._types import Floats, Shape
from brainsegnet.preprocessing.geometry import slab_starts

Classes = NDArray[np.uint8]


class Backend(Protocol):
    """A network on some device.

    Attributes:
        name: What it is and where it runs, for reports.
        classes: Of the network.
        multiples: Sizes (D, H, W) that it takes are multiples of these.
        halo: Slices on either side that a slice depends on.
    """

    name: str
    classes: int
    multiples: Shape
    halo: int

    def classify(self, image: Floats) -> Classes:
        """Normalised intensities (C, D, H, W) to the likeliest class of each voxel (D, H, W).

        Raises:
            MemoryError: there is too little memory.
        """

    def classify_with_confidence(self, image: Floats) -> Classes:
        """Classes, and the probability of not being background in 255 steps: (2, D, H, W); otherwise as `classify`."""

    def probabilities(self, image: Floats) -> Floats:
        """Soft-max probabilities (K, D, H, W); arguments and errors as `classify`."""

    def estimate_bytes(self, shape: Shape) -> int:
        """About how much memory a pass over (D, H, W) voxels takes beside weights and libraries."""

    def free_bytes(self) -> int | None:
        """Memory that is free for a pass, None if that cannot be told."""


@dataclass(frozen=True)
class Piece:
    """Slices of a pass: which are computed, and which of those are kept, both counted in the scan."""

    computed: slice
    kept: slice


class TiledPredictor:
    """Runs a backend over images of any size, in one pass or in several that give the same.

    Args:
        backend: Where to compute.
        max_bytes: Memory of a pass; None is what is free.
        spare: Makes another backend, for the case that the first has too little memory even for the thinnest slab.

    `notes` says what was done for want of memory in the last run, in sentences.
    """

    def __init__(
        self, backend: Backend, max_bytes: int | None = None, spare: Callable[[], Backend] | None = None
    ) -> None:
        self.backend, self.max_bytes, self.spare = backend, max_bytes, spare
        self.notes: list[str] = []
        self._spare_runs = False

    def classify(self, image: Floats, slabs: int | None = None) -> Classes:
        """The likeliest class of each voxel.

        Args:
            image: Normalised intensities (C, D, H, W).
            slabs: Slices per pass as in the paper, side by side, with seams; None is one pass, or, where memory is
                short, several that overlap so far that the result is the same.

        Returns:
            Classes 0 to K-1 (D, H, W).

        Raises:
            MemoryError: the thinnest slab needs more than there is.

        The paper cuts the 155 slices of the scan into five slabs of 31 ("Testing"); here the image is the brain's box,
        with fewer slices, so the seams lie elsewhere.
        """
        result = np.empty(image.shape[1:], np.uint8)
        self._fill(result, image, slabs, lambda part: self.backend.classify(part))
        return result

    def classify_with_confidence(self, image: Floats, slabs: int | None = None) -> tuple[Classes, Classes]:
        """Classes (D, H, W) as `classify`, and the probability (D, H, W) of not being background in 255 steps."""
        result = np.empty((2, *image.shape[1:]), np.uint8)
        self._fill(result, image, slabs, lambda part: self.backend.classify_with_confidence(part))
        return result[0], result[1]

    def probabilities(self, image: Floats, slabs: int | None = None) -> Floats:
        """Soft-max probabilities (K, D, H, W); arguments and errors as `classify`."""
        result = np.empty((self.backend.classes, *image.shape[1:]), np.float32)
        self._fill(result, image, slabs, lambda part: self.backend.probabilities(part))
        return result

    def _fill(
        self, result: NDArray[Any], image: Floats, slabs: int | None, run: Callable[[Floats], NDArray[Any]]
    ) -> None:
        """Compute the pieces; where memory is short after all, thinner ones; at last on the spare backend."""
        self.notes, depth = [], image.shape[1]
        thickness = depth if slabs else self._thickness(_shape(image))
        while True:
            image = np.asarray(image) if self._spare_runs else image
            pieces = (
                side_by_side(depth, slabs) if slabs else overlapping(depth, thickness, self.backend.halo, self._step)
            )
            try:
                for piece in pieces:
                    found = self._padded(image[:, piece.computed], run)
                    first = piece.kept.start - piece.computed.start
                    result[..., piece.kept, :, :] = found[..., first : first + piece.kept.stop - piece.kept.start, :, :]
                return
            except MemoryError:
                thickness = self._after_shortage(_shape(image), thickness, slabs)

    def _after_shortage(self, shape: Shape, thickness: int, slabs: int | None) -> int:
        """The thickness to go on with after a pass had too little memory; may change the backend."""
        thinner = thickness // 2 // self._step * self._step
        if slabs is None and thinner >= max(self._step, self.backend.halo // 4):
            self.notes.append(f"{self.backend.name}: too little memory, so slabs of {thinner} slices are computed")
            return thinner
        if self.spare is None:
            raise MemoryError("the memory does not suffice for a pass; cut the scan into (thinner) slabs")
        before, self.backend, self.spare, self._spare_runs = self.backend, self.spare(), None, True
        self.notes.append(f"{before.name}: too little memory, so {self.backend.name} computes")
        return shape[0] if slabs else self._thickness(shape)

    @property
    def _step(self) -> int:
        return self.backend.multiples[0]

    def _thickness(self, shape: Shape) -> int:
        """Slices that may be kept of a pass, so that it fits; all of them if the whole does.

        Raises:
            MemoryError: not even the thinnest slab fits.
        """
        limit = self.backend.free_bytes() if self.max_bytes is None else self.max_bytes
        depth, height, width = shape
        if limit is None or self.backend.estimate_bytes(shape) <= limit:
            return depth
        halo = 2 * _round_up(self.backend.halo, self._step)
        fitting = [
            kept
            for kept in range(self._step, depth, self._step)
            if self.backend.estimate_bytes((min(kept + halo, depth), height, width)) <= limit
        ]
        if fitting:
            kept = max(fitting)
            self.notes.append(
                f"{self.backend.name}: slabs of {kept} slices, so that a pass takes {describe_bytes(limit)}"
            )
            return kept
        if self.max_bytes is None:
            return depth
        least = self.backend.estimate_bytes((min(self._step + halo, depth), height, width))
        raise MemoryError(
            f"the thinnest slab takes about {describe_bytes(least)}, more than {describe_bytes(limit)}; "
            "allow more memory"
        )

    def _padded(self, image: Floats, run: Callable[[Floats], NDArray[Any]]) -> NDArray[Any]:
        """What `run` makes of an image whose far ends are padded with zeros as far as the backend wants."""
        shape = _shape(image)
        missing = [(0, -n % m) for n, m in zip(shape, self.backend.multiples, strict=True)]
        if isinstance(image, np.ndarray):
            padded = any(more for _, more in missing)
            image = np.pad(image, [(0, 0), *missing]) if padded else np.ascontiguousarray(image)
        else:
            image = image.padded([(0, 0), *missing])
        d, h, w = shape
        return run(image)[..., :d, :h, :w]


def side_by_side(depth: int, thickness: int) -> Iterator[Piece]:
    """The paper's slabs, which do not overlap but for the last, which slides back to fit."""
    for start in slab_starts(depth, thickness):
        part = slice(start, min(start + thickness, depth))
        yield Piece(part, part)


def overlapping(depth: int, thickness: int, halo: int, step: int = 1) -> Iterator[Piece]:
    """Slabs that are computed with so many slices more on either side that what is kept is as in one pass.

    >>> [(p.computed, p.kept) for p in overlapping(10, 6, 2)]
    [(slice(0, 8, None), slice(0, 6, None)), (slice(4, 10, None), slice(6, 10, None))]
    """
    margin = _round_up(halo, step)
    for start in range(0, depth, thickness):
        stop = min(start + thickness, depth)
        yield Piece(slice(max(start - margin, 0), min(stop + margin, depth)), slice(start, stop))


def find_halo(blocks: int, slice_stride: int) -> int:
    """Slices on either side that a slice depends on: the 3x3x3 convolutions on its way, wider apart in deeper blocks.

    The paper's network, 17 convolutions and four of the refinement:

    >>> find_halo(4, 1)
    21
    """
    apart: list[int] = [slice_stride**block for block in range(blocks)]
    strided, enlarged = sum(apart[:-1]), apart[-1] - 1
    return 2 + strided + 4 * sum(apart[1:]) + sum(apart) + enlarged


def interleave(subpixels: Any, stride: Shape) -> Any:  # noqa: ANN401
    """Sub-pixels to their places: (..., P * Q * R, d, h, w) to (..., P * d, Q * h, R * w), numpy or torch."""
    *lead, _, d, h, w = subpixels.shape
    n, (p, q, r) = len(lead), stride
    parts = subpixels.reshape(*lead, p, q, r, d, h, w)
    order = [*range(n), n + 3, n, n + 4, n + 1, n + 5, n + 2]
    turned = parts.permute(order) if hasattr(parts, "permute") else parts.transpose(order)
    return turned.reshape(*lead, p * d, q * h, r * w)


def estimate_floats(channels: int, classes: int, widths: tuple[int, ...], refined: int, stride: Shape) -> float:
    """Floats per voxel that live at once where most do: in the first block, the finest refine unit, or at the end."""
    share = 1 / math.prod(stride)
    held = channels + sum(width * share**i for i, width in enumerate(widths))
    return max(channels + 2 * widths[0], held + share * (5 + share) * refined, held + 6 * classes)


def describe_bytes(count: int) -> str:
    """In the unit that suits it.

    >>> describe_bytes(2_345_000_000), describe_bytes(12_345_678)
    ('2.3 GB', '12.3 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _shape(image: Floats) -> Shape:
    return image.shape[1], image.shape[2], image.shape[3]


def _round_up(n: int, step: int) -> int:
    return -(-n // step) * step


FLIPS = ((2,), (3,), (2, 3))
"""Axes of (C, D, H, W) along which the passes after the first see the scan mirrored: rows, columns, both."""


def tta_probabilities(predictor: TiledPredictor, image: Floats, slabs: int | None = None) -> Floats:
    """The mean of the soft-max probabilities (K, D, H, W) of four passes, each turned back.

    Arguments, errors and `notes` as `TiledPredictor.probabilities`, each note once.
    """
    total = predictor.probabilities(image, slabs)
    notes = predictor.notes
    for axes in FLIPS:
        total += np.flip(predictor.probabilities(_flip(image, axes), slabs), axes)
        notes = [*notes, *predictor.notes]
    predictor.notes = list(dict.fromkeys(notes))
    total /= 1 + len(FLIPS)
    return total


def _flip(image: Floats, axes: tuple[int, ...]) -> Floats:
    """The image (C, D, H, W) mirrored along some axes, where it lies."""
    return np.flip(image, axes) if isinstance(image, np.ndarray) else image.flipped(axes)
