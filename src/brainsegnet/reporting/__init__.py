"""Reports on a patient, a training, a model or predictions; and what is in a file or folder.

This file holds the options, which load no heavy library.
"""

from dataclasses import dataclass
from pathlib import Path

from brainsegnet._atomic import stem_of
from brainsegnet.errors import UsageError


@dataclass(frozen=True)
class ReportOptions:
    """The report on each case that `brainsegnet segment` writes.

    Raises:
        UsageError: identify is set without report.
    """

    report: bool = False
    """Also write a report on each case: one HTML page beside its label map, which opens offline. With the intervals of
    --uncertainty."""
    identify: bool = False
    """With --report: show the name of the case, and the names of its files and series. By default the page holds none,
    because they may tell who the patient is."""

    def __post_init__(self) -> None:
        if self.identify and not self.report:
            raise UsageError("--identify is for the report; add --report")


def name_page(path: Path) -> Path:
    """The report beside a label map.

    Examples:
        >>> name_page(Path("out/pat1.nii.gz")).as_posix()
        'out/pat1.html'
    """
    return path.with_name(f"{stem_of(path)}.html")
