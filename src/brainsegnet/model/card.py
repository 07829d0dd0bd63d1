"""The card of a model, `card.json`: all that is needed to run it, where its weights come from, and its scores."""

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, model_validator

from brainsegnet.task import Normalisation, Task

FORMAT = 1
"""Version of the card; a later one is refused, because its entries may mean something else."""
INTENDED_USE = "research software, not a medical device"
UNSTATED_LICENCE = "not stated; the licence of the training data applies"
TOLERATED = 0.005
"""Loss of whole-scan Dice, in any region, up to which 8 bits or bf16 are used by default."""
BLOCKS = 8
"""Blocks along each axis of the average brain in a profile."""
MAX_NAMES = 1_000_000
"""Names that one range on a card may stand for."""
Channels = Annotated[int, Field(ge=1, le=8192)]
Step = Annotated[int, Field(ge=1, le=8)]
"""Bounds of a network, because a card may be made to fill memory; the paper's has 256 channels at most."""
Form = Literal["fp16", "int8", "onnx"]
"""OpenVINO's format with floats in 16 bits or with 8-bit integers, or ONNX."""
Dice = Mapping[str, float]
"""Region to mean whole-scan Dice."""

_NUMBER, _FOLDED = re.compile(r"(?:0|[1-9][0-9]*)?\Z"), re.compile(r"(.*)\[([0-9]+)-([0-9]+)\]")


def fold_names(names: Sequence[str]) -> list[str]:
    """Names of cases, consecutive numbers as one range, because a card may hold thousands of simulated cases.

    >>> fold_names(["pat07", "phantom8", "phantom9", "phantom10", "x"])
    ['pat07', 'phantom[8-10]', 'x']
    """
    folded: list[list[str]] = []
    for name in names:
        number = _NUMBER.search(name)[0]  # type: ignore[index]
        stem = name.removesuffix(number)
        if folded and number and folded[-1][0] == stem and number == str(int(folded[-1][2] or -2) + 1):
            folded[-1][2] = number
        else:
            folded.append([stem, number, number])
    return [stem + (first if first == last else f"[{first}-{last}]") for stem, first, last in folded]


def unfold_names(entries: Iterable[str]) -> tuple[str, ...]:
    """The names that `fold_names` was given.

    >>> unfold_names(["pat07", "phantom[8-10]"])
    ('pat07', 'phantom8', 'phantom9', 'phantom10')
    """
    names: list[str] = []
    for entry in entries:
        match = _FOLDED.fullmatch(entry)
        numbers = range(int(match[2]), int(match[3]) + 1) if match else range(0)
        if len(numbers) > MAX_NAMES:
            raise ValueError(f"{entry} stands for more than {MAX_NAMES} names")
        names += [f"{match[1]}{n}" for n in numbers] if match else [entry]
    return tuple(names)


CaseNames = Annotated[
    tuple[str, ...], AfterValidator(unfold_names), PlainSerializer(fold_names, list[str], when_used="json")
]
"""Names of cases, folded in JSON."""


