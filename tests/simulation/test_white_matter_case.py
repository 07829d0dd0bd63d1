"""Cases with white matter lesions: one seed governs all, and what resembles a lesion has no label."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from brainsegnet.anatomy.procedural import Tissue, simulate_anatomy
from brainsegnet.simulation.fields import RandomStreams, blur
from brainsegnet.simulation.white_matter_case import (
    LookAlikes,
    draw_white_matter_recipe,
    find_flow,
    render_white_matter,
    simulate_white_matter_lesions,
)
from brainsegnet.task import WHITE_MATTER_LESIONS

NOTHING = LookAlikes(spaces=0, flow=9.0, inflow=1.0, pulsation=0.0)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def fine():
    """A procedural head of voxels of 2.5 mm."""
    return simulate_anatomy(np.random.default_rng(3), (62, 78, 64))


def calm(seed=0, look_alikes=NOTHING, **disease):
    """A recipe with true contrasts, without look-alikes and with hardly any artefact."""
    recipe = next(
        one
        for one in (draw_white_matter_recipe(np.random.default_rng([seed, k])) for k in range(50))
        if all(palette.physical for palette in one.palettes.values())
    )
    quiet = {"bias": 0.0, "coil": 0.0, "thick_mm": 0.0, "noise": 1e-4, "shift_mm": 0.0, "ghost": 0.0, "cut": (0.0, 0.0)}
    artefacts = {sequence: replace(how, **quiet, blur_mm=0.3) for sequence, how in recipe.artefacts.items()}
    drawn = replace(recipe.confounders, caps=0.0, stripping_mm=0.0)
    whole = {"ovoids_ml": 8.0, "confluent_ml": 0.0, "faint": 0.95, "edge_mm": 0.8, "halo": 0.0, "holes": 0.0}
    changed = replace(recipe.disease, **(whole | disease))
    return replace(recipe, disease=changed, look_alikes=look_alikes, confounders=drawn, artefacts=artefacts)


def render(recipe, anatomy):
    return render_white_matter(RandomStreams.of(np.random.default_rng(1)), recipe, anatomy)


def as_bytes(case):
    return [v.array.tobytes() for v in (*case.images.values(), case.lesion)]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(anatomy):
    one, again, other = (simulate_white_matter_lesions(seed, anatomy, "case") for seed in (1, 1, 2))
    assert as_bytes(one) == as_bytes(again)
    assert all(a != b for a, b in zip(as_bytes(one), as_bytes(other), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_a_case_has_the_sequences_and_the_label_of_its_task_on_one_grid(anatomy, seed):
    case = simulate_white_matter_lesions(seed, anatomy, "case")
    assert tuple(case.images) == WHITE_MATTER_LESIONS.sequences
    WHITE_MATTER_LESIONS.check(case.lesion.array)
    brain = np.any([v.array > 0 for v in case.images.values()], axis=0)
    assert not case.lesion.array[~brain].any() and brain.any()
    for volume in case.images.values():
        assert volume.array.dtype == np.int16 and volume.array.min() == 0 and case.lesion.on_grid_of(volume)


@pytest.mark.parametrize("seed", range(3))
def test_label_and_image_belong_together(fine, seed):
    """Lesions are bright on FLAIR and T2, and dark on T1, beside the white matter around them."""
    images, labels = render(calm(seed), fine)
    lesion = labels > 0
    around = (blur(lesion, 4.0, fine.spacing_mm) > 0.1) & ~lesion
    assert lesion.sum() > 200
    for sequence, sign in (("flair", 1), ("t2", 1), ("t1", -1)):
        assert sign * (images[sequence][lesion].median() - images[sequence][around].median()) > 0
    shifted = torch.roll(lesion, 6, dims=2)
    assert images["flair"][lesion].median() > images["flair"][shifted & ~lesion & (images["flair"] > 0)].median()


def test_black_holes_are_dark_on_t1_and_enhancing_lesions_bright_after_contrast_agent(fine):
    plain, labels = render(calm(), fine)
    holes, same = render(calm(holes=1.0, enhancing=0), fine)
    assert torch.equal(labels, same)
    lesion = labels > 0
    assert holes["t1"][lesion].median() < 0.9 * plain["t1"][lesion].median()
    recipe = calm(holes=0.0, enhancing=4, ovoids_ml=3.0)
    bright, labels = render(recipe, fine)
    dull, _ = render(replace(recipe, disease=replace(recipe.disease, enhancing=0)), fine)
    gain = {sequence: (bright[sequence] / dull[sequence].clamp(min=0.05))[labels > 0].max() for sequence in bright}
    assert gain["t1c"] > 1.2 > gain["t1"]


def test_no_lesion_means_an_empty_label(anatomy):
    images, labels = render(calm(ovoids_ml=0.0), anatomy)
    assert not labels.any() and all(image.any() for image in images.values())


def test_perivascular_spaces_are_thin_fluid_without_a_label(fine):
    recipe = calm()
    plain, labels = render(recipe, fine)
    spaced, same = render(replace(recipe, look_alikes=replace(NOTHING, spaces=60)), fine)
    assert torch.equal(labels, same)
    change = spaced["t2"] - plain["t2"]
    seen = change.abs() > 0.1
    assert 20 < seen.sum() < 0.02 * (plain["t2"] > 0).sum() and change[seen].mean() > 0.1
    assert (spaced["t1"] - plain["t1"])[seen].mean() < -0.03


def test_flow_shows_in_flair_alone_beside_the_hindbrain(fine):
    recipe = calm()
    plain, labels = render(recipe, fine)
    flowing, same = render(replace(recipe, look_alikes=replace(NOTHING, flow=-1.0, inflow=2.0)), fine)
    assert torch.equal(labels, same)
    assert all(torch.equal(plain[s], flowing[s]) for s in ("t1", "t1c", "t2"))
    assert ((flowing["flair"] - plain["flair"]) > 0.3).sum() > 50


def test_flow_is_in_fluid_and_pulsation_in_the_hindbrain(fine, streams):
    tissue = torch.as_tensor(fine.array)
    flow, pulse = find_flow(streams, tissue, replace(NOTHING, flow=0.0), fine.spacing_mm)
    fluid = (tissue == Tissue.CSF) | (tissue == Tissue.VENTRICLE)
    hindbrain = (tissue == Tissue.CEREBELLAR_GREY) | (tissue == Tissue.HINDBRAIN_WHITE)
    assert flow.any() and not flow[~fluid].any() and 0 <= flow.min() and flow.max() <= 1
    assert pulse.any() and not pulse[~hindbrain].any()
    assert flow.any(2).any(1).nonzero().max() < hindbrain.any(2).any(1).nonzero().max() + 8


def test_nothing_that_a_reader_takes_for_a_lesion_is_left_without_a_label():
    for seed in range(60):
        recipe = draw_white_matter_recipe(np.random.default_rng(seed))
        assert recipe.confounders.hyperintensities == 0 and recipe.confounders.infarct_mm == 0
        assert recipe.confounders.caps < 0.8 and 1 <= recipe.look_alikes.spaces <= 60
