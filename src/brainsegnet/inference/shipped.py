"""Models that lie inside the package: found by name, or by the sequences that a case has."""

from collections.abc import Collection
from pathlib import Path

from brainsegnet.errors import ModelError
from brainsegnet.inference.model import CARD_FILE, Model, open_model

HOME = Path(__file__).parents[1] / "models"


def shipped_models(home: Path = HOME) -> dict[str, Model]:
    """Every model of the package by name, checked.

    Raises:
        ModelError: one was altered.
    """
    return {card.parent.name: open_model(card.parent) for card in sorted(home.glob(f"*/{CARD_FILE}"))}


def resolve_model(named: Path, home: Path = HOME) -> Model:
    """A model folder; or, where there is no such folder, the shipped model of that name.

    Raises:
        ModelError: neither can be used.
    """
    inside = home / named.name
    if not named.exists() and named == Path(named.name) and (inside / CARD_FILE).is_file():
        return open_model(inside)
    return open_model(named)


def choose_model(sequences: Collection[str], home: Path = HOME) -> Model:
    """The shipped model that uses most of the sequences of a case.

    Raises:
        ModelError: none uses any of them, or none is shipped.
    """
    models = shipped_models(home)
    used = {name: len(set(model.card.sequences) & set(sequences)) for name, model in models.items()}
    if not any(used.values()):
        known = "; ".join(f"{name}: {', '.join(model.card.sequences)}" for name, model in models.items())
        raise ModelError(
            f"no model of the package takes {', '.join(sequences) or 'nothing'} ({known or 'none is there'}); "
            "name a model folder with --model"
        )
    return models[max(used, key=lambda name: used[name])]
