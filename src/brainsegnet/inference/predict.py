"""One case: its sequences matched by name, the network run, the result on the case's own grid."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from brainsegnet.errors import BrainSegNetError, MissingSequence
from brainsegnet.inference.components import FilteredLabels, filter_probabilities, segment_filtered, suppress_dropped
from brainsegnet.inference.engine import Engine
from brainsegnet.inference.ood import find_warnings
from brainsegnet.inference.tiling import tta_probabilities
from brainsegnet.inference.volumes import Interval, entropy, find_intervals, measure_volumes
from brainsegnet.model.card import Card
from brainsegnet.preprocessing.prepare import Prepared, prepare, restore
from brainsegnet.task import Task
from brainsegnet.volume import Case, LabelMap, Volume

BACKGROUND = "background"


@dataclass(frozen=True)
class Options:
    """How to segment.

    Attributes:
        slabs: Slices per pass; None is the whole brain box in one, 31 the paper's choice.
        probabilities: Whether the result holds a map for each tissue.
        uncertainty: Whether it holds an entropy map and an interval of the volume of each region.
        keep_all_components: Whether components stay of which the model is much less sure than of the surest, see
            `components`.
        mirror: Whether the mean over the scan and its mirror images is taken, see `mirroring`.

    Raises:
        BrainSegNetError: slabs of no slice.
    """

    slabs: int | None = None
    probabilities: bool = False
    uncertainty: bool = False
    keep_all_components: bool = False
    tta: bool = False

    def __post_init__(self) -> None:
        if self.slabs is not None and self.slabs < 1:
            raise BrainSegNetError(f"a slab has at least one slice, not {self.slabs}; the paper's have 31")


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case that waits for the network.

    Attributes:
        case, prepared: As read, and upright, cropped and normalised.
        image: Channels (C, d, h, w) in the order of the model, where they were prepared.
        used, absent: Sequences of the model that the case has, and has not.
        seconds: That preparing took.
    """

    case: Case
    prepared: Prepared
    image: NDArray[np.float32]
    used: tuple[str, ...]
    absent: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, eq=False)
