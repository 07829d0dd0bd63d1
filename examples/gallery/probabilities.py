"""Probabilities and entropy.

The probability of each tissue, and the entropy of all of them: it is high where the model is uncertain, at borders
above all. Both are maps on the grid of the scan.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from brainsegnet import Segmenter
from brainsegnet.plotting.overlays import heat_over, shades
from brainsegnet.plotting.slices import arrange

GLIOMA = Path(__file__).parents[1] / "glioma"


def main(out: Path) -> None:
    """Draw the picture into the folder `out`."""
    with Segmenter("tumour", probabilities=True, uncertainty=True) as segment:
        result = segment({name: GLIOMA / f"{name}.nii.gz" for name in segment.sequences})
    maps = dict(result.probabilities or {}) | ({"entropy": result.entropy} if result.entropy else {})
    scene = arrange(result.case.images["t1c"], [result.labels.array], "slice")
    view, grey = scene.views[0], scene.grey(result.case.images["t1c"])
    pictures = {"T1c": shades(view.cut(grey))}
    for name, values in maps.items():
        if name != "background":
            colormap = "viridis" if name == "entropy" else "inferno"
            pictures[name] = heat_over(0.7 * view.cut(grey), view.cut(scene.turn(values.array)), colormap)
    figure = Figure(figsize=(12, 3.15), facecolor="black")
    figure.set_layout_engine("constrained", h_pad=0.1)
    for axes, (name, picture) in zip(figure.subplots(1, len(pictures)), pictures.items(), strict=True):
        axes.imshow(picture, interpolation="bicubic")
        axes.set_title(name, color="white", fontsize=11)
        axes.set_axis_off()
    figure.savefig(out / "probabilities.webp", dpi=100, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
