"""Phantoms: a head with a glioma, simulated from a seed as a BRATS 2015 scan shows it, with numpy and scipy only.

The core of the tumour displaces the brain, and oedema follows the white matter. Each of the four tissues takes the
voxels that a field ranks highest, as many as were drawn, so every tumour has all four. White matter has brightness 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from brainsegnet._types import Array, Floats, Labels, Mask, Millimetres, Shape
from brainsegnet.anatomy.procedural import Tissue, axes_mm, ball_radius_mm, log_uniform, simulate_anatomy, smooth_noise
from brainsegnet.simulation import Part
from brainsegnet.volume import Box, Case, LabelMap, Volume

DEMO_SHAPE: Shape = (72, 136, 112)
"""Voxels of 2.1 x 1.4 x 1.4 mm, 1.1 million in all."""
FEWEST_VOXELS = 64
"""Least number of voxels of each tissue of a tumour."""
REACH = 3.0
"""A tumour displaces nothing beyond this multiple of the radius of its mass."""
TISSUES: Mapping[str, tuple[float, ...]] = {
    #        background csf  grey  white ventricle deep  cerebellar  hindbrain
    "flair": (0.0, 0.45, 1.18, 1.00, 0.36, 1.12, 1.10, 1.00),
    "t1": (0.0, 0.42, 0.76, 1.00, 0.34, 0.86, 0.76, 0.97),
    "t1c": (0.0, 0.46, 0.80, 1.00, 0.34, 0.88, 0.80, 0.96),
    "t2": (0.0, 2.20, 1.36, 1.00, 2.60, 1.18, 1.34, 1.02),
}
LESIONS: Mapping[str, tuple[float, ...]] = {
    #        -    necrosis oedema non-enhancing enhancing
    "flair": (0.0, 1.15, 1.80, 1.60, 1.65),
    "t1": (0.0, 0.58, 0.80, 0.74, 0.82),
    "t1c": (0.0, 0.58, 0.82, 0.80, 1.75),
    "t2": (0.0, 2.25, 1.85, 1.65, 1.60),
}
"""Mean brightness of each `Tissue`, and of each `Part` with a label, in raw BRATS scans."""
OPACITY = (0.0, 1.0, 0.85, 0.9, 1.0)
"""How far each `Part` hides the tissue beneath, 0 to 1."""
VESSELS: Mapping[str, float] = {"flair": 0.8, "t1": 1.1, "t1c": 2.6, "t2": 0.5}
"""Factor on the brightness of fluid where a vessel runs through a sulcus."""
WATER_SPEED = (0.0, 0.0, 0.3, 1.0, 0.0, 0.45, 0.1, 0.3)
"""Relative speed of water in each `Tissue`."""


@dataclass(frozen=True)
class Tumour:
    """Parameters of a tumour."""

    centre: tuple[int, int, int]  # voxel (D, H, W) in the white matter
    necrosis: int  # number of voxels, as for the other tissues
    oedema: int
    non_enhancing: int
    enhancing: int
    push: float  # largest displacement as a share of the radius of the mass; below 4/9 nothing folds
    roughness: float  # amplitude of the noise on the surface of the core, as a share of its radius

    @property
    def core(self) -> int:
        """Number of voxels of the core: all tissues but the oedema."""
        return self.necrosis + self.non_enhancing + self.enhancing

    def mass_radius_mm(self, spacing_mm: Millimetres) -> float:
        """Radius of a ball of the volume that displaces brain: the core and a third of the oedema."""
        return ball_radius_mm((self.core + self.oedema / 3) * float(np.prod(spacing_mm)))


def simulate_phantom(seed: int, shape: Shape = DEMO_SHAPE) -> Case:
    """Simulate a head with a glioma: flair, t1, t1c and t2 as int16, and labels of BRATS 2015, all (D, H, W).

    The same seed, shape and kind of processor give the same arrays, bit for bit. The spacing follows from the shape, so
    that the head keeps its size.

    Args:
        seed: Seed of everything that is random.
        shape: Voxels (D, H, W).

    Raises:
        ImageError: the shape is below `SMALLEST_SHAPE` of `anatomy.procedural`.
    """
    for_anatomy, for_tumour, for_appearance = np.random.default_rng(seed).spawn(3)
    anatomy = simulate_anatomy(for_anatomy, shape)
    displaced, lesion = simulate_tumour(for_tumour, anatomy.array, anatomy.spacing_mm)
    arrays = paint(for_appearance, displaced, lesion, anatomy.spacing_mm)
    images = {sequence: Volume(array, anatomy.affine) for sequence, array in arrays.items()}
    return Case(f"phantom{seed:04d}", images, LabelMap(lesion, anatomy.affine))


def draw_tumour(rng: np.random.Generator, anatomy: Labels, spacing_mm: Millimetres) -> Tumour:
    """Draw a tumour of 1.5 to 11 % of the brain off the midline, where much white matter surrounds it."""
    whole = int(np.count_nonzero(anatomy)) * log_uniform(rng, 0.015, 0.11)
    core = whole * rng.uniform(0.3, 0.6)
    shares = rng.dirichlet([6, 6, 9]) * 0.7 + 0.1
    necrosis, non_enhancing, enhancing = (max(FEWEST_VOXELS, int(core * share)) for share in shares)
    z, _, x = axes_mm(anatomy.shape, spacing_mm)
    white = anatomy == Tissue.WHITE
    wide = ndimage.gaussian_filter(white.astype(np.float32), [4 / step for step in spacing_mm], truncate=2)
    weight = np.where(white & (np.abs(x) > 18) & (np.abs(x) < 50) & (z > -20), wide**2, 0).ravel().astype(np.float64)
    d, h, w = np.unravel_index(rng.choice(weight.size, p=weight / weight.sum()), anatomy.shape)
    return Tumour(
        centre=(int(d), int(h), int(w)),
        necrosis=necrosis,
        oedema=max(FEWEST_VOXELS, int(whole - core)),
        non_enhancing=non_enhancing,
        enhancing=enhancing,
        push=rng.uniform(0.16, 0.38),
        roughness=rng.uniform(0.18, 0.32),
    )


def simulate_tumour(rng: np.random.Generator, anatomy: Labels, spacing_mm: Millimetres) -> tuple[Labels, Labels]:
    """Simulate a tumour in an anatomy of `Tissue`: the displaced anatomy and labels of BRATS 2015, all (D, H, W)."""
    tumour = draw_tumour(rng, anatomy, spacing_mm)
    distance = _distance_mm(anatomy.shape, tumour.centre, spacing_mm)
    displaced = displace(anatomy, tumour, spacing_mm)
    radius_mm = ball_radius_mm((tumour.core + tumour.oedema) * float(np.prod(spacing_mm)))
    near = Box.around(distance < 2.2 * radius_mm).slices
    lesion = np.zeros_like(anatomy)
    core = _make_core(rng, displaced[near], distance[near], tumour, spacing_mm)
    lesion[near] = _add_oedema(rng, displaced[near], core, tumour.oedema, spacing_mm)
    return displaced, lesion


def _distance_mm(shape: Sequence[int], centre: Sequence[int], spacing_mm: Millimetres) -> Floats:
    """Distance (D, H, W) of each voxel to a voxel, in mm."""
    each = zip(shape, centre, spacing_mm, strict=True)
    z, y, x = np.ix_(*(((np.arange(n) - c) * step).astype(np.float32) for n, c, step in each))
    return np.asarray(np.sqrt(z**2 + y**2 + x**2), np.float32)


def displace(anatomy: Labels, tumour: Tumour, spacing_mm: Millimetres) -> Labels:
    """Displace an anatomy (D, H, W) outwards from the centre of a tumour, up to `REACH` radii of its mass.

    A voxel at t radii takes the tissue from 9/4 push t (1 - t/3)^2 radii further in, a maximum at one radius. The skull
    is rigid: displacement fades towards the surface, and the outline of the head is kept.
    """
    radius_mm = tumour.mass_radius_mm(spacing_mm)
    distance = _distance_mm(anatomy.shape, tumour.centre, spacing_mm)
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


def _select_highest(rank: Floats, among: Mask, count: int) -> Mask:
    """The `count` voxels of `among` (D, H, W) with the highest `rank`, or all if there are fewer."""
    candidates = np.flatnonzero(among)
    if count >= candidates.size:
        return among.copy()
    chosen = np.zeros(among.shape, np.bool_)
    order = np.argpartition(-rank.ravel()[candidates], count - 1)
    chosen.flat[candidates[order[:count]]] = True
    return chosen


def _make_core(
    rng: np.random.Generator, anatomy: Labels, distance_mm: Floats, tumour: Tumour, spacing_mm: Millimetres
) -> Labels:
    """Necrosis within an enhancing rim, non-enhancing tumour on one side of both: labels (D, H, W).

    The core does not enter ventricles, and hardly the fluid of sulci and the hindbrain.
    """
    shape, radius_mm = anatomy.shape, ball_radius_mm(tumour.core * float(np.prod(spacing_mm)))
    bumps, holes, sides = (radius_mm * smooth_noise(rng, shape, spacing_mm, f * radius_mm) for f in (0.4, 0.3, 0.55))
    hindered = np.isin(anatomy, (Tissue.CSF, Tissue.HINDBRAIN_WHITE, Tissue.CEREBELLAR_GREY))
    rank = -distance_mm + tumour.roughness * bumps - 0.2 * radius_mm * hindered
    allowed = ~np.isin(anatomy, (Tissue.BACKGROUND, Tissue.VENTRICLE))
    core = _select_highest(rank, allowed, tumour.core)
    depth = radius_mm * ndimage.binary_erosion(core)
    necrosis = _select_highest(rank + 0.22 * holes + depth, core, tumour.necrosis)
    rim = ~necrosis & ndimage.binary_dilation(necrosis) & core
    enhancing = _select_highest(rank + 0.4 * sides + 2 * radius_mm * rim, core & ~necrosis, tumour.enhancing)
    kinds = [Part.NECROSIS, Part.ENHANCING, Part.NON_ENHANCING]
    return np.select([necrosis, enhancing, core], kinds, Part.NONE).astype(np.uint8)


def _add_oedema(rng: np.random.Generator, anatomy: Labels, core: Labels, count: int, spacing_mm: Millimetres) -> Labels:
    """Labels (D, H, W) of the core with oedema around it: water spreads from the core, fastest in white matter."""
    speed = np.array(WATER_SPEED, np.float32)[anatomy]
    speed = np.minimum(1, speed * np.exp(0.6 * smooth_noise(rng, anatomy.shape, spacing_mm, 4.5) - 0.2))
    solid = core > 0
    step = [2.5 / s for s in spacing_mm]
    water = solid.astype(np.float32)
    for _ in range(10):
        water = ndimage.gaussian_filter(water, step, truncate=2) * speed
        water[solid] = 1
    wet = _select_highest(water, (water > 0) & ~solid, count)
    return np.where(wet, np.uint8(Part.OEDEMA), core)


@dataclass(frozen=True)
class Scanner:
    """Parameters of the scan of one sequence."""

    gain: float  # intensity of white matter in the file
    tissues: tuple[float, ...]  # brightness of each `Tissue`
    lesions: tuple[float, ...]  # brightness of each `Part`
    texture: tuple[float, float, float]  # weights of slow and of fine texture, and of texture in the tumour
    blur: float  # standard deviation of the point spread, in voxels
    bias: float  # amplitude of the logarithm of the bias field
    noise: float  # standard deviation of the noise in each channel, relative to white matter


def draw_scanner(rng: np.random.Generator, sequence: str) -> Scanner:
    """Draw the parameters of one sequence; its fields of noise come from the same generator afterwards."""
    tissues = np.array(TISSUES[sequence]) * np.exp(rng.normal(0, 0.025, len(Tissue)))
    lesions = np.array(LESIONS[sequence]) * np.exp(rng.normal(0, 0.06, len(LESIONS[sequence])))
    return Scanner(
        gain=log_uniform(rng, 300, 1200),
        tissues=tuple(tissues.tolist()),
        lesions=tuple(lesions.tolist()),
        texture=(rng.normal(0.03, 0.01), rng.uniform(0.02, 0.035), rng.uniform(0.05, 0.1)),
        blur=rng.uniform(0.45, 0.65),
        bias=rng.uniform(0.02, 0.07),
        noise=rng.uniform(0.02, 0.04),
    )


def paint(rng: np.random.Generator, anatomy: Labels, lesion: Labels, spacing_mm: Millimetres) -> dict[str, Array]:
    """The four sequences as int16 (D, H, W): background exactly 0, brain at least 1."""
    shape, inside = anatomy.shape, anatomy != Tissue.BACKGROUND
    slow, fine, lumps, sheets = (smooth_noise(rng, shape, spacing_mm, blur_mm) for blur_mm in (12.0, 2.6, 5.0, 3.5))
    texture = (slow, fine, lumps * (lesion != Part.NONE))
    sulci = (anatomy == Tissue.CSF) & (lesion == Part.NONE)
    vessels = sulci & (np.abs(sheets) < 0.1)
    opacity, images = np.array(OPACITY, np.float32)[lesion], {}
    for sequence in TISSUES:
        scanner = draw_scanner(rng, sequence)
        bias = np.exp(scanner.bias * smooth_noise(rng, shape, spacing_mm, 60.0))
        bright = np.array(scanner.tissues, np.float32)[anatomy]
        bright[vessels] *= VESSELS[sequence]
        bright += opacity * (np.array(scanner.lesions, np.float32)[lesion] - bright)
        bright *= sum((weight * field for weight, field in zip(scanner.texture, texture, strict=True)), 1)
        images[sequence] = _acquire(rng, bright * bias, inside, scanner)
    return images


def _acquire(rng: np.random.Generator, scene: Floats, inside: Mask, scanner: Scanner) -> Array:
    """A scene (D, H, W) as a scanner stores it, int16: blurred within the brain, with Rician noise."""
    weight = ndimage.gaussian_filter(inside.astype(np.float32), scanner.blur)
    blurred = ndimage.gaussian_filter(scene, scanner.blur)[inside] / weight[inside]
    real, imaginary = scanner.noise * rng.standard_normal((2, blurred.size), dtype=np.float32)
    image = np.zeros(inside.shape, np.int16)
    image[inside] = np.clip(scanner.gain * np.hypot(blurred + real, imaginary), 1, np.iinfo(np.int16).max)
    return image
