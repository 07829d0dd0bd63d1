"""Dice and seconds from files to file of a model, case by case, on scans whose truth is known.

    python benchmarks/shipped.py tumour DATA/tumour/brats2015 --out benchmarks/results/shipped-tumour-brats2015.json
    python benchmarks/shipped.py stroke DATA/stroke/isles2022 --out benchmarks/results/shipped-stroke-isles2022.json

Each case is segmented once to warm up and then `--repeat` times: reading, preparing, network and writing are timed
together. `trained_on` counts the cases whose names stand on the model's card. Their Dice says nothing about others.
"""

import argparse
import datetime
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from brainsegnet import Segmenter, evaluate
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet.io.cases import CaseFiles, find_cases, load_case


def time_case(segmenter: Segmenter, files: CaseFiles, out: Path, repeat: int) -> list[float]:
    """Seconds from the files of a case to its label map on disk."""
    card, seconds = segmenter.model.card, []
    for _ in range(repeat + 1):
        started = time.perf_counter()
        case = load_case(files, card.sequences, card.task, lesion=False, allow_missing=True)
        segmenter(case.images, name=files.name).save(out / f"{files.name}.nii.gz")
        seconds.append(round(time.perf_counter() - started, 3))
    return seconds[1:]


def judge(name: str, data: Sequence[Path], repeat: int, threads: int) -> dict:
    """What the JSON holds of a model: scores and true volumes by case and region, and seconds by case."""
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, Segmenter(name, threads=threads, allow_poor=True) as segmenter:
        for files in find_cases(data):
            seconds[files.name] = time_case(segmenter, files, Path(folder), repeat)
        card, engine = segmenter.model.card, segmenter.open().backend.name
        scores = evaluate(Path(folder), data, card.task).scores
    known = set(card.as_parent().seen)
    return {
        "model": card.name,
        "sha256": card.weights.sha256 if card.weights else None,
        "engine": engine,
        "trained_on": len(known & set(seconds)),
        "dice": {case: {region: round(one.dice, 4) for region, one in row.items()} for case, row in scores.items()},
        "true_ml": {
            case: {region: round(one.true_volume_ml, 2) for region, one in row.items()} for case, row in scores.items()
        },
        "seconds": seconds,
        "median_seconds": round(median(one for row in seconds.values() for one in row), 3),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(argv)
    about = {
        "date": datetime.date.today().isoformat(),
        "machine": describe_cpu(),
        "threads": arguments.threads,
        "versions": find_versions(),
    }
    result = about | judge(arguments.model, arguments.data, arguments.repeat, arguments.threads)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
