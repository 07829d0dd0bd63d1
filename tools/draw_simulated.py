"""Draw `docs/images/simulated.jpg`: one slice of each kind of simulated case; no scan of a person is in it.

Run: python tools/draw_simulated.py docs/images/simulated.jpg (needs torch)
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

import brainsegnet
from brainsegnet.preprocessing.geometry import find_turn, turn
from brainsegnet.simulation.simulate import SimulateOptions, open_simulator
from brainsegnet.volume import Case

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROWS: tuple[tuple[str, str, SimulateOptions, int], ...] = (
    ("phantom", "brats2015", SimulateOptions(), 2),
    ("glioma", "brats2015", SimulateOptions(realistic=True, anatomy="procedural"), 279),
    (
        "white matter",
        "white-matter-lesions",
        SimulateOptions(realistic=True, lesion="white-matter", anatomy="procedural"),
        28,
    ),
    ("stroke, diffusion", "isles2022", SimulateOptions(stroke="isles2022"), 3),
    ("stroke, perfusion", "isles2017", SimulateOptions(stroke="isles2017"), 8),
)
"""Name, task, options and seed of each row."""
COLUMNS, SIDE, DPI = 7, 1.6, 110


def main(out: Path) -> None:
    """Simulate the cases and write the picture, a JPEG, so that it is small."""
    figure, axes = plt.subplots(len(ROWS), COLUMNS, figsize=(COLUMNS * SIDE, len(ROWS) * 1.3 * SIDE), facecolor="k")
    for row, (name, task, options, seed) in zip(axes, ROWS, strict=True):
        case = open_simulator(options)(seed)
        draw(row, case, brainsegnet.load_task(task))
        row[0].set_ylabel(name, color="w", fontsize=8)
    figure.subplots_adjust(left=0.03, right=0.995, bottom=0.01, top=0.96, wspace=0.04, hspace=0.12)
    figure.savefig(out, dpi=DPI, facecolor="k", pil_kwargs={"quality": 88})
    plt.close(figure)


def draw(row: "np.ndarray[tuple[int], np.dtype[np.object_]]", case: Case, task: brainsegnet.Task) -> None:
    """The sequences of a case in the slice with most lesion, and the labels over the first sequence; the nose is up."""
    assert case.lesion is not None
    how = find_turn(case.reference.affine)
    images, lesion = {name: turn(volume, how) for name, volume in case.images.items()}, turn(case.lesion, how).array
    shown = int(np.count_nonzero(lesion, axis=(1, 2)).argmax())
    brain = np.any([volume.array[shown] != 0 for volume in images.values()], axis=0)
    rows, columns = (np.flatnonzero(brain.any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    first = next(iter(images.values()))
    _, high, wide = first.spacing_mm
    for axis in row:
        axis.set(xticks=[], yticks=[], facecolor="k")
        for side in axis.spines.values():
            side.set_visible(False)
    for axis, (sequence, volume) in zip(row, images.items(), strict=False):
        show(axis, volume.array[shown][box], high / wide)
        axis.set_title(sequence, color="w", fontsize=8, pad=2)
    last = row[len(images)]
    show(last, first.array[shown][box], high / wide)
    colours = ListedColormap([task.colours[value] for value in task.labels])
    numbers = np.searchsorted(list(task.labels), lesion[shown][box])
    masked = np.ma.masked_where(lesion[shown][box] == 0, numbers)
    last.imshow(masked, cmap=colours, vmin=-0.5, vmax=len(task.labels) - 0.5, aspect=high / wide, alpha=0.75)
    last.set_title("labels", color="w", fontsize=8, pad=2)


def show(axis: Axes, image: "np.ndarray[tuple[int, int], np.dtype[np.float32]]", aspect: float) -> None:
    """A slice in grey, without the brightest and the darkest percent of the brain."""
    low, high = np.percentile(image[image != 0], [1, 99.5])
    axis.imshow(image, cmap="gray", vmin=min(low, 0.5 * high), vmax=high, aspect=aspect, interpolation="bilinear")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    main(parser.parse_args().out)
