"""`segment`: cases on disk to label maps on their own grids, each with a JSON beside it."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from brainsegnet._atomic import IMAGES, find_suffix, stem_of, writable
from brainsegnet.errors import BrainSegNetError, OutputError
from brainsegnet.inference.batch import run_batch
from brainsegnet.inference.options import SegmentOptions
from brainsegnet.inference.predict import PreparedCase, RawPrediction
from brainsegnet.inference.segmenter import Segmenter
from brainsegnet.io.cases import CaseFiles, find_cases, load_case
from brainsegnet.io.images import READERS
from brainsegnet.io.layouts import names_lesion
from brainsegnet.model.card import Card
from brainsegnet.model.store import choose_model, resolve_model
from brainsegnet.preprocessing.alignment import Aligner
from brainsegnet.volume import Case


@dataclass(frozen=True)
class SavedCase:
    """One case done: the file of its label map, and the content of the JSON beside it."""

    name: str
    path: Path
    report: Mapping[str, Any]


@dataclass(frozen=True)
class SegmentedCases:
    """All cases of a run: those done, and those that could not be, each with a sentence.

    `seconds` is the time that all took, `computing` how much of it the network was at work.
    """

    done: Sequence[SavedCase]
    failures: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0
    computing: float = 0


@dataclass(frozen=True, eq=False)
class _Loaded:
    """A case that was read, and prepared unless a GPU is to do that.

    Attributes:
        case, prepared: As read, and for the network.
        seconds: That reading took.
        aligner: How its sequences came onto one grid.
        notes: What could not be read, and is not needed for the labels.
    """

    case: Case
    prepared: PreparedCase | None
    seconds: float
    aligner: Aligner
    notes: tuple[str, ...] = ()


def segment(
    cases: Path | Sequence[Path] | Mapping[str, Path],
    model: Path | str | None,
    out: Path,
    options: SegmentOptions | None = None,
    watch: Callable[[SavedCase], None] | None = None,
) -> SegmentedCases:
    """Segment one case or many on disk.

    Cases are read and written while another one is computed.

    Args:
        cases: Folders of cases or tables; or one case as sequence name to file.
        model: Model folder, output folder of `train`, or name of a shipped model; None is the shipped model that uses
            most of the sequences of the cases.
        out: Label map to write; for more than one case, the folder that gets one for each, named after it.
        options: How.
        watch: Called with each case that is done.

    Raises:
        ModelError: the model cannot be used; without one, two cases call for different models.
        DatasetError: no case is found.
        OutputError: the output cannot be written, or would pass for the truth of a case that was found in a folder.
        BrainSegNetError: a single case cannot be used; of many, the bad ones are in `failures`.
    """
    found = _find(cases)
    opened = choose_model({case.name: case.images for case in found}) if model is None else resolve_model(model)
    targets = _targets(found, out)
    if not isinstance(cases, Mapping):
        _refuse_truths(found, targets.values())
    segmenter = Segmenter(opened, options)

    def read(files: CaseFiles) -> _Loaded:
        started = time.perf_counter()
        case, aligner, notes = _read(files, opened.card, segmenter.options)
        reading = time.perf_counter() - started
        prepared = segmenter.prepare(case) if segmenter.prepares_on_cpu else None
        return _Loaded(case, prepared, reading, aligner, notes)

    def start() -> Callable[[CaseFiles, _Loaded], tuple[RawPrediction, _Loaded]]:
        segmenter.open()
        return lambda files, loaded: (segmenter.compute(loaded.prepared or segmenter.prepare(loaded.case)), loaded)

    def write(files: CaseFiles, computed: tuple[RawPrediction, _Loaded]) -> SavedCase:
        raw, loaded = computed
        result = segmenter.finish(raw)
        result = replace(
            result,
            seconds={"read": loaded.seconds, **result.seconds},
            moved=loaded.aligner.to_json(),
            notes=(*result.notes, *loaded.notes),
        )
        done = SavedCase(files.name, targets[files.name], result.save(targets[files.name]))
        if watch:
            watch(done)
        return done

    batch = run_batch(found, read, start, write, lambda files: files.name)
    if len(found) == 1 and batch.failures:
        raise BrainSegNetError(next(iter(batch.failures.values())))
    return SegmentedCases(batch.results, batch.failures, batch.seconds, batch.computing)


def _refuse_truths(cases: Sequence[CaseFiles], targets: Iterable[Path]) -> None:
    """Refuse names that would make a result the truth of a case, where its folder is searched again.

    Raises:
        OutputError: a target lies beside scans and is named like their truth.
    """
    homes = {path.resolve().parent for case in cases for path in case.images.values()}
    for target in targets:
        if names_lesion(target) and target.resolve().parent in homes:
            raise OutputError(f"{target} lies beside the scans and would pass for their truth; name another with --out")


def _find(cases: Path | Sequence[Path] | Mapping[str, Path]) -> list[CaseFiles]:
    if isinstance(cases, Mapping):
        return [CaseFiles(stem_of(next(iter(cases.values())), READERS), cases)]
    return find_cases([cases] if isinstance(cases, Path) else cases)


def _read(files: CaseFiles, card: Card, options: SegmentOptions) -> tuple[Case, Aligner, tuple[str, ...]]:
    """A case, with its truth if that is to be drawn and can be; how it was brought onto one grid, and notes."""

    def load(lesion: bool) -> tuple[Case, Aligner]:
        aligner = Aligner(files.name, options.register)
        align = aligner if options.resample or options.register else None
        return load_case(files, card.sequences, card.task, lesion=lesion, allow_missing=True, align=align), aligner

    if not (options.picture and files.lesion):
        return *load(False), ()
    try:
        return *load(True), ()
    except BrainSegNetError as error:
        return *load(False), (f"the picture is drawn without the truth, which cannot be used: {error}",)


def _targets(cases: Sequence[CaseFiles], out: Path) -> dict[str, Path]:
    """The label map of each case: `out` itself for a single one, or `out/<case>.nii.gz`; made sure to be writable.

    Raises:
        OutputError: `out` names a file but there are many cases, it is one of the images, or it cannot be written.
    """
    one_file = find_suffix(out, IMAGES) and not out.is_dir()
    if one_file and len(cases) > 1:
        raise OutputError(f"{len(cases)} cases do not fit into {out}; name a folder with --out")
    targets = {case.name: out if one_file else out / f"{case.name}.nii.gz" for case in cases}
    images = {path.resolve() for case in cases for path in (*case.images.values(), case.lesion) if path}
    for target in targets.values():
        if target.resolve() in images:
            raise OutputError(f"{target} is a file of the case itself; name another with --out")
        writable(target)
    return targets
