"""A whole realistic case from a seed and an anatomy: four sequences and the labels of BRATS 2015."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from brainsegnet._types import Millimetres, Shape
from brainsegnet.anatomy.label_maps import Anatomy
from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.simulation.artefacts import Artefacts, degrade, draw_artefacts, near_coil
from brainsegnet.simulation.confounders import (
    Confounders,
    add_csf,
    draw_confounders,
    fill_sulci,
    peel_cerebellum,
    scatter,
    strip,
    tilt_cerebellum,
)
from brainsegnet.simulation.fields import (
    Pose,
    RandomStreams,
    draw_pose,
    grid,
    integrate,
    place,
    pose_velocity,
    resize,
    sample,
    shape_of,
)
from brainsegnet.simulation.glioma import (
    Glioma,
    Lesions,
    draw_glioma,
    efface,
    grow_cells,
    infiltrate,
    push,
    render_labels,
)
from brainsegnet.simulation.rendering import CALM, Palette, Scene, draw_palettes, paint, texture_fields
from brainsegnet.volume import Case, LabelMap, Volume

COARSE_MM = 2.0
"""Spacing of the grid on which tumours grow and heads deform."""
MARGIN_MM = 8.0
"""Room around the template, for a head that grows beyond it."""
CODED = 32000.0


@dataclass(frozen=True)
class Recipe:
    """All that is drawn for one case, fields of noise excepted."""

    pose: Pose
    glioma: Glioma
    confounders: Confounders
    palettes: dict[str, Palette]
    artefacts: dict[str, Artefacts]
    gains: dict[str, float]


def draw_recipe(rng: np.random.Generator) -> Recipe:
    """The random part of a case."""
    pose, glioma, confounders, palettes = draw_pose(rng), draw_glioma(rng), draw_confounders(rng), draw_palettes(rng)
    coil = float(rng.uniform(0, 0.35) if rng.random() < 0.6 else rng.uniform(0.2, 0.75))
    coil = coil if rng.random() < 0.75 else 0.0
    artefacts = {sequence: draw_artefacts(rng, coil, CALM[sequence]) for sequence in palettes}
    gains = {sequence: float(np.exp(rng.uniform(np.log(300), np.log(1500)))) for sequence in palettes}
    return Recipe(pose, glioma, confounders, palettes, artefacts, gains)


@dataclass(frozen=True, eq=False)
class Painted:
    """Four sequences (4, D, H, W), 0 outside the brain, and the labels (D, H, W) of BRATS 2015, on one device."""

    images: dict[str, Tensor]
    labels: Tensor


def simulate_glioma(seed: int, anatomy: Anatomy, name: str, device: str = "cpu") -> Case:
    """A head with a glioma: flair, t1, t1c and t2 as int16, and labels of BRATS 2015, all (D, H, W).

    Args:
        seed: The same seed, anatomy and machine give the same arrays, bit for bit.
        anatomy: The head; it is deformed, mirrored and displaced by the tumour.
        name: Of the case.
        device: Where torch computes.
    """
    rng = np.random.default_rng(seed)
    recipe = draw_recipe(rng)
    painted = render(RandomStreams.of(rng, device), recipe, anatomy)
    corner = anatomy.affine.copy()
    pad = _padding(anatomy.spacing_mm)
    corner[:3, 3] -= anatomy.affine[:3, :3] @ pad
    images = {
        sequence: Volume(_acquire(image, recipe.gains[sequence]), corner) for sequence, image in painted.images.items()
    }
    return Case(name, images, LabelMap(painted.labels.cpu().numpy(), corner))


def render(rng: RandomStreams, recipe: Recipe, anatomy: Anatomy) -> Painted:
    """A case on the device of `rng`, on the anatomy's grid with `MARGIN_MM` around it."""
    scene = build_scene(rng, recipe, anatomy)
    scene = replace(scene, tissue=add_csf(recipe.confounders, scene.tissue, anatomy.spacing_mm))
    brain = strip(rng, recipe.confounders, scene.tissue, anatomy.spacing_mm)
    extras, veil = scatter(rng, recipe.confounders, scene.tissue, brain, anatomy.spacing_mm)
    fluid = fill_sulci(rng, recipe.confounders, scene.tissue, anatomy.spacing_mm)
    fluid *= efface(recipe.glioma, whole_head(scene) > 0, anatomy.spacing_mm)
    cortex = peel_cerebellum(recipe.confounders.rind_mm, scene.tissue, anatomy.spacing_mm)
    behind = tilt_cerebellum(recipe.confounders.slope, scene.tissue, anatomy.spacing_mm)
    scene = replace(scene, extras=extras, veil=veil, fluid=fluid, cortex=cortex, behind=behind)
    texture, near = texture_fields(rng, scene), near_coil(brain, anatomy.spacing_mm)
    images = {}
    for sequence, palette in recipe.palettes.items():
        image = paint(rng, scene, palette, texture)
        images[sequence] = degrade(image, brain, near, rng, recipe.artefacts[sequence], anatomy.spacing_mm)
    return Painted(images, whole_head(scene) * brain)


