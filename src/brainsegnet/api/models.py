"""`models`: which models lie inside the package, from what they were made, and how good they are."""

from brainsegnet.api.inspection import Inventory, Row
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
    scores = training.subsets.get("+".join(card.sequences), training.scores)
    bytes_ = sum(path.stat().st_size for path in model.folder.rglob("*") if path.is_file())
    return {
        "takes": ("any of " if card.input.any_subset else "") + ", ".join(card.sequences),
        "finds": ", ".join(f"{value} {tissue}" for value, tissue in card.task.labels.items()),
        "trained on": training.data.sources,
        "licence": card.licence,
        "Dice on unseen cases": ", ".join(
            f"{region} {value:.2f}" for region, value in scores.items() if value is not None
        )
        + (f" ({training.held_out_sources})" if training.held_out_sources else ""),
        "exports": ", ".join(card.exports) or "none",
        "size": f"{bytes_ / 1e6:.1f} MB",
        "SHA-256": weights.sha256 if weights else "none",
    }
