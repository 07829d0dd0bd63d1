"""The model card, `card.json`: everything needed to run a model, the origin of its weights, and its scores."""

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, model_validator

from brainsegnet.task import Normalisation, Task

FORMAT = 1
"""Version of the card. A later version is refused, because its fields may have other meanings."""
INTENDED_USE = "research software, not a medical device"
UNSTATED_LICENCE = "not stated; the licence of the training data applies"
TOLERATED = 0.005
"""Largest loss of whole-scan Dice, in any region, with which 8 bits or bf16 are used by default."""
BLOCKS = 8
"""Number of blocks along each axis of the average brain in a profile."""
MAX_NAMES = 1_000_000
"""Largest number of names that one range on a card may stand for."""
Channels = Annotated[int, Field(ge=1, le=8192)]
Step = Annotated[int, Field(ge=1, le=8)]
"""Bounds of a network, so that no card can fill the memory. The paper's network has at most 256 channels."""
Form = Literal["fp16", "int8", "onnx"]
"""Format of an export: OpenVINO with 16-bit floats or with 8-bit integers, or ONNX."""
Dice = Mapping[str, float]
"""Region to mean whole-scan Dice."""

_NUMBER, _FOLDED = re.compile(r"(?:0|[1-9][0-9]*)?\Z"), re.compile(r"(.*)\[([0-9]+)-([0-9]+)\]")


def fold_names(names: Sequence[str]) -> list[str]:
    """Shorten a list of case names: consecutive numbers become one range.

    A card may hold thousands of simulated cases.

    Examples:
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
    """The names that `fold_names` shortened.

    Examples:
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
"""Names of cases; in JSON, consecutive numbers are one range, as in `phantom[8-10]`."""


HASH_DIGITS = 16
"""Digits of the SHA-256 of an image file that a card holds."""
Hashes = Mapping[str, tuple[Annotated[str, Field(pattern=f"^[0-9a-f]{{{HASH_DIGITS}}}$")], ...]]
FEW_STEPS = 100
"""A model that was trained from random weights for fewer steps is hardly trained."""


