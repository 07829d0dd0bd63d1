"""Gliomas simulated from a seed: a core that pushes the brain aside, and oedema that follows the white matter.

Tissues are taken by rank: the voxels that a field favours most, as many as were drawn. So each of the four tissues is
there in every tumour, whatever the noise. Labels are those of BRATS 2015.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy import ndimage

from brainsegnet._types import Floats, Labels, Mask, Millimetres, Shape
from brainsegnet.anatomy.procedural import Tissue, axes_mm, shape_of, smooth_noise
from brainsegnet.volume import Box

FEWEST_VOXELS = 64
"""Each tissue has at least as many."""
REACH = 3.0
"""The tumour displaces nothing beyond this multiple of the radius of its mass."""


class Lesion(IntEnum):
    """Labels of BRATS 2015."""

    NONE = 0
    NECROSIS = 1
    OEDEMA = 2
    NON_ENHANCING = 3
    ENHANCING = 4


@dataclass(frozen=True)
class Tumour:
    """The random part of a tumour, its noise excepted.

    Attributes:
        centre: Voxel (D, H, W) in the white matter.
        necrosis: Number of voxels of this tissue, and so for the other three.
        oedema: As `necrosis`.
        non_enhancing: As `necrosis`.
        enhancing: As `necrosis`.
        push: Largest displacement as a share of the radius of the mass, below 4/9 so that nothing folds over.
        roughness: Amplitude of the noise on the surface of the core, as a share of its radius.
    """

    centre: tuple[int, int, int]
    necrosis: int
    oedema: int
    non_enhancing: int
    enhancing: int
    push: float
    roughness: float

    @property
    def core(self) -> int:
        """Voxels of the core: all but the oedema."""
        return self.necrosis + self.non_enhancing + self.enhancing

    def mass_radius_mm(self, spacing_mm: Millimetres) -> float:
        """Radius of a ball as large as what takes up space: the core and a third of the oedema, which is water."""
        return _ball_radius_mm(self.core + self.oedema / 3, spacing_mm)


@dataclass(frozen=True, eq=False)
class Growth:
    """What a tumour leaves behind, both (D, H, W): the displaced anatomy, and the labels that lie over it."""

    anatomy: Labels
    lesion: Labels


def draw_tumour(rng: np.random.Generator, anatomy: Labels, spacing_mm: Millimetres) -> Tumour:
    """A tumour in the white matter of a hemisphere, 1.5 to 11 % of the brain in all.

    Args:
        rng: Gives all that is random.
        anatomy: Labels (D, H, W) of a head, as `simulate_anatomy` gives them.
        spacing_mm: Distance between voxel centres along (D, H, W).
    """
    brain = int(np.count_nonzero(anatomy))
    whole = brain * np.exp(rng.uniform(np.log(0.015), np.log(0.11)))
    core = whole * rng.uniform(0.3, 0.6)
    shares = rng.dirichlet([6, 6, 9]) * 0.7 + 0.1
    necrosis, non_enhancing, enhancing = (max(FEWEST_VOXELS, int(core * share)) for share in shares)
    return Tumour(
        centre=_draw_centre(rng, anatomy, spacing_mm),
        necrosis=necrosis,
        oedema=max(FEWEST_VOXELS, int(whole - core)),
        non_enhancing=non_enhancing,
        enhancing=enhancing,
        push=float(rng.uniform(0.16, 0.38)),
        roughness=float(rng.uniform(0.18, 0.32)),
    )


def _draw_centre(rng: np.random.Generator, anatomy: Labels, spacing_mm: Millimetres) -> tuple[int, int, int]:
    """A voxel (D, H, W) in the white matter: the wider the white matter around, the likelier; never on the midline."""
    z, _, x = axes_mm(shape_of(anatomy), spacing_mm)
    white = anatomy == Tissue.WHITE
    wide = ndimage.gaussian_filter(white.astype(np.float32), [4 / step for step in spacing_mm], truncate=2)
    weight = np.where(white & (np.abs(x) > 18) & (np.abs(x) < 50) & (z > -20), wide**2, 0).ravel().astype(np.float64)
    d, h, w = np.unravel_index(rng.choice(weight.size, p=weight / weight.sum()), anatomy.shape)
    return int(d), int(h), int(w)


def grow_tumour(rng: np.random.Generator, anatomy: Labels, spacing_mm: Millimetres) -> Growth:
    """A tumour of the four BRATS 2015 tissues in a tissue map (D, H, W), and the map pushed aside by it."""
    tumour = draw_tumour(rng, anatomy, spacing_mm)
    distance = _distance_mm(shape_of(anatomy), tumour.centre, spacing_mm)
    displaced = displace(anatomy, tumour, spacing_mm)
    near = Box.around(distance < 2.2 * _ball_radius_mm(tumour.core + tumour.oedema, spacing_mm)).slices
    lesion = np.zeros_like(anatomy)
    core = _grow_core(rng, displaced[near], distance[near], tumour, spacing_mm)
    lesion[near] = _grow_oedema(rng, displaced[near], core, tumour.oedema, spacing_mm)
    return Growth(displaced, lesion)


def _ball_radius_mm(voxels: float, spacing_mm: Millimetres) -> float:
    return float(np.cbrt(voxels * np.prod(spacing_mm) * 3 / (4 * np.pi)))


def _distance_mm(shape: Shape, centre: tuple[int, int, int], spacing_mm: Millimetres) -> Floats:
    """Distance (D, H, W) of each voxel to a voxel, in millimetres."""
    offsets = [
        ((np.arange(n) - c) * step).astype(np.float32) for n, c, step in zip(shape, centre, spacing_mm, strict=True)
    ]
    z, y, x = np.ix_(*offsets)
    return np.asarray(np.sqrt(z**2 + y**2 + x**2), np.float32)


def displace(anatomy: Labels, tumour: Tumour, spacing_mm: Millimetres) -> Labels:
    """The anatomy (D, H, W) pushed outwards from the centre of a tumour; beyond `REACH` radii nothing moves.

    A voxel at t radii takes the tissue from 9/4 push t (1 - t/3)^2 radii further in, which is most at one radius. The
    skull does not yield: the push fades towards the surface, and the outline of the head stays as it was.
    """
    radius_mm = tumour.mass_radius_mm(spacing_mm)
    distance = _distance_mm(shape_of(anatomy), tumour.centre, spacing_mm)
    box = Box.around(distance < REACH * radius_mm)
    outline = (anatomy != Tissue.BACKGROUND).astype(np.float32)
    yielding = np.clip(2 * ndimage.gaussian_filter(outline[box.slices], [5 / s for s in spacing_mm]) - 1, 0, 1)
    share = np.maximum(0, 1 - distance[box.slices] / (REACH * radius_mm)) ** 2
    index = np.indices(box.shape, dtype=np.float32)
    away = np.array([c - a for c, a in zip(tumour.centre, box.start, strict=True)], np.float32)[:, None, None, None]
    source = index - (index - away) * (9 / 4 * tumour.push * share * yielding)
    pulled = ndimage.map_coordinates(anatomy[box.slices], source, order=0, mode="nearest")
    before, after = anatomy[box.slices], anatomy.copy()
    pulled = np.where(pulled == Tissue.BACKGROUND, before, pulled)
    after[box.slices] = np.where(before == Tissue.BACKGROUND, before, pulled)
    return after


def _foremost(favour: Floats, among: Mask, count: int) -> Mask:
    """The `count` voxels of `among` that `favour` (D, H, W) ranks highest, or all if there are fewer."""
    candidates = np.flatnonzero(among)
    chosen = np.zeros(among.shape, np.bool_)
    if count >= candidates.size:
        return among.copy()
    order = np.argpartition(-favour.ravel()[candidates], count - 1)
    chosen.flat[candidates[order[:count]]] = True
    return chosen


def _grow_core(
    rng: np.random.Generator,
    anatomy: Labels,
    distance_mm: Floats,
    tumour: Tumour,
    spacing_mm: Millimetres,
) -> Labels:
    """Necrosis within an enhancing rim, and non-enhancing tumour on one side of both, as labels (D, H, W).

    Ventricles stop the core, and the fluid between gyri hinders it.
    """
    shape, radius_mm = shape_of(anatomy), _ball_radius_mm(tumour.core, spacing_mm)
    bumps, holes, sides = (radius_mm * smooth_noise(rng, shape, spacing_mm, f * radius_mm) for f in (0.4, 0.3, 0.55))
    hindered = np.isin(anatomy, (Tissue.CSF, Tissue.HINDBRAIN_WHITE, Tissue.CEREBELLAR_GREY))
    favour = -distance_mm + tumour.roughness * bumps - 0.2 * radius_mm * hindered
    open_ground = ~np.isin(anatomy, (Tissue.BACKGROUND, Tissue.VENTRICLE))
    core = _foremost(favour, open_ground, tumour.core)
    depth = radius_mm * ndimage.binary_erosion(core)
    necrosis = _foremost(favour + 0.22 * holes + depth, core, tumour.necrosis)
    rim = ~necrosis & ndimage.binary_dilation(necrosis) & core
    enhancing = _foremost(favour + 0.4 * sides + 2 * radius_mm * rim, core & ~necrosis, tumour.enhancing)
    return np.select(
        [necrosis, enhancing, core], [Lesion.NECROSIS, Lesion.ENHANCING, Lesion.NON_ENHANCING], Lesion.NONE
    ).astype(np.uint8)


def _grow_oedema(
    rng: np.random.Generator, anatomy: Labels, core: Labels, count: int, spacing_mm: Millimetres
) -> Labels:
    """The core and the oedema around it, as labels (D, H, W).

    Water seeps from the core step by step, fast through white matter, slowly through grey, through fluid not at all;
    noise on the speed makes fingers.
    """
    speed = np.array([0, 0, 0.3, 1, 0, 0.45, 0.1, 0.3], np.float32)[anatomy]
    speed = np.minimum(1, speed * np.exp(0.6 * smooth_noise(rng, shape_of(anatomy), spacing_mm, 4.5) - 0.2))
    solid = core > 0
    step = [2.5 / s for s in spacing_mm]
    water = solid.astype(np.float32)
    for _ in range(10):
        water = ndimage.gaussian_filter(water, step, truncate=2) * speed
        water[solid] = 1
    wet = _foremost(water, (water > 0) & ~solid, count)
    return np.where(wet, np.uint8(Lesion.OEDEMA), core)
