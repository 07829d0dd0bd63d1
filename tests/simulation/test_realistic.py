"""Whole realistic cases: one seed governs all, and labels, images and grid belong together."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.simulation.confounders import (
    Extra,
    add_csf,
    draw_confounders,
    fill_sulci,
    find_sinuses,
    fold_cerebellum,
    peel_cerebellum,
    scatter,
    strip,
    tilt_cerebellum,
)
from brainsegnet.simulation.fields import RandomStreams
from brainsegnet.simulation.glioma import Part, draw_glioma, efface
from brainsegnet.simulation.realistic import build_scene, draw_recipe, render, simulate_glioma
from brainsegnet.simulation.rendering import CALM, UPTAKE, draw_palettes, paint, texture_fields
from brainsegnet.task import BRATS2015, BRATS2021, BRATS2023

RIM = replace(
    draw_glioma(np.random.default_rng(0)),
    high_grade=True, volume_ml=120.0, core=0.5, rim_mm=6.0, margin_mm=0.0, gaps=-9.0, pockets=0.0, cyst=9.0, bleeds=9.0,
)  # fmt: skip
"""A large tumour with a thick rim."""


def as_bytes(case):
    return [v.array.tobytes() for v in (*case.images.values(), case.lesion)]


@pytest.fixture(scope="module")
def cases(head):
    return [simulate_glioma(seed, head, f"glioma{seed:04d}") for seed in range(3)]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(head, cases):
    assert as_bytes(simulate_glioma(1, head, "again")) == as_bytes(cases[1])
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


def test_whole_tumours_are_brighter_than_their_surroundings_on_flair(head):
    higher = []
    for seed in range(4):
        recipe = draw_recipe(np.random.default_rng(seed))
        calm = replace(recipe, glioma=replace(recipe.glioma, cyst=9.0, bleeds=9.0, volume_ml=60.0))
        painted = render(RandomStreams.of(np.random.default_rng(seed)), calm, head)
        image, labels = painted.images["flair"], painted.labels
        healthy = image[(image > 0) & (labels == 0)].median()
        higher.append(bool(image[(image > 0) & (labels > 0)].median() > healthy))
    assert sum(higher) >= 3


def test_mass_pushes_the_brain_away(head):
    recipe = draw_recipe(np.random.default_rng(2))
    still, pushed = (
        build_scene(
            RandomStreams.of(np.random.default_rng(4)),
            replace(recipe, glioma=replace(recipe.glioma, push_mm=push, volume_ml=150.0)),
            head,
        )
        for push in (0.0, 12.0)
    )
    assert not torch.equal(still.tissue, pushed.tissue)
    outline = [(s.tissue != Tissue.BACKGROUND) for s in (still, pushed)]
    assert (outline[0] != outline[1]).float().mean() < 0.02


def test_distractors_lie_where_they_belong(head):
    tissue = torch.as_tensor(head.tissue)
    rng = np.random.default_rng(1)
    drawn = replace(draw_confounders(rng), infarct_mm=0.0, hyperintensities=1.0, caps=0.6, meninges=0.5, choroid=0.0)
    streams = RandomStreams.of(rng)
    brain = strip(streams, replace(drawn, stripping_mm=0.0), tissue, head.spacing_mm)
    assert torch.equal(brain, tissue != Tissue.BACKGROUND)
    drawn = replace(drawn, sinus_mm=6.0)
    extras, veil = scatter(streams, drawn, tissue, brain, head.spacing_mm)
    assert torch.equal(extras == Extra.SINUS, find_sinuses(tissue, 6.0, head.spacing_mm) & brain)
    assert not extras[~brain].any() and veil.min() >= 0 and veil.max() <= 1
    assert set(tissue[extras == Extra.HYPERINTENSITY].tolist()) == {Tissue.WHITE}
    assert set(tissue[extras == Extra.CHOROID].tolist()) == {Tissue.VENTRICLE}
    sulci = fill_sulci(streams, drawn, tissue, head.spacing_mm)
    assert sulci.min() >= 0 and sulci.max() <= 1


def test_thin_sulci_hold_less_fluid_than_wide_ones_which_are_all_fluid():
    tissue = torch.full((12, 40, 40), int(Tissue.GREY), dtype=torch.uint8)
    tissue[:, 10] = Tissue.CSF
    tissue[:, 20:32] = Tissue.CSF
    thin = []
    for level in (0.3, 0.55, 0.92):
        drawn = replace(draw_confounders(np.random.default_rng(0)), sulci=level)
        fluid = fill_sulci(RandomStreams.of(np.random.default_rng(0)), drawn, tissue, (1.0, 1.0, 1.0))
        assert fluid[6, 26, 20] == pytest.approx(1.0, abs=1e-4) and fluid[6, 15, 20] == 0
        thin.append(float(fluid[6, 10, 20]))
    assert thin == sorted(thin, reverse=True) and thin[0] > 0.2 and thin[-1] == 0


def faces(mask):
    return sum(int((mask.diff(dim=axis) != 0).sum()) for axis in range(3))


def test_extraction_leaves_fluid_around_the_brain_and_a_smooth_outline(head):
    tissue = torch.as_tensor(head.tissue)
    drawn = draw_confounders(np.random.default_rng(0))
    little, much = (add_csf(replace(drawn, bath=level), tissue, head.spacing_mm) for level in (0.6, 0.35))
    before, few, many = (t != Tissue.BACKGROUND for t in (tissue, little, much))
    assert torch.equal(much[before], tissue[before]) and set(much[many & ~before].tolist()) == {Tissue.CSF}
    assert not (before & ~few).any() and not (few & ~many).any() and few.sum() < many.sum()
    assert faces(many) / many.sum() ** (2 / 3) < faces(before) / before.sum() ** (2 / 3)


def test_folia_are_as_far_apart_as_drawn_and_bend_around_the_brain_stem():
    tissue = torch.full((40, 80, 80), int(Tissue.CEREBELLAR_GREY), dtype=torch.uint8)
    tissue[18:22, 8:12, 38:42] = Tissue.HINDBRAIN_WHITE
    sheets = fold_cerebellum(RandomStreams.of(np.random.default_rng(3)), 5.0, tissue, (1.0, 1.0, 1.0))
    assert sheets.min() == 0 and 0.95 < sheets.max() <= 1 and 0.2 < sheets.mean() < 0.35
    ray = sheets[20, 14:, 40] > 0.5
    starts = torch.nonzero(ray[1:] & ~ray[:-1]).ravel()
    assert starts.diff().float().mean() == pytest.approx(5.0, rel=0.2)
    drawn = replace(draw_confounders(np.random.default_rng(0)), folia=0.3, folia_mm=5.0)
    fluid = fill_sulci(RandomStreams.of(np.random.default_rng(3)), drawn, tissue, (1.0, 1.0, 1.0))
    assert 0.28 < fluid[tissue == Tissue.CEREBELLAR_GREY].max() <= 0.3


def test_cortex_and_white_matter_of_the_cerebellum_mingle():
    tissue = torch.full((30, 40, 40), int(Tissue.CEREBELLAR_GREY), dtype=torch.uint8)
    tissue[:, :20] = Tissue.HINDBRAIN_WHITE
    row = peel_cerebellum(3.0, tissue, (1.0, 1.0, 1.0))[15, :, 20]
    assert row[10] < 0.01 and row[29] > 0.99 and (row.diff() >= -1e-6).all()
    assert row[19] == pytest.approx(0.5 * (1 - math.erf(0.5 / 3 / math.sqrt(2))), abs=0.02)
    assert row[22] == pytest.approx(0.5 * (1 + math.erf(2.5 / 3 / math.sqrt(2))), abs=0.02)


def test_the_cerebellum_is_even_or_rises_from_the_brain_stem(head):
    tissue = torch.as_tensor(head.tissue)
    even, tilted = (tilt_cerebellum(slope, tissue, head.spacing_mm) for slope in (0.0, 1.0))
    behind = (tissue == Tissue.CEREBELLAR_GREY) | (tissue == Tissue.HINDBRAIN_WHITE)
    assert set(even[behind].tolist()) == {1.0} and not even[~behind].any() and not tilted[~behind].any()
    stem, cortex = (tilted[tissue == kind] for kind in (Tissue.HINDBRAIN_WHITE, Tissue.CEREBELLAR_GREY))
    assert stem.mean() < 0.8 * cortex.mean() and 0.6 < cortex.mean() < 1.4 and tilted.max() <= 1.6


def test_a_rendered_cerebellum_mingles_and_rises_as_drawn(head):
    recipe = replace(draw_recipe(np.random.default_rng(1)), palettes=draw_palettes(np.random.default_rng(1), 0.0))

    def rendered(slope=1.0, rind_mm=0.5, behind=0.0):
        drawn = replace(recipe.confounders, slope=slope, rind_mm=rind_mm)
        palettes = {sequence: replace(palette, behind=behind) for sequence, palette in recipe.palettes.items()}
        changed = replace(recipe, confounders=drawn, palettes=palettes)
        return render(RandomStreams.of(np.random.default_rng(1)), changed, head).images["t1"]

    plain, even, tilted, mingled = rendered(), rendered(0.0, behind=0.4), rendered(behind=0.4), rendered(rind_mm=8.0)
    brighter = plain[(even - plain).abs() > 0.2]
    assert len(brighter) > 300 and len(brighter) < 0.3 * (plain > 0).sum()
    change = (tilted / even)[(even - plain).abs() > 0.2]
    assert change.min() < 0.9 and change.max() > 1.05
    mixed = (mingled - plain).abs() > 0.02
    assert mixed.any() and mixed.sum() < 0.3 * (plain > 0).sum()


def test_an_imperfect_extraction_errs_by_millimetres(head):
    tissue = torch.as_tensor(head.tissue)
    inside = tissue != Tissue.BACKGROUND
    drawn = replace(draw_confounders(np.random.default_rng(0)), stripping_mm=1.5, stripping=0.0)
    brain = strip(RandomStreams.of(np.random.default_rng(2)), drawn, tissue, head.spacing_mm)
    wrong = (brain != inside).sum() / inside.sum()
    assert 0.005 < wrong < 0.3 and (brain & ~inside).any() and (~brain & inside).any()


def test_a_rendered_head_keeps_the_fluid_that_extraction_leaves(head):
    recipe = draw_recipe(np.random.default_rng(1))
    artefacts = {sequence: replace(how, cut=(0.0, 0.0)) for sequence, how in recipe.artefacts.items()}
    seen = []
    for level in (0.99, 0.35):
        bath = replace(recipe.confounders, stripping_mm=0.0, bath=level)
        changed = replace(recipe, confounders=bath, artefacts=artefacts)
        images = render(RandomStreams.of(np.random.default_rng(1)), changed, head).images
        seen.append(images["flair"] > 0)
    assert not (seen[0] & ~seen[1]).any() and seen[1].sum() > 1.02 * seen[0].sum()


def test_the_sequences_of_a_head_share_its_coil_or_have_none():
    coils = [[how.coil for how in draw_recipe(np.random.default_rng(seed)).artefacts.values()] for seed in range(80)]
    assert all(min(coil) > 0 or max(coil) == 0 for coil in coils)
    assert 0.5 < np.mean([max(coil) > 0 for coil in coils]) < 0.9


def test_a_tumour_presses_the_fluid_out_of_the_sulci_beside_it(head):
    recipe = replace(draw_recipe(np.random.default_rng(1)), palettes=draw_palettes(np.random.default_rng(1), 0.0))
    painted = []
    for share in (0.0, 1.0):
        glioma = replace(recipe.glioma, effaced=share, volume_ml=60.0)
        painted.append(render(RandomStreams.of(np.random.default_rng(1)), replace(recipe, glioma=glioma), head))
    before, after = (p.images["t2"] for p in painted)
    left = efface(glioma, painted[1].labels > 0, head.spacing_mm)
    change = (after - before).abs() > 0.2
    assert change.any() and (left[change] < 0.95).all() and after[change].mean() < before[change].mean()
    assert left.max() > 0.999 and left[painted[1].labels > 0].median() < 0.1


def test_t1_is_calmer_than_the_other_sequences():
    recipes = [draw_recipe(np.random.default_rng(seed)) for seed in range(150)]
    for sequence, calm in CALM.items():
        noise, slow = (
            np.mean([values(r)[sequence] for r in recipes])
            for values in (
                lambda r: {s: how.noise for s, how in r.artefacts.items()},
                lambda r: {s: palette.texture[0] for s, palette in r.palettes.items()},
            )
        )
        assert (noise, slow) == pytest.approx((0.0204 * calm, 0.035 * calm), rel=0.15)
    assert CALM["t1"] < CALM["t1c"] < 1


def test_what_takes_up_contrast_agent_is_more_uneven_after_it_than_before(head):
    recipe = draw_recipe(np.random.default_rng(3))
    scene = build_scene(RandomStreams.of(np.random.default_rng(3)), replace(recipe, glioma=RIM), head)
    texture = texture_fields(RandomStreams.of(np.random.default_rng(4)), scene)
    spread = {}
    for sequence in ("t1", "t1c", "t2"):
        palette = replace(recipe.palettes["t1"], sequence=sequence, mottle=1.0)
        image = paint(RandomStreams.of(np.random.default_rng(5)), scene, palette, texture)[scene.box]
        for part in (Part.ENHANCING, Part.OEDEMA):
            inside = (scene.lesions.parts == part) & (scene.lesions.opacity == 1)
            spread[sequence, part] = float(torch.log(image[inside]).std())
    assert spread["t1c", Part.ENHANCING] / spread["t1", Part.ENHANCING] == pytest.approx(UPTAKE, rel=1e-3)
    assert spread["t1c", Part.OEDEMA] == pytest.approx(spread["t1", Part.OEDEMA], rel=1e-3)
    assert spread["t2", Part.OEDEMA] > spread["t1", Part.OEDEMA]


def test_fluid_between_folia_and_bright_places_are_painted(head):
    recipe = draw_recipe(np.random.default_rng(3))
    scene = build_scene(RandomStreams.of(np.random.default_rng(3)), recipe, head)
    texture = texture_fields(RandomStreams.of(np.random.default_rng(4)), scene)
    plain = replace(recipe.palettes["flair"], texture=(0.0, 0.0), glow=(0.0, 0.0), behind=0.0)

    def painted(palette, fluid):
        return paint(RandomStreams.of(np.random.default_rng(5)), replace(scene, fluid=fluid), palette, texture)

    healthy = torch.ones_like(scene.tissue, dtype=torch.bool)
    healthy[scene.box] = scene.lesions.opacity == 0
    dry, wet = (torch.full_like(scene.fluid, share) for share in (0.0, 1.0))
    cerebellum = healthy & (scene.tissue == Tissue.CEREBELLAR_GREY)
    for fluid, kind in ((dry, Tissue.CEREBELLAR_GREY), (wet, Tissue.CSF)):
        assert torch.allclose(painted(plain, fluid)[cerebellum], torch.tensor(plain.tissues[kind]))
    white = paint(RandomStreams.of(np.random.default_rng(5)), replace(scene, fluid=dry, cortex=dry), plain, texture)[
        cerebellum
    ]
    assert torch.allclose(white, torch.tensor(plain.tissues[Tissue.HINDBRAIN_WHITE]))
    behind = tilt_cerebellum(1.0, scene.tissue, head.spacing_mm)
    bright = paint(
        RandomStreams.of(np.random.default_rng(5)),
        replace(scene, fluid=dry, behind=behind),
        replace(plain, behind=0.3),
        texture,
    )
    assert torch.allclose((bright / painted(plain, dry))[healthy], torch.exp(0.3 * behind)[healthy], rtol=1e-4)
    change = painted(replace(plain, glow=(0.2, 0.1)), dry) / painted(plain, dry)
    for kind, most in ((Tissue.GREY, 0.2), (Tissue.WHITE, 0.1), (Tissue.VENTRICLE, 0.0)):
        places = texture.places[healthy & (scene.tissue == kind)]
        assert torch.allclose(change[healthy & (scene.tissue == kind)], torch.exp(most * places), rtol=1e-4)
