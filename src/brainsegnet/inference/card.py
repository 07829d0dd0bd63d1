"""What a model folder says of itself: all that is needed to run the model, and where it comes from."""

import datetime
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from brainsegnet.inference.familiarity import Profile
from brainsegnet.task import Normalisation, Task

FORMAT = 1
"""Version of the card; a card of a later version is refused, because it may mean something else."""
VERSIONED = ("brainsegnet", "torch", "lightning", "safetensors", "openvino", "nncf", "numpy", "SimpleITK")
UNSTATED_LICENCE = "not stated; the licence of the training data applies"
INTENDED_USE = "research software, not a medical device"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Input(_Value):
    """What the network is given.

    Attributes:
        sequences: Name of each channel.
        normalisation: How intensities are normalised.
        any_subset: Whether sequences may be absent, because the training dropped some at random.
    """

    sequences: tuple[str, ...] = Field(min_length=1)
    normalisation: Normalisation = "median-sd"
    any_subset: bool = False


class Architecture(_Value):
    """The arguments of `BrainSegNet` that do not follow from input and task."""

    widths: tuple[int, ...] = Field(min_length=2)
    refined: int = Field(gt=0)
    nonlinear: bool = True
    stride: tuple[int, int, int] = (1, 2, 2)


class Data(_Value):
    """The cases a model was trained on, their number, and where they come from under which terms."""

    cases: tuple[str, ...] = ()
    count: int = Field(default=0, ge=0)
    sources: str = "not stated"


class Parent(_Value):
    """The model whose weights a training started from.

    Attributes:
        name, licence, data: From its card.
        sha256: Of its weights; nothing in older cards, which give a name alone.
        ancestors: Names of the models that it goes back to itself, the nearest first.
        seen: Every case that it or one of them was trained on.
    """

    name: str = Field(min_length=1)
    sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    licence: str = UNSTATED_LICENCE
    data: Data = Data()
    ancestors: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()

    @classmethod
    def of(cls, card: "Card") -> Self:
        """What the child's card says of a model."""
        note, weights = card.training, card.weights
        before = note.started_from
        return cls(
            name=card.name,
            sha256=weights.sha256 if weights else "",
            licence=card.licence,
            data=note.data,
            ancestors=(before.name, *before.ancestors) if before else (),
            seen=tuple(sorted({*note.data.cases, *(before.seen if before else ())})),
        )


class Grown(_Value):
    """The cases that were grown into the memory of a training.

    Attributes:
        generator: What made them: `realistic` for `grow --realistic`, else the value of `grow --stroke`; with --seed,
            --anatomy, --shapes and --shape as below.
        anatomy: Name of the anatomy, or of the folder of label maps; empty for strokes in heads of their own.
        shapes: Name of the folder of lesion shapes of strokes; empty where all were grown.
        shape: Voxels (D, H, W) of a procedural head; None is 1 mm.
        seed: Of the first case; each further one has the next.
        slots: Cases in memory at a time.
        every: Steps after which one was replaced by a new one.
        seen: Cases that were in memory in all.
    """

    generator: Literal["realistic", "isles2022", "isles2017"] = "realistic"
    anatomy: str
    shapes: str = ""
    shape: tuple[int, int, int] | None = None
    seed: int = Field(ge=0)
    slots: int = Field(ge=1)
    every: int = Field(ge=1)
    seen: int = Field(default=0, ge=0)

    @property
    def kind(self) -> str:
        """What they are, in the plural."""
        return "gliomas" if self.generator == "realistic" else "strokes"

    @property
    def origin(self) -> str:
        """What they were grown from."""
        shapes = f", shapes {self.shapes}" if self.shapes else ""
        return f"anatomy {self.anatomy or 'procedural'}{shapes}, seeds from {self.seed}"


class TrainingNote(_Value):
    """How the weights came about.

    Attributes:
        recipe: All values of the recipe.
        budget: What it was given: one of epochs, steps and minutes.
        seed: Of the whole training.
        started_from: The model whose weights it started from; None if it started anew.
        data: Training cases.
        grown: Cases grown beside those; None where there were none.
        held_out: Names of the cases that it was validated on and did not see.
        held_out_sources: Where those come from, where it is not where the training cases do.
        blended: Share of the weights it started from in the mean that it is; 0 where it is none.
        folds: Where it is above 0, the model was trained on all cases, and each score is that of one of so many others,
            trained alike but without the cases that it is scored on.
        scores: Mean whole-scan Dice on those, by region; null where there is no figure.
        subsets: The same for parts of the sequences, whose names are joined by a plus, in the order of the channels.
    """

    recipe: Mapping[str, Any] = Field(default_factory=dict)
    budget: Mapping[str, Any] = Field(default_factory=dict)
    seed: int = 0
    started_from: Parent | None = None
    data: Data = Data()
    grown: Grown | None = None
    held_out: tuple[str, ...] = ()
    held_out_sources: str = ""
    blended: float = 0.0
    folds: int = 0
    scores: Mapping[str, float | None] = Field(default_factory=dict)
    subsets: Mapping[str, Mapping[str, float]] = Field(default_factory=dict)

    @field_validator("started_from", mode="before")
    @classmethod
    def _read_older(cls, value: object) -> object:
        """Cards used to give a path, or an empty text."""
        return ({"name": value} if value else None) if isinstance(value, str) else value


class IntervalNote(_Value):
    """Which probabilities bound the volume of a region, and how often the truth lay within on unseen cases.

    Attributes:
        tail: The interval runs from the volume more probable than 1 - tail to that more probable than tail.
        coverage: Share of the cases in which it held the true volume; None if not measured.
        cases: Number of those cases.
    """

    tail: float = Field(default=0.1, gt=0, lt=0.5)
    coverage: float | None = None
    cases: int = 0


class WeightsNote(_Value):
    """The file of the weights, known to the byte."""

    file: Literal["weights.safetensors"] = "weights.safetensors"
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)


Form = Literal["fp16", "int8", "onnx"]
"""OpenVINO's format with floats in 16 bits or with 8-bit integers, or ONNX."""
TOLERATED = 0.005
"""Loss of whole-scan Dice, in any region, up to which 8 bits or bf16 are used without being asked for."""


class ExportNote(_Value):
    """The weights in a form that runs without torch.

    Attributes:
        files: SHA-256 of each file in the folder `export`.
        weights: SHA-256 of the weights it was made from.
        cases: Names of the training cases on which the 8-bit ranges were found and Dice was compared.
        dice_change: Whole-scan Dice on those minus that of fp16 in 32-bit floats, by region; a mean over the cases.
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


class Card(_Value):
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
