"""Where the weights of a model come from: its cases, those that were simulated, the model before it, and the training.

What a model folder says of itself: all that is needed to run the model, and where it comes from.
"""

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, field_validator, model_validator

from brainsegnet.task import Normalisation, Task

UNSTATED_LICENCE = "not stated; the licence of the training data applies"


class Value(BaseModel):
    """A part of a card: it does not change, and has no entry that we do not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def fold_names(names: Sequence[str]) -> list[str]:
    """Names that count on become one entry, as in lists of hosts: a card holds thousands of simulated cases.

    >>> fold_names(["pat07", "phantom8", "phantom9", "phantom10", "x"])
    ['pat07', 'phantom[8-10]', 'x']
    """
    folded: list[tuple[str, str, str]] = []
    for name in names:
        number = _NUMBER.search(name)[0]  # type: ignore[index]
        stem = name[: len(name) - len(number)]
        if folded and number and folded[-1][0] == stem and number == str(int(folded[-1][2] or -2) + 1):
            folded[-1] = (stem, folded[-1][1], number)
        else:
            folded.append((stem, number, number))
    return [stem + (first if first == last else f"[{first}-{last}]") for stem, first, last in folded]


def unfold_names(entries: Iterable[str]) -> tuple[str, ...]:
    """The names that `fold_names` was given.

    >>> unfold_names(["pat07", "phantom[8-10]"])
    ('pat07', 'phantom8', 'phantom9', 'phantom10')
    """
    names: list[str] = []
    for entry in entries:
        found = _FOLDED.fullmatch(entry)
        numbers = range(int(found[2]), int(found[3]) + 1) if found else range(0)
        if len(numbers) > MOST_NAMES:
            raise ValueError(f"{entry} stands for more than {MOST_NAMES} names")
        names += [f"{found[1]}{n}" for n in numbers] if found else [entry]
    return tuple(names)


def _unfold(entries: object) -> object:
    """What pydantic is to validate: names are unfolded, and what is none is left for it to refuse."""
    is_names = isinstance(entries, (list, tuple)) and all(isinstance(entry, str) for entry in entries)
    return unfold_names(cast("Iterable[str]", entries)) if is_names else entries


MOST_NAMES = 1_000_000
"""A range of names on a card is no longer."""
_NUMBER, _FOLDED = re.compile(r"(?:0|[1-9][0-9]*)?\Z"), re.compile(r"(.*)\[([0-9]+)-([0-9]+)\]")
Names = Annotated[tuple[str, ...], BeforeValidator(_unfold), PlainSerializer(fold_names, list[str], when_used="json")]
"""Names of cases."""


class Data(Value):
    """The cases a model was trained on, their number, and where they come from under which terms."""

    cases: Names = ()
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
    seen: Names = ()


class Simulated(Value):
    """The cases that were simulated into the memory of a training.

    Attributes:
        generator: What made them: `realistic` for `grow --realistic`, else the value of `grow --stroke`; with --seed,
            --anatomy, --shapes and --shape as below.
        anatomy: Name of the anatomy, or of the folder of label maps; empty for strokes in heads of their own.
        shapes: Name of the folder of lesion shapes of strokes; empty where all were simulated.
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
    size: int = Field(ge=1)
    every: int = Field(ge=1)
    seen: int = Field(default=0, ge=0)

    @property
    def kind(self) -> str:
        """What they are, in the plural."""
        return "gliomas" if self.generator == "realistic" else "strokes"

    @property
    def origin(self) -> str:
        """What they were simulated from."""
        shapes = f", shapes {self.shapes}" if self.shapes else ""
        return f"anatomy {self.anatomy or 'procedural'}{shapes}, seeds from {self.seed}"


class Comparison(Value):
    """What models made in another way, or of fewer real cases, reach on the unseen cases that a model is scored on.

    Attributes:
        origin: What they learnt from, such as "simulated alone", "real alone" or "simulated, then real".
        real_cases: Number of real cases in each training; None is all but those that it is scored on.
        budget: Minutes or steps of the training on real cases; nothing where there was none.
        subsets: Mean whole-scan Dice by region, for parts of the sequences, as in `TrainingNote`; no component is
            dropped, so they stand beside `ComponentFilter.kept`.
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
        simulated: Cases simulated beside those; None where there were none.
        held_out: Names of the cases that it was validated on and did not see.
        held_out_sources: Where those come from, where it is not where the training cases do.
        interpolated: Share of the weights it started from in the mean that it is; 0 where it is none.
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
    simulated: Simulated | None = None
    held_out: Names = ()
    held_out_sources: str = ""
    interpolated: float = 0.0
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


FORMAT = 1
"""Version of the card; a card of a later version is refused, because it may mean something else."""
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
        alpha: The interval runs from the volume more probable than 1 - alpha to that more probable than alpha.
        coverage: Share of the cases in which it held the true volume, each left out of the choice; None if unknown.
        cases: Number of those cases.
    """

    alpha: float = Field(default=0.1, gt=0, lt=0.5)
    coverage: float | None = None
    cases: int = 0


class ComponentFilter(Value):
    """Which connected components of what is found are dropped, see `components`, and what keeping all would reach.

    Attributes:
        confidence_margin: How much less sure than the surest an component is that is dropped; None drops none. A
            training that keeps a share of a model's weights keeps its margin.
        kept: Mean Dice on the unseen cases if none is dropped, by part of the sequences and region, as
            `TrainingNote.subsets` with components dropped; nothing where it was not measured.
    """

    confidence_margin: float | None = Field(default=None, gt=0, lt=1)
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
    cases: Names = ()
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


BLOCKS = 8
"""Blocks along each axis of the average brain in a profile."""


class Profile(Value):
    """What the training cases look like; for the model's card.

    Attributes:
        cases: How many were measured.
        single: Sequence to the means of its `FEATURES`.
        covariance: Of the features of a sequence, about the mean of that sequence.
        pairs: Two sequences, `flair t1`, in the order of the alphabet, to the means of their `PAIR_FEATURES`.
        pair_spread: Standard deviation of these.
        volume_ml: Median of the brains.
        shape: A row of blocks in each string, front to back and within that right to left, from the feet upwards:
            tenths that the brain fills on average, 9 for full.
        filled: Largest share of its box that a mask fills; None in older cards.
        rim: The most by which the rim outshines a dark ring beneath it, in any sequence; 0 where none does.
    """

    cases: int = Field(gt=0)
    single: Mapping[str, tuple[float, ...]]
    covariance: tuple[tuple[float, ...], ...]
    pairs: Mapping[str, tuple[float, ...]]
    pair_spread: tuple[float, ...]
    volume_ml: float = Field(gt=0)
    shape: tuple[str, ...] = Field(min_length=BLOCKS, max_length=BLOCKS)
    filled: float | None = None
    rim: float = 0.0


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
        components: Which parts of what is found are dropped.
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
    components: ComponentFilter = ComponentFilter()
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
