"""How masks reach a tool and its answers come back: one .npz a pair, and one line of JSON on standard output."""

import json
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

Mask = Any
Scorer = Callable[[Mask, Mask, tuple[float, ...]], Mapping[str, float]]
"""Predicted mask, true mask (both bool, D, H, W) and spacing in mm to scores."""


def answer(score: Scorer, *packages: str) -> None:
    """Score all pairs in the folder that the command line names, and print the answers."""
    folder = Path(sys.argv[1])
    regions = json.loads((folder / "regions.json").read_text(encoding="utf-8"))
    answers = {}
    for path in sorted(folder.glob("*.npz")):
        pair = np.load(path)
        spacing_mm = tuple(map(float, pair["spacing_mm"]))
        answers[path.stem] = {
            region: dict(score(np.isin(pair["predicted"], v), np.isin(pair["truth"], v), spacing_mm))
            for region, v in regions.items()
        }
    tell(answers, *packages)


def tell(answers: Mapping[str, Mapping[str, Mapping[str, float]]], *packages: str) -> None:
    """Print the answers and the versions of packages. Whatever the tool printed is on earlier lines."""
    versions = {name: metadata.version(name) for name in packages}
    print(json.dumps({"versions": versions, "answers": answers}))


def attempt(score: Callable[[], float]) -> float:
    """A score; NaN where the tool raises an error or gives the largest number there is, as some do for empty masks."""
    try:
        value = float(score())
    except (RuntimeError, ValueError, ZeroDivisionError, IndexError):
        return float("nan")
    return float("nan") if abs(value) == sys.float_info.max else value
