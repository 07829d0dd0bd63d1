"""What dropping islands costs: the network with the arg-max alone beside the network, sureness and dropping.

    python benchmarks/islands.py tumour DATA/tumour/brats2021 --repeat 5

Both ways in turn on each scan, in one process; prints JSON with the median seconds of each and their ratio.
`islands` and `dropped_ml` are means over the scans.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from brainsegnet.inference.engines import open_engine
from brainsegnet.inference.islands import find_classes
from brainsegnet.inference.predict import make_ready
from brainsegnet.inference.shipped import resolve_model
from brainsegnet.processor import describe_processor
from brainsegnet.scans.datasets import find_cases, load_case


def timed(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="one that drops islands")
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--margin", type=float, help="instead of the model's")
    parser.add_argument("--repeat", type=int, default=5, help="times that each scan is computed either way, after one")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args(argv)
    model = resolve_model(arguments.model)
    margin = arguments.margin or model.card.islands.margin
    if margin is None:
        parser.error(f"model {arguments.model} drops no islands; name a --margin")
    engine = open_engine(model, "cpu", arguments.threads)
    seconds: dict[float | None, list[float]] = {None: [], margin: []}
    cleared = []
    for files in find_cases(arguments.data):
        case = load_case(files, model.card.sequences, model.card.task, lesion=False, allow_missing=True)
        image = make_ready(case, model.card).image
        cleared.append((find_classes(engine, image, margin), case.reference.voxel_ml))
        find_classes(engine, image, None)
        for _ in range(arguments.repeat):
            for way, taken in seconds.items():
                taken.append(timed(lambda image=image, way=way: find_classes(engine, image, way)))  # type: ignore[misc]
    alone, dropping = (median(taken) for taken in seconds.values())
    result = {
        "machine": describe_processor(),
        "engine": engine.backend.name,
        "scans": len(cleared),
        "arg_max_seconds": round(alone, 4),
        "dropping_seconds": round(dropping, 4),
        "ratio": round(dropping / alone, 3),
        "islands": round(mean(found.islands for found, _ in cleared), 2),
        "dropped_ml": round(mean(found.voxels * ml for found, ml in cleared), 2),
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
