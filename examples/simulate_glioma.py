"""Make `examples/glioma`: a case that the software simulated in a procedural head, not the scan of a person.

Run: python examples/simulate_glioma.py examples/glioma (needs torch: pip install ".[train]")
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import brainsegnet
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.io.images import write_image
from brainsegnet.preprocessing.foreground import find_foreground
from brainsegnet.preprocessing.prepare import crop
from brainsegnet.volume import Box, Volume

SEED, MARGIN, WHITE = 279, 2, 120


def main(out: Path) -> None:
    """Simulate the case, crop it to the brain, and store it in few grey levels, so that it is small."""
    out.mkdir(parents=True, exist_ok=True)
    task = brainsegnet.load_task("brats2021")
    with tempfile.TemporaryDirectory() as folder:
        options = brainsegnet.SimulateOptions(cases=1, seed=SEED, realistic=True, anatomy="procedural")
        brainsegnet.simulate(Path(folder), options)
        case = load_case(find_cases([Path(folder)])[0], ("flair", "t1", "t1c", "t2"), task, lesion=True)
    arrays = {sequence: volume.array for sequence, volume in case.images.items()}
    brain = Box.around(find_foreground(arrays, case.reference.spacing_mm).mask)
    start = [max(0, low - MARGIN) for low in brain.start]
    stop = [min(size, high + MARGIN) for size, high in zip(case.reference.shape, brain.stop, strict=True)]
    box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    for sequence, volume in case.images.items():
        write_image(in_few_levels(crop(volume, box)), out / f"{sequence}.nii.gz")
    if case.lesion is not None:
        write_image(crop(case.lesion, box), out / "lesion.nii.gz")


def in_few_levels(volume: Volume) -> Volume:
    """The brain in levels 1 to 255, 0 around it."""
    array = volume.array.astype(float)
    levels = np.clip(np.rint(array / np.percentile(array[array > 0], 99.9) * WHITE), 1, 255)
    return volume.with_array(np.where(array > 0, levels, 0).astype(np.int16))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    main(parser.parse_args().out)
