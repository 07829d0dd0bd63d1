"""The mean of the weights of several trainings that started from the same model.

Trainings that share a start end in one basin of the loss, and their mean is mostly better than each of them, at the
cost of one (Wortsman et al., Model soups, ICML 2022). The statistics of batch norm are averaged too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brainsegnet.errors import ModelError
from brainsegnet.model.card import Card, ComponentFilter, Data, TrainingNote
from brainsegnet.model.store import Model, open_model, save_model


def average(models: Sequence[Path], out: Path, *, name: str = "", sources: str = "", half: bool = False) -> Model:
    """Write the mean of models that started from the same one; that one may be among them.

    The card is the first one's, with the cases of all; scores, intervals, the margin of components and exports were
    those of other weights.

    Args:
        models: Model folders, two or more.
        out: Model folder to write.
        name: Of the mean; by default that of the first.
        sources: Of the cases of all, and their terms; by default what the cards say, one after the other.
        half: Whether the weights are written in 16 bits.

    Raises:
        ModelError: a model is not there, there is but one, or they differ in network, input, task, threshold, licence
            or start.
        OutputError: the folder cannot be written to.
        MissingExtra: torch is not installed.
    """
    if len(models) < 2:
        raise ModelError(f"a mean is of two models or more, not {len(models)}; name another one")
    opened = [open_model(model) for model in models]
    start = _same_start([model.card for model in opened])
    trained = [model.card for model in opened if not _is(model.card, start)]
    kept = 1 - sum(1 - card.training.interpolated for card in trained) / len(opened)
    note = _merge(trained, kept, sources)
    unscored = {"intervals": {}, "calibration": {}, "components": ComponentFilter()}
    card = trained[0].model_copy(update={"name": name or trained[0].name, "training": note} | unscored)
    tensors = [model.tensors() for model in opened]
    mean = {name: _mean([weights[name] for weights in tensors], half) for name in tensors[0]}
    return save_model(out, card, mean)


def _same_start(cards: Sequence[Card]) -> str:
    """SHA-256 of the weights that all started from."""
    first = cards[0]
    for card in cards[1:]:
        for what in ("network", "input", "task", "threshold", "licence"):
            if getattr(card, what) != getattr(first, what):
                raise ModelError(f"models {first.name} and {card.name} differ in {what}, so they have no mean")
    hashes = [card.training.started_from.sha256 if card.training.started_from else "" for card in cards]
    starts = {digest for card, digest in zip(cards, hashes, strict=True) if not any(_is(card, h) for h in hashes)}
    if len(starts) != 1 or not all(starts):
        raise ModelError(
            f"models {', '.join(card.name for card in cards)} did not start from one model, so their mean would be "
            "noise; name trainings with the same --from"
        )
    return starts.pop()


def _is(card: Card, digest: str) -> bool:
    return card.weights is not None and card.weights.sha256 == digest


def _merge(cards: Sequence[Card], kept: float, sources: str) -> TrainingNote:
    """The note of several trainings, of which the mean keeps a share of the weights that they started from."""
    notes = [card.training for card in cards]
    cases = tuple(dict.fromkeys(case for note in notes for case in note.data.cases))
    sources = sources or "; ".join(dict.fromkeys(note.data.sources for note in notes))
    hashes = {case: digests for note in notes for case, digests in note.data.hashes.items()}
    return notes[0].model_copy(
        update={
            "data": Data(cases=cases, count=len(cases), sources=sources, hashes=hashes),
            "trainings": sum(note.trainings for note in notes),
            "interpolated": round(kept, 6),
            "held_out": tuple(case for case in notes[0].held_out if all(case in note.held_out for note in notes)),
            "scores": {},
            "subsets": {},
            "comparisons": (),
        }
    )


def _mean(tensors: Sequence[Any], half: bool) -> Any:  # noqa: ANN401
    """Of floats in 32 bits; whole numbers, such as batch norm's counts, are the first one's."""
    if not tensors[0].is_floating_point():
        return tensors[0]
    mean = sum(tensor.float() for tensor in tensors) / len(tensors)
    return mean.half() if half else mean
