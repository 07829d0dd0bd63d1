"""Tiled inference: a scan is cut into slabs of slices if memory is short, and the results are joined.

Slabs overlap by the receptive field of the network, so the result equals that of the whole scan in one forward pass.
The paper (section "Testing") uses one forward pass, or five slabs of 31 slices side by side. Test-time augmentation
averages over the scan and its mirror images, on which most recipes also train.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from brainsegnet._types import Array, Floats, Labels, Shape
from brainsegnet.preprocessing.geometry import slab_starts

CONFIDENCE_STEPS = 255
"""The lesion probability is rounded to so many steps, so that a voxel takes one byte."""
OUT_OF_MEMORY = "there is not enough memory for a forward pass; cut the scan into (thinner) slabs"
FLIPS = ((2,), (3,), (2, 3))
"""Axes of (C, D, H, W) along which test-time augmentation mirrors a scan: rows, columns, both."""


class Backend(Protocol):
    """A network on some device. Its methods raise MemoryError if there is not enough memory.

    Attributes:
        name: Library, device and arithmetic, for reports.
        classes: Number of classes.
        multiples: The sizes (D, H, W) of an image must be multiples of these.
        halo: Number of slices on either side on which the result of a slice depends.
    """

    name: str
    classes: int
    multiples: Shape
    halo: int

    def classify(self, image: Floats) -> Labels:
        """The most probable class of each voxel (D, H, W), from normalised intensities (C, D, H, W)."""

    def classify_with_confidence(self, image: Floats, certainty: bool = False) -> Labels:
        """Classes, and the lesion probability in `CONFIDENCE_STEPS`, as (2, D, H, W).

        With `certainty`, the probability of the class itself is added in the same steps: (3, D, H, W).
        """

    def probabilities(self, image: Floats) -> Floats:
        """Soft-max probabilities (K, D, H, W)."""

    def estimate_bytes(self, shape: Shape) -> int:
        """Estimated memory in bytes of a forward pass over (D, H, W) voxels, without weights and libraries."""

    def free_bytes(self) -> int | None:
        """Free memory for a forward pass in bytes; None if it is not known."""


class Tile(NamedTuple):
    """A slab of the scan: the slices that are computed, and those whose result is kept."""

    computed: slice
    kept: slice


class TiledPredictor:
    """Runs a backend on images of any size.

    After a run, `notes` says what was done for lack of memory.

    Args:
        backend: Network and device.
        max_bytes: Memory for a forward pass; None means the free memory.
        fallback: Makes another backend, for a case that needs more memory than the first has, even in slabs.
    """

    def __init__(
        self, backend: Backend, max_bytes: int | None = None, fallback: Callable[[], Backend] | None = None
    ) -> None:
        self.backend, self.max_bytes, self.fallback = backend, max_bytes, fallback
        self.notes: list[str] = []
        self._fell_back = False

    def classify(self, image: Floats, slabs: int | None = None) -> Labels:
        """The most probable class of each voxel.

        Args:
            image: Normalised intensities (C, D, H, W).
            slabs: Slices of a slab as in the paper, side by side, with seams. The paper cuts all slices of a scan; here
                it is the box of the brain. None is the whole image or, if memory is short, overlapping slabs with the
                same result.

        Returns:
            Classes 0 to K-1, (D, H, W).

        Raises:
            MemoryError: the thinnest slab needs more memory than there is.
        """
        result = np.empty(image.shape[1:], np.uint8)
        self._fill(result, image, slabs, lambda part: self.backend.classify(part))
        return result

    def classify_with_confidence(self, image: Floats, slabs: int | None = None) -> tuple[Labels, Labels]:
        """Classes (D, H, W) as `classify`, and the lesion probability (D, H, W) in `CONFIDENCE_STEPS`."""
        result = np.empty((2, *image.shape[1:]), np.uint8)
        self._fill(result, image, slabs, lambda part: self.backend.classify_with_confidence(part))
        return result[0], result[1]

    def classify_with_certainty(self, image: Floats, slabs: int | None = None) -> tuple[Labels, Labels, Labels]:
        """As `classify_with_confidence`, and the probability of the class of each voxel in the same steps."""
        result = np.empty((3, *image.shape[1:]), np.uint8)
        self._fill(result, image, slabs, lambda part: self.backend.classify_with_confidence(part, certainty=True))
        return result[0], result[1], result[2]

    def probabilities(self, image: Floats, slabs: int | None = None) -> Floats:
        """Soft-max probabilities (K, D, H, W); arguments and errors as `classify`."""
        result = np.empty((self.backend.classes, *image.shape[1:]), np.float32)
        self._fill(result, image, slabs, lambda part: self.backend.probabilities(part))
        return result

    def _fill(self, result: Array, image: Floats, slabs: int | None, run: Callable[[Floats], Array]) -> None:
        """Compute all tiles; after a lack of memory, thinner ones, and at last with the fallback."""
        self.notes, depth = [], image.shape[1]
        thickness = depth if slabs else self._find_thickness(_shape(image))
        while True:
            image = np.asarray(image) if self._fell_back else image
            halo, step = self.backend.halo, self._step
            tiles = side_by_side(depth, slabs) if slabs else overlapping(depth, thickness, halo, step)
            try:
                for computed, kept in tiles:
                    part = self._run_padded(image[:, computed], run)
                    inner = slice(kept.start - computed.start, kept.stop - computed.start)
                    result[..., kept, :, :] = part[..., inner, :, :]
                return
            except MemoryError:
                thickness = self._react_to_shortage(_shape(image), thickness, slabs)

    def _react_to_shortage(self, shape: Shape, thickness: int, slabs: int | None) -> int:
        """The thickness to continue with after a forward pass ran out of memory; may change the backend."""
        thinner = thickness // 2 // self._step * self._step
        if slabs is None and thinner >= max(self._step, self.backend.halo // 4):
            self.notes.append(f"{self.backend.name}: too little memory, so slabs of {thinner} slices are computed")
            return thinner
        if self.fallback is None:
            raise MemoryError(OUT_OF_MEMORY)
        before, self.backend, self.fallback, self._fell_back = self.backend, self.fallback(), None, True
        self.notes.append(f"{before.name}: too little memory, so {self.backend.name} computes")
        return shape[0] if slabs else self._find_thickness(shape)

    @property
    def _step(self) -> int:
        return self.backend.multiples[0]

    def _find_thickness(self, shape: Shape) -> int:
        """Slices that may be kept of a slab so that it fits into memory; all of them if the whole image does.

        Raises:
            MemoryError: not even the thinnest slab fits.
        """
        limit = self.backend.free_bytes() if self.max_bytes is None else self.max_bytes
        depth, height, width = shape
        if limit is None or self.backend.estimate_bytes(shape) <= limit:
            return depth
        halo = 2 * _round_up(self.backend.halo, self._step)
        needed = {
            kept: self.backend.estimate_bytes((min(kept + halo, depth), height, width))
            for kept in range(self._step, depth, self._step)
        }
        if fitting := [kept for kept, count in needed.items() if count <= limit]:
            kept, most = max(fitting), _describe_bytes(limit)
            self.notes.append(f"{self.backend.name}: slabs of {kept} slices, so that a forward pass takes {most}")
            return kept
        if self.max_bytes is None:
            return depth
        least = needed.get(self._step, self.backend.estimate_bytes(shape))
        raise MemoryError(
            f"the thinnest slab takes about {_describe_bytes(least)}, more than {_describe_bytes(limit)}; "
            "allow more memory"
        )

    def _run_padded(self, image: Floats, run: Callable[[Floats], Array]) -> Array:
        """The result of `run` on an image with zeros at the far ends, up to the multiples of the backend."""
        d, h, w = shape = _shape(image)
        ends = [(0, 0), *((0, -n % m) for n, m in zip(shape, self.backend.multiples, strict=True))]
        if not isinstance(image, np.ndarray):
            image = image.padded(ends)
        else:
            image = np.pad(image, ends) if np.any(ends) else np.ascontiguousarray(image)
        return run(image)[..., :d, :h, :w]


def tta_probabilities(predictor: TiledPredictor, image: Floats, slabs: int | None = None) -> Floats:
    """Mean of the soft-max probabilities (K, D, H, W) over an image and its mirror images, each mirrored back.

    Arguments, errors and `notes` as `TiledPredictor.probabilities`.
    """
    total = predictor.probabilities(image, slabs)
    notes = predictor.notes
    for axes in FLIPS:
        mirrored = np.flip(image, axes) if isinstance(image, np.ndarray) else image.flipped(axes)
        total += np.flip(predictor.probabilities(mirrored, slabs), axes)
        notes = [*notes, *predictor.notes]
    predictor.notes = list(dict.fromkeys(notes))
    total /= 1 + len(FLIPS)
    return total


def side_by_side(depth: int, thickness: int) -> Iterator[Tile]:
    """The paper's slabs, which do not overlap. Only the last one is moved back to fit."""
    for start in slab_starts(depth, thickness):
        part = slice(start, min(start + thickness, depth))
        yield Tile(part, part)


