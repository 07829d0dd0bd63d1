"""Tasks: which sequences a network takes, which tissues it finds, and how files label them.

A task is a value: one of `TASKS`, or read from a user's YAML file.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from brainsegnet._documents import load_yaml, read_text
from brainsegnet._types import Array, Labels
from brainsegnet.errors import LabelError, TaskError, describe_invalid, describe_unreadable

Normalisation = Literal["median-sd", "median-decile"]
"""How intensities are normalised. The median of the brain becomes 0, and its scale 1.

`median-sd` scales by the standard deviation. `median-decile` scales by the distance from the median to the tenth
percentile, which a bright lesion cannot move (`preprocessing.prepare.find_scale`).
"""
Colour = Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]
"""Red, green and blue in hexadecimal digits, as in HTML: `#ed2929`."""
Side = Annotated[int, Field(ge=1)]
"""Side length of a training sample in voxels."""

TISSUE_COLOURS: Mapping[str, Colour] = {
    "necrosis": "#ed2929",
    "oedema": "#29c254",
    "non-enhancing": "#3878ff",
    "enhancing": "#ffffff",
    "necrosis + non-enhancing": "#ed2929",
    "infarct": "#ff7a1a",
}
"""The paper's colours (Figure 4: red, green, blue, white), and orange for stroke."""
TUMOUR, STROKE, MS = "tumour", "stroke", "multiple sclerosis"
_DISEASE_WORDS: Mapping[str, str] = {
    "infarct": STROKE,
    "stroke": STROKE,
    "ischaemic": STROKE,
    "ischemic": STROKE,
    "tumour": TUMOUR,
    "tumor": TUMOUR,
    "glioma": TUMOUR,
    "enhancing": TUMOUR,
    "oedema": TUMOUR,
    "necrosis": TUMOUR,
    "white-matter lesion": MS,
}
"""Words in the names of tissues, and the diseases that they tell. The first that is found decides."""
_UNTELLING = {"lesion", "lesions", "label", "mask", "roi"}
"""Names of tissues that tell no disease."""
OTHER_COLOURS: tuple[Colour, ...] = ("#ffcc29", "#33d4e6", "#ed61cc", "#ff8775", "#9e80ff", "#addb33")
"""Colours for other tissues, in the order of their labels; repeated if there are more tissues."""


