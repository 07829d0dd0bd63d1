"""Who takes part in a comparison: networks under one recipe, or one network under recipes that differ in one value."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from brainsegnet.errors import TaskError
from brainsegnet.training.curriculum import PAPER, Recipe

if TYPE_CHECKING:
    from brainsegnet.network.design import Design

OURS = "brainsegnet"
MODELS = (OURS, "unet", "vnet", "segresnet", "dynunet")
SIZES = {f"{OURS}-full": 1, f"{OURS}-half": 2, f"{OURS}-quarter": 4}
"""Ours at other widths than the recipe's, as divisors of the paper's."""


@dataclass(frozen=True)
class Contender:
    """A network and how it is trained.

    Attributes:
        name: As in tables.
        recipe: How it is trained.
        network: One of `MODELS`.
        collapsed: Whether ours spares the operations that it can; others have none to spare.
    """

    name: str
    recipe: Recipe
    network: str = OURS
    collapsed: bool = True

    @property
    def stem(self) -> str:
        """For names of files."""
        return re.sub("[^a-z0-9]+", "-", self.name.lower())


def choose_models(names: Sequence[str], recipe: Recipe) -> tuple[Contender, ...]:
    """Networks by name under one recipe, ours also at another width (`SIZES`).

    Args:
        names: Of the networks.
        recipe: Fitted to the number of training cases, see `Recipe.fit_to`.

    Raises:
        TaskError: one is unknown, or named twice.

    >>> from brainsegnet.training.curriculum import QUICK
    >>> [contender.network for contender in choose_models(["unet", "brainsegnet"], QUICK)]
    ['unet', 'brainsegnet']
    """
    if unknown := [name for name in names if name not in (*MODELS, *SIZES)]:
        raise TaskError(f"unknown model {unknown[0]!r}; choose from {', '.join((*MODELS, *SIZES))}")
    if len(set(names)) < len(names):
        raise TaskError(f"name each model to compare once, not {', '.join(names)}")
    return tuple(
        Contender(name, resize(recipe, SIZES[name])) if name in SIZES else Contender(name, recipe, name)
        for name in names
    )


def resize(recipe: Recipe, divisor: int) -> Recipe:
    """The recipe at the paper's width over `divisor`; the learning rate shrinks as the width grows.

    >>> from brainsegnet.training.curriculum import QUICK
    >>> resize(QUICK, 1).widths, resize(QUICK, 1).learning_rate, resize(QUICK, 4) == QUICK.fit_to(3)
    ((32, 64, 128, 256), 0.001, True)
    """
    a, b, c, d = (width // divisor for width in PAPER.widths)
    rate = recipe.learning_rate * recipe.widths[0] / a
    return recipe.model_copy(
        update={"widths": (a, b, c, d), "refined": PAPER.refined // divisor, "narrow_below": 0, "learning_rate": rate}
    )


def ablation(recipe: Recipe) -> tuple[Contender, ...]:
    """Ours as the recipe has it, and without one of its parts at a time; a part that it lacks makes no row.

    Without curriculum, all of the training is like its last stage.

    >>> from brainsegnet.training.curriculum import QUICK
    >>> [contender.name for contender in ablation(QUICK)][:4]
    ['brainsegnet', 'without curriculum', 'without focal', 'without augmentation']
    >>> [contender.name for contender in ablation(QUICK)][4:]
    ['linear refinement', 'stride 2x2x2', 'plain training']
    """
    stages, strided = recipe.stages, (2, 2, 2) if recipe.stride == (1, 2, 2) else (1, 2, 2)
    changes: dict[str, dict[str, Any]] = {
        "without curriculum": {"stages": stages[-1:]},
        "without focal": {"stages": tuple(stage.model_copy(update={"gamma": 0.0}) for stage in stages)},
        "without augmentation": {"stages": tuple(stage.model_copy(update={"augment": 0.0}) for stage in stages)},
        "linear refinement" if recipe.nonlinear else "refinement with ReLU": {"nonlinear": not recipe.nonlinear},
        f"stride {'x'.join(map(str, strided))}": {"stride": strided},
    }
    rows = [Contender(name, recipe.model_copy(update=change)) for name, change in changes.items()]
    whole = Contender(OURS, recipe)
    return (whole, *(row for row in rows if row.recipe != recipe), Contender("plain training", recipe, collapsed=False))


def design_of(
    contender: Contender,
    sequences: int,
    classes: int,
    patch: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
) -> "Design":
    """The network of a contender.

    Raises:
        MissingExtra: MONAI is not installed, and the network is MONAI's.
        TaskError: the network does not take so many sequences.
    """
    if contender.network != OURS:
        from brainsegnet.network.peers import peer

        return peer(contender.network, sequences, classes, patch, spacing_mm)
    from brainsegnet.network.design import as_drawn, brain_segnet

    recipe = contender.recipe
    ours = brain_segnet(sequences, classes, recipe.widths, recipe.refined, recipe.stride, recipe.nonlinear)
    return ours if contender.collapsed else as_drawn(ours)
