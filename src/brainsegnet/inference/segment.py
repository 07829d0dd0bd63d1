"""`segment`: cases on disk to label maps on their own grids, each with a JSON beside it."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainsegnet._atomic import IMAGES, find_suffix, stem_of, writable
from brainsegnet.errors import BrainSegNetError, OutputError
from brainsegnet.inference.batch import BatchResult, run_batch
from brainsegnet.inference.options import SegmentOptions
from brainsegnet.inference.predict import LoadedCase, PreparedCase, RawPrediction
from brainsegnet.inference.segmenter import Segmenter
from brainsegnet.io.cases import CaseFiles, find_cases, load_case
from brainsegnet.io.images import READERS
from brainsegnet.io.layouts import names_lesion
from brainsegnet.model.card import Card
from brainsegnet.model.store import choose_model, resolve_model
from brainsegnet.preprocessing.alignment import Aligner
from brainsegnet.progress import Callback


@dataclass(frozen=True)
class SavedCase:
    """One case done: the file of its label map, and the content of the JSON beside it."""

    name: str
    path: Path
    report: Mapping[str, Any]


def segment(
    cases: Path | Sequence[Path] | Mapping[str, Path],
    model: Path | str | None,
    out: Path,
    options: SegmentOptions | None = None,
    callback: Callback | None = None,
) -> BatchResult[SavedCase]:
    """Segment one case or many on disk; cases are read and written while another one is computed.

    Args:
        cases: Folders of cases or tables; or one case as sequence name to file.
        model: Model folder, output folder of `train`, or name of a shipped model; None is the shipped model that uses
            most of the sequences of the cases.
        out: Label map to write; for more than one case, the folder that gets one for each, named after it.
        options: How to segment.
        callback: Hears of each case that is done, with its `SavedCase`.

    Raises:
        ModelError: the model cannot be used; without one, two cases need different models.
        DatasetError: no case is found.
        OutputError: the output cannot be written, or would be taken for the truth of a case that was found in a folder.
        BrainSegNetError: the only case cannot be used; of many, the bad ones are in `failures`.
    """
    case_files = _find(cases)
    opened = choose_model({case.name: case.images for case in case_files}) if model is None else resolve_model(model)
    targets = _plan_targets(case_files, out)
    if not isinstance(cases, Mapping):
        _refuse_truths(case_files, targets.values())
    segmenter = Segmenter(opened, options)

    def read(files: CaseFiles) -> LoadedCase | PreparedCase:
        loaded = _load(files, opened.card, segmenter.options)
        return segmenter.prepare(loaded) if segmenter.prepares_on_cpu else loaded

    def compute(case: LoadedCase | PreparedCase) -> RawPrediction:
        return segmenter.compute(case if isinstance(case, PreparedCase) else segmenter.prepare(case))

    def write(raw: RawPrediction) -> SavedCase:
        result = segmenter.finish(raw)
        path = targets[result.name]
        saved = SavedCase(result.name, path, result.save(path))
        if callback:
            callback.on_case(saved.name, saved)
        return saved

    batch = run_batch(case_files, read, compute, write, lambda files: files.name, segmenter.open)
    if len(case_files) == 1 and batch.failures:
        raise BrainSegNetError(next(iter(batch.failures.values())))
    return batch


def _find(cases: Path | Sequence[Path] | Mapping[str, Path]) -> list[CaseFiles]:
    if isinstance(cases, Mapping):
        return [CaseFiles(stem_of(next(iter(cases.values())), READERS), cases)]
    return find_cases([cases] if isinstance(cases, Path) else cases)


def _plan_targets(cases: Sequence[CaseFiles], out: Path) -> dict[str, Path]:
    """The label map of each case: `out` itself for a single one, or `out/<case>.nii.gz`.

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


def _refuse_truths(cases: Sequence[CaseFiles], targets: Iterable[Path]) -> None:
    """Refuse a label map with a name by which a later search of the folder would take it for the truth of a case.

    Raises:
        OutputError: a target is beside scans and is named like their truth.
    """
    folders = {path.resolve().parent for case in cases for path in case.images.values()}
    for target in targets:
        if names_lesion(target) and target.resolve().parent in folders:
            raise OutputError(
                f"{target} is beside the scans and would be taken for their truth; name another with --out"
            )


def _load(files: CaseFiles, card: Card, options: SegmentOptions) -> LoadedCase:
    """Read a case, with its truth if a picture is to show it; a truth that cannot be used becomes a note."""
    started = time.perf_counter()

    def read(lesion: bool, *notes: str) -> LoadedCase:
        aligner = Aligner(files.name, options.register)
        align = aligner if options.resample or options.register else None
        case = load_case(files, card.sequences, card.task, lesion=lesion, allow_missing=True, align=align)
        return LoadedCase(case, aligner.to_json(), notes, {"read": time.perf_counter() - started})

    if not (options.picture and files.lesion):
        return read(lesion=False)
    try:
        return read(lesion=True)
    except BrainSegNetError as error:
        return read(False, f"the picture is drawn without the truth, which cannot be used: {error}")
