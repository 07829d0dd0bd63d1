"""Which level of gzip suits results: python benchmarks/compression.py --out RESULTS.json.

A shipped model segments simulated gliomas, with probabilities. Each file that is written is compressed again at every
level. Reported are processor seconds and bytes for each kind of file, summed over the cases.
"""

import argparse
import gzip
import json
import sys
import tempfile
import time
import zlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import brainsegnet
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet.io.images import read_image
from brainsegnet.simulation.simulate import SimulateOptions, simulate

LEVELS = range(1, 10)


def compress(content: bytes, level: int) -> tuple[float, int]:
    """Processor seconds, and bytes of the file."""
    begun = time.process_time()
    packed = gzip.compress(content, level, mtime=0)
    return time.process_time() - begun, len(packed)


def main() -> None:
    """Read the command line, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=3)
    parser.add_argument("--anatomy", default="procedural")
    arguments = parser.parse_args()
    sums: dict[str, dict[int, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        cases, results = Path(name) / "cases", Path(name) / "results"
        simulate(cases, SimulateOptions(cases=arguments.cases, realistic=True, anatomy=arguments.anatomy, seed=7200000))
        brainsegnet.segment([cases], "tumour", results, brainsegnet.SegmentOptions(probabilities=True))
        for path in sorted(results.rglob("*.nii.gz")):
            kind = "labels" if read_image(path).array.dtype == np.uint8 else "probability"
            content = gzip.decompress(path.read_bytes())
            for level in LEVELS:
                seconds, size = compress(content, level)
                entry = sums.setdefault(kind, {}).setdefault(level, [0.0, 0, 0])
                sums[kind][level] = [entry[0] + seconds, entry[1] + size, entry[2] + 1]
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_cpu(),
        "versions": {**find_versions(), "zlib": zlib.ZLIB_RUNTIME_VERSION},
        "cases": arguments.cases,
        "levels": {
            kind: {
                level: {"files": files, "seconds": round(seconds, 3), "bytes": size}
                for level, (seconds, size, files) in levels.items()
            }
            for kind, levels in sums.items()
        },
    }
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(f"{document['levels']}\n")


if __name__ == "__main__":
    main()
