"""Truth and result compared.

Where model and truth agree on the whole tumour, what the model misses, and what it adds, in three planes.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from brainsegnet import Segmenter
from brainsegnet.io.images import read_labels
from brainsegnet.plotting.overlays import overlay
from brainsegnet.plotting.slices import arrange

GLIOMA = Path(__file__).parents[1] / "glioma"
KINDS = {1: ("agreement", (0.16, 0.65, 0.6)), 2: ("missed", (0.95, 0.55, 0.1)), 3: ("added", (0.85, 0.2, 0.75))}


def main(out: Path) -> None:
    """Draw the picture into the folder `out`."""
    truth = read_labels(GLIOMA / "lesion.nii.gz").array > 0
    with Segmenter("tumour") as segment:
        result = segment({name: GLIOMA / f"{name}.nii.gz" for name in segment.sequences})
    found = result.labels.array > 0
    kinds = 1 * (found & truth) + 2 * (truth & ~found) + 3 * (found & ~truth)
    flair = result.case.images["flair"]
    scene = arrange(flair, [truth], "planes")
    figure = Figure(figsize=(12, 4.6), facecolor="black")
    figure.set_layout_engine("constrained", h_pad=0.1)
    for axes, view in zip(figure.subplots(1, 3), scene.views, strict=True):
        palette = {kind: colour for kind, (_, colour) in KINDS.items()}
        axes.imshow(overlay(view.cut(scene.grey(flair)), view.cut(scene.turn(kinds)), palette, 0.45))
        axes.set_axis_off()
    handles = [Patch(color=colour, label=name) for name, colour in KINDS.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, labelcolor="white")
    figure.savefig(out / "truth_and_result.webp", dpi=100, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
