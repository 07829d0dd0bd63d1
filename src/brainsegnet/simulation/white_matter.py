"""White matter lesions as in multiple sclerosis: where they lie, how large they are, and what they contain.

Most lesions are ovoids. They touch the ventricles with the long axis along the small veins, perpendicular to the wall;
lie along the cortex; lie in deep white matter; or lie below the tentorium (Filippi et al., Brain 2019; Thompson et al.,
Lancet Neurology 2018). A high load is confluent around the ventricles. Numbers and volumes are as in Lesjak et al.
(Neuroinformatics 2018), whose 30 patients have about 100 lesions and 19 ml each. All lesions have one label.
"""

from dataclasses import dataclass
from enum import IntEnum
from math import exp

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from brainsegnet._types import Array, Doubles, Floats, Mask, Millimetres
from brainsegnet.anatomy.procedural import Tissue, ball_radius_mm, log_uniform
from brainsegnet.simulation.fields import RandomStreams, blur, column, grid, noise, resize

MOST_OVOIDS = 150
SMALLEST_MM3, LARGEST_MM3 = 14.0, 3000.0
"""Volumes of ovoids; the smallest is a ball of 3 mm, below which lesions are not counted."""
LEAST_LABEL_MM3 = 4.0
"""Connected components of the label that are smaller are removed."""
NEAR_MM = 2.5
"""Ovoids of the wall of a ventricle or of the cortex start from white matter within this distance."""
FAR_MM = 5.0
"""Deep white matter is farther away from the ventricles."""
INFRATENTORIAL_MM3 = 400.0
"""Largest volume of an ovoid below the tentorium."""
REACH_MM = 22.0
"""Confluent lesions end nearer to the ventricles than this."""


class Site(IntEnum):
    """Where a lesion lies, in the words of the McDonald criteria; `DEEP` is the rest of the white matter."""

    PERIVENTRICULAR = 0
    JUXTACORTICAL = 1
    DEEP = 2
    INFRATENTORIAL = 3


INWARDS = {Site.PERIVENTRICULAR: 0.8, Site.JUXTACORTICAL: 0.6}
"""Distance of the centre of an ovoid from the wall or the cortex that it touches, in radii along its first axis."""


class Content(IntEnum):
    """What a voxel of a lesion contains."""

    NONE = 0
    PLAQUE = 1
    BLACK_HOLE = 2
    ENHANCING = 3


@dataclass(frozen=True)
class WhiteMatterDisease:
    """Parameters of all lesions of a head."""

    ovoids_ml: float  # volume of the ovoids together, 0 for none
    confluent_ml: float  # volume of confluent lesions around the ventricles, 0 for none
    sites: tuple[float, float, float, float]  # share of the ovoids at each `Site`
    typical_mm3: float  # median volume of an ovoid
    spread: float  # standard deviation of the logarithm of that volume
    faint: float  # contrast of the faintest lesions relative to the strongest
    holes: float  # share of the lesions that are black holes
    enhancing: int  # number of enhancing ovoids
    roughness: float  # amplitude of the irregularity of outlines
    edge_mm: float  # width of the border of a lesion
    outline: float  # share of a lesion in a voxel, from which the reader draws it
    halo: float  # contrast of the diffusely abnormal white matter around lesions, which is not labelled


@dataclass(frozen=True, eq=False)
class Ovoid:
    """An ellipsoid. Positions and directions are (z, y, x), in mm from the first voxel of the head."""

    centre_mm: Doubles  # (3,)
    axes: Doubles  # (3, 3), a unit vector in each row
    radii_mm: Doubles  # (3,), along these
    content: Content = Content.PLAQUE
    hollow: float = 0.0  # share of the radius inside which a lesion does not enhance
    strength: float = 1.0  # contrast, 0 to 1


@dataclass(frozen=True, eq=False)
class Ground:
    """Where lesions may lie, on every second voxel or so of a head, all (d, h, w)."""

    tissue: Array  # `Tissue`
    spacing_mm: Millimetres
    to_ventricle_mm: Floats
    to_cortex_mm: Floats

    def direction(self, distance_mm: Floats, at: Array) -> Doubles:
        """Unit vector (3,) along which a distance rises at an index (3,); upwards where it is even."""
        rise = np.zeros(3)
        for axis, n in enumerate(distance_mm.shape):
            one, other = at.copy(), at.copy()
            one[axis], other[axis] = min(at[axis] + 1, n - 1), max(at[axis] - 1, 0)
            rise[axis] = (distance_mm[tuple(one)] - distance_mm[tuple(other)]) / self.spacing_mm[axis]
        length = float(np.linalg.norm(rise))
        return rise / length if length > 1e-6 else np.array([1.0, 0.0, 0.0])


