"""Inference: segment one case or many. This file holds the options, which load no heavy library.

The modules of this package hold the backends, tiled inference, post-processing and the out-of-distribution check.
"""

from dataclasses import dataclass
from typing import Literal

from brainsegnet.errors import BrainSegNetError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float", "bf16", "int8"]


@dataclass(frozen=True)
class SegmentOptions:
    """How to segment a case: precision, device, memory, extra maps, and what to do with sequences on different grids.

    The fields are the options of `brainsegnet segment`.

    Raises:
        BrainSegNetError: threads, slabs or memory is not above zero.

    Examples:
        >>> SegmentOptions(threads=2, uncertainty=True).device
        'auto'
    """

    slabs: int | None = None
    """Cut the brain into slabs of this many slices, as the paper does (31). By default the whole brain goes through the
    network in one pass."""
    probabilities: bool = False
    "Also give a probability map for each tissue and for the background."
    uncertainty: bool = False
    "Also give an entropy map, and an interval for the volume of each region."
    keep_all_components: bool = False
    """Keep all connected components. By default some models drop those of much lower confidence than the most confident
    one."""
    tta: bool = False
    "Test-time augmentation: average over the scan and its mirror images. Takes about five times as long."
    device: Device = "auto"
    "Where the network runs; auto uses a GPU if there is one and torch is installed, else the CPU."
    threads: int | None = None
    "Number of CPU threads; by default all cores."
    precision: Precision = "auto"
    """Arithmetic on the CPU; auto uses int8, else bf16, if the processor is fast at it and the model card shows no
    relevant loss of Dice; else float."""
    max_memory_gb: float | None = None
    "Memory for one pass of the network, in GB; by default the free memory. Larger scans are cut, with the same result."
    resample: bool = False
    "Resample sequences on other grids to the grid of the first sequence. By default they are refused."
    register: bool = False
    """Register sequences on other grids rigidly to the first sequence, then resample them. Sequences on its grid stay
    as they are."""
    picture: bool = False
    "Draw the labels over the scan, as a PNG beside the label map."

    def __post_init__(self) -> None:
        if self.slabs is not None and self.slabs < 1:
            raise BrainSegNetError(f"a slab has at least one slice, not {self.slabs}; the paper's have 31")
        if self.threads is not None and self.threads < 1:
            raise BrainSegNetError(f"threads must be 1 or more, not {self.threads}")
        if self.max_memory_gb is not None and not self.max_memory_gb > 0:
            raise BrainSegNetError(f"the memory for the network must be above 0 GB, not {self.max_memory_gb}")

    @property
    def max_bytes(self) -> int | None:
        """`max_memory_gb` in bytes (1 GB is 10^9 bytes); None means the free memory."""
        return None if self.max_memory_gb is None else int(1e9 * self.max_memory_gb)
