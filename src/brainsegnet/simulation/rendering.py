"""What each tissue looks like in each sequence, and a scene painted of it; a scanner's faults come after (`artefacts`).

Brightness is relative to white matter at 1. Ranges follow the physics of each sequence and were set to cover the BraTS
scans with a margin; a share of the images gets a contrast of no known physics, so that a network learns shapes too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brainsegnet._types import Millimetres
from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.simulation.confounders import Extra
from brainsegnet.simulation.fields import RandomStreams, noise, shape_of
from brainsegnet.simulation.glioma import Lesions, Part

SEQUENCES = ("flair", "t1", "t1c", "t2")
Range = tuple[float, float]

FLUID: Mapping[str, Range] = {"flair": (0.1, 0.5), "t1": (0.2, 0.45), "t1c": (0.2, 0.45), "t2": (2.2, 4.2)}
GREY: Mapping[str, Range] = {"flair": (1.06, 1.32), "t1": (0.75, 0.92), "t1c": (0.77, 0.95), "t2": (1.12, 1.5)}
"""Brightness of fluid and of grey matter: the order of fluid, grey and white is the sequence's physics."""

PARTS: Mapping[str, tuple[Range, ...]] = {
    #        necrosis     oedema       non-enhancing enhancing   cyst          blood
    "flair": ((0.9, 2.3), (1.4, 2.25), (1.5, 2.7), (1.3, 2.5), (0.2, 1.05), (0.4, 1.4)),
    "t1": ((0.6, 0.92), (0.78, 0.97), (0.7, 0.97), (0.74, 1.0), (0.3, 0.62), (0.9, 1.5)),
    "t1c": ((0.55, 0.88), (0.77, 0.97), (0.64, 0.95), (1.12, 1.5), (0.3, 0.62), (0.9, 1.5)),
    "t2": ((1.4, 2.8), (1.4, 2.6), (1.6, 2.8), (1.4, 2.8), (2.0, 3.3), (0.4, 1.3)),
}
MOTTLE = (0.0, 0.13, 0.17, 0.10, 0.14, 0.05, 0.25)
"""Unevenness within each `Part`, standard deviation of the logarithm; `UNEVEN` is a factor by sequence."""
UNEVEN: Mapping[str, float] = {"flair": 0.8, "t1": 0.65, "t1c": 0.65, "t2": 1.0}
UPTAKE = 1.3
"""How much more uneven than other parts tissue is that takes up contrast agent."""
CALM: Mapping[str, float] = {"flair": 1.2, "t1": 0.5, "t1c": 0.75, "t2": 0.9}
"""Factor on texture and noise: T1 tells tissues apart by less, and is as clear."""
SOLID = (True, False, False, True, True, True)
"""Whether each `Part` keeps nearly all of its contrast where the tumour is faint."""
EXTRAS: Mapping[str, tuple[Range, ...]] = {
    #        meninges     vessel      choroid     hyperintensity cavity    scar      sinus
    "flair": ((0.5, 1.3), (0.3, 1.0), (0.7, 1.3), (1.2, 1.75), (0.2, 0.6), (1.2, 1.7), (0.3, 1.1)),
    "t1": ((0.5, 1.2), (0.4, 1.1), (0.5, 0.8), (0.75, 0.95), (0.3, 0.6), (0.65, 0.9), (0.4, 1.2)),
    "t1c": ((0.8, 1.4), (1.0, 1.55), (1.0, 2.0), (0.75, 0.95), (0.3, 0.6), (0.65, 0.9), (1.05, 1.85)),
    "t2": ((0.5, 1.6), (0.3, 1.2), (1.2, 2.2), (1.2, 1.8), (1.9, 2.9), (1.3, 2.0), (0.2, 1.0)),
}
GLOW: Mapping[str, float] = {"flair": 0.18, "t1": 0.02, "t1c": 0.07, "t2": 0.12}
"""How much brighter than elsewhere healthy tissue may be in places, at most (limbic cortex, corona radiata)."""
HINDBRAIN: Mapping[str, tuple[float, float]] = {
    "flair": (0.1, 0.14),
    "t1": (0.02, -0.03),
    "t1c": (0.02, -0.05),
    "t2": (0.08, 0.14),
}
"""Mean and spread of the logarithm of the hindbrain's brightness relative to the cerebrum's, from head to head: in
some both FLAIR and T2 show it as bright as faint oedema, all of it or the farther from the brain stem the more."""
WETNESS: Mapping[str, float] = {"flair": 1.0, "t1": -1.0, "t1c": -1.0, "t2": 1.0}
"""Whether water makes tissue brighter or darker."""


