"""Training that starts from a trained model: its weights, matched by the names of sequences and tissues."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from brainsegnet.inference.card import Card
from brainsegnet.inference.model import Model
from brainsegnet.task import Task
from brainsegnet.training.curriculum import Recipe

if TYPE_CHECKING:
    from brainsegnet.training.plan import Plan, Weights

SLOWER = 0.25
"""Factor on the learning rate of the recipe: what is there already is to be kept."""


def adopt(recipe: Recipe, card: Card) -> Recipe:
    """The recipe with the network of a trained model, and a lower learning rate."""
    shape = card.network
    return Recipe.model_validate(
        recipe.model_dump()
        | {
            "widths": shape.widths,
            "refined": shape.refined,
            "nonlinear": shape.nonlinear,
            "stride": shape.stride,
            "learning_rate": recipe.learning_rate * SLOWER,
        }
    )


def inherit(model: Model, plan: "Plan", sequences: Sequence[str], task: Task) -> "Weights":
    """The weights of a trained model for the network of a plan.

    A sequence that it never saw, or a tissue that it cannot tell, starts as in a new network.

    Raises:
        ModelError: the weights are not those that the card describes.
    """
    import torch

    from brainsegnet.network.transfer import transfer

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

    >>> from brainsegnet.inference.card import Architecture, Input
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
