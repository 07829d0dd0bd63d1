"""A trained model made ready to be shipped: half-size weights, exports, and on its card what it reaches unseen."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from brainsegnet.errors import DatasetError, ModelError
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.model.card import (
    CalibrationNote,
    Card,
    Comparison,
    ComponentFilter,
    IntervalNote,
    PresenceRule,
    Profile,
)
from brainsegnet.model.store import LAST, Model, open_model, replace_card, save_model
from brainsegnet.preprocessing.prepare import prepare
from brainsegnet.training.export import export_with, training_scans
from brainsegnet.training.finetune import refuse_seen
from release.calibration import measure_profile
from release.reliability import Tallies, describe_reliability, find_tallies
from release.validation import (
    Alphas,
    Scores,
    calibrate,
    choose_margins,
    find_alphas,
    held_out_scans,
    mean_scores,
    other_scans,
    score_parts,
    try_margins,
)

if TYPE_CHECKING:
    from brainsegnet.training.sampler import Scan

T = TypeVar("T")


@dataclass(frozen=True)
class Unseen:
    """Cases that had no part in a training, in `data`, folders or tables; `sources` says where they come from."""

    data: Sequence[Path]
    sources: str


def release(
    model: Path,
    folds: Sequence[Path],
    data: Sequence[Path],
    out: Path,
    say: Callable[[str], None] = lambda text: None,
    unseen: Unseen | None = None,
    presence: PresenceRule | None = None,
) -> Model:
    """Write a model as it is shipped.

    Its scores are those of its folds: models trained in the same way without some of the cases, each scored on those,
    last weights, none chosen by them. A model of simulated cases alone is scored itself, on cases from elsewhere. So no
    figure on the card is from a case that the scored model has seen.

    Args:
        model: Output folder of `train`, trained on all cases.
        folds: Output folders of the trainings that held some cases out; none where `unseen` are scored.
        data: Folders or tables with all these cases. What it was trained on besides, such as simulated cases beside
            real ones, is not in them and not scored.
        out: Model folder; its name is the model's.
        say: Told of each case that is scored.
        unseen: Cases from elsewhere, instead of folds.
        presence: How it is decided whether a scan has a tissue at all. The scores are with it.

    Raises:
        ModelError, DatasetError: a model or a case is not there, a case is held out twice or by no fold, a fold was
            trained in another way, the model or one it started from was trained on a case that it is scored on, or
            both folds and unseen cases are named.
        MissingExtra: torch or nncf is not installed.
        OutputError: the folder cannot be written to.
    """
    whole, parts_of_it = open_model(model / LAST), [open_model(fold / LAST) for fold in folds]
    if unseen is None:
        _check_folds(whole, parts_of_it, {case.name for case in find_cases(data)})
        judges: list[Judge] = [(fold, partial(held_out_scans, fold, data)) for fold in parts_of_it]
    else:
        _check_unseen(whole, parts_of_it, unseen)
        judges = [(whole, partial(other_scans, whole, unseen.data))]
    trials = _merge(try_margins(judge, load()) for judge, load in judges)
    margin, margins = choose_margins(trials)
    if presence:
        without = {name: {"all": dict(trial[margins[name]])} for name, trial in trials.items()}
        presence = presence.model_copy(update={"without": mean_scores(without)["all"]})
        judges = [(with_rule(judge, presence), load) for judge, load in judges]
    scores, kept, alphas, tallies = _score(judges, margins, say)
    parts = mean_scores(scores)
    components = ComponentFilter(confidence_margin=margin, kept=mean_scores(kept) if margin else {})
    measured = {"subsets": parts, "scores": parts["+".join(whole.card.sequences)], "held_out": tuple(sorted(scores))}
    origin = {"folds": len(folds), "held_out_sources": unseen.sources if unseen else ""}
    training = whole.card.training.model_copy(update=measured | origin)
    found = {
        "training": training,
        "components": components,
        "presence": presence,
        "intervals": calibrate(alphas),
        "calibration": describe_reliability(tallies),
        "profile": _profile(whole, data),
    }
    card = whole.card.model_copy(update={"name": out.name, **found})
    halved = {name: t.half() if t.is_floating_point() else t for name, t in whole.tensors().items()}
    return export_with(save_model(out, card, halved), training_scans(whole, data), onnx=False)


def with_rule(model: Model, presence: PresenceRule | None) -> Model:
    """The model, deciding by a rule."""
    return replace(model, card=model.card.model_copy(update={"presence": presence}))


def compare_with(model: Path, comparisons: Sequence[Comparison], tested: Collection[str]) -> Model:
    """Put on the card of a model what other ways to make one reach, in place of rows of the same origin and size.

    Args:
        model: Folder of a released model.
        comparisons: One row for each way.
        tested: Cases that the rows are means over.

    Raises:
        ModelError: the model is not there, or the rows have other cases, sequences or regions than its own scores.
        OutputError: the card cannot be written.
    """
    opened = _open_for(model, tested)
    card, note = opened.card, opened.card.training
    for row in comparisons:
        for part, scores in row.subsets.items():
            if part not in note.subsets or set(scores) != set(card.task.regions):
                raise ModelError(f"model {model} has no scores to compare with those of {row.origin}, {part}")
    new = {(row.origin, row.real_cases) for row in comparisons}
    kept = [row for row in note.comparisons if (row.origin, row.real_cases) not in new]
    told = note.model_copy(update={"comparisons": (*kept, *comparisons)})
    return replace_card(opened, card.model_copy(update={"training": told}))


def bound_with(
    model: Path,
    intervals: Mapping[str, IntervalNote],
    tested: Collection[str],
    calibration: Mapping[str, CalibrationNote] | None = None,
) -> Model:
    """Put other volume intervals on the card of a model, found on the same unseen cases as its scores.

    The calibration of its probabilities is put there too if it is given.

    Raises:
        ModelError: the model is not there, or the intervals are of other cases or regions than its scores.
        OutputError: the card cannot be written.
    """
    opened = _open_for(model, tested)
    if {*intervals} != {*opened.card.task.regions} or {*(calibration or intervals)} != {*intervals}:
        raise ModelError(f"model {model} has the regions {', '.join(opened.card.task.regions)}; give each an interval")
    found = {"intervals": dict(intervals), **({"calibration": dict(calibration)} if calibration else {})}
    return replace_card(opened, opened.card.model_copy(update=found))


def _open_for(model: Path, tested: Collection[str]) -> Model:
    """A model whose scores are those of just these cases."""
    opened = open_model(model)
    if other := sorted(set(tested) ^ set(opened.card.training.held_out)):
        raise ModelError(f"the scores of model {model} are of other cases than these: {other[0]} is in one alone")
    return opened


def _profile(model: Model, data: Sequence[Path]) -> Profile:
    """What the cases look like that the model was trained on."""
    card, known = model.card, set(model.card.training.data.cases)
    cases = (case for case in find_cases(data) if case.name in known)
    loaded = (load_case(files, card.sequences, card.task, lesion=False) for files in cases)
    return measure_profile((prepare(case, card.input.normalisation), case.reference.spacing_mm) for case in loaded)


def _check_folds(whole: Model, folds: Sequence[Model], names: Collection[str]) -> None:
    """Refuse folds that say nothing of the model, or leave one of the named cases unscored."""
    held_out = [name for fold in folds for name in fold.card.training.held_out]
    scored = set(held_out)
    if unscored := sorted(set(whole.card.training.data.cases).intersection(names) - scored):
        raise DatasetError(f"case {unscored[0]} is held out by no fold; add the fold that leaves it out")
    if twice := sorted(name for name in scored if held_out.count(name) > 1):
        raise DatasetError(f"case {twice[0]} is held out by two folds; name each case once")
    for fold in folds:
        ours, theirs = (model.card for model in (whole, fold))
        if (ours.sequences, ours.network) != (theirs.sequences, theirs.network):
            raise DatasetError(f"fold {fold.folder} has other sequences or widths than {whole.folder}; train it alike")
        if ours.training.recipe != theirs.training.recipe or ours.training.budget != theirs.training.budget:
            raise DatasetError(f"fold {fold.folder} had another recipe or budget than {whole.folder}; train it alike")
        if theirs.training.started_from:
            refuse_seen(theirs.training.held_out, theirs.training.started_from)
        if _start(ours) != _start(theirs):
            raise DatasetError(f"fold {fold.folder} started from other weights than {whole.folder}; train it alike")


def _start(card: Card) -> str | None:
    """SHA-256 of the weights that a training started from, or None."""
    return card.training.started_from.sha256 if card.training.started_from else None


Judge = tuple[Model, Callable[[], Mapping[str, "Scan"]]]
"""A model, and what reads the cases that it has not seen: those of all folds may not fit into memory together."""


def _check_unseen(whole: Model, folds: Sequence[Model], unseen: Unseen) -> None:
    if folds:
        raise DatasetError("scores are those of folds or of unseen cases, not of both; name one of the two")
    refuse_seen([case.name for case in find_cases(unseen.data)], whole.card.as_parent())


def _score(
    judges: Sequence[Judge], margins: Mapping[str, float | None], say: Callable[[str], None]
) -> tuple[Scores, Scores, Alphas, Tallies]:
    """Of each case: scores without dropped components and with them, and what intervals and calibration need."""
    found = []
    for judge, load in judges:
        scans = load()
        scores = score_parts(judge, scans, say, margins)
        found.append((*scores, find_alphas(judge, scans, margins), find_tallies(judge, scans)))
    left, kept, alphas, tallies = zip(*found, strict=True)
    return _merge(left), _merge(kept), _merge(alphas), _merge(tallies)


def _merge(parts: Iterable[Mapping[str, T]]) -> dict[str, T]:
    return {name: value for part in parts for name, value in part.items()}
