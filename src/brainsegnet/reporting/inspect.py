"""`inspect`: show what is in a model folder, an image, a folder of cases or a raw study, and the shipped models."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from brainsegnet._atomic import find_suffix
from brainsegnet.errors import BrainSegNetError, DatasetError, ModelError
from brainsegnet.io.case_files import PERFUSION, CaseFiles, read_sequences
from brainsegnet.io.cases import DatasetCheck, check_dataset
from brainsegnet.io.images import READERS, Series, read_image, read_labels, read_series
from brainsegnet.metrics.table import count_cases, text_columns
from brainsegnet.model.brain_card import BrainCard, read_brain_card
from brainsegnet.model.card import Card, Comparison, ExportNote, Parent, TrainingNote
from brainsegnet.model.store import (
    BEST,
    BRAIN_CARD_FILE,
    CARD_FILE,
    HOME,
    LAST,
    Model,
    is_brain_model,
    is_shipped,
    open_model,
    resolve_model,
    shipped_models,
)
from brainsegnet.pipeline.discover import Discovered, find_all
from brainsegnet.preprocessing.prepare import check_case
from brainsegnet.progress import Callback
from brainsegnet.reporting.calibration import describe_calibration
from brainsegnet.reporting.study import Inventory, describe_studies, tell_others
from brainsegnet.volume import Case, Volume, describe_gap

Row = tuple[str, ...]
_IMAGE = ("name", "voxels (D, H, W)", "spacing mm", "type", "smallest", "largest")
_NAMED = 24
"""A model's cases are all named up to this number; of more, half of it. The card names all."""
_BRAIN_USE = "the brain in scans with the skull on; segment runs it where it is needed"
_CASE = ("case", "sequences", "labels", "convention", "incomplete")


def inspect(model_or_case: Path | None = None, callback: Callback | None = None) -> Inventory:
    """Show what is in a model folder, a shipped model, an image, a case, or a folder or table of cases.

    Without an argument it lists the shipped models: sequences, tissues, training data, licence, scores and hash.

    Args:
        model_or_case: Model folder, output folder of `train`, name of a shipped model, folder or table of cases, raw
            study (folder, zip or file of DICOM, or a folder of images), or image file.
        callback: Hears the share of the files of raw studies that is read.

    Returns:
        A table for the console or for Markdown, with a sentence on each case that `segment` could not use.

    Raises:
        ModelError: a model folder cannot be used.
        DatasetError: there is neither a model nor a case nor a study.
        ImageError: an image cannot be read.

    Examples:
        >>> [column.heading for column in inspect().columns]
        ['', 'perfusion', 'stroke', 'tumour']
    """
    if model_or_case is None:
        return _list_shipped()
    if is_brain_model(model_or_case):
        home = HOME / model_or_case.name
        return Inventory(text_columns("what", "value"), brain_rows(read_brain_card(home)), f"model {home}")
    if model := resolve_model(model_or_case) if is_shipped(model_or_case) else find_model(model_or_case):
        title = f"model {model.folder}"
        return Inventory(text_columns("what", "value"), card_rows(model.card), title, _check_exports(model))
    if find_suffix(model_or_case, READERS):
        series = read_series(model_or_case)
        row = _series_row(model_or_case.name, series)
        return Inventory(text_columns(*_IMAGE), [row], f"image {model_or_case}", series.warnings)
    found = find_all([model_or_case], callback=callback)
    if not found.cases and not found.rejected:
        raise DatasetError("; ".join(found.failures.values()))
    cases = [case for case in found.cases if isinstance(case, CaseFiles)]
    if not cases:
        return describe_studies(model_or_case, found)
    if len(found.cases) == 1 and not found.failures and not found.left_out:
        return _describe_case(cases[0], model_or_case)
    return _list_cases(found, cases, model_or_case)


def _describe_case(case: CaseFiles, path: Path) -> Inventory:
    """The images of one case, and what is odd about them."""
    volumes = dict(zip(case.images, read_sequences(case, [*case.images]), strict=True))
    odd = [f"{name}: {said}" for name, volume in volumes.items() for said in volume.warnings]
    (first, reference), *others = volumes.items()
    odd += [describe_gap(name, volume, first, reference) for name, volume in others if not volume.on_grid_of(reference)]
    unusable = _check_volumes(case, volumes)
    volumes |= {"lesion": read_image(case.lesion)} if case.lesion else {}
    images = [_series_row(name, Series(volume.array[None], volume.affine)) for name, volume in volumes.items()]
    used = {path.resolve() for path in (*case.images.values(), *([case.lesion] if case.lesion else ()))}
    others_told = tell_others(path.resolve(), used) if path.is_dir() else []
    notes = [f"layout: {case.layout}", *odd, *unusable, *_check_labels(case), *others_told]
    return Inventory(text_columns(*_IMAGE), images, f"case {case.name}", notes, unusable=unusable)


