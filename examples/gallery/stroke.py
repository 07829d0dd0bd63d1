"""A stroke, simulated and segmented.

A simulated infarct in the two sequences of ISLES 2022, the probability that the model `stroke` gives, its labels and
the truth.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from brainsegnet import Segmenter, SimulateOptions
from brainsegnet.plotting.overlays import heat_over, overlay, shades
from brainsegnet.plotting.palettes import colours
from brainsegnet.plotting.slices import arrange
from brainsegnet.simulation.simulate import open_simulator


def main(out: Path, seed: int = 3) -> None:
    """Draw the picture into the folder `out`."""
    case = open_simulator(SimulateOptions(stroke="isles2022"))(seed)
    with Segmenter("stroke", probabilities=True) as segment:
        result = segment(case)
    truth = case.lesion.array if case.lesion else result.labels.array
    scene = arrange(case.images["dwi"], [truth], "slice")
    cut, palette = scene.views[0].cut, colours(result.card.task)
    dwi, adc = (cut(scene.grey(case.images[name])) for name in ("dwi", "adc"))
    probability = cut(scene.turn((result.probabilities or {})["infarct"].array))
    found, true = (overlay(dwi, cut(scene.turn(labels)), palette) for labels in (result.labels.array, truth))
    pictures = {"DWI": shades(dwi), "ADC": shades(adc), "Probability": heat_over(0.7 * dwi, probability, "inferno")}
    figure = Figure(figsize=(12, 2.9), facecolor="black")
    figure.set_layout_engine("constrained", h_pad=0.1)
    pictures |= {"Prediction": found, "Truth": true}
    for axes, (name, picture) in zip(figure.subplots(1, len(pictures)), pictures.items(), strict=True):
        axes.imshow(picture, interpolation="bicubic")
        axes.set_title(name, color="white", fontsize=11)
        axes.set_axis_off()
    figure.savefig(out / "stroke.webp", dpi=100, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
