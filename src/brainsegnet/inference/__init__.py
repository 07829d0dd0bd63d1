"""Engines, tiled inference, and the segmentation of one case or many; here its options, which load no heavy library."""

from dataclasses import dataclass
from typing import Literal

from brainsegnet.errors import BrainSegNetError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float", "bf16", "int8"]


@dataclass(frozen=True)
class SegmentOptions:
    """How to segment.

    Raises:
        BrainSegNetError: fewer than one thread or one slice, or no memory.
    """

    slabs: int | None = None
    "Slices of a slab, as the paper's 31; by default the whole brain at once."
    probabilities: bool = False
    "Give a probability map per tissue too."
    uncertainty: bool = False
    "Give an entropy map too, and intervals of the volumes."
    keep_all_components: bool = False
    "Keep connected components of much lower confidence than the highest; some models drop them."
    tta: bool = False
    "Test-time augmentation: the mean over the scan and its mirror images, which takes four times as long."
    device: Device = "auto"
    "auto takes a GPU where there is one."
    threads: int | None = None
    "Threads of the CPU; by default all cores."
    precision: Precision = "auto"
    "Of the CPU; auto is int8, else bf16, where that is fast and costs no accuracy."
    max_memory_gb: float | None = None
    "Memory for the network; the scan is cut as far as needed, with the same result. By default what is free."
    resample: bool = False
    "Resample sequences on other grids to the grid of the first one instead of refusing them."
    register: bool = False
    "As resample, after a rigid registration to the first sequence; a sequence on its grid stays as it is."
    picture: bool = False
    "Draw the result over the scan, as a PNG beside the label map."
    max_voxels: int | None = None
    "Voxels in a file above which it is refused, by what its header declares; by default 500 million, 2 GB in floats."

    def __post_init__(self) -> None:
        if self.slabs is not None and self.slabs < 1:
            raise BrainSegNetError(f"a slab has at least one slice, not {self.slabs}; the paper's have 31")
        if self.threads is not None and self.threads < 1:
            raise BrainSegNetError(f"threads must be 1 or more, not {self.threads}")
        if self.max_voxels is not None and self.max_voxels < 1:
            raise BrainSegNetError(f"a file of at least one voxel must be allowed, not {self.max_voxels}")
        if self.max_memory_gb is not None and not self.max_memory_gb > 0:
            raise BrainSegNetError(f"the memory for the network must be above 0 GB, not {self.max_memory_gb}")

    @property
    def max_bytes(self) -> int | None:
        """Memory for the network in bytes; None is what is free."""
        return None if self.max_memory_gb is None else int(1e9 * self.max_memory_gb)