def _list_cases(found: Discovered, cases: Sequence[CaseFiles], path: Path) -> Inventory:
    """Several cases: sequences, label maps, and what is wrong with each."""
    checked = check_dataset(cases)
    rows = []
    for case in found.cases:
        if not isinstance(case, CaseFiles):
            rows.append((case.name, _join_names(case.sequences), "no", "", "; ".join(case.unclear.values())))
            continue
        labels = ("yes" if case.lesion else "no", case.convention.name if case.convention else "the task's")
        rows.append((case.name, _join_names(case.images), *labels, "; ".join(checked.defects.get(case.name, ()))))
    out = [*found.failures.values(), *found.left_out]
    studies = len(found.cases) - len(cases)
    raw = [f"raw studies: {studies}"] if studies else []
    notes = [*_summary(checked, len(cases), not out), *raw, *out]
    unusable = [*found.failures.values(), *(f"case {name}: {said}" for name, said in _find_damaged(checked, cases))]
    title = f"{len(found.cases)} cases in {path}"
    return Inventory(text_columns(*_CASE), rows, title, notes, unusable=unusable)


def _find_damaged(checked: DatasetCheck, cases: Sequence[CaseFiles]) -> Iterator[tuple[str, str]]:
    """Name of each case with an image that is absent, empty or cut short, and the reason."""
    for case in cases:
        files = [str(path) for path in case.images.values()]
        for said in checked.defects.get(case.name, ()):
            if said.startswith(tuple(files)):
                yield case.name, said
                break


def _check_volumes(case: CaseFiles, volumes: Mapping[str, Volume]) -> list[str]:
    """Sentences on why `segment` would refuse these images."""
    defects = []
    for name, volume in volumes.items():
        try:
            check_case(Case(case.name, {name: volume}))
        except BrainSegNetError as error:
            defects.append(str(error))
    return defects


def _check_labels(case: CaseFiles) -> list[str]:
    """A sentence on why `evaluate` would refuse the label map."""
    try:
        if case.lesion:
            read_labels(case.lesion)
    except BrainSegNetError as error:
        return [str(error)]
    return []


def _check_exports(model: Model) -> list[str]:
    """Sentences on why `segment` would refuse exports of a model."""
    defects = []
    for form in model.card.exports:
        try:
            model.exported(form)
        except ModelError as error:
            defects.append(str(error))
    return defects


def find_model(folder: Path) -> Model | None:
    """The model in a folder, or the best model in the output folder of a training; None if there is none.

    Raises:
        ModelError: the model cannot be used.
    """
    homes = (folder, folder / BEST, folder / LAST)
    return open_model(folder) if any((home / CARD_FILE).exists() for home in homes) else None


def _list_shipped() -> Inventory:
    shipped = shipped_models()
    columns = {name: _facts(model) for name, model in shipped.items()}
    kinds = list(next(iter(columns.values()), {}))
    rows: list[Row] = [(kind, *(facts[kind] for facts in columns.values())) for kind in kinds]
    notes = [f"{card.name}: {_BRAIN_USE}; {card.licence}" for card in _find_brain_cards()]
    return Inventory(text_columns("", *columns), rows, f"{len(shipped)} models in the package", notes)


def _find_brain_cards() -> list[BrainCard]:
    return [read_brain_card(path.parent) for path in sorted(HOME.glob(f"*/{BRAIN_CARD_FILE}"))]


def brain_rows(card: BrainCard) -> list[tuple[str, str]]:
    """The content of the card of a model that extracts brains by name, for people to read."""
    limits = card.limits
    rows = {
        "name": card.name,
        "finds": _BRAIN_USE,
        "sequences": card.sequences,
        "parameters": f"{card.parameters:,}",
        "brain": f"where the logit is at least {card.threshold:g}",
        "refuses": f"less than {limits.volume_ml:g} ml, more than {limits.most_ml:g} ml, a largest component below "
        f"{limits.largest_share:g} of all, a mean probability below {limits.mean_probability:g}",
        "trained on": f"{card.data}; {card.steps} steps",
        "scores": "; ".join(f"{name} {value:g}" for name, value in card.scores.items()),
        "licence": card.licence,
        "intended use": card.intended_use,
        **{f"SHA-256 of {name}": sha256 for name, sha256 in card.files.items()},
    }
    return list(rows.items())


def _takes(card: Card) -> str:
    """Which sequences a model takes."""
    if not card.input.any_subset:
        return ", ".join(card.sequences)
    required = [name for name in card.sequences if name in card.task.required]
    others = [name for name in card.sequences if name not in required]
    return f"{', '.join(required)} with any of {', '.join(others)}" if required else f"any of {', '.join(others)}"


