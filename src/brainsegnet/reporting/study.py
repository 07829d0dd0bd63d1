"""Raw studies as a table: which sequence each series is, and why, and which of them `segment` would take."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainsegnet._atomic import stem_of
from brainsegnet.errors import BrainSegNetError
from brainsegnet.io.aliases import ORDER
from brainsegnet.io.images import READERS
from brainsegnet.metrics.table import Table, text_columns
from brainsegnet.model.store import choose_model
from brainsegnet.pipeline.discover import Discovered
from brainsegnet.pipeline.headers import KINDS, read_words, weigh
from brainsegnet.pipeline.identify import Finding, find_images
from brainsegnet.pipeline.study_case import StudyCase, know

_COLUMNS = ("series", "sequence", "confidence", "voxels (D, H, W)", "spacing mm", "plane", "reason")


@dataclass(frozen=True)
class Inventory(Table):
    """What is in a model, an image, a folder of cases or a study.

    Attributes:
        unusable: A sentence on each case that `segment` could not use; the notes repeat it.
    """

    unusable: Sequence[str] = ()


def describe_studies(path: Path, found: Discovered) -> Inventory:
    """Which sequence every series of the studies at a path is, with the reason, and what `segment` would use."""
    studies = [case for case in (*found.cases, *found.rejected) if isinstance(case, StudyCase)]
    several = len(studies) + len({*found.failures} - {study.name for study in studies}) > 1
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    for study in studies:
        before = f"{study.name}: " if several else ""
        rows += [((study.name,) if several else ()) + _row(finding) for finding in study.findings]
        notes += [before + sentence for sentence in (*tell_choices(study), *study.notes)]
    unusable = [*found.failures.values(), *(said for study in found.cases if (said := _refuse(study)))]
    notes += [sentence for sentence in (*unusable, *found.left_out) if not any(sentence.endswith(n) for n in notes)]
    columns = text_columns(*(("case",) if several else ()), *_COLUMNS)
    title = f"{len(studies)} studies in {path}" if several else f"study {path}"
    return Inventory(columns, rows, title, notes, grouped=several, unusable=unusable)


def tell_choices(study: StudyCase) -> list[str]:
    """A sentence for each sequence: which series stands for it, or why none does."""
    told = []
    for sequence in ORDER:
        if choice := study.choices.get(sequence):
            told.append(f"{sequence}: {choice.name}{f', {choice.reason}' if choice.reason else ''}")
        elif sequence in study.unclear:
            told.append(study.unclear[sequence])
    return told or ["no sequence is recognised; name the files, as in --flair FILE"]


def tell_others(folder: Path, used: Collection[Path]) -> list[str]:
    """A sentence for each image of a folder that belongs to no case, but whose name is that of a sequence."""
    told = []
    for path in find_images(folder):
        verdict = weigh(read_words(stem_of(path, READERS), "name"))
        if path not in used and verdict.sequence in ORDER:
            told.append(f"{path.relative_to(folder)} may be {verdict.sequence}, but is no part of the case")
    return told


def _refuse(case: object) -> str:
    """Why the shipped model for a study could not use it; empty if it could."""
    if not isinstance(case, StudyCase):
        return ""
    try:
        case.check(choose_model({case.name: know(case)}).model.card.sequences)
    except BrainSegNetError as error:
        return str(error)
    return ""


def _row(finding: Finding) -> tuple[str, ...]:
    shape, spacing = " x ".join(map(str, finding.shape)), " x ".join(f"{mm:.3g}" for mm in finding.spacing_mm)
    volumes = f"{len(finding.volumes)} volumes of " if len(finding.volumes) > 1 else ""
    sequence = KINDS.get(finding.sequence, finding.sequence) or "unknown"
    sure = f"{finding.confidence:.0%}" if finding.sequence else ""
    return finding.name, sequence, sure, volumes + shape, spacing, finding.plane, finding.reason