def draw_disease(rng: np.random.Generator) -> WhiteMatterDisease:
    """Draw the disease of a head: 0.2 to 60 ml of lesions, confluent where they are many; none in one head of 16."""
    load_ml = log_uniform(rng, 0.2, 60) if rng.random() > 1 / 16 else 0.0
    merged = rng.random() < min(0.9, load_ml / 12)
    confluent = load_ml * rng.uniform(0.25, 0.85) if merged else 0.0
    typical_mm3, spread = log_uniform(rng, 25, 90), rng.uniform(0.8, 1.3)
    mean_ml = typical_mm3 * exp(spread**2 / 2) / 1000
    return WhiteMatterDisease(
        ovoids_ml=min(load_ml - confluent, MOST_OVOIDS * mean_ml),
        confluent_ml=confluent,
        sites=tuple(rng.dirichlet(10 * np.array([0.36, 0.24, 0.32, 0.08]))),
        typical_mm3=typical_mm3,
        spread=spread,
        faint=rng.uniform(0.55, 0.95),
        holes=rng.uniform(0, 0.4),
        enhancing=int(rng.integers(1, 5)) if rng.random() < 0.35 else 0,
        roughness=rng.uniform(0.08, 0.3),
        edge_mm=log_uniform(rng, 0.8, 3.0),
        outline=rng.uniform(0.35, 0.65),
        halo=rng.uniform(0, 0.3) if rng.random() < 0.6 else 0.0,
    )


def survey(tissue: Tensor, spacing_mm: Millimetres) -> Ground:
    """The ground (d, h, w) of a head (D, H, W) of `Tissue`."""
    skip = 2 if max(spacing_mm) < 1.5 else 1
    few = tissue[::skip, ::skip, ::skip].cpu().numpy()
    z, y, x = (skip * s for s in spacing_mm)
    return Ground(few, (z, y, x), *(_distance(few == kind, (z, y, x)) for kind in (Tissue.VENTRICLE, Tissue.GREY)))


def _distance(mask: Mask, spacing_mm: Millimetres) -> Floats:
    """Distance (d, h, w) from a mask in mm; far everywhere if it is empty."""
    if not mask.any():
        return np.full(mask.shape, 1000, np.float32)
    return np.asarray(ndimage.distance_transform_edt(~mask, spacing_mm), np.float32)


def scatter_ovoids(rng: np.random.Generator, disease: WhiteMatterDisease, ground: Ground) -> list[Ovoid]:
    """Draw the ovoids of a disease, until they have its volume or there are `MOST_OVOIDS`."""
    places = {site: np.argwhere(mask) for site, mask in find_sites(ground).items()}
    shares = np.array([share * bool(len(places[site])) for site, share in zip(Site, disease.sites, strict=True)])
    found: list[Ovoid] = []
    left_mm3 = 1000 * disease.ovoids_ml
    while left_mm3 > 0 and len(found) < MOST_OVOIDS and shares.sum() > 0:
        site = Site(int(rng.choice(len(Site), p=shares / shares.sum())))
        most_mm3 = INFRATENTORIAL_MM3 if site is Site.INFRATENTORIAL else LARGEST_MM3
        drawn_mm3 = disease.typical_mm3 * exp(disease.spread * rng.normal())
        volume_mm3 = float(np.clip(drawn_mm3, SMALLEST_MM3, max(min(most_mm3, left_mm3), SMALLEST_MM3)))
        at = places[site][int(rng.integers(len(places[site])))]
        content = Content.BLACK_HOLE if rng.random() < disease.holes else Content.PLAQUE
        content = Content.ENHANCING if len(found) < disease.enhancing else content
        found.append(draw_ovoid(rng, site, at, ground, (volume_mm3, content, rng.uniform(disease.faint, 1))))
        left_mm3 -= volume_mm3
    return found


