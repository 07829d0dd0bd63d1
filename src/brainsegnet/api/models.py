"""`models`: which models lie inside the package, from what they were made, and how good they are."""

from brainsegnet.api.inspection import Inventory, Row
from brainsegnet.inference.card import Card
from brainsegnet.inference.model import Model
from brainsegnet.inference.shipped import shipped_models


def models() -> Inventory:
    """Every shipped model, a column each: what it takes, what it finds, its origin, licence, scores and hash.

    Raises:
        ModelError: one was altered.
    """
    shipped = shipped_models()
    columns = {name: _facts(model) for name, model in shipped.items()}
    kinds = list(next(iter(columns.values()), {}))
    rows: list[Row] = [(kind, *(facts[kind] for facts in columns.values())) for kind in kinds]
    return Inventory(f"{len(shipped)} models in the package", ("", *columns), rows)


def _facts(model: Model) -> dict[str, str]:
    card = model.card
    training, weights = card.training, card.weights
    bytes_ = sum(path.stat().st_size for path in model.folder.rglob("*") if path.is_file())
    return {
        "takes": ("any of " if card.input.any_subset else "") + ", ".join(card.sequences),
        "finds": ", ".join(f"{value} {tissue}" for value, tissue in card.task.labels.items()),
        "trained on": training.data.sources,
        "licence": card.licence,
        "Dice on unseen cases": _unseen(card),
        "exports": ", ".join(card.exports) or "none",
        "size": f"{bytes_ / 1e6:.1f} MB",
        "SHA-256": weights.sha256 if weights else "none",
    }


def _unseen(card: Card) -> str:
    """Scores with all sequences, and over how many cases they are a mean."""
    note = card.training
    scores = note.subsets.get("+".join(card.sequences), note.scores)
    told = ", ".join(f"{region} {value:.2f}" for region, value in scores.items() if value is not None)
    cases = note.held_out_sources or f"{len(note.held_out)} cases"
    return f"{told} (mean over {cases})" if told else "not measured"
