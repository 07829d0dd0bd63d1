"""Inference: segment one case or many. This file holds the options, which load no heavy library.

The modules of this package hold the backends, tiled inference, post-processing and the out-of-distribution check.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from brainsegnet.errors import BrainSegNetError
from brainsegnet.plotting import DrawingOptions

Device = Literal["auto", "cpu", "cuda"]
_LIMITS = {"threads", "max_memory_gb", "max_voxels"}
"""Options that change no result."""
_OF_PICTURE = {"picture_format", "drawing"}
Precision = Literal["auto", "float", "bf16", "int8"]
Spacing = Literal["model", "keep"]
PictureFormat = Literal["png", "svg"]


@dataclass(frozen=True)
class SegmentOptions:
    """How to segment a case: precision, device, memory, and the steps from a raw study to a result and its files.

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
    presence_check: bool = True
    """Decide from the whole scan whether it has enhancing tumour at all, where the model has a rule for that. With
    --no-presence-check, the voxels of each tissue stay as the network marks them."""
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
    register: bool = True
    """Register sequences to the reference rigidly where that makes them agree better. With --no-register, sequences on
    different grids are refused."""
    resample: bool = False
    "Trust the headers: resample sequences on other grids to the reference where their headers place them."
    reference: str | None = None
    "Sequence that gives the grid of the result; by default the one with the thinnest slices."
    extract_brain: bool = True
    """Find the brain in scans whose skull is on, and leave out the rest. With --no-extract-brain, scans are taken as
    they are."""
    brain_mask: Path | None = None
    "Mask of the brain of one case, on any grid of the patient's space. It replaces the extraction."
    spacing: Spacing = "model"
    """Voxels that the network sees: model resamples to the spacing at which the model works, and brings the result
    back; keep takes those of the reference."""
    allow_poor: bool = False
    """Segment with sequences with which the model found hardly anything on unseen cases. By default they are refused.
    """
    all_grids: bool = False
    "Also write a label map on the grid of each sequence."
    save_preprocessed: bool = False
    "Also write the aligned and stripped images that the network saw, and the brain mask."
    dicom: bool = False
    "Also write a DICOM segmentation and a DICOM report of the volumes; the reference must be DICOM."
    picture: bool = False
    "Draw the labels over the scan, as a picture beside the label map."
    picture_format: PictureFormat = "png"
    "Format of the picture."
    drawing: DrawingOptions = field(default_factory=DrawingOptions)
    "How labels are drawn in the picture."
    label_files: bool = False
    "Also write the names and colours of the labels for ITK-SNAP (.txt) and for 3D Slicer (.ctbl)."
    max_voxels: int | None = None
    "Largest number of voxels that the header of a file may declare; by default 500 million, which is 2 GB in floats."

    def __post_init__(self) -> None:
        if self.slabs is not None and self.slabs < 1:
            raise BrainSegNetError(f"a slab has at least one slice, not {self.slabs}; the paper's have 31")
        if self.threads is not None and self.threads < 1:
            raise BrainSegNetError(f"threads must be 1 or more, not {self.threads}")
        if self.max_voxels is not None and self.max_voxels < 1:
            raise BrainSegNetError(f"a file of at least one voxel must be allowed, not {self.max_voxels}")
        if self.picture_format not in get_args(PictureFormat):
            formats = ", ".join(get_args(PictureFormat))
            raise BrainSegNetError(f"unknown format of pictures {self.picture_format!r}; choose one of {formats}")
        if self.spacing not in get_args(Spacing):
            raise BrainSegNetError(f"unknown spacing {self.spacing!r}; choose one of {', '.join(get_args(Spacing))}")
        if self.max_memory_gb is not None and not self.max_memory_gb > 0:
            raise BrainSegNetError(f"the memory for the network must be above 0 GB, not {self.max_memory_gb}")

    def to_json(self) -> dict[str, Any]:
        """The options that can change the result and its files, for its JSON; those of a picture only if one is drawn.

        Examples:
            >>> SegmentOptions(threads=2, tta=True).to_json()["tta"], "threads" in SegmentOptions().to_json()
            (True, False)
        """
        changing = {name: value for name, value in vars(self).items() if name not in _LIMITS | _OF_PICTURE}
        drawn = {"picture_format": self.picture_format, **vars(self.drawing)} if self.picture else {}
        return {**changing, "brain_mask": None if self.brain_mask is None else self.brain_mask.name, **drawn}

    @property
    def alignment(self) -> Literal["register", "resample", "refuse"]:
        """What is done with sequences that do not lie on each other, see `preprocessing.alignment.align`."""
        if self.resample:
            return "resample"
        return "register" if self.register else "refuse"

    @property
    def max_bytes(self) -> int | None:
        """`max_memory_gb` in bytes (1 GB is 10^9 bytes); None means the free memory."""
        return None if self.max_memory_gb is None else int(1e9 * self.max_memory_gb)
