"""Anatomical label maps from a seed: folded hemispheres, ventricles, deep nuclei, cerebellum and brain stem.

Each structure is a depth field in millimetres, positive inside; thresholds of depths give the tissues. The cortex folds
along the zero level of band-limited noise on a shell around each hemisphere, projected inwards along its radii. Points
are (3, N): z up, y to the back, x to the left. Most shapes are defined for one side and evaluated at |x|.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from brainsegnet._types import Doubles, Floats, Labels, Millimetres, Shape
from brainsegnet.errors import ImageError
from brainsegnet.volume import LabelMap

FIELD_MM: Shape = (154, 196, 160)
"""Extent (D, H, W) of the field; every head fits in it."""
CENTRE_MM: Millimetres = (3.0, 0.0, 0.0)
"""Centre of the field in the coordinates (z, y, x) of the head."""
CEREBELLUM_MM = 30.0
"""Distance of the surface of the cerebellum from the middle of the brain stem."""
SMALLEST_SHAPE: Shape = (24, 32, 32)
"""A smaller array has too few voxels for the four tissues of a tumour."""
DEFORMATION_MM = ((28.0, 1.0, 3.5), (11.0, 0.3, 1.2))
"""How lobes and gyri differ between persons: blur of a noise of displacement, and range of its standard deviation."""
HALVINGS = 6
"""Scaling and squaring: a velocity is divided by 2 to this power, and the step doubled as often."""

FOLD_TILE = 64
FOLD_STEP_MM = 2.0
FOLD_RADIUS_MM = 46.0


class Tissue(IntEnum):
    """Values of an anatomical label map."""

    BACKGROUND = 0
    CSF = 1
    GREY = 2
    WHITE = 3
    VENTRICLE = 4
    DEEP_GREY = 5
    CEREBELLAR_GREY = 6
    HINDBRAIN_WHITE = 7


@dataclass(frozen=True)
class HeadParams:
    """Parameters that differ between heads."""

    size: Floats  # factors on (z, y, x), (3,)
    tilt_rad: tuple[float, float]  # rotation in the axial and in the coronal plane
    waves: Floats  # three slow waves of asymmetry, (3, 7): amplitude (z, y, x) in mm, wave vector, phase
    ventricles: float  # factor on the width of the ventricles
    cortex_mm: float  # thickness of the cortex
    sulcus_mm: float  # half the width of a sulcus
    sulcus_depth_mm: float  # typical depth of a sulcus
    gyrus_mm: float  # typical width of a gyrus


def draw_head(rng: np.random.Generator) -> HeadParams:
    """Draw the parameters of a head; the noise of its folds comes from the same generator afterwards."""
    waves = [rng.normal(0, 0.9, (3, 3)), rng.uniform(-1, 1, (3, 3)) * 2 * np.pi / 110, rng.uniform(0, 6.3, (3, 1))]
    return HeadParams(
        size=rng.uniform(0.92, 1.01, 3).astype(np.float32),
        tilt_rad=(rng.normal(0, 0.03), rng.normal(0, 0.02)),
        waves=np.concatenate(waves, axis=1).astype(np.float32),
        ventricles=rng.uniform(0.75, 1.35),
        cortex_mm=rng.uniform(2.4, 3.0),
        sulcus_mm=rng.uniform(0.45, 0.8),
        sulcus_depth_mm=rng.uniform(13, 17),
        gyrus_mm=rng.uniform(10.2, 11.8),
    )


def spacing_for(shape: Shape) -> Millimetres:
    """Spacing in mm along (D, H, W) at which a head fills an array of this shape; pixels are square.

    Raises:
        ImageError: the shape is below `SMALLEST_SHAPE`.
    """
    if any(n < least for n, least in zip(shape, SMALLEST_SHAPE, strict=True)):
        raise ImageError(f"a phantom of shape {shape} is too coarse; ask for at least {SMALLEST_SHAPE} voxels")
    pixel = max(FIELD_MM[1] / shape[1], FIELD_MM[2] / shape[2])
    return FIELD_MM[0] / shape[0], pixel, pixel


def axes_mm(shape: Sequence[int], spacing_mm: Millimetres) -> tuple[Floats, Floats, Floats]:
    """Coordinates z (D, 1, 1), y (1, H, 1), x (1, 1, W) of voxel centres in mm, 0 in the centre of the head."""
    each = zip(shape, spacing_mm, CENTRE_MM, strict=True)
    z, y, x = np.ix_(*(((np.arange(n) - (n - 1) / 2) * step + centre).astype(np.float32) for n, step, centre in each))
    return z, y, x


def simulate_anatomy(rng: np.random.Generator, shape: Shape) -> LabelMap:
    """Simulate a head as an upright anatomical label map (D, H, W), uint8, with the spacing of `spacing_for`.

    Raises:
        ImageError: the shape is below `SMALLEST_SHAPE`.
    """
    head = draw_head(rng)
    folds = _fold_noise(rng, 2 * head.gyrus_mm)
    spacing = spacing_for(shape)
    points = _pose(np.stack(np.broadcast_arrays(*axes_mm(shape, spacing))).reshape(3, -1), head)
    lobes = _lobes(points)
    inside = np.flatnonzero(lobes.max(axis=0) > -0.8)
    sheets = np.zeros(shape, np.float32)
    sheets.flat[inside] = _fold(points[:, inside], folds)
    slope = np.sqrt(sum(np.square(g) for g in np.gradient(sheets, *spacing)))
    off_fold = np.asarray(np.abs(sheets) / np.maximum(slope, 0.01), np.float32).ravel()[inside]  # in mm, first order
    tissue, affine = np.zeros(shape, np.uint8), np.eye(4)
    tissue.flat[inside] = _tissues(points[:, inside], lobes[:, inside], off_fold, head)
    affine[:3, :3] = np.fliplr(np.diag(spacing[::-1]))
    affine[2::-1, 3] = [c - s * (n - 1) / 2 for c, s, n in zip(CENTRE_MM, spacing, shape, strict=True)]
    return LabelMap(tissue, affine)


def _pose(points: Floats, head: HeadParams) -> Floats:
    """Scanner to template coordinates (3, N): rotation, scaling and a slow warp."""
    z, y, x = points
    axial, coronal = head.tilt_rad
    y, x = y * np.cos(axial) - x * np.sin(axial), y * np.sin(axial) + x * np.cos(axial)
    z, x = z * np.cos(coronal) - x * np.sin(coronal), z * np.sin(coronal) + x * np.cos(coronal)
    posed = np.stack([z, y, x]) / head.size[:, None]
    for wave in head.waves:
        posed += wave[:3, None] * np.sin(wave[3:6] @ posed + wave[6])
    return np.asarray(posed, np.float32)


def ellipsoid_depth(points: Floats, centre_mm: Millimetres, radii_mm: Millimetres) -> Floats:
    """Approximate depth (N,) below the surface of an ellipsoid in mm, negative outside."""
    centre, radii = np.array([centre_mm, radii_mm], np.float32)[..., None]
    scaled = (points - centre) / radii
    reach = np.sqrt(np.square(scaled).sum(axis=0))
    slope = np.sqrt(np.square(scaled / radii).sum(axis=0))
    return np.asarray((1 - reach) * reach / np.maximum(slope, 1e-6), np.float32)


def tube_depth(points: Floats, nodes_mm: list[tuple[float, float, float, float]]) -> Floats:
    """Depth (N,) inside a chain of nodes (z, y, x, radius) in mm, negative outside."""
    depth = np.full(points.shape[1], -np.inf, np.float32)
    for first, second in pairwise(nodes_mm):
        a, b = np.array(first, np.float32), np.array(second, np.float32)
        along = np.clip((b[:3] - a[:3]) @ (points - a[:3, None]) / np.square(b[:3] - a[:3]).sum(), 0, 1)
        off = points - a[:3, None] - (b[:3] - a[:3])[:, None] * along
        np.maximum(depth, a[3] + (b[3] - a[3]) * along - np.sqrt(np.square(off).sum(axis=0)), out=depth)
    return depth


def _one_side(points: Floats) -> Floats:
    return np.stack([points[0], points[1], np.abs(points[2])])


def _lobes(points: Floats) -> Floats:
    """Depths (4, N) in mm: cerebrum without temporal lobes, temporal lobes, cerebellum, brain stem."""
    z, y, x = _one_side(points)
    egg = np.stack([z, y, x * (1 - 0.0011 * y)])
    upper = np.minimum(ellipsoid_depth(egg, (8, 0, 12), (63, 86, 55)), z + 21 - 0.08 * y)
    temporal = ellipsoid_depth(np.stack([z + 0.12 * y, y, x]), (-21, -6, 38), (20, 46, 25))
    cerebellum = ellipsoid_depth(np.stack([z, y, x]), (-37, 43, 0), (27, 33, 50))
    stem = tube_depth(points, [(-10, 8, 0, 15), (-34, 12, 0, 14), (-48, 20, 0, 9), (-80, 32, 0, 7)])
    return np.stack([np.minimum(upper, -cerebellum), np.minimum(temporal, -cerebellum), cerebellum, stem])


def _tissues(points: Floats, lobes: Floats, off_fold: Floats, head: HeadParams) -> Labels:
    """Tissue (N,) of points inside the head; later structures replace earlier ones."""
    upper, temporal, cerebellum, stem = lobes
    tissue = _cerebrum(points, np.maximum(upper, temporal), off_fold, head)
    behind = cerebellum > 0.8
    tissue[behind] = _cerebellum(points[:, behind], cerebellum[behind])
    tissue[(stem > -1.5) & (points[0] < -14) & (cerebellum < 6)] = Tissue.CSF
    tissue[stem > 0] = Tissue.HINDBRAIN_WHITE
    core = np.flatnonzero((np.abs(points[2]) < 48) & (np.abs(points[1]) < 66) & (np.abs(points[0] - 2) < 44))
    _add_deep_structures(tissue, core, _one_side(points[:, core]), head)
    return np.asarray(tissue, np.uint8)


def _cerebrum(points: Floats, depth: Floats, off_fold: Floats, head: HeadParams) -> Labels:
    """CSF, grey and white matter by the depth (N,) below the folded surface of the hemispheres."""
    z, y, x = _one_side(points)
    callosum = ellipsoid_depth(np.stack([z, y, x * 0]), (4, 2, 0), (25, 41, 1e3))
    surface = np.minimum(depth, np.hypot(np.maximum(x - 0.4, 0), np.maximum(callosum, 0)))
    reach = head.sulcus_depth_mm * (1 + 0.3 * np.sin(0.11 * z + 2) * np.cos(0.09 * y))
    sulci = np.hypot(off_fold, np.maximum(0, surface - reach))
    rise = z + 3 - 0.25 * y - 3 * np.sin(y / 12)
    sylvian = np.hypot(rise, np.maximum(0, np.maximum(37 - x, np.abs(y) - 30)))
    insula = np.hypot(x - 38, np.maximum(0, np.maximum(np.abs(y + 2) - 20, np.abs(rise - 1) - 10)))
    pial = np.min([surface, sulci, sylvian, insula], axis=0)
    csf = head.sulcus_mm * (0.8 + 1.0 * np.exp(-np.maximum(depth, 0) / 5))
    return np.select([pial < csf, pial < csf + head.cortex_mm], [Tissue.CSF, Tissue.GREY], Tissue.WHITE)


def _fold(points: Floats, folds: Floats) -> Floats:
    """Noise (N,) that is 0 in the middle of each sulcus, nearly constant along the radii of a hemisphere."""
    axis = np.stack([np.full_like(points[0], 6), np.clip(points[1], -48, 48), np.copysign(np.float32(30), points[2])])
    ray = points - axis
    reach = np.sqrt(np.square(ray).sum(axis=0)) + 1e-3
    shell = axis * np.array([1, 0.75, 1], np.float32)[:, None] + ray * (FOLD_RADIUS_MM / reach) + 0.12 * points
    return np.asarray(ndimage.map_coordinates(folds, shell / FOLD_STEP_MM, order=1, mode="grid-wrap"), np.float32)


def _fold_noise(rng: np.random.Generator, wavelength_mm: float) -> Floats:
    """Band-limited noise of unit variance: a periodic cube of `FOLD_TILE` voxels along each side."""
    white = rng.standard_normal((FOLD_TILE,) * 3, dtype=np.float32)
    f, r = fft.fftfreq(FOLD_TILE, FOLD_STEP_MM), fft.rfftfreq(FOLD_TILE, FOLD_STEP_MM)
    radius = np.sqrt(f[:, None, None] ** 2 + f[None, :, None] ** 2 + r[None, None, :] ** 2)
    band = np.exp(-0.5 * ((radius * wavelength_mm - 1) / 0.22) ** 2)
    noise = fft.irfftn(fft.rfftn(white) * band, s=white.shape)
    return np.asarray(noise / noise.std(), np.float32)


def _cerebellum(points: Floats, depth: Floats) -> Labels:
    """Folia that fan out from the fourth ventricle, around a tree of white matter."""
    z, y, x = _one_side(points)
    rays = np.arctan2(z + 36, y - 24) + 0.004 * x
    tree = ellipsoid_depth(np.stack([z, y, x]), (-37, 37, 18), (12, 17, 24)) + 7 * np.cos(rays * 12)
    fluid = (np.cos(rays * 30 + 2) > 0.75 - 0.35 * np.exp(-depth / 4)) & (depth < 11)
    return np.select([fluid, tree > 0], [Tissue.CSF, Tissue.HINDBRAIN_WHITE], Tissue.CEREBELLAR_GREY)


def _add_deep_structures(tissue: NDArray[np.integer], core: NDArray[np.intp], side: Floats, head: HeadParams) -> None:
    """Write deep nuclei and ventricles into `tissue` (N,) at the indices `core` (M,) with the points `side` (3, M)."""
    z, y, x = side
    nuclei = [
        ellipsoid_depth(side, (5, 8, 11), (9, 15, 9.5)),
        tube_depth(side, [(6, -26, 14, 8), (14, -12, 18, 6), (17, 6, 20, 3), (14, 20, 24, 2)]),
        ellipsoid_depth(np.stack([z, y, x - 0.28 * y]), (2, -5, 26), (12, 19, 6.5)),
        ellipsoid_depth(side, (-19, -4, 24), (7, 14, 6)),
    ]
    lateral = [(4, -36, 13, 3.0), (11, -24, 9, 5.5), (19, -4, 9, 5.0), (18, 20, 15, 5.5), (8, 36, 24, 6.5)]
    horn, occipital = [(8, 36, 24, 6.5), (-8, 24, 32, 3.5), (-17, 2, 32, 2.5)], [(8, 36, 24, 6.5), (4, 56, 23, 2.0)]
    cavities = [
        tube_depth(side, [(*n[:3], n[3] * head.ventricles) for n in chain]) for chain in (lateral, horn, occipital)
    ]
    third = ellipsoid_depth(side, (-1, 2, 0), (9, 14, 1.8 * head.ventricles))
    fourth = ellipsoid_depth(side, (-37, 25, 0), (9, 4, 6 * head.ventricles))
    grey = np.max(nuclei, axis=0) > 0
    tissue[core[grey & (tissue[core] != Tissue.CSF)]] = Tissue.DEEP_GREY
    tissue[core[np.max([*cavities, third, fourth], axis=0) > 0]] = Tissue.VENTRICLE


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform between those of `low` and `high`."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def ball_radius_mm(volume_mm3: float) -> float:
    """Radius in mm of a ball of a volume in mm3."""
    return float(np.cbrt(volume_mm3 * 3 / (4 * np.pi)))


def rotation(angles_rad: Iterable[float], planes: Sequence[tuple[int, int]]) -> Doubles:
    """Product (3, 3) of rotations, each in the plane of two axes and from the first of them to the second."""
    turn = np.eye(3)
    for angle, (a, b) in zip(angles_rad, planes, strict=True):
        one = np.eye(3)
        one[a, a] = one[b, b] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ one
    return turn


def smooth_noise(rng: np.random.Generator, shape: Sequence[int], spacing_mm: Millimetres, blur_mm: float) -> Floats:
    """White noise on a lattice of `blur_mm`, blurred with a Gaussian of that width: (D, H, W), mean 0, variance 1."""
    lattice = [int(np.ceil(n * step / blur_mm)) + 7 for n, step in zip(shape, spacing_mm, strict=True)]
    field = rng.standard_normal(lattice, dtype=np.float32)
    for n, step, nodes in zip(shape, spacing_mm, lattice, strict=True):
        at = np.arange(n)[:, None] * (step / blur_mm) + 3 - np.arange(nodes)[None]
        weights = np.exp(-0.5 * at**2) / np.pi**0.25
        field = np.tensordot(field, weights.astype(np.float32), axes=(0, 1))
    return field
