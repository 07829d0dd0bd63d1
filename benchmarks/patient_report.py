"""How large the report on one patient is, and how long it takes, from results of `segment --uncertainty` on disk.

Run: python -m benchmarks.patient_report RESULTS... --out benchmarks/results/patient_report.json

Seconds are those of the processor, of this process alone, so other work on the machine does not count. The first page
of a process pays for the imports, so it is made twice.
"""

import argparse
import datetime
import json
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from brainsegnet._atomic import write_text
from brainsegnet._machine import describe_cpu
from brainsegnet.io.layouts import read_note
from brainsegnet.reporting.patient import write_patient_report


def measure(result: Path, folder: Path) -> dict[str, Any]:
    """Size and time of the page of a result."""
    page, note = folder / "page.html", read_note(result.with_name(result.name.replace(".nii.gz", ".json")))
    started = time.process_time()
    write_patient_report(result, page)
    seconds = time.process_time() - started
    return {
        "task": note["task"],
        "skull": note["head"]["skull"] if note["brain"]["how"] == "as given" else "removed by segment",
        "sequences": len(note["sequences"]["used"]),
        "bytes": page.stat().st_size,
        "processor_seconds": round(seconds, 2),
    }


def main() -> None:
    """Measure all results and write a JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measure(options.results[0], Path(name))
        rows = [measure(result, Path(name)) for result in options.results]
    record = {
        "what": "reports on one patient; no case had a part in a choice but the looks of the page",
        "date": datetime.date.today().isoformat(),
        "processor": describe_cpu(),
        "versions": {"brainsegnet": version("brainsegnet"), "python": platform.python_version()},
        "largest_bytes": max(row["bytes"] for row in rows),
        "most_processor_seconds": max(row["processor_seconds"] for row in rows),
        "cases": rows,
    }
    write_text(json.dumps(record, indent=2) + "\n", options.out)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
