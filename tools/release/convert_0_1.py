"""Bring what version 0.1 wrote into the form of version 0.2: cards of models, states and logs of trainings.

Version 0.1 was never released, so the package itself reads the present form alone. This stays until the models of
version 0.2 ship, because trainings of theirs may go on from states of 0.1.

    python -m release.convert_0_1 MODEL_OR_RUN_FOLDER ...
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brainsegnet._atomic import write_text
from brainsegnet.model.card import Card
from brainsegnet.model.network import read_tensors, write_tensors
from brainsegnet.model.store import CARD_FILE
from brainsegnet.training.recipes import Recipe
from brainsegnet.training.train import STATE

LOG = "log.csv"
RECIPES = {"foci": "small-lesions", "tune": "finetune"}
COLUMNS = {"rate": "learning_rate", "waiting": "data_wait"}
FIELDS = {"small": "small_lesion_power", "blend": "weight_interpolation"}


def convert_card(old: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a `card.json` of 0.1 in the terms of 0.2; one of 0.2 stays as it is."""
    card = {**old}
    if islands := card.pop("islands", None):
        card["components"] = {"confidence_margin": islands["margin"], "kept": islands["kept"]}
    for interval in card.get("intervals", {}).values():
        for note in (interval, *interval.get("subsets", {}).values()):
            if "tail" in note:
                note["alpha"] = note.pop("tail")
    training = card["training"]
    training["recipe"] = convert_recipe(training["recipe"])
    if "blended" in training:
        training["interpolated"] = training.pop("blended")
    if "grown" in training:
        grown = training.pop("grown")
        training["simulated"] = grown and convert_simulated(grown)
    parents = [training["started_from"]] if training.get("started_from") else []
    for named in (card, *parents, *training.get("comparisons", ())):
        for key in ("name", "origin"):
            if key in named:
                named[key] = named[key].replace("grown", "simulated")
    for data in (training["data"], *(parent["data"] for parent in parents)):
        data["sources"] = data["sources"].replace("grown by brainsegnet", "simulated by brainsegnet")
    for parent in parents:
        parent["ancestors"] = [name.replace("grown", "simulated") for name in parent["ancestors"]]
    return card


def convert_recipe(old: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe."""
    new = {FIELDS.get(name, name): value for name, value in old.items()}
    return {**new, "name": RECIPES.get(new["name"], new["name"])} if new else {}


def convert_simulated(old: Mapping[str, Any]) -> dict[str, Any]:
    """What a card says of simulated cases."""
    return {{"slots": "size", "every": "refresh_every"}.get(name, name): value for name, value in old.items()}


def convert_fingerprint(old: str) -> str:
    """What a state says of its training.

    >>> convert_fingerprint('{"name":"tune","budget_epochs":1} 4 5 () (8, 8, 8) 0 x blended 0.5')[:18]
    '{"name":"finetune"'
    """
    content, end = json.JSONDecoder().raw_decode(old)
    rest = old[end:]
    for label, field in (("blended", "weight_interpolation"), ("small", "small_lesion_power")):
        if found := re.search(rf" {label} ([\d.e-]+)", rest):
            content[field] = float(found[1])
            rest = rest.replace(found[0], "", 1)
    recipe = convert_recipe(content)
    return Recipe.model_validate(recipe).model_dump_json() + rest


def convert_folder(folder: Path) -> list[Path]:
    """Convert every card, state and log in a folder; returns the files that were written."""
    written = []
    for path in sorted(folder.rglob(CARD_FILE)):
        card = Card.model_validate(convert_card(json.loads(path.read_text(encoding="utf-8"))))
        write_text(card.model_dump_json(indent=2) + "\n", path)
        written.append(path)
    for path in sorted(folder.rglob(STATE)):
        tensors, notes = read_tensors(path)
        counters = json.loads(notes["training"])
        counters["plan"] = convert_fingerprint(counters["plan"])
        write_tensors(tensors, path, {**notes, "training": json.dumps(counters)})
        written.append(path)
    for path in sorted(folder.rglob(LOG)):
        heading, rows = path.read_text(encoding="utf-8").split("\n", 1)
        columns = [COLUMNS.get(name, name) for name in heading.rstrip("\r").split(",")]
        write_text(",".join(columns) + "\n" + rows, path)
        written.append(path)
    return written


def main() -> None:
    """Convert the folders named on the command line."""
    for folder in sys.argv[1:]:
        for path in convert_folder(Path(folder)):
            sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
