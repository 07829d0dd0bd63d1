"""Training that starts from a trained model: its network, and its weights matched by name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from brainsegnet.errors import DatasetError, TaskError
from brainsegnet.model.card import Card, Parent
from brainsegnet.model.store import Model
from brainsegnet.task import Task
from brainsegnet.training.recipes import FINETUNE, Recipe
from brainsegnet.training.split import DataSplit, patient_of

if TYPE_CHECKING:
    from brainsegnet.model.store import Weights
    from brainsegnet.training.loop import Plan

SLOWER = 0.25
"""Factor on the learning rate of the recipe."""
DROPPED = 0.5
"""Share of the samples that lose sequences where the model takes any subset and its card does not state the share."""


def adopt(recipe: Recipe, card: Card, drop_sequences: float | None = None) -> Recipe:
    """Adapt a recipe to a trained model: its network, its patch unless the recipe has one, and a lower learning rate.

    A model that accepts any subset of its sequences keeps that ability. Unless `drop_sequences` says how often, samples
    lose sequences at least as often as in its own training. A recipe that keeps a share of the weights also keeps the
    weight of small lesions, unless it has its own.

    Raises:
        TaskError: the model has more or fewer blocks than a recipe can train.
    """
    network, before = card.network, card.training.recipe
    if len(network.widths) != len(recipe.widths):
        raise TaskError(
            f"model {card.name} has {len(network.widths)} blocks of widths {', '.join(map(str, network.widths))}, and "
            f"a recipe trains {len(recipe.widths)}; start from another model, or from none"
        )
    dropped = recipe.drop_sequences if drop_sequences is None else drop_sequences
    if drop_sequences is None and card.input.any_subset:
        dropped = max(dropped, before.get("drop_sequences") or DROPPED)
    inherited_power = before.get("small_lesion_power", 0.0) if recipe.weight_interpolation else 0.0
    changes = network.model_dump() | {
        "narrow_below": 0,
        "patch": recipe.patch or before.get("patch"),
        "learning_rate": recipe.learning_rate * SLOWER,
        "drop_sequences": dropped,
        "small_lesion_power": recipe.small_lesion_power or inherited_power,
    }
    return Recipe.model_validate(recipe.model_dump() | changes)


def check_start(split: DataSplit, card: Card) -> None:
    """Check that a model to start from suits the cases.

    Raises:
        TaskError: model and cases share no sequence.
        DatasetError: the model, or one of its ancestors, was trained on a patient that is held out.
    """
    if not set(card.sequences) & set(split.sequences):
        raise TaskError(
            f"model {card.name} takes {', '.join(card.sequences)}, and the cases are trained on with "
            f"{', '.join(split.sequences)}, so there is nothing to start from; choose another model or other sequences"
        )
    refuse_seen([case.name for case in split.validation], card.as_parent())


def refuse_seen(held_out: Sequence[str], parent: Parent) -> None:
    """Check that held-out cases belong to no patient on whom a model, or one of its ancestors, was trained.

    Raises:
        DatasetError: one of them does.
    """
    seen = {patient_of(name): name for name in parent.seen}
    for case in held_out:
        if known := seen.get(patient_of(case)):
            also = "" if known == case else f", as {known}"
            raise DatasetError(
                f"case {case} is held out, but model {parent.name} was trained on this patient{also}, so its "
                "score would be of what the model has seen; hold out other cases, or none with --validation 0"
            )


def settle_interpolation(recipe: Recipe, card: Card, sequences: Sequence[str], task: Task) -> Recipe:
    """The recipe, without weight interpolation if the model does not know all sequences and tissues.

    The weights of an unknown sequence or tissue start at random, so no share of them is worth keeping.
    """
    origins = match_channels(card, sequences) + match_tissues(card, task)
    return recipe.model_copy(update={"weight_interpolation": 0.0}) if None in origins else recipe


def warn_of_forgetting(recipe: Recipe, card: Card, sequences: Sequence[str], task: Task) -> str:
    """A sentence if only a low learning rate keeps what the model has learnt; else an empty text."""
    if recipe.weight_interpolation:
        return ""
    if settle_interpolation(FINETUNE, card, sequences, task).weight_interpolation:
        return (
            f"recipe {recipe.name} keeps no share of the weights of model {card.name} and may make it worse on cases "
            f"unlike these; {FINETUNE.name}, which --from takes by default, keeps {FINETUNE.weight_interpolation:.0%}"
        )
    return (
        f"model {card.name} does not know all of these sequences and tissues, so no share of its weights is kept; hold "
        "cases out to see whether the training helps"
    )


def inherit_weights(model: Model, plan: "Plan", sequences: Sequence[str], task: Task) -> "Weights":
    """The weights of a trained model for the network of a plan.

    A sequence or tissue that the model does not know starts as in a new network.

    Raises:
        ModelError: the weights are not those that the card describes.
    """
    from brainsegnet.model.network import transfer

    channels, tissues = match_channels(model.card, sequences), match_tissues(model.card, task)
    return transfer(model.build().state_dict(), plan.build().state_dict(), channels, tissues)


def match_channels(card: Card, sequences: Sequence[str]) -> list[int | None]:
    """The channel in the trained model for each sequence, or None."""
    return [card.sequences.index(name) if name in card.sequences else None for name in sequences]


def match_tissues(card: Card, task: Task) -> list[int | None]:
    """The class in the trained model for each class of the task, or None; the background comes first.

    A part of a combined tissue is matched with the whole.

    Examples:
        >>> from brainsegnet.model.card import Architecture, Input
        >>> from brainsegnet.task import BRATS2015, BRATS2021
        >>> shape = Architecture(widths=(1, 1), refined=1)
        >>> card = Card(name="x", task=BRATS2021, input=Input(sequences=("t1",)), network=shape)
        >>> match_tissues(card, BRATS2015)
        [0, 1, 2, 1, 3]
    """
    known = [set(tissue.split(" + ")) for tissue in card.task.labels.values()]
    origins: list[int | None] = [0]
    for tissue in task.labels.values():
        parts = set(tissue.split(" + "))
        origins.append(next((k for k, names in enumerate(known, 1) if parts & names), None))
    return origins
