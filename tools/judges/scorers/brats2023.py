"""The lesion-wise scores of BraTS 2023, from a checkout of rachitsaluja/BraTS-2023-Metrics (second argument)."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np

from judges.scorers.exchange import tell

REGIONS = {"WT": "whole", "TC": "core", "ET": "enhancing"}
NAMES = {
    "Legacy_Dice": "dice",
    "Sensitivity": "sensitivity",
    "Specificity": "specificity",
    "Legacy_HD95": "hd95",
    "LesionWise_Score_Dice": "lesion dice",
    "Num_TP": "found",
    "Num_FN": "missed",
    "Num_FP": "invented",
}


def open_tool(folder: Path) -> Any:  # noqa: ANN401
    """Its file of scores, made to run with the libraries of today.

    It replaces infinite values in columns of arrays too, and passes masks of integers to surface-distance: pandas and
    surface-distance refuse both. Here columns of numbers alone are replaced, and masks are turned to bool.
    """
    pandas: Any = importlib.import_module("pandas")
    distances: Any = importlib.import_module("surface_distance")
    replace, measure = pandas.DataFrame.replace, distances.compute_surface_distances

    def replace_numbers(frame: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        if options.get("inplace"):
            return replace(frame, *args, **options)
        return frame.assign(**replace(frame.select_dtypes("number"), *args, **options))

    pandas.DataFrame.replace = replace_numbers
    distances.compute_surface_distances = lambda a, b, mm: measure(a.astype(bool), b.astype(bool), mm)
    spec = importlib.util.spec_from_file_location("brats2023", folder / "metrics.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Score all pairs in the first folder, which holds them as NIfTI too."""
    folder, tool, answers = Path(sys.argv[1]), open_tool(Path(sys.argv[2])), {}
    for truth in sorted((folder / "truth").glob("*.nii.gz")):
        with np.errstate(all="ignore"):
            frame = tool.get_LesionWiseResults(folder / "predicted" / truth.name, truth, "BraTS-GLI")
        rows = frame.to_dict("records")
        answers[truth.name.split("-")[2]] = {
            REGIONS[row["Labels"]]: {name: float(row[key]) for key, name in NAMES.items()} for row in rows
        }
    tell(answers, "surface-distance", "connected-components-3d", "numpy", "pandas", "scipy")


if __name__ == "__main__":
    main()