class Platform(BaseModel):
    """The file names and formats that the platform of a challenge requires of uploads.

    Attributes:
        prefix: First part of the file names, such as `VSD`.
        suffix: Format of the files.
        dtype: Type of the label values in the files.
        id_from: Sequence whose file name holds the number by which the platform knows a case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefix: str = Field(pattern="^[A-Za-z0-9_-]+$")
    suffix: Literal[".mha", ".nii"]
    dtype: Literal["uint8", "int16"]
    id_from: str = Field(min_length=1)


class Task(BaseModel):
    """What is to be found in which images: sequences, labels, and the regions that are scored.

    Attributes:
        name: Name of the task, shown in logs, cards and results.
        sequences: Sequences in the order of the channels. A model may use some of them.
        required: Those without which a lesion cannot be seen. No model takes a scan without them, and samples of a
            training never lose them.
        labels: Label value in files to tissue; 0 is the background. Class k of the network is the k-th label.
        colours: Label value to its colour in pictures. A label without one gets a colour that fits its tissue.
        regions: Region to the label values that it combines, in the order of the tables.
        patch: Size (D, H, W) of a training sample in voxels, unless the recipe has its own.
        normalisation: How intensities are normalised. `median-sd`: median 0 and standard deviation 1 in the brain.
            `median-decile`: median 0, and a scale from the tenth percentile that a bright lesion cannot move.
        platform: What the platform of a challenge requires of uploads; None if there is none.

    Examples:
        >>> BRATS2015.classes, BRATS2021.label_values
        (5, (0, 1, 2, 4))
        >>> BRATS2015.colours[1], Task(name="cyst", sequences=["t1"], labels={7: "cyst"}, regions={"all": [7]}).colours
        ('#ed2929', {7: '#ffcc29'})
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    sequences: tuple[str, ...] = Field(min_length=1)
    required: tuple[str, ...] = ()
    labels: Mapping[int, str] = Field(min_length=1)
    colours: Mapping[int, Colour] = Field(default={}, validate_default=True)
    regions: Mapping[str, Annotated[tuple[int, ...], Field(min_length=1)]] = Field(min_length=1)
    patch: tuple[Side, Side, Side] = (12, 128, 128)
    normalisation: Normalisation = "median-sd"
    platform: Platform | None = None

    @field_validator("colours")
    @classmethod
    def _complete(cls, given: Mapping[int, str], info: ValidationInfo) -> Mapping[int, str]:
        """A colour for every label, in their order."""
        labels: Mapping[int, str] = info.data.get("labels", {})
        if labels and (unknown := sorted(set(given) - set(labels))):
            raise ValueError(f"colours are given for labels {unknown} that are not in {dict(labels)}")
        free = cycle(OTHER_COLOURS)
        found = [given.get(value) or TISSUE_COLOURS.get(tissue) or next(free) for value, tissue in labels.items()]
        return {value: colour.lower() for value, colour in zip(labels, found, strict=True)}

    @model_validator(mode="after")
    def _consistent(self) -> "Task":
        if not all(0 < value < 256 for value in self.labels):
            raise ValueError(f"label values lie between 1 and 255, not {sorted(self.labels)}")
        if len(set(self.labels.values())) != len(self.labels):
            raise ValueError(f"two labels have one name in {dict(self.labels)}")
        if len(set(self.sequences)) != len(self.sequences):
            raise ValueError(f"a sequence is named twice in {self.sequences}")
        if absent := sorted(set(self.required) - set(self.sequences)):
            raise ValueError(f"{', '.join(absent)} is required, and not among the sequences {self.sequences}")
        for region, values in self.regions.items():
            if unknown := set(values) - set(self.labels):
                raise ValueError(f"region {region} unites labels {sorted(unknown)} that are not in {dict(self.labels)}")
        return self

    @property
    def disease(self) -> str:
        """The disease that the tissues tell: `tumour`, `stroke`, `multiple sclerosis`, or the names of other tissues.

        Empty if they are only called lesions.

        Examples:
            >>> BRATS2021.disease, ISLES2017.disease
            ('tumour', 'stroke')
        """
        tissues = [tissue.lower() for tissue in self.labels.values()]
        told = (disease for word, disease in _DISEASE_WORDS.items() if any(word in tissue for tissue in tissues))
        return next(told, ", ".join(tissue for tissue in tissues if tissue not in _UNTELLING))

    @property
    def classes(self) -> int:
        """Number of classes of the network, including the background."""
        return len(self.labels) + 1

    @property
    def label_values(self) -> tuple[int, ...]:
        """Label value of each class; the background comes first."""
        return (0, *self.labels)

    @property
    def region_classes(self) -> tuple[tuple[int, ...], ...]:
        """The classes of the network that each region combines.

        Examples:
            >>> BRATS2021.region_classes
            ((1, 2, 3), (1, 3), (3,))
        """
        return tuple(tuple(self.label_values.index(value) for value in values) for values in self.regions.values())

    def find_required(self, sequences: Sequence[str]) -> tuple[int, ...]:
        """Which of some sequences are required, as indices."""
        return tuple(k for k, name in enumerate(sequences) if name in self.required)

    def encode(self, labels: Array, case: str = "") -> Labels:
        """Convert label values of files to classes 0 to K-1.

        Args:
            labels: Label values, an array of any shape.
            case: Name of the case, for messages.

        Raises:
            LabelError: a value is outside the task.

        Examples:
            >>> BRATS2021.encode(np.array([0, 1, 2, 4])).tolist()
            [0, 1, 2, 3]
        """
        self.check(labels, case)
        table = np.zeros(256, np.uint8)
        table[list(self.label_values)] = range(self.classes)
        return np.asarray(table[labels], np.uint8)

    def decode(self, classes: Array) -> Labels:
        """Convert classes 0 to K-1, an array of any shape, to the label values of files.

        Examples:
            >>> BRATS2021.decode(np.array([0, 1, 2, 3])).tolist()
            [0, 1, 2, 4]
        """
        return np.asarray(np.array(self.label_values, np.uint8)[classes], np.uint8)

    def check(self, labels: Array, case: str = "") -> None:
        """Check that all label values belong to the task.

        Raises:
            LabelError: a value is outside the task.
        """
        unknown = sorted(set(present(labels)) - set(self.label_values))
        if unknown:
            where = f"case {case}: " if case else ""
            raise LabelError(
                f"{where}label values {unknown} are outside task {self.name}, whose labels are "
                f"{dict(self.labels)}; choose the task that fits these labels"
            )

    def bring(self, labels: Array, source: "Task | None", case: str = "") -> Array:
        """Convert labels of a data set to the label convention of this task, if that of the data set is known.

        Tissues are matched by name. Values keep their meaning if the data set has no convention, or one with unknown
        tissues.

        Args:
            labels: Label values, an array of any shape.
            source: Task whose convention the labels use; None if it is unknown.
            case: Name of the case, for messages.

        Raises:
            LabelError: as `check` or `translate`.

        Examples:
            >>> hippocampus = Task(name="h", sequences=("t1",), labels={1: "head"}, regions={"head": (1,)})
            >>> BRATS2021.bring(np.array([3]), BRATS2023).tolist(), BRATS2021.bring(np.array([1]), hippocampus).tolist()
            ([4], [1])
        """
        known = {*TISSUES, *self.labels.values()}
        if source is not None and source.labels != self.labels and known & set(source.labels.values()):
            return self.translate(labels, source, case)
        self.check(labels, case)
        return labels

    def translate(self, labels: Array, source: "Task", case: str = "") -> Labels:
        """Convert labels of another task to the label convention of this one, matched by the names of the tissues.

        A tissue of the source may be part of a combined one: `necrosis` becomes `necrosis + non-enhancing`.

        Raises:
            LabelError: a tissue that occurs has no counterpart here, or a value is outside the source.

        Examples:
            >>> BRATS2021.translate(np.array([0, 1, 2, 3, 4]), BRATS2015).tolist()
            [0, 1, 2, 1, 4]
        """
        source.check(labels, case)
        table = np.zeros(256, np.uint8)
        for value in set(present(labels)) - {0}:
            tissue = source.labels[value]
            homes = [v for v, name in self.labels.items() if set(tissue.split(" + ")) <= set(name.split(" + "))]
            if not homes:
                raise LabelError(
                    f"case {case}: {tissue} (label {value} of {source.name}) has no counterpart in task {self.name}; "
                    + (f"use --task {source.name}" if source.name in TASKS else "choose a task that has it")
                )
            table[value] = homes[0]
        return np.asarray(table[labels], np.uint8)


