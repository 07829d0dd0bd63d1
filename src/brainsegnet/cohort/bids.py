"""A BIDS data set as a whole, in the manner of a BIDS App: `participant` segments each participant and session.

Scans are found and read as by `segment`. Each participant and session is searched by itself, in the raw data alone, so
that derivatives in the same data set are never taken for its images.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from brainsegnet._atomic import OutputOptions, claiming, writable
from brainsegnet._machine import require_space
from brainsegnet.cohort import BidsOptions
from brainsegnet.cohort.derivatives import Derivatives, Visit, check_description
from brainsegnet.errors import BrainSegNetError, DatasetError, OutputError, UsageError
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.segmenter import Segmenter
from brainsegnet.io.case_files import CaseFiles
from brainsegnet.model.store import Model, choose_model, resolve_model, shipped_models
from brainsegnet.pipeline.batch import BatchResult, Outcome, SavedCase
from brainsegnet.pipeline.discover import Discovered, find_all
from brainsegnet.pipeline.existing import find_done
from brainsegnet.pipeline.segment import LEAST_SPACE, Pending, segment_each
from brainsegnet.pipeline.study_case import StudyCase, describe_findings, know
from brainsegnet.progress import Callback, CaseCounter
from brainsegnet.reporting import ReportOptions

_NOT_HERE = ("all_grids", "dicom", "label_files", "picture", "save_preprocessed")
"""Options whose files have no place in BIDS derivatives."""
_VALID = re.compile(r"sub-[A-Za-z0-9+]+(_ses-[A-Za-z0-9+]+)?")


@dataclass(frozen=True)
class Found:
    """What a BIDS data set holds.

    Attributes:
        cases: Each visit to its case or study.
        failures: Name of each visit that cannot be used, to a sentence that says why.
        left_out: A sentence on each folder whose images are not recognised.
    """

    cases: Mapping[Visit, CaseFiles | StudyCase] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()


def run_participants(
    raw: Path,
    out: Path,
    model: Path | str | None = None,
    which: BidsOptions | None = None,
    options: SegmentOptions | None = None,
    pages: ReportOptions | None = None,
    callback: Callback | None = None,
) -> BatchResult:
    """Segment the participants of a BIDS data set, and write BIDS derivatives. Complete results are left out.

    Several processes may work into one folder if their participants differ.

    Args:
        raw: The BIDS data set.
        out: Folder of the derivatives.
        model: Name of a shipped model, or a model folder. None chooses as `segment` does, from all these participants.
        which: Participants and sessions, and what happens to results that exist already.
        options: How to segment.
        pages: Whether a report on each is written, into the folder of the derivatives.
        callback: As for `segment`.

    Returns:
        The participants and sessions that succeeded, those that were done before, and a sentence for each that failed.

    Raises:
        DatasetError: this is no BIDS data set, or has none of the participants.
        ModelError: the model cannot be used, none fits, or two participants need different ones.
        OutputError: the output cannot be written, is in the wrong place, or holds other results.
        UsageError: an option is not for BIDS derivatives.
    """
    require_space(LEAST_SPACE)
    which, options, pages = which or BidsOptions(), options or SegmentOptions(), pages or ReportOptions()
    _check_options(options)
    raw = Path(os.path.abspath(raw))
    visits = list_visits(raw, which)
    _check_place(raw, Path(os.path.abspath(out)))
    opened = None if model is None else resolve_model(model)
    found = find_visits(visits, opened)
    if not found.cases:
        raise DatasetError("; ".join(found.failures.values()))
    if options.brain_mask is not None and len(visits) > 1:
        raise UsageError(f"{options.brain_mask} is the brain mask of one visit, and there are {len(visits)}; name one")
    opened = opened or _choose_model(found, callback)
    options = replace(options, save_preprocessed=True, uncertainty=options.uncertainty or pages.report)
    batch = _segment(found, Derivatives(raw, out, pages), Segmenter(opened, options), which, callback)
    return replace(batch, failures={**found.failures, **batch.failures}, left_out=found.left_out)


def list_visits(raw: Path, which: BidsOptions) -> list[Visit]:
    """The participants and sessions of a data set, by name.

    Raises:
        DatasetError: this is no BIDS data set, or it has none of those that are asked for.
    """
    if not raw.is_dir():
        raise DatasetError(f"{raw} is no folder; name the folder of a BIDS data set")
    participants = _choose(_list_folders(raw, "sub-"), which.participant_label, "sub-", raw)
    if not which.skip_bids_validation:
        check_description(raw)
    visits: list[Visit] = []
    for folder in participants:
        sessions = _list_folders(folder, "ses-")
        visits += [Visit(one, folder.name, one.name) for one in sessions] or [Visit(folder, folder.name)]
    wanted = {_complete("ses-", label) for label in which.session_label}
    if absent := sorted(wanted - {visit.session for visit in visits}):
        raise DatasetError(f"no participant in {raw} has a session {absent[0]}; look at --session-label")
    return [visit for visit in visits if not wanted or visit.session in wanted]


def _list_folders(above: Path, prefix: str) -> list[Path]:
    return [path for path in sorted(above.glob(f"{prefix}*")) if path.is_dir()]


def _choose(folders: Sequence[Path], labels: Sequence[str], prefix: str, raw: Path) -> list[Path]:
    """The folders of these labels; all without any."""
    if not folders:
        raise DatasetError(f"{raw} has no folder {prefix}<label>; name the top folder of a BIDS data set")
    known = {path.name: path for path in folders}
    wanted = list(dict.fromkeys(_complete(prefix, label) for label in labels)) or list(known)
    if absent := [name for name in wanted if name not in known]:
        some = ", ".join([*known][:6]) + (", ..." if len(known) > 6 else "")
        raise DatasetError(f"{raw} has no {absent[0]}, but {some}; look at --participant-label")
    return [known[name] for name in wanted]


def _complete(prefix: str, label: str) -> str:
    return prefix + label.removeprefix(prefix)


def find_visits(visits: Sequence[Visit], model: Model | None = None) -> Found:
    """The case or study of each visit, by the files in its folder.

    Args:
        visits: Participants and sessions.
        model: The model; without one, a sequence of any shipped model will do.
    """
    models = [model] if model else shipped_models().values()
    wanted = list(dict.fromkeys(name for one in models for name in one.card.sequences))
    cases: dict[Visit, CaseFiles | StudyCase] = {}
    failures: dict[str, str] = {}
    left_out: list[str] = []
    for visit in visits:
        try:
            _check_labels(visit)
            found = find_all([visit.folder], wanted)
        except BrainSegNetError as error:
            failures[visit.name] = _name(visit, str(error))
            continue
        left_out += found.left_out
        if len(found.cases) == 1 and not found.failures:
            cases[visit] = replace(found.cases[0], name=visit.name)
        else:
            failures[visit.name] = _name(visit, _tell_failure(visit, found, wanted))
    return Found(cases, failures, [*left_out, *_list_beside_sessions(visits)])


def _check_labels(visit: Visit) -> None:
    """Refuse a folder whose name would not be valid in BIDS."""
    if not _VALID.fullmatch(visit.name):
        raise DatasetError(f"{visit.folder} is named in no way of BIDS; rename it, with letters and digits after the -")


def _list_beside_sessions(visits: Sequence[Visit]) -> list[str]:
    """A sentence on each folder of images that belong to a participant with sessions, but to none of these."""
    folders = {visit.folder.parent / kind: visit for visit in visits if visit.session for kind in ("anat", "dwi")}
    left_out = {folder: visit for folder, visit in folders.items() if folder.is_dir()}
    return [f"{folder} is left out: {visit.participant} has sessions" for folder, visit in left_out.items()]


def _tell_failure(visit: Visit, found: Discovered, wanted: Sequence[str]) -> str:
    """Why there is not exactly one case in the folder of a visit."""
    if any(not case.unclear for case in found.rejected):
        has = describe_findings([finding for case in found.rejected for finding in case.findings])
        remedy = "name the other participants with --participant-label"
        return f"none of {', '.join(wanted)} is found in {visit.folder}, which has {has}; {remedy}"
    if found.failures:
        return "; ".join(found.failures.values())
    return f"{visit.folder} holds {len(found.cases)} studies where one is due; give each a session of its own"


def _name(visit: Visit, sentence: str) -> str:
    return sentence if f"case {visit.name}" in sentence else f"case {visit.name}: {sentence}"


def _choose_model(found: Found, callback: Callback | None) -> Model:
    choice = choose_model({visit.name: know(case) for visit, case in found.cases.items()})
    if callback:
        callback.on_message(f"model {choice.model.card.name}, because {choice.reason}; --model names another")
    return choice.model


def _check_options(options: SegmentOptions) -> None:
    for name in _NOT_HERE:
        if getattr(options, name):
            raise UsageError(
                f"--{name.replace('_', '-')} has no place in BIDS derivatives; leave it out, or use brainsegnet segment"
            )


def _check_place(raw: Path, out: Path) -> None:
    """Refuse an output that would become a part of the raw data.

    Raises:
        OutputError: it is the data set itself, or among its participants.
    """
    inside = out.relative_to(raw).parts if out.is_relative_to(raw) else ("derivatives",)
    if not inside or inside[0].startswith("sub-"):
        raise OutputError(f"{out} is the raw data itself; name {raw / 'derivatives' / 'brainsegnet'} or another folder")


def _segment(
    found: Found, derivatives: Derivatives, segmenter: Segmenter, which: BidsOptions, callback: Callback | None
) -> BatchResult:
    out, card = derivatives.out, segmenter.model.card
    targets = {visit.name: visit.locate(out, card.task) for visit in found.cases}
    for target in targets.values():
        writable(target)
    with claiming(out, [target.relative_to(out).as_posix() for target in targets.values()]):
        derivatives.begin()
        existing = OutputOptions(which.overwrite, skip_existing=True, verify=which.verify)
        notes = find_done([*found.cases.values()], targets, card, segmenter.options, existing)
        if notes and callback:
            callback.on_message(f"{len(notes)} of {len(targets)} cases are done already and are left out")
        cases = [case for case in found.cases.values() if case.name not in notes]
        pending = [Pending(case.name, targets[case.name], _give(case), save=derivatives.save) for case in cases]
        skipped = [SavedCase(name, targets[name], note) for name, note in notes.items()]
        return _collect(pending, skipped, segmenter, derivatives, callback)


def _give(case: CaseFiles | StudyCase) -> Callable[[], CaseFiles | StudyCase]:
    return partial(replace, case)


def _collect(
    pending: Sequence[Pending],
    skipped: Sequence[SavedCase],
    segmenter: Segmenter,
    derivatives: Derivatives,
    callback: Callback | None,
) -> BatchResult:
    """Segment, write reports, also those that earlier results lack, and tell the callback of each case."""
    done: list[SavedCase] = []
    failures: dict[str, str] = {}
    counter = CaseCounter(callback, len(pending))

    def report(case: SavedCase, known: list[SavedCase]) -> None:
        said = Outcome(case.name, error=derivatives.report(case.name, case.path))
        if said.error:
            failures[case.name] = said.sentence
        else:
            known.append(case)

    for outcome in segment_each(pending, segmenter):
        if outcome.error and outcome.is_fault:
            raise outcome.error
        if saved := outcome.saved:
            if callback:
                callback.on_case(saved.name, saved)
            report(saved, done)
        else:
            failures[outcome.name] = outcome.sentence
        counter.advance()
    before: list[SavedCase] = []
    for case in skipped:
        report(case, before)
    return BatchResult(done, failures, skipped=before)
