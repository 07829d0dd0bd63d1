"""Where the brain is in raw scans with the skull on: one network for any sequence, in OpenVINO, without torch.

`BrainExtractor` finds it in one scan, on upright voxels of 2 mm. `extract_brain` does so in all sequences of a case,
compares what it found, and brings the mean of the logits, never of masks, to the grid on which the model works.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from brainsegnet._machine import tells_of_memory
from brainsegnet._types import Floats, Mask
from brainsegnet.errors import ImageError, ModelError
from brainsegnet.inference.brain_masks import Agreement, compare, fuse, keep_largest, measure_detail, sample
from brainsegnet.inference.openvino_backend import OpenVinoRequest, shared_core
from brainsegnet.inference.tiling import OUT_OF_MEMORY, interleave
from brainsegnet.model.brain_card import BRAIN_HOME, BrainCard, Limits, read_brain_card
from brainsegnet.preprocessing.alignment import Alignment
from brainsegnet.preprocessing.head import scale_intensities, to_scan_grid, to_working_grid
from brainsegnet.volume import Volume

REMEDY = "check that it shows a whole head, give a mask with --brain-mask, or leave it out"


@dataclass(frozen=True, eq=False)
class ExtractedBrain:
    """The brain in one scan, and what tells whether it is one.

    Attributes:
        logits: Upright voxels (D, H, W) of 2 mm that cover the field of view, above the threshold of the card;
            positive in the brain.
        volume_ml: Volume of the largest component, its holes filled, in millilitres.
        largest_share: Share of the largest component in all voxels with a probability above 0.5.
        mean_probability: Mean of the probability over these voxels of the largest component.
        limits: What a scan of a head has at least.
        detail: Mean slope of the scaled intensities within it, per voxel; a phantom is even.
    """

    logits: Volume
    volume_ml: float
    largest_share: float
    mean_probability: float
    limits: Limits
    detail: float = 1.0

    @property
    def defect(self) -> str:
        """Why this is no brain, in words; empty if it is one."""
        least = self.limits
        if self.is_absent:
            return f"{self.volume_ml:.0f} ml look like a brain, of {least.volume_ml:.0f} ml at least"
        if self.volume_ml > least.most_ml:
            return f"{self.volume_ml:.0f} ml look like a brain, of {least.most_ml:.0f} ml at most"
        if self.largest_share < least.largest_share:
            return f"what looks like a brain is in pieces, the largest has {self.largest_share:.0%} of it"
        if self.mean_probability < least.mean_probability:
            return f"nothing looks clearly like a brain (mean probability {self.mean_probability:.2f})"
        if self.detail < least.detail:
            return "what has the size of a brain is even, as a phantom is"
        return ""

    @property
    def is_absent(self) -> bool:
        """Whether there is not even a doubtful brain."""
        return self.volume_ml < self.limits.volume_ml

    @property
    def is_brain(self) -> bool:
        """Whether the scan shows a brain."""
        return not self.defect

    def mask_on(self, scan: Volume) -> Mask:
        """The brain (D, H, W) on the grid of the scan itself."""
        logits = keep_largest(np.asarray(self.logits.array))
        return np.asarray(to_scan_grid(self.logits.with_array(logits), scan) > 0)

    def to_json(self) -> dict[str, float]:
        """The figures, for the report of a case."""
        return {
            "volume_ml": round(self.volume_ml, 1),
            "largest_share": round(self.largest_share, 3),
            "mean_probability": round(self.mean_probability, 3),
            "detail": round(self.detail, 4),
        }


@cache
def _compile(path: Path, threads: int | None) -> tuple[OpenVinoRequest, Lock]:
    """The network ready to run, and what lets one thread at a time use it."""
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    try:
        return shared_core().compile_model(str(path), "CPU", options).create_infer_request(), Lock()
    except RuntimeError as error:
        if tells_of_memory(error):
            raise MemoryError(OUT_OF_MEMORY) from error
        raise ModelError(f"{path} cannot be run by OpenVINO: {' '.join(str(error).split())[:200]}") from error


class BrainExtractor:
    """Finds the brain in a raw scan; all extractors, scans and threads of a process share one compiled network.

    Args:
        threads: Number of CPU threads; None are all cores.
        home: Folder of the model.

    Raises:
        ModelError: the model is missing, damaged or altered.
    """

    def __init__(self, threads: int | None = None, home: Path = BRAIN_HOME) -> None:
        self.card: BrainCard = read_brain_card(home)
        self._path, self._threads = home / next(iter(self.card.files)), threads

    def __call__(self, scan: Volume) -> ExtractedBrain:
        """The brain in a scan (D, H, W) of any sequence, orientation and spacing.

        Raises:
            MemoryError: there is not enough memory for the network.
        """
        working = to_working_grid(scan)
        image = scale_intensities(np.nan_to_num(working.array, posinf=0, neginf=0))
        raw = self.run(image)
        logits = raw - np.float32(self.card.threshold)
        brain, positive = keep_largest(logits) > 0, raw > 0
        sure = positive & brain
        kept, total = int(np.count_nonzero(sure)), int(np.count_nonzero(positive))
        return ExtractedBrain(
            logits=working.with_array(logits),
            volume_ml=float(np.count_nonzero(brain)) * working.voxel_ml,
            largest_share=kept / max(total, 1),
            mean_probability=float((1 / (1 + np.exp(-raw[sure]))).mean()) if kept else 0.0,
            limits=self.card.limits,
            detail=measure_detail(image, brain),
        )

    def run(self, image: Floats) -> Floats:
        """Logits (D, H, W) of an image of `scale_intensities`, the mean of it and of its mirror image."""
        padded = np.pad(image, [(0, -n % m) for n, m in zip(image.shape, self.card.multiples, strict=True)])
        inner = tuple(map(slice, image.shape))
        mirrored = np.pad(image[..., ::-1], [(0, b - a) for a, b in zip(image.shape, padded.shape, strict=True)])
        request, alone = _compile(self._path, self._threads)
        with alone:
            straight, turned = (self._infer(request, x)[inner] for x in (padded, mirrored))
        return np.asarray((straight + turned[..., ::-1]) / 2, np.float32)

    def _infer(self, request: OpenVinoRequest, image: Floats) -> Floats:
        """Logits (D, H, W) of an image whose sizes are multiples of what the network needs."""
        (d, h, w), (p, q, r) = image.shape, self.card.block
        parts = image.reshape(d // p, p, h // q, q, w // r, r).transpose(1, 3, 5, 0, 2, 4)
        blocks = np.ascontiguousarray(parts.reshape(1, p * q * r, d // p, h // q, w // r))
        try:
            request.infer({0: blocks}, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            if not tells_of_memory(error):
                raise
            raise MemoryError(OUT_OF_MEMORY) from error
        fine = np.asarray(request.get_output_tensor(0).data)[0]
        channels = interleave(fine.reshape(p * q * r, p * q * r, *fine.shape[1:]).swapaxes(0, 1), self.card.block)
        return np.array(interleave(channels, self.card.block), np.float32)


@dataclass(frozen=True, eq=False)
class Brain:
    """The brain of a case, from all its sequences.

    Attributes:
        mask: The brain (D, H, W) on the grid on which the model works.
        logits: What the mask comes from, on upright voxels of 2 mm in the space of the reference.
        found: Sequence to what was found in it alone.
        agreement: Sequence to how that compares with the brain of all.
        warnings: Sentences on sequences that disagree.
    """

    mask: Mask
    logits: Volume
    found: Mapping[str, ExtractedBrain]
    agreement: Mapping[str, Agreement]
    warnings: tuple[str, ...]

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Sequence to the volume of the brain in its field of view, in millilitres."""
        return {name: one.volume_ml for name, one in self.found.items()}

    def to_json(self) -> dict[str, Any]:
        """The values for the report of a case."""
        sequences = {name: {**one.to_json(), **self.agreement[name].to_json()} for name, one in self.found.items()}
        return {"how": "extracted", "sequences": sequences, "warnings": list(self.warnings)}


