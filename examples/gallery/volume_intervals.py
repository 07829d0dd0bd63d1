"""Intervals of volumes.

The volume of each region of a simulated glioma, the interval that the model gives for it, and the true volume.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from brainsegnet import Segmenter
from brainsegnet.io.images import read_labels

GLIOMA = Path(__file__).parents[1] / "glioma"


def main(out: Path) -> None:
    """Draw the picture into the folder `out`."""
    truth = read_labels(GLIOMA / "lesion.nii.gz")
    with Segmenter("tumour", uncertainty=True) as segment:
        result = segment({name: GLIOMA / f"{name}.nii.gz" for name in segment.sequences})
    regions, intervals = result.card.task.regions, result.intervals or {}
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = figure.subplots()
    for row, (region, interval) in enumerate(intervals.items()):
        true_ml = np.isin(truth.array, regions[region]).sum() * truth.voxel_ml
        names = ("interval", "volume found", "true volume") if row == 0 else (None, None, None)
        axes.barh(row, interval.most_ml - interval.least_ml, 0.34, interval.least_ml, color="#9cc9c4", label=names[0])
        axes.plot(result.volumes_ml["regions"][region], row, "|", color="#00695c", ms=26, mew=3, label=names[1])
        axes.plot(true_ml, row, "D", color="#d1495b", ms=8, label=names[2])
    axes.set(yticks=range(len(intervals)), yticklabels=intervals, xlabel="ml", xlim=(0, None), ylim=(2.5, -0.5))
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, labelsize=11)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.22), ncols=3, frameon=False, markerscale=0.6)
    figure.savefig(out / "volume_intervals.webp", dpi=130, pil_kwargs={"quality": 90})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
