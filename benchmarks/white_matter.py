"""Dice and F1 by lesion of a model of white matter lesions, case by case, with FLAIR and any of T1, T1c and T2.

    python benchmarks/white_matter.py runs/ms/simulated/best DATA/ms/lesjak2017 --chose-nothing \
        --out benchmarks/results/white-matter-lesjak2017.json

Every case is segmented once with each of the eight sets of sequences. `--chose-nothing` records that the cases had no
part in any choice.
"""

import argparse
import datetime
import json
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean

from brainsegnet import Segmenter
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet.io.cases import CaseFiles, find_cases, load_case
from brainsegnet.metrics.scores import RegionScore, score_case

FIRST, OTHERS, REGION = "flair", ("t1", "t1c", "t2"), "lesion"
KEPT = ("dice", "lesion_f1", "sensitivity", "precision", "predicted_volume_ml", "true_volume_ml")


def list_subsets(sequences: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """FLAIR with none, some or all of the other sequences that there are."""
    others = [name for name in OTHERS if name in sequences]
    for count in range(len(others) + 1):
        for chosen in combinations(others, count):
            yield (FIRST, *chosen)


def score_subsets(segmenter: Segmenter, files: CaseFiles) -> dict[str, RegionScore]:
    """The score of a case with each set of its sequences."""
    card = segmenter.model.card
    case = load_case(files, card.sequences, card.task, lesion=True, allow_missing=True)
    assert case.lesion is not None
    scores = {}
    for chosen in list_subsets(tuple(case.images)):
        found = segmenter({name: case.images[name] for name in chosen}, name=files.name)
        row = score_case(found.labels.array, case.lesion.array, card.task, case.lesion.spacing_mm, files.name)
        scores["+".join(chosen)] = row[REGION]
    return scores


def judge(model: str, data: Sequence[Path], threads: int) -> dict:
    """What the JSON holds of a model: scores by case and set of sequences, and their means over the cases."""
    with Segmenter(model, threads=threads, allow_poor=True) as segmenter:
        card = segmenter.model.card
        scores = {files.name: score_subsets(segmenter, files) for files in find_cases(data)}
    first = next(iter(scores.values()))
    return {
        "model": card.name,
        "sha256": card.weights.sha256 if card.weights else None,
        "steps": card.training.steps,
        "trained_on": len({*card.as_parent().seen} & {*scores}),
        "scores": {
            case: {
                chosen: {name: round(getattr(one, name), 4) for name in KEPT}
                | {name: getattr(one, name) for name in ("lesions_found", "lesions_missed", "lesions_invented")}
                for chosen, one in row.items()
            }
            for case, row in scores.items()
        },
        "mean": {
            chosen: {
                name: round(mean(getattr(row[chosen], name) for row in scores.values() if chosen in row), 4)
                for name in ("dice", "lesion_f1")
            }
            for chosen in first
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--chose-nothing", action="store_true")
    arguments = parser.parse_args(argv)
    about = {
        "date": datetime.date.today().isoformat(),
        "machine": describe_cpu(),
        "threads": arguments.threads,
        "versions": find_versions(),
        "cases_chose_nothing": arguments.chose_nothing,
    }
    result = about | judge(arguments.model, arguments.data, arguments.threads)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