def present(labels: Array) -> list[int]:
    """The values that occur in an array, ascending. On bytes it is several times faster than `np.unique`."""
    values = np.flatnonzero(np.bincount(labels.ravel())) if labels.dtype == np.uint8 else np.unique(labels)
    return [int(value) for value in values]


_GLIOMA = ("flair", "t1", "t1c", "t2")

BRATS2015 = Task(
    name="brats2015",
    sequences=_GLIOMA,
    labels={1: "necrosis", 2: "oedema", 3: "non-enhancing", 4: "enhancing"},
    regions={"whole": (1, 2, 3, 4), "core": (1, 3, 4), "enhancing": (4,)},
    platform=Platform(prefix="VSD", suffix=".mha", dtype="int16", id_from="flair"),
)
BRATS2021 = Task(
    name="brats2021",
    sequences=_GLIOMA,
    labels={1: "necrosis + non-enhancing", 2: "oedema", 4: "enhancing"},
    regions={"whole": (1, 2, 4), "core": (1, 4), "enhancing": (4,)},
)
BRATS2023 = Task(
    name="brats2023",
    sequences=_GLIOMA,
    labels={1: "necrosis + non-enhancing", 2: "oedema", 3: "enhancing"},
    regions={"whole": (1, 2, 3), "core": (1, 3), "enhancing": (3,)},
)
ISLES2017 = Task(
    name="isles2017",
    sequences=("adc", "mtt", "rcbf", "rcbv", "tmax", "ttp"),
    labels={1: "infarct"},
    regions={"lesion": (1,)},
    patch=(7, 96, 96),
    platform=Platform(prefix="SMIR", suffix=".nii", dtype="uint8", id_from="mtt"),
)
ISLES2022 = ISLES2017.model_copy(update={"name": "isles2022", "sequences": ("dwi", "adc"), "platform": None})
WHITE_MATTER_LESIONS = Task(
    name="white-matter-lesions",
    sequences=_GLIOMA,
    required=("flair",),
    labels={1: "white-matter lesion"},
    regions={"lesion": (1,)},
    normalisation="median-decile",
)
TASKS: Mapping[str, Task] = {
    t.name: t for t in (BRATS2015, BRATS2021, BRATS2023, ISLES2017, ISLES2022, WHITE_MATTER_LESIONS)
}
TISSUES = frozenset(tissue for task in TASKS.values() for tissue in task.labels.values())
"""The names of all tissues in these tasks."""


def load_task(name_or_file: str | Path) -> Task:
    """Look up a built-in task by name, or read a task from a YAML file.

    Args:
        name_or_file: One of `brats2015`, `brats2021`, `brats2023`, `isles2017`, `isles2022` and
            `white-matter-lesions`; or a file .yaml or .yml with the attributes of `Task`.

    Raises:
        TaskError: there is no such name or file, or the file contradicts itself.

    Examples:
        >>> load_task("isles2022").sequences
        ('dwi', 'adc')
    """
    if str(name_or_file) in TASKS:
        return TASKS[str(name_or_file)]
    path = Path(name_or_file)
    if path.suffix not in {".yaml", ".yml"}:
        raise TaskError(f"unknown task {name_or_file!r}; choose one of {', '.join(TASKS)}, or name a YAML file")
    try:
        content = load_yaml(read_text(path))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise TaskError(f"task file {path} {describe_unreadable(error)}") from error
    try:
        return Task.model_validate(content)
    except ValidationError as error:
        raise TaskError(f"task file {path}: {describe_invalid(error.errors()[0])}") from error