class RawPrediction:
    """What the network found in a case.

    Attributes:
        ready: What it was given.
        options: What was asked for.
        filtered: Classes (d, h, w) of the brain's box, and what was dropped of them.
        probabilities: Probabilities (K, d, h, w) if maps or intervals were asked for.
        seconds: That the passes took, arg-max and the dropping of components included.
        engine: What computed.
        notes: What was done for want of memory.
        pass_bytes: About how much memory one pass over the box takes beside weights and libraries; it decides on slabs.
    """

    ready: PreparedCase
    options: Options
    filtered: FilteredLabels
    probabilities: NDArray[np.float32] | None
    seconds: float
    engine: str
    notes: tuple[str, ...]
    pass_bytes: int


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was found in a case.

    Attributes:
        name: Of the case.
        labels: In the convention of the task, on the grid of the case: the arg-max without what was dropped.
        probabilities: Tissue, and "background", to a float32 map on the same grid, dropped components too; None if not
            asked for.
        used, absent: Sequences of the model that the case has, and has not.
        seconds: "prepare" (check, crop, normalise) and "network" (passes, arg-max, dropping of components).
        volumes_ml: "labels" by tissue and "regions" by region, in millilitres.
        entropy: As a share of the greatest, a float32 map on the same grid, 0 around the brain; None if not asked for.
        intervals: Of the volume of each region; None if not asked for.
        warnings: Sentences on what looks unlike the training cases.
        components_dropped: Number of components of which the model was so unsure that they were dropped.
        dropped_ml: Their volume in millilitres.
    """

    name: str
    labels: LabelMap
    probabilities: Mapping[str, Volume] | None
    used: tuple[str, ...]
    absent: tuple[str, ...]
    seconds: Mapping[str, float]
    volumes_ml: Mapping[str, Mapping[str, float]]
    entropy: Volume | None = None
    intervals: Mapping[str, Interval] | None = None
    warnings: Sequence[str] = ()
    components_dropped: int = 0
    dropped_ml: float = 0.0


def predict(case: Case, engine: Engine, options: Options | None = None) -> Prediction:
    """Segment a case; sequences that the model does not know are ignored.

    The three steps can also be taken apart, so that many cases overlap.

    Raises:
        MissingSequence: a sequence is absent and the model needs it, or all are.
        ImageError: an image cannot be normalised.
        MemoryError: a pass needs more than there is.
    """
    return finish(compute(prepare_case(case, engine.card, engine.prepare), engine, options or Options()), engine.card)


def prepare_case(case: Case, card: Card, prepare: Callable[[Case], Prepared] = prepare) -> PreparedCase:
    """The first step: check, bring upright, crop, normalise, and put the sequences in order; errors as `predict`."""
    started = time.perf_counter()
    used, absent = match_sequences(case, card)
    prepared = prepare(Case(case.name, {name: case.images[name] for name in used}))
    image = arrange_channels(prepared, card.sequences)
    return PreparedCase(case, prepared, image, used, absent, time.perf_counter() - started)


def compute(ready: PreparedCase, engine: Engine, options: Options) -> RawPrediction:
    """The second step: the network; errors as `predict`."""
    started = time.perf_counter()
    margin = None if options.keep_all_components else engine.card.components.confidence_margin
    wanted = options.probabilities or options.uncertainty
    if wanted or options.tta:
        average = tta_probabilities if options.tta else Engine.probabilities
        soft = average(engine, ready.image, options.slabs)
        filtered, probabilities = filter_probabilities(soft, margin), soft if wanted else None
    else:
        filtered, probabilities = segment_filtered(engine, ready.image, margin, options.slabs), None
    seconds = time.perf_counter() - started
    d, h, w = filtered.classes.shape
    needed = engine.backend.estimate_bytes((d, h, w))
    return RawPrediction(
        ready, options, filtered, probabilities, seconds, engine.backend.name, tuple(engine.notes), needed
    )


def finish(found: RawPrediction, card: Card) -> Prediction:
    """The third step: back to the case's own grid and the task's labels."""
    ready, case, filtered = found.ready, found.ready.case, found.filtered
    labels = LabelMap(card.task.decode(restore(filtered.classes, ready.prepared)), case.reference.affine)
    result = Prediction(
        case.name,
        labels,
        None,
        ready.used,
        ready.absent,
        seconds={"prepare": ready.seconds, "network": found.seconds},
        volumes_ml=measure_volumes(labels, card.task),
        components_dropped=filtered.components,
        dropped_ml=round(filtered.voxels * labels.voxel_ml, 6),
    )
    if card.profile is not None:
        warnings = find_warnings(ready.prepared, case.reference.spacing_mm, card.profile)
        result = replace(result, warnings=tuple(warnings))
    probabilities, asked = found.probabilities, found.options
    if probabilities is not None and asked.probabilities:
        result = replace(result, probabilities=map_tissues(probabilities, ready.prepared, card.task, case.reference))
    if probabilities is not None and asked.uncertainty:
        warning = case.reference.with_array(restore(entropy(probabilities), ready.prepared))
        kept = suppress_dropped(probabilities, filtered.classes)
        as_validated = not asked.tta and not ready.absent
        result = replace(result, entropy=warning, intervals=find_intervals(kept, card, labels.voxel_ml, as_validated))
    return result


def match_sequences(case: Case, card: Card) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which sequences of the model the case has, and which it has not, each in the order of the channels.

    Raises:
        MissingSequence: one is absent and the model needs it, or all are.
    """
    used = tuple(name for name in card.sequences if name in case.images)
    absent = tuple(name for name in card.sequences if name not in case.images)
    if not used or (absent and not card.input.any_subset):
        needs = f"needs {'one or more' if card.input.any_subset else 'all'} of {', '.join(card.sequences)}"
        remedy = "add one" if card.input.any_subset else "add what is missing, or take a model that allows it"
        raise MissingSequence(
            f"case {case.name} has no {', '.join(absent)}, only {', '.join(case.images)}, "
            f"and model {card.name} {needs}; {remedy}"
        )
    return used, absent


def arrange_channels(prepared: Prepared, sequences: tuple[str, ...]) -> NDArray[np.float32]:
    """Channels (C, d, h, w) in the order of `sequences`; an absent one is zero, the median of a present one."""
    if prepared.sequences == sequences:
        return prepared.image
    rows = [sequences.index(name) for name in prepared.sequences]
    if not isinstance(prepared.image, np.ndarray):
        return prepared.image.spread(rows, len(sequences))
    image = np.zeros((len(sequences), *prepared.image.shape[1:]), np.float32)
    image[rows] = prepared.image
    return image


def map_tissues(
    probabilities: NDArray[np.float32], prepared: Prepared, task: Task, reference: Volume
) -> dict[str, Volume]:
    """Probabilities (K, d, h, w) of the box, a map a tissue, on the grid of `reference`; background around the box."""
    names = (BACKGROUND, *task.labels.values())
    maps = {
        name: reference.with_array(restore(map_, prepared)) for name, map_ in zip(names, probabilities, strict=True)
    }
    inside = restore(np.ones(probabilities.shape[1:], np.bool_), prepared)
    maps[BACKGROUND].array[~inside] = 1
    return maps
