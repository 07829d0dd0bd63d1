"""Paths to cases and studies (stand-in)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from brainsegnet.io.case_files import CaseFiles
from brainsegnet.io.cases import search_cases
from brainsegnet.io.dicom import DicomSeries, Study, read_studies
from brainsegnet.pipeline.choose import Choice, choose
from brainsegnet.pipeline.identify import find_images, identify_study
from brainsegnet.progress import Callback
from brainsegnet.volume import Volume


@dataclass(frozen=True, eq=False)
class StudyCase:
    name: str
    choices: Mapping[str, Choice]
    study: Study | None = None
    notes: tuple[str, ...] = ()

    def read(self, sequences: Sequence[str]) -> dict[str, Volume]:
        return {name: self.choices[name].read() for name in sequences if name in self.choices}

    def series_of(self, sequence: str) -> DicomSeries | None:
        source = self.choices[sequence].findings[0].source
        return source if isinstance(source, DicomSeries) else None


class Discovered(NamedTuple):
    cases: list[CaseFiles | StudyCase]
    failures: Mapping[str, str]
    left_out: Sequence[str] = ()


def find_all(
    paths: Sequence[Path], wanted: Sequence[str], given: Mapping[str, str], callback: Callback | None = None
) -> Discovered:
    cases: list[CaseFiles | StudyCase] = []
    failures: dict[str, str] = {}
    left: list[str] = []
    for path in paths:
        try:
            found = search_cases([path])
            cases += found.cases
            failures |= found.failures
            left += found.left_out
        except ValueError:
            study = None if find_images(path) else read_studies(path)[0]
            choices = choose(identify_study(study or path), wanted, given)
            cases.append(StudyCase(path.name, choices, study))
    return Discovered(cases, failures, left)
