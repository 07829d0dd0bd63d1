"""Whole cases with white matter lesions: from a seed and an anatomy to FLAIR, T1, T1c and T2, and their labels.

The head, its contrasts and its scans are those of realistic gliomas. What resembles a lesion has no label: thin caps
and rims around the ventricles, perivascular spaces, and the flow of fluid and blood in the posterior fossa. Images are
(D, H, W) in torch, with white matter at 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from brainsegnet._types import Millimetres, Range
from brainsegnet.anatomy.procedural import Tissue, log_uniform
from brainsegnet.simulation.confounders import Confounders, Extra, draw_confounders
from brainsegnet.simulation.fields import Pose, RandomStreams, blur, draw_pose, noise
from brainsegnet.simulation.glioma import Lesions
from brainsegnet.simulation.realistic import Artefacts, add_confounders, degrade, draw_scans, near_coil, store
from brainsegnet.simulation.rendering import (
    MOTTLE_FACTOR,
    WETNESS,
    Palette,
    Scene,
    Texture,
    box_around,
    deform,
    draw_palettes,
    draw_texture,
    paint_head,
)
from brainsegnet.simulation.white_matter import (
    Content,
    Ovoid,
    WhiteMatterDisease,
    draw_disease,
    fill,
    frame,
    measure,
    render_lesions,
    survey,
)
from brainsegnet.volume import Case, LabelMap

CONTENTS: Mapping[str, tuple[Range, ...]] = {
    #        plaque       black hole    enhancing
    "flair": ((1.22, 1.8), (1.1, 1.75), (1.25, 1.85)),
    "t1": ((0.74, 0.97), (0.42, 0.74), (0.7, 0.93)),
    "t1c": ((0.76, 0.99), (0.45, 0.77), (1.12, 1.6)),
    "t2": ((1.25, 2.2), (1.5, 2.8), (1.35, 2.3)),
}
"""Brightness of each `Content`, with white matter at 1."""
MOTTLE = 0.07
"""Texture within lesions: standard deviation of the logarithm of their brightness."""
FLOWS = ("flair", "t2")
"""Sequences in which pulsation makes the posterior fossa uneven."""


@dataclass(frozen=True)
class LookAlikes:
    """What resembles white matter lesions, besides the confounders of all heads. Flow shows in FLAIR alone."""

    spaces: int  # number of perivascular spaces, thinner than 3 mm (Wardlaw et al., Lancet Neurology 2013)
    flow: float  # level of noise above which fluid beside the hindbrain flows into the slice
    inflow: float  # brightness of that fluid
    pulsation: float  # amplitude of uneven brightness of the hindbrain


@dataclass(frozen=True)
class WhiteMatterRecipe:
    """All parameters of a simulated case with white matter lesions. Palettes, artefacts and gains are by sequence."""

    pose: Pose
    disease: WhiteMatterDisease
    look_alikes: LookAlikes
    confounders: Confounders
    palettes: dict[str, Palette]
    artefacts: dict[str, Artefacts]
    gains: dict[str, float]


def draw_white_matter_recipe(rng: np.random.Generator) -> WhiteMatterRecipe:
    """Draw the parameters of a case. Its lesions and its fields of noise are drawn when it is rendered.

    Hyperintensities and old infarcts, which a reader could not tell from lesions, are left out.
    """
    pose, disease, look_alikes = draw_pose(rng), draw_disease(rng), draw_look_alikes(rng)
    confounders = replace(draw_confounders(rng), hyperintensities=0.0, infarct_mm=0.0)
    palettes = _draw_palettes(rng)
    return WhiteMatterRecipe(pose, disease, look_alikes, confounders, palettes, *draw_scans(rng, tuple(palettes)))


def draw_look_alikes(rng: np.random.Generator) -> LookAlikes:
    """Draw what resembles lesions: perivascular spaces in all heads, flow and pulsation in half of them."""
    return LookAlikes(
        spaces=round(log_uniform(rng, 4, 60)),
        flow=rng.uniform(0.2, 2.0) if rng.random() < 0.6 else 9.0,
        inflow=rng.uniform(0.7, 2.0),
        pulsation=rng.uniform(0.02, 0.12) if rng.random() < 0.5 else 0.0,
    )


def _draw_palettes(rng: np.random.Generator) -> dict[str, Palette]:
    """Palettes of four sequences whose `parts` are the brightness of each `Content`, all as wet as each other."""
    wetness, palettes = rng.uniform(0, 1, len(Content) - 1), draw_palettes(rng)
    for sequence, palette in palettes.items():
        low, high = np.array(CONTENTS[sequence]).T
        share = 0.6 * (wetness if WETNESS[sequence] > 0 else 1 - wetness) + 0.4 * rng.uniform(0, 1, len(wetness))
        palettes[sequence] = replace(palette, parts=(1.0, *(low + (high - low) * share).tolist()))
    return palettes


def simulate_white_matter_lesions(seed: int, anatomy: LabelMap, name: str, device: str = "cpu") -> Case:
    """Simulate a head with white matter lesions: flair, t1, t1c and t2 as int16, and labels, 1 in lesions.

    The same seed, anatomy and machine give the same arrays, bit for bit. Some heads have no lesion.

    Args:
        seed: Seed of everything that is random.
        anatomy: Anatomical label map (D, H, W). It is deformed and mirrored.
        name: Name of the case.
        device: Device of torch that computes.
    """
    rng = np.random.default_rng(seed)
    recipe = draw_white_matter_recipe(rng)
    images, labels = render_white_matter(RandomStreams.of(rng, device), recipe, anatomy)
    return store(name, images, labels, recipe.gains, anatomy)


def render_white_matter(
    streams: RandomStreams, recipe: WhiteMatterRecipe, anatomy: LabelMap
) -> tuple[dict[str, Tensor], Tensor]:
    """Render a case on the device of `streams`, on the grid of the anatomy with margins around it.

    Returns four sequences by name, 0 outside the brain, and the labels, 1 in lesions, all (D, H, W).
    """
    spacing, head = anatomy.spacing_mm, deform(streams, recipe.pose, anatomy)
    tissue = head.fine(head.where)
    found = render_lesions(streams, recipe.disease, tissue, spacing)
    visible = found.opacity > 0
    box = box_around(visible if visible.any() else tissue > 0, spacing)
    lesions = Lesions(found.labels[box], found.contents[box], found.opacity[box])
    scene, brain = add_confounders(streams, Scene.bare(tissue, lesions, box, spacing), recipe.confounders)
    scene = add_spaces(streams.numpy_rng, scene, recipe.look_alikes.spaces)
    texture, near = draw_texture(streams, scene), near_coil(brain, spacing)
    flow, pulse = find_flow(streams, scene.tissue, recipe.look_alikes, spacing)
    images = {}
    for sequence, palette in recipe.palettes.items():
        image = paint_head(scene, palette, texture)
        image[box] = _paint_lesions(streams, image[box], scene, palette, texture)
        if sequence == "flair":
            image = image + flow * (recipe.look_alikes.inflow - image)
        if sequence in FLOWS:
            image = image * torch.exp(recipe.look_alikes.pulsation * pulse)
        images[sequence] = degrade(image, brain, near, streams, recipe.artefacts[sequence], spacing)
    return images, found.labels * brain


def add_spaces(rng: np.random.Generator, scene: Scene, count: int) -> Scene:
    """A scene with a number of perivascular spaces: tubes of fluid in white matter and deep nuclei, along vessels."""
    ground = survey(scene.tissue, scene.spacing_mm)
    places = np.argwhere((ground.tissue == Tissue.WHITE) | (ground.tissue == Tissue.DEEP_GREY))
    solid = (scene.tissue == Tissue.WHITE) | (scene.tissue == Tissue.DEEP_GREY)
    extras, opacity = scene.extras.clone(), scene.opacity.clone()
    for _ in range(count if len(places) else 0):
        at = places[int(rng.integers(len(places)))]
        axes = frame(rng, ground.direction(ground.to_ventricle_mm, at) + 0.3 * rng.normal(size=3))
        thin_mm = rng.uniform(0.4, 1.0)
        tube = Ovoid(at * np.array(ground.spacing_mm), axes, np.array([rng.uniform(2, 7), thin_mm, thin_mm]))
        box, reach = measure(tube, scene.tissue.shape, scene.spacing_mm, scene.tissue.device)
        part = fill(reach, tube, 1.0) * solid[box]
        extras[box] = torch.where(part > opacity[box], int(Extra.CAVITY), extras[box]).to(torch.uint8)
        opacity[box] = torch.maximum(opacity[box], part)
    return replace(scene, extras=extras, opacity=opacity)


def find_flow(
    streams: RandomStreams, tissue: Tensor, drawn: LookAlikes, spacing_mm: Millimetres
) -> tuple[Tensor, Tensor]:
    """Where fluid beside the hindbrain flows into the slice, 0 to 1, and how pulsation varies there, both (D, H, W)."""
    hindbrain = (tissue == Tissue.HINDBRAIN_WHITE) | (tissue == Tissue.CEREBELLAR_GREY)
    fluid = (tissue == Tissue.CSF) | (tissue == Tissue.VENTRICLE)
    slow, fine = (noise(streams, tissue.shape, spacing_mm, grain)[0] for grain in (6.0, 2.5))
    near = blur(hindbrain, 4.0, spacing_mm)
    flow = ((slow - drawn.flow) * 2).clamp(0, 1) * (fluid & (near > 0.12))
    return flow, fine * hindbrain


def _paint_lesions(streams: RandomStreams, image: Tensor, scene: Scene, palette: Palette, texture: Texture) -> Tensor:
    """The box (D, H, W) of an image with the lesions in it."""
    own = noise(streams, image.shape, scene.spacing_mm, 3.5)[0]
    amount = MOTTLE * palette.mottle * MOTTLE_FACTOR[palette.sequence]
    shades = torch.tensor(palette.parts, device=image.device)
    shared = texture.lesion * WETNESS[palette.sequence]
    look = shades[scene.lesions.parts.int()] * torch.exp(amount * (0.75 * shared + 0.65 * own))
    tissue = scene.tissue[scene.box]
    white = (tissue == Tissue.WHITE) | (tissue == Tissue.HINDBRAIN_WHITE)
    return image + scene.lesions.opacity * white * (look - image)
