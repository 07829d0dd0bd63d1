"""The scene of a realistic glioma, a deformed anatomy with its tumour, and how each sequence shows it.

Brightness is relative to white matter at 1. Its ranges follow the physics of each sequence and cover the BraTS scans
with a margin. A share of the images gets a random contrast, so that a network learns shapes too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from brainsegnet._types import Doubles, Millimetres, Range
from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.simulation import Part
from brainsegnet.simulation.confounders import Extra
from brainsegnet.simulation.fields import Pose, RandomStreams, displace, noise, place, pose_velocity, resize, sample
from brainsegnet.simulation.glioma import Glioma, Lesions, grow_cells, infiltrate, push, render_labels
from brainsegnet.task import BRATS2015
from brainsegnet.volume import Box, LabelMap

COARSE_MM = 2.0
"""Spacing of the grid on which tumours and deformations are computed."""
MARGIN_MM = 8.0
"""Room around an anatomy, for a head that is larger than it."""

FLUID: Mapping[str, Range] = {"flair": (0.1, 0.5), "t1": (0.2, 0.45), "t1c": (0.2, 0.45), "t2": (2.2, 4.2)}
GREY: Mapping[str, Range] = {"flair": (1.06, 1.32), "t1": (0.75, 0.92), "t1c": (0.77, 0.95), "t2": (1.12, 1.5)}
"""Brightness of fluid and of grey matter; their order, with white matter at 1, is the physics of the sequence."""

PARTS: Mapping[str, tuple[Range, ...]] = {
    #        necrosis     oedema       non-enhancing enhancing   cyst          blood
    "flair": ((0.9, 2.3), (1.4, 2.25), (1.5, 2.7), (1.3, 2.5), (0.2, 1.05), (0.4, 1.4)),
    "t1": ((0.6, 0.92), (0.78, 0.97), (0.7, 0.97), (0.74, 1.0), (0.3, 0.62), (0.9, 1.5)),
    "t1c": ((0.55, 0.88), (0.77, 0.97), (0.64, 0.95), (1.12, 1.5), (0.3, 0.62), (0.9, 1.5)),
    "t2": ((1.4, 2.8), (1.4, 2.6), (1.6, 2.8), (1.4, 2.8), (2.0, 3.3), (0.4, 1.3)),
}
MOTTLE = (0.0, 0.13, 0.17, 0.10, 0.14, 0.05, 0.25)
"""Texture within each `Part`: standard deviation of the logarithm of its brightness."""
MOTTLE_FACTOR: Mapping[str, float] = {"flair": 0.8, "t1": 0.65, "t1c": 0.65, "t2": 1.0}
UPTAKE = 1.3
"""Factor on the texture of tissue that takes up contrast agent."""
NOISE: Mapping[str, float] = {"flair": 1.2, "t1": 0.5, "t1c": 0.75, "t2": 0.9}
"""Factor on texture and noise: small in T1, where the contrast of tissues is small too."""
DISTINCT = (True, False, False, True, True, True)
"""Whether each `Part` keeps nearly all of its contrast where the tumour is faint."""
FAINT_SHARE = 0.2
"""Share of tumours that are a little brighter than healthy tissue only, as in a quarter of BraTS scans."""
EXTRAS: Mapping[str, tuple[Range, ...]] = {
    #        meninges     vessel      choroid     hyperintensity cavity    scar      sinus
    "flair": ((0.5, 1.3), (0.3, 1.0), (0.7, 1.3), (1.2, 1.75), (0.2, 0.6), (1.2, 1.7), (0.3, 1.1)),
    "t1": ((0.5, 1.2), (0.4, 1.1), (0.5, 0.8), (0.75, 0.95), (0.3, 0.6), (0.65, 0.9), (0.4, 1.2)),
    "t1c": ((0.8, 1.4), (1.0, 1.55), (1.0, 2.0), (0.75, 0.95), (0.3, 0.6), (0.65, 0.9), (1.05, 1.85)),
    "t2": ((0.5, 1.6), (0.3, 1.2), (1.2, 2.2), (1.2, 1.8), (1.9, 2.9), (1.3, 2.0), (0.2, 1.0)),
}
GLOW: Mapping[str, float] = {"flair": 0.18, "t1": 0.02, "t1c": 0.07, "t2": 0.12}
"""Largest logarithm by which healthy tissue is brighter in places (limbic cortex, corona radiata)."""
HINDBRAIN: Mapping[str, Range] = {"flair": (0.1, 0.14), "t1": (0.02, -0.03), "t1c": (0.02, -0.05), "t2": (0.08, 0.14)}
"""Mean and standard deviation over heads of the logarithm of the brightness of hindbrain over cerebrum."""
WETNESS: Mapping[str, float] = {"flair": 1.0, "t1": -1.0, "t1c": -1.0, "t2": 1.0}
"""Whether water makes tissue brighter or darker."""


@dataclass(frozen=True)
class Palette:
    """How one sequence shows a scene."""

    sequence: str  # its name
    physical: bool  # whether the order of the tissues is that of the sequence
    tissues: tuple[float, ...]  # brightness of each `Tissue`, and of each `Extra` after them
    parts: tuple[float, ...]  # brightness of each `Part`, or of each `Content` of white matter lesions
    mottle: float  # factor on the texture within the tumour
    texture: tuple[float, float]  # weights of slow and of fine texture
    glow: tuple[float, float]  # logarithm by which grey and white matter are brighter in places
    hindbrain: float  # logarithm of the brightness of hindbrain over cerebrum


def draw_palettes(rng: np.random.Generator, random_share: float = 0.1) -> dict[str, Palette]:
    """Draw the palettes of the four sequences, with one wetness of the tumour; a share of them has random contrast."""
    wetness, strength = rng.uniform(0, 1, len(Part) - 1), _draw_strength(rng)
    shared = strength, rng.normal()
    return {s: _draw_palette(rng, s, wetness, shared, rng.random() < random_share) for s in BRATS2015.sequences}


def _draw_strength(rng: np.random.Generator) -> float:
    """How much of its contrast a tumour has; a share of tumours is faint, whatever their size."""
    return float(np.interp(rng.random(), (0, FAINT_SHARE, 1), (0.3, 0.7, 1.1)))


def _draw_palette(
    rng: np.random.Generator, sequence: str, wetness: Doubles, shared: tuple[float, float], random: bool
) -> Palette:
    strength, of_head = shared
    fluid, grey = rng.uniform(*FLUID[sequence]), rng.uniform(*GREY[sequence])
    if random:
        fluid, grey = rng.uniform(0.1, 1.9), rng.uniform(0.6, 1.5)
    deep, cerebellar = 1 + (grey - 1) * rng.uniform((0.3, 0.6), (0.95, 1.1))
    mean, spread = HINDBRAIN[sequence]
    hindbrain = mean + spread * (0.85 * of_head + 0.5 * rng.normal())
    tissues = [fluid, fluid, grey, 1.0, fluid * rng.uniform(0.85, 1.1), deep, cerebellar, rng.uniform(0.93, 1.06)]
    tissues[0] = fluid * rng.uniform(0.3, 1.1)
    extras = [rng.uniform(*span) for span in EXTRAS[sequence]]
    share = 0.5 * (wetness if WETNESS[sequence] > 0 else 1 - wetness) + 0.5 * rng.uniform(0, 1, len(wetness))
    low, high = np.array(PARTS[sequence]).T
    parts = low + (high - low) * share
    factor = NOISE[sequence]
    faded = 1 + np.where(DISTINCT, 0.3 * strength + 0.7, strength) * (parts - 1)
    return Palette(
        sequence=sequence,
        physical=not random,
        tissues=(*map(float, tissues), *map(float, extras)),
        parts=(0.0, *faded.tolist()),
        mottle=rng.uniform(0.4, 1.6),
        texture=(factor * rng.uniform(0.01, 0.06), factor * rng.uniform(0.005, 0.03)),
        glow=(rng.uniform(0, GLOW[sequence]), rng.uniform(0, GLOW[sequence])),
        hindbrain=hindbrain,
    )


@dataclass(frozen=True, eq=False)
class Scene:
    """What a scan shows, all (D, H, W); the lesions in a box of it."""

    tissue: Tensor  # uint8 of `Tissue`, displaced by the tumour
    extras: Tensor  # uint8 of `Extra`
    opacity: Tensor  # how far the extras hide the tissue, 0 to 1
    fluid: Tensor  # share of fluid in CSF and in the cortex of the cerebellum; the rest is grey matter
    cortex: Tensor  # share of cortex in the hindbrain; the rest is white matter
    hindbrain: Tensor  # weight of the brightness of the hindbrain
    lesions: Lesions  # the tumour or the white matter lesions, on the grid of the box
    box: tuple[slice, slice, slice]  # slices of the three axes
    spacing_mm: Millimetres  # along (D, H, W)

    @classmethod
    def bare(cls, tissue: Tensor, lesions: Lesions, box: tuple[slice, slice, slice], spacing_mm: Millimetres) -> Self:
        """A scene without confounders, on the grid of `tissue` (D, H, W)."""
        nothing, share = torch.zeros_like(tissue), torch.zeros_like(tissue, dtype=torch.float32)
        cortex = (tissue == Tissue.CEREBELLAR_GREY).float()
        return cls(tissue, nothing, share, share, cortex, share, lesions, box, spacing_mm)


def build_scene(streams: RandomStreams, pose: Pose, glioma: Glioma, anatomy: LabelMap) -> Scene:
    """Deform an anatomy, simulate a tumour in it, and displace the brain by the tumour; no confounders yet."""
    spacing, head = anatomy.spacing_mm, deform(streams, pose, anatomy)
    before = head.coarse(head.where)
    cells = grow_cells(streams, glioma, before, head.coarse_mm)
    where = displace(head.where, push(glioma, cells, before, head.coarse_mm))
    water = infiltrate(streams, glioma, cells, head.coarse(where), head.coarse_mm)
    tissue = head.fine(where)
    spread = resize(torch.stack([cells, water]), tissue.shape)
    box = box_around(spread.max(dim=0).values > 0.1, spacing)
    lesions = render_labels(streams, glioma, spread[0][box], spread[1][box], tissue[box], spacing)
    return Scene.bare(tissue, lesions, box, spacing)


@dataclass(frozen=True, eq=False)
class DeformedHead:
    """A template and where the values of a head come from in it."""

    template: Tensor  # (1, D', H', W') of `Tissue`, as floats
    where: Tensor  # (3, d, h, w), position in the template in voxels of each node of a coarse grid
    shape: list[int]  # voxels (D, H, W) of the head
    coarse_mm: Millimetres  # spacing of the coarse grid

    def coarse(self, where: Tensor) -> Tensor:
        """The `Tissue` (d, h, w) at positions (3, d, h, w) in the template, as floats."""
        return sample(self.template, where, "nearest")[0].round()

    def fine(self, where: Tensor) -> Tensor:
        """The `Tissue` (D, H, W), uint8, on the grid of the head, from positions (3, d, h, w) on the coarse grid."""
        return self.coarse(resize(where, self.shape)).to(torch.uint8)


def deform(streams: RandomStreams, pose: Pose, anatomy: LabelMap) -> DeformedHead:
    """Pose and deform an anatomy, on a coarse grid over it with `margins`."""
    spacing, device = anatomy.spacing_mm, streams.torch_rng.device
    template = torch.as_tensor(anatomy.array, device=device).float()[None]
    shape = [n + 2 * p for n, p in zip(anatomy.shape, margins(spacing), strict=True)]
    template = torch.nn.functional.pad(template, (1,) * 6)
    nodes, coarse_mm = _coarsen(shape, spacing)
    where = place(pose, shape, spacing, template.shape[1:], nodes).to(device)
    velocity = pose_velocity(streams, pose, sample(template, where, "nearest")[0], coarse_mm)
    return DeformedHead(template, displace(where, velocity), shape, coarse_mm)


def margins(spacing_mm: Millimetres) -> list[int]:
    """Voxels along (D, H, W) that are added on each side of an anatomy: `MARGIN_MM`."""
    return [round(MARGIN_MM / s) for s in spacing_mm]


def _coarsen(shape: Sequence[int], spacing_mm: Millimetres) -> tuple[list[int], Millimetres]:
    """Nodes of a grid of `COARSE_MM` over a shape, and their spacing; never finer than the grid itself."""
    nodes = [min(n, round((n - 1) * s / COARSE_MM) + 1) for n, s in zip(shape, spacing_mm, strict=True)]
    z, y, x = (s * (n - 1) / (k - 1) for n, k, s in zip(shape, nodes, spacing_mm, strict=True))
    return nodes, (z, y, x)


def box_around(mask: Tensor, spacing_mm: Millimetres) -> tuple[slice, slice, slice]:
    """Slices around a mask (D, H, W) with 6 mm of room."""
    box, room = Box.around(mask.cpu().numpy()), [round(6 / step) for step in spacing_mm]
    d, h, w = (slice(max(0, a - r), b + r) for a, b, r in zip(box.start, box.stop, room, strict=True))
    return d, h, w


@dataclass(frozen=True, eq=False)
class Texture:
    """Texture that all sequences share (D, H, W): slow, fine, bright places; and of the tumour, in its box."""

    slow: Tensor
    fine: Tensor
    places: Tensor
    lesion: Tensor


def draw_texture(streams: RandomStreams, scene: Scene) -> Texture:
    """Draw the texture of a scene."""
    shape, inner = scene.tissue.shape, scene.lesions.parts.shape
    slow, fine, places = (noise(streams, shape, scene.spacing_mm, grain)[0] for grain in (14.0, 2.4, 9.0))
    coarse, middle = (noise(streams, inner, scene.spacing_mm, grain)[0] for grain in (6.0, 2.5))
    return Texture(slow, fine, (places - 0.4).clamp(0, 2), 0.75 * coarse + 0.65 * middle)


def paint(streams: RandomStreams, scene: Scene, palette: Palette, texture: Texture) -> Tensor:
    """One sequence (D, H, W) of a scene before blur and noise; the background shows what surrounds a brain."""
    image = paint_head(scene, palette, texture)
    image[scene.box] = _paint_tumour(streams, image[scene.box], scene, palette, texture)
    return image


def paint_head(scene: Scene, palette: Palette, texture: Texture) -> Tensor:
    """As `paint`, without the lesions."""
    shades = torch.tensor(palette.tissues, device=scene.tissue.device)
    image = _paint_tissues(shades, scene)
    where = torch.nonzero(scene.opacity.ravel() > 0).ravel()
    opacity, extra = scene.opacity.ravel()[where], shades[scene.extras.ravel()[where].int()]
    image.view(-1)[where] += opacity * (extra - image.view(-1)[where])
    slow, fine = palette.texture
    g, w = palette.glow
    glow = torch.tensor((0, 0, g, w, 0, w, g, w), device=image.device)[scene.tissue.int()]
    uneven = slow * texture.slow + fine * texture.fine + glow * texture.places
    image *= torch.exp(uneven + palette.hindbrain * scene.hindbrain)
    return image


def _paint_tissues(shades: Tensor, scene: Scene) -> Tensor:
    """The brightness of the tissue of each voxel (D, H, W), mixed where it holds two."""
    image = shades[scene.tissue.int()]
    white, grey = shades[Tissue.HINDBRAIN_WHITE], shades[Tissue.CEREBELLAR_GREY]
    for kind in (Tissue.CEREBELLAR_GREY, Tissue.HINDBRAIN_WHITE):
        hindbrain = torch.nonzero(scene.tissue.ravel() == kind).ravel()
        image.view(-1)[hindbrain] = white + scene.cortex.ravel()[hindbrain] * (grey - white)
    image[scene.tissue == Tissue.CSF] = shades[Tissue.GREY]
    for kind in (Tissue.CSF, Tissue.CEREBELLAR_GREY):
        sulci = torch.nonzero(scene.tissue.ravel() == kind).ravel()
        solid = image.view(-1)[sulci]
        image.view(-1)[sulci] = solid + scene.fluid.ravel()[sulci] * (shades[Tissue.CSF] - solid)
    return image


def _paint_tumour(streams: RandomStreams, image: Tensor, scene: Scene, palette: Palette, texture: Texture) -> Tensor:
    """The box (D, H, W) of an image with the tumour in it."""
    parts = scene.lesions.parts.int()
    own = noise(streams, parts.shape, scene.spacing_mm, 3.5)[0]
    shared = texture.lesion * WETNESS[palette.sequence]
    amount = palette.mottle * MOTTLE_FACTOR[palette.sequence] * torch.tensor(MOTTLE, device=parts.device)[parts]
    if palette.sequence == "t1c":
        amount = torch.where(parts == Part.ENHANCING, UPTAKE * amount, amount)
    shades = torch.tensor(palette.parts, device=parts.device)
    shades[Part.NONE] = shades[Part.OEDEMA]
    look = shades[parts] * torch.exp(amount * (0.75 * shared + 0.65 * own))
    tissue, vessel = scene.tissue[scene.box], scene.extras[scene.box] == Extra.VESSEL
    fluid = (tissue == Tissue.CSF) | (tissue == Tissue.VENTRICLE) | vessel
    spared = fluid & ((parts == Part.NONE) | (parts == Part.OEDEMA))
    opacity = torch.where(spared | (tissue == Tissue.BACKGROUND), 0.0, scene.lesions.opacity)
    return image + opacity * (look - image)
