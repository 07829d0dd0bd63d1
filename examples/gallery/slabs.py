"""One pass and slabs.

By default the whole brain goes through the network in one pass. The paper cuts it into slabs of 31 slices. Slices at
the ends of a slab lack their neighbours, so some labels change (magenta). Thinner slabs change more of them.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from brainsegnet import Segmenter
from brainsegnet.plotting.overlays import overlay
from brainsegnet.plotting.palettes import colours
from brainsegnet.plotting.slices import arrange

GLIOMA = Path(__file__).parents[1] / "glioma"
SLABS = {"One pass": None, "Slabs of 31 slices": 31, "Slabs of 6 slices": 6}


def main(out: Path) -> None:
    """Draw the picture into the folder `out`."""
    images = {name: GLIOMA / f"{name}.nii.gz" for name in ("flair", "t1", "t1c", "t2")}
    results = {title: Segmenter("tumour", slabs=slabs)(images) for title, slabs in SLABS.items()}
    first = results["One pass"]
    scene = arrange(first.case.images["t1c"], [first.labels.array], "planes")
    coronal = scene.views[1]
    grey = coronal.cut(scene.grey(first.case.images["t1c"]))
    figure = Figure(figsize=(12, 4.3), facecolor="black")
    figure.set_layout_engine("constrained", h_pad=0.1)
    for axes, (title, result) in zip(figure.subplots(1, len(results)), results.items(), strict=True):
        changed = result.labels.array != first.labels.array
        picture = overlay(grey, coronal.cut(scene.turn(result.labels.array)), colours(result.card.task), 0.3)
        picture[coronal.cut(scene.turn(changed))] = (1.0, 0.2, 1.0)
        axes.imshow(picture, interpolation="nearest")
        share = np.count_nonzero(changed) / np.count_nonzero(first.labels.array)
        axes.set_title(f"{title}\n{share:.1%} of the tumour changed", color="white")
        axes.set_axis_off()
    figure.savefig(out / "slabs.webp", dpi=100, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
