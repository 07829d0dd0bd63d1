"""`figure` on a small cohort: which slices it shows, what lies on them, and what it refuses."""

import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from brainsegnet.errors import BrainSegNetError, DatasetError, GridMismatch, OutputError
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image, read_labels, write_image
from brainsegnet.paper import FigureOptions
from brainsegnet.paper.figure_cases import figure
from brainsegnet.volume import LabelMap


def test_figure_4_of_two_models(phantoms, segmented, shifted, tmp_path):
    outs = [tmp_path / "four.png", tmp_path / "four.svg"]
    strips = figure([phantoms], [segmented, shifted], "brats2015", outs)
    assert [s.case for s in strips] == ["phantom0000", "phantom0001", "phantom0002"]
    assert {s.why for s in strips} == {"with most lesion in the truth"}
    assert list(strips[0].layers) == ["model", "shifted", "truth"]
    for strip in strips:
        truth = read_labels(next(c.lesion for c in find_cases([phantoms]) if c.name == strip.case)).array
        counts = (truth > 0).sum((1, 2))
        assert counts[strip.index] == counts.max()
    assert outs[0].read_bytes().startswith(b"\x89PNG") and ET.parse(outs[1]).getroot().tag.endswith("svg")


def test_figure_5_shows_the_sum_of_the_tissues(phantoms, segmented, tmp_path):
    options = FigureOptions(slices=("phantom0001:12", "phantom0001:11"))
    strips = figure([phantoms], [segmented], "brats2015", tmp_path / "five.png", 5, options)
    assert [(s.case, s.index, s.why) for s in strips] == [("phantom0001", n, "as named") for n in (12, 11)]
    background = read_image(segmented / "phantom0001_background.nii.gz").array
    shown = strips[0].layers["prediction"]
    assert shown.max() == pytest.approx(1 - background[12].min(), abs=0.02)


def test_figures_that_cannot_be_drawn_are_refused(phantoms, segmented, shifted, tmp_path):
    out = tmp_path / "f.png"
    for predictions, paper, options, words in [
        ([segmented, shifted], 5, None, "Figure 5 shows one model, not 2"),
        ([shifted], 5, None, "no probability map of case phantom0000; segment it with --probabilities"),
        ([shifted], 4, FigureOptions(slices=("phantom0000",)), "not of the form case:index, as in phantom0000:40"),
        ([shifted], 4, FigureOptions(slices=("pat9:3",)), "there is no case pat9; choose from phantom0000"),
        ([shifted], 4, FigureOptions(slices=("phantom0000:77",)), "slice 77 shows no brain"),
        ([shifted, shifted], 4, None, "two of the predictions are called shifted"),
        ([tmp_path], 4, None, "no case has a prediction"),
        ([shifted], 6, None, "figures 4 and 5 of the paper can be drawn, not 6"),
    ]:
        with pytest.raises(BrainSegNetError, match=words):
            figure([phantoms], predictions, "brats2015", out, paper, options)
    for most in (0, -1):
        with pytest.raises(DatasetError, match=f"a figure shows at least one case, not {most}"):
            FigureOptions(most=most)
    with pytest.raises(OutputError, match=r"\.png, \.svg"):
        figure([phantoms], [shifted], "brats2015", tmp_path / "f.jpg")
    other = tmp_path / "other"
    shutil.copytree(shifted, other)
    labels = read_labels(other / "phantom0000.nii.gz")
    write_image(LabelMap(labels.array, labels.affine @ np.diag([1, 1, 2, 1.0])), other / "phantom0000.nii.gz")
    with pytest.raises(GridMismatch, match="case phantom0000: "):
        figure([phantoms], [other], "brats2015", out)
    assert not out.exists()
