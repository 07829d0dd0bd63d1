"""The scores of ISLES 2022, from a checkout of ezequieldlrosa/isles22 that the second argument names."""

import importlib.util
import math
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from judges.scorers.exchange import Mask, answer


@cache
def tool() -> Any:  # noqa: ANN401
    """Its file of scores; it uses names that numpy dropped."""
    for name, kind in (("bool", bool), ("float", float)):
        setattr(np, name, kind)
    spec = importlib.util.spec_from_file_location("isles22", Path(sys.argv[2]) / "utils" / "eval_utils.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(sys.argv[2])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def score(predicted: Mask, truth: Mask, spacing_mm: tuple[float, ...]) -> Mapping[str, float]:
    """The scores of one region."""
    voxel_ml = np.float64(math.prod(spacing_mm) / 1000)
    return {
        "dice": tool().compute_dice(truth, predicted),
        "lesion f1": tool().compute_lesion_f1_score(truth, predicted),
        "volume difference": tool().compute_absolute_volume_difference(truth, predicted, voxel_ml),
        "lesion difference": tool().compute_absolute_lesion_difference(truth, predicted),
    }


if __name__ == "__main__":
    answer(score, "connected-components-3d", "numpy")
