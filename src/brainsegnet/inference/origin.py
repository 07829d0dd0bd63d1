"""Where the weights of a model come from: its cases, those that were grown, the model before it, and the training."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

UNSTATED_LICENCE = "not stated; the licence of the training data applies"


class Value(BaseModel):
    """A part of a card: it does not change, and has no entry that we do not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(Value):
    """The cases a model was trained on, their number, and where they come from under which terms."""

    cases: tuple[str, ...] = ()
    count: int = Field(default=0, ge=0)
    sources: str = "not stated"


class Parent(Value):
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


class Grown(Value):
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


class Comparison(Value):
    """What models made in another way, or of fewer real cases, reach on the unseen cases that a model is scored on.

    Attributes:
        origin: What they learnt from, such as "grown alone", "real alone" or "grown, then real".
        real_cases: Number of real cases in each training; None is all but those that it is scored on.
        budget: Minutes or steps of the training on real cases; nothing where there was none.
        subsets: Mean whole-scan Dice by region, for parts of the sequences, as in `TrainingNote`; no island is dropped,
            so they stand beside `IslandsNote.kept`.
    """

    origin: str = Field(min_length=1)
    real_cases: int | None = Field(default=None, ge=0)
    budget: Mapping[str, float] = Field(default_factory=dict)
    subsets: Mapping[str, Mapping[str, float]] = Field(min_length=1)


class TrainingNote(Value):
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
        trainings: Of how many trainings, alike but for their cases and seeds, it is the mean, see `api.averaging`.
        folds: Where it is above 0, the model was trained on all cases, and each score is that of one of so many others,
            trained alike but without the cases that it is scored on.
        scores: Mean whole-scan Dice on those, by region; null where there is no figure.
        subsets: The same for parts of the sequences, whose names are joined by a plus, in the order of the channels.
        comparisons: What other ways to make a model reach on the same cases.
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
    trainings: int = Field(default=1, ge=1)
    folds: int = 0
    scores: Mapping[str, float | None] = Field(default_factory=dict)
    subsets: Mapping[str, Mapping[str, float]] = Field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()

    @field_validator("started_from", mode="before")
    @classmethod
    def _read_older(cls, value: object) -> object:
        """Cards used to give a path, or an empty text."""
        return ({"name": value} if value else None) if isinstance(value, str) else value
