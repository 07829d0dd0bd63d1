"""What a model folder says of itself: all that is needed to run the model, and where it comes from."""

import datetime
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from brainsegnet.task import Normalisation, Task

FORMAT = 1
"""Version of the card; a card of a later version is refused, because it may mean something else."""
VERSIONED = ("brainsegnet", "torch", "lightning", "safetensors", "numpy", "SimpleITK")
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


class TrainingNote(_Value):
    """How the weights came about.

    Attributes:
        recipe: All values of the recipe.
        budget: What it was given: one of epochs, steps and minutes.
        seed: Of the whole training.
        data: Training cases.
        held_out: Names of the cases that it was validated on and did not see.
        scores: Mean whole-scan Dice on those, by region; null where there is no figure.
    """

    recipe: Mapping[str, Any] = Field(default_factory=dict)
    budget: Mapping[str, Any] = Field(default_factory=dict)
    seed: int = 0
    data: Data = Data()
    held_out: tuple[str, ...] = ()
    scores: Mapping[str, float | None] = Field(default_factory=dict)


class WeightsNote(_Value):
    """The file of the weights, known to the byte."""

    file: Literal["weights.safetensors"] = "weights.safetensors"
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)


class Card(_Value):
    """All about a model, and all that is needed to run it; `weights` is filled in by `save_model`.

    Attributes:
        format: Version of the card.
        name: What the model is called in messages and results.
        created: Date.
        intended_use, licence: Of the weights.
        task: Labels and regions, whole, so that a model outlives a change of the task.
        input, network, training, weights: See there.
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


def find_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a training makes, where they are installed."""
    found = {"python": platform.python_version()}
    for package in VERSIONED:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
