"""A raw study as a case: which series stands for each sequence, and why."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from brainsegnet.errors import DatasetError, MissingSequence
from brainsegnet.io.aliases import ORDER
from brainsegnet.io.case_files import CaseFiles
from brainsegnet.io.dicom import DicomSeries, Study
from brainsegnet.model.store import Candidate
from brainsegnet.pipeline.choose import NAMED, Choice, choose_each
from brainsegnet.pipeline.headers import KINDS
from brainsegnet.pipeline.identify import Finding, StoredImage, identify_study
from brainsegnet.task import TUMOUR
from brainsegnet.volume import Volume

DIFFUSION = {"dwi", "adc"}
MOST = 6
"""So many series are named where none can be used."""


@dataclass(frozen=True, eq=False)
class StudyCase:
    """A raw study: series of DICOM, or image files, each on its own grid.

    Attributes:
        name: Of the case, after its folder.
        home: Folder, zip or file of the study.
        findings: What every series is.
        choices: Sequence to the series that stands for it.
        unclear: Sequence to a sentence that says why no series was chosen, though there are some.
        study: The DICOM study; None for image files.
        notes: On the files, as sentences without a stop.
    """

    name: str
    home: Path
    findings: tuple[Finding, ...]
    choices: Mapping[str, Choice]
    unclear: Mapping[str, str] = field(default_factory=dict)
    study: Study | None = None
    notes: tuple[str, ...] = ()

    @property
    def sequences(self) -> tuple[str, ...]:
        """The sequences that the study has, those that are unclear among them."""
        return tuple(name for name in ORDER if name in self.choices or name in self.unclear)

    @property
    def age_years(self) -> float | None:
        """Of the patient; None if no header tells it."""
        return next((age for finding in self.findings if (age := finding.header.age_years) is not None), None)

    @property
    def body_parts(self) -> tuple[str, ...]:
        """What the headers of the chosen series say was examined, each once."""
        parts = (finding.header.body_part for choice in self.choices.values() for finding in choice.findings)
        return tuple(dict.fromkeys(filter(None, parts)))

    def check(self, sequences: Iterable[str]) -> list[str]:
        """Those of the sequences that the study has.

        Raises:
            DatasetError: it is unclear which series one of them is.
            MissingSequence: it has none of them.
        """
        sequences = list(sequences)
        for sequence in sequences:
            if sequence in self.unclear:
                raise DatasetError(f"case {self.name}: {self.unclear[sequence]}")
        self.check_any(sequences)
        return [sequence for sequence in sequences if sequence in self.choices]

    def check_any(self, sequences: Iterable[str]) -> None:
        """Check that the study has at least one of the sequences.

        Raises:
            DatasetError: it is unclear which series it is.
            MissingSequence: it has none of them.
        """
        sequences = list(sequences)
        if {*sequences} & {*self.choices}:
            return
        for sequence in sequences:
            if sequence in self.unclear:
                raise DatasetError(f"case {self.name}: {self.unclear[sequence]}")
        raise MissingSequence(
            f"case {self.name}: none of {', '.join(sequences)} is found in {self.home}, which has "
            f"{describe_findings(self.findings)}; name the series, as in --{sequences[0]} SERIES"
        )

    def read(self, sequences: Iterable[str]) -> dict[str, Volume]:
        """The volumes of those of the sequences that the study has, each on its own grid; an ADC in 1e-6 mm2/s.

        Raises:
            DatasetError: it is unclear which series one of them is.
            MissingSequence: it has none of them.
            ImageError: a file is gone or damaged, or an ADC map has the values of none.
        """
        present = self.check(sequences)
        with ThreadPoolExecutor() as pool:
            return dict(zip(present, pool.map(lambda name: self.choices[name].read(), present), strict=True))

    def series_of(self, sequence: str) -> DicomSeries | None:
        """The DICOM series of a sequence, the first of two; None for image files and for what is not chosen."""
        choice = self.choices.get(sequence)
        source = choice.findings[0].source if choice else None
        return source if isinstance(source, DicomSeries) else None

    def tell_corrections(self, sequences: Iterable[str]) -> list[str]:
        """Which slices the reader filled or moved in those of the sequences that the study has, as sentences."""
        told: dict[str, None] = {}
        for name in self.choices.keys() & {*sequences}:
            for source in (finding.source for finding in self.choices[name].findings):
                notes = (
                    [note for stack in source.stacks for note in stack.notes] if isinstance(source, DicomSeries) else []
                )
                told |= dict.fromkeys(f"{name} ({source.name}): {note}" for note in notes)
        return sorted(told)

    def files_of(self, sequence: str) -> list[Path]:
        """The files of a sequence; of a zip, the zip itself."""
        paths: list[Path] = []
        for finding in self.choices[sequence].findings:
            source = finding.source
            paths += [source.path] if isinstance(source, StoredImage) else source.files
        return list(dict.fromkeys(paths))

    def describe(self) -> list[str]:
        """A sentence for each sequence: which series it is, and why; then for those that are unclear."""
        return [describe_choice(choice) for choice in self.choices.values()] + list(self.unclear.values())


def build_case(
    name: str,
    home: Path,
    findings: Sequence[Finding],
    given: Mapping[str, str] | None = None,
    study: Study | None = None,
    notes: Sequence[str] = (),
) -> StudyCase:
    """The case of a study, with one series for each sequence where that is clear.

    Args:
        name: Of the case.
        home: Folder, zip or file of the study.
        findings: What every series is.
        given: Sequence to what stands for it: name, file or number of a series of the study, or the path of an image
            or of a DICOM series.
        study: The DICOM study, if it is one.
        notes: On the files.

    Raises:
        DatasetError: what is given is not there, or is there twice.
        ImageError: a file that is given cannot be used.
    """
    named: dict[str, str] = {}
    opened: dict[str, Choice] = {}
    for sequence, word in (given or {}).items():
        if not is_among(word, findings) and Path(word).exists():
            opened[sequence] = open_choice(sequence, Path(word))
        else:
            named[sequence] = word
    try:
        choices, unclear = choose_each(findings, [name for name in ORDER if name not in opened], named)
    except DatasetError as error:
        raise DatasetError(f"case {name}: {error}") from error
    choices = dict(sorted({**choices, **opened}.items(), key=lambda item: ORDER.index(item[0])))
    refused = [f"not used: {refusal}" for refusal in study.refused] if study else []
    return StudyCase(
        name, home, tuple(findings), choices, unclear, study, (*(study.notes if study else ()), *refused, *notes)
    )


def is_among(word: str, findings: Iterable[Finding]) -> bool:
    """Whether a word names a series, as `choose` takes it."""
    return any(finding.is_called(word) for finding in findings)


def open_choice(sequence: str, path: Path) -> Choice:
    """What a path stands for: an image, or a DICOM series as a folder, zip or file.

    Raises:
        DatasetError: it holds no image, or several series.
        ImageError: it cannot be used.
    """
    findings = identify_study(path, look=False)
    if sequence in ("dwi", "adc", "pwi"):  # one series holds several b-values, or a volume for each time
        findings = [finding for finding in findings if finding.sequence == sequence] or findings
    if len(findings) != 1:
        raise DatasetError(f"{sequence}: {path} holds {describe_findings(findings)}; name one of them")
    return Choice(sequence, tuple(findings), NAMED)


def describe_findings(findings: Sequence[Finding]) -> str:
    """The series and what each is, in words."""
    kinds = [f"{item.name} ({KINDS.get(item.sequence, item.sequence) or 'unknown'})" for item in findings[:MOST]]
    more = [f"{len(findings) - MOST} more"] if len(findings) > MOST else []
    return ", ".join([*kinds, *more]) or "no series that can be used"


def describe_choice(choice: Choice) -> str:
    """Which series a sequence is, and why: "t2: series 3 (tse), long repetition and echo"."""
    if choice.reason == NAMED or len(choice.findings) > 1:
        return f"{choice.sequence}: {choice.name}, {choice.reason}"
    reasons = filter(None, (choice.reason, choice.findings[0].reason))
    return f"{choice.sequence}: {choice.name}, {'; '.join(reasons)}"


def know(case: CaseFiles | StudyCase) -> Candidate:
    """What is known of a case before a model is chosen for it.

    Scans of tumours hold a diffusion scan too; those of strokes rarely hold one with contrast agent.
    """
    if isinstance(case, CaseFiles):
        return Candidate([*case.images], case.disease, case.source)
    if DIFFUSION & {*case.sequences} and "t1c" in case.sequences:
        return Candidate(case.sequences, TUMOUR, "T1 with contrast agent")
    return Candidate(case.sequences)
