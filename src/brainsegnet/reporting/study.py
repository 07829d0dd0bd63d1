"""The series of a raw study as a table: which sequence each is, and why, and which of them `segment` would take."""

from collections.abc import Collection, Sequence
from pathlib import Path

from brainsegnet._atomic import stem_of
from brainsegnet.errors import DatasetError
from brainsegnet.io.aliases import ORDER
from brainsegnet.io.dicom import read_studies
from brainsegnet.io.images import READERS
from brainsegnet.metrics.table import Table, text_columns
from brainsegnet.pipeline.choose import choose
from brainsegnet.pipeline.headers import KINDS, read_words, weigh
from brainsegnet.pipeline.identify import Finding, find_images, identify_study
from brainsegnet.progress import Callback

_COLUMNS = ("series", "sequence", "confidence", "voxels (D, H, W)", "spacing mm", "plane", "reason")


def describe_study(path: Path, callback: Callback | None = None) -> Table:
    """Which sequence every series of a study is, with the reason.

    Args:
        path: Folder, zip or file of DICOM, or a folder of other images.
        callback: Hears the share of the DICOM files that is read.

    Raises:
        DatasetError: there is no image.
        ImageError: no series can be used.
    """
    if find_images(path):
        findings = identify_study(path)
        return _build_table(f"study {path}", findings, _tell_choices(findings))
    studies = read_studies(path, callback)
    findings = [finding for study in studies for finding in identify_study(study)]
    refused = [f"not used: {refusal}" for study in studies for refusal in study.refused]
    notes = [*studies[0].notes, *refused]
    if len(studies) == 1:
        return _build_table(f"study {path}", findings, [*_tell_choices(findings), *notes])
    remedy = f"{path} holds {len(studies)} studies; name the folder of one"
    return _build_table(f"{len(studies)} studies in {path}", findings, [remedy, *notes])


def tell_others(folder: Path, used: Collection[Path]) -> list[str]:
    """A sentence for each image of a folder that belongs to no case, but whose name is that of a sequence."""
    told = []
    for path in find_images(folder):
        verdict = weigh(read_words(stem_of(path, READERS), "name"))
        if path not in used and verdict.sequence in ORDER:
            told.append(f"{path.relative_to(folder)} may be {verdict.sequence}, but is no part of the case")
    return told


def _build_table(title: str, findings: Sequence[Finding], notes: Sequence[str]) -> Table:
    return Table(text_columns(*_COLUMNS), [_row(finding) for finding in findings], title, notes)


def _row(finding: Finding) -> tuple[str, ...]:
    shape, spacing = " x ".join(map(str, finding.shape)), " x ".join(f"{mm:.3g}" for mm in finding.spacing_mm)
    volumes = f"{len(finding.volumes)} volumes of " if len(finding.volumes) > 1 else ""
    sequence = KINDS.get(finding.sequence, finding.sequence) or "unknown"
    sure = f"{finding.confidence:.0%}" if finding.sequence else ""
    return finding.name, sequence, sure, volumes + shape, spacing, finding.plane, finding.reason


def _tell_choices(findings: Sequence[Finding]) -> list[str]:
    """A sentence for each sequence: which series stands for it, or why none does."""
    told = []
    for sequence in ORDER:
        try:
            found = choose(findings, [sequence])
        except DatasetError as error:
            told.append(str(error))
            continue
        if choice := found.get(sequence):
            told.append(f"{sequence}: {choice.name}{f', {choice.reason}' if choice.reason else ''}")
    return told or ["no sequence is recognised; name the files, as in --flair FILE"]
