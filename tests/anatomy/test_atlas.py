"""The atlas: the same on both sides, small, and in its place in a brain that was moved, scaled or cut."""

import numpy as np
import pytest

from brainsegnet.anatomy import atlas as module
from brainsegnet.anatomy.atlas import ATLAS, LEFT, PARTS, average_atlas, describe_site, load_atlas
from brainsegnet.errors import ImageError
from brainsegnet.preprocessing.geometry import Turn, turn
from brainsegnet.volume import LabelMap


@pytest.fixture(scope="module")
def atlas():
    return load_atlas()


@pytest.fixture(scope="module")
def brain(atlas):
    return LabelMap((atlas.brain.array > 0.5).astype(np.uint8), atlas.brain.affine)


def move(degrees=10.0, scale=(1.0, 1.0, 1.0), shift=(0.0, 0.0, 0.0)):
    """From points of the atlas to those of a patient: scaled, turned about two axes, shifted."""
    matrix = np.eye(4)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    pitch, roll = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]), np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    matrix[:3, :3], matrix[:3, 3] = pitch @ roll @ np.diag(scale), shift
    return matrix


def agreement(atlas, placed, matrix):
    """Share of the voxels of the atlas's brain that have their own value where they are in the patient."""
    inside = np.argwhere(atlas.brain.array > 0.5)
    world = atlas.parts.affine
    points = inside @ world[:3, :3].T + world[:3, 3]
    moved = points @ matrix[:3, :3].T + matrix[:3, 3]
    return float((placed.look_up(moved) == atlas.parts.array[tuple(inside.T)]).mean())


def test_the_file_is_small_and_says_how_often_it_is_right(atlas):
    assert ATLAS.stat().st_size < 300_000
    tested = atlas.tested
    assert tested.lesions >= 1000 and 0.7 < tested.deep < tested.part < tested.side <= 1


def test_both_sides_mirror_each_other_but_where_votes_are_even(atlas):
    values = atlas.parts.array
    swapped = np.where(values > LEFT, values - LEFT, values + LEFT)[..., ::-1]
    assert (values == swapped).mean() > 0.99
    assert set(np.unique(values)) == set(range(1, 2 * LEFT + 1))


@pytest.mark.parametrize(
    ("mm", "site"),
    [
        ((60, -10, 20), ("left", "cerebrum, cortical")),
        ((-60, 0, 20), ("right", "cerebrum, cortical")),
        ((15, -10, 5), ("left", "cerebrum, deep")),
        ((-25, 50, -40), ("right", "cerebellum")),
    ],
)
def test_it_knows_places_in_its_own_space(atlas, brain, mm, site):
    placed = atlas.fit(brain)
    found = placed.locate(np.array(mm) + np.random.default_rng(0).normal(0, 2, (50, 3)))
    assert (found.side, found.place) == site and found.share > 0.6


def test_the_brain_stem_is_between_the_sides(atlas):
    points = np.argwhere(np.isin(atlas.parts.array, (LEFT, 2 * LEFT)) & (atlas.brain.array > 0.5))
    middle = points.mean(axis=0) @ atlas.parts.affine[:3, :3].T + atlas.parts.affine[:3, 3]
    assert abs(middle[0]) < 2 and middle[2] < -10


@pytest.mark.parametrize(
    "how",
    [
        {"degrees": 0.0},
        {"shift": (40.0, -25.0, 60.0)},
        {"degrees": -12.0, "scale": (0.92, 1.07, 1.04), "shift": (3.0, 80.0, -9.0)},
    ],
)
def test_it_finds_its_place_in_a_brain_that_was_moved_and_scaled(atlas, brain, how):
    matrix = move(**how)
    placed = atlas.fit(LabelMap(brain.array, matrix @ brain.affine))
    assert placed.agreement > 0.97
    assert agreement(atlas, placed, matrix) > 0.93


def test_the_order_of_the_axes_in_the_file_changes_no_place(atlas, brain):
    matrix = move(8.0)
    moved = LabelMap(brain.array, matrix @ brain.affine)
    placed = atlas.fit(turn(moved, Turn((1, 2, 0), (True, False, True))))
    assert agreement(atlas, placed, matrix) > 0.93


def test_a_brain_whose_lower_part_was_not_scanned_is_told_by_the_rest(atlas, brain):
    upper = LabelMap(brain.array[35:], brain.affine @ np.array(np.eye(4) + 35 * np.eye(4)[[0]].T @ np.eye(4)[[3]]))
    placed = atlas.fit(upper)
    assert placed.agreement > 0.9
    assert agreement(atlas, placed, np.eye(4)) > 0.75


def test_what_is_no_brain_is_refused(atlas, brain, monkeypatch):
    small = LabelMap(brain.array, brain.affine @ np.diag([0.5, 0.5, 0.5, 1]))
    with pytest.raises(ImageError, match="is too small to tell places in it; give a mask of a whole brain"):
        atlas.fit(small)
    monkeypatch.setattr(module, "LEAST_AGREEMENT", 0.9999)
    with pytest.raises(ImageError, match="check the brain mask"):
        atlas.fit(brain)


def test_a_lesion_at_both_sides_is_said_to_be():
    right, left = np.full(60, 2, np.uint8), np.full(40, 2 + LEFT, np.uint8)
    assert describe_site(np.concatenate((right, left))).side == "both"
    assert describe_site(np.concatenate((right, left[:10]))).side == "right"
    assert describe_site(right).place == PARTS[1]


def test_an_average_of_moved_copies_of_a_head_is_that_head(atlas, brain):
    heads = []
    for degrees, shift in ((0.0, (5.0, 0.0, 0.0)), (4.0, (-9.0, 12.0, 3.0))):
        matrix = move(degrees, shift=shift)
        values = atlas.parts.array * brain.array
        heads.append((LabelMap(values, matrix @ brain.affine), LabelMap(brain.array, matrix @ brain.affine)))
    found = average_atlas(heads, spacing_mm=4.0)
    placed = atlas.fit(LabelMap((found.brain.array > 0.5).astype(np.uint8), found.brain.affine))
    inside = np.argwhere(found.brain.array > 0.5)
    points = inside @ found.parts.affine[:3, :3].T + found.parts.affine[:3, 3]
    assert (placed.look_up(points) == found.parts.array[tuple(inside.T)]).mean() > 0.85