def overlapping(depth: int, thickness: int, halo: int, step: int = 1) -> Iterator[Tile]:
    """Slabs that are computed with `halo` more slices on either side, so that the kept result is exact."""
    margin = _round_up(halo, step)
    for start in range(0, depth, thickness):
        stop = min(start + thickness, depth)
        yield Tile(slice(max(start - margin, 0), min(stop + margin, depth)), slice(start, stop))


def find_halo(blocks: int, slice_stride: int) -> int:
    """Number of slices on either side on which a slice depends, from the 3x3x3 convolutions and their distances.

    The paper's network has 17 convolutions in the blocks and four in the refinement:

    Examples:
        >>> find_halo(4, 1)
        21
    """
    apart: list[int] = [slice_stride**block for block in range(blocks)]
    strided, enlarged = sum(apart[:-1]), apart[-1] - 1
    return 2 + strided + 4 * sum(apart[1:]) + sum(apart) + enlarged


def interleave(subpixels: Any, stride: Shape) -> Any:  # noqa: ANN401
    """Put sub-pixels in their places: (..., P * Q * R, d, h, w) to (..., P * d, Q * h, R * w), numpy or torch."""
    *lead, _, d, h, w = subpixels.shape
    n, (p, q, r) = len(lead), stride
    parts = subpixels.reshape(*lead, p, q, r, d, h, w)
    order = [*range(n), n + 3, n, n + 4, n + 1, n + 5, n + 2]
    turned = parts.permute(order) if hasattr(parts, "permute") else parts.transpose(order)
    return turned.reshape(*lead, p * d, q * h, r * w)


def estimate_floats(channels: int, classes: int, widths: tuple[int, ...], refined: int, stride: Shape) -> float:
    """Peak number of floats for each voxel: in the first block, in the finest refine unit, or at the end."""
    share = 1 / math.prod(stride)
    held = channels + sum(width * share**i for i, width in enumerate(widths))
    return max(channels + 2 * widths[0], held + share * (5 + share) * refined, held + 6 * classes)


def _describe_bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _shape(image: Floats) -> Shape:
    return image.shape[1], image.shape[2], image.shape[3]


def _round_up(n: int, step: int) -> int:
    return -(-n // step) * step