def find_sites(ground: Ground) -> dict[Site, Mask]:
    """Where ovoids of each site start (d, h, w); not in the thin white matter between the folia of the cerebellum."""
    white = ground.tissue == Tissue.WHITE
    wall, rim = ground.to_ventricle_mm, ground.to_cortex_mm
    hindbrain = ground.tissue == Tissue.HINDBRAIN_WHITE
    stem = ndimage.binary_erosion(hindbrain)
    return {
        Site.PERIVENTRICULAR: white & (wall < NEAR_MM),
        Site.JUXTACORTICAL: white & (rim < NEAR_MM) & (wall > FAR_MM),
        Site.DEEP: white & (rim > NEAR_MM) & (wall > FAR_MM),
        Site.INFRATENTORIAL: stem if stem.any() else hindbrain,
    }


def draw_ovoid(
    rng: np.random.Generator, site: Site, at: Array, ground: Ground, what: tuple[float, Content, float]
) -> Ovoid:
    """Draw an ovoid of a volume in mm3, a content and a strength from the voxel `at` (3,) of a site.

    Periventricular ovoids are long perpendicular to the wall, or flat along it; juxtacortical ones follow the cortex.
    """
    volume_mm3, content, strength = what
    from_mm = ground.to_cortex_mm if site is Site.JUXTACORTICAL else ground.to_ventricle_mm
    away = ground.direction(from_mm, at)
    longer = {
        Site.PERIVENTRICULAR: rng.uniform(1.1, 2.4) if rng.random() < 0.7 else rng.uniform(0.5, 0.9),
        Site.JUXTACORTICAL: rng.uniform(0.5, 1.0),
        Site.DEEP: rng.uniform(0.9, 1.8),
        Site.INFRATENTORIAL: rng.uniform(0.8, 1.4),
    }[site]
    tilt = 0.2 if site is Site.PERIVENTRICULAR else 0.5
    axes = frame(rng, away + tilt * rng.normal(size=3))
    radius_mm, uneven = ball_radius_mm(volume_mm3), exp(rng.normal(0, 0.15))
    thick = radius_mm * longer ** (-1 / 3)
    radii_mm = np.array([radius_mm * longer ** (2 / 3), thick * uneven, thick / uneven])
    centre_mm = (at + rng.uniform(-0.5, 0.5, 3)) * ground.spacing_mm
    if site in INWARDS:
        centre_mm = centre_mm + (INWARDS[site] * radii_mm[0] - from_mm[tuple(at)]) * away
    hollow = rng.uniform(0.3, 0.7) if radius_mm > 3 and rng.random() < 0.5 else 0.0
    return Ovoid(centre_mm, axes, radii_mm, content, hollow, strength)


def frame(rng: np.random.Generator, first: Doubles) -> Doubles:
    """Three perpendicular unit vectors (3, 3); the first is along `first`, the others are turned about it at random."""
    columns = np.linalg.qr(np.column_stack([first, rng.normal(size=(3, 2))]))[0].T
    return np.asarray(columns * np.sign(columns[0] @ first))


@dataclass(frozen=True, eq=False)
class WhiteMatterLesions:
    """Lesions on the grid of a head, all (D, H, W)."""

    labels: Tensor  # 1 in a lesion, else 0, uint8
    contents: Tensor  # `Content`, uint8
    opacity: Tensor  # how far a lesion hides the tissue, 0 to 1; it extends a little beyond the labels


def render_lesions(
    streams: RandomStreams, disease: WhiteMatterDisease, tissue: Tensor, spacing_mm: Millimetres
) -> WhiteMatterLesions:
    """Render the lesions of a disease in a head (D, H, W) of `Tissue`; they stay in white matter."""
    ground, white = survey(tissue, spacing_mm), (tissue == Tissue.WHITE) | (tissue == Tissue.HINDBRAIN_WHITE)
    share, opacity = torch.zeros_like(tissue, dtype=torch.float32), torch.zeros_like(tissue, dtype=torch.float32)
    contents = torch.zeros_like(tissue)
    if disease.confluent_ml:
        merged = merge_lesions(streams, disease, ground, tissue, spacing_mm)
        share, opacity = merged, merged * streams.numpy_rng.uniform(max(disease.faint, 0.7), 1)
        contents[merged > 0] = int(Content.PLAQUE)
    rough = (
        0.7 * noise(streams, tissue.shape, spacing_mm, 2.5)[0] + 0.7 * noise(streams, tissue.shape, spacing_mm, 5.0)[0]
    )
    for ovoid in scatter_ovoids(streams.numpy_rng, disease, ground):
        box, reach = measure(ovoid, tissue.shape, spacing_mm, tissue.device)
        reach = reach * torch.exp(disease.roughness * rough[box])
        part = fill(reach, ovoid, disease.edge_mm) * white[box]
        stronger = part * ovoid.strength > opacity[box]
        inside = (reach < 0.9) & (reach >= (ovoid.hollow if ovoid.content is Content.ENHANCING else 0.0))
        what = torch.where(inside, int(ovoid.content), int(Content.PLAQUE)).to(torch.uint8)
        contents[box] = torch.where(stronger, what, contents[box])
        opacity[box] = torch.maximum(opacity[box], part * ovoid.strength)
        share[box] = torch.maximum(share[box], part)
    labels = remove_specks(share > disease.outline, spacing_mm).to(torch.uint8)
    if disease.halo and labels.any():
        diffuse = disease.halo * (2 * blur(labels, 5.0, spacing_mm)).clamp(0, 1) * (tissue == Tissue.WHITE)
        contents = torch.where((opacity == 0) & (diffuse > 0), int(Content.PLAQUE), contents).to(torch.uint8)
        opacity = torch.maximum(opacity, diffuse)
    return WhiteMatterLesions(labels, contents, opacity)


