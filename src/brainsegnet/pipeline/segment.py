"""`segment`: studies and cases on disk, one or many; a label map and a JSON for each, in the space of the scanner."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from brainsegnet._atomic import OutputOptions, claiming
from brainsegnet._machine import require_space
from brainsegnet.errors import BrainSegNetError
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.predict import LoadedCase, PreparedCase, RawPrediction
from brainsegnet.inference.segmentation import Segmentation
from brainsegnet.inference.segmenter import Segmenter
from brainsegnet.io.case_files import CaseFiles
from brainsegnet.io.limits import allow_voxels
from brainsegnet.model.store import Model, choose_model, resolve_model, shipped_models
from brainsegnet.pipeline.batch import BatchResult, Outcome, SavedCase, run_batch, run_steps
from brainsegnet.pipeline.discover import Discovered, find_all, name_files
from brainsegnet.pipeline.existing import find_done
from brainsegnet.pipeline.load import load
from brainsegnet.pipeline.outputs import plan_targets
from brainsegnet.pipeline.study_case import StudyCase, know
from brainsegnet.progress import Callback, CaseCounter

LEAST_SPACE = 1_900_000_000
"""Bytes of address space for the libraries, their threads and a scan; with less, a library may end the process."""


Stage = Literal["read", "wait", "network", "write"]


@dataclass(frozen=True)
class Pending:
    """A case that is still to be segmented.

    Attributes:
        name: Of the case.
        target: Its label map.
        open: Finds its files, in the thread that reads.
        enter: Called with each stage that the case enters; an error there drops the case.
        save: Writes the result to `target` with what is added to the JSON, and gives the content of the JSON.
    """

    name: str
    target: Path
    open: Callable[[], CaseFiles | StudyCase]
    enter: Callable[[Stage], object] = lambda stage: None
    save: Callable[[Segmentation, Path, Mapping[str, Any]], Mapping[str, Any]] = Segmentation.save


def segment(
    cases: Path | Sequence[Path] | Mapping[str, Path],
    model: Path | str | None,
    out: Path,
    options: SegmentOptions | None = None,
    callback: Callback | None = None,
    output: OutputOptions | None = None,
    given: Mapping[str, str] | None = None,
) -> BatchResult:
    """Segment one case or many on disk, and write a label map and a JSON for each.

    Args:
        cases: Studies as they come from the scanner (folder, zip or file of DICOM, or folder of other images), folders
            of cases, or tables; or one case as sequence name to file, or to a folder of one DICOM series.
        model: Name of a shipped model, model folder, or output folder of `train`. None chooses the shipped model for
            the disease that the data set tells. Where it tells none, DWI or ADC means stroke, else it is a tumour.
        out: Label map to write. For several cases, the folder that gets one label map each.
        options: How to segment.
        callback: Its `on_message` receives the reason for a chosen model, its `on_case` the `SavedCase` of each case,
            and its `on_progress` how many are done.
        output: What happens to results that exist already. By default they are refused.
        given: Sequence to what stands for it in a study, whatever it seems to be: the number or name of a series, or a
            file.

    Returns:
        The cases that succeeded, each with its label map and report, and a sentence for each that failed.

    Raises:
        ModelError: the model cannot be used. Or no model is named, and none fits, or two cases need different ones.
        DatasetError: no case is found.
        OutputError: the output exists or cannot be written, or a later search would take it for the truth of a case.
        BrainSegNetError: the only case cannot be used. Of several cases, those that fail are in `failures`.
        MemoryError: the limit on memory (`ulimit -v`) leaves less than libraries and a scan of 1 mm need.
    """
    require_space(LEAST_SPACE)
    opened = None if model is None else resolve_model(model)
    search = _find(cases, opened, given or {}, callback)
    found, total = search.cases, len(search.cases) + len(search.failures)
    if not found:
        raise BrainSegNetError("; ".join(search.failures.values()))
    opened = opened or _choose_model(found, callback)
    options, output = options or SegmentOptions(), output or OutputOptions()
    _check_options(options, total)
    targets = plan_targets(found, out, searched=not isinstance(cases, Mapping), total=total)
    segmenter = Segmenter(opened, options)
    with claiming(next(iter(targets.values())).parent, [path.name for path in targets.values()]):
        notes = find_done(found, targets, opened.card, options, output)
        if notes and callback:
            callback.on_message(f"{len(notes)} of {total} cases are done already and are left out")
        batch = _segment_all([case for case in found if case.name not in notes], targets, segmenter, callback)
    if total == 1 and batch.failures:
        raise BrainSegNetError(next(iter(batch.failures.values())))
    skipped = [SavedCase(name, targets[name], note) for name, note in notes.items()]
    failures = {**search.failures, **batch.failures}
    return replace(batch, failures=failures, left_out=search.left_out, skipped=skipped)


def _find(
    cases: Path | Sequence[Path] | Mapping[str, Path],
    model: Model | None,
    given: Mapping[str, str],
    callback: Callback | None,
) -> Discovered:
    """The cases and studies to segment. Errors are those of `segment`."""
    if isinstance(cases, Mapping):
        return Discovered([name_files(cases)])
    models = [model] if model else shipped_models().values()
    wanted = dict.fromkeys(name for one in models for name in one.card.sequences)
    return find_all([cases] if isinstance(cases, Path) else cases, [*wanted], given, callback)


def _check_options(options: SegmentOptions, total: int) -> None:
    if options.brain_mask is not None and total > 1:
        raise BrainSegNetError(f"{options.brain_mask} is the brain mask of one case, and there are {total}; name one")


def segment_each(
    cases: Iterable[Pending], segmenter: Segmenter, record: Callable[[str], Mapping[str, Any]] = lambda name: {}
) -> Iterator[Outcome]:
    """Segment cases that are given one by one, and forget each when it is done, so that there may be any number.

    Args:
        cases: What to segment. A case is taken when its reading begins, one ahead of the network.
        segmenter: The model, and how to segment.
        record: Gives what is added to the JSON of a case, by its name.

    Yields:
        What became of each case. Errors are those of `run_steps`.
    """
    steps = _Steps(segmenter, record)
    for outcome in run_steps(cases, steps.read, steps.compute, steps.write, lambda case: case.name, segmenter.open):
        steps.forget(outcome.name)
        yield outcome


def _segment_all(
    cases: Sequence[CaseFiles | StudyCase],
    targets: Mapping[str, Path],
    segmenter: Segmenter,
    callback: Callback | None,
) -> BatchResult:
    steps, counter = _Steps(segmenter, lambda name: {}), CaseCounter(callback, len(cases))

    def write(raw: RawPrediction) -> SavedCase:
        saved = steps.write(raw)
        if callback:
            callback.on_case(saved.name, saved)
        return saved

    pending = [Pending(case.name, targets[case.name], partial(_itself, case)) for case in cases]
    return run_batch(pending, steps.read, steps.compute, write, lambda case: case.name, segmenter.open, counter.advance)


def _itself(case: CaseFiles | StudyCase) -> CaseFiles | StudyCase:
    return case


@contextmanager
def _stage(pending: Pending, stage: Stage) -> Iterator[None]:
    """A stage of a case, after which it waits for the next one."""
    try:
        pending.enter(stage)
        yield
    finally:
        pending.enter("wait")


class _Steps:
    """What is done with each case: it is read, computed and written. One of each may run at a time."""

    def __init__(self, segmenter: Segmenter, record: Callable[[str], Mapping[str, Any]]) -> None:
        self._segmenter, self._record = segmenter, record
        self._started: dict[str, tuple[Pending, float]] = {}

    def read(self, pending: Pending) -> LoadedCase | PreparedCase:
        begun, segmenter = time.perf_counter(), self._segmenter
        with _stage(pending, "read"), allow_voxels(segmenter.options.max_voxels):
            loaded = load(pending.open(), segmenter, pending.target.parent)
            self._started[pending.name] = (pending, begun)
            return segmenter.prepare(loaded) if segmenter.prepares_on_cpu else loaded

    def compute(self, case: LoadedCase | PreparedCase) -> RawPrediction:
        loaded = case.loaded if isinstance(case, PreparedCase) else case
        with _stage(self._started[loaded.case.name][0], "network"):
            return self._segmenter.compute(case if isinstance(case, PreparedCase) else self._segmenter.prepare(case))

    def write(self, raw: RawPrediction) -> SavedCase:
        pending, begun = self._started.pop(raw.prepared_case.loaded.case.name)
        with _stage(pending, "write"):
            result = self._segmenter.finish(raw)
            report = pending.save(result, pending.target, self._record(result.name))
            return SavedCase(result.name, pending.target, report, time.perf_counter() - begun)

    def forget(self, name: str) -> None:
        self._started.pop(name, None)


def _choose_model(cases: Sequence[CaseFiles | StudyCase], callback: Callback | None) -> Model:
    """The shipped model for these cases. The callback hears which, and why."""
    choice = choose_model({case.name: know(case) for case in cases})
    if callback:
        callback.on_message(f"model {choice.model.card.name}, because {choice.reason}; --model names another")
    return choice.model
