"""One case through the network in three steps: prepare it, predict, and bring the result to its own grid.

The steps are separate, so that one case can be prepared or finished while another one is in the network.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainsegnet._types import Floats, Labels
from brainsegnet.errors import MissingSequence
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.ood import find_warnings
from brainsegnet.inference.postprocessing import (
    Decision,
    FilteredLabels,
    choose_classes,
    decide_presence,
    filter_components,
    filter_probabilities,
    find_certainty,
    measure_volumes,
    segment_filtered,
    suppress_dropped,
)
from brainsegnet.inference.segmentation import Segmentation, expected_dice, warn_of_sequences
from brainsegnet.inference.steps import DicomSource, Steps
from brainsegnet.inference.tiling import Backend, TiledPredictor, tta_probabilities
from brainsegnet.inference.uncertainty import entropy, find_intervals
from brainsegnet.model.card import Card
from brainsegnet.preprocessing.geometry import turn
from brainsegnet.preprocessing.grids import bring, bring_back, build_working_grid, each_back
from brainsegnet.preprocessing.prepare import Prepared, check_case, crop, prepare, restore
from brainsegnet.task import Normalisation, Task
from brainsegnet.volume import Case, LabelMap, Volume

BACKGROUND = "background"

Prepare = Callable[[Case, Normalisation], Prepared]
"""Prepares a case, on whatever device."""


class Engine(TiledPredictor):
    """A model ready to run: a tiled predictor with the card of the model.

    `prepare` prepares cases for it, on the device if the backend can.
    """

    def __init__(
        self, card: Card, backend: Backend, max_bytes: int | None = None, fallback: Callable[[], Backend] | None = None
    ) -> None:
        super().__init__(backend, max_bytes, fallback)
        self.card = card
        self.prepare: Prepare = getattr(backend, "prepare", prepare)


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """A case in memory, before it is prepared.

    Attributes:
        case: Its images on the grid that the network sees.
        steps: How they came there; None for a `Case`, which is taken as it is.
        source: The DICOM series of the reference; None if it is none.
        notes: Remarks, as in `Segmentation`.
        warnings: Sentences on what is doubtful about the images.
        seconds: Seconds of each stage so far.
        inputs: The files that were read, as in `Segmentation`.
        native: The grid of the result, if it is another one than that of the images. Its voxels are not used.
    """

    case: Case
    steps: Steps | None = None
    source: DicomSource | None = None
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    native: Volume | None = None


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case that is ready for the network.

    Attributes:
        loaded: The case.
        prepared: The case upright, cropped and normalised, with the sequences that the model uses.
        image: Channels (C, d, h, w) of the model, zero for absent sequences, on the device that prepared them.
        seconds: Seconds of each stage so far.
    """

    loaded: LoadedCase
    prepared: Prepared
    image: Floats
    seconds: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class RawPrediction:
    """The prediction for a case in the box of the brain, before it is brought to the grid of the case.

    Attributes:
        prepared_case: The case.
        options: How it was segmented.
        filtered: Classes (d, h, w) without the dropped components, after the decision.
        decision: Whether a tissue is there at all; None if it was not decided.
        probabilities: Probabilities (K, d, h, w) if maps or intervals were asked for, or if the result has another
            grid; else None.
        engine: As in `Segmentation`.
        notes: As in `Segmentation`.
        pass_bytes: As in `Segmentation`.
        seconds: As in `Segmentation`.
    """

    prepared_case: PreparedCase
    options: SegmentOptions
    filtered: FilteredLabels
    decision: Decision | None
    probabilities: Floats | None
    engine: str
    notes: tuple[str, ...]
    pass_bytes: int
    seconds: Mapping[str, float]


def predict(case: Case, engine: Engine, options: SegmentOptions | None = None) -> Segmentation:
    """Segment a case with an open engine. Sequences that the model does not use are ignored.

    Raises:
        MissingSequence: the model needs a sequence that is absent, or all are absent.
        ImageError: an image cannot be normalised.
        MemoryError: a forward pass needs more memory than there is.
    """
    prepared_case = prepare_case(LoadedCase(case), engine.card, engine.prepare)
    return finish(compute(prepared_case, engine, options or SegmentOptions()), engine.card)


