"""The evaluation of BraTS 2026, through its command line: this file imports none of it (it is AGPL-3)."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

from judges.scorers.exchange import tell

REGIONS = {"wt": "whole", "tc": "core", "et": "enhancing"}
NAMES = {
    "global_bin_dsc": "dice",
    "global_bin_hd95": "hd95",
    "global_bin_nsd": "surface dice",
    "rq": "lesion f1",
    "sq_dsc": "dice of pairs",
    "tp": "found",
    "fn": "missed",
    "fp": "invented",
}


def main() -> None:
    """Score all pairs in the first folder, which holds them as NIfTI too."""
    folder = Path(sys.argv[1])
    out = folder / "brats2026.json"
    command = [
        str(Path(sys.executable).with_name("brats-evaluate")), "--config", "gli", "--summary_json", str(out),
        "--ref_path", str(folder / "truth"), "--pred_path", str(folder / "predicted"),
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    answers = {}
    for case in json.loads(out.read_text(encoding="utf-8"))["metrics"]:
        answers[case["subject_name"].split("-")[2]] = {
            region: {name: number(case[key].get(field)) for field, name in NAMES.items()}
            for key, region in REGIONS.items()
        }
    tell(answers, "BraTS-evaluation", "panoptica")


def number(value: object) -> float:
    """What the tool wrote, or NaN where it wrote nothing."""
    with contextlib.suppress(TypeError, ValueError):
        return float(value)  # type: ignore[arg-type]
    return float("nan")


if __name__ == "__main__":
    main()
