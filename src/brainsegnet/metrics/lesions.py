"""Lesions one by one: volume, the two diameters of RANO, and where each lies.

A lesion is a connected component of a region, its voxels joined over 26 neighbours, as in `shapes`.

Diameters are those of the convex hull of a lesion in one axial slice of the label map's grid. Of a lesion that is in
pieces in a slice, each piece is measured by itself. The hull is that of the middles of the pixel edges, where the
outline between lesion and background runs. So ten pixels of 1 mm in a row are 10 mm long, and a digital disc has the
diameter of the disc. The largest diameter is taken over all axial slices, and the other is the longest chord of the
same hull that is perpendicular to it. On an oblique grid the slices nearest to axial count.

RANO measures what enhances (Wen et al. 2010, 2023). Where nothing but specks enhances, the whole lesion is measured. A
lesion is measurable if both diameters have at least 10 mm, or two slices where these are thicker than 5 mm, and if it
is in two slices at least.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import ndimage

from brainsegnet._types import Affine, Array, Doubles, Mask, Point, Shape
from brainsegnet.errors import LabelError
from brainsegnet.preprocessing.geometry import find_turn, turn
from brainsegnet.task import Task
from brainsegnet.volume import Box, LabelMap

ANY_LESION = "any lesion"
"""All labels of a task together, whatever regions it has."""
ENHANCING = "enhancing"
LEAST_MM = 10.0
"""Both diameters of a measurable lesion have at least this length."""
THICK_MM = 5.0
"""Where slices are farther apart, a measurable lesion has twice their distance."""
LEAST_SLICES = 2
SPECK_MM = 3.0
"""Lesions with a smaller largest diameter are specks."""
MOST_POINTS = 20_000
"""Voxels of a lesion that are looked up in an atlas."""
_ROUNDING_MM = 1e-3
"""Lengths come from affines in single precision."""
_IN_PLANE = np.ones((1, 3, 3)) * np.array([0, 1, 0])[:, None, None]
Line = tuple[Point, Point]


@dataclass(frozen=True)
class Site:
    """Where a lesion lies in the brain.

    Attributes:
        side: "left", "right" or "both" sides of the patient.
        place: Part of the brain that holds most of it, as in "cerebrum, deep".
        share: Share of the lesion in this part.
    """

    side: str
    place: str
    share: float


class Atlas(Protocol):
    """Anything that tells where in the brain points lie."""

    def locate(self, points_mm: Doubles) -> Site:
        """The site of a lesion whose voxels have these centres (N, 3): x to the left, y to the back, z to the head."""


@dataclass(frozen=True)
class Lesion:
    """A connected component of a region, with its measures.

    Attributes:
        number: From 1, the largest volume first.
        region: Region that it is a component of.
        voxels: Number of its voxels.
        volume_ml: Its volume.
        diameters_mm: Largest diameter in an axial slice, and the longest perpendicular one in the same slice.
        slice_index: Index of this slice along that axis of the stored array (D, H, W) which is nearest to axial.
        slices: Number of axial slices that it is in.
        measurable: Whether RANO counts it as measurable.
        centre_mm: Its centre of mass: x to the left, y to the back, z to the head.
        voxel: A voxel (D, H, W) of it in the stored array, in this slice and nearest to the middle.
        lines_mm: The ends of both diameters, as `centre_mm`.
        side: "left", "right" or "both" sides of the patient; empty without an atlas.
        place: Part of the brain that holds most of it; empty without an atlas.
        share: Share of it in this part; 0 without an atlas.
    """

    number: int
    region: str
    voxels: int
    volume_ml: float
    diameters_mm: tuple[float, float]
    slice_index: int
    slices: int
    measurable: bool
    centre_mm: Point
    voxel: Shape
    lines_mm: tuple[Line, Line]
    side: str = ""
    place: str = ""
    share: float = 0.0


def measure_lesions(labels: LabelMap, task: Task, atlas: Atlas | None = None, region: str = "") -> list[Lesion]:
    """The lesions of a label map, the largest volume first.

    Args:
        labels: Label map (D, H, W), on any grid.
        task: What its values mean.
        atlas: Tells where a lesion lies in the brain.
        region: Region of the task, or `ANY_LESION`. By default `choose_region` decides.

    Raises:
        LabelError: the label map holds values that the task does not have, or the task has no such region.

    Examples:
        >>> from brainsegnet.task import BRATS2021
        >>> array = np.zeros((4, 32, 32), np.uint8)
        >>> array[1:3, 4:16, 5:15] = 4
        >>> (lesion,) = measure_lesions(LabelMap(array, np.eye(4)[[2, 1, 0, 3]]), BRATS2021)
        >>> lesion.region, lesion.volume_ml, [round(mm, 2) for mm in lesion.diameters_mm], lesion.measurable
        ('enhancing', 0.24, [15.0, 12.5], True)
    """
    task.check(labels.array)
    region = region or choose_region(labels, task)
    if region not in (*task.regions, ANY_LESION):
        named = ", ".join((*task.regions, ANY_LESION))
        raise LabelError(f"task {task.name} has no region {region!r}; choose one of {named}")
    inside = _select(labels, task, region)
    if not inside.any():
        return []
    how = find_turn(labels.affine)
    upright = turn(labels.with_labels(inside.astype(np.uint8)), how)
    box = Box.around(upright.array)
    affine = upright.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ box.start
    to_stored = np.linalg.inv(labels.affine) @ affine
    parts, _ = ndimage.label(upright.array[box.slices], np.ones((3, 3, 3)))
    found = [_measure(parts, affine, to_stored, number, tight) for number, tight in _by_size(parts)]
    return [_finish(lesion, number, region, atlas, how.axes[0]) for number, lesion in enumerate(found, start=1)]


def choose_region(labels: LabelMap, task: Task) -> str:
    """The region whose lesions are measured: what enhances; where nothing but specks does, the whole lesion.

    Examples:
        >>> from brainsegnet.task import BRATS2021
        >>> oedema = LabelMap(np.full((4, 4, 4), 2, np.uint8), np.eye(4))
        >>> choose_region(oedema, BRATS2021), choose_region(oedema.with_labels(oedema.array + 2), BRATS2021)
        ('whole', 'enhancing')
    """
    if ENHANCING in task.regions and any(map(is_larger_than_speck, measure_lesions(labels, task, region=ENHANCING))):
        return ENHANCING
    return next((name for name, values in task.regions.items() if set(values) == set(task.labels)), ANY_LESION)


def is_larger_than_speck(lesion: Lesion) -> bool:
    """Whether the largest diameter of a lesion is at least `SPECK_MM`."""
    return lesion.diameters_mm[0] >= SPECK_MM


def _select(labels: LabelMap, task: Task, region: str) -> Mask:
    values = tuple(task.labels) if region == ANY_LESION else task.regions[region]
    return np.isin(labels.array, values)


def _by_size(parts: Array) -> Iterator[tuple[int, tuple[slice, slice, slice]]]:
    """The numbers of components and their boxes, the largest first."""
    boxes = ndimage.find_objects(parts)
    for index in np.argsort(-np.bincount(parts.ravel())[1:], kind="stable").tolist():
        yield index + 1, boxes[index]


@dataclass(frozen=True, eq=False)
class _Component:
    """A component in an upright grid: its voxels (N, 3) in the world, where it is widest, and a voxel there."""

    points_mm: Doubles
    voxel_ml: float
    thickness_mm: float
    slices: int
    diameters_mm: tuple[float, float]
    lines_mm: tuple[Line, Line]
    voxel: Shape


def _measure(
    parts: Array, affine: Affine, to_stored: Affine, number: int, box: tuple[slice, slice, slice]
) -> _Component:
    mask = parts[box] == number
    start = np.array([side.start for side in box])
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    index, pixels, ends = _find_widest(mask, sizes[1:])

    def to_world(points: Doubles) -> Doubles:
        return np.asarray((points + start) @ affine[:3, :3].T + affine[:3, 3])

    lines = [to_world(np.insert(line / sizes[1:], 0, index, axis=1)) for line in ends]
    first, second = (_as_line(line) for line in lines)
    longest, across = (float(np.linalg.norm(line[1] - line[0])) for line in ends)
    nearest = pixels[(((pixels - pixels.mean(axis=0)) * sizes[1:]) ** 2).sum(axis=1).argmin()]
    middle = np.array([index, *nearest]) + start
    d, h, w = np.rint(to_stored[:3] @ (*middle, 1)).astype(int).tolist()
    points = to_world(np.argwhere(mask).astype(np.float64))
    return _Component(
        points,
        float(abs(np.linalg.det(affine[:3, :3]))) / 1000,
        float(sizes[0]),
        int(np.count_nonzero(mask.any(axis=(1, 2)))),
        (longest, across),
        (first, second),
        (d, h, w),
    )


def _finish(part: _Component, number: int, region: str, atlas: Atlas | None, axis: int) -> Lesion:
    x, y, z = part.points_mm.mean(axis=0).tolist()
    least = max(LEAST_MM, 2 * part.thickness_mm if part.thickness_mm > THICK_MM else 0.0) - _ROUNDING_MM
    step = -(-len(part.points_mm) // MOST_POINTS)
    site = atlas.locate(part.points_mm[::step]) if atlas else Site("", "", 0.0)
    return Lesion(
        number,
        region,
        len(part.points_mm),
        len(part.points_mm) * part.voxel_ml,
        part.diameters_mm,
        part.voxel[axis],
        part.slices,
        part.slices >= LEAST_SLICES and min(part.diameters_mm) >= least,
        (x, y, z),
        part.voxel,
        part.lines_mm,
        site.side,
        site.place,
        site.share,
    )


def _find_widest(mask: Mask, sizes: Doubles) -> tuple[int, Doubles, tuple[Doubles, Doubles]]:
    """The part of a slice with the largest diameter: its slice, its pixels (N, 2), and the ends (2, 2) in millimetres.

    Parts are joined over 8 neighbours within their slice. Those whose box is shorter than a diameter that was found are
    not looked at.
    """
    parts, _ = ndimage.label(mask, _IN_PLANE)
    boxes = ndimage.find_objects(parts)
    extents = np.array([[side.stop - side.start for side in box[1:]] for box in boxes])
    reach = np.hypot(*(extents * sizes).T)
    found: tuple[int, Doubles, tuple[Doubles, Doubles]] | None = None
    largest = (0.0, 0.0)
    for number in np.argsort(-reach, kind="stable").tolist():
        if reach[number] < largest[0]:
            break
        box = boxes[number]
        pixels, corner = parts[box][0] == number + 1, np.array([side.start for side in box[1:]])
        longest, across = measure_hull(find_hull(pixels, sizes))
        ends = longest + corner * sizes, across + corner * sizes
        lengths = tuple(round(float(np.linalg.norm(line[1] - line[0])), 6) for line in ends)
        if found is None or lengths > largest:
            found, largest = (box[0].start, np.argwhere(pixels) + corner, ends), (lengths[0], lengths[1])
    if found is None:
        raise ValueError("an empty mask has no diameter")
    return found


def find_hull(pixels: Mask, sizes: Doubles) -> Doubles:
    """The convex hull (N, 2) of the middles of the pixel edges of a mask (H, W), in millimetres, in circular order."""
    from scipy.spatial import ConvexHull  # slow to import

    rows = np.flatnonzero(pixels.any(axis=1))
    first = pixels[rows].argmax(axis=1)
    last = pixels.shape[1] - 1 - pixels[rows, ::-1].argmax(axis=1)
    corners = [(0, first - 0.5), (0, last + 0.5)] + [(half, column) for half in (-0.5, 0.5) for column in (first, last)]
    points = np.concatenate([np.stack((rows + half, column), axis=1) for half, column in corners]) * sizes
    return np.asarray(points[ConvexHull(points).vertices])


def measure_hull(hull: Doubles) -> tuple[Doubles, Doubles]:
    """The largest diameter of a convex polygon (N, 2) and its longest chord perpendicular to it, as their ends (2, 2).

    Examples:
        >>> ends = measure_hull(np.array([[0.0, 0.0], [1.0, 3.0], [0.0, 8.0], [-2.0, 3.0]]))
        >>> [float(np.linalg.norm(line[1] - line[0])) for line in ends]
        [8.0, 3.0]
    """
    apart = ((hull[:, None] - hull[None]) ** 2).sum(axis=2)
    a, b = np.unravel_index(np.argmax(np.round(apart, 6)), apart.shape)
    start, way = hull[a], hull[b] - hull[a]
    along = way / np.linalg.norm(way)
    across = np.array([-along[1], along[0]])
    ring = np.roll(hull, -int(a), axis=0) - start
    turning = (int(b) - int(a)) % len(hull)
    there, back = ring[: turning + 1], np.concatenate((ring[turning:], ring[:1]))[::-1]
    at = np.sort(ring @ along)
    sides = [np.interp(at, side @ along, side @ across) for side in (there, back)]
    widest = int(np.argmax(np.abs(sides[0] - sides[1])))
    chord = np.array([start + at[widest] * along + side[widest] * across for side in sides])
    return np.array([hull[a], hull[b]]), chord


def _as_line(ends: Doubles) -> Line:
    (ax, ay, az), (bx, by, bz) = ends.tolist()
    return (ax, ay, az), (bx, by, bz)