def extract_brain(
    case: str, images: Mapping[str, Volume], alignment: Alignment, grid: Volume, extractor: BrainExtractor
) -> Brain:
    """Find the brain of a case in all its sequences, and bring it to a grid.

    Args:
        case: Name of the case, for messages.
        images: Raw scans by sequence, each on its own grid, the skull on.
        alignment: How each comes to the reference, which need not be one of them.
        grid: Grid on which the model works; it lies where the reference lies.
        extractor: The network.

    Raises:
        ImageError: a sequence shows no brain, or half of them or more show no clear one.
    """
    found = {name: extractor(image) for name, image in images.items()}
    defects = {name: one.defect for name, one in found.items() if not one.is_brain}
    if 2 * len(defects) >= len(found) or any(one.is_absent for one in found.values()):
        name = next((name for name, one in found.items() if one.is_absent), next(iter(defects)))
        raise ImageError(f"case {case}: no brain was found in {name}: {defects[name]}; {REMEDY}")
    stripped = alignment.reference not in found
    frame = to_working_grid(grid) if stripped else found[alignment.reference].logits
    fields = {name: sample(one.logits, frame, alignment.motions[name].transform) for name, one in found.items()}
    fused = fuse({name: field for name, field in fields.items() if name not in defects})
    agreement = {name: compare(name, field, fused, frame) for name, field in fields.items()}
    doubts = [f"{name} shows no clear brain ({defects[name]}), so that of the others counts" for name in defects]
    warnings = (*doubts, *(one.warning for name, one in agreement.items() if one.warning and name not in defects))
    logits = frame.with_array(fused)
    return Brain(np.asarray(sample(logits, grid) > 0), logits, found, agreement, warnings)