def _needs(card: Card) -> str:
    """How many of its sequences a model needs."""
    if not card.input.any_subset:
        return "all needed"
    required = [name for name in card.sequences if name in card.task.required]
    return f"any subset with {', '.join(required)}" if required else "any subset"


def _facts(model: Model) -> dict[str, str]:
    card = model.card
    bytes_ = sum(path.stat().st_size for path in model.folder.rglob("*") if path.is_file())
    return {
        "takes": _takes(card),
        "finds": _labels(card),
        "trained on": card.training.data.sources,
        "licence": card.licence,
        "Dice on unseen cases": _unseen_scores(card),
        "exports": ", ".join(card.exports) or "none",
        "size": f"{bytes_ / 1e6:.1f} MB",
        "SHA-256": card.weights.sha256 if card.weights else "none",
    }


def _unseen_scores(card: Card) -> str:
    """Scores with all sequences, and over how many cases they are a mean."""
    note = card.training
    scores = note.subsets.get("+".join(card.sequences), note.scores)
    means = ", ".join(f"{region} {value:.2f}" for region, value in scores.items() if value is not None)
    cases = note.held_out_sources or f"{len(note.held_out)} cases"
    return f"{means} (mean over {cases})" if means else "not measured"


def _series_row(name: str, series: Series) -> Row:
    volume = series.frame(0)
    spacing = " x ".join(f"{mm:.3g}" for mm in volume.spacing_mm)
    low, high = (f"{value:.6g}" for value in (series.array.min(), series.array.max()))
    frames = f"{len(series)} images of " if len(series) > 1 else ""
    return name, frames + " x ".join(map(str, volume.shape)), spacing, str(series.array.dtype), low, high


def _join_names(sequences: Iterable[str]) -> str:
    """Names, those of the maps of a perfusion series as one."""
    return ", ".join(
        dict.fromkeys(f"{PERFUSION}_*" if name.startswith(f"{PERFUSION}_") else name for name in sequences)
    )


def _summary(found: DatasetCheck, count: int, whole: bool) -> list[str]:
    """Layout, sequences and truth of all cases, and which are incomplete; `whole` if every case can be used."""
    by_name = {_join_names([name]): number for name, number in found.sequences.items()}
    partly = [f"{name} {'' if number == count else f'({number})'}".strip() for name, number in by_name.items()]
    broken = ", ".join(found.defects)
    return [
        "layout: " + ", ".join(f"{layout} ({number} cases)" for layout, number in found.layouts.items()),
        f"sequences: {', '.join(partly)}; label maps: {found.labelled} of {count}",
        *([f"incomplete: {len(found.defects)} of {count}: {broken}"] if broken else []),
        *(["every file is there and whole"] if whole and not broken else []),
    ]


def card_rows(card: Card) -> list[tuple[str, str]]:
    """The content of a model card by name, for people to read."""
    training, weights = card.training, card.weights
    budget = ", ".join(f"{value:g} {kind}" for kind, value in training.budget.items() if value)
    threshold = f"lesion where its probability is at least {card.threshold:g}"
    rows = {
        "name": card.name,
        "task": card.task.name,
        "labels": _labels(card),
        "sequences": f"{', '.join(card.sequences)} ({_needs(card)})",
        "normalisation": card.input.normalisation,
        "widths": f"{', '.join(map(str, card.network.widths))}; {card.network.refined} in the refinement",
        "stride": " x ".join(map(str, card.network.stride)),
        "recipe": f"{training.recipe.get('name', 'not stated')}, {budget or 'budget not stated'}, seed {training.seed}",
        "mean of": _mean_of(training),
        "trained on": _trained(training),
        "sources": training.data.sources,
        "started from": _parent(training.started_from),
        "Dice on unseen cases": _unseen(card),
        "Dice by sequences": "; ".join(f"{part}: {_scores(s)}" for part, s in training.subsets.items())
        or "not measured",
        "other ways of training": "; ".join(map(_comparison, training.comparisons)) or "not measured",
        "decision": "most probable class" if card.threshold == 0.5 else threshold,
        "connected components": _components(card),
        "volume intervals": _intervals(card),
        "intervals by sequences": _intervals_by_sequences(card),
        "calibration": describe_calibration(card.calibration),
        "exports": ", ".join(f"{form}{_change(note)}" for form, note in card.exports.items()) or "none",
        "licence": card.licence,
        "intended use": card.intended_use,
        "created": str(card.created),
        "versions": ", ".join(f"{name} {number}" for name, number in card.versions.items()),
        "weights": f"{weights.bytes / 1e6:.1f} MB, SHA-256 {weights.sha256[:16]}..." if weights else "none",
    }
    return list(rows.items())


def _labels(card: Card) -> str:
    return ", ".join(f"{value} {tissue}" for value, tissue in card.task.labels.items())


