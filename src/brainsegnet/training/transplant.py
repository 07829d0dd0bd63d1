"""Real lesions in the samples of other patients, real or simulated.

A lesion comes with the tissue around it, to about its own place in another brain or to the other side. It is turned,
mirrored, scaled and bent, and its edge is soft. In each sequence, its intensities keep their difference to the median
of the healthy brain, as shares of the range of the healthy brain on that side. As in `augment`, a small record is
drawn for each sample, and a pure function applies it.

Related: CarveMix (Zhang et al., NeuroImage 2023), which pastes lesions where they were, unchanged and with hard edges.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from brainsegnet._types import Doubles, Floats, Labels, Millimetres
from brainsegnet.anatomy.procedural import rotation
from brainsegnet.training.lesion_bank import Lesion, Tissue

TRIES = 24
"""Number of places that are tried. If a lesion fits in none of them, the sample stays as it is."""
SCALE = (0.7, 1.3)
"""Range of the magnification along each axis."""
STRETCH = 0.1
"""Largest difference of the magnification along an axis from that of the lesion, as a share."""
ANGLE_DEG = 25.0
"""Largest rotation in each plane."""
ASIDE = 0.15
"""Largest distance from its own place along each axis, as a share of the box of the brain."""
EDGE = (2.0, 4.0)
"""Range of the width of the soft edge in voxels."""
BEND_MM, GRAIN_MM = 1.5, 12.0
"""Standard deviation of the deformation along each axis, half of its largest value, and the distance over which it
varies."""
IN_BRAIN, USUAL = 0.9, 0.75
"""Shares of a lesion that must lie in the brain, and replace tissue of usual intensity."""
UNUSUAL = 0.75
"""Scaled intensity beyond which tissue is unusual, as in the ventricles."""


@dataclass(frozen=True)
class Transplant:
    """Which lesion a sample gets, where, and how it is changed.

    Attributes:
        lesion: Its index among the lesions of a training.
        place: Where its middle comes to lie, in voxels (D, H, W) of the box of the brain.
        scale: Magnification along (D, H, W); negative along W if left and right are exchanged.
        angles_deg: Rotations in the planes (H, W), (D, W) and (D, H).
        edge: Width of the soft edge in voxels.
        seed: Seed of the deformation.
    """

    lesion: int
    place: tuple[float, float, float]
    scale: tuple[float, float, float]
    angles_deg: tuple[float, float, float]
    edge: float
    seed: int

    @property
    def matrix(self) -> Doubles:
        """The linear part (3, 3) of the map from millimetres (D, H, W) in the lesion to those in the sample."""
        turn = rotation(tuple(np.deg2rad(self.angles_deg)), ((1, 2), (0, 2), (0, 1)))
        return np.asarray(turn * np.array(self.scale))

    def carry(self, points_mm: Doubles, spacing_mm: Millimetres) -> Doubles:
        """Offsets (n, 3) to the middle of the lesion as places (n, 3) in voxels of the box of the brain."""
        return np.asarray(self.place + points_mm @ self.matrix.T / spacing_mm)


def draw_transplant(
    rng: np.random.Generator,
    lesions: Sequence[Lesion],
    patient: str,
    image: Floats,
    classes: Labels,
    tissue: Tissue,
    spacing_mm: Millimetres,
) -> Transplant | None:
    """Draw a lesion of another patient, and a place for it in a scan (C, D, H, W) with its classes (D, H, W).

    Patients count alike, and the lesions of a patient by the cube root of their volumes.

    Returns:
        None if no lesion is of another patient, or if no place was found.
    """
    others = sorted({lesion.patient for lesion in lesions} - {patient})
    if not others:
        return None
    chosen = others[rng.integers(len(others))]
    own = [i for i, lesion in enumerate(lesions) if lesion.patient == chosen]
    sizes = np.cbrt([lesions[i].volume_mm3 for i in own])
    number = own[rng.choice(len(own), p=sizes / sizes.sum())]
    points_mm = np.concatenate(lesions[number].points_mm)
    for _ in range(TRIES):
        drawn = _draw_place(rng, number, lesions[number], classes.shape)
        if _fits(np.rint(drawn.carry(points_mm, spacing_mm)).astype(np.int64), image, classes, tissue):
            return drawn
    return None


def _draw_place(rng: np.random.Generator, number: int, lesion: Lesion, shape: tuple[int, ...]) -> Transplant:
    mirrored = rng.random() < 0.5
    where = np.array(lesion.where)
    if mirrored:
        where[2] = 1 - where[2]
    d, h, w = ((where + rng.uniform(-ASIDE, ASIDE, 3)) * shape - 0.5).tolist()
    z, y, x = (rng.uniform(*SCALE) * rng.uniform(1 - STRETCH, 1 + STRETCH, 3)).clip(*SCALE).tolist()
    a, b, c = rng.uniform(-ANGLE_DEG, ANGLE_DEG, 3).tolist()
    edge, seed = float(rng.uniform(*EDGE)), int(rng.integers(2**31))
    return Transplant(number, (d, h, w), (z, y, -x if mirrored else x), (a, b, c), edge, seed)


def _fits(voxels: NDArray[np.int64], image: Floats, classes: Labels, tissue: Tissue) -> bool:
    """Whether a lesion at these voxels (n, 3) lies in the brain, on no other lesion, and in usual tissue."""
    inside = ((voxels >= 0) & (voxels < classes.shape)).all(1)
    if inside.mean() < IN_BRAIN:
        return False
    d, h, w = voxels[inside].T
    if classes[d, h, w].any():
        return False
    values = image[:, d, h, w]
    brain = (values != 0).any(0)
    usual = brain & (np.abs(tissue.scale(values)) < UNUSUAL).all(0)
    return bool(brain.sum() >= IN_BRAIN * len(voxels) and usual.sum() >= USUAL * len(voxels))


def transplant(
    image: Tensor,
    classes: Tensor,
    begin: Sequence[int],
    lesion: Lesion,
    how: Transplant,
    tissue: Tissue,
    spacing_mm: Millimetres,
) -> None:
    """Put a lesion into a part of a scan, in place. Outside the brain and on other lesions nothing changes.

    Args:
        image: Intensities (C, D, H, W), contiguous, 0 outside the brain.
        classes: Classes (D, H, W), contiguous.
        begin: First voxel (D, H, W) of the part in the box of the brain.
        lesion: The lesion.
        how: Where it comes to lie, and how it is changed.
        tissue: The healthy brain of the scan.
        spacing_mm: Distances between the voxels of the scan along (D, H, W).
    """
    region = _find_region(classes.shape, begin, lesion, how, spacing_mm)
    if region is None:
        return
    first = np.array(begin) + [part.start for part in region]
    sizes = [part.stop - part.start for part in region]
    places = _trace_back(lesion, how, first, sizes, spacing_mm, image.device)
    reach = how.edge + 2 * BEND_MM / min(lesion.spacing_mm)
    near = lesion.layers[-1].take(_nearest(places, lesion)) < reach
    near &= (image[0][region] != 0) & (classes[region] == 0)
    chosen = near.flatten().nonzero()[:, 0]
    places = _bend(places.flatten(1).index_select(1, chosen), how.seed, lesion)
    layers = _interpolate(lesion.layers, places)
    weight = (1 - layers[-1] / how.edge).clamp(0, 1)
    voxels = torch.arange(classes.numel(), device=image.device).view(classes.shape)[region].flatten()[chosen]
    values, truth = image.view(len(image), -1), classes.view(-1)
    before = values.index_select(1, voxels)
    values.index_copy_(1, voxels, before + weight * (tissue.unscale(layers[:-1]) - before))
    own = torch.where(weight >= 0.5, lesion.classes.take(_nearest(places, lesion)), 0)
    truth.index_copy_(0, voxels, own)


def _find_region(
    shape: Sequence[int], begin: Sequence[int], lesion: Lesion, how: Transplant, spacing_mm: Millimetres
) -> tuple[slice, slice, slice] | None:
    """The voxels of a grid (D, H, W) that a lesion and its rim can reach; None if there are none."""
    half_mm = lesion.middle * lesion.spacing_mm
    corners = how.carry(np.array(list(itertools.product(*((-mm, mm) for mm in half_mm)))), spacing_mm)
    low = np.maximum(np.floor(corners.min(0)).astype(int) - begin, 0)
    high = np.minimum(np.ceil(corners.max(0)).astype(int) + 1 - begin, shape)
    d, h, w = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return (d, h, w) if (low < high).all() else None


def _trace_back(
    lesion: Lesion,
    how: Transplant,
    first: NDArray[np.int64],
    shape: Sequence[int],
    spacing_mm: Millimetres,
    device: torch.device,
) -> Tensor:
    """The place in the lesion, in its voxels, of each voxel of a grid (3, D, H, W) that begins at `first`."""
    back = np.linalg.inv(how.matrix) * spacing_mm / np.array(lesion.spacing_mm)[:, None]
    start = lesion.middle + back @ (first - how.place)
    lines = [torch.arange(n, device=device, dtype=torch.float32) for n in shape]
    z, y, x = lines[0][:, None, None], lines[1][:, None], lines[2]
    return torch.stack(
        [z * float(a) + (y * float(b) + (x * float(c) + float(m))) for (a, b, c), m in zip(back, start, strict=True)]
    )


def _nearest(places: Tensor, lesion: Lesion) -> Tensor:
    """The voxels that are nearest to places (3, ...), as indices into the flattened lesion."""
    sizes = lesion.classes.shape
    d, h, w = (p.round().clamp_(0, n - 1).int() for p, n in zip(places, sizes, strict=True))
    indices: Tensor = d.mul_(sizes[1]).add_(h).mul_(sizes[2]).add_(w)
    return indices.long()


def _bend(places: Tensor, seed: int, lesion: Lesion) -> Tensor:
    """Places (3, n) in a lesion after a smooth random displacement, linear between nodes `GRAIN_MM` apart."""
    generator = torch.Generator(places.device).manual_seed(seed)
    nodes = [2 + round(n * mm / GRAIN_MM) for n, mm in zip(lesion.classes.shape, lesion.spacing_mm, strict=True)]
    field = torch.randn((3, *nodes), generator=generator, device=places.device)
    spacing = torch.tensor(lesion.spacing_mm, device=places.device)[:, None]
    on_nodes = torch.tensor([(k - 1) / (n - 1) for k, n in zip(nodes, lesion.classes.shape, strict=True)])
    moved_mm = BEND_MM * _interpolate(field, places * on_nodes.to(places)[:, None])
    return places + moved_mm.clamp(-2 * BEND_MM, 2 * BEND_MM) / spacing


def _interpolate(layers: Tensor, places: Tensor) -> Tensor:
    """Values (C, n) of layers (C, D, H, W) at places (3, n) in voxels, linear; beyond the edge those of the edge."""
    last = torch.tensor([n - 1 for n in layers.shape[1:]]).to(places)[:, None]
    grid = (places * (2 / last) - 1).flip(0).T[None, None, None]
    found: Tensor = F.grid_sample(layers[None], grid, padding_mode="border", align_corners=True)
    return found[0, :, 0, 0]