@dataclass(frozen=True)
class Palette:
    """How one sequence shows what there is.

    Attributes:
        sequence: Its name.
        physical: Whether the order of the tissues is the sequence's own.
        tissues: Brightness of each `Tissue`, and of each `Extra` after them.
        parts: Brightness of each `Part`.
        mottle: Factor on the unevenness within the tumour.
        texture: Weights of slow and of fine unevenness.
        glow: How much brighter than elsewhere grey and white matter are in places.
        behind: Logarithm of the hindbrain's brightness relative to the cerebrum's.
    """

    sequence: str
    physical: bool
    tissues: tuple[float, ...]
    parts: tuple[float, ...]
    mottle: float
    texture: tuple[float, float]
    glow: tuple[float, float]
    behind: float


def draw_palettes(rng: np.random.Generator, random_share: float = 0.1) -> dict[str, Palette]:
    """The palettes of the four sequences; tumours share their wetness over the sequences.

    Args:
        rng: What is drawn from.
        random_share: How often the order of the tissues is random.
    """
    wetness, strength = rng.uniform(0, 1, len(Part) - 1), float(rng.uniform(0.7, 1.1))
    hindbrain = float(rng.normal())
    return {s: _draw_palette(rng, s, wetness, (strength, hindbrain), rng.random() < random_share) for s in SEQUENCES}


def _draw_palette(
    rng: np.random.Generator, sequence: str, wetness: np.ndarray, shared: tuple[float, float], random: bool
) -> Palette:
    strength, hindbrain = shared
    fluid, grey = rng.uniform(*FLUID[sequence]), rng.uniform(*GREY[sequence])
    if random:
        fluid, grey = rng.uniform(0.1, 1.9), rng.uniform(0.6, 1.5)
    deep, cerebellar = 1 + (grey - 1) * rng.uniform((0.3, 0.6), (0.95, 1.1))
    mean, spread = HINDBRAIN[sequence]
    behind = mean + spread * (0.85 * hindbrain + 0.5 * float(rng.normal()))
    tissues = [fluid, fluid, grey, 1.0, fluid * rng.uniform(0.85, 1.1), deep, cerebellar, rng.uniform(0.93, 1.06)]
    tissues[0] = fluid * rng.uniform(0.3, 1.1)
    extras = [rng.uniform(*span) for span in EXTRAS[sequence]]
    share = 0.5 * (wetness if WETNESS[sequence] > 0 else 1 - wetness) + 0.5 * rng.uniform(0, 1, len(wetness))
    low, high = np.array(PARTS[sequence]).T
    parts = low + (high - low) * share
    calm = CALM[sequence]
    faded = 1 + np.where(SOLID, 0.3 * strength + 0.7, strength) * (parts - 1)
    return Palette(
        sequence=sequence,
        physical=not random,
        tissues=(*map(float, tissues), *map(float, extras)),
        parts=(0.0, *faded.tolist()),
        mottle=float(rng.uniform(0.4, 1.6)),
        texture=(calm * float(rng.uniform(0.01, 0.06)), calm * float(rng.uniform(0.005, 0.03))),
        glow=(float(rng.uniform(0, GLOW[sequence])), float(rng.uniform(0, GLOW[sequence]))),
        behind=behind,
    )


@dataclass(frozen=True, eq=False)
class Scene:
    """What there is to be painted, all (D, H, W), the tumour in a box of it.

    Attributes:
        tissue: uint8 of `Tissue`, displaced by the tumour.
        extras: uint8 of `Extra`.
        veil: How far the extras hide the tissue.
        fluid: Share of fluid where `tissue` says so, and in the cortex of the cerebellum; the rest is grey matter.
        cortex: Share of cortex in the voxels of the hindbrain; the rest is white matter.
        behind: How much of the hindbrain's own brightness each voxel has.
        lesions: The tumour.
        box: Where it lies, slices of the three axes.
        spacing_mm: Along (D, H, W).
    """

    tissue: Tensor
    extras: Tensor
    veil: Tensor
    fluid: Tensor
    cortex: Tensor
    behind: Tensor
    lesions: Lesions
    box: tuple[slice, slice, slice]
    spacing_mm: Millimetres


