"""Simulated gliomas.

Three gliomas of the simulator in procedural anatomies, each from one seed: four sequences and the true labels.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from brainsegnet import SimulateOptions
from brainsegnet.plotting.overlays import overlay, shades, spelt
from brainsegnet.plotting.palettes import colours
from brainsegnet.plotting.slices import arrange
from brainsegnet.simulation.simulate import open_simulator
from brainsegnet.task import BRATS2015

SEEDS = (279, 5, 12)


def main(out: Path) -> None:
    """Draw the picture into the folder `out`."""
    simulate = open_simulator(SimulateOptions(realistic=True, anatomy="procedural", shape=(84, 120, 104)))
    figure = Figure(figsize=(12, 7.3), facecolor="black")
    figure.set_layout_engine("constrained", h_pad=0.1)
    for row, seed in zip(figure.subplots(len(SEEDS), 5), SEEDS, strict=True):
        case = simulate(seed)
        truth = case.lesion.array if case.lesion else case.reference.array
        scene = arrange(case.images["flair"], [truth], "slice")
        cut = scene.views[0].cut
        pictures = {spelt(name): shades(cut(scene.grey(image))) for name, image in case.images.items()}
        pictures["Truth"] = overlay(pictures["FLAIR"][..., 0], cut(scene.turn(truth)), colours(BRATS2015))
        for axes, (name, picture) in zip(row, pictures.items(), strict=True):
            axes.imshow(picture, interpolation="bicubic")
            axes.set_title(name if seed == SEEDS[0] else "", color="white")
            axes.set_axis_off()
    figure.savefig(out / "simulator.webp", dpi=100, pil_kwargs={"quality": 80})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
