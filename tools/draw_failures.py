"""Draw `docs/images/failures-MODEL.jpg`: simulated cases on which a model fails as it does on patients.

Each row is a kind of failure that was seen in left-out patients, in a simulated head; for `perfusion`, in simulated
cases alone. The seeds were chosen among 8 tumours of each kind and 24 strokes for clear failures. So the picture shows
how a failure looks, not how often it happens. No scan of a person is in it.

Run: python tools/draw_failures.py MODEL docs/images/failures-MODEL.jpg (needs torch); --search prints the Dice of
each seed.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

import brainsegnet
from brainsegnet._types import Labels
from brainsegnet.anatomy.label_maps import open_anatomies
from brainsegnet.preprocessing.geometry import find_turn, turn
from brainsegnet.simulation import realistic
from brainsegnet.simulation.fields import RandomStreams
from brainsegnet.simulation.rendering import DISTINCT
from brainsegnet.simulation.simulate import SimulateOptions, open_simulator
from brainsegnet.volume import Case

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SEARCHED = {"tumour": range(8), "stroke": range(24), "perfusion": range(24)}
SEQUENCES = {"tumour": ("flair", "t1c"), "stroke": ("dwi", "adc"), "perfusion": ("adc", "tmax")}
DRAWN = {"tumour": "brats2015", "stroke": "isles2022", "perfusion": "isles2017"}
"""Task whose labels the simulated cases of a model have."""
SIDE, DPI, FAINT = 2.2, 110, 0.3
"""Inches of a picture, dots of an inch, and how much of its contrast a faint tumour keeps."""


@dataclass(frozen=True)
class Failure:
    """A kind of failure.

    Attributes:
        title: What is wrong, for the picture.
        region: Region whose Dice is low.
        missed: Whether too little is found, rather than too much; that tells which slice is shown.
        seed: Seed of the case that is shown.
        make: Simulates a case from a seed.
    """

    title: str
    region: str
    missed: bool
    seed: int
    make: Callable[[int], Case]


def grow(change: Callable[[realistic.Recipe], realistic.Recipe], seed: int) -> Case:
    """Simulate a glioma in a procedural head, with changed parameters."""
    rng = np.random.default_rng(seed)
    recipe = change(realistic.draw_recipe(rng))
    anatomy = open_anatomies("procedural", None)(seed)
    images, labels = realistic.render(RandomStreams.of(rng, "cpu"), recipe, anatomy)
    return realistic.store(f"seed {seed}", images, labels, recipe.gains, anatomy)


def fade(recipe: realistic.Recipe) -> realistic.Recipe:
    """A large tumour that does not enhance and is hardly brighter than the rest."""
    glioma = replace(recipe.glioma, high_grade=False, rim_mm=0.0, spots=inf, volume_ml=40.0, core=0.5, cyst=inf)
    palettes = {
        name: replace(
            palette,
            parts=(0.0, *np.where(DISTINCT, palette.parts[1:], 1 + FAINT * (np.array(palette.parts[1:]) - 1)).tolist()),
        )
        for name, palette in recipe.palettes.items()
    }
    return replace(recipe, glioma=glioma, palettes=palettes)


def soak(recipe: realistic.Recipe) -> realistic.Recipe:
    """A small core in much oedema."""
    return replace(recipe, glioma=replace(recipe.glioma, high_grade=False, rim_mm=0.0, volume_ml=70.0, core=0.05))


def hollow(recipe: realistic.Recipe) -> realistic.Recipe:
    """A large cyst."""
    glioma = replace(recipe.glioma, high_grade=True, rim_mm=1.5, volume_ml=110.0, core=0.8, cyst=-2.2, hole_mm=14.0)
    return replace(recipe, glioma=glioma)


def scatter(recipe: realistic.Recipe) -> realistic.Recipe:
    """Small foci alone."""
    return replace(recipe, glioma=replace(recipe.glioma, foci=3, volume_ml=1.5))


STROKE, PERFUSION = (open_simulator(SimulateOptions(stroke=kind)) for kind in ("isles2022", "isles2017"))
FAILURES = {
    "tumour": (
        Failure("Faint tumour, mostly missed", "whole", True, 6, partial(grow, fade)),
        Failure("Oedema called core", "core", False, 0, partial(grow, soak)),
        Failure("Cyst, not called core", "core", True, 0, partial(grow, hollow)),
        Failure("Small foci, partly missed", "whole", True, 0, partial(grow, scatter)),
        Failure("False findings beside small foci", "whole", False, 7, partial(grow, scatter)),
    ),
    "stroke": (
        Failure("Many small infarcts, most missed", "lesion", True, 9, STROKE),
        Failure("Faint infarct, missed", "lesion", True, 22, STROKE),
        Failure("False finding", "lesion", False, 19, STROKE),
    ),
    "perfusion": (
        Failure("Infarct, missed", "lesion", True, 12, PERFUSION),
        Failure("Part of an infarct, missed", "lesion", True, 18, PERFUSION),
        Failure("Infarct, found too large", "lesion", False, 1, PERFUSION),
    ),
}


class Tried:
    """A simulated case, and what the model finds in it."""

    def __init__(self, failure: Failure, seed: int, segmenter: brainsegnet.Segmenter) -> None:
        self.case = failure.make(seed)
        assert self.case.lesion is not None
        self.task = segmenter.model.card.task
        drawn = brainsegnet.load_task(DRAWN[segmenter.model.card.name])
        self.truth: Labels = self.task.bring(self.case.lesion.array, drawn, "the truth")
        self.found: Labels = segmenter(dict(self.case.images)).labels.array

    def volume(self, labels: Labels, region: str) -> float:
        """Volume of a region in ml."""
        return float(np.count_nonzero(self._select(labels, region))) * self.case.reference.voxel_ml

    def dice(self, region: str) -> float:
        """Dice of a region."""
        one, other = (self._select(labels, region) for labels in (self.truth, self.found))
        return (
            2 * int(np.count_nonzero(one & other)) / max(int(np.count_nonzero(one)) + int(np.count_nonzero(other)), 1)
        )

    def describe(self, region: str) -> str:
        """Dice and volumes of a region in words."""
        true, found = (self.volume(labels, region) for labels in (self.truth, self.found))
        return f"{region}: Dice {self.dice(region):.2f}, {true:.1f} ml true, {found:.1f} ml found"

    def _select(self, labels: Labels, region: str) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
        return np.isin(labels, self.task.regions[region])


def draw(out: Path, tried: list[tuple[Failure, Tried]], sequences: tuple[str, ...]) -> None:
    """Write the picture: of each case the slice with the most wrong voxels of the region that fails."""
    figure, axes = plt.subplots(len(tried), 4, figsize=(4 * SIDE, len(tried) * 1.28 * SIDE), facecolor="k")
    for row, (failure, one) in zip(axes, tried, strict=True):
        how = find_turn(one.case.reference.affine)
        truth, found = (turn(one.case.reference.with_array(labels), how).array for labels in (one.truth, one.found))
        values = one.task.regions[failure.region]
        more, less = (truth, found) if failure.missed else (found, truth)
        wrong = np.isin(more, values) & ~np.isin(less, values)
        images = {name: turn(one.case.images[name], how).array for name in sequences}
        shown = int(np.count_nonzero(wrong, axis=(1, 2)).argmax())
        brain = images[sequences[0]][shown] > 0
        rows, columns = (np.flatnonzero(brain.any(axis=axis)) for axis in (1, 0))
        box = shown, slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        for axis, (name, image) in zip(row, images.items(), strict=False):
            show(axis, image[box])
            axis.set_title(name, color="w", fontsize=8, pad=2)
        for axis, (name, labels) in zip(row[2:], (("true", truth), ("found", found)), strict=True):
            show(axis, images[sequences[0]][box])
            paint(axis, labels[box], one.task)
            axis.set_title(name, color="w", fontsize=8, pad=2)
        row[0].text(
            0, -0.03, f"{failure.title}.  {one.describe(failure.region)}", color="w", fontsize=8, va="top",
            transform=row[0].transAxes,
        )  # fmt: skip
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.025, top=0.98, wspace=0.03, hspace=0.17)
    figure.savefig(out, dpi=DPI, facecolor="k", pil_kwargs={"quality": 88})
    plt.close(figure)


def show(axis: Axes, image: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> None:
    """A slice in grey, without the darkest hundredth of the brain and its brightest half of a hundredth."""
    low, high = np.percentile(image[image > 0], [1, 99.5])
    axis.imshow(image, cmap="gray", vmin=min(low, 0.5 * high), vmax=high, interpolation="bilinear")
    axis.set(xticks=[], yticks=[], facecolor="k")


def paint(axis: Axes, labels: Labels, task: brainsegnet.Task) -> None:
    """Labels over a slice."""
    colours = ListedColormap([task.colours[value] for value in task.labels])
    masked = np.ma.masked_where(labels == 0, np.searchsorted(list(task.labels), labels))
    axis.imshow(masked, cmap=colours, vmin=-0.5, vmax=len(task.labels) - 0.5, alpha=0.75)


def main() -> None:
    """Read the command line, and search or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=FAILURES)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--search", action="store_true")
    given = parser.parse_args()
    failures = FAILURES[given.model]
    with brainsegnet.Segmenter(given.model) as segmenter:
        if given.search:
            for failure in failures:
                for seed in SEARCHED[given.model]:
                    said = Tried(failure, seed, segmenter).describe(failure.region)
                    print(f"{failure.title}, seed {seed}: {said}", flush=True)
        if given.out:
            draw(given.out, [(one, Tried(one, one.seed, segmenter)) for one in failures], SEQUENCES[given.model])


if __name__ == "__main__":
    main()
