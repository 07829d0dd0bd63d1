"""Scenes: the order of brightness is that of each sequence, and a tumour displaces the brain and shows as it should."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.simulation import Part
from brainsegnet.simulation.confounders import Extra, tilt_cerebellum
from brainsegnet.simulation.fields import RandomStreams
from brainsegnet.simulation.glioma import draw_glioma
from brainsegnet.simulation.realistic import draw_recipe
from brainsegnet.simulation.rendering import (
    EXTRAS,
    MOTTLE,
    PARTS,
    UPTAKE,
    build_scene,
    draw_palettes,
    draw_texture,
    paint,
)
from brainsegnet.task import BRATS2015

ORDER = {
    "flair": (Tissue.VENTRICLE, Tissue.WHITE, Tissue.GREY),
    "t1": (Tissue.VENTRICLE, Tissue.GREY, Tissue.DEEP_GREY, Tissue.WHITE),
    "t1c": (Tissue.VENTRICLE, Tissue.GREY, Tissue.DEEP_GREY, Tissue.WHITE),
    "t2": (Tissue.WHITE, Tissue.DEEP_GREY, Tissue.GREY, Tissue.VENTRICLE),
}


@pytest.mark.parametrize("sequence", BRATS2015.sequences)
def test_the_order_of_the_tissues_is_the_sequences_own(sequence):
    for seed in range(60):
        palette = draw_palettes(np.random.default_rng(seed), random_share=0.0)[sequence]
        shades = [palette.tissues[tissue] for tissue in ORDER[sequence]]
        assert palette.physical and shades == sorted(shades)
        assert palette.tissues[Tissue.WHITE] == 1.0


def test_a_share_of_the_images_has_a_random_contrast():
    palettes = [p for seed in range(150) for p in draw_palettes(np.random.default_rng(seed), 0.25).values()]
    assert 0.18 < np.mean([not p.physical for p in palettes]) < 0.32
    shades = [p.tissues for p in palettes if not p.physical and p.sequence == "t1"]
    assert {s[Tissue.GREY] < 1 for s in shades} == {s[Tissue.CSF] < 1 for s in shades} == {True, False}


def test_tumours_look_as_they_do_in_each_sequence():
    for seed in range(60):
        flair, t1, t1c, t2 = draw_palettes(np.random.default_rng(seed), 0.0).values()
        for part in (Part.OEDEMA, Part.NON_ENHANCING):
            assert flair.parts[part] > 1 and t2.parts[part] > 1 > t1.parts[part]
        assert t1c.parts[Part.ENHANCING] > 1.1 > max(t1c.parts[Part.OEDEMA], t1c.parts[Part.NECROSIS])
        assert t2.parts[Part.CYST] > 1.6 and flair.parts[Part.CYST] < 1.15 and t1.parts[Part.CYST] < 0.75


def test_faint_tumours_still_enhance():
    t1c = [draw_palettes(np.random.default_rng(seed), 0.0)["t1c"].parts for seed in range(200)]
    assert min(parts[Part.ENHANCING] for parts in t1c) > 1.1
    assert max(parts[Part.OEDEMA] for parts in t1c) < 1.0


def test_the_hindbrain_may_be_brighter_or_darker_than_the_rest_and_flair_and_t2_agree():
    palettes = [draw_palettes(np.random.default_rng(seed), 0.0) for seed in range(200)]
    flair, t1, t2 = (np.array([p[s].hindbrain for p in palettes]) for s in ("flair", "t1", "t2"))
    assert 0.6 < np.mean(flair > 0) < 0.9 and 0.25 < np.mean((flair > 0.1) & (t2 > 0.1)) < 0.5
    agreement = np.corrcoef([flair, t1, t2])
    assert agreement[0, 2] > 0.5 and agreement[0, 1] < -0.2


def test_tables_have_a_place_for_everything():
    assert set(PARTS) == set(EXTRAS) == set(BRATS2015.sequences) and len(MOTTLE) == len(Part)
    assert all(len(row) == len(Part) - 1 for row in PARTS.values())
    assert all(len(row) == len(Extra) - 1 for row in EXTRAS.values())
    assert min(e for e in Extra if e) == len(Tissue)


RIM = replace(
    draw_glioma(np.random.default_rng(0)),
    high_grade=True, volume_ml=120.0, core=0.5, rim_mm=6.0, margin_mm=0.0, gaps=-9.0, pockets=0.0, cyst=9.0, bleeds=9.0,
)  # fmt: skip
"""A large tumour with a thick rim."""


def test_mass_pushes_the_brain_away(anatomy):
    recipe = draw_recipe(np.random.default_rng(2))
    still, pushed = (
        build_scene(
            RandomStreams.of(np.random.default_rng(4)),
            recipe.pose,
            replace(recipe.glioma, push_mm=push, volume_ml=150.0),
            anatomy,
        )
        for push in (0.0, 12.0)
    )
    assert not torch.equal(still.tissue, pushed.tissue)
    outline = [(s.tissue != Tissue.BACKGROUND) for s in (still, pushed)]
    assert (outline[0] != outline[1]).float().mean() < 0.02


def test_enhancing_tissue_has_more_texture_after_contrast_agent_than_before(anatomy):
    recipe = draw_recipe(np.random.default_rng(3))
    scene = build_scene(RandomStreams.of(np.random.default_rng(3)), recipe.pose, RIM, anatomy)
    texture = draw_texture(RandomStreams.of(np.random.default_rng(4)), scene)
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


def test_fluid_between_folia_and_bright_places_are_painted(anatomy):
    recipe = draw_recipe(np.random.default_rng(3))
    scene = build_scene(RandomStreams.of(np.random.default_rng(3)), recipe.pose, recipe.glioma, anatomy)
    texture = draw_texture(RandomStreams.of(np.random.default_rng(4)), scene)
    plain = replace(recipe.palettes["flair"], texture=(0.0, 0.0), glow=(0.0, 0.0), hindbrain=0.0)

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
    hindbrain = tilt_cerebellum(1.0, scene.tissue, anatomy.spacing_mm)
    bright = paint(
        RandomStreams.of(np.random.default_rng(5)),
        replace(scene, fluid=dry, hindbrain=hindbrain),
        replace(plain, hindbrain=0.3),
        texture,
    )
    assert torch.allclose((bright / painted(plain, dry))[healthy], torch.exp(0.3 * hindbrain)[healthy], rtol=1e-4)
    change = painted(replace(plain, glow=(0.2, 0.1)), dry) / painted(plain, dry)
    for kind, most in ((Tissue.GREY, 0.2), (Tissue.WHITE, 0.1), (Tissue.VENTRICLE, 0.0)):
        places = texture.places[healthy & (scene.tissue == kind)]
        assert torch.allclose(change[healthy & (scene.tissue == kind)], torch.exp(most * places), rtol=1e-4)
