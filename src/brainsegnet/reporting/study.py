"""The series of a raw study as a table: which sequence each is, and why, and which of them `segment` would take."""

from collections.abc import Sequence
from pathlib import Path

from brainsegnet.errors import DatasetError
from brainsegnet.io.aliases import ORDER
from brainsegnet.io.dicom import read_study
from brainsegnet.metrics.table import Table, text_columns
from brainsegnet.pipeline.choose import choose
from brainsegnet.pipeline.headers import KINDS
from brainsegnet.pipeline.identify import Finding, find_images, identify_study
from brainsegnet.progress import Callback

_COLUMNS = ("series", "sequence", "confidence", "voxels (D, H, W)", "spacing mm", "plane", "reason")


def describe_study(path: Path, callback: Callback | None = None) -> Table:
    """Which sequence every series of a study is, with the reason.

    Args:
        path: Folder, zip or file of DICOM, or a folder of other images.
        callback: Hears the share of the DICOM files that is read.

    Raises:
        DatasetError: there is no image, or there are several studies.
        ImageError: no series can be used.
    """
    study = None if find_images(path) else read_study(path, callback)
    findings = identify_study(path if study is None else study)
    refused = [f"not used: {refusal}" for refusal in study.refused] if study else []
    notes = [*(study.notes if study else ()), *refused]
    rows = [_row(finding) for finding in findings]
    return Table(text_columns(*_COLUMNS), rows, f"study {path}", [*_tell_choices(findings), *notes])


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
