"""A whole case of stroke from a seed: DWI and ADC as in ISLES 2022, or the six maps of ISLES 2017."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from brainsegnet.synthesis.anatomy import Floats, Labels, Millimetres, Shape, grow_anatomy, spacing_for
from brainsegnet.synthesis.phantom import affine_for
from brainsegnet.synthesis.stroke import Infarct, draw_stroke, grow_core, grow_stroke
from brainsegnet.synthesis.stroke_appearance import draw_diffusion, paint_flow
from brainsegnet.synthesis.stroke_exposure import expose_diffusion, expose_flow, outline
from brainsegnet.synthesis.stroke_heads import age_head, coarsen, vary_head
from brainsegnet.synthesis.stroke_mimics import grow_mimics
from brainsegnet.synthesis.stroke_scanner import Grid, draw_optics, lay_grid
from brainsegnet.synthesis.territories import Ground, lay_ground
from brainsegnet.synthesis.tumour import Mask
from brainsegnet.volume import Case, LabelMap, Volume

StrokeTask = Literal["isles2022", "isles2017"]
DrawMap = Callable[[np.random.Generator], LabelMap]
"""Takes a map out of a library."""

FINE_SHAPE: Shape = (108, 140, 114)
"""Voxels of 1.4 mm in which a procedural head is grown; a scan averages over them."""
FIELD_OF_VIEW_MM = 224.0
FINEST_MM = 1.35
"""A head of finer voxels is thinned out first: a scan does not show them."""


@dataclass(frozen=True)
class Library:
    """What a user may bring.

    Attributes:
        draw_head: Takes a tissue map of `anatomy.Tissue`, which is deformed; heads are grown if None.
        draw_shape: Takes a real lesion in MNI space; all are grown if None.
        atlas: Arterial territories in MNI space; those of `territories` if None.
    """

    draw_head: DrawMap | None = None
    draw_shape: DrawMap | None = None
    atlas: LabelMap | None = None


def grow_stroke_case(
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
        ImageError: a grown head would fall below `anatomy.SMALLEST_SHAPE`.

    >>> case = grow_stroke_case(3, detail=0.3)
    >>> case.name, list(case.images), np.unique(case.lesion.array).tolist()
    ('sub-strokephantom0003', ['dwi', 'adc'], [0, 1])
    """
    library = library or Library()
    for_head, for_stroke, for_mimics, for_scan = np.random.default_rng(seed).spawn(4)
    if library.draw_head:
        grown = vary_head(for_head, coarsen(library.draw_head(for_head), FINEST_MM / detail))
    else:
        fine = _scale(FINE_SHAPE, detail)
        grown = LabelMap(grow_anatomy(for_head, fine), affine_for(fine, spacing_for(fine)))
    head = age_head(for_head, grown)
    ground = lay_ground(for_stroke, head, library.atlas)
    stroke = draw_stroke(for_stroke, library.draw_shape is not None)
    shape = library.draw_shape(for_stroke) if library.draw_shape and stroke.kind == "shape" else None
    name = f"sub-strokephantom{seed:04d}" if task == "isles2022" else f"phantom_{seed}"
    if task == "isles2022":
        core = grow_core(for_stroke, ground, stroke, shape)
        layers = core, grow_mimics(for_mimics, ground, core)
        return _scan_diffusion(for_scan, Subject(name, head, ground, detail), layers)
    infarct = grow_stroke(for_stroke, ground, stroke, shape)
    mimics = grow_mimics(for_mimics, ground, infarct.outcome)
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
        return lay_grid(rng, self.head, _scale(shape, self.detail), (d, h, w))


def _scale(shape: Shape, detail: float) -> Shape:
    d, h, w = (round(n * detail) for n in shape)
    return d, h, w


def _scan_diffusion(rng: np.random.Generator, subject: Subject, layers: tuple[Mask, Labels]) -> Case:
    """DWI and ADC; ADC in mm2/s or in 1e-3 mm2/s, as the centres of ISLES 2022 store it."""
    head, grid = subject.head, subject.grid(rng, *_draw_diffusion_grid(rng))
    optics, contrast = draw_optics(rng), draw_diffusion(rng)
    scan = expose_diffusion(rng, head, subject.ground, layers, (grid, optics, contrast))
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
    scan = expose_diffusion(rng, head, ground, (infarct.core, mimics), (grid, optics, contrast))
    maps = expose_flow(rng, head, paint_flow(rng, ground, infarct), (grid, optics, scan.distortion))
    if rng.random() < 0.2:
        wet = maps["rcbf"] < np.quantile(maps["rcbf"][scan.brain], rng.uniform(0.01, 0.06))
        maps = {sequence: np.where(wet, 0, image) for sequence, image in maps.items()}
    lesion = outline(rng, infarct.outcome, head, (grid, scan.brain))
    images = {"adc": scan.adc, **maps}
    return Case(subject.name, {s: _stripped(image, scan.brain, grid) for s, image in images.items()}, lesion)