@dataclass(frozen=True, eq=False)
class Texture:
    """What all sequences share: unevenness, slow and fine, bright places (D, H, W), unevenness in the tumour's box."""

    slow: Tensor
    fine: Tensor
    places: Tensor
    lesion: Tensor


def texture_fields(rng: RandomStreams, scene: Scene) -> Texture:
    """The texture of a scene, from noise."""
    shape, inner = shape_of(scene.tissue), shape_of(scene.lesions.parts)
    slow, fine, places = (noise(rng, shape, scene.spacing_mm, grain)[0] for grain in (14.0, 2.4, 9.0))
    coarse, middle = (noise(rng, inner, scene.spacing_mm, grain)[0] for grain in (6.0, 2.5))
    return Texture(slow, fine, (places - 0.4).clamp(0, 2), 0.75 * coarse + 0.65 * middle)


def paint(rng: RandomStreams, scene: Scene, palette: Palette, texture: Texture) -> Tensor:
    """One sequence (D, H, W) of a scene, brightness relative to white matter, without blur and noise.

    The background shows what surrounds a brain, for the blur to mix in; the mask comes last.
    """
    colours = torch.tensor(palette.tissues, device=scene.tissue.device)
    image = _fill(colours, scene)
    where = torch.nonzero(scene.veil.ravel() > 0).ravel()
    veil, extra = scene.veil.ravel()[where], colours[scene.extras.ravel()[where].int()]
    image.view(-1)[where] += veil * (extra - image.view(-1)[where])
    slow, fine = palette.texture
    g, w = palette.glow
    glow = torch.tensor((0, 0, g, w, 0, w, g, w), device=image.device)[scene.tissue.int()]
    uneven = slow * texture.slow + fine * texture.fine + glow * texture.places
    image *= torch.exp(uneven + palette.behind * scene.behind)
    image[scene.box] = _lay_over(rng, image[scene.box], scene, palette, texture)
    return image


def _fill(colours: Tensor, scene: Scene) -> Tensor:
    """Each voxel (D, H, W) in the colour of its tissue, mixed where it holds two."""
    image = colours[scene.tissue.int()]
    white, grey = colours[Tissue.HINDBRAIN_WHITE], colours[Tissue.CEREBELLAR_GREY]
    for kind in (Tissue.CEREBELLAR_GREY, Tissue.HINDBRAIN_WHITE):
        behind = torch.nonzero(scene.tissue.ravel() == kind).ravel()
        image.view(-1)[behind] = white + scene.cortex.ravel()[behind] * (grey - white)
    image[scene.tissue == Tissue.CSF] = colours[Tissue.GREY]
    for kind in (Tissue.CSF, Tissue.CEREBELLAR_GREY):
        sulci = torch.nonzero(scene.tissue.ravel() == kind).ravel()
        solid = image.view(-1)[sulci]
        image.view(-1)[sulci] = solid + scene.fluid.ravel()[sulci] * (colours[Tissue.CSF] - solid)
    return image


def _lay_over(rng: RandomStreams, image: Tensor, scene: Scene, palette: Palette, texture: Texture) -> Tensor:
    """The tumour over its box (D, H, W) of the image."""
    parts = scene.lesions.parts.int()
    own = noise(rng, shape_of(parts), scene.spacing_mm, 3.5)[0]
    shared = texture.lesion * WETNESS[palette.sequence]
    amount = palette.mottle * UNEVEN[palette.sequence] * torch.tensor(MOTTLE, device=parts.device)[parts]
    if palette.sequence == "t1c":
        amount = torch.where(parts == Part.ENHANCING, UPTAKE * amount, amount)
    colours = torch.tensor(palette.parts, device=parts.device)
    colours[Part.NONE] = colours[Part.OEDEMA]
    look = colours[parts] * torch.exp(amount * (0.75 * shared + 0.65 * own))
    fluid = (scene.tissue[scene.box] == Tissue.CSF) | (scene.tissue[scene.box] == Tissue.VENTRICLE)
    vessel = scene.extras[scene.box] == Extra.VESSEL
    spared = (fluid | vessel) & ((parts == Part.NONE) | (parts == Part.OEDEMA))
    opacity = torch.where(spared | (scene.tissue[scene.box] == Tissue.BACKGROUND), 0.0, scene.lesions.opacity)
    return image + opacity * (look - image)
