"""Lesions of a stroke: core within final infarct within deficit, all in the brain; mimics beside the core."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.anatomy.territories import Territory, brain_tissue
from brainsegnet.simulation.stroke import (
    FEWEST_VOXELS,
    Mimic,
    add_mimics,
    draw_stroke,
    select_highest,
    simulate_core,
    simulate_infarct,
)
from brainsegnet.volume import LabelMap

SEEDS = range(12)


@pytest.fixture(scope="module")
def ball():
    """A ball of 25 mm in the left hemisphere, in MNI space, on a grid of 3 mm."""
    affine = np.array([[0, 0, 3.0, -90], [0, 3.0, 0, -90], [3.0, 0, 0, -60], [0, 0, 0, 1]])
    z, y, x = np.indices((60, 60, 60)) * 3.0 - np.array([60, 90, 90]).reshape(3, 1, 1, 1)
    return LabelMap((np.sqrt((z - 25) ** 2 + (y - 10) ** 2 + (x - 35) ** 2) < 25).astype(np.uint8), affine)


@pytest.fixture(scope="module")
def strokes():
    return [draw_stroke(np.random.default_rng(seed)) for seed in SEEDS]


@pytest.fixture(scope="module")
def infarcts(small_ground, strokes):
    return [simulate_infarct(np.random.default_rng(n), small_ground, stroke) for n, stroke in enumerate(strokes)]


def test_same_seed_same_stroke_and_another_seed_another(small_ground, strokes, infarcts):
    again = simulate_infarct(np.random.default_rng(0), small_ground, strokes[0])
    other = simulate_infarct(np.random.default_rng(99), small_ground, strokes[0])
    for part in ("core", "outcome", "deficit", "severity"):
        assert getattr(again, part).tobytes() == getattr(infarcts[0], part).tobytes()
        assert getattr(other, part).tobytes() != getattr(infarcts[0], part).tobytes()


def test_core_within_outcome_within_deficit_within_the_brain(small_ground, infarcts):
    brain = brain_tissue(small_ground.tissue)
    for infarct in infarcts:
        assert np.count_nonzero(infarct.core) >= FEWEST_VOXELS
        assert not (infarct.core & ~infarct.outcome).any()
        assert not (infarct.outcome & ~infarct.deficit).any()
        assert not (infarct.deficit & ~brain).any()


def test_severity_is_0_outside_the_deficit_and_greatest_in_the_core(infarcts):
    for infarct in infarcts:
        assert not infarct.severity[~infarct.deficit].any()
        assert infarct.severity[infarct.deficit].min() > 0 and infarct.severity.max() <= 1 + 1e-6
        penumbra = infarct.deficit & ~infarct.core
        if penumbra.any():
            assert infarct.severity[infarct.core].min() >= infarct.severity[penumbra].max()


def test_half_of_the_strokes_are_scattered_some_widely():
    """As in three real scans, whose lesions are in 21 to 50 pieces."""
    drawn = [draw_stroke(np.random.default_rng(seed), with_shape=True) for seed in range(300)]
    foci = np.array([stroke.foci for stroke in drawn if stroke.kind in ("shape", "wedge")])
    assert len(foci) > 150 and 0.4 < (foci >= 3).mean() < 0.8 and (foci > 25).mean() > 0.05


@pytest.mark.parametrize("loss", [0.0, 0.3, 1.0])
def test_the_outcome_takes_its_share_of_the_penumbra(small_ground, strokes, loss):
    stroke = replace(strokes[0], kind="wedge", foci=1, volume_ml=20.0, deficit=3.0, loss=loss)
    infarct = simulate_infarct(np.random.default_rng(0), small_ground, stroke)
    penumbra = np.count_nonzero(infarct.deficit & ~infarct.core)
    assert np.count_nonzero(infarct.outcome & ~infarct.core) == round(loss * penumbra) and penumbra > 0


@pytest.mark.parametrize("deficit", [1.0, 2.0, 5.0])
def test_the_deficit_has_the_volume_that_was_drawn(small_ground, strokes, deficit):
    stroke = replace(strokes[0], kind="wedge", foci=1, volume_ml=15.0, deficit=deficit)
    infarct = simulate_infarct(np.random.default_rng(1), small_ground, stroke)
    extra_ml = 5 * (deficit > 2)
    expected = deficit * np.count_nonzero(infarct.core) + extra_ml / small_ground.voxel_ml
    assert np.count_nonzero(infarct.deficit) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("territory", [Territory.MIDDLE_FRONTAL, Territory.POSTERIOR_CEREBRAL, Territory.BASILAR])
def test_a_wedge_stays_in_its_artery_and_on_its_side(small_ground, strokes, side, territory):
    stroke = replace(
        strokes[0], kind="wedge", side=side, territory=territory, foci=1, volume_ml=2.0, sparing=0.0, roughness=0.2
    )
    core = simulate_core(np.random.default_rng(3), small_ground, stroke)
    assert set(np.unique(small_ground.territory[core])) == {territory}
    if territory is not Territory.BASILAR:
        assert np.mean(small_ground.points[2][core] * side > 0) > 0.9


def test_emboli_are_many_and_small(small_ground, strokes):
    stroke = replace(strokes[0], kind="emboli", territory=Territory.MIDDLE_FRONTAL, foci=9, volume_ml=3.0)
    core = simulate_core(np.random.default_rng(4), small_ground, stroke)
    assert ndimage.label(core, np.ones((3, 3, 3)))[1] >= 4


@pytest.mark.parametrize("foci", [2, 40])
def test_a_wedge_keeps_most_of_its_volume_however_many_satellites_it_has(small_ground, strokes, foci):
    shares = []
    for seed in range(6):
        stroke = replace(
            strokes[0],
            kind="wedge",
            territory=Territory.MIDDLE_FRONTAL,
            foci=foci,
            volume_ml=30.0,
            sparing=0.0,
            roughness=0.2,
        )
        components, _ = ndimage.label(
            simulate_core(np.random.default_rng(seed), small_ground, stroke), np.ones((3, 3, 3))
        )
        sizes = np.bincount(components.ravel())[1:]
        shares.append(sizes.max() / sizes.sum())
    assert np.median(shares) > 0.8


def test_a_real_shape_comes_where_it_was_or_on_the_other_side(small_ground, strokes, ball):
    sides = set()
    for seed in range(6):
        stroke = replace(strokes[0], kind="shape", foci=1)
        core = simulate_core(np.random.default_rng(seed), small_ground, stroke, ball)
        z, y, x = small_ground.points[:, core].mean(axis=1)
        assert (z, y, abs(x)) == pytest.approx((25, 10, 35), abs=16)
        assert np.count_nonzero(core) * small_ground.voxel_ml == pytest.approx(65, rel=0.6)
        sides.add(np.sign(x))
    assert sides == {-1, 1}


def test_a_shape_that_misses_the_brain_is_replaced_by_a_simulated_one(small_ground, strokes):
    nothing = LabelMap(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    core = simulate_core(np.random.default_rng(0), small_ground, replace(strokes[0], kind="shape", foci=1), nothing)
    assert np.count_nonzero(core) >= FEWEST_VOXELS


def test_the_selected_are_those_above_all_others(rng):
    rank, allowed = rng.standard_normal((5, 6, 7)).astype(np.float32), rng.random((5, 6, 7)) < 0.5
    chosen = select_highest(rank, allowed, 40)
    assert np.count_nonzero(chosen) == 40 and not (chosen & ~allowed).any()
    assert rank[chosen].min() >= rank[allowed & ~chosen].max()
    assert np.array_equal(select_highest(rank, allowed, 10**6), allowed) and not select_highest(rank, allowed, 0).any()


@pytest.fixture(scope="module")
def core(small_ground):
    return brain_tissue(small_ground.tissue) & (np.linalg.norm(small_ground.points.T - (30, 0, 40), axis=-1).T < 20)


def test_same_seed_same_mimics(small_ground, core):
    first, again, other = (add_mimics(np.random.default_rng(seed), small_ground, core) for seed in (3, 3, 4))
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_mimics_lie_in_the_brain_and_never_in_the_core(small_ground, core):
    seen = set()
    for seed in range(15):
        mimics = add_mimics(np.random.default_rng(seed), small_ground, core)
        assert core.any() and not mimics[core].any() and not mimics[~brain_tissue(small_ground.tissue)].any()
        assert set(np.unique(small_ground.tissue[mimics == Mimic.HYPERINTENSITY])) <= {Tissue.WHITE}
        seen |= set(np.unique(mimics))
    assert seen == set(Mimic)