def prepare_case(loaded: LoadedCase, card: Card, prepare: Prepare = prepare) -> PreparedCase:
    """First step: check, turn upright, crop, normalise, and order the sequences. Errors are those of `predict`."""
    started, case = time.perf_counter(), loaded.case
    used = {name: case.images[name] for name in find_used(case.name, case.images, card)}
    loaded = to_working_grid(replace(loaded, case=Case(case.name, used, case.lesion)), card.input.spacing_mm)
    prepared = prepare(Case(case.name, loaded.case.images), card.input.normalisation)
    image = arrange_channels(prepared, card.sequences)
    return PreparedCase(loaded, prepared, image, {**loaded.seconds, "prepare": time.perf_counter() - started})


def find_used(case: str, present: Collection[str], card: Card) -> list[str]:
    """The sequences of a model that a case has, in the order of the model.

    Raises:
        MissingSequence: the model needs a sequence that is absent, or all are absent.
    """
    used = [name for name in card.sequences if name in present]
    absent = [name for name in card.sequences if name not in used]
    required = [name for name in absent if name in card.task.required]
    if not used or required or (absent and not card.input.any_subset):
        needs = f"needs {'one or more' if card.input.any_subset else 'all'} of {', '.join(card.sequences)}"
        remedy = "add one" if card.input.any_subset else "add what is missing, or take a model that allows it"
        if required:
            needs, remedy = f"needs {', '.join(required)}", "add it, or take another model"
        raise MissingSequence(
            f"case {case} has no {', '.join(absent)}, only {', '.join(present)}, "
            f"and model {card.name} {needs}; {remedy}"
        )
    return used


def to_working_grid(loaded: LoadedCase, spacing_mm: float | None) -> LoadedCase:
    """The case at the spacing of the model, and the grid that it had; unchanged if its own grid is near enough.

    Raises:
        ImageError: an image is empty, constant, or holds NaN or infinite values. Or the scan is larger than any head.
    """
    case, native = loaded.case, loaded.case.reference
    grid = build_working_grid(native, spacing_mm)
    if loaded.native is not None or loaded.steps is not None or grid.on_grid_of(native):
        return loaded
    check_case(case)
    images = {name: bring(volume, grid) for name, volume in case.images.items()}
    lesion = bring(case.lesion, grid) if case.lesion else None
    before, after = (" x ".join(f"{mm:.3g}" for mm in one.spacing_mm[::-1]) for one in (native, grid))
    note = f"interpolated from voxels of {before} mm to {after} mm, the voxel size of the model"
    own = native.with_array(np.broadcast_to(np.uint8(0), native.shape))
    return replace(loaded, case=Case(case.name, images, lesion), notes=(*loaded.notes, note), native=own)


def arrange_channels(prepared: Prepared, sequences: tuple[str, ...]) -> Floats:
    """Channels (C, d, h, w) in the order of `sequences`. An absent one is zero, the median of a present one."""
    if prepared.sequences == sequences:
        return prepared.image
    rows = [sequences.index(name) for name in prepared.sequences]
    if not isinstance(prepared.image, np.ndarray):
        return prepared.image.spread(rows, len(sequences))
    image = np.zeros((len(sequences), *prepared.image.shape[1:]), np.float32)
    image[rows] = prepared.image
    return image


def compute(prepared_case: PreparedCase, engine: Engine, options: SegmentOptions) -> RawPrediction:
    """Second step: run the network and filter the connected components. Errors are those of `predict`."""
    started, image = time.perf_counter(), prepared_case.image
    margin = None if options.keep_all_components else engine.card.components.confidence_margin
    elsewhere, probabilities = prepared_case.loaded.native is not None or options.all_grids, None
    maps_needed = options.probabilities or options.uncertainty or elsewhere
    rule = engine.card.presence if options.presence_check else None
    decides = rule is not None and rule.sequence in prepared_case.prepared.sequences
    certainty = None
    if maps_needed or options.tta:
        average = tta_probabilities if options.tta else Engine.probabilities
        probabilities = average(engine, image, options.slabs)
        filtered = filter_probabilities(probabilities, margin)
        certainty = find_certainty(probabilities) if decides else None
    elif decides:
        classes, confidence, certainty = engine.classify_with_certainty(image, options.slabs)
        filtered = filter_components(classes, confidence, margin)
    else:
        filtered = segment_filtered(engine, image, margin, options.slabs)
    decision = None if certainty is None else _decide(prepared_case, engine.card, filtered.classes, certainty)
    if decision:
        filtered = filtered._replace(classes=decision.apply(filtered.classes))
    d, h, w = filtered.classes.shape
    return RawPrediction(
        prepared_case,
        options,
        filtered,
        decision,
        probabilities if maps_needed else None,
        engine.backend.name,
        tuple(engine.notes),
        engine.backend.estimate_bytes((d, h, w)),
        {**prepared_case.seconds, "network": time.perf_counter() - started},
    )