class CardPart(BaseModel):
    """A part of a card; it is immutable and refuses unknown entries."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(CardPart):
    """The cases that a model was trained on, their number, and their sources and terms of use."""

    cases: CaseNames = ()
    count: int = Field(default=0, ge=0)
    sources: str = "not stated"


class Parent(CardPart):
    """The model whose weights a training started from.

    `ancestors` are the models that it was trained from itself, the nearest first; `seen` are all cases that it or one
    of them was trained on. `sha256`, of its weights, is empty if it is not known.
    """

    name: str = Field(min_length=1)
    sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    licence: str = UNSTATED_LICENCE
    data: Data = Data()
    ancestors: tuple[str, ...] = ()
    seen: CaseNames = ()


class Simulated(CardPart):
    """The cases that were simulated during a training, and the arguments of `simulate` that make them again.

    Attributes:
        generator: "realistic" for gliomas, else the data set that the strokes imitate.
        anatomy, shapes: Folders or names; empty for procedural heads and simulated lesion shapes.
        shape: Voxels (D, H, W) of a procedural head; None is 1 mm.
        seed: Of the first case; each further one has the next.
        size, refresh_every, seen: Cases in memory at a time, steps after which one was replaced, and cases in all.
    """

    generator: Literal["realistic", "isles2022", "isles2017"] = "realistic"
    anatomy: str
    shapes: str = ""
    shape: tuple[int, int, int] | None = None
    seed: int = Field(ge=0)
    size: int = Field(ge=1)
    refresh_every: int = Field(ge=1)
    seen: int = Field(default=0, ge=0)

    @property
    def kind(self) -> str:
        """What they are, in the plural."""
        return "gliomas" if self.generator == "realistic" else "strokes"

    @property
    def origin(self) -> str:
        """What they were simulated from, in words."""
        shapes = f", shapes {self.shapes}" if self.shapes else ""
        return f"anatomy {self.anatomy or 'procedural'}{shapes}, seeds from {self.seed}"


class Comparison(CardPart):
    """Scores of models trained in another way, on the unseen cases that this model is scored on.

    Attributes:
        origin: What they were trained on, such as "simulated alone" or "simulated, then real".
        real_cases, budget: Of the training on real cases; None is all cases but those that it is scored on.
        subsets: As `ComponentFilter.kept`, with which they are to be compared.
    """

    origin: str = Field(min_length=1)
    real_cases: int | None = Field(default=None, ge=0)
    budget: Mapping[str, float] = Field(default_factory=dict)
    subsets: Mapping[str, Dice] = Field(min_length=1)


class TrainingNote(CardPart):
    """How the weights were made, and their scores on unseen cases.

    Attributes:
        recipe, budget: All values of the recipe; and one of epochs, steps and minutes.
        started_from: None for random weights.
        held_out, held_out_sources: The cases it was validated on, and their sources if they differ from `data`.
        interpolated, trainings: Share of the starting weights in the final ones; and number of trainings on other cases
            and seeds whose weights were averaged.
        folds: Number of models trained alike, each scored on its unseen cases, if this one was trained on all cases.
        scores: Mean whole-scan Dice on the held-out cases, by region; None where it is undefined.
        subsets: The same for subsets of the sequences, whose names are joined by a plus in the order of the channels.
    """

    recipe: Mapping[str, Any] = Field(default_factory=dict)
    budget: Mapping[str, int | float | None] = Field(default_factory=dict)
    seed: int = 0
    started_from: Parent | None = None
    data: Data = Data()
    simulated: Simulated | None = None
    held_out: CaseNames = ()
    held_out_sources: str = ""
    interpolated: float = 0.0
    trainings: int = Field(default=1, ge=1)
    folds: int = 0
    scores: Mapping[str, float | None] = Field(default_factory=dict)
    subsets: Mapping[str, Dice] = Field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()


class Input(CardPart):
    """The channels of the network, in order; with `any_subset`, some sequences may be absent."""

    sequences: tuple[str, ...] = Field(min_length=1)
    normalisation: Normalisation = "median-sd"
    any_subset: bool = False


class Architecture(CardPart):
    """The arguments of `BrainSegNet` that do not follow from input and task."""

    widths: tuple[Channels, ...] = Field(min_length=2, max_length=12)
    refined: Channels
    nonlinear: bool = True
    stride: tuple[Step, Step, Step] = (1, 2, 2)


class IntervalNote(CardPart):
    """How the interval of a region's volume is found, see `inference.postprocessing`.

    `coverage` is the share of `cases` unseen cases whose interval held the true volume, each left out of the choice of
    alpha; None if not measured.
    """

    alpha: float = Field(default=0.1, gt=0, lt=0.5)
    coverage: float | None = None
    cases: int = 0


class ComponentFilter(CardPart):
    """Which connected components are dropped, see `inference.postprocessing`, and the scores if all are kept.

    The confidence of a component may be lower than the highest one by `confidence_margin`; None drops none. `kept` is
    `TrainingNote.subsets` with all components; empty if not measured.
    """

    confidence_margin: float | None = Field(default=None, gt=0, lt=1)
    kept: Mapping[str, Dice] = Field(default_factory=dict)


class WeightsNote(CardPart):
    """The file of the weights, its hash and its size."""

    file: Literal["weights.safetensors"] = "weights.safetensors"
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)


class ExportNote(CardPart):
    """An export of the weights, which runs without torch.

    Attributes:
        files, weights: SHA-256 of each file in the folder `export`, and of the weights they were made from.
        cases: Training cases from which the 8-bit ranges were taken; Dice was compared on the first twelve.
        dice_change: Mean whole-scan Dice on these minus that of fp16 in 32-bit floats, by region.
        bf16_change: The same for fp16 computed in bf16; empty if the processor that exported has no units for it.
    """

    files: Mapping[str, str] = Field(min_length=1)
    weights: str = Field(pattern="^[0-9a-f]{64}$")
    cases: CaseNames = ()
    dice_change: Dice = Field(default_factory=dict)
    bf16_change: Dice = Field(default_factory=dict)


class Profile(CardPart):
    """Image features of the training cases, with which a scan is compared; see `inference.ood`.

    Attributes:
        single, covariance: Sequence to the means of its `FEATURES`; and their covariance within a sequence.
        pairs, pair_spread: Two sequences in alphabetical order, as "flair t1", to the means of their `PAIR_FEATURES`;
            and the standard deviation of these.
        volume_ml, filled: Median volume of the brains, and largest share of its box that a mask fills.
        shape: Mean share of each block that the brain fills, in tenths, 9 for full. Each string is a slice of blocks,
            from the feet upwards; within it, rows from front to back and columns from right to left.
        rim: Largest contrast of the outermost layer over a dark ring beneath it, in any sequence; 0 if there is none.
    """

    cases: int = Field(gt=0)
    single: Mapping[str, tuple[float, ...]]
    covariance: tuple[tuple[float, ...], ...]
    pairs: Mapping[str, tuple[float, ...]]
    pair_spread: tuple[float, ...]
    volume_ml: float = Field(gt=0)
    shape: tuple[str, ...] = Field(min_length=BLOCKS, max_length=BLOCKS)
    filled: float
    rim: float


class Card(CardPart):
    """All about a model; `save_model` fills in `weights`, `save_exports` fills in `exports`.

    Attributes:
        task: In full, so that a model does not depend on later changes of the task.
        versions: Of the software that trained it, see `find_versions`.
        threshold: Lesion probability as trained above which a voxel is lesion; the weights contain the shift to it.
        profile: None where it was not measured; then no scan is checked.
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
    def _check_sequences(self) -> Self:
        names = self.input.sequences
        if len(set(names)) != len(names):
            raise ValueError(f"a sequence is named twice in {names}")
        return self

    @property
    def sequences(self) -> tuple[str, ...]:
        """Name of each channel."""
        return self.input.sequences

    def as_parent(self) -> Parent:
        """What the card of a model says that is trained from this one."""
        before = self.training.started_from
        return Parent(
            name=self.name,
            sha256=self.weights.sha256 if self.weights else "",
            licence=self.licence,
            data=self.training.data,
            ancestors=(before.name, *before.ancestors) if before else (),
            seen=tuple(sorted({*self.training.data.cases, *(before.seen if before else ())})),
        )


def is_tolerated(change: Dice) -> bool:
    """Whether changes of Dice by region were measured, and none is a loss of more than `TOLERATED`."""
    return bool(change) and min(change.values()) >= -TOLERATED
