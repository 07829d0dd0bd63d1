"""Training that starts from a trained model: its network, and its weights matched by names of sequences and tissues."""

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
    """The recipe with the network of a trained model, its patch unless the recipe has one, and a lower learning rate.

    A model of any subset of its sequences stays one: samples lose sequences at least as often as in its own training,
    unless `drop_sequences` says how often. Small lesions weigh as much as in its training, where a recipe that keeps a
    share of its weights does not weigh them itself.

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
    """Refuse a model to start from that does not suit the cases.

    Raises:
        TaskError: model and cases share no sequence.
        DatasetError: a patient held out is one that the model, or one it goes back to, was trained on.
    """
    if not set(card.sequences) & set(split.sequences):
        raise TaskError(
            f"model {card.name} takes {', '.join(card.sequences)}, and the cases are trained on with "
            f"{', '.join(split.sequences)}, so there is nothing to start from; choose another model or other sequences"
        )
    refuse_seen([case.name for case in split.validation], card.as_parent())


def refuse_seen(held_out: Sequence[str], parent: Parent) -> None:
    """Refuse, as a DatasetError, to score cases of patients that a model, or one it goes back to, was trained on."""
    seen = {patient_of(name): name for name in parent.seen}
    for case in held_out:
        if known := seen.get(patient_of(case)):
            also = "" if known == case else f", as {known}"
            raise DatasetError(
                f"case {case} is held out, but model {parent.name} was trained on this patient{also}, so its "
                "score would be of what the model has seen; hold out other cases, or none with --validation 0"
            )


def settle_interpolation(recipe: Recipe, card: Card, sequences: Sequence[str], task: Task) -> Recipe:
    """The recipe, without weight interpolation where the model does not know all sequences and tissues.

    The weights of an unknown sequence or tissue start at random, and no share of those is worth keeping.
    """
    origins = match_channels(card, sequences) + match_tissues(card, task)
    return recipe.model_copy(update={"weight_interpolation": 0.0}) if None in origins else recipe


def warn_of_forgetting(recipe: Recipe, card: Card, sequences: Sequence[str], task: Task) -> str:
    """A sentence where only a low learning rate keeps what the model knows; else an empty one."""
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
    """For each sequence its channel in the trained model, or None."""
    return [card.sequences.index(name) if name in card.sequences else None for name in sequences]


def match_tissues(card: Card, task: Task) -> list[int | None]:
    """For each class of the task, background first, that of the trained model, or None; parts stand for wholes.

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
