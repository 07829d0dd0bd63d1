"""The head of a stroke: a tissue map thinned out to what a scan shows, made another person's, and aged.

A whole case of stroke from a seed: DWI and ADC as in ISLES 2022, or the six maps of ISLES 2017.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainsegnet._types import Floats, Labels, Mask, Millimetres, Shape
from brainsegnet.anatomy.procedural import Tissue, affine_for, simulate_anatomy, smooth_noise, spacing_for
from brainsegnet.anatomy.territories import Ground, make_ground
from brainsegnet.simulation.stroke import Infarct, draw_stroke, grow_core, simulate_infarct
from brainsegnet.simulation.stroke_appearance import add_mimics, draw_diffusion, paint_flow
from brainsegnet.simulation.stroke_scanner import (
    Grid,
    acquire_diffusion,
    acquire_perfusion,
    draw_optics,
    outline,
    place_grid,
)
from brainsegnet.volume import Box, Case, LabelMap, Volume

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


StrokeTask = Literal["isles2022", "isles2017"]
DrawMap = Callable[[np.random.Generator], LabelMap]
"""Takes a map out of a library."""

FINE_SHAPE: Shape = (108, 140, 114)
"""Voxels of 1.4 mm in which a procedural head is simulated; a scan averages over them."""
FIELD_OF_VIEW_MM = 224.0
FINEST_MM = 1.35
"""A head of finer voxels is thinned out first: a scan does not show them."""


@dataclass(frozen=True)
class Library:
    """What a user may bring.

    Attributes:
        draw_head: Takes a tissue map of `anatomy.Tissue`, which is deformed; heads are simulated if None.
        draw_shape: Takes a real lesion in MNI space; all are simulated if None.
        atlas: Arterial territories in MNI space; those of `territories` if None.
    """

    draw_head: DrawMap | None = None
    draw_shape: DrawMap | None = None
    atlas: LabelMap | None = None


def simulate_stroke(
    seed: int, task: StrokeTask = "isles2022", library: Library | None = None, detail: float = 1.0
) -> Case:
    """A head with an ischaemic stroke, skull-stripped: images float32 or int16, and the lesion uint8, all (D, H, W).

    Args:
        seed: The same seed, task, library, detail and kind of processor give the same arrays, bit for bit.
        task: isles2022: dwi and adc, the lesion is the core. isles2017: adc, mtt, rcbf, rcbv, tmax, ttp, the lesion is
            the outcome.
        library: Heads, shapes and arteries from elsewhere.
        detail: Factor on the number of voxels along each axis, of head and scan; below 1 for quick trials.

    Raises:
        ImageError: a simulated head would fall below `anatomy.SMALLEST_SHAPE`.

    >>> case = simulate_stroke(3, detail=0.3)
    >>> case.name, list(case.images), np.unique(case.lesion.array).tolist()
    ('sub-strokephantom0003', ['dwi', 'adc'], [0, 1])
    """
    library = library or Library()
    for_head, for_stroke, for_mimics, for_scan = np.random.default_rng(seed).spawn(4)
    if library.draw_head:
        simulated = vary_head(for_head, coarsen(library.draw_head(for_head), FINEST_MM / detail))
    else:
        fine = _scale(FINE_SHAPE, detail)
        simulated = LabelMap(simulate_anatomy(for_head, fine), affine_for(fine, spacing_for(fine)))
    head = age_head(for_head, simulated)
    ground = make_ground(for_stroke, head, library.atlas)
    stroke = draw_stroke(for_stroke, library.draw_shape is not None)
    shape = library.draw_shape(for_stroke) if library.draw_shape and stroke.kind == "shape" else None
    name = f"sub-strokephantom{seed:04d}" if task == "isles2022" else f"phantom_{seed}"
    if task == "isles2022":
        core = grow_core(for_stroke, ground, stroke, shape)
        layers = core, add_mimics(for_mimics, ground, core)
        return _scan_diffusion(for_scan, Subject(name, head, ground, detail), layers)
    infarct = simulate_infarct(for_stroke, ground, stroke, shape)
    mimics = add_mimics(for_mimics, ground, infarct.outcome)
    return _scan_perfusion(for_scan, Subject(name, head, ground, detail), infarct, mimics)


@dataclass(frozen=True, eq=False)
class Subject:
    """Who lies in the scanner: a name, a tissue map, the ground of the stroke in it, and the detail of the scan."""

    name: str
    head: LabelMap
    ground: Ground
    detail: float

    def grid(self, rng: np.random.Generator, shape: Shape, spacing_mm: Millimetres) -> Grid:
        """A grid around the head, of a shape and a spacing but for the detail."""
        d, h, w = (step / self.detail for step in spacing_mm)
        return place_grid(rng, self.head, _scale(shape, self.detail), (d, h, w))


def _scale(shape: Shape, detail: float) -> Shape:
    d, h, w = (round(n * detail) for n in shape)
    return d, h, w


def _scan_diffusion(rng: np.random.Generator, subject: Subject, layers: tuple[Mask, Labels]) -> Case:
    """DWI and ADC; ADC in mm2/s or in 1e-3 mm2/s, as the centres of ISLES 2022 store it."""
    head, grid = subject.head, subject.grid(rng, *_draw_diffusion_grid(rng))
    optics, contrast = draw_optics(rng), draw_diffusion(rng)
    scan = acquire_diffusion(rng, head, subject.ground, layers, (grid, optics, contrast))
    seen = scan.distortion.follow(layers[0], head.array > 0)
    lesion = outline(rng, seen, head, (grid, scan.brain), optics.faults.jolt)
    gain = float(np.exp(rng.uniform(np.log(150), np.log(1500)))) / max(float(np.median(scan.dwi[scan.brain])), 1e-6)
    unit = (1e-6, 1e-3)[int(rng.integers(2))]
    images = {"dwi": scan.dwi * gain, "adc": scan.adc * unit}
    return Case(subject.name, {s: _stripped(image, scan.brain, grid) for s, image in images.items()}, lesion)


def _draw_diffusion_grid(rng: np.random.Generator) -> tuple[Shape, Millimetres]:
    """73 slices of 112 x 112 voxels of 2 mm, or in one case of five fewer and thicker slices."""
    if rng.random() < 0.8:
        return (73, 112, 112), (2.0, 2.0, 2.0)
    thick, pixel = float(rng.uniform(3, 6)), float(rng.uniform(1.1, 2.0))
    side = round(FIELD_OF_VIEW_MM / pixel)
    return (round(150 / thick), side, side), (thick, pixel, pixel)


def _stripped(image: Floats, brain: Mask, grid: Grid) -> Volume:
    return Volume(np.where(brain, np.maximum(image, image[brain].max() * 1e-6), 0).astype(np.float32), grid.affine)


def _scan_perfusion(rng: np.random.Generator, subject: Subject, infarct: Infarct, mimics: Labels) -> Case:
    """The six maps on a grid of thick slices; perfusion is blurred more than diffusion."""
    pixel, thick = float(rng.uniform(1.0, 1.2)), float(rng.uniform(5, 6.5))
    side = round(rng.uniform(215, 235) / pixel)
    head, ground = subject.head, subject.ground
    grid = subject.grid(rng, (round(rng.uniform(125, 145) / thick), side, side), (thick, pixel, pixel))
    optics, contrast = draw_optics(rng), draw_diffusion(rng)
    scan = acquire_diffusion(rng, head, ground, (infarct.core, mimics), (grid, optics, contrast))
    maps = acquire_perfusion(rng, head, paint_flow(rng, ground, infarct), (grid, optics, scan.distortion))
    if rng.random() < 0.2:
        wet = maps["rcbf"] < np.quantile(maps["rcbf"][scan.brain], rng.uniform(0.01, 0.06))
        maps = {sequence: np.where(wet, 0, image) for sequence, image in maps.items()}
    lesion = outline(rng, infarct.outcome, head, (grid, scan.brain))
    images = {"adc": scan.adc, **maps}
    return Case(subject.name, {s: _stripped(image, scan.brain, grid) for s, image in images.items()}, lesion)
