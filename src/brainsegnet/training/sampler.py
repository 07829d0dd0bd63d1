"""Training samples, cropped and augmented in batches, from prepared scans in memory or on the GPU.

Sample k of a training is a pure function of (seed, epoch, index). There are no worker processes and no hidden state.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from brainsegnet._types import Floats, Labels, Millimetres, Shape
from brainsegnet.io.patients import patient_of
from brainsegnet.preprocessing.geometry import slab_starts, turn_array
from brainsegnet.preprocessing.prepare import OutsideLabels, follow, prepare
from brainsegnet.task import Task
from brainsegnet.training.augment import AugmentParams, augment_intensity, draw_params, drop_sequences, reorient, window
from brainsegnet.training.faults import BEYOND_MM, apply_faults
from brainsegnet.training.lesion_bank import Lesion, Tissue, find_lesions
from brainsegnet.training.recipes import Recipe, Stage
from brainsegnet.training.transplant import Transplant, draw_transplant, transplant
from brainsegnet.volume import Case

VOXELS_PER_CLASS = 20_000
"""Lesion voxels of each class and scan that samples are centred on; more would add nothing."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A training scan, prepared for the network.

    Attributes:
        image: Normalised intensities (C, D, H, W) in the box of the brain, 0 outside the brain.
        classes: True classes (D, H, W) in the same box.
        depth: Number of slices of the whole scan.
        first: Slice of the whole scan at which the box starts.
        spacing_mm: Distances between voxel centres along (D, H, W).
        outside: The true classes outside the box; None if they are not known.
        name: Name of the case, which tells the patient.
    """

    image: Floats
    classes: Labels
    depth: int
    first: int
    spacing_mm: Millimetres = (1.0, 1.0, 1.0)
    outside: OutsideLabels | None = None
    name: str = ""

    @classmethod
    def of(cls, case: Case, task: Task) -> Self:
        """Prepare a case whose label map uses the values of a task. Without a label map, everything is background.

        Raises:
            ImageError: an image cannot be used.
            LabelError: a label is outside the task.
        """
        prepared = prepare(case, task.normalisation)
        labels = case.lesion.array if case.lesion is not None else np.zeros(case.reference.shape, np.uint8)
        classes = task.encode(labels, case.name)
        inside = follow(classes, prepared).copy()
        outside = OutsideLabels.of(turn_array(classes, prepared.turn), prepared.box)
        d, h, w = (case.reference.spacing_mm[axis] for axis in prepared.turn.axes)
        return cls(prepared.image, inside, prepared.shape[0], prepared.box.start[0], (d, h, w), outside, case.name)

    @cached_property
    def centres(self) -> list[NDArray[np.int64]]:
        """Voxels (n, 3) of each lesion class that occurs, about `VOXELS_PER_CLASS` of each at most."""
        found = [np.argwhere(self.classes == k) for k in np.unique(self.classes) if k]
        return [voxels[:: max(1, len(voxels) // VOXELS_PER_CLASS)] for voxels in found]

    @cached_property
    def tissue(self) -> Tissue:
        """The intensities of its healthy brain."""
        return Tissue.of(self.image, self.classes)


@dataclass(frozen=True)
class SampleSpec:
    """Everything that is random about a sample: where it is cut and how it is augmented.

    Attributes:
        scan: Index of the scan.
        start: First slice, counted in the box of the brain.
        centre: In-plane centre (row, column), counted in the box of the brain.
        params: The augmentation.
        transplant: A lesion of another patient, or None.
    """

    scan: int
    start: int
    centre: tuple[float, float]
    params: AugmentParams
    transplant: Transplant | None = None


class Sampler:
    """Draws and cuts the samples of a training.

    Args:
        scans: Training scans, all with the same sequences.
        recipe: Sampling and augmentation.
        patch: Size (D, H, W) of a sample.
        seed: Seed of the whole training.
        device: Where the scans are kept and the samples are cut.
        depths: Number of slices that each further scan counts in an epoch. `put` brings these scans, and may replace
            them.
        required: Channels that no sample loses.
    """

    def __init__(
        self,
        scans: Sequence[Scan],
        recipe: Recipe,
        patch: Shape,
        seed: int,
        device: torch.device,
        depths: Sequence[int] = (),
        required: Sequence[int] = (),
    ) -> None:
        self.recipe, self.patch, self.seed, self.device = recipe, patch, seed, device
        self.required = tuple(required)
        self.depths = (*(scan.depth for scan in scans), *depths)
        self.places = [(i, s) for i, depth in enumerate(self.depths) for s in slab_starts(depth, patch[0])]
        self.scans: dict[int, Scan] = {}
        self.images: dict[int, Tensor] = {}
        self.classes: dict[int, Tensor] = {}
        self._spans: dict[tuple[int, int, int], tuple[int, int] | None] = {}
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))
        self.lesions = _collect_lesions(scans, device) if recipe.transplant else []
        for i, scan in enumerate(scans):
            self.put(i, scan)

    def put(self, index: int, scan: Scan) -> None:
        """Keep a scan at an index, in place of an earlier one."""
        stored = torch.float32 if self.device.type == "cpu" else torch.float16
        self.scans[index] = scan
        self.images[index] = torch.from_numpy(scan.image).to(self.device, stored)
        self.classes[index] = torch.from_numpy(scan.classes).to(self.device)
        self._spans = {slab: span for slab, span in self._spans.items() if slab[0] != index}

    def draw(self, number: int, stage: Stage) -> SampleSpec:
        """Sample `number` of the training, counted over all epochs."""
        epoch, index = divmod(number, len(self.places))
        rng = np.random.Generator(np.random.Philox(key=[self.seed, (epoch << 32) + index]))
        scan, slab = self.places[self._order_of(epoch)[index]]
        params = self._draw_params(rng, stage, self.scans[scan].image.shape[0])
        if self.recipe.sampling == "slabs":
            start = self._first_slice(scan, slab) - self.scans[scan].first
            return SampleSpec(scan, start, self._around_lesion(rng, scan, start, params), params)
        return self._anywhere(rng, scan, params, self._draw_transplant(rng, scan))

    def _draw_transplant(self, rng: np.random.Generator, scan: int) -> Transplant | None:
        """A lesion of another patient for a share of the samples; with a share of 0, no random number is drawn."""
        if not self.recipe.transplant or rng.random() >= self.recipe.transplant:
            return None
        target = self.scans[scan]
        patient = _patient_of(scan, target)
        return draw_transplant(
            rng, self.lesions, patient, target.image, target.classes, target.tissue, target.spacing_mm
        )

    def _first_slice(self, scan: int, slab: int) -> int:
        """Where a slab begins in a scan, which may have more or fewer slices than it counts."""
        counted, deep = (max(depth - self.patch[0], 0) for depth in (self.depths[scan], self.scans[scan].depth))
        return slab if counted == deep else round(slab * deep / max(counted, 1))

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        """The slabs in the order of an epoch, which is cached."""
        if self._order[0] != epoch:
            rng = np.random.Generator(np.random.Philox(key=[self.seed, (epoch << 32) + 0xFFFFFFFF]))
            self._order = epoch, rng.permutation(len(self.places))
        return self._order[1]

    def _lesion_span(self, scan: int, start: int, axis: int) -> tuple[int, int] | None:
        """First and last row (axis 1) or column (axis 2) of the lesion within a slab, if any; cached."""
        place = scan, start, axis
        if place not in self._spans:
            slab = self.scans[scan].classes[max(start, 0) : max(start + self.patch[0], 0)]
            hits = np.flatnonzero(slab.any((0, 3 - axis)))
            self._spans[place] = (int(hits[0]), int(hits[-1])) if hits.size else None
        return self._spans[place]

    def _draw_params(self, rng: np.random.Generator, stage: Stage, sequences: int) -> AugmentParams:
        augmented = rng.random() < stage.augment
        params = draw_params(rng, self.recipe.augmentation, sequences, self.patch[0]) if augmented else AugmentParams()
        dropped = rng.random() < self.recipe.drop_sequences
        return drop_sequences(rng, params, sequences, self.required) if dropped else params

    def _around_lesion(
        self, rng: np.random.Generator, scan: int, start: int, params: AugmentParams
    ) -> tuple[float, float]:
        """A centre such that the crop holds the whole lesion of its slices, or, if too small, lies inside its box."""
        centre = []
        for axis in (1, 2):
            extent = self.patch[axis] / params.scale
            low, high = 0.0, self.scans[scan].classes.shape[axis] - extent
            if span := self._lesion_span(scan, start, axis):
                low, high = sorted((span[1] + 1 - extent, float(span[0])))
            first = (low + high) // 2
            if high > low:
                first = np.clip(np.floor(rng.uniform(low, high + 1)), low, high)
            centre.append(float(first) + (extent - 1) / 2)
        return centre[0], centre[1]

    def _anywhere(
        self, rng: np.random.Generator, scan: int, params: AugmentParams, drawn: Transplant | None
    ) -> SampleSpec:
        """A centre near a voxel of a random lesion class or, every second time, anywhere in the box.

        The lesion is that of the scan or, if there is one, the transplanted one.
        """
        shape, centres = self.scans[scan].classes.shape, self.scans[scan].centres
        if drawn is not None:
            points_mm, spacing_mm = self.lesions[drawn.lesion].points_mm, self.scans[scan].spacing_mm
            centres = [np.rint(drawn.carry(points, spacing_mm)).astype(np.int64) for points in points_mm]
        if centres and rng.random() < 0.5:
            voxels = centres[rng.integers(len(centres))]
            far = np.array(self.patch)
            middle = voxels[rng.integers(len(voxels))] + rng.integers(-far // 4, far // 4 + 1)
        else:
            middle = np.array([rng.integers(n) for n in shape])
        half, sizes = np.array(self.patch) // 2, np.array(shape)
        d, h, w = np.clip(middle, np.minimum(half, sizes // 2), np.maximum(sizes - half, sizes // 2))
        depth, height, width = self.patch
        centre = float(h - height // 2 + (height - 1) / 2), float(w - width // 2 + (width - 1) / 2)
        return SampleSpec(scan, int(d) - depth // 2, centre, params, drawn)

    def cut(self, specs: Sequence[SampleSpec]) -> tuple[Tensor, Tensor]:
        """Samples (N, C, D, H, W) in float32 and their classes (N, D, H, W), augmented."""
        pairs = [self._cut(spec) for spec in specs]
        images, classes = (torch.stack(parts) for parts in zip(*pairs, strict=True))
        for spec, image, truth in zip(specs, images, classes, strict=True):
            if spec.params.faults.changes_mask:
                truth.mul_((image != 0).any(0))
        return augment_intensity(images, [spec.params for spec in specs]), classes[:, 0].to(torch.uint8)

    def _cut(self, spec: SampleSpec) -> tuple[Tensor, Tensor]:
        """A sample (C, D, H, W) with its faults, before its intensities change, and its classes (1, D, H, W)."""
        faults, spacing_mm = spec.params.faults, self.scans[spec.scan].spacing_mm
        beyond = math.ceil(BEYOND_MM / spacing_mm[0]) if faults else 0
        first, depth = spec.start - beyond, self.patch[0] + 2 * beyond
        image = _span(self.images[spec.scan], first, depth, 1)
        classes = _span(self.classes[spec.scan][None], first, depth, 1)
        if spec.transplant is not None:
            image, classes, spec = self._transplant(image, classes, spec, first)
        image = self._cut_window(image, spec, False).float()
        if faults:
            image = apply_faults(image, faults, spacing_mm)[:, beyond : beyond + self.patch[0]]
        return image, self._cut_window(classes[:, beyond : beyond + self.patch[0]], spec, True)

    def _transplant(
        self, image: Tensor, classes: Tensor, spec: SampleSpec, first: int
    ) -> tuple[Tensor, Tensor, SampleSpec]:
        """The part of some slices that a sample needs, with its new lesion, and where the sample lies in this part."""
        angle, starts = math.radians(spec.params.angle_deg), []
        for axis in (0, 1):
            own, other = self.patch[1 + axis], self.patch[2 - axis]
            half = (own * abs(math.cos(angle)) + other * abs(math.sin(angle))) / (2 * spec.params.scale) + 2
            n = image.shape[axis + 2]
            start = min(max(math.floor(spec.centre[axis] - half), 0), n - 1)
            stop = min(max(math.ceil(spec.centre[axis] + half), start + 1), n)
            image, classes = (x.narrow(axis + 2, start, stop - start) for x in (image, classes))
            starts.append(start)
        image = image.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        classes = classes.clone(memory_format=torch.contiguous_format)
        target, drawn = self.scans[spec.scan], spec.transplant
        if drawn is not None:
            lesion, begin = self.lesions[drawn.lesion], (first, *starts)
            transplant(image, classes[0], begin, lesion, drawn, target.tissue, target.spacing_mm)
        centre = spec.centre[0] - starts[0], spec.centre[1] - starts[1]
        return image, classes, replace(spec, centre=centre)

    def _cut_window(self, slab: Tensor, spec: SampleSpec, nearest: bool) -> Tensor:
        """The sample's window of slices (C, D, H, W), zero outside them, turned and flipped."""
        size = self.patch[1:]
        if spec.params.scale == 1 and spec.params.angle_deg == 0:
            for axis, extent in enumerate(size):
                slab = _span(slab, round(spec.centre[axis] - (extent - 1) / 2), extent, axis + 2)
        else:
            flat = slab.reshape(-1, *slab.shape[2:])
            flat = window(flat, spec.centre, (size[0], size[1]), spec.params, nearest)
            slab = flat.reshape(*slab.shape[:2], *size)
        return reorient(slab, spec.params)


def _patient_of(index: int, scan: Scan) -> str:
    """The patient of a scan; a scan without a name is of a patient by itself."""
    return patient_of(scan.name) if scan.name else f"scan {index}"


def _collect_lesions(scans: Sequence[Scan], device: torch.device) -> list[Lesion]:
    """The lesions of training scans, on the device on which samples are cut."""
    found = [
        lesion
        for i, scan in enumerate(scans)
        for lesion in find_lesions(_patient_of(i, scan), scan.image, scan.classes, scan.spacing_mm)
    ]
    return [lesion.to(device) for lesion in found]


def _span(x: Tensor, start: int, length: int, axis: int) -> Tensor:
    """`length` entries from `start` along `axis` of (C, D, H, W), zero where there are none."""
    first, last = min(max(start, 0), x.shape[axis]), min(max(start + length, 0), x.shape[axis])
    inside = x.narrow(axis, first, last - first)
    if last - first == length:
        return inside
    before = first - start if last > first else 0
    pads = [0, 0] * (x.ndim - 1 - axis) + [before, length - (last - first) - before]
    return F.pad(inside, pads)
