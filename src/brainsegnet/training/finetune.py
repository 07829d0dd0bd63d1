"""Training that starts from a trained model: its weights, matched by the names of sequences and tissues."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from brainsegnet.errors import DatasetError, TaskError
from brainsegnet.model.card import Card, Parent
from brainsegnet.model.store import Model
from brainsegnet.task import Task
from brainsegnet.training.recipes import FINETUNE, Recipe
from brainsegnet.training.split import DataSplit, patient_of

if TYPE_CHECKING:
    from brainsegnet.training.plan import Plan, Weights

SLOWER = 0.25
"""Factor on the learning rate of the recipe: what is there already is to be kept."""
DROPPED = 0.5
"""Share of the samples that lose sequences where the model takes any subset and its card does not tell how often."""
BLOCKS = 4
"""Of the network, in every recipe."""


def adopt(recipe: Recipe, card: Card, dropping: float | None = None) -> Recipe:
    """The recipe with the network of a trained model, its patch unless the recipe has one, and a lower learning rate.

    Where the model takes any subset of its sequences, samples lose sequences as often as in its own training, to keep
    it so, or oftener where the recipe says so; unless the user has asked for a share (`dropping`). Small lesions weigh
    as much as they did in its training, where a recipe that keeps a share of it does not favour them itself.

    Raises:
        TaskError: the model has more or fewer blocks than a recipe can train.
    """
    shape = card.network
    if len(shape.widths) != BLOCKS:
        raise TaskError(
            f"model {card.name} has {len(shape.widths)} blocks of widths {', '.join(map(str, shape.widths))}, and a "
            f"recipe trains {BLOCKS}; start from another model, or anew"
        )
    kept = recipe.drop_sequences if dropping is None else dropping
    if dropping is None and card.input.any_subset:
        kept = max(kept, card.training.recipe.get("drop_sequences") or DROPPED)
    return Recipe.model_validate(
        recipe.model_dump()
        | {
            "widths": shape.widths,
            "refined": shape.refined,
            "narrow_below": 0,
            "nonlinear": shape.nonlinear,
            "stride": shape.stride,
            "patch": recipe.patch or card.training.recipe.get("patch"),
            "learning_rate": recipe.learning_rate * SLOWER,
            "drop_sequences": kept,
            "small_lesion_power": recipe.small_lesion_power
            or (card.training.recipe.get("small_lesion_power", 0.0) if recipe.weight_interpolation else 0.0),
        }
    )


def follow(split: DataSplit, card: Card) -> DataSplit:
    """The roster of a training that starts from a model: none is held out whom the model has seen.

    Raises:
        TaskError: model and cases share no sequence.
        DatasetError: a patient held out is one that the model, or one it goes back to, was trained on.
    """
    if not set(card.sequences) & set(split.sequences):
        raise TaskError(
            f"model {card.name} takes {', '.join(card.sequences)}, and the cases are trained on with "
            f"{', '.join(split.sequences)}, so there is nothing to start from; choose another model or other sequences"
        )
    parent = card.as_parent()
    refuse_seen([case.name for case in split.validation], parent)
    return replace(split, parent=parent, margin=card.components.confidence_margin)


def refuse_seen(held_out: Sequence[str], parent: Parent) -> None:
    """Refuse to score cases of patients that a model, or one it goes back to, was trained on.

    Raises:
        DatasetError: one is such a case.
    """
    seen = {patient_of(name): name for name in parent.seen}
    for case in held_out:
        if known := seen.get(patient_of(case)):
            also = "" if known == case else f", as {known}"
            raise DatasetError(
                f"case {case} is held out, but model {parent.name} was trained on this patient{also}, so its "
                "score would be of what the model has seen; hold out other cases, or none with --validation 0"
            )


def settle_interpolation(recipe: Recipe, split: DataSplit, card: Card) -> Recipe:
    """The recipe, without a mean of old and new weights where the old ones know not all sequences and tissues.

    What such a sequence or tissue starts from is random, and no share of that is worth keeping.
    """
    origins = same_channels(card, split.sequences) + same_tissues(card, split.task)
    return recipe.model_copy(update={"weight_interpolation": 0.0}) if None in origins else recipe


def inherited_confidence_margin(split: DataSplit, recipe: Recipe) -> float | None:
    """The margin of the model that a training starts from, where a share of its weights is kept."""
    return split.margin if recipe.weight_interpolation else None


def warn_of_forgetting(recipe: Recipe, split: DataSplit, card: Card) -> str:
    """A sentence where nothing but a low learning rate keeps what the model knows; else nothing."""
    if recipe.weight_interpolation:
        return ""
    if settle_interpolation(FINETUNE, split, card).weight_interpolation:
        return (
            f"recipe {recipe.name} keeps no share of the weights of model {card.name} and may make it worse on cases "
            f"unlike these; {FINETUNE.name}, which --from takes by default, keeps {FINETUNE.weight_interpolation:.0%}"
        )
    return (
        f"model {card.name} does not know all of these sequences and tissues, so no share of its weights is kept; hold "
        "cases out to see whether the training helps"
    )


def inherit(model: Model, plan: "Plan", sequences: Sequence[str], task: Task) -> "Weights":
    """The weights of a trained model for the network of a plan.

    A sequence that it never saw, or a tissue that it cannot tell, starts as in a new network.

    Raises:
        ModelError: the weights are not those that the card describes.
    """
    import torch

    from brainsegnet.model.weights import transfer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        fresh = plan.network.build().state_dict()
    return transfer(
        model.build().state_dict(), fresh, same_channels(model.card, sequences), same_tissues(model.card, task)
    )


def same_channels(card: Card, sequences: Sequence[str]) -> list[int | None]:
    """For each sequence its channel in the trained model, or None."""
    return [card.sequences.index(name) if name in card.sequences else None for name in sequences]


def same_tissues(card: Card, task: Task) -> list[int | None]:
    """For each class of the task, background first, that of the trained model; parts stand for wholes.

    >>> from brainsegnet.model.card import Architecture, Input
    >>> from brainsegnet.task import BRATS2015, BRATS2021
    >>> shape = Architecture(widths=(1, 1), refined=1)
    >>> card = Card(name="x", task=BRATS2021, input=Input(sequences=("t1",)), network=shape)
    >>> same_tissues(card, BRATS2015)
    [0, 1, 2, 1, 3]
    """
    known = [set(tissue.split(" + ")) for tissue in card.task.labels.values()]
    origins: list[int | None] = [0]
    for tissue in task.labels.values():
        parts = set(tissue.split(" + "))
        origins.append(next((k for k, names in enumerate(known, 1) if parts & names), None))
    return origins
