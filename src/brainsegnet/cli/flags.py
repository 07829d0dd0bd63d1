"""Flags that several arguments make up, flattened into the verbs' own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

Names = Annotated[tuple[str, ...], Parameter(negative_iterable=(), consume_multiple=True, show_default=False)]
Switch = Annotated[bool, Parameter(negative_bool=(), show_default=False)]
Shape = Annotated[tuple[int, int, int], Parameter(negative_iterable=(), show_default=False)]
Device = Literal["auto", "cpu", "cuda"]


@Parameter(name="*")
@dataclass(frozen=True)
class BudgetFlags:
    """How long to train, one of three; the stages of the curriculum keep their shares of it."""

    epochs: float | None = None
    "Budget in epochs; without a budget, the recipe's own."
    steps: int | None = None
    "Budget in steps."
    minutes: float | None = None
    "Budget in minutes."


@Parameter(name="*")
@dataclass(frozen=True)
class CaseFlags:
    """Which cases and sequences."""

    sequences: Names = ()
    "Sequences to use; by default those of the task that every case has."
    drop_sequences: float | None = None
    "Share of samples that lose sequences, so that one model serves any subset; by default the recipe's own."
    exclude: Names = ()
    "Cases not to use at all."
    resample: Switch = False
    "Bring label maps and sequences on other grids onto the first sequence's instead of refusing them."
    register: Switch = False
    "As --resample, and first lay sequences on other grids upon the first by a rigid motion; others stay as they are."


@Parameter(name="*")
@dataclass(frozen=True)
class HoldOutFlags:
    """Which cases are scored during training."""

    hold_out: Names = ()
    "Cases to score during training instead of training on them."
    validation: int | None = None
    "How many cases to hold out, drawn by the seed; by default one in eight."
    validations: int = 10
    "How often the cases held out are scored during training; 0 is never."


@Parameter(name="*")
@dataclass(frozen=True)
class SimulationFlags:
    """Which cases are simulated into memory while the training goes on, with nothing written."""

    simulated: int | None = None
    "Cases as grow --realistic or --stroke makes them, to keep in memory beside DATA, which may then be left out."
    refresh_every: int | None = None
    "Steps after which the oldest of them is replaced by a new one; by default 40."
    anatomy: str | None = None
    "As in grow: a folder of FreeSurfer label maps, icbm152 (from nilearn; the default with it), or procedural."
    shape: Shape | None = None
    "Voxels of a procedural head along slices, rows and columns, for gliomas; by default 1 mm."
    shapes: Path | None = None
    "For strokes: a folder of lesion masks in MNI space to take shapes from; all are simulated without."


@Parameter(name="*")
@dataclass(frozen=True)
class MachineFlags:
    """Where to compute."""

    devices: int = 1
    "Devices of each machine."
    nodes: int = 1
    "Machines; start one process a device with torchrun or srun."
    accelerator: Device = "auto"
    "auto takes a GPU where there is one."


@Parameter(name="*")
@dataclass(frozen=True)
class OriginFlags:
    """What the model comes from, and what its card says of it."""

    start: Annotated[Path | None, Parameter(name="--from")] = None
    "Trained model to start from: a folder, or the name of a shipped model; its network is kept."
    licence: Annotated[str, Parameter(show_default=False)] = "not stated; the terms of the training data apply"
    "Licence of the weights, for the card."
    sources: Annotated[str, Parameter(show_default=False)] = "not stated"
    "Where the cases come from and under which terms, for the card."


@Parameter(name="*")
@dataclass(frozen=True)
class SequenceFlags:
    """One case as named files."""

    flair: Path | None = None
    "FLAIR image of one case; name its files instead of CASES."
    t1: Path | None = None
    "T1 image."
    t1c: Path | None = None
    "T1 image after contrast agent."
    t2: Path | None = None
    "T2 image."
    dwi: Path | None = None
    "Diffusion-weighted image."
    adc: Path | None = None
    "Apparent diffusion coefficient map."
    rcbf: Path | None = None
    "Relative cerebral blood flow map."
    rcbv: Path | None = None
    "Relative cerebral blood volume map."
    mtt: Path | None = None
    "Mean transit time map."
    tmax: Path | None = None
    "Map of the time to the maximum of the residue function."
    ttp: Path | None = None
    "Time to peak map."


@Parameter(name="*")
@dataclass(frozen=True)
class SegmentFlags:
    """How to segment."""

    slabs: int | None = None
    "Slices per pass (the paper's 31); by default the whole brain in one."
    probabilities: Switch = False
    "Write a probability map per tissue too."
    device: Device = "auto"
    "auto takes a GPU where there is one."
    threads: int | None = None
    "Threads of the CPU; by default all cores."
    precision: Literal["auto", "float", "bf16", "int8"] = "auto"
    "Of the CPU; auto is int8, else bf16, where that is fast and costs no accuracy."
    max_memory_gb: float | None = None
    "Memory of a pass; the scan is cut so far as needed, with the same result. By default what is free."
    resample: Switch = False
    "Bring sequences on other grids onto the first one's instead of refusing them."
    register: Switch = False
    "As --resample, and first lay them upon the first one by a rigid motion; those on its grid stay as they are."
    uncertainty: Switch = False
    "Write an entropy map too, and intervals of the volumes into the JSON."
    picture: Switch = False
    "SampleSpec the result over the scan, as a PNG beside the label map."
    keep_all_components: Switch = False
    "Keep connected components of which the model is much less sure than of the surest; some models drop them."
    tta: Switch = False
    "Take the mean over the scan and its mirror images, in four passes instead of one."