class CardPart(BaseModel):
    """A part of a card. It is immutable and refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(CardPart):
    """The cases that a model was trained on.

    Attributes:
        cases: Names of the cases on disk.
        count: Number of these cases.
        sources: Where they come from, and under which terms.
        hashes: Case to the first digits of the SHA-256 of each of its image files; empty if not recorded.
    """

    cases: CaseNames = ()
    count: int = Field(default=0, ge=0)
    sources: str = "not stated"
    hashes: Hashes = Field(default_factory=dict)


class Parent(CardPart):
    """The model whose weights a training started from.

    Attributes:
        name: Name of that model.
        sha256: SHA-256 of its weights; empty if it is not known.
        licence: Licence of that model.
        data: Cases that it was trained on.
        ancestors: Names of the models that it was trained from itself, the nearest first.
        seen: All cases that it or one of its ancestors was trained on.
        hashes: The image files of these cases, as in `Data`.
    """

    name: str = Field(min_length=1)
    sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    licence: str = UNSTATED_LICENCE
    data: Data = Data()
    ancestors: tuple[str, ...] = ()
    seen: CaseNames = ()
    hashes: Hashes = Field(default_factory=dict)


class Simulated(CardPart):
    """The cases that were simulated during a training, and the arguments of `simulate` that make them again.

    Attributes:
        generator: `realistic` for gliomas, `white-matter` for white matter lesions, else the data set that the strokes
            imitate.
        anatomy: Folder or name of the anatomies; empty for procedural anatomies.
        shapes: Folder of lesion masks; empty for simulated lesion shapes.
        shape: Voxels (D, H, W) of a procedural anatomy; None is 1 mm.
        seed: Seed of the first case; each further case has the next seed.
        size: Number of simulated cases in memory at a time.
        refresh_every: Steps after which one of them was replaced.
        seen: Number of simulated cases in the whole training.
    """

    generator: Literal["realistic", "isles2022", "isles2017", "white-matter"] = "realistic"
    anatomy: str
    shapes: str = ""
    shape: tuple[int, int, int] | None = None
    seed: int = Field(ge=0)
    size: int = Field(ge=1)
    refresh_every: int = Field(ge=1)
    seen: int = Field(default=0, ge=0)

    @property
    def kind(self) -> str:
        """What the cases are, in the plural."""
        of = {"realistic": "gliomas", "white-matter": "white-matter cases"}
        return of.get(self.generator, "strokes")

    @property
    def origin(self) -> str:
        """What the cases were simulated from, in words."""
        shapes = f", shapes {self.shapes}" if self.shapes else ""
        return f"anatomy {self.anatomy or 'procedural'}{shapes}, seeds from {self.seed}"


class Comparison(CardPart):
    """Scores of models that were trained in another way, on the same unseen cases.

    Attributes:
        origin: What they were trained on, such as "simulated alone" or "simulated, then real".
        real_cases: Number of real training cases. None is all cases except those that are scored.
        budget: Length of the training on real cases: one of epochs, steps and minutes.
        subsets: Subset of sequences to Dice by region, with all components; compare it with `components.kept`.
    """

    origin: str = Field(min_length=1)
    real_cases: int | None = Field(default=None, ge=0)
    budget: Mapping[str, float] = Field(default_factory=dict)
    subsets: Mapping[str, Dice] = Field(min_length=1)


class TrainingNote(CardPart):
    """How the weights were made, and their scores on unseen cases.

    Attributes:
        recipe: All values of the recipe.
        budget: Length of the training: one of epochs, steps and minutes.
        steps: Number of training steps; None if not recorded.
        seed: Seed of the training.
        started_from: Model whose weights the training started from; None for random weights.
        data: Cases that it was trained on.
        simulated: Cases that were simulated during the training; None if there were none.
        held_out: Names of the cases that it was validated on.
        held_out_sources: Sources of these cases, if they differ from those of `data`.
        interpolated: Share of the starting weights in the final ones.
        trainings: Number of trainings, on other cases and with other seeds, whose weights were averaged.
        folds: Number of models trained alike, each scored on its unseen cases, if this model was trained on all cases.
        scores: Region to mean whole-scan Dice on the held-out cases; None if it is undefined.
        subsets: Subset of sequences, such as `flair+t1c`, to region to mean whole-scan Dice on the unseen cases.
        comparisons: Scores of models that were trained in another way.
    """

    recipe: Mapping[str, Any] = Field(default_factory=dict)
    budget: Mapping[str, int | float | None] = Field(default_factory=dict)
    steps: int | None = Field(default=None, ge=0)
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
    """The images that the network takes.

    Attributes:
        sequences: Sequences in the order of the channels.
        normalisation: How intensities are normalised.
        any_subset: Whether some of the sequences may be absent.
        spacing_mm: Size of the cubic voxels on which the model works, in millimetres. None is the voxels of each scan.
    """

    sequences: tuple[str, ...] = Field(min_length=1)
    normalisation: Normalisation = "median-sd"
    any_subset: bool = False
    spacing_mm: float | None = Field(default=None, ge=0.25, le=10)


class Architecture(CardPart):
    """The size of the network: the arguments of `BrainSegNet` that do not follow from input and task.

    Attributes:
        widths: Channels of the blocks.
        refined: Channels of the refinement module.
        nonlinear: Whether the coarser refine units have batch norm and ReLU.
        stride: Down-sampling along (D, H, W) between blocks.
    """

    widths: tuple[Channels, ...] = Field(min_length=2, max_length=12)
    refined: Channels
    nonlinear: bool = True
    stride: tuple[Step, Step, Step] = (1, 2, 2)


class SubsetInterval(CardPart):
    """How the interval for the volume of a region is computed where only some of the sequences are present.

    Attributes:
        alpha: As in the interval of all sequences, and chosen in the same way.
        coverage: As in the interval of all sequences, with these sequences only.
    """

    alpha: float = Field(gt=0, lt=0.5)
    coverage: float | None = None


class IntervalNote(CardPart):
    """How the interval for the volume of a region is computed, see `inference.uncertainty`.

    Attributes:
        alpha: The interval runs from the volume with a probability above 1 - alpha to that with one above alpha.
        coverage: Share of unseen cases whose interval held the true volume, each left out of the choice of alpha. None
            if it was not measured.
        cases: Number of these cases.
        subsets: Subset of sequences, such as `flair+t1c`, to its own alpha and coverage on the same cases. The set of
            all sequences is not in it. Empty if not measured; then every subset has the alpha of all sequences.
    """

    alpha: float = Field(default=0.1, gt=0, lt=0.5)
    coverage: float | None = None
    cases: int = 0
    subsets: Mapping[str, SubsetInterval] = Field(default_factory=dict)


LEAST_PROBABILITY = 0.01
"""Voxels with a probability above this are compared with the truth; nearly all of a brain has less."""
BINS = 10
"""Number of bins of probability, of equal width."""


class CalibrationBin(CardPart):
    """Voxels of similar predicted probability, of all cases together.

    Attributes:
        voxels: Number of voxels.
        probability: Their mean predicted probability; None if there are no voxels.
        share: Share of them that are in the region in truth; None if there are no voxels.
    """

    voxels: int = Field(ge=0)
    probability: float | None = None
    share: float | None = None


class CalibrationNote(CardPart):
    """How well the predicted probability of a region agrees with the truth on unseen cases, with all sequences.

    The expected calibration error is the mean difference between probability and share over the bins, weighted by the
    number of voxels (Guo et al. 2017, for the probability of one class as in Kull et al. 2019).

    Attributes:
        cases: Number of unseen cases.
        error: Expected calibration error of the voxels with a probability above 0.01, of all cases together. None if
            there are none.
        error_by_case: Mean over the cases of their own errors, of the same voxels. A case without such voxels has none.
        brain_error: Expected calibration error of all voxels of the brains, of all cases together.
        brain_error_by_case: Mean over the cases of their own errors, of all voxels of the brain.
        bins: The voxels with a probability above 0.01, in ten bins from 0 to 1, each with its upper limit.
        below: The other voxels of the brains.
    """

    cases: int = Field(gt=0)
    error: float | None = None
    error_by_case: float | None = None
    brain_error: float
    brain_error_by_case: float
    bins: tuple[CalibrationBin, ...] = Field(min_length=BINS, max_length=BINS)
    below: CalibrationBin

    @property
    def missed(self) -> float | None:
        """Share of the true voxels with a probability of at most 0.01; None if there are no true voxels."""
        below, *true = ((one.share or 0) * one.voxels for one in (self.below, *self.bins))
        return below / (below + sum(true)) if below + sum(true) else None


class ComponentFilter(CardPart):
    """Which connected components are dropped, see `inference.postprocessing`, and the scores if all are kept.

    Attributes:
        confidence_margin: A component is dropped if its confidence is lower than the highest one by more than this.
            None drops none.
        kept: As `training.subsets`, with all components kept; empty if it was not measured.
    """

    confidence_margin: float | None = Field(default=None, gt=0, lt=1)
    kept: Mapping[str, Dice] = Field(default_factory=dict)


PRESENCE_FEATURES = ("log_voxels", "log_share", "rank", "low_rank", "certainty")
"""Features of `PresenceRule`: logarithms to base 10 of the marked voxels, and of their share of the lesion; as logits,
the share of healthy brain that is darker than the median, and than the lower quartile, of the marked voxels, and the
mean probability of the tissue in them."""


class PresenceRule(CardPart):
    """How it is decided whether a scan has a tissue at all, see `inference.postprocessing`.

    Attributes:
        label: Label of the tissue.
        becomes: Label that its voxels get if there is none.
        sequence: Sequence that shows the tissue.
        intercept: Constant of the logistic regression.
        coefficients: Feature, one of `PRESENCE_FEATURES`, to its coefficient.
        threshold: Probability from which on the tissue is there.
        cases: Number of simulated cases that the rule was fitted to.
        without: Region to mean Dice without the decision, where `training.scores` are with it; else empty.
    """

    label: int = Field(ge=1, le=255)
    becomes: int = Field(ge=1, le=255)
    sequence: str
    intercept: float
    coefficients: Mapping[str, float]
    threshold: float = Field(default=0.5, gt=0, lt=1)
    cases: int = Field(ge=0)
    without: Dice = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_features(self) -> Self:
        if set(self.coefficients) != set(PRESENCE_FEATURES):
            raise ValueError(f"the coefficients are of {', '.join(PRESENCE_FEATURES)}, not {list(self.coefficients)}")
        return self


class WeightsNote(CardPart):
    """The file of the weights.

    Attributes:
        file: Name of the file.
        sha256: SHA-256 of the file.
        bytes: Size of the file in bytes.
    """

    file: Literal["weights.safetensors"] = "weights.safetensors"
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)


class ExportNote(CardPart):
    """An export of the weights, which runs without torch.

    Attributes:
        files: Name of each file in the folder `export` to its SHA-256.
        weights: SHA-256 of the weights that it was made from.
        cases: Training cases from which the 8-bit ranges were taken. Dice was compared on the first twelve.
        dice_change: Region to mean whole-scan Dice on these, minus that in 32-bit floats.
        bf16_change: The same for fp16 computed in bf16. Empty if the processor that exported has no units for it.
    """

    files: Mapping[str, str] = Field(min_length=1)
    weights: str = Field(pattern="^[0-9a-f]{64}$")
    cases: CaseNames = ()
    dice_change: Dice = Field(default_factory=dict)
    bf16_change: Dice = Field(default_factory=dict)


class Profile(CardPart):
    """Image features of the training cases, with which the out-of-distribution check compares a scan.

    Attributes:
        cases: Number of cases that were measured.
        single: Sequence to the means of its features, see `inference.ood`.
        covariance: Covariance of these features within a sequence.
        pairs: Two sequences in alphabetical order, such as "flair t1", to the means of the features of the pair.
        pair_spread: Standard deviations of the features of a pair.
        volume_ml: Median volume of the brains in ml.
        shape: Mean share of each block that the brain fills, in tenths, 9 for full. Each string is a slice of blocks,
            from the feet upwards. Within it, rows run from front to back and columns from right to left.
        filled: Largest share of its box that a brain mask fills.
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
    """All that a model folder says about its model.

    `save_model` fills in `weights`, and `save_exports` fills in `exports`.

    Attributes:
        format: Version of the card.
        name: Name of the model.
        created: Date of the training.
        intended_use: What the model is for.
        licence: Licence of the weights.
        task: The task in full, so that a model does not depend on later changes of a task.
        input: The images that the network takes.
        network: The size of the network.
        training: How the weights were made, and their scores on unseen cases.
        versions: Versions of the software that trained it.
        weights: The file of the weights.
        exports: Format of each export to its description.
        intervals: Region to how the interval for its volume is computed.
        calibration: Region to how well its probability agrees with the truth on unseen cases; empty if not measured.
        components: Which connected components are dropped.
        presence: How it is decided whether a scan has a tissue at all; None if it is not.
        threshold: Lesion probability, as trained, above which a voxel is lesion. The weights contain the shift to it.
        profile: Image features of the training cases. None if not measured; then scans are not checked.
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
    calibration: Mapping[str, CalibrationNote] = Field(default_factory=dict)
    components: ComponentFilter = ComponentFilter()
    presence: PresenceRule | None = None
    threshold: float = Field(default=0.5, gt=0, lt=1)
    profile: Profile | None = None

    @model_validator(mode="after")
    def _check_sequences(self) -> Self:
        names = self.input.sequences
        if len(set(names)) != len(names):
            raise ValueError(f"a sequence is named twice in {names}")
        rule = self.presence
        if rule and not ({rule.label, rule.becomes} <= set(self.task.labels) and rule.sequence in names):
            raise ValueError("the rule of presence names a label or a sequence that the model has not")
        return self

    @property
    def sequences(self) -> tuple[str, ...]:
        """Name of the sequence of each channel."""
        return self.input.sequences

    @property
    def warning(self) -> str:
        """A sentence if the model was trained from random weights for fewer than `FEW_STEPS` steps; else empty."""
        note = self.training
        steps = note.budget.get("steps") if note.steps is None else note.steps
        if steps is None or steps >= FEW_STEPS or note.started_from:
            return ""
        count = f"{steps:g} step{'' if steps == 1 else 's'}"
        return f"model {self.name} was trained for {count} only, so its labels mean little; train it for longer"

    @property
    def seen(self) -> frozenset[str]:
        """Names of the cases on disk that the model or one of its ancestors was trained on."""
        before = self.training.started_from
        return frozenset({*self.training.data.cases, *(before.seen if before else ())})

    @property
    def hashes(self) -> Hashes:
        """The image files of these cases, as in `Data`, where recorded."""
        before = self.training.started_from
        return {**(before.hashes if before else {}), **self.training.data.hashes}

    def as_parent(self) -> Parent:
        """What the card of a model that is trained from this one says about this one."""
        before = self.training.started_from
        return Parent(
            name=self.name,
            sha256=self.weights.sha256 if self.weights else "",
            licence=self.licence,
            data=self.training.data.model_copy(update={"hashes": {}}),
            ancestors=(before.name, *before.ancestors) if before else (),
            seen=tuple(sorted(self.seen)),
            hashes=self.hashes,
        )


def is_tolerated(change: Dice) -> bool:
    """Whether changes of Dice by region were measured, and no loss is larger than `TOLERATED`."""
    return bool(change) and min(change.values()) >= -TOLERATED