def _decide(prepared_case: PreparedCase, card: Card, classes: Labels, certainty: Labels) -> Decision | None:
    """Whether the tissue of the card's rule is there, from the scan as the network sees it."""
    prepared, voxel_ml = prepared_case.prepared, prepared_case.loaded.case.reference.voxel_ml
    shown = {
        name: np.asarray(prepared.image[number])
        for number, name in enumerate(prepared.sequences)
        if card.presence and name == card.presence.sequence
    }
    return decide_presence(card, classes, certainty, shown, prepared.mask, voxel_ml)


def finish(raw: RawPrediction, card: Card, model_folder: Path | None = None) -> Segmentation:
    """Third step: bring the result to the grid of the case and the labels of the task, with volumes and warnings."""
    prepared, loaded = raw.prepared_case.prepared, raw.prepared_case.loaded
    used, reference = prepared.sequences, loaded.case.reference
    absent = tuple(name for name in card.sequences if name not in used)
    unusual = find_warnings(prepared, reference.spacing_mm, card.profile) if card.profile else []
    result = _keep_grid(raw, card) if loaded.native is None else _change_grid(raw, card, loaded.native)
    intervals = None
    if raw.options.uncertainty:
        intervals = find_intervals(result.suppressed, card, result.labels.voxel_ml, used, raw.options.tta)
        intervals = raw.decision.widen(intervals, card.task) if raw.decision else intervals
    return Segmentation(
        case=loaded.case,
        card=card,
        labels=result.labels,
        used=used,
        absent=absent,
        volumes_ml=measure_volumes(result.labels, card.task),
        probabilities=result.probabilities,
        entropy=result.entropy,
        intervals=intervals,
        warnings=(
            *([card.warning] if card.warning else []),
            *_gather_warnings(loaded.case),
            *loaded.warnings,
            *(loaded.steps.warnings if loaded.steps else ()),
            *unusual,
            *warn_of_sequences(expected_dice(card, used), used),
        ),
        components_dropped=raw.filtered.dropped_components,
        decision=raw.decision,
        dropped_ml=round(raw.filtered.dropped_voxels * reference.voxel_ml, 6),
        seconds=raw.seconds,
        engine=raw.engine,
        notes=(*raw.notes, *loaded.notes),
        pass_bytes=raw.pass_bytes,
        options=raw.options,
        steps=loaded.steps,
        source=loaded.source,
        grids=_label_grids(raw, card, result.labels) if raw.options.all_grids else {},
        brain_mask=_restore_brain(raw) if raw.options.save_preprocessed else None,
        inputs=loaded.inputs,
        model_folder=model_folder,
        head={
            "skull": prepared.skull,
            "around": dict(prepared.around),
            "volume_ml": round(float(np.count_nonzero(prepared.mask)) * reference.voxel_ml, 1),
        },
    )


class _Result(NamedTuple):
    """A label map, with the maps that were asked for, and probabilities (K, ...) without dropped components."""

    labels: LabelMap
    probabilities: Mapping[str, Volume] | None
    entropy: Volume | None
    suppressed: Floats


