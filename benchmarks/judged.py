"""How often other tools agree with the scores of `evaluate`, and what they answer on special masks.

    python -m judges
    python benchmarks/judged.py --out benchmarks/results/judges.json

The masks are made here (tools/judges/masks.py); none is of a patient, and none took part in a choice. A tool that is
not installed is left out. `answers` holds what each says of the special masks, with texts for what is no number.
"""

import argparse
import datetime
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainsegnet._machine import describe_cpu, find_versions
from judges.agreement import BRATS2026, USUAL, compare, score_pairs
from judges.ask import Answers, ask, write_pairs
from judges.masks import REGIONS, Pair, make_pairs, special_pairs
from judges.panel import JUDGES


def plain(value: float) -> float | str:
    """A number to six decimals, or the name of what is none."""
    return round(value, 6) if math.isfinite(value) else str(value)


def of_special(answers: Answers) -> dict[str, Any]:
    """The answers on the special pairs, for JSON."""
    return {
        pair.name: {
            region: {score: plain(value) for score, value in row.items()} for region, row in answers[pair.name].items()
        }
        for pair in special_pairs()
    }


def our_answers(pairs: Sequence[Pair]) -> Answers:
    """HD95 in both definitions, and surface Dice."""
    usual, pooled = score_pairs(pairs, USUAL), score_pairs(pairs, BRATS2026)
    return {
        pair.name: {
            region: {
                "hd95 max": usual[pair.name, region].hd95_mm,
                "hd95 pooled": pooled[pair.name, region].hd95_mm,
                "surface dice": usual[pair.name, region].surface_dice,
            }
            for region in REGIONS
        }
        for pair in pairs
    }


def judge_all(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Agreement, versions and answers of every tool that is installed."""
    rows, versions, answers, absent = [], {}, {"brainsegnet": of_special(our_answers(pairs))}, {}
    for judge in JUDGES:
        if fault := judge.find_fault():
            absent[judge.title] = fault
            continue
        with tempfile.TemporaryDirectory() as folder:
            write_pairs(pairs, Path(folder))
            verdict = ask(judge, pairs, Path(folder))
        versions[judge.name], answers[judge.name] = dict(verdict.versions), of_special(verdict.answers)
        for found in compare(judge.name, verdict.answers, pairs):
            claim: Mapping[str, Any] = {
                "judge": judge.name, "score": found.claim.score, "ours": found.claim.ours,
                "hd95": found.claim.options.hd95, "lesions": found.claim.options.lesions, "limits": found.claim.limits,
            }  # fmt: skip
            rows.append({**claim, "equal": found.equal, "compared": found.compared, "undefined": found.undefined})
    return {"agreement": rows, "versions": versions, "absent": absent, "answers": answers}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=47, help="number of random pairs; three regions each")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    pairs = make_pairs(options.random)
    record = {
        "date": datetime.date.today().isoformat(),
        "machine": describe_cpu(),
        "libraries": find_versions(),
        "pairs": len(pairs),
        "masks": len(pairs) * len(REGIONS),
        **judge_all(pairs),
    }
    options.out.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
