"""How long `cohort report` takes, and how large its pages are: python benchmarks/cohort_page.py --out RESULTS.

A few phantoms are segmented with a threshold in place of the network. Their results are then copied with other volumes,
motions, warnings and failures, so that the pages have all kinds of cases. Each report is made in a process of its own,
twice: all thumbnails drawn, then all kept. Memory is the highest resident set of that process. Linux only.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from brainsegnet._atomic import write_text
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet.cohort import QualityOptions
from brainsegnet.cohort.manifest import COLUMNS, MANIFEST, Entry, prepare_manifest, read_manifest
from brainsegnet.cohort.places import Places, open_places
from brainsegnet.cohort.quality_report import write_quality_reports
from brainsegnet.cohort.tables import write_parquet
from brainsegnet.cohort.work import Job, work
from brainsegnet.inference import SegmentOptions, segmenter
from brainsegnet.model.store import resolve_model
from brainsegnet.simulation.simulate import SimulateOptions, simulate

sys.path.append(str(Path(__file__).parents[1]))
from benchmarks.kill_cohort import open_threshold, replace_each

SEGMENTING = SegmentOptions(device="cpu", threads=1, keep_all_components=True, presence_check=False)
TINY, FULL = (24, 40, 40), (155, 240, 240)
WARNINGS = ("T1 is absent, and the mean Dice is lower without it", "flair is coarse: slices of 6.5 mm", "t2 is odd")
FAILURES = (("ImageError", "flair cannot be read"), ("TimedOut", "it took longer than 60 minutes"))


def make_results(folder: Path, count: int, shape: tuple[int, int, int]) -> Places:
    """Segment some phantoms. Returns where the results are; the manifest is beside them."""
    simulate(folder / "cases", SimulateOptions(count, 0, shape))
    replace_each(segmenter, open_engine=open_threshold)
    out = folder / "few"
    manifest = prepare_manifest([folder / "cases"], out, rescan=False)
    places = open_places(out, resolve_model("tumour").card, SEGMENTING, "flat")
    work(Job(manifest, places, "tumour", SEGMENTING))
    return places


def copy_results(few: Places, out: Path, cases: int, seed: int = 0) -> None:
    """A cohort of results that are copies of a few, with other volumes, motions, warnings and failures."""
    places = open_places(out, resolve_model("tumour").card, SEGMENTING, "flat")
    known = list(read_manifest(few.folder.parent / MANIFEST))
    draw, entries = random.Random(seed), list[Entry]()
    for number in range(cases):
        model = known[number % len(known)]
        entry = replace(model, case=f"case{number:05d}", number=number)
        entries.append(entry)
        if draw.random() < 0.01:
            kind, said = draw.choice(FAILURES)
            note: dict[str, Any] = {"kind": kind, "error": f"case {entry.case}: {said}", "cohort": {}}
            write_text(json.dumps(note), places.error_of(entry))
            continue
        shutil.copyfile(few.target_of(model), places.target_of(entry))
        note = json.loads(few.json_of(model).read_text())
        write_text(json.dumps(vary(note, entry, places, draw), indent=2), places.json_of(entry))
    write_parquet((entry.to_row() for entry in entries), COLUMNS, out / MANIFEST, {"sources": "copies"})


def vary(note: dict[str, Any], entry: Entry, places: Places, draw: random.Random) -> dict[str, Any]:
    """The JSON of a copy."""
    factor = draw.lognormvariate(0, 0.6) * (20 if draw.random() < 0.003 else 1) * (draw.random() > 0.02)
    volumes = {kind: {name: ml * factor for name, ml in part.items()} for kind, part in note["volumes_ml"].items()}
    inputs = {
        name: {**facts, "path": os.path.relpath(entry.images[name], places.folder)}
        for name, facts in note["inputs"].items()
    }
    millimetres = draw.lognormvariate(0, 0.5) * (15 if draw.random() < 0.003 else 1)
    motion = {
        "how": "registered",
        "translation_mm": millimetres,
        "rotation_degrees": draw.lognormvariate(0, 0.5),
        "mutual_information_after": draw.gauss(0.9, 0.05),
        "warning": "",
    }
    warnings = [said for said in WARNINGS if draw.random() < 0.03]
    named = {"case": entry.case, "labels": f"{entry.case}.nii.gz", "inputs": inputs, "warnings": warnings}
    geometry = {**note["geometry"], "moved": {"t2": motion}}
    return {**note, **named, "volumes_ml": volumes, "geometry": geometry}


def report_apart(out: Path, threads: int) -> dict[str, float]:
    """Make a report in a process of its own: seconds, processor seconds and memory in MB."""
    command = [sys.executable, __file__, "--report", str(out), "--threads", str(threads)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(json.loads(answer))


def report_here(out: Path, threads: int) -> dict[str, float]:
    """Make a report in this process: seconds, processor seconds, and the highest resident set in MB."""
    begun = time.monotonic()
    write_quality_reports(out, QualityOptions(threads=threads))
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return {
        "seconds": round(time.monotonic() - begun, 1),
        "processor_seconds": round(time.process_time(), 1),
        "memory_mb": round(kilobytes / 1024),
    }


def weigh(folder: Path) -> dict[str, Any]:
    """Bytes of the pages and thumbnails of a report."""
    thumbnails = [path.stat().st_size for path in folder.glob("thumbnails/*/*.webp")]
    pages = [path.stat().st_size for path in sorted(folder.glob("pages/0*.html"))]
    return {
        "thumbnails": len(thumbnails),
        "bytes_a_thumbnail": round(sum(thumbnails) / max(len(thumbnails), 1)),
        "largest_thumbnail": max(thumbnails, default=0),
        "first_page": (folder / "index.html").stat().st_size,
        "other_pages": len(pages),
        "bytes_a_page": round(sum(pages) / max(len(pages), 1)),
        "table_of_names": (folder / "pages" / "names.html").stat().st_size,
    }


def measure(folder: Path, few: Places, cases: int, threads: int) -> Iterator[tuple[str, Any]]:
    """Time, memory and bytes of the report of so many cases."""
    out = folder / f"{cases}"
    copy_results(few, out, cases)
    yield "cases", cases
    yield "drawn", report_apart(out, threads)
    yield "kept", report_apart(out, threads)
    yield from weigh(next(out.glob("*/report"))).items()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", type=int, nargs="*", default=[500, 2000, 10_000])
    parser.add_argument("--full", type=int, nargs="*", default=[60])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", type=Path, help="make the report of this cohort, and nothing else")
    parser.add_argument("--keep", type=Path, help="folder where the cohorts stay")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cohort-page.json"))
    given = parser.parse_args()
    if given.report:
        print(json.dumps(report_here(given.report, given.threads)))
        return
    facts: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_cpu(),
        "versions": find_versions(),
        "threads": given.threads,
        "engine": "a threshold in place of the network",
    }
    with tempfile.TemporaryDirectory() as temporary:
        home = given.keep or Path(temporary)
        for name, shape, sizes, count in (("tiny", TINY, given.tiny, 12), ("full", FULL, given.full, 4)):
            few = make_results(home / name, count, shape) if sizes else None
            rows = [dict(measure(home / name, few, cases, given.threads)) for cases in sizes] if few else []
            facts[name] = {"shape": shape, "reports": rows}
            print(name, json.dumps(rows, indent=1), flush=True)
    facts["load"] = round(os.getloadavg()[0], 1)
    write_text(json.dumps(facts, indent=1) + "\n", given.out)


if __name__ == "__main__":
    main()