def whole_head(scene: Scene) -> Tensor:
    """The labels of the tumour on the grid of the head (D, H, W)."""
    labels = torch.zeros_like(scene.tissue)
    labels[scene.box] = scene.lesions.labels
    return labels


def build_scene(rng: RandomStreams, recipe: Recipe, anatomy: Anatomy) -> Scene:
    """The head deformed, the tumour simulated in it, and the head displaced by the tumour; no confounders yet."""
    spacing, device = anatomy.spacing_mm, rng.torch_rng.device
    template = torch.as_tensor(anatomy.tissue, device=device).float()[None]
    shape = tuple(n + 2 * p for n, p in zip(anatomy.tissue.shape, _padding(spacing), strict=True))
    template = torch.nn.functional.pad(template, (1,) * 6)
    nodes, coarse_mm = _coarse(shape, spacing)
    where = place(recipe.pose, shape, spacing, shape_of(template), nodes).to(device)
    flow = pose_velocity(rng, recipe.pose, sample(template, where, "nearest")[0], coarse_mm)
    first = _compose(where, integrate(flow))
    before = sample(template, first, "nearest")[0].round()
    cells = grow_cells(rng, recipe.glioma, before, coarse_mm)
    first = _compose(first, integrate(push(recipe.glioma, cells, before, coarse_mm)))
    after = sample(template, first, "nearest")[0].round()
    water = infiltrate(rng, recipe.glioma, cells, after, coarse_mm)
    tissue = sample(template, resize(first, shape), "nearest")[0].round().to(torch.uint8)
    return _with_tumour(rng, recipe, tissue, resize(torch.stack([cells, water]), shape), spacing)


def _with_tumour(rng: RandomStreams, recipe: Recipe, tissue: Tensor, spread: Tensor, spacing: Millimetres) -> Scene:
    box = _box(spread.max(dim=0).values > 0.1, spacing)
    cells, water = spread[0][box], spread[1][box]
    lesions: Lesions = render_labels(rng, recipe.glioma, cells, water, tissue[box], spacing)
    nothing = torch.zeros_like(tissue)
    share = nothing.float()
    cortex = (tissue == Tissue.CEREBELLAR_GREY).float()
    return Scene(tissue, nothing, share, share, cortex, share, lesions, box, spacing)


def _compose(first: Tensor, displacement: Tensor) -> Tensor:
    """The map (3, d, h, w) that goes by `displacement` and then by `first`."""
    return sample(first, grid(shape_of(first), first.device) + displacement)


def _coarse(shape: Shape, spacing_mm: Millimetres) -> tuple[Shape, Millimetres]:
    """Nodes of the coarse grid over a shape, and their spacing, never finer than the grid itself."""
    d, h, w = (min(n, round((n - 1) * s / COARSE_MM) + 1) for n, s in zip(shape, spacing_mm, strict=True))
    z, y, x = (s * (n - 1) / (k - 1) for n, k, s in zip(shape, (d, h, w), spacing_mm, strict=True))
    return (d, h, w), (z, y, x)


def _padding(spacing_mm: Millimetres) -> tuple[int, int, int]:
    d, h, w = (round(MARGIN_MM / s) for s in spacing_mm)
    return d, h, w


def _box(mask: Tensor, spacing_mm: Millimetres) -> tuple[slice, slice, slice]:
    """Slices around a mask (D, H, W) with 6 mm of room."""
    found = []
    for axis, step in enumerate(spacing_mm):
        hits = torch.nonzero(mask.amax(dim=tuple({0, 1, 2} - {axis}))).ravel()
        room = round(6 / step)
        found.append(slice(max(0, int(hits[0]) - room), int(hits[-1]) + 1 + room))
    return found[0], found[1], found[2]


def _acquire(image: Tensor, gain: float) -> np.ndarray:
    """An image (D, H, W) as a file holds it: int16, the brain at least 1."""
    stored = (image * gain).clamp(max=CODED)
    return torch.where(image > 0, stored.clamp(min=1), 0).to(torch.int16).cpu().numpy()
