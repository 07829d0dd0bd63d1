"""Realistic gliomas: one seed governs all, labels and images belong together, and artefacts are pure functions."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from brainsegnet.simulation.fields import RandomStreams, blur
from brainsegnet.simulation.glioma import efface
from brainsegnet.simulation.realistic import (
    add_ghosts,
    add_noise,
    cut_view,
    degrade,
    draw_artefacts,
    draw_recipe,
    move,
    near_coil,
    render,
    scan_slices,
    simulate_glioma,
    slice_matrices,
)
from brainsegnet.simulation.rendering import NOISE, draw_palettes
from brainsegnet.task import BRATS2015, BRATS2021, BRATS2023


def as_bytes(case):
    return [v.array.tobytes() for v in (*case.images.values(), case.lesion)]


@pytest.fixture(scope="module")
def cases(anatomy):
    return [simulate_glioma(seed, anatomy, f"glioma{seed:04d}") for seed in range(3)]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(anatomy, cases):
    assert as_bytes(simulate_glioma(1, anatomy, "again")) == as_bytes(cases[1])
    assert all(a != b for a, b in zip(as_bytes(cases[0]), as_bytes(cases[1]), strict=True))


def test_a_case_is_one_of_brats_and_translates_to_its_later_conventions(cases):
    for case in cases:
        assert tuple(case.images) == BRATS2015.sequences
        assert all(v.array.dtype == np.int16 and v.array.min() == 0 for v in case.images.values())
        for task in (BRATS2021, BRATS2023):
            task.check(task.translate(case.lesion.array, BRATS2015))
        assert np.count_nonzero(case.lesion.array) > 50


def test_labels_lie_in_the_brain(cases):
    for case in cases:
        brain = np.any([v.array > 0 for v in case.images.values()], axis=0)
        assert not case.lesion.array[~brain].any()


def test_whole_tumours_are_brighter_than_their_surroundings_on_flair(anatomy):
    higher = []
    for seed in range(4):
        recipe = draw_recipe(np.random.default_rng(seed))
        calm = replace(recipe, glioma=replace(recipe.glioma, cyst=9.0, bleeds=9.0, volume_ml=60.0))
        images, labels = render(RandomStreams.of(np.random.default_rng(seed)), calm, anatomy)
        image = images["flair"]
        healthy = image[(image > 0) & (labels == 0)].median()
        higher.append(bool(image[(image > 0) & (labels > 0)].median() > healthy))
    assert sum(higher) >= 3


def test_a_rendered_cerebellum_mixes_and_rises_as_drawn(anatomy):
    recipe = replace(draw_recipe(np.random.default_rng(1)), palettes=draw_palettes(np.random.default_rng(1), 0.0))

    def rendered(slope=1.0, mixing_mm=0.5, hindbrain=0.0):
        drawn = replace(recipe.confounders, slope=slope, mixing_mm=mixing_mm)
        palettes = {sequence: replace(palette, hindbrain=hindbrain) for sequence, palette in recipe.palettes.items()}
        changed = replace(recipe, confounders=drawn, palettes=palettes)
        return render(RandomStreams.of(np.random.default_rng(1)), changed, anatomy)[0]["t1"]

    plain, mixed_up = rendered(), rendered(mixing_mm=8.0)
    even, tilted = rendered(0.0, hindbrain=0.4), rendered(hindbrain=0.4)
    brighter = plain[(even - plain).abs() > 0.2]
    assert len(brighter) > 300 and len(brighter) < 0.3 * (plain > 0).sum()
    change = (tilted / even)[(even - plain).abs() > 0.2]
    assert change.min() < 0.9 and change.max() > 1.05
    mixed = (mixed_up - plain).abs() > 0.02
    assert mixed.any() and mixed.sum() < 0.3 * (plain > 0).sum()


def test_a_rendered_head_keeps_the_fluid_that_extraction_leaves(anatomy):
    recipe = draw_recipe(np.random.default_rng(1))
    artefacts = {sequence: replace(how, cut=(0.0, 0.0)) for sequence, how in recipe.artefacts.items()}
    seen = []
    for level in (0.99, 0.35):
        bath = replace(recipe.confounders, stripping_mm=0.0, csf_level=level)
        changed = replace(recipe, confounders=bath, artefacts=artefacts)
        images, _ = render(RandomStreams.of(np.random.default_rng(1)), changed, anatomy)
        seen.append(images["flair"] > 0)
    assert not (seen[0] & ~seen[1]).any() and seen[1].sum() > 1.02 * seen[0].sum()


def test_the_sequences_of_a_head_share_its_coil_or_have_none():
    coils = [[how.coil for how in draw_recipe(np.random.default_rng(seed)).artefacts.values()] for seed in range(80)]
    assert all(min(coil) > 0 or max(coil) == 0 for coil in coils)
    assert 0.5 < np.mean([max(coil) > 0 for coil in coils]) < 0.9


def test_a_tumour_presses_the_fluid_out_of_the_sulci_beside_it(anatomy):
    recipe = replace(draw_recipe(np.random.default_rng(1)), palettes=draw_palettes(np.random.default_rng(1), 0.0))
    painted = []
    for share in (0.0, 1.0):
        glioma = replace(recipe.glioma, effaced=share, volume_ml=60.0)
        painted.append(render(RandomStreams.of(np.random.default_rng(1)), replace(recipe, glioma=glioma), anatomy))
    before, after = (images["t2"] for images, _ in painted)
    labels = painted[1][1]
    left = efface(glioma, labels > 0, anatomy.spacing_mm)
    change = (after - before).abs() > 0.2
    assert change.any() and (left[change] < 0.95).all() and after[change].mean() < before[change].mean()
    assert left.max() > 0.999 and left[labels > 0].median() < 0.1


def test_t1_has_less_noise_than_the_other_sequences():
    recipes = [draw_recipe(np.random.default_rng(seed)) for seed in range(150)]
    for sequence, factor in NOISE.items():
        noise, slow = (
            np.mean([values(r)[sequence] for r in recipes])
            for values in (
                lambda r: {s: how.noise for s, how in r.artefacts.items()},
                lambda r: {s: palette.texture[0] for s, palette in r.palettes.items()},
            )
        )
        assert (noise, slow) == pytest.approx((0.0204 * factor, 0.035 * factor), rel=0.15)
    assert NOISE["t1"] < NOISE["t1c"] < 1


SPACING = (2.0, 1.0, 1.0)


@pytest.fixture
def image(streams):
    return blur(streams.normal((20, 30, 24)).abs(), 1.0, (1.0, 1.0, 1.0))


@pytest.fixture
def mask():
    mask = torch.zeros((20, 30, 24), dtype=torch.bool)
    mask[3:17, 5:25, 4:20] = True
    return mask


@pytest.mark.parametrize("seed", range(12))
def test_the_background_stays_0_and_the_same_seed_gives_the_same_image(image, mask, seed):
    how = draw_artefacts(np.random.default_rng(seed))
    worst = replace(how, shift_mm=3.0, ghost=0.1, thick_mm=5.0, cut=(0.1, 0.2), coil=0.8)
    near = near_coil(mask, SPACING)
    for one in (how, worst):
        first, again = (
            degrade(image, mask, near, RandomStreams.of(np.random.default_rng(seed)), one, SPACING) for _ in range(2)
        )
        assert torch.equal(first, again) and not first[~mask].any() and first.isfinite().all() and first.min() >= 0


def test_artefacts_of_no_strength_change_nothing(image, streams, mask):
    assert torch.allclose(add_noise(image, streams, 0.0), image)
    assert torch.allclose(move(image, 0.0, 0.4, 1), image, atol=1e-5)
    assert torch.allclose(add_ghosts(image, 0.0, 3, 2), image, atol=1e-5)
    assert torch.equal(cut_view(mask, (0.0, 0.0)), mask)


def test_a_coil_is_more_sensitive_to_the_surface_than_to_the_middle():
    z, y, x = torch.meshgrid(*(torch.arange(-40, 41).float() for _ in range(3)), indexing="ij")
    mask = (z**2 + y**2 + x**2).sqrt() < 36
    spacing = (2.0, 2.0, 2.0)
    near = near_coil(mask, spacing)
    ray = near[40, 40, 40:76]
    assert ray[0] < 0.1 and 0.75 < ray[-1] < 1.2 and (ray.diff() >= 0).all()
    assert near_coil(mask, (2.1, 2.0, 2.0))[40, 40, 70] == pytest.approx(ray[30].item(), abs=0.1)
    clean = replace(draw_artefacts(np.random.default_rng(1)), bias=0.0, noise=1e-6, blur_mm=0.0, thick_mm=0.0)
    clean = replace(clean, shift_mm=0.0, ghost=0.0, cut=(0.0, 0.0))
    assert clean.coil == 0.0
    flat = torch.ones_like(near)
    found = degrade(flat, mask, near, RandomStreams.of(np.random.default_rng(2)), replace(clean, coil=0.5), spacing)
    assert torch.allclose(found[mask], torch.exp(0.5 * near)[mask], rtol=1e-4)


def test_noise_is_rician(streams):
    still = add_noise(torch.zeros((30, 30, 30)), streams, 0.5)
    assert still.mean() == pytest.approx(0.5 * np.sqrt(np.pi / 2), rel=0.02)
    bright = add_noise(torch.full((30, 30, 30), 10.0), streams, 0.5)
    assert bright.std() == pytest.approx(0.5, rel=0.03)


def test_a_whole_move_is_a_shift(image):
    assert torch.allclose(move(image, 3.0, 1.0, 1), image.roll(3, 1), atol=0.02)


def test_ghosts_stand_at_even_distances():
    image = torch.zeros((2, 24, 2))
    image[:, 4] = 1
    lines = add_ghosts(image, 0.1, 3, 1)[0, :, 0]
    assert set(torch.topk(lines, 3).indices.tolist()) == {4, 12, 20}


def test_thick_slices_keep_a_constant_and_take_detail_away(image, streams):
    down, up = slice_matrices(40, 1.0, 5.0, torch.device("cpu"))
    assert down.shape == (8, 40) and torch.allclose(up @ down @ torch.ones(40), torch.ones(40), atol=1e-5)
    quiet = replace(draw_artefacts(np.random.default_rng(0)), blur_mm=0.0, noise=0.0, axis=1)
    thin, thick = (scan_slices(image, streams, replace(quiet, thick_mm=t), SPACING) for t in (0.0, 5.0))
    assert torch.allclose(thin, image) and thick.diff(dim=1).abs().mean() < 0.6 * thin.diff(dim=1).abs().mean()


def test_a_short_field_of_view_loses_slices_at_its_ends(mask):
    kept = cut_view(mask, (0.15, 0.3))
    assert torch.nonzero(kept.any(dim=-1).any(dim=-1)).ravel().tolist() == list(range(5, 13))


def test_slices_are_not_encoded_in_phase():
    drawn = [draw_artefacts(np.random.default_rng(seed)) for seed in range(300)]
    assert {(how.axis, how.phase) for how in drawn} == {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}