def describe_unseen(card: Card) -> str:
    """The cases on which the scores of a card were measured, with their number and names."""
    held = card.training.held_out
    if not held:
        return "the card does not say which cases"
    origin = f" ({card.training.held_out_sources})" if card.training.held_out_sources else ""
    how = ", each scored by a model trained in the same way without it" if by_folds(card) else origin
    return f"{count_cases(len(held))}{how}: {', '.join(held)}"


def by_folds(card: Card) -> bool:
    """Whether the scores are those of other models, because this model was trained on all cases."""
    return bool({*card.training.held_out} & {*card.training.data.cases})


def _mean_of(note: TrainingNote) -> str:
    """What the weights are the mean of."""
    trainings = f"{note.trainings} trainings" if note.trainings > 1 else "one training"
    start = "they" if note.trainings > 1 else "it"
    share = f" and, to {note.interpolated:.0%}, the weights that {start} started from" if note.interpolated else ""
    return trainings + share


def _trained(note: TrainingNote) -> str:
    """The cases, the first of them named, and what was simulated beside them."""
    named = note.data.cases
    names = named if len(named) <= _NAMED else named[: _NAMED // 2]
    rest = f" and {len(named) - len(names)} others" if len(names) < len(named) else ""
    cases = f"{note.data.count} cases{': ' if names else ''}{', '.join(names)}{rest}"
    simulated = note.simulated
    if simulated is None:
        return cases
    return (
        f"{cases}; {simulated.seen} {simulated.kind} simulated meanwhile ({simulated.generator}, {simulated.origin}), "
        f"{simulated.size} at a time, one new every {simulated.refresh_every} steps"
    )


def _unseen(card: Card) -> str:
    scores = _scores(card.training.scores)
    if any(value is not None for value in card.training.scores.values()):
        return f"{scores} ({describe_unseen(card)})"
    return f"{scores}; held out: {', '.join(card.training.held_out) or 'none'}"


def _comparison(other: Comparison) -> str:
    """What another way of training reaches with the most sequences."""
    few = {None: "all real cases", 0: "no real case", 1: "1 real case"}
    count = few.get(other.real_cases, f"{other.real_cases} real cases")
    budget = "".join(f", {length:g} {unit[:-1] if length == 1 else unit}" for unit, length in other.budget.items())
    most = max(other.subsets, key=lambda part: part.count("+"))
    return f"{other.origin} ({count}{budget}): {_scores(other.subsets[most])}"


def _components(card: Card) -> str:
    """Which connected components are dropped, and what is reached without that."""
    note = card.components
    if note.confidence_margin is None:
        return "all kept"
    dropped = f"dropped if their lesion probability is more than {note.confidence_margin:g} below the highest"
    kept = note.kept.get("+".join(card.sequences))
    measured = f"; Dice if all are kept: {_scores(kept or {})}"
    return dropped + (measured if kept else ", as in the model that it started from")


def _intervals(card: Card) -> str:
    """How often the intervals of the volumes contained the truth."""
    texts = []
    for region, note in card.intervals.items():
        measured = "not measured"
        if note.coverage is not None:
            measured = f"contained {note.coverage:.0%} of the volumes of {note.cases} cases, each left out in turn"
        texts.append(f"{region}: alpha {note.alpha:.3g}, {measured}")
    return "; ".join(texts) or "not measured"


def _intervals_by_sequences(card: Card) -> str:
    """Alpha of each region, with the coverage in brackets, for each subset of the sequences."""
    parts: dict[str, list[str]] = {}
    for region, note in card.intervals.items():
        for part, one in note.subsets.items():
            held = "" if one.coverage is None else f" ({one.coverage:.0%})"
            parts.setdefault(part, []).append(f"{region} alpha {one.alpha:.3g}{held}")
    return "; ".join(f"{part}: {', '.join(texts)}" for part, texts in parts.items()) or "not measured"


def _scores(scores: Mapping[str, float | None]) -> str:
    return ", ".join(f"{region} {value:.3f}" for region, value in scores.items() if value is not None) or "not measured"


def _parent(parent: Parent | None) -> str:
    """The models that the weights go back to, the nearest first."""
    if parent is None:
        return "nothing"
    return f"{', '.join((parent.name, *parent.ancestors))}, trained on {len(parent.seen)} cases; {parent.licence}"


def _change(note: ExportNote) -> str:
    """By how much an export in 8 bits or bf16 changes Dice, where that was measured."""
    measured = (("", note.dice_change), ("in bf16: ", note.bf16_change))
    texts = [f"{how}Dice {', '.join(f'{region} {by:+.4f}' for region, by in c.items())}" for how, c in measured if c]
    return f" ({'; '.join(texts)})" if texts else ""