def _keep_grid(raw: RawPrediction, card: Card) -> _Result:
    """The result on the grid of the images."""
    prepared, reference = raw.prepared_case.prepared, raw.prepared_case.loaded.case.reference
    soft, classes = raw.probabilities, raw.filtered.classes
    labels = reference.with_labels(card.task.decode(restore(classes, prepared)))
    if soft is None:
        return _Result(labels, None, None, np.empty(0, np.float32))
    probabilities = _map_tissues(soft, prepared, card.task, reference) if raw.options.probabilities else None
    if not raw.options.uncertainty:
        return _Result(labels, probabilities, None, soft)
    uncertainty = reference.with_array(restore(entropy(soft), prepared))
    return _Result(labels, probabilities, uncertainty, suppress_dropped(soft, classes))


def _change_grid(raw: RawPrediction, card: Card, native: Volume) -> _Result:
    """The result on another grid than that of the images: probabilities are interpolated, then the classes chosen."""
    prepared, soft = raw.prepared_case.prepared, raw.probabilities
    if soft is None:
        raise ValueError("a result on another grid needs probabilities")
    box = crop(turn(raw.prepared_case.loaded.case.reference, prepared.turn), prepared.box)
    kept = suppress_dropped(soft, raw.filtered.classes)
    decided = raw.decision.merge(kept) if raw.decision else kept
    labels = native.with_labels(card.task.decode(choose_classes(each_back(decided[1:], box, native))))
    if not (raw.options.probabilities or raw.options.uncertainty):
        return _Result(labels, None, None, kept)
    maps = _complete(bring_back(soft, box, native))
    names = (BACKGROUND, *card.task.labels.values())
    probabilities = dict(zip(names, map(native.with_array, maps), strict=True)) if raw.options.probabilities else None
    if not raw.options.uncertainty:
        return _Result(labels, probabilities, None, kept)
    suppressed = maps if kept is soft else _complete(bring_back(kept, box, native))
    return _Result(labels, probabilities, native.with_array(entropy(maps)), suppressed)


def _label_grids(raw: RawPrediction, card: Card, labels: LabelMap) -> dict[str, LabelMap]:
    """Each sequence to the label map on its own grid: probabilities come there, then the classes are chosen."""
    prepared, loaded, soft = raw.prepared_case.prepared, raw.prepared_case.loaded, raw.probabilities
    if loaded.steps is None or soft is None:
        return {}
    box = crop(turn(loaded.case.reference, prepared.turn), prepared.box)
    lesion = suppress_dropped(soft, raw.filtered.classes)
    lesion = (raw.decision.merge(lesion) if raw.decision else lesion)[1:]
    found = {}
    for name, native in loaded.steps.natives.items():
        transform = loaded.steps.alignment.motions[name].transform
        if transform is None and native.on_grid_of(labels):
            found[name] = native.with_labels(labels.array)
        else:
            classes = choose_classes(each_back(lesion, box, native, transform))
            found[name] = native.with_labels(card.task.decode(classes))
    return found


def _restore_brain(raw: RawPrediction) -> LabelMap:
    """The brain on the grid that the network saw."""
    prepared, loaded = raw.prepared_case.prepared, raw.prepared_case.loaded
    known = loaded.steps.brain.mask if loaded.steps else None
    mask = restore(prepared.mask, prepared) if known is None else known
    return loaded.case.reference.with_labels(mask.astype(np.uint8))


def _complete(maps: Floats) -> Floats:
    """Probabilities (K, D, H, W) of which the first, the background, is what the others leave; changed in place."""
    maps[0] = np.maximum(1 - maps[1:].sum(0), 0)
    return maps


def _gather_warnings(case: Case) -> list[str]:
    """Warnings about the files of a case. Each stands once, after the sequences that it is about."""
    names: dict[str, list[str]] = {}
    for name, image in case.images.items():
        for said in image.warnings:
            names.setdefault(said, []).append(name)
    return [f"{', '.join(about)}: {said}" for said, about in names.items()]


def _map_tissues(probabilities: Floats, prepared: Prepared, task: Task, reference: Volume) -> dict[str, Volume]:
    """A map of each tissue on the grid of `reference`, from (K, d, h, w) of the box; background around the box."""
    names = (BACKGROUND, *task.labels.values())
    maps = dict(zip(names, map(reference.with_array, restore(probabilities, prepared)), strict=True))
    inside = restore(np.ones(probabilities.shape[1:], np.bool_), prepared)
    maps[BACKGROUND].array[~inside] = 1
    return maps
