"""The head of a stroke: a tissue map thinned out to what a scan shows, made another person's, and aged."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainsegnet.synthesis.anatomy import Millimetres, Tissue
from brainsegnet.synthesis.tumour import smooth_noise
from brainsegnet.volume import Box, LabelMap

MARGIN_MM = 6.0
"""Around the brain in a thinned head, for the fluid about it."""
SWAY_MM = ((28.0, 1.0, 3.5), (11.0, 0.3, 1.2))
"""Grain of a deformation, and the range of its amplitude (standard deviation): lobes, and gyri."""
FARTHEST_MM = 14.0
"""What is moved farther than this may leave the map."""
SKIP = 3
"""The deformation of a head is computed at every so many voxels."""
HALVINGS = 6
"""A flow is divided by 2 to this power, then the step is doubled as often."""
Fields = NDArray[np.floating[Any]]


def coarsen(head: LabelMap, finest_mm: float) -> LabelMap:
    """A tissue map cropped to its brain and a margin, its voxels no finer than `finest_mm`; labels of the nearest.

    >>> coarsen(LabelMap(np.ones((20, 20, 9), np.uint8), np.diag([0.5, 0.5, 3.0, 1.0])), 1.0).shape
    (22, 22, 13)
    """
    step = np.maximum(finest_mm / np.array(head.spacing_mm), 1)
    box, margin = Box.around(head.array), np.ceil(MARGIN_MM / np.array(head.spacing_mm))
    first = np.array(box.start) - margin
    extent = np.array(box.shape) + 2 * margin
    d, h, w = (int(n) for n in np.ceil(extent / step))
    array = ndimage.affine_transform(head.array, step, first, (d, h, w), order=0)
    affine = head.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ first
    affine[:3, :3] *= step
    return LabelMap(array, affine)


def vary_head(rng: np.random.Generator, head: LabelMap) -> LabelMap:
    """A tissue map mirrored or not, a little larger or smaller, its lobes and gyri moved by a smooth diffeomorphism.

    As for gliomas (`warp`), but for turns, which the grid of the scan brings. The map (D, H, W) is cut to the new brain
    and a margin.
    """
    room = [int(np.ceil(FARTHEST_MM / step)) for step in head.spacing_mm]
    array, across = np.pad(head.array, [(n, n) for n in room]), int(np.argmax(np.abs(head.affine[0, :3])))
    if rng.random() < 0.5:
        array = np.flip(array, across)
    affine = head.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ room
    affine[:3, :3] *= rng.uniform(0.95, 1.05) * rng.uniform(0.97, 1.03, 3)
    moved = deform(array, SKIP * integrate(draw_flow(rng, array.shape, head.spacing_mm)))
    return coarsen(LabelMap(moved, affine), finest_mm=0)


def draw_flow(rng: np.random.Generator, shape: tuple[int, ...], spacing_mm: Millimetres) -> Fields:
    """A flow (3, d, h, w) in voxels at every `SKIP` of the voxels (D, H, W), lobes moved far and gyri a little."""
    d, h, w = (int(np.ceil((n - 1) / SKIP)) + 1 for n in shape)
    deep, high, wide = (SKIP * step for step in spacing_mm)
    flow = np.zeros((3, d, h, w))
    for grain_mm, low_mm, high_mm in SWAY_MM:
        amplitude_mm = rng.uniform(low_mm, high_mm)
        for part, step in zip(flow, (deep, high, wide), strict=True):
            part += amplitude_mm / step * smooth_noise(rng, (d, h, w), (deep, high, wide), grain_mm)
    return flow


def integrate(flow: Fields) -> Fields:
    """The displacement (3, d, h, w) at time 1 of a steady flow, in voxels: scaling and squaring (Arsigny 2006)."""
    here = np.indices(flow.shape[1:])
    moved: Fields = flow / 2**HALVINGS
    for _ in range(HALVINGS):
        moved = moved + np.stack(
            [ndimage.map_coordinates(part, here + moved, order=1, mode="nearest") for part in moved]
        )
    return moved


def deform(array: NDArray[Any], displacement: Fields) -> NDArray[Any]:
    """Labels (D, H, W) from where a displacement points, given in voxels (3, d, h, w) at every `SKIP` of them."""
    full = [
        index + ndimage.affine_transform(part, np.full(3, 1 / SKIP), output_shape=array.shape, order=1, mode="nearest")
        for index, part in zip(np.ogrid[tuple(slice(n) for n in array.shape)], displacement, strict=True)
    ]
    return np.asarray(ndimage.map_coordinates(array, np.stack(full), order=0, mode="constant"))


def age_head(rng: np.random.Generator, head: LabelMap) -> LabelMap:
    """A head with a shell of fluid around the brain, and with cortex and ventricles thinned by age, by chance.

    The brain shrinks from every border to fluid, where noise says so; what is left keeps its label.
    """
    spacing = head.spacing_mm
    tissue = head.array.copy()
    brain = ndimage.gaussian_filter((tissue > 0).astype(np.float32), [2.2 / s for s in spacing], truncate=2.5)
    rim = rng.uniform(0.2, 0.6) + 0.1 * smooth_noise(rng, head.shape, spacing, 18.0)
    tissue[(tissue == 0) & (brain > np.maximum(rim, 0.1))] = Tissue.CSF
    patchy = 0.06 * smooth_noise(rng, head.shape, spacing, 14.0)
    for fluid, solid, loss in (
        (Tissue.CSF, (Tissue.GREY, Tissue.CEREBELLAR_GREY), rng.uniform(0, 0.3)),
        (Tissue.VENTRICLE, (Tissue.WHITE, Tissue.DEEP_GREY), rng.uniform(0, 0.38) * (rng.random() < 0.6)),
    ):
        wet = ndimage.gaussian_filter((tissue == fluid).astype(np.float32), [1.6 / s for s in spacing], truncate=2.5)
        tissue[np.isin(tissue, solid) & (wet + patchy > 0.6 - loss)] = fluid
    return LabelMap(tissue, head.affine)