def merge_lesions(
    streams: RandomStreams, disease: WhiteMatterDisease, ground: Ground, tissue: Tensor, spacing_mm: Millimetres
) -> Tensor:
    """Share (D, H, W), 0 to 1, of confluent lesions: the white matter that is nearest to the ventricles, unevenly."""
    wall, rim = (
        resize(torch.from_numpy(np.minimum(mm, 40.0)).to(tissue.device)[None], tissue.shape)[0]
        for mm in (ground.to_ventricle_mm, ground.to_cortex_mm)
    )
    coarse, middle = (noise(streams, tissue.shape, spacing_mm, grain)[0] for grain in (9.0, 3.5))
    away_mm = wall + 3.5 * coarse + 1.6 * middle + 2.5 * (3.0 - rim).clamp(min=0)
    open_to = (tissue == Tissue.WHITE) & (wall < REACH_MM)
    places = away_mm[open_to]
    count = min(int(1000 * disease.confluent_ml / float(np.prod(spacing_mm))), len(places) // 2)
    if not count:
        return torch.zeros_like(wall)
    level = places.kthvalue(count).values
    return (0.5 + (level - away_mm) / disease.edge_mm).clamp(0, 1) * open_to


def measure(
    ovoid: Ovoid, shape: torch.Size, spacing_mm: Millimetres, device: torch.device
) -> tuple[tuple[slice, slice, slice], Tensor]:
    """Slices around an ovoid in a head, and the distance of each voxel from its centre there: 1 on the surface."""
    room = 1.7 * ovoid.radii_mm.max() + 2 * max(spacing_mm)
    bounds = [
        (max(0, int((c - room) / s)), min(n, int((c + room) / s) + 2))
        for c, s, n in zip(ovoid.centre_mm, spacing_mm, shape, strict=True)
    ]
    box = tuple(slice(min(a, n), max(a, b)) for (a, b), n in zip(bounds, shape, strict=True))
    first = column([float(part.start) for part in box], device)
    at_mm = (grid([part.stop - part.start for part in box], device) + first) * column(spacing_mm, device)
    offset_mm = at_mm - column(ovoid.centre_mm.tolist(), device)
    scaled = torch.from_numpy(ovoid.axes / ovoid.radii_mm[:, None]).float().to(device)
    return box, torch.tensordot(scaled, offset_mm, 1).square().sum(0).sqrt()  # type: ignore[return-value]


def fill(reach: Tensor, ovoid: Ovoid, edge_mm: float) -> Tensor:
    """Share of each voxel that an ovoid fills, 0 to 1, from the distances of `measure`."""
    size_mm = float(np.cbrt(ovoid.radii_mm.prod()))
    return (0.5 + (1 - reach) * size_mm / min(edge_mm, size_mm)).clamp(0, 1)


def remove_specks(mask: Tensor, spacing_mm: Millimetres) -> Tensor:
    """A mask (D, H, W) without connected components of less than `LEAST_LABEL_MM3`."""
    parts, _ = ndimage.label(mask.cpu().numpy(), np.ones((3, 3, 3)))
    large = np.bincount(parts.ravel()) * float(np.prod(spacing_mm)) >= LEAST_LABEL_MM3
    large[0] = False
    return torch.from_numpy(large[parts]).to(mask.device)
