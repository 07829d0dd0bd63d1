"""Models that lie inside the package: found by name, or by the sequences that a case has."""

from collections.abc import Collection, Mapping
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


def is_shipped(named: Path, home: Path = HOME) -> bool:
    """Whether this is the name of a shipped model, and of nothing else here."""
    return not named.exists() and named == Path(named.name) and (home / named.name / CARD_FILE).is_file()


def resolve_model(named: Path | str, home: Path = HOME) -> Model:
    """A model folder; or, where there is no such folder, the shipped model of that name.

    Raises:
        ModelError: neither can be used.
    """
    path = Path(named)
    return open_model(home / path.name if is_shipped(path, home) else path)


def choose_model(cases: Mapping[str, Collection[str]], home: Path | None = None) -> Model:
    """The shipped model that uses most of the sequences of each of some cases, of several the one that lacks fewest.

    Cases of which no model takes anything have no say.

    Args:
        cases: Case name to its sequences, at least one.
        home: Where the models lie; None is the package.

    Raises:
        ModelError: none uses any sequence of any case, none is shipped, or two cases call for different ones.
    """
    models = shipped_models(home or HOME)
    chosen = {case: name for case, sequences in cases.items() if (name := _choose(models, sequences))}
    if not chosen:
        known = "; ".join(f"{name}: {', '.join(model.card.sequences)}" for name, model in models.items())
        first = next(iter(cases.values()))
        raise ModelError(
            f"no model of the package takes {', '.join(first) or 'nothing'} ({known or 'none is there'}); "
            "name a model folder with --model"
        )
    case, name = next(iter(chosen.items()))
    if other := next((other for other in chosen if chosen[other] != name), None):
        raise ModelError(
            f"the sequences of case {case} call for model {name}, those of case {other} for model {chosen[other]}; "
            "name one with --model, or segment the two kinds of cases apart"
        )
    return models[name]


def _choose(models: Mapping[str, Model], sequences: Collection[str]) -> str | None:
    """The name of the model that uses most of the sequences, of several the one that lacks fewest; or None."""
    used = {name: len(set(model.card.sequences) & set(sequences)) for name, model in models.items()}
    lacking = {name: len(model.card.sequences) - used[name] for name, model in models.items()}
    return max(used, key=lambda name: (used[name], -lacking[name])) if any(used.values()) else None
