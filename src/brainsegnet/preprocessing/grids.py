"""The grid on which a model works, the way of each sequence there, and the way of the probabilities back.

A model knows lesions at the voxel size of its training. So a scan of other voxels is interpolated onto a grid of that
size, once, from the grid on which it was scanned. Probabilities come back, never labels, because the most probable
tissue between two voxels may be a third one.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
from scipy import ndimage

from brainsegnet._types import Array, Floats, ItkObject, Millimetres
from brainsegnet.errors import GridMismatch, ImageError
from brainsegnet.preprocessing.foreground import find_air
from brainsegnet.preprocessing.geometry import turn_like
from brainsegnet.volume import LabelMap, V, Volume, build_itk, load_itk, measure_gap

NEAR = 0.1
"""Largest difference between a spacing and that of a model, as a share of it, at which an axis stays as it is."""
FINER = 1.2
"""Ratio of two spacings above which the finer image is smoothed before it is sampled at the coarser spacing."""
ANTI_ALIAS = 0.42
"""Standard deviation of this smoothing, as a share of the coarser spacing."""
LARGEST_MM = 1000.0
"""Longest field of view that is interpolated; a longer one would fill the memory, and its header must be wrong."""
MARGIN = 0.01
"""Share of a voxel by which a field of view may be longer than the grid."""


def build_working_grid(reference: Volume, spacing_mm: float | None) -> Volume:
    """The grid on which a model works: the field of view and the axes of an image, at the spacing of the model.

    Axes whose spacing is within 10 % of it stay as they are. If all do, this is the grid of the image.

    Args:
        reference: The image.
        spacing_mm: Spacing of the model in millimetres; None leaves every grid as it is.

    Returns:
        A volume of zeros that takes no memory.

    Raises:
        ImageError: the field of view is longer than `LARGEST_MM`.

    Examples:
        >>> scan = Volume(np.zeros((31, 480, 480), np.int16), np.diag([5.0, 0.5, 0.5, 1.0]))
        >>> build_working_grid(scan, 1.0)
        Volume((155, 240, 240) uint8, 1 x 1 x 1 mm)
        >>> build_working_grid(scan, None)
        Volume((31, 480, 480) uint8, 5 x 0.5 x 0.5 mm)
    """
    counts, affine = list(reference.shape), reference.affine.copy()
    for axis, (n, mm) in enumerate(zip(reference.shape, reference.spacing_mm, strict=True)):
        if spacing_mm is None or abs(mm - spacing_mm) <= NEAR * spacing_mm * (1 + 1e-6):
            continue
        if n * mm > LARGEST_MM:
            raise ImageError(
                f"{n} voxels of {mm:.3g} mm are {n * mm:.0f} mm, longer than a head; check the voxel size in the header"
            )
        ratio = spacing_mm / mm
        counts[axis] = max(1, math.ceil(n / ratio - MARGIN))
        affine[:3, 3] += reference.affine[:3, axis] * (n - 1 - (counts[axis] - 1) * ratio) / 2
        affine[:3, axis] *= ratio
    return Volume(np.broadcast_to(np.uint8(0), counts), affine, reference.forms, reference.warnings)


def find_common_spacing(spacings_mm: Iterable[Millimetres]) -> float | None:
    """The size of the cubic voxels that some grids share in millimetres; None if they share none.

    Examples:
        >>> find_common_spacing([(1.0, 1.0, 1.0), (1.05, 1.0, 1.0)])
        1.0
        >>> find_common_spacing([(5.0, 0.9, 0.9)]) is None
        True
    """
    every = [mm for spacing in spacings_mm for mm in spacing]
    if not every:
        return None
    middle = float(np.median(every))
    return round(middle, 2) if all(abs(mm - middle) <= NEAR * middle for mm in every) else None


def bring(moving: V, grid: Volume, transform: ItkObject = None) -> V:
    """Bring a volume to a grid by one interpolation, where the headers place the two, or after a transform.

    If the grids hold the same voxels along other axes, axes are only exchanged and reversed. Otherwise images are
    interpolated linearly into float32, and smoothed first along axes on which they are finer. The first and the last
    slice reach half a slice further. Beyond them is background, or the lowest value of an image without background. The
    background of a stripped brain stays exact and does not blend into its edge, which stays sharp. Label maps take the
    nearest label, and 0 beyond their edge.

    Args:
        moving: An image, or a label map.
        grid: Volume that gives the grid.
        transform: Transform of SimpleITK from points of `grid` to points of `moving`; None leaves both in place.
    """
    if transform is None:
        if moving.on_grid_of(grid):
            return moving
        stored = turn_like(moving, grid)
        if stored.on_grid_of(grid):
            return stored
    if isinstance(moving, LabelMap):
        nearest = resample_array(moving.array, moving, grid, transform, 0, load_itk().sitkNearestNeighbor)
        return type(moving)(nearest, grid.affine, grid.forms, moving.warnings)
    array = moving.array.astype(np.float32)
    air = find_air(array)
    level = np.float32(array.min() if air.kind == "none" else air.level)
    inside = air.find_foreground(array) if air.kind == "exact" else None
    if inside is not None:
        array = np.where(inside, array, level)
    moved = resample_array(_smooth(array - level, moving, grid), moving, grid, transform)
    if inside is not None:
        share = resample_array(_smooth(inside.astype(np.float32), moving, grid), moving, grid, transform)
        moved = np.where(share >= 0.5, moved / np.maximum(share, np.float32(0.5)), np.float32(0))
    return type(moving)(moved + level, grid.affine, grid.forms, moving.warnings)


def bring_back(maps: Floats, grid: Volume, native: Volume, transform: ItkObject = None) -> Floats:
    """Maps such as probabilities on another grid, by linear interpolation; 0 beyond their edge.

    Args:
        maps: Maps (K, d, h, w) on `grid`.
        grid: The grid on which a model works.
        native: The grid (D, H, W) of the result.
        transform: Transform with which `bring` brought an image from `native` to `grid`; None leaves both in place.

    Returns:
        Maps (K, D, H, W) on `native`, float32.
    """
    result = np.empty((len(maps), *native.shape), np.float32)
    for there, back in zip(result, each_back(maps, grid, native, transform), strict=True):
        there[...] = back
    return result


def each_back(maps: Floats, grid: Volume, native: Volume, transform: ItkObject = None) -> Iterator[Floats]:
    """As `bring_back`, one map after another, so that a large grid takes the memory of one."""
    inverse = transform.GetInverse() if transform is not None else None
    for one in maps:
        yield resample_array(np.asarray(one, np.float32), grid, native, inverse)


def _smooth(array: Floats, moving: Volume, grid: Volume) -> Floats:
    """An array smoothed along each axis on which `grid` is coarser, as averaging over its voxels would."""
    for axis, ratio in enumerate(find_ratios(moving, grid)):
        if ratio > FINER:
            array = ndimage.gaussian_filter1d(array, ANTI_ALIAS * math.sqrt(ratio**2 - 1), axis, mode="nearest")
    return array


def find_ratios(moving: Volume, grid: Volume) -> list[float]:
    """The spacing of `grid` along each axis of `moving`, over the spacing of `moving`.

    Examples:
        >>> fine, coarse = (Volume(np.zeros((2, 2, 2)), np.diag([*mm, 1.0])) for mm in ((5, 0.5, 0.5), (1, 1, 1)))
        >>> find_ratios(fine, coarse)
        [0.2, 2.0, 2.0]
    """
    steps = np.linalg.solve(grid.affine[:3, :3], moving.affine[:3, :3])
    return [float(1 / length) for length in np.linalg.norm(steps, axis=0)]


def resample_array(
    array: Array, source: Volume, grid: Volume, transform: ItkObject, beyond: float = 0, how: ItkObject = None
) -> Array:
    """An array (D, H, W) on the grid of `source`, brought onto `grid`, with `beyond` outside.

    Args:
        array: The array.
        source: Volume that gives its grid.
        grid: Volume that gives the grid of the result.
        transform: Transform of SimpleITK from points of `grid` to points of `source`; None leaves both in place.
        beyond: Value outside the grid of `source`.
        how: Interpolator of SimpleITK; linear by default.
    """
    itk = load_itk()
    image = build_itk(array, source.affine)
    method = itk.ResampleImageFilter()
    placed = build_itk(np.empty((1, 1, 1), np.uint8), grid.affine)
    method.SetSize(grid.shape[::-1])
    method.SetOutputOrigin(placed.GetOrigin())
    method.SetOutputSpacing(placed.GetSpacing())
    method.SetOutputDirection(placed.GetDirection())
    method.SetTransform(transform or itk.Transform())
    method.SetInterpolator(itk.sitkLinear if how is None else how)
    method.SetDefaultPixelValue(beyond)
    return np.asarray(itk.GetArrayFromImage(method.Execute(image)))


def paste(labels: LabelMap, grid: Volume, name: str = "the label map") -> LabelMap:
    """Put a label map on a grid whose voxels it shares: it may be cropped, padded, or have its axes in another order.

    Args:
        labels: The label map.
        grid: The grid.
        name: What messages call the label map.

    Raises:
        GridMismatch: its voxels are not those of the grid, or labels lie outside the grid.

    Examples:
        >>> part = LabelMap(np.full((1, 2, 1), 4, np.uint8), np.eye(4))
        >>> paste(part, Volume(np.zeros((1, 3, 2)), np.eye(4))).array.tolist()
        [[[4, 0], [4, 0], [0, 0]]]
    """
    turned = turn_like(labels, grid)
    start = np.rint(np.linalg.solve(grid.affine, turned.affine[:, 3])[:3]).astype(int)
    affine = grid.affine.copy()
    affine[:3, 3] += grid.affine[:3, :3] @ start
    expected = Volume(np.broadcast_to(np.uint8(0), turned.shape), affine)
    if not turned.on_grid_of(expected):
        sizes = (" x ".join(f"{mm:.3g}" for mm in one.spacing_mm) for one in (turned, grid))
        raise GridMismatch(
            f"{name} is not on the voxels of the result: it has {' mm, the result '.join(sizes)} mm, and they lie up "
            f"to {measure_gap(turned, expected):.3g} mm apart; save it on the grid of the result"
        )
    whole = np.zeros(grid.shape, labels.array.dtype)
    stop = np.minimum(start + turned.shape, grid.shape)
    first = np.maximum(start, 0)
    if (stop > first).all():
        into = tuple(slice(a, b) for a, b in zip(first, stop, strict=True))
        whole[into] = turned.array[tuple(slice(a - o, b - o) for a, b, o in zip(first, stop, start, strict=True))]
    if lost := int(np.count_nonzero(turned.array) - np.count_nonzero(whole)):
        raise GridMismatch(f"{name} has {lost} labelled voxels outside the grid of the result; erase them")
    return LabelMap(whole, grid.affine, grid.forms)
