"""Laws of the colours: seen on every grey, and told apart by readers who see no red or no green."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from brainsegnet.plotting.palettes import SAFE_COLOURS, colours
from brainsegnet.task import BRATS2015, TASKS, Task

EYES = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
"""What colours become, in linear RGB: Machado, Oliveira and Fernandes (2009), severity 1."""
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = TO_XYZ.sum(axis=1)
APART = 15.0
"""Distance in CIELAB; from 2.3 on, two colours side by side differ."""
PALETTES = {name: colours(task, "safe") for name, task in TASKS.items()} | {
    "all": dict(enumerate(map(to_rgb, SAFE_COLOURS)))
}


def linear(colour):
    colour = np.asarray(colour, float)
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """The contrast ratio of WCAG 2.1."""
    dark, light = sorted(TO_XYZ[1] @ linear(colour) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def lab(colour, eye):
    x, y, z = (TO_XYZ @ np.clip(EYES[eye] @ linear(colour), 0, 1)) / WHITE
    fx, fy, fz = (np.cbrt(t) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


@pytest.mark.parametrize("name", PALETTES)
def test_a_safe_colour_or_its_black_edge_stands_out_from_every_grey(name):
    for colour in PALETTES[name].values():
        assert contrast(colour, (0, 0, 0)) >= 3, "the colour beside its edge"
        for grey in np.linspace(0, 1, 256):
            assert max(contrast(colour, [grey] * 3), contrast((0, 0, 0), [grey] * 3)) >= 3, (colour, grey)


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("name", PALETTES)
def test_safe_colours_are_told_apart(name, eye):
    for one, other in combinations(PALETTES[name].values(), 2):
        assert np.linalg.norm(lab(one, eye) - lab(other, eye)) >= APART, (one, other)


def test_the_laws_would_find_the_colours_of_the_paper():
    """Its blue is too dark for a black edge beside dark grey, and red and green are alike to some readers."""
    necrosis, oedema, non_enhancing, _ = colours(BRATS2015).values()
    assert max(contrast(non_enhancing, [0.3] * 3), contrast((0, 0, 0), [0.3] * 3)) < 3
    far, near = (np.linalg.norm(lab(necrosis, eye) - lab(oedema, eye)) for eye in ("usual", "deuteranopia"))
    assert near < far / 2


def test_colours_of_a_task_file_stay_and_the_rest_differ():
    labels = {1: "oedema", 3: "cavity", 5: "bleeding", 9: "enhancing"}
    task = Task(name="mine", sequences=("t1",), labels=labels, colours={3: "#0A0B0C"}, regions={"all": (1, 3)})
    found = colours(task, "safe")
    assert list(found) == list(labels) and len(set(found.values())) == 4
    assert found[3] == to_rgb("#0a0b0c") == colours(task)[3]
    assert found[1] == colours(BRATS2015, "safe")[2]
