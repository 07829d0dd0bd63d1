"""What a model folder says of itself: all that is needed to run the model, and where it comes from."""

import datetime
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Literal, Self

from pydantic import Field, model_validator

from brainsegnet.inference.familiarity import Profile
from brainsegnet.inference.origin import UNSTATED_LICENCE, Parent, TrainingNote, Value
from brainsegnet.task import Normalisation, Task

FORMAT = 1
"""Version of the card; a card of a later version is refused, because it may mean something else."""
VERSIONED = ("brainsegnet", "torch", "lightning", "safetensors", "openvino", "nncf", "numpy", "SimpleITK")
INTENDED_USE = "research software, not a medical device"


class Input(Value):
    """What the network is given.

    Attributes:
        sequences: Name of each channel.
        normalisation: How intensities are normalised.
        any_subset: Whether sequences may be absent, because the training dropped some at random.
    """

    sequences: tuple[str, ...] = Field(min_length=1)
    normalisation: Normalisation = "median-sd"
    any_subset: bool = False


class Architecture(Value):
    """The arguments of `BrainSegNet` that do not follow from input and task."""

    widths: tuple[int, ...] = Field(min_length=2)
    refined: int = Field(gt=0)
    nonlinear: bool = True
    stride: tuple[int, int, int] = (1, 2, 2)


class IntervalNote(Value):
    """Which probabilities bound the volume of a region, and how often the truth lay within on unseen cases.

    Attributes:
        tail: The interval runs from the volume more probable than 1 - tail to that more probable than tail.
        coverage: Share of the cases in which it held the true volume, each left out of the choice; None if unknown.
        cases: Number of those cases.
    """

    tail: float = Field(default=0.1, gt=0, lt=0.5)
    coverage: float | None = None
    cases: int = 0


class IslandsNote(Value):
    """Which connected components of what is found are dropped, see `islands`, and what keeping all would reach.

    Attributes:
        margin: How much less sure than the surest an island is that is dropped; None drops none. A training that keeps
            a share of a model's weights keeps its margin.
        kept: Mean Dice on the unseen cases if none is dropped, by part of the sequences and region, as
            `TrainingNote.subsets` with islands dropped; nothing where it was not measured.
    """

    margin: float | None = Field(default=None, gt=0, lt=1)
    kept: Mapping[str, Mapping[str, float]] = Field(default_factory=dict)


class WeightsNote(Value):
    """The file of the weights, known to the byte."""

    file: Literal["weights.safetensors"] = "weights.safetensors"
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)


Form = Literal["fp16", "int8", "onnx"]
"""OpenVINO's format with floats in 16 bits or with 8-bit integers, or ONNX."""
TOLERATED = 0.005
"""Loss of whole-scan Dice, in any region, up to which 8 bits or bf16 are used without being asked for."""


class ExportNote(Value):
    """The weights in a form that runs without torch.

    Attributes:
        files: SHA-256 of each file in the folder `export`.
        weights: SHA-256 of the weights it was made from.
        cases: Names of the training cases on which the 8-bit ranges were found; Dice was compared on the first twelve.
        dice_change: Whole-scan Dice on these minus that of fp16 in 32-bit floats, by region; a mean over the cases.
        bf16_change: The same for fp16 computed in bf16; nothing where the processor that exported has no units for it.
    """

    files: Mapping[str, str] = Field(min_length=1)
    weights: str = Field(pattern="^[0-9a-f]{64}$")
    cases: tuple[str, ...] = ()
    dice_change: Mapping[str, float] = Field(default_factory=dict)
    bf16_change: Mapping[str, float] = Field(default_factory=dict)

    @property
    def harmless(self) -> bool:
        """Whether it was compared, and no region lost more Dice than is tolerated."""
        return is_tolerated(self.dice_change)

    @property
    def harmless_in_bf16(self) -> bool:
        """As `harmless`, of the same file computed in bf16."""
        return is_tolerated(self.bf16_change)


class Card(Value):
    """All about a model, and all that is needed to run it; `weights` is filled in by `save_model`.

    Attributes:
        format: Version of the card.
        name: What the model is called in messages and results.
        created: Date.
        intended_use, licence: Of the weights.
        task: Labels and regions, whole, so that a model outlives a change of the task.
        input, network, training, weights: See there.
        exports: The same weights in other forms.
        intervals: Of the volume of each region.
        islands: Which parts of what is found are dropped.
        threshold: Lesion probability, as trained, from which on a voxel is called lesion. The weights hold it, so that
            the arg-max decides there: see `api.leaning`.
        profile: What the training cases look like; None where nobody measured it, and then no scan is doubted.
        versions: Of the software that trained it, see `find_versions`.
    """

    format: Literal[1] = 1
    name: str = Field(min_length=1)
    created: datetime.date = Field(default_factory=datetime.date.today)
    intended_use: str = INTENDED_USE
    licence: str = UNSTATED_LICENCE
    task: Task
    input: Input
    network: Architecture
    training: TrainingNote = TrainingNote()
    versions: Mapping[str, str] = Field(default_factory=dict)
    weights: WeightsNote | None = None
    exports: Mapping[Form, ExportNote] = Field(default_factory=dict)
    intervals: Mapping[str, IntervalNote] = Field(default_factory=dict)
    islands: IslandsNote = IslandsNote()
    threshold: float = Field(default=0.5, gt=0, lt=1)
    profile: Profile | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = self.input.sequences
        if len(set(names)) != len(names):
            raise ValueError(f"a sequence is named twice in {names}")
        return self

    @property
    def sequences(self) -> tuple[str, ...]:
        """Name of each channel."""
        return self.input.sequences

    def as_parent(self) -> Parent:
        """What the card of a model says that starts from this one."""
        before = self.training.started_from
        return Parent(
            name=self.name,
            sha256=self.weights.sha256 if self.weights else "",
            licence=self.licence,
            data=self.training.data,
            ancestors=(before.name, *before.ancestors) if before else (),
            seen=tuple(sorted({*self.training.data.cases, *(before.seen if before else ())})),
        )


def is_tolerated(change: Mapping[str, float]) -> bool:
    """Whether changes of Dice by region were measured, and none is a loss of more than `TOLERATED`."""
    return bool(change) and min(change.values()) >= -TOLERATED


def find_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a training makes, where they are installed."""
    found = {"python": platform.python_version()}
    for package in VERSIONED:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
