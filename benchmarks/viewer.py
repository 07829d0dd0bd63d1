"""Size of the page of `brainsegnet view`, and seconds until its first picture, case by case, in Chromium.

    python benchmarks/viewer.py DATA/tumour/brats2021 --out benchmarks/results/viewer.json

The true label map of each case is shown over its sequences, so no network runs. `first_picture` is the median over
several loads, in a browser that runs already, from the start of navigation until the first picture is drawn.
"""

import argparse
import datetime
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet.io.cases import CaseFiles, find_cases
from brainsegnet.plotting.result import view
from browser import Browser, find_browser


def measure(files: CaseFiles, labels: Path, browser: Browser, folder: Path, repeat: int) -> dict:
    """Bytes of the page, seconds to make it, and seconds until pictures and all volumes are there."""
    page, started = folder / f"{files.name}.html", time.perf_counter()
    view(labels, page, [*files.images.values()], task=files.convention)
    made = time.perf_counter() - started
    times: list[list[float]] = []
    for _ in range(repeat):
        browser.open(page)
        browser.wait("window.viewer && viewer.loaded", 60)
        times.append(browser.run("[viewer.firstPicture, viewer.loaded].map(ms => ms / 1000)"))
    first, loaded = (round(median(one[k] for one in times), 3) for k in (0, 1))
    return {"bytes": page.stat().st_size, "make": round(made, 2), "first_picture": first, "loaded": loaded}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args(argv)
    program = find_browser()
    if program is None:
        parser.error("no Chromium is installed")
    about: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": describe_cpu(),
        "versions": find_versions(),
    }
    with tempfile.TemporaryDirectory() as profile, tempfile.TemporaryDirectory() as folder:
        with Browser(program, Path(profile)) as browser:
            about["browser"] = browser.run("navigator.userAgent")
            cases = {
                files.name: measure(files, files.lesion, browser, Path(folder), arguments.repeat)
                for files in find_cases(arguments.data)
                if files.lesion
            }
    about["load"] = round(os.getloadavg()[0], 1)
    largest = {key: max(case[key] for case in cases.values()) for key in ("bytes", "make", "first_picture", "loaded")}
    arguments.out.write_text(json.dumps({**about, "worst": largest, "cases": cases}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
