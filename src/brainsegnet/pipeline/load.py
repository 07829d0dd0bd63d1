"""Reads a case or a study from disk, and brings it to the grid of the model."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from brainsegnet.errors import BrainSegNetError, GridMismatch
from brainsegnet.inference.predict import LoadedCase, find_used
from brainsegnet.inference.raw import RawCase
from brainsegnet.inference.segmenter import Segmenter
from brainsegnet.inference.steps import DicomSource
from brainsegnet.io.case_files import CaseFiles, read_sequences
from brainsegnet.io.images import read_labels
from brainsegnet.model.card import Card
from brainsegnet.pipeline.inputs import check_unchanged, describe_inputs, to_relative
from brainsegnet.pipeline.study_case import StudyCase
from brainsegnet.volume import LabelMap, Volume, describe_mismatch


def load(case: CaseFiles | StudyCase, segmenter: Segmenter, folder: Path) -> LoadedCase:
    """Read a case, and bring it to the grid of the model.

    The truth is read too if a picture is to show it. A truth that cannot be used becomes a note.

    Args:
        case: The case or study.
        segmenter: The model, and how to segment.
        folder: Where the result goes; paths of the inputs are relative to it.

    Raises:
        MissingSequence: the model needs a sequence that is absent, or all are absent.
        ImageError: a file cannot be used, or was changed while it was read.
        GridMismatch: sequences are on different grids, and are not to be brought together.
    """
    options, card = segmenter.options, segmenter.model.card
    started, mask = time.perf_counter(), options.brain_mask
    before = describe_inputs(case, card.sequences, content=False, mask=mask)
    if isinstance(case, StudyCase):
        raw, notes = read_study(case, card), list(case.notes)
    else:
        raw, notes = read_files(case, card, truth=options.picture)
    inputs = describe_inputs(case, card.sequences, content=True, mask=mask)
    check_unchanged(case.name, before, inputs)
    seconds = {"read": time.perf_counter() - started}
    loaded = segmenter.load(raw)
    return replace(
        loaded,
        notes=(*notes, *loaded.notes),
        warnings=(
            *(case.tell_corrections(loaded.case.images) if isinstance(case, StudyCase) else ()),
            *loaded.warnings,
        ),
        seconds={**seconds, **loaded.seconds},
        inputs=to_relative(inputs, folder),
    )


def read_study(case: StudyCase, card: Card) -> RawCase:
    """The sequences of a study that a model uses, each on its own grid."""
    used = find_used(case.name, case.check(card.sequences), card)
    series = {name: case.series_of(name) for name in used}
    numbers = {name: case.choices[name].findings[0].volumes[0] for name in used}
    sources = {name: DicomSource(one, numbers[name]) for name, one in series.items() if one is not None}
    return RawCase(case.name, case.read(used), sources)


def read_files(case: CaseFiles, card: Card, truth: bool) -> tuple[RawCase, list[str]]:
    """The sequences of a case that a model uses, each on its own grid, and its truth if asked for; and remarks."""
    used = find_used(case.name, case.images, card)
    images = dict(zip(used, read_sequences(case, used), strict=True))
    if not (truth and case.lesion):
        return RawCase(case.name, images), []
    try:
        return RawCase(case.name, images, lesion=_read_truth(case, card, list(images.items()))), []
    except BrainSegNetError as error:
        return RawCase(case.name, images), [f"the picture is drawn without the truth, which cannot be used: {error}"]


def _read_truth(case: CaseFiles, card: Card, images: Sequence[tuple[str, Volume]]) -> LabelMap | None:
    if case.lesion is None:
        return None
    labels = read_labels(case.lesion)
    if not any(labels.on_grid_of(image) for _, image in images):
        raise GridMismatch(f"case {case.name}: {describe_mismatch('the label map', labels, *images[0])}")
    return labels.with_array(card.task.bring(labels.array, case.convention, case.name))
