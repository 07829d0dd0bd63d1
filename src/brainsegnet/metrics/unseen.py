"""Which scored cases the model was trained on, so that its scores on them are told apart from those on unseen cases.

The JSON that `segment` writes beside a label map names the model and the hashes of the images. The card of that model
names its training cases and, if they were recorded, the hashes of their images.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainsegnet.errors import ModelError
from brainsegnet.io.layouts import read_note
from brainsegnet.io.patients import patient_of
from brainsegnet.metrics.table import count_cases
from brainsegnet.model.card import HASH_DIGITS, Card
from brainsegnet.model.store import BEST, open_model, shipped_models

Notes = Mapping[str, Mapping[str, Any]]
"""Case name to the content of the JSON that `segment` wrote beside its label map."""
_NAMED = 20
"""Number of cases that a sentence names."""


@dataclass(frozen=True)
class Familiarity:
    """Which of the scored cases their models were trained on.

    Attributes:
        seen: Names of the cases that a model was trained on.
        remarks: Sentences that say so, and what is not known.
    """

    seen: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def find_seen(predicted: Path, names: Iterable[str]) -> Familiarity:
    """Find the training cases among the predictions in a folder, or the single one that is a file.

    Args:
        predicted: A label map, or a folder of them.
        names: Names of the scored cases.
    """
    names = list(names)
    notes = read_notes(predicted, names)
    named = {(note["model"].get("folder"), note["model"].get("sha256")) for note in notes.values()}
    cards = {key: card for key in named if (card := find_card(*key))}
    seen, lookalikes, chosen, lost = list[str](), list[str](), list[str](), set[str]()
    for name, note in notes.items():
        model = note["model"]
        card = cards.get((model.get("folder"), model.get("sha256")))
        if card is None:
            lost.add(str(model.get("name")))
        elif is_trained_on(card, name, digests := _read_digests(note)):
            seen.append(name)
        elif digests and name in card.seen:
            lookalikes.append(name)
        elif name in card.training.held_out and card.name.endswith(f"/{BEST}"):
            chosen.append(name)
    unknown = [name for name in names if name not in notes]
    models = ", ".join(sorted({card.name for card in cards.values()}))
    return Familiarity(tuple(seen), tuple(_describe(len(names), models, seen, lookalikes, chosen, lost, unknown)))


def read_notes(predicted: Path, names: Iterable[str]) -> Notes:
    """What `segment` wrote into the JSONs beside label maps, where they name a model."""
    folder = predicted.parent if predicted.is_file() else predicted
    notes = {name: read_note(folder / f"{name}.json") for name in names}
    return {name: note for name, note in notes.items() if isinstance(note.get("model"), dict)}


def find_card(folder: object, sha256: object) -> Card | None:
    """The card of the model with these weights, in this folder or in the package; None if it is in neither."""
    with suppress(ModelError, OSError, ValueError):
        card = open_model(Path(str(folder))).card
        if card.weights and card.weights.sha256 == sha256:
            return card
    shipped = (model.card for model in shipped_models().values())
    return next((card for card in shipped if card.weights and card.weights.sha256 == sha256), None)


def is_trained_on(card: Card, name: str, digests: Iterable[str]) -> bool:
    """Whether a model was trained on a case, or on another scan of its patient.

    The images decide where they are known for both; else the name does.

    Args:
        card: Card of the model.
        name: Name of the case.
        digests: First `HASH_DIGITS` digits of the SHA-256 of each of its images; empty if they are not known.
    """
    digests, known = {*digests}, card.hashes
    if any(digests & {*images} for images in known.values()):
        return True
    patient = patient_of(name)
    return any(not (digests and known.get(case)) for case in card.seen if patient_of(case) == patient)


def _read_digests(note: Mapping[str, Any]) -> set[str]:
    """The hashes of the images that a case was segmented from, as far as its JSON holds them."""
    inputs = note.get("inputs")
    facts = inputs.values() if isinstance(inputs, dict) else ()
    return {str(fact["sha256"])[:HASH_DIGITS] for fact in facts if isinstance(fact, dict) and fact.get("sha256")}


def _describe(
    count: int,
    models: str,
    seen: Sequence[str],
    lookalikes: Sequence[str],
    chosen: Sequence[str],
    lost: Iterable[str],
    unknown: Sequence[str],
) -> Iterable[str]:
    if seen and len(seen) == count:
        yield (
            f"Model {models} was trained on {'this case' if count == 1 else f'all {count} cases'}. These scores do not "
            "show how good it is on other cases."
        )
    elif seen:
        rest = count_cases(count - len(seen)) if count - len(seen) > 1 else "case"
        yield (
            f"Model {models} was trained on {len(seen)} of the {count} cases: {_join(seen)}. The headline is the mean "
            f"of the other {rest}."
        )
    if lookalikes:
        yield f"Named like training cases, but with other images, so counted as unseen: {_join(lookalikes)}."
    if chosen:
        yield f"Held out in the training of model {models}, where they chose the best weights: {_join(chosen)}."
    if lost := sorted(lost):
        yield f"Model {', '.join(lost)} is not found, so it is not known which cases it was trained on."
    if unknown and len(unknown) < count:
        yield f"No JSON of segment is beside {_join(unknown)}, so it is not known whether the model was trained on it."
    elif unknown:
        yield "No JSON of segment is beside the predictions, so it is not known whether a model was trained on them."


def _join(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
