"""Label maps that a model made, and what the JSON that `segment` writes beside each says of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_note(path: Path) -> Mapping[str, Any]:
    """What `segment` wrote into a JSON; empty where there is none, or it is something else."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def find_maps(folder: Path) -> set[str]:
    """Names of the images in a folder that are no label maps: probabilities and entropy, as the JSONs there tell."""
    names: set[str] = set()
    for path in folder.glob("*.json"):
        note = read_note(path)
        probabilities, uncertainty = note.get("probabilities"), note.get("uncertainty")
        named = [*probabilities.values()] if isinstance(probabilities, dict) else []
        named += [*uncertainty.values()] if isinstance(uncertainty, dict) else []
        names |= {name for name in named if isinstance(name, str)}
    return names
