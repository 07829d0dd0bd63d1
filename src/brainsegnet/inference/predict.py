"""One case: its sequences matched by name, the network run, the result on the case's own grid."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from brainsegnet.errors import MissingSequence
from brainsegnet.inference.components import FilteredLabels, filter_probabilities, segment_filtered, suppress_dropped
from brainsegnet.inference.engine import Engine
from brainsegnet.inference.ood import find_warnings
from brainsegnet.inference.options import SegmentOptions
from brainsegnet.inference.segmentation import Segmentation, expected_dice, warn_of_sequences
from brainsegnet.inference.tiling import tta_probabilities
from brainsegnet.inference.volumes import entropy, find_intervals, measure_volumes
from brainsegnet.model.card import Card
from brainsegnet.preprocessing.prepare import Prepared, prepare, restore
from brainsegnet.task import Task
from brainsegnet.volume import Case, LabelMap, Volume

BACKGROUND = "background"


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
        prepared_case: What it was given.
        options: What was asked for.
        filtered: Classes (d, h, w) of the brain's box, and what was dropped of them.
        probabilities: Probabilities (K, d, h, w) if maps or intervals were asked for.
        seconds: That the passes took, arg-max and the dropping of components included.
        engine: What computed.
        notes: What was done for want of memory.
        pass_bytes: About how much memory one pass over the box takes beside weights and libraries; it decides on slabs.
    """

    prepared_case: PreparedCase
    options: SegmentOptions
    filtered: FilteredLabels
    probabilities: NDArray[np.float32] | None
    seconds: float
    engine: str
    notes: tuple[str, ...]
    pass_bytes: int


def predict(case: Case, engine: Engine, options: SegmentOptions | None = None) -> Segmentation:
    """Segment a case; sequences that the model does not know are ignored.

    The three steps can also be taken apart, so that many cases overlap.

    Raises:
        MissingSequence: a sequence is absent and the model needs it, or all are.
        ImageError: an image cannot be normalised.
        MemoryError: a pass needs more than there is.
    """
    prepared_case = prepare_case(case, engine.card, engine.prepare)
    return finish(compute(prepared_case, engine, options or SegmentOptions()), engine.card)


def prepare_case(case: Case, card: Card, prepare: Callable[[Case], Prepared] = prepare) -> PreparedCase:
    """The first step: check, bring upright, crop, normalise, and put the sequences in order; errors as `predict`."""
    started = time.perf_counter()
    used, absent = match_sequences(case, card)
    prepared = prepare(Case(case.name, {name: case.images[name] for name in used}))
    image = arrange_channels(prepared, card.sequences)
    return PreparedCase(case, prepared, image, used, absent, time.perf_counter() - started)


def compute(prepared_case: PreparedCase, engine: Engine, options: SegmentOptions) -> RawPrediction:
    """The second step: the network; errors as `predict`."""
    started = time.perf_counter()
    margin = None if options.keep_all_components else engine.card.components.confidence_margin
    wanted = options.probabilities or options.uncertainty
    if wanted or options.tta:
        average = tta_probabilities if options.tta else Engine.probabilities
        soft = average(engine, prepared_case.image, options.slabs)
        filtered, probabilities = filter_probabilities(soft, margin), soft if wanted else None
    else:
        filtered, probabilities = segment_filtered(engine, prepared_case.image, margin, options.slabs), None
    seconds = time.perf_counter() - started
    d, h, w = filtered.classes.shape
    needed = engine.backend.estimate_bytes((d, h, w))
    return RawPrediction(
        prepared_case, options, filtered, probabilities, seconds, engine.backend.name, tuple(engine.notes), needed
    )


def finish(raw: RawPrediction, card: Card) -> Segmentation:
    """The third step: back to the case's own grid and the task's labels."""
    prepared_case, options = raw.prepared_case, raw.options
    case, prepared = prepared_case.case, prepared_case.prepared
    labels = LabelMap(card.task.decode(restore(raw.filtered.classes, prepared)), case.reference.affine)
    unusual = find_warnings(prepared, case.reference.spacing_mm, card.profile) if card.profile else []
    used, absent = prepared_case.used, prepared_case.absent
    result = Segmentation(
        case,
        card,
        labels,
        used,
        absent,
        measure_volumes(labels, card.task),
        warnings=(*unusual, *warn_of_sequences(expected_dice(card, used), used)),
        components_dropped=raw.filtered.components,
        dropped_ml=round(raw.filtered.voxels * labels.voxel_ml, 6),
        seconds={"prepare": prepared_case.seconds, "network": raw.seconds},
        engine=raw.engine,
        notes=raw.notes,
        pass_bytes=raw.pass_bytes,
        options=options,
    )
    probabilities = raw.probabilities
    if probabilities is not None and options.probabilities:
        result = replace(result, probabilities=map_tissues(probabilities, prepared, card.task, case.reference))
    if probabilities is not None and options.uncertainty:
        map_ = case.reference.with_array(restore(entropy(probabilities), prepared))
        kept = suppress_dropped(probabilities, raw.filtered.classes)
        as_validated = not options.tta and not absent
        result = replace(result, entropy=map_, intervals=find_intervals(kept, card, labels.voxel_ml, as_validated))
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
