"""Whole cases of ischaemic stroke from a seed: DWI and ADC as in ISLES 2022, or the six maps of ISLES 2017.

An anatomy is coarsened to what a scan resolves, deformed to that of another person, and aged. Then a stroke and older
lesions are simulated in it, and scanned.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from brainsegnet._types import Array, Floats, Labels, Mask, Millimetres, Shape
from brainsegnet.anatomy.procedural import DEFORMATION_MM, HALVINGS, Tissue, log_uniform, simulate_anatomy, smooth_noise
from brainsegnet.anatomy.territories import Ground, make_ground
from brainsegnet.simulation import StrokeTask
from brainsegnet.simulation.stroke import Infarct, add_mimics, draw_stroke, simulate_core, simulate_infarct
from brainsegnet.simulation.stroke_appearance import draw_diffusion, paint_flow
from brainsegnet.simulation.stroke_scanner import acquire_diffusion, acquire_perfusion, draw_scan, outline, place_grid
from brainsegnet.volume import Box, Case, LabelMap, Volume

DrawMap = Callable[[np.random.Generator], LabelMap]
"""Draws a map from a library."""
Scan = tuple[dict[str, Floats], Mask, LabelMap]
"""Images by sequence, the brain and the lesion, on one grid (D, H, W)."""
FINE_SHAPE: Shape = (108, 140, 114)
"""Voxels of 1.4 mm of a procedural anatomy; a scan averages over them."""
FINEST_MM = 1.35
"""Finer anatomies are coarsened to this spacing, which a scan does not resolve."""
FIELD_OF_VIEW_MM = 224.0
MARGIN_MM = 6.0
"""Room around the brain for fluid."""
FARTHEST_MM = 14.0
"""Room for deformation; what moves farther may leave the array."""
SKIP = 3
"""A deformation is computed at every third voxel."""


@dataclass(frozen=True)
class Library:
    """What strokes are simulated from, besides random numbers: anatomies, lesion shapes and arterial territories."""

    draw_anatomy: DrawMap | None = None  # draws an anatomical label map, to be deformed; None for procedural ones
    draw_shape: DrawMap | None = None  # draws a real lesion in MNI space; None for simulated lesions
    atlas: LabelMap | None = None  # arterial territories in MNI space; None for those of `territories`


def simulate_stroke(
    seed: int, task: StrokeTask = "isles2022", library: Library = Library(), detail: float = 1.0
) -> Case:
    """Simulate a head with an ischaemic stroke, skull-stripped: images float32 and lesion uint8, all (D, H, W).

    Args:
        seed: The same seed, task, library, detail and kind of processor give the same arrays, bit for bit.
        task: isles2022: dwi and adc, the lesion is the core. isles2017: adc, mtt, rcbf, rcbv, tmax and ttp, the lesion
            is the final infarct.
        library: Anatomies, lesion shapes and arterial territories.
        detail: Factor on the number of voxels of anatomy and scan along each axis; below 1 for quick trials.

    Raises:
        ImageError: a procedural anatomy would be below `SMALLEST_SHAPE` of `anatomy.procedural`.
    """
    for_anatomy, for_stroke, for_mimics, for_scan = np.random.default_rng(seed).spawn(4)
    if library.draw_anatomy:
        anatomy = vary_anatomy(for_anatomy, coarsen(library.draw_anatomy(for_anatomy), FINEST_MM / detail))
    else:
        d, h, w = (round(n * detail) for n in FINE_SHAPE)
        anatomy = simulate_anatomy(for_anatomy, (d, h, w))
    anatomy = age_anatomy(for_anatomy, anatomy)
    ground = make_ground(for_stroke, anatomy, library.atlas)
    stroke = draw_stroke(for_stroke, library.draw_shape is not None)
    shape = library.draw_shape(for_stroke) if library.draw_shape and stroke.kind == "shape" else None
    if task == "isles2022":
        name, core = f"sub-strokephantom{seed:04d}", simulate_core(for_stroke, ground, stroke, shape)
        lesions = core, add_mimics(for_mimics, ground, core)
        images, brain, lesion = _scan_diffusion(for_scan, anatomy, ground, lesions, detail)
    else:
        name, infarct = f"phantom_{seed}", simulate_infarct(for_stroke, ground, stroke, shape)
        mimics = add_mimics(for_mimics, ground, infarct.outcome)
        images, brain, lesion = _scan_perfusion(for_scan, anatomy, ground, infarct, mimics, detail)
    arrays = {s: np.where(brain, np.maximum(image, image[brain].max() * 1e-6), 0) for s, image in images.items()}
    return Case(name, {s: Volume(array.astype(np.float32), lesion.affine) for s, array in arrays.items()}, lesion)


def _scan_diffusion(
    rng: np.random.Generator, anatomy: LabelMap, ground: Ground, lesions: tuple[Mask, Labels], detail: float
) -> Scan:
    """DWI and ADC; the ADC in mm2/s or in 1e-3 mm2/s, as the centres of ISLES 2022 store it."""
    grid = place_grid(rng, anatomy, *_draw_diffusion_grid(rng), detail)
    params, contrast = draw_scan(rng), draw_diffusion(rng)
    scan = acquire_diffusion(rng, anatomy, ground, lesions, (grid, params, contrast))
    seen = scan.distortion.follow(lesions[0], anatomy.array > 0)
    lesion = outline(rng, seen, anatomy, (grid, scan.brain), params.faults.motion)
    gain = log_uniform(rng, 150, 1500) / max(float(np.median(scan.dwi[scan.brain])), 1e-6)
    unit = (1e-6, 1e-3)[int(rng.integers(2))]
    return {"dwi": scan.dwi * gain, "adc": scan.adc * unit}, scan.brain, lesion


def _draw_diffusion_grid(rng: np.random.Generator) -> tuple[Shape, Millimetres]:
    """73 slices of 112 x 112 voxels of 2 mm; in one case of five, fewer and thicker slices."""
    if rng.random() < 0.8:
        return (73, 112, 112), (2.0, 2.0, 2.0)
    thick, pixel = rng.uniform(3, 6), rng.uniform(1.1, 2.0)
    side = round(FIELD_OF_VIEW_MM / pixel)
    return (round(150 / thick), side, side), (thick, pixel, pixel)


def _scan_perfusion(
    rng: np.random.Generator, anatomy: LabelMap, ground: Ground, infarct: Infarct, mimics: Labels, detail: float
) -> Scan:
    """The six maps of ISLES 2017, on a grid of thick slices; perfusion is blurred more than diffusion."""
    pixel, thick = rng.uniform(1.0, 1.2), rng.uniform(5, 6.5)
    side = round(rng.uniform(215, 235) / pixel)
    shape = round(rng.uniform(125, 145) / thick), side, side
    grid = place_grid(rng, anatomy, shape, (thick, pixel, pixel), detail)
    params, contrast = draw_scan(rng), draw_diffusion(rng)
    scan = acquire_diffusion(rng, anatomy, ground, (infarct.core, mimics), (grid, params, contrast))
    maps = acquire_perfusion(rng, anatomy, paint_flow(rng, ground, infarct), (grid, params, scan.distortion))
    if rng.random() < 0.2:
        empty = maps["rcbf"] < np.quantile(maps["rcbf"][scan.brain], rng.uniform(0.01, 0.06))
        maps = {sequence: np.where(empty, 0, image) for sequence, image in maps.items()}
    lesion = outline(rng, infarct.outcome, anatomy, (grid, scan.brain))
    return {"adc": scan.adc, **maps}, scan.brain, lesion


def coarsen(anatomy: LabelMap, finest_mm: float) -> LabelMap:
    """Crop an anatomy to its brain with a margin, and resample it to voxels of `finest_mm` or more (nearest label)."""
    step = np.maximum(finest_mm / np.array(anatomy.spacing_mm), 1)
    box, margin = Box.around(anatomy.array), np.ceil(MARGIN_MM / np.array(anatomy.spacing_mm))
    first = np.array(box.start) - margin
    extent = np.array(box.shape) + 2 * margin
    d, h, w = (int(n) for n in np.ceil(extent / step))
    array = ndimage.affine_transform(anatomy.array, step, first, (d, h, w), order=0)
    affine = anatomy.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ first
    affine[:3, :3] *= step
    return LabelMap(array, affine)


def vary_anatomy(rng: np.random.Generator, anatomy: LabelMap) -> LabelMap:
    """Make an anatomy (D, H, W) that of another person: mirrored by chance, scaled, lobes and gyri deformed smoothly.

    It is rotated later, by the grid of the scan, and cropped to the new brain with a margin.
    """
    room = [int(np.ceil(FARTHEST_MM / step)) for step in anatomy.spacing_mm]
    array = np.pad(anatomy.array, [(n, n) for n in room])
    if rng.random() < 0.5:
        array = np.flip(array, int(np.argmax(np.abs(anatomy.affine[0, :3]))))
    affine = anatomy.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ room
    affine[:3, :3] *= rng.uniform(0.95, 1.05) * rng.uniform(0.97, 1.03, 3)
    moved = deform(array, SKIP * integrate(draw_velocity(rng, array.shape, anatomy.spacing_mm)))
    return coarsen(LabelMap(moved, affine), finest_mm=0)


def draw_velocity(rng: np.random.Generator, shape: tuple[int, ...], spacing_mm: Millimetres) -> Array:
    """Draw a velocity (3, d, h, w) in voxels of a grid of every `SKIP`-th voxel (D, H, W), for lobes and for gyri."""
    nodes = [int(np.ceil((n - 1) / SKIP)) + 1 for n in shape]
    deep, high, wide = (SKIP * step for step in spacing_mm)
    velocity = np.zeros((3, *nodes))
    for grain_mm, low_mm, high_mm in DEFORMATION_MM:
        amplitude_mm = rng.uniform(low_mm, high_mm)
        for part, step in zip(velocity, (deep, high, wide), strict=True):
            part += amplitude_mm / step * smooth_noise(rng, nodes, (deep, high, wide), grain_mm)
    return velocity


def integrate(velocity: Array) -> Array:
    """Displacement (3, d, h, w) in voxels at time 1 of a steady velocity: scaling and squaring (Arsigny 2006)."""
    here = np.indices(velocity.shape[1:])
    moved: Array = velocity / 2**HALVINGS
    for _ in range(HALVINGS):
        parts = [ndimage.map_coordinates(part, here + moved, order=1, mode="nearest") for part in moved]
        moved = moved + np.stack(parts)
    return moved


def deform(array: Array, displacement: Array) -> Array:
    """Labels (D, H, W) from where a displacement points, in voxels, (3, d, h, w) at every `SKIP`-th voxel."""
    full = [
        index + ndimage.affine_transform(part, np.full(3, 1 / SKIP), output_shape=array.shape, order=1, mode="nearest")
        for index, part in zip(np.ogrid[tuple(slice(n) for n in array.shape)], displacement, strict=True)
    ]
    return np.asarray(ndimage.map_coordinates(array, np.stack(full), order=0, mode="constant"))


def age_anatomy(rng: np.random.Generator, anatomy: LabelMap) -> LabelMap:
    """Add fluid around the brain, and replace some cortex and tissue along the ventricles by fluid, as age does.

    Noise decides where the brain shrinks from a border to fluid; other voxels keep their label.
    """
    spacing = anatomy.spacing_mm
    tissue = anatomy.array.copy()
    brain = ndimage.gaussian_filter((tissue > 0).astype(np.float32), [2.2 / s for s in spacing], truncate=2.5)
    rim = rng.uniform(0.2, 0.6) + 0.1 * smooth_noise(rng, anatomy.shape, spacing, 18.0)
    tissue[(tissue == 0) & (brain > np.maximum(rim, 0.1))] = Tissue.CSF
    patchy = 0.06 * smooth_noise(rng, anatomy.shape, spacing, 14.0)
    for fluid, solid, loss in (
        (Tissue.CSF, (Tissue.GREY, Tissue.CEREBELLAR_GREY), rng.uniform(0, 0.3)),
        (Tissue.VENTRICLE, (Tissue.WHITE, Tissue.DEEP_GREY), rng.uniform(0, 0.38) * (rng.random() < 0.6)),
    ):
        wet = ndimage.gaussian_filter((tissue == fluid).astype(np.float32), [1.6 / s for s in spacing], truncate=2.5)
        tissue[np.isin(tissue, solid) & (wet + patchy > 0.6 - loss)] = fluid
    return LabelMap(tissue, anatomy.affine)
