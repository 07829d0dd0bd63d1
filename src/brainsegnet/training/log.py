"""Reading the log of a training; it needs nothing of what writes one."""

import csv
from pathlib import Path
from typing import Any


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a `log.csv`, numbers as numbers and empty cells left out; none if there is no file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{k: v for k, v in row.items() if v not in ("", None)} for row in csv.DictReader(file)]
    return [{k: v if k == "stage" else int(v) if k == "step" else float(v) for k, v in row.items()} for row in rows]
