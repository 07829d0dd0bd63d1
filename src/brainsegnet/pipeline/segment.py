"""`segment`: segment cases on disk, and write a label map and a JSON for each.

One case is read and one is written while another is computed. A case that fails does not stop the others.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from brainsegnet._atomic import IMAGES, OutputOptions, claiming, find_suffix, stem_of, writable
from brainsegnet.errors import BrainSegNetError, OutputError
from brainsegnet.inference import SegmentOptions
from brainsegnet.pipeline.existing import check_unchanged, describe_inputs, find_done
from brainsegnet.inference.predict import LoadedCase, PreparedCase, RawPrediction
from brainsegnet.inference.segmenter import Segmenter
from brainsegnet.io.cases import CaseFiles, CaseSearch, load_case, search_cases
from brainsegnet.io.images import READERS
from brainsegnet.io.layouts import names_lesion
from brainsegnet.io.limits import allow_voxels
from brainsegnet.model.card import Card
from brainsegnet.model.store import Candidate, Model, choose_model, resolve_model
from brainsegnet.preprocessing.alignment import Aligner
from brainsegnet.progress import Callback, CaseCounter


@dataclass(frozen=True)
class SavedCase:
    """One segmented case on disk.

    Attributes:
        name: Name of the case.
        path: File of its label map.
        report: Content of the JSON beside the label map.
        seconds: Seconds from the start of its reading to the end of its writing.
    """

    name: str
    path: Path
    report: Mapping[str, Any]
    seconds: float = 0

    @property
    def is_empty(self) -> bool:
        """Whether no lesion was found."""
        return not any(self.report["volumes_ml"]["labels"].values())


@dataclass(frozen=True)
class BatchResult:
    """What `segment` did: the cases that succeeded, in their order, and those that failed.

    Attributes:
        done: The cases that succeeded.
        failures: Name of each case that failed, to a sentence that says why.
        left_out: A sentence on each folder whose images are not recognised by their names.
        skipped: The cases that were done already, with `skip_existing`.
        seconds: Seconds from the start of the first reading to the end of the last writing.
        computing: Seconds of these in which a case was prepared or in the network.
    """

    done: Sequence[SavedCase] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    seconds: float = 0
    computing: float = 0
    skipped: Sequence[SavedCase] = ()


def segment(
    cases: Path | Sequence[Path] | Mapping[str, Path],
    model: Path | str | None,
    out: Path,
    options: SegmentOptions | None = None,
    callback: Callback | None = None,
    output: OutputOptions | None = None,
) -> BatchResult:
    """Segment one case or many on disk, and write a label map and a JSON for each.

    Args:
        cases: Folders of cases, or tables; or one case as sequence name to file.
        model: Name of a shipped model, model folder, or output folder of `train`. None chooses the shipped model for
            the disease that the data set tells. Where it tells none, DWI or ADC means stroke, else it is a tumour.
        out: Label map to write. For several cases, the folder that gets one label map each.
        options: How to segment.
        callback: Its `on_message` receives the reason for a chosen model, its `on_case` the `SavedCase` of each case,
            and its `on_progress` how many are done.
        output: What happens to results that exist already. By default they are refused.

    Returns:
        The cases that succeeded, each with its label map and report, and a sentence for each that failed.

    Raises:
        ModelError: the model cannot be used. Or no model is named, and none fits, or two cases need different ones.
        DatasetError: no case is found.
        OutputError: the output exists or cannot be written, or a later search would take it for the truth of a case.
        BrainSegNetError: the only case cannot be used. Of several cases, those that fail are in `failures`.
    """
    if named := isinstance(cases, Mapping):
        search = CaseSearch([CaseFiles(stem_of(next(iter(cases.values())), READERS), cases)], {})
    else:
        search = search_cases([cases] if isinstance(cases, Path) else cases)
    case_files, total = search.cases, len(search.cases) + len(search.failures)
    if not case_files:
        raise BrainSegNetError("; ".join(search.failures.values()))
    opened = _choose_model(case_files, callback) if model is None else resolve_model(model)
    targets = _plan_targets(case_files, out, found=not named, total=total)
    segmenter, output = Segmenter(opened, options), output or OutputOptions()
    with claiming(next(iter(targets.values())).parent, [path.name for path in targets.values()]):
        notes = find_done(case_files, targets, opened.card, segmenter.options, output)
        if notes and callback:
            callback.on_message(f"{len(notes)} of {total} cases are done already and are left out")
        batch = _segment_all([case for case in case_files if case.name not in notes], targets, segmenter, callback)
    if total == 1 and batch.failures:
        raise BrainSegNetError(next(iter(batch.failures.values())))
    skipped = [SavedCase(name, targets[name], note) for name, note in notes.items()]
    failures = {**search.failures, **batch.failures}
    return replace(batch, failures=failures, left_out=search.left_out, skipped=skipped)


def _segment_all(
    cases: Sequence[CaseFiles], targets: Mapping[str, Path], segmenter: Segmenter, callback: Callback | None
) -> BatchResult:
    card, started, counter = segmenter.model.card, dict[str, float](), CaseCounter(callback, len(cases))

    def read(files: CaseFiles) -> LoadedCase | PreparedCase:
        started[files.name] = time.perf_counter()
        with allow_voxels(segmenter.options.max_voxels):
            loaded = _load(files, card, segmenter.options)
        return segmenter.prepare(loaded) if segmenter.prepares_on_cpu else loaded

    def compute(case: LoadedCase | PreparedCase) -> RawPrediction:
        return segmenter.compute(case if isinstance(case, PreparedCase) else segmenter.prepare(case))

    def write(raw: RawPrediction) -> SavedCase:
        result = segmenter.finish(raw)
        path = targets[result.name]
        report = result.save(path)
        saved = SavedCase(result.name, path, report, time.perf_counter() - started[result.name])
        if callback:
            callback.on_case(saved.name, saved)
        return saved

    return run_batch(cases, read, compute, write, lambda files: files.name, segmenter.open, counter.advance)


def _choose_model(cases: Sequence[CaseFiles], callback: Callback | None) -> Model:
    """The shipped model for these cases. The callback hears which, and why."""
    choice = choose_model({case.name: Candidate([*case.images], case.disease, case.source) for case in cases})
    if callback:
        callback.on_message(f"model {choice.model.card.name}, because {choice.reason}; --model names another")
    return choice.model


def _plan_targets(cases: Sequence[CaseFiles], out: Path, found: bool, total: int) -> dict[str, Path]:
    """The label map of each case: `out` itself if the `total` is one case, or `out/<case>.nii.gz`.

    Raises:
        OutputError: `out` names a file but there are many cases, a target is one of the images or cannot be written, or
            a later search of the folder in which cases were `found` would take it for their truth.
    """
    one_file = find_suffix(out, IMAGES) and not out.is_dir()
    if one_file and total > 1:
        raise OutputError(f"{total} cases do not fit into {out}; name a folder with --out")
    targets = {case.name: out if one_file else out / f"{case.name}.nii.gz" for case in cases}
    scans = {path.resolve() for case in cases for path in case.images.values()}
    folders = {scan.parent for scan in scans} if found else set()
    files = scans | {case.lesion.resolve() for case in cases if case.lesion}
    for target in targets.values():
        if target.resolve() in files:
            raise OutputError(f"{target} is a file of the case itself; name another with --out")
        writable(target)
        if names_lesion(target) and target.resolve().parent in folders:
            raise OutputError(
                f"{target} is beside the scans and would be taken for their truth; name another with --out"
            )
    return targets


def _load(files: CaseFiles, card: Card, options: SegmentOptions) -> LoadedCase:
    """Read a case, with its truth if a picture is to show it; a truth that cannot be used becomes a note."""
    started, before = time.perf_counter(), describe_inputs(files, card.sequences, content=False)

    def read(lesion: bool, *notes: str) -> LoadedCase:
        first = next((name for name in card.sequences if name in files.images), "the first sequence")
        aligner = Aligner(files.name, options.register, first)
        align = aligner if options.resample or options.register else None
        case = load_case(files, card.sequences, card.task, lesion=lesion, allow_missing=True, align=align)
        inputs = describe_inputs(files, card.sequences, content=True)
        check_unchanged(files.name, before, inputs)
        return LoadedCase(case, aligner.to_json(), notes, {"read": time.perf_counter() - started}, inputs)

    if not (options.picture and files.lesion):
        return read(lesion=False)
    try:
        return read(lesion=True)
    except BrainSegNetError as error:
        return read(False, f"the picture is drawn without the truth, which cannot be used: {error}")


def run_batch(
    items: Iterable[CaseFiles],
    read: Callable[[CaseFiles], LoadedCase | PreparedCase],
    compute: Callable[[LoadedCase | PreparedCase], RawPrediction],
    write: Callable[[RawPrediction], SavedCase],
    name: Callable[[CaseFiles], str] = str,
    start: Callable[[], object] = lambda: None,
    advance: Callable[[], object] = lambda: None,
) -> BatchResult:
    """Read, compute and write each item in a pipeline, with at most four items in memory.

    `compute` runs in the calling thread. Meanwhile `read` runs in another thread for the next item, and `write` in a
    third for the previous one. User errors, errors of the operating system and lack of memory become failures of their
    item. Any other error, an error in `start` and Ctrl-C end the batch.

    Args:
        items: Cases to process.
        read: Reads an item.
        compute: Runs the network.
        write: Writes a result.
        name: Gives the case name of an item; names must differ.
        start: Called once, while the first item is read; for example to load a model.
        advance: Called after each item that is written or has failed.
    """
    done: list[SavedCase] = []
    failures: dict[str, str] = {}
    beginning, computing = time.perf_counter(), 0.0
    last_write: tuple[str, Future[SavedCase]] | None = None

    def finish(case: str, writing: Future[SavedCase]) -> None:
        with _record_failure(case, failures, advance):
            done.append(writing.result())
            advance()

    with ThreadPoolExecutor(1, thread_name_prefix="write") as writer:
        for number, (item, reading) in enumerate(_read_ahead(items, read)):
            if number == 0:
                start()
            case = name(item)
            with _record_failure(case, failures, advance):
                loaded, before = reading.result(), time.perf_counter()
                computed = compute(loaded)
                computing += time.perf_counter() - before
                former, last_write = last_write, (case, writer.submit(write, computed))
                if former is not None:
                    finish(*former)
        if last_write is not None:
            finish(*last_write)
    return BatchResult(done, failures, (), time.perf_counter() - beginning, computing)


@contextmanager
def _record_failure(case: str, failures: dict[str, str], advance: Callable[[], object]) -> Iterator[None]:
    """Note a failure as one sentence that names the case."""
    try:
        yield
    except (BrainSegNetError, OSError, MemoryError) as error:
        text = str(error)
        if isinstance(error, OSError):
            text = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
        text = text or "there is not enough memory; cut the scan into slabs"
        failures[case] = text if case in text else f"case {case}: {text}"
        advance()


def _read_ahead(
    items: Iterable[CaseFiles], read: Callable[[CaseFiles], LoadedCase | PreparedCase]
) -> Iterator[tuple[CaseFiles, Future[LoadedCase | PreparedCase]]]:
    """Each item with the future of its loaded form; the next item is being read already."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="read")
    readings = ((item, pool.submit(read, item)) for item in items)
    try:
        ahead = next(readings, None)
        while ahead is not None:
            current, ahead = ahead, next(readings, None)
            yield current
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
