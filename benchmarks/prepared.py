"""Simulated scans as challenges give them: four sequences on one grid of 1 mm, skull off, 155 x 240 x 240 voxels.

Scripts that measure whole cohorts make their cases with it. Run by itself, it fills a folder:
python benchmarks/prepared.py FOLDER --cases 6.
"""

import argparse
from pathlib import Path

import numpy as np

from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image, write_image
from brainsegnet.simulation.simulate import SimulateOptions, simulate
from brainsegnet.volume import Volume

SHAPE = (155, 240, 240)
HEAD = (154, 196, 196)
"""Voxels of a phantom at 1 mm; the rest of `SHAPE` is empty."""


def simulate_prepared(folder: Path, cases: int) -> Path:
    """Simulate phantoms, and write each of its sequences as `FOLDER/prepared/CASE/SEQUENCE.nii.gz`.

    Returns:
        The folder of the cases.
    """
    simulate(folder / "phantoms", SimulateOptions(cases=cases, shape=HEAD))
    for case in find_cases([folder / "phantoms"]):
        home = folder / "prepared" / case.name
        home.mkdir(parents=True, exist_ok=True)
        for name, path in case.images.items():
            write_image(pad(read_image(path)), home / f"{name}.nii.gz")
    return folder / "prepared"


def pad(image: Volume) -> Volume:
    """An image (154, 196, 196) in the middle of an empty one of `SHAPE`, with the same affine."""
    assert np.allclose(image.spacing_mm, 1, atol=1e-3), image.spacing_mm
    room = [(whole - part) // 2 for whole, part in zip(SHAPE, image.shape, strict=True)]
    array = np.zeros(SHAPE, image.array.dtype)
    array[tuple(slice(start, start + part) for start, part in zip(room, image.shape, strict=True))] = image.array
    return image.with_array(array)


def main() -> None:
    """Read the command line and fill the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=6)
    arguments = parser.parse_args()
    simulate_prepared(arguments.folder, arguments.cases)


if __name__ == "__main__":
    main()
